"""The figures of this machine, and the pods that stand for the service's workers."""

import asyncio
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from ops.oncall.logs import METRICS
from ops.oncall.machine import Machine, _postgres
from ops.oncall.recorder import FILE
from ops.oncall.sources import Follow
from ops.oncall.state import OnCallState
from svc.postgres.settings import DatabaseSettings
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

pytestmark = pytest.mark.slow

HOST: Final = socket.gethostname()


@pytest.fixture(name="state")
def follow(short_folder: Path) -> Iterator[OnCallState]:
    """The state of a page that follows the recording."""
    state = OnCallState(Follow(short_folder / FILE))
    yield state
    state.close()


def wait_until(state: OnCallState, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        while state.step(time.time()):
            pass
        if condition():
            return
        assert time.monotonic() < end
        time.sleep(0.05)


def ask(state: OnCallState, name: str) -> list[dict[str, Any]]:
    """The rows of a saved query over all that was recorded, by the names of the columns."""
    (query,) = (query for query in state.library.queries if query.name == name)
    found = state.library.run(query.text, 0, time.time(), group=query.group)
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def workers(service: Service) -> list[psutil.Process]:
    """The worker processes, in the order of their start."""
    (parent,) = psutil.Process(service.process.pid).children()
    return sorted(parent.children(), key=lambda worker: worker.create_time())


def ready_pods(state: OnCallState) -> list[float]:
    """The numbers of ready pods that were recorded, without repetitions."""
    name = "service_number_of_running_pods"
    records = state.logs.recent(METRICS, 0, time.time() * 1000)
    numbers = [number for record in records if (number := record[name]) is not None]
    return [float(number) for number, _ in itertools.groupby(numbers)]


def test_each_worker_is_a_pod_of_its_own_name(service: Service, state: OnCallState) -> None:
    """A worker that hangs is the noisy pod. One that dies is missing until another has started in its place."""
    wait_until(state, lambda: {row["pod"] for row in ask(state, "noisy-pod")} == {f"{HOST}-1", f"{HOST}-2"})
    assert [row["pods"] for row in ask(state, "deployments")] == [2]
    wait_until(state, lambda: ready_pods(state)[-1:] == [2])
    first, second = workers(service)

    second.suspend()
    time.sleep(3)
    second.resume()
    wait_until(state, lambda: lags(state)[f"{HOST}-2"] > 2000)
    assert list(lags(state).values()) == sorted(lags(state).values(), reverse=True)

    first.kill()
    wait_until(state, lambda: ready_pods(state)[-3:] == [2, 1, 2])
    exits = [row for row in ask(state, "restarts") if row["event"] == "worker_exited"]
    assert [(row["pod"], row["exit_status"]) for row in exits] == [(f"{HOST}-1", -9)]


def lags(state: OnCallState) -> dict[str, float]:
    """The longest lag of each pod, in milliseconds, in the order of the saved query."""
    return {row["pod"]: row["lag_max_ms"] for row in ask(state, "noisy-pod")}


@contextmanager
def busy_core() -> Iterator[psutil.Process]:
    """Another program that uses a core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def used_seconds(process: psutil.Process) -> float:
    return float(process.cpu_times().user)


async def test_what_other_programs_use_is_not_counted(
    service: Service, database_settings: DatabaseSettings, short_folder: Path
) -> None:
    """While they use all cores, node and database of an idle service stay far below the limits of the alarms."""
    (child,) = psutil.Process(service.process.pid).children()
    machine = Machine(child.pid, database_settings.dsn, short_folder / FILE)
    await machine.sample(0)
    with ExitStack() as stack:
        others = [stack.enter_context(busy_core()) for _ in range(psutil.cpu_count() or 1)]
        while sum(map(used_seconds, others)) < 2:  # noqa: ASYNC110 - the kernel sets no event
            await asyncio.sleep(0.1)
        found = {name: value for document in await machine.sample(1) for name, value in document.items()}

    assert found["node_cpu_utilization"] < 45
    assert found["CPUUtilization"] < 45
    assert found["node_memory_utilization"] < 100 * 2**30 / psutil.virtual_memory().total
    assert found["FreeableMemory"] > psutil.virtual_memory().total - 2**30
    assert found["FreeStorageSpace"] > psutil.disk_usage(str(short_folder)).total - 2**30
    assert 0 < found["node_filesystem_utilization"] < 1


def test_a_session_of_another_machine_is_no_process_here() -> None:
    """No process here has its number, or the process is not PostgreSQL's."""
    with busy_core() as other:
        assert _postgres(other.pid) == []
    assert _postgres(other.pid) == []
