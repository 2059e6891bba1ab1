"""Access control: the API is open to everyone, or to callers with a key whose hash is known."""

import math
import re
import secrets
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from aiohttp import hdrs

from svc.http.messages import AnyResponse, Request
from svc.http.problems import KeyExpired, KeyMissing, KeyRefused
from svc.http.routes import Handler

_KEY_BYTES: Final = 32
NAME: Final = re.compile("[A-Za-z0-9._-]{1,32}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that the API accepts.

    Attributes:
        hash: of the key, as `digest` computes it.
        caller: the name of its caller, for the log, the metrics and the traces.
        expires_at: when it is no longer accepted, in seconds since 1970.
    """

    hash: bytes
    caller: str
    expires_at: float = math.inf


def new_key() -> str:
    """A random key. Its characters need no escaping in a header or a shell."""
    return secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """The hash of a key, which is all that the service stores of it.

    SHA-256 is enough: slow hashes protect passwords that people choose, and a key is random.
    """
    # aiohttp decodes headers in this way, so the bytes are hashed exactly as they were received.
    return sha256(key.encode(errors="surrogateescape")).digest()


class Access:
    """Admits callers with a valid key, or everyone where no keys are configured.

    Args:
        keys: the valid keys.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.hash: key for key in keys}

    def guard(self, handler: Handler) -> Handler:
        """A handler that checks the key first. Without keys it is the handler itself, which costs nothing."""
        if not self._keys:
            return handler

        def guarded(request: Request) -> Awaitable[AnyResponse]:
            self._check(request)
            return handler(request)

        return guarded

    def caller(self, request: Request) -> str:
        """The name of the caller of the request's key; empty where it has no valid key."""
        try:
            return self._find(request).caller if self._keys else ""
        except (KeyMissing, KeyRefused):
            return ""

    def _check(self, request: Request) -> None:
        """Checks that the request has a valid key, and sets its caller.

        Raises:
            KeyMissing, KeyRefused: as _find.
            KeyExpired: its key is no longer accepted.
        """
        key = self._find(request)
        request.caller = key.caller
        if time.time() >= key.expires_at:
            raise KeyExpired

    def _find(self, request: Request) -> ApiKey:
        """The request's key (RFC 6750, section 2.1).

        Raises:
            KeyMissing: it has no key.
            KeyRefused: its key is not valid, or it has several.
        """
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if len(given) > 1:
            raise KeyRefused("Authorization is given twice; give it once.")
        scheme, _, key = given[0].partition(" ") if given else ("", "", "")
        if scheme.lower() != "bearer":
            raise KeyMissing
        found = digest(key.lstrip(" "))
        if not self._is_known(found):
            raise KeyRefused
        return self._keys[found]

    def _is_known(self, found: bytes) -> bool:
        # Compares all hashes in constant time, so the time reveals neither which one matched nor how much of it.
        is_known = False
        for known in self._keys:
            is_known |= compare_digest(found, known)
        return is_known
