"""A handler runs without a task while it only waits for answers, and in one from its first other wait on."""

import asyncio

import pytest

from svc.answers import Answer, Handling, in_task, run


class Runner:
    """Runs a coroutine as a connection does."""

    def __init__(self, handling: Handling) -> None:
        self._handling = handling
        self.task: asyncio.Task[None] | None = None
        self.run()

    def run(self) -> None:
        self.task = run(self._handling, self.run)


async def test_an_answer_runs_its_waiter_at_once() -> None:
    """Not in a later turn of the event loop, and in no task."""
    answer: Answer[str] = Answer(asyncio.get_running_loop())
    steps: list[str] = []

    async def wait() -> None:
        steps.append("started")
        steps.append(await answer)

    runner = Runner(wait())
    assert steps == ["started"]
    answer.give("answered")
    assert steps == ["started", "answered"]
    assert runner.task is None


async def test_any_other_wait_continues_in_a_task() -> None:
    """There, time-outs work, and so do answers."""
    loop = asyncio.get_running_loop()
    other, answer, never = loop.create_future(), Answer[int](loop), loop.create_future()
    steps: list[object] = []

    async def wait() -> None:
        steps.append(await other)
        steps.append(await answer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await never
        steps.append(asyncio.current_task())

    runner = Runner(wait())
    assert runner.task is not None
    other.set_result("other")
    loop.call_soon(answer.give, 5)
    await runner.task
    assert steps == ["other", 5, runner.task]


async def test_in_task_is_for_what_needs_one() -> None:
    tasks: list[asyncio.Task[None] | None] = []

    async def wait() -> None:
        await in_task()
        tasks.append(asyncio.current_task())
        await in_task()  # in a task already
        tasks.append(asyncio.current_task())

    def start() -> None:  # as the event loop calls a connection: in no task
        runners.append(Runner(wait()))

    runners: list[Runner] = []
    asyncio.get_running_loop().call_soon(start)
    await asyncio.sleep(0)
    task = runners[0].task
    assert task is not None
    await task
    assert tasks == [task, task]


async def test_the_errors_of_a_wait_reach_the_coroutine() -> None:
    """Those of what it waits for, and the cancellation of its task."""
    loop = asyncio.get_running_loop()
    failing, never = loop.create_future(), loop.create_future()
    raised: list[BaseException] = []

    async def wait() -> None:
        try:
            await failing
        except ValueError as error:
            raised.append(error)
        try:
            await never
        except asyncio.CancelledError as error:
            raised.append(error)
            raise

    runner = Runner(wait())
    assert runner.task is not None
    failing.set_exception(ValueError("wrong"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    runner.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runner.task
    assert [type(error) for error in raised] == [ValueError, asyncio.CancelledError]


async def test_nobody_waits_for_a_cancelled_answer() -> None:
    answer: Answer[int] = Answer(asyncio.get_running_loop())
    answer.cancel()
    answer.give(5)
    assert answer.cancelled()
