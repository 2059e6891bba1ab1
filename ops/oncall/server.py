"""The HTTP server of the page: its files and its JSON API."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from aiohttp import web
from yarl import URL

from ops.oncall.files import FILES
from ops.oncall.logs import LINES
from ops.oncall.markdown import to_html
from ops.oncall.state import CLOUDWATCH, OnCallState
from ops.oncall.traces import Row, Span, TraceFilter

_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

MINUTES: Final = (5, 15, 60, 180)
MAX_RANGE_SECONDS: Final = 86400

POLL_SECONDS: Final = 0.2  # between reads of a recording without new lines
# Between reads of one with more lines. A request takes several turns of the event loop, and each would wait for a read.
_PAUSE_SECONDS: Final = 0.005
_MAX_TRACES: Final = 100
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class NotFound(LookupError):
    """There is no such file, trace or runbook."""


class BadRequest(ValueError):
    """The request is not valid; the message names the valid values."""


class Server:
    """Serves the page.

    Args:
        state: that the page shows.
        runbooks: a folder with a file for each alarm.
        clock: the current time, in seconds since 1970.
    """

    def __init__(
        self, state: OnCallState, runbooks: Path = CLOUDWATCH / "runbooks", clock: Callable[[], float] = time.time
    ) -> None:
        self._state = state
        self._runbooks = runbooks
        self._clock = clock

    def app(self, *, is_loopback: bool) -> web.Application:
        """The application.

        Args:
            is_loopback: whether only this machine can reach it. It then accepts only the names of this machine as
                Host, so that a web page cannot read it through DNS rebinding.
        """
        app = web.Application(middlewares=[_guard(is_loopback=is_loopback), _problems])
        app.router.add_get("/", self._file)
        app.router.add_get("/page/{name}", self._file)
        app.router.add_get("/api/head", self._head)
        app.router.add_get("/api/view", self._view)
        app.router.add_get("/api/queries", self._queries)
        app.router.add_get("/api/query", self._query)
        app.router.add_get("/api/tail", self._tail)
        app.router.add_get("/api/traces", self._traces)
        app.router.add_get("/api/trace/{id}", self._trace)
        app.router.add_get("/api/runbook/{alarm}", self._runbook)
        app.cleanup_ctx.append(self._run_reader)
        return app

    async def _run_reader(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._read())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        self._state.close()

    async def _read(self) -> None:
        while True:  # noqa: ASYNC110 - asyncio cannot wait for a file to grow
            await asyncio.sleep(_PAUSE_SECONDS if self._state.step(self._clock()) else POLL_SECONDS)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name", "index.html")
        if name not in FILES:
            raise NotFound(f"There is no file {name}")
        return web.FileResponse(FILES[name], headers={"Cache-Control": "no-cache"})  # the browser revalidates its copy

    async def _head(self, _: web.Request) -> web.Response:
        return _json(self._state.head(self._clock()))

    async def _view(self, request: web.Request) -> web.Response:
        dashboard, wall = request.query.get("dashboard", "service"), self._clock()
        start, end = _range(request.query, self._state.now(wall))
        try:
            return _json(self._state.view(dashboard, start, end, wall))
        except KeyError:
            names = " or ".join(self._state.head(self._clock())["dashboards"])
            raise BadRequest(f"dashboard must be {names}") from None

    async def _queries(self, _: web.Request) -> web.Response:
        return _json(self._state.library.queries)

    async def _query(self, request: web.Request) -> web.Response:
        text, group = request.query.get("q", ""), request.query.get("group", LINES)
        start, end = _range(request.query, self._state.now(self._clock()))
        try:
            return _json(await self._state.library.explore(text, start, end, group))
        except ValueError as error:
            raise BadRequest(str(error)) from error

    async def _tail(self, request: web.Request) -> web.Response:
        text, group = request.query.get("q", ""), request.query.get("group", LINES)
        added = request.query.get("added", "")
        if not re.fullmatch(r"[0-9]{1,15}", added):
            raise BadRequest("added must be the number from the response before")
        try:
            return _json(self._state.library.tail(text, int(added), group))
        except ValueError as error:
            raise BadRequest(str(error)) from error

    async def _traces(self, request: web.Request) -> web.Response:
        traces = self._state.traces
        found = traces.find(_filter(request.query, *_range(request.query, self._state.now(self._clock()))))
        summaries = [_summary(span) for span in found[:_MAX_TRACES]]
        return _json({"traces": summaries, "matched": len(found), "kept": len(traces), "routes": traces.routes()})

    async def _trace(self, request: web.Request) -> web.Response:
        trace_id = request.match_info["id"]
        if not re.fullmatch(r"[0-9a-f]{32}", trace_id):
            raise BadRequest("a trace ID has 32 hexadecimal digits")
        try:
            rows = self._state.traces.waterfall(trace_id)
        except KeyError:
            raise NotFound(f"There is no trace {trace_id}: it was not sampled, or it is too old") from None
        return _json({"trace_id": trace_id, "rows": [_row(row) for row in rows]})

    async def _runbook(self, request: web.Request) -> web.Response:
        alarm = request.match_info["alarm"]
        file = self._runbooks / f"{alarm}.md"
        if not re.fullmatch(r"[a-z0-9-]+", alarm) or not file.is_file():
            raise NotFound(f"There is no runbook for {alarm}")
        return _json({"alarm": alarm, "html": to_html(file.read_text(encoding="utf-8"))})


def _guard(*, is_loopback: bool) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if is_loopback and URL(f"http://{request.headers.get('Host', '')}").host not in _LOOPBACK:
            response: web.StreamResponse = _json({"problem": "This page accepts only localhost as Host"}, 421)
        else:
            response = await handler(request)
        response.headers.update(_HEADERS)
        return response

    return guard


@web.middleware
async def _problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as error:
        return _json({"problem": str(error)}, 400)
    except NotFound as error:
        return _json({"problem": str(error)}, 404)
    except web.HTTPException as error:
        return _json({"problem": error.reason}, error.status)


def _json(body: Any, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    data = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=data, status=status, content_type="application/json", headers=headers)


def _range(query: Mapping[str, str], now: float) -> tuple[float, float]:
    """The time range of a request, in seconds since 1970: the last `minutes`, or from one time to another."""
    if "from" in query or "to" in query:
        start, end = _moment(query, "from"), _moment(query, "to")
        if not 0 < end - start <= MAX_RANGE_SECONDS:
            raise BadRequest(f"from must be before to, by at most {MAX_RANGE_SECONDS // 3600} hours")
        return start, end
    text = query.get("minutes", "15")
    if text not in map(str, MINUTES):
        raise BadRequest(f"minutes must be one of {', '.join(map(str, MINUTES))}")
    return now - 60 * int(text), now


def _moment(query: Mapping[str, str], name: str) -> float:
    text = query.get(name, "")
    if not re.fullmatch(r"[0-9]{1,11}", text):
        raise BadRequest(f"{name} must be a time in whole seconds since 1970: a time range has both from and to")
    return float(text)


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    text = query.get(name, "") or str(default)
    if not re.fullmatch(r"\d{1,9}(\.\d{1,3})?", text):
        raise BadRequest(f"{name} must be a number of at least 0")
    return float(text)


def _filter(query: Mapping[str, str], start: float, end: float) -> TraceFilter:
    status, trace_id = query.get("status", "").lower(), query.get("id", "").lower()
    if not re.fullmatch(r"([1-5]([0-9]{2}|xx))?", status):
        raise BadRequest("status must be a code such as 503, or a class such as 5xx")
    if not re.fullmatch(r"[0-9a-f]{0,32}", trace_id):
        raise BadRequest("id must be a trace ID or its start: up to 32 hexadecimal digits")
    return TraceFilter(
        start=start,
        end=end,
        route=query.get("route", ""),
        status=status,
        min_ms=_number(query, "min_ms", 0.0),
        only_errors=query.get("errors") == "1",
        with_probes=query.get("probes") == "1",
        trace_id=trace_id,
    )


def _summary(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id,
        "name": span.name,
        "start": span.start,
        "duration_ms": round(span.seconds * 1000, 3),
        "error": span.error,
        "status": span.attributes.get("http.response.status_code"),
    }


def _row(row: Row) -> dict[str, Any]:
    span = row.span
    return {
        **_summary(span),
        "span_id": span.span_id,
        "kind": span.kind,
        "depth": row.depth,
        "offset_ms": row.offset_ms,
        "attributes": span.attributes,
        "service": span.resource.get("service.name"),
    }
