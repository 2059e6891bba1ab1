"""A small disk that a drill can fill."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BYTES: Final = 64 * 1024 * 1024  # four segments of PostgreSQL's write-ahead log
# The process that mounted the disk may be killed. This shell then reads the end of its stdin and unmounts the disk.
_GUARD: Final = 'mount -t tmpfs -o "size=$1" tmpfs "$0" && echo mounted && read _; umount "$0" || umount --lazy "$0"'


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Creates this folder and mounts a disk there.

    Raises:
        PermissionError: if mounting is not allowed.
    """
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


def missing() -> str:
    """Returns what this machine is missing. Empty if it can mount such a disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder, "disk")):
                return ""
        except PermissionError:
            return "mounting a file system is not allowed; it needs root"


def move(folder: Path, disk: Path) -> None:
    """Moves a folder to the disk and leaves a link in its place."""
    owner = folder.stat().st_uid
    moved = Path(shutil.move(folder, disk))
    for path in (moved, *moved.rglob("*")):
        shutil.chown(path, owner)
    folder.symlink_to(moved.resolve())


def fill(disk: Path) -> Path:
    """Writes a file that fills the disk. Returns its path, so that it can be removed."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast
