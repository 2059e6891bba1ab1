"""Password verifiers in PostgreSQL's format, so that no password is sent to the server, which might log it."""

import base64
import hashlib
import hmac
import secrets
from typing import Final

_ITERATIONS: Final = 4096  # PostgreSQL's default; the password's length protects it, not the iterations
_SALT_BYTES: Final = 16


def verifier(password: str) -> str:
    """The SCRAM-SHA-256 verifier (RFC 5803), which `ALTER ROLE … PASSWORD` takes instead of the password.

    Args:
        password: in printable ASCII, which needs no normalisation (SASLprep).
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
