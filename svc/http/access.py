"""Who may use the API: everyone, or callers with a key of which we know the hash."""

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
    """A key that nobody guesses, of characters that a header and a shell take as they are."""
    return secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """What is kept of a key.

    A plain hash does: a slow one guards what people make up, and a key is drawn at random.
    """
    # As aiohttp decoded it, so that each byte that came is hashed as it came.
    return sha256(key.encode(errors="surrogateescape")).digest()


class Access:
    """Lets callers with a key in, or everyone where there are no keys.

    Args:
        hashes: of the keys that are accepted, as `digest` makes them.
    """

    def __init__(self, hashes: Iterable[bytes]) -> None:
        self._hashes = tuple(hashes)

    def guard(self, handler: Handler) -> Handler:
        """The handler, for those with a key; where there are no keys, the handler itself, which costs nothing."""
        if not self._hashes:
            return handler

        def guarded(request: Request) -> Awaitable[AnyResponse]:
            self._check(request)
            return handler(request)

        return guarded

    def _check(self, request: Request) -> None:
        """Looks whether the request has a key (RFC 6750, section 2.1) that is accepted.

        Raises:
            KeyMissing: it has none.
            KeyRefused: it has another one, or several.
        """
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if len(given) > 1:
            raise KeyRefused("Authorization is given twice; give it once.")
        scheme, _, key = given[0].partition(" ") if given else ("", "", "")
        if scheme.lower() != "bearer":
            raise KeyMissing
        if not self._accepts(digest(key.lstrip(" "))):
            raise KeyRefused

    def _accepts(self, found: bytes) -> bool:
        # All of them, whichever it is: the time tells neither how much of a hash was right, nor whose it was.
        is_known = False
        for known in self._hashes:
            is_known |= compare_digest(found, known)
        return is_known
