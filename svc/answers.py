"""Lets a request's handler run without a task of its own.

asyncio starts each task, and wakes it after each wait, in a turn of the event loop, which costs more than most of what
the handler does in it. So a connection runs its handler's coroutine itself, at once, up to the first wait. If that is
for an Answer, whoever gives the answer also runs the handler on. For any other wait, a task runs the rest.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeAlias, TypeVar

Result = TypeVar("Result")

Handling: TypeAlias = Coroutine[Any, Any, None]


class Answer(asyncio.Future[Result]):
    """A future that may have one waiting coroutine that is in no task.

    Attributes:
        resume: runs that coroutine on; None if there is none.
    """

    __slots__ = ("resume",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.resume: Callable[[], None] | None = None

    def give(self, result: Result) -> None:
        """Sets the result, and runs on at once who waits for it. Does nothing where that was cancelled."""
        if not self.done():
            self.set_result(result)
            if self.resume is not None:
                self.resume()


def run(handling: Handling, resume: Callable[[], None]) -> asyncio.Task[None] | None:
    """Runs a coroutine up to its next wait.

    Args:
        handling: the coroutine.
        resume: calls this function again, once the Answer that it waits for is given.

    Returns:
        The task that runs the rest, where it waits for something else.
    """
    try:
        awaited = handling.send(None)
    except StopIteration:
        return None
    if type(awaited) is Answer:
        awaited.resume = resume
        return None
    return asyncio.create_task(_rest(handling, awaited))


@coroutine
def _rest(handling: Handling, awaited: object) -> Generator[Any, Any, None]:
    while True:
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 - a cancellation, too, is for the coroutine
            raised: BaseException | None = error
        else:
            raised = None
        try:
            awaited = handling.send(None) if raised is None else handling.throw(raised)
        except StopIteration:
            return


async def in_task() -> None:
    """Lets the rest of the handler run in a task, which asyncio's time-outs need."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)
