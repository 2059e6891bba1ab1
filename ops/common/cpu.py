"""CPU time of process trees and of the machine.

A process's time is found in /proc while it exists, also as a zombie, and in its parent's times once the parent has
waited for it. So the sum over a tree stays complete while its processes come and go, but for those whose parent ignores
SIGCHLD or ends first. Where such a process had been counted before, its loss is an error. Where it had not, its time
seems to be of other programs.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil

_MAX_READ_SECONDS: Final = 10.0


class CpuTimeLost(Exception):
    """The CPU time of a process tree fell, so a process has ended whose time its parent did not take over."""


class Meter:
    """Reads the CPU time of process trees again and again.

    Args:
        roots: the first process of each tree; a tree may be part of another one.
    """

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._last = [0.0] * len(roots)

    def read(self) -> list[float]:
        """CPU seconds of each tree so far, in user and in kernel mode, at one moment.

        If one of the processes ends meanwhile, its time is counted twice or not at all, so that it reads again.

        Raises:
            CpuTimeLost: a tree has fewer than at the last reading, or processes ended in every reading for 10 s.
            psutil.NoSuchProcess: a root has ended.
        """
        found = _read(self._roots)
        for root, now, last in zip(self._roots, found, self._last, strict=True):
            if now < last:
                raise CpuTimeLost(
                    f"the CPU time of process {root} and its descendants fell from {last:.2f} to {now:.2f} s: "
                    "a process ended whose parent did not wait for it"
                )
        self._last = found
        return found


@dataclass(frozen=True)
class Machine:
    """CPU seconds since the start of the machine, of the CPUs that this process may use.

    In a container they are the host's, unless the container has a /proc/stat of its own. So they include the work of
    other containers on these CPUs, as they should, since it disturbs. A container that is limited by a quota, not to
    some CPUs, may use all CPUs of the host; shares are then of all of them.

    Attributes:
        all: of any kind.
        busy: of processes, in user and in kernel mode.
        steal: in which a CPU had work, but the hypervisor ran something else; 0 where the system does not say.
    """

    all: float
    busy: float
    steal: float

    def __sub__(self, earlier: "Machine") -> "Machine":
        """What passed since an earlier reading."""
        return Machine(self.all - earlier.all, self.busy - earlier.busy, self.steal - earlier.steal)


def machine() -> Machine:
    """The CPU seconds of the machine so far."""
    cpus: list[Any] = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cpus = [cpus[number] for number in os.sched_getaffinity(0) if number < len(cpus)]

    def total(*kinds: str) -> float:
        return sum(getattr(times, kind, 0.0) for times in cpus for kind in kinds)

    busy = total("user", "nice", "system")  # user includes the time of virtual machines
    interrupts, packets = total("irq"), total("softirq")
    # A kernel that does not measure interrupts counts none, and adds their time to that of the processes that they
    # interrupt. What it shows as softirq, mostly of network packets, is then part of the processes' times.
    is_in_processes = not interrupts
    return Machine(
        busy + interrupts + packets + total("idle", "iowait", "steal"),
        busy + packets * is_in_processes,
        total("steal"),
    )


def _read(roots: Sequence[int]) -> list[float]:
    end = time.monotonic() + _MAX_READ_SECONDS
    before = _processes()
    while time.monotonic() < end:
        found = _processes()
        after = set(psutil.pids())
        # One that ended before it was read is only in the trees before; its parent may have been read even earlier.
        if all(_tree(processes, root) <= after for processes in (before, found) for root in roots):
            sums = [sum(_own_and_reaped(found[pid]) for pid in _tree(found, root)) for root in roots]
            return [round(each, 6) for each in sums]  # the order of the summands must not matter
        before = found
    raise CpuTimeLost("processes end too often to read their CPU time")


def _processes() -> dict[int, Mapping[str, Any]]:
    return {process.pid: process.info for process in psutil.process_iter(["ppid", "cpu_times"])}


def _tree(processes: Mapping[int, Mapping[str, Any]], root: int) -> set[int]:
    if root not in processes:
        raise psutil.NoSuchProcess(root)
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process["ppid"], []).append(pid)
    tree = [root]
    for pid in tree:  # which grows meanwhile
        tree += children.get(pid, [])
    return set(tree)


def _own_and_reaped(process: Mapping[str, Any]) -> float:
    times = process["cpu_times"]
    if times is None:  # the system does not show it
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
