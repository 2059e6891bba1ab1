"""A server that accepts connections, reads what they send and never responds: `python -m ops.drills.control`.

It prints its port. Attackers of this server load the machine as much as attackers of the service do, but they do not
load the service.
"""

import asyncio
import resource

import uvloop


class _Sink(asyncio.Protocol):
    """One connection."""


async def _listen() -> None:
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_listen())
