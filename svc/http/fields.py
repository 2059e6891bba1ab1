"""The fields of a request: from its query, or from a form or a JSON object in its body."""

import asyncio
import json
import re
from collections.abc import Iterable
from typing import Final, TypeAlias
from urllib.parse import unquote_plus

from aiohttp import web

from svc.errors import InvalidField
from svc.http.messages import BODY_MAX_BYTES, Request
from svc.http.problems import BadRequest, BodyTooLarge, BodyTooSlow, ExpectationFailed, UnsupportedBody

BODY_SECONDS: Final = 10.0

_Pairs: TypeAlias = list[tuple[str, str]]
_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")


def read_query(request: Request, *known: str) -> dict[str, str]:
    """The query's fields, each of which has to be known, and given once."""
    return _unique(_pairs(request.rel_url.raw_query_string, "query"), known)


async def read(request: Request, *known: str, numbers: Iterable[str] = ()) -> dict[str, str]:
    """All `known` fields, from the query and the body together.

    In JSON, a field is a string; one of `numbers` may be a number, and arrives as it was written, digit for digit.

    Raises:
        InvalidField: a field is missing, unknown, given twice, or not of its type.
        BadRequest, BodyTooLarge, BodyTooSlow, UnsupportedBody, ExpectationFailed: the body is at fault.
    """
    pairs = _pairs(request.rel_url.raw_query_string, "query")
    if request.body_exists:
        pairs += await _body_pairs(request, frozenset(numbers))
    fields = _unique(pairs, known)
    for name in known:
        if name not in fields:
            raise InvalidField(name, f"{name} is missing; give it in the query, or in a JSON object or a form.")
    return fields


def _unique(pairs: _Pairs, known: Iterable[str]) -> dict[str, str]:
    known = tuple(known)
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise InvalidField(name[:40], f"There is no such field here; there is {' and '.join(known)}.")
        if name in fields:
            raise InvalidField(name, f"{name} is given twice; give it once, in the query or in the body.")
        fields[name] = value
    return fields


def _pairs(text: str, place: str) -> _Pairs:
    """The fields of a query or a form, undone from percent-encoding as strictly as that can be."""
    pairs = []
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        pairs.append((_decode(name, place, place), _decode(value, name, place)))
    return pairs


def _decode(text: str, field: str, place: str) -> str:
    if _BROKEN_ESCAPE.search(text):
        raise InvalidField(field, f"In a {place}, a percent sign is written %25, and here one stands alone.")
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidField(field, f"The {place} has bytes that are not UTF-8.") from None


async def _body_pairs(request: Request, numbers: frozenset[str]) -> _Pairs:
    body = await _body(request)
    if not body:
        return []
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedBody("The body is compressed; send it as it is.")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedBody("The body is in another encoding; send it in UTF-8.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The body has bytes that are not UTF-8.") from None
    match request.content_type:
        case "application/json":
            return _json_pairs(text, numbers)
        case "application/x-www-form-urlencoded":
            return _pairs(text, "form")
        case _:
            raise UnsupportedBody("A body has to be application/json or application/x-www-form-urlencoded.")


_TOO_LARGE: Final = f"The body is larger than {BODY_MAX_BYTES} bytes."


async def _body(request: Request) -> bytes:
    if (request.content_length or 0) > BODY_MAX_BYTES:
        raise BodyTooLarge(_TOO_LARGE)
    await _meet_expectation(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(_TOO_LARGE) from None
    except TimeoutError:
        raise BodyTooSlow(f"The body did not arrive within {BODY_SECONDS:g} seconds.") from None
    except web.RequestPayloadError:
        raise BadRequest("The body is not what its headers announce.") from None


async def _meet_expectation(request: Request) -> None:
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise ExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # What counts as the answer starts after this.
    request.writer.output_size = 0


class _Number(str):
    """A JSON number as it was written, so that no digit of it is lost to a float."""

    __slots__ = ()


class _Object(list[tuple[str, object]]):
    """A JSON object with its doubles still in it."""


def _json_pairs(text: str, numbers: frozenset[str]) -> _Pairs:
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_Object,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
        )
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(parsed, _Object):
        raise BadRequest("The body has to be a JSON object.")
    return [(name, _json_text(name, value, numbers)) for name, value in parsed]


def _json_text(name: str, value: object, numbers: frozenset[str]) -> str:
    if not isinstance(value, str) or (isinstance(value, _Number) and name not in numbers):
        kinds = "a string or a number" if name in numbers else "a string"
        raise InvalidField(name[:40], f"In JSON, {name[:40]} has to be {kinds}.")
    return value
