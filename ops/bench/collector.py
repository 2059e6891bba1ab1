"""Accepts OTLP exports and drops them: `python -m ops.bench.collector PORT`."""

import sys

from aiohttp import web


async def _accept(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(content_type="application/x-protobuf")


if __name__ == "__main__":
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/traces", _accept)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
