"""A disk that can be full, and that nothing leaves mounted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from ops.drills import tmpfs

if lack := tmpfs.lacks():
    pytest.skip(lack, allow_module_level=True)

_MOUNT_AND_DIE: Final = """
import os, signal, sys
from pathlib import Path
from ops.drills import tmpfs
with tmpfs.mounted(Path(sys.argv[1])) as disk:
    print(os.path.ismount(disk), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_disk_is_full_until_the_ballast_is_gone(tmp_path: Path) -> None:
    """What was moved there is found in its old place, and cannot grow until there is room."""
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


def test_whoever_is_killed_leaves_nothing_mounted(tmp_path: Path) -> None:
    """SIGKILL lets nobody clean up, so another process does."""
    disk = tmp_path / "disk"
    command = [sys.executable, "-c", _MOUNT_AND_DIE, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "True\n")
    end = time.monotonic() + 5
    while os.path.ismount(disk) and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.ismount(disk)
