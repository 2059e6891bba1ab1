"""The bounds of whatever is not the subject of a test, so that no test fails because a core was busy."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

PATIENCE_SECONDS: Final = 120  # the longest that a test waits for what takes seconds on an idle machine

# The same for a service that is a process, as long as its settings allow: twice the wait for a connection, the
# connection and the statement have to take less than a load balancer waits.
_SECONDS: Final = "14"
PATIENT_SERVICE: Final[Mapping[str, str]] = {
    "DB_ACQUIRE_SECONDS": _SECONDS,
    "DB_CONNECT_SECONDS": _SECONDS,
    "DB_STATEMENT_SECONDS": _SECONDS,
    "SHUTDOWN_SECONDS": "120",
}
# The same where many requests wait for one slot, one after the other.
PATIENT_QUEUE: Final[Mapping[str, str]] = {
    "DB_ACQUIRE_SECONDS": "22",
    "DB_CONNECT_SECONDS": "7",
    "DB_STATEMENT_SECONDS": "7",
}


async def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true.

    Raises:
        TimeoutError: if it never is.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.01)
