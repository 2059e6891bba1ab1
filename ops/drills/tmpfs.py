"""A small disk of one's own, to be filled."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BYTES: Final = 64 * 1024 * 1024  # four segments of PostgreSQL's log
# Whoever holds its stdin may be killed: it sees that end, and nothing stays mounted.
_GUARD: Final = 'mount -t tmpfs -o "size=$1" tmpfs "$0" && echo mounted && read _; umount "$0" || umount --lazy "$0"'


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """The disk at this folder, which is made; PermissionError where mounting is not allowed."""
    folder.mkdir()
    command = ["sh", "-c", _GUARD, str(folder), str(_BYTES)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as guard:
        assert guard.stdout is not None
        if not guard.stdout.readline():
            raise PermissionError(folder)
        try:
            yield folder
        finally:
            guard.communicate()


def lacks() -> str:
    """What is missing for it; empty where it can be had."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder, "disk")):
                return ""
        except PermissionError:
            return "mounting a file system, as root may, is not allowed"


def move(folder: Path, disk: Path) -> None:
    """Moves a folder to the disk, and leaves a link to it in its place."""
    owner = folder.stat().st_uid
    moved = Path(shutil.move(folder, disk))
    for path in (moved, *moved.rglob("*")):
        shutil.chown(path, owner)
    folder.symlink_to(moved.resolve())


def fill(disk: Path) -> Path:
    """Takes all the room that is left, by a file to be removed again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast
