"""Reads the fields of a request from its query, or from a form or a JSON object in its body."""

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from aiohttp import HttpVersion10, web

from svc.answers import in_task
from svc.errors import InvalidField
from svc.http.messages import MAX_BODY_BYTES, Request
from svc.http.problems import BadRequest, BodyTooLarge, BodyTooSlow, ExpectationFailed, UnsupportedBody
from svc.http.slots import without_slot

BODY_SECONDS: Final = 10.0
TOO_LARGE: Final = f"The body is larger than {MAX_BODY_BYTES} bytes."
WRONG_TYPE: Final = "A body must be application/json or application/x-www-form-urlencoded."

_Pairs: TypeAlias = Iterable[tuple[str, str]]
_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
# More zeros than this are in no valid number, so that text stays as it is: written out, it might take gigabytes.
_EXPONENT: Final = re.compile(r".*[eE][+-]?0*[0-9]{1,2}")
_CHARSET: Final = re.compile(r"""(?:^|;)\s*charset=["']?([^;"'\s]*)""")


def read_query(request: Request, *known: str) -> dict[str, str]:
    """The fields of the query.

    Raises:
        InvalidField: a field is unknown, given twice, or not valid percent-encoded UTF-8.
    """
    return collect({}, _pairs(request.rel_url.raw_query_string, "query"), known)


async def read(request: Request, *known: str, numbers: Iterable[str] = ()) -> dict[str, str]:
    """All `known` fields, from the query and the body together.

    In JSON, a field is a string. A field of `numbers` may also be a number, whose digits are returned as written;
    only a short exponent is written out: 1.5E2 is 150.

    Raises:
        InvalidField: a field is missing, unknown, given twice, or of the wrong type.
        BadRequest, BodyTooLarge, BodyTooSlow, UnsupportedBody, ExpectationFailed: the body is not valid.
    """
    fields = read_query(request, *known)
    if request.body_exists:
        collect(fields, await _body_pairs(request, known, frozenset(numbers)), known)
    for name in known:
        if name not in fields:
            raise InvalidField(name, f"{name} is missing; send it in the query, or in the body as JSON or a form.")
    return fields


def collect(fields: dict[str, str], pairs: _Pairs, known: Sequence[str]) -> dict[str, str]:
    """Adds the pairs to the fields. The first wrong one is an error, so thousands of them cost no more than one."""
    for name, value in pairs:
        if name not in known:
            others = f"the known fields are {' and '.join(known)}" if known else "this path has none in its query"
            raise InvalidField(name[:40], f"This field is unknown; {others}.")
        if name in fields:
            raise InvalidField(name, f"{name} is given twice; give it once, in the query or in the body.")
        fields[name] = value
    return fields


def _pairs(text: str, place: str) -> _Pairs:
    """The fields of a query or a form. Invalid percent-encoding is an error."""
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        yield _decode(name, place, place), _decode(value, name[:40], place)


def _decode(text: str, field: str, place: str) -> str:
    if _BROKEN_ESCAPE.search(text):
        raise InvalidField(
            field, f"The {place} has a percent sign without two hexadecimal digits; write a percent sign as %25."
        )
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise InvalidField(field, f"The {place} has bytes that are not UTF-8.") from None


async def _body_pairs(request: Request, known: Sequence[str], numbers: frozenset[str]) -> _Pairs:
    body = await _body(request)
    if not body:
        return []
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedBody("The body is compressed; send it uncompressed.")
    content_type, charset = _content_type(request)
    if charset not in ("utf-8", "utf8"):
        raise UnsupportedBody("The body has another character encoding; send it in UTF-8.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The body has bytes that are not UTF-8.") from None
    match content_type:
        case "application/json":
            return _json_pairs(text.removeprefix("\ufeff"), known, numbers)  # some editors and libraries write it
        case "application/x-www-form-urlencoded":
            return _pairs(text, "form")
        case _:
            raise UnsupportedBody(WRONG_TYPE)


def _content_type(request: Request) -> tuple[str, str]:
    """The media type and the charset of the body, in lower case.

    aiohttp reads them with Python's parser for e-mail, which takes 40 ms for some values and fails for others.
    """
    content_type, _, parameters = request.headers.get("Content-Type", "").lower().partition(";")
    charset = _CHARSET.search(parameters)
    return content_type.strip(), charset[1] if charset else "utf-8"


async def _body(request: Request) -> bytes:
    length = request.headers.get("Content-Length", "").lstrip("0")
    if len(length) > len(str(MAX_BODY_BYTES)) or int(length or 0) > MAX_BODY_BYTES:
        raise BodyTooLarge(TOO_LARGE)
    _meet_expectation(request)
    try:
        if request.content.is_eof():  # it came with its head, as most do: this needs neither a task nor a time-out
            body = request.content.read_nowait()
        else:
            async with without_slot(request):
                body = await _receive(request)
    except web.RequestPayloadError:
        raise BadRequest("The body does not match its headers.") from None
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(TOO_LARGE)
    return body


async def _receive(request: Request) -> bytes:
    """The body, or more than MAX_BODY_BYTES of it."""
    body = bytearray()
    await in_task()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while len(body) <= MAX_BODY_BYTES and (piece := await request.content.readany()):
                body += piece
                if request.content.at_eof():
                    break
                await asyncio.sleep(0)  # a body of thousands of small chunks takes several steps of the event loop
    except TimeoutError:
        raise BodyTooSlow(f"The body did not arrive within {BODY_SECONDS:g} seconds.") from None
    return bytes(body)


def _meet_expectation(request: Request) -> None:
    expected = request.headers.get("Expect")
    if expected is None or request.version == HttpVersion10:  # which has no 100 Continue (RFC 9110, section 10.1.1)
        return
    if expected.lower() != "100-continue":
        raise ExpectationFailed
    request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Number(str):
    """A JSON number as it was written. A float would lose digits."""

    __slots__ = ()


class _Object(list[tuple[str, object]]):
    """A JSON object that keeps repeated names."""


def _json_pairs(text: str, known: Sequence[str], numbers: frozenset[str]) -> _Pairs:
    """The fields of a JSON object; of an unknown one, only the name."""
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_Object,
            parse_int=_Number,
            parse_float=_without_exponent,
            parse_constant=_Number,
        )
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(parsed, _Object):
        raise BadRequest("The body must be a JSON object.")
    return ((name, _json_text(name, value, numbers) if name in known else "") for name, value in parsed)


def _without_exponent(text: str) -> _Number:
    return _Number(f"{Decimal(text):f}" if _EXPONENT.fullmatch(text) else text)


def _json_text(name: str, value: object, numbers: frozenset[str]) -> str:
    if not isinstance(value, str) or (isinstance(value, _Number) and name not in numbers):
        kinds = "a string or a number" if name in numbers else "a string"
        raise InvalidField(name[:40], f"In JSON, {name[:40]} must be {kinds}.")
    return value
