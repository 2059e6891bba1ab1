"""Access control: the API is open to everyone, or to callers with a key whose hash is known."""

import secrets
from collections.abc import Awaitable, Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from aiohttp import hdrs

from svc.http.messages import AnyResponse, Request
from svc.http.problems import KeyMissing, KeyRefused
from svc.http.routes import Handler

_KEY_BYTES: Final = 32


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
        hashes: of the valid keys, as `digest` computes them.
    """

    def __init__(self, hashes: Iterable[bytes]) -> None:
        self._hashes = tuple(hashes)

    def guard(self, handler: Handler) -> Handler:
        """A handler that checks the key first. Without keys it is the handler itself, which costs nothing."""
        if not self._hashes:
            return handler

        def guarded(request: Request) -> Awaitable[AnyResponse]:
            self._check(request)
            return handler(request)

        return guarded

    def _check(self, request: Request) -> None:
        """Checks that the request has a valid key (RFC 6750, section 2.1).

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
        if not self._is_known(digest(key.lstrip(" "))):
            raise KeyRefused

    def _is_known(self, found: bytes) -> bool:
        # Compares all hashes in constant time, so the time reveals neither which one matched nor how much of it.
        is_known = False
        for known in self._hashes:
            is_known |= compare_digest(found, known)
        return is_known
