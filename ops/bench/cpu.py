"""The CPU time of a process and all its descendants, those that have ended included."""

import psutil


def seconds(pid: int) -> float:
    """What the process and its descendants have used so far, in user and in kernel mode.

    The difference of two readings is what was used in between; a descendant that ended meanwhile counts if its
    parent waited for it.
    """
    root = psutil.Process(pid)
    return sum(_own_and_reaped(process) for process in (root, *root.children(recursive=True)))


def _own_and_reaped(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # ended since it was listed: its parent has its time
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
