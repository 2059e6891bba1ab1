"""aiohttp's low-level server with a fixed response: no application, router, middleware or database."""

import asyncio
import os

import uvloop
from aiohttp import web


async def respond(_: web.BaseRequest) -> web.Response:
    return web.Response(body=b'{"status":"alive"}\n', content_type="application/json")


async def serve() -> None:
    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
