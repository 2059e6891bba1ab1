"""Takes connections and what they send, and answers nothing: `python -m ops.drills.decoy` prints the port.

Attackers who attack it load this machine as much as those who attack the service, and trouble the service not at all.
"""

import asyncio
import resource

import uvloop


class _Sink(asyncio.Protocol):
    """One connection."""


async def _listen() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_listen())
