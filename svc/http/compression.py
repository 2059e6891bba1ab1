"""gzip, for long responses whose callers ask for it."""

import asyncio
import re
import zlib
from collections.abc import Mapping
from typing import ClassVar, Final, TypeAlias

from aiohttp import hdrs

from svc.http.messages import Request

MIN_BYTES: Final = 1400  # what is shorter fits into one packet anyway
# Of a list, a quarter of the bytes is left. Higher levels leave a fifth, and take three to nine times as long.
_LEVEL: Final = 1
# A window of 4 KB instead of 32 KB: as good for a list, and 32 KB of memory for each response instead of 256 KB.
_WINDOW_BITS: Final = 12
_GZIP_FORMAT: Final = 16  # added to the bits, see https://docs.python.org/3/library/zlib.html#zlib.compressobj
_MEMORY_LEVEL: Final = 5
_MAX_CODINGS: Final = 16  # that are read of a header
_WEIGHT: Final = re.compile(r"\s*q=([01](?:\.[0-9]{0,3})?)\s*")


class Identity:
    """Leaves a body as it is."""

    headers: ClassVar[Mapping[str, str]] = {}

    async def encode(self, part: bytes) -> bytes:
        """The part."""
        return part

    def end(self, part: bytes = b"") -> bytes:
        """The last part."""
        return part


class Gzip:
    """Compresses a body part by part."""

    headers: ClassVar[Mapping[str, str]] = {"Content-Encoding": "gzip"}

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_LEVEL, wbits=_GZIP_FORMAT + _WINDOW_BITS, memLevel=_MEMORY_LEVEL)

    async def encode(self, part: bytes) -> bytes:
        """The whole part, compressed: its reader need not wait for the next one."""
        return await asyncio.to_thread(self._encode, part)  # 0.5 ms for 64 KB, and up to 13 ms for the longest page

    def _encode(self, part: bytes) -> bytes:
        return self._compressor.compress(part) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self, part: bytes = b"") -> bytes:
        """The last part, which has to be short, and the end of the format."""
        return self._compressor.compress(part) + self._compressor.flush()


Coding: TypeAlias = type[Identity] | type[Gzip]


def negotiate(request: Request) -> Coding:
    """The coding that the caller prefers (RFC 9110, section 12.5.3). Also adds `Vary` to the response."""
    headers = request.response_headers
    vary = f"{headers['Vary']}, {hdrs.ACCEPT_ENCODING}" if "Vary" in headers else hdrs.ACCEPT_ENCODING
    request.response_headers = {**headers, "Vary": vary}
    weights = {}
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ())).lower()
    for item in accepted.split(",", _MAX_CODINGS)[:_MAX_CODINGS]:
        coding, has_weight, weight = item.partition(";")
        weights[coding.strip()] = _weight(weight) if has_weight else 1.0
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return Gzip if gzip > 0 and gzip >= weights.get("identity", 0.0) else Identity


def _weight(text: str) -> float:
    found = _WEIGHT.fullmatch(text)
    return float(found[1]) if found else 0.0
