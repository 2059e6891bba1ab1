"""The lower bound: the same response to any bytes. Shows what the sockets and the event loop cost by themselves."""

import asyncio
import os
from typing import cast

import uvloop

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n"
    b"Date: Mon, 23 Nov 2026 12:00:00 GMT\r\nX-Request-Id: 00000000000000000000000000000000\r\n\r\n"
    b'{"status":"alive"}\n'
)


class Protocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _: bytes) -> None:
        self._transport.write(RESPONSE)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
