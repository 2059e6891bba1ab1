"""The CPU time of a process and all its descendants, including those that have ended."""

import psutil


def seconds(pid: int) -> float:
    """CPU seconds of the process and its descendants so far, in user and in kernel mode.

    The difference of two readings is the CPU time in between. A descendant that ended in between counts if its parent
    waited for it.
    """
    root = psutil.Process(pid)
    return sum(_own_and_reaped(process) for process in (root, *root.children(recursive=True)))


def _own_and_reaped(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # ended since it was listed; its time is now in its parent
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
