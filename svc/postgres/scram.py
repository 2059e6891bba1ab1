"""A password as PostgreSQL keeps it, so that the password itself need not be sent: the server might log it."""

import base64
import hashlib
import hmac
import secrets
from typing import Final

_ITERATIONS: Final = 4096  # PostgreSQL's own; what guards the password is its length
_SALT_BYTES: Final = 16


def verifier(password: str) -> str:
    """What `ALTER ROLE … PASSWORD` takes in place of the password, made with SCRAM-SHA-256 (RFC 5803).

    Args:
        password: of printable ASCII, for which there is nothing to normalise (SASLprep).
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
