"""A disk can be full, and it is always unmounted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from ops.drills import tmpfs
from tests.patience import PATIENCE_SECONDS

if reason := tmpfs.missing():
    pytest.skip(reason, allow_module_level=True)

_MOUNT_AND_DIE: Final = """
import os, signal, sys
from pathlib import Path
from ops.drills import tmpfs
with tmpfs.mounted(Path(sys.argv[1])) as disk:
    print(os.path.ismount(disk), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_disk_is_full_until_the_ballast_is_removed(tmp_path: Path) -> None:
    """A folder that was moved there keeps its path. Its files cannot grow while the disk is full."""
    log = tmp_path / "log"
    log.mkdir()
    (log / "segment").write_bytes(b"a")
    with tmpfs.mounted(tmp_path / "disk") as disk:
        tmpfs.move(log, disk)
        ballast = tmpfs.fill(disk)
        with pytest.raises(OSError, match="No space left"):
            (log / "segment").write_bytes(bytes(10_000))
        ballast.unlink()
        (log / "segment").write_bytes(bytes(10_000))
    assert not os.path.ismount(tmp_path / "disk")
    assert not log.exists()


def test_the_disk_of_a_killed_process_is_unmounted(tmp_path: Path) -> None:
    """After SIGKILL the process cannot unmount it, so another process does."""
    disk = tmp_path / "disk"
    command = [sys.executable, "-c", _MOUNT_AND_DIE, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "True\n")
    end = time.monotonic() + PATIENCE_SECONDS
    while os.path.ismount(disk) and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.ismount(disk)
