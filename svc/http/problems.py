"""What goes wrong, as HTTP says it: `application/problem+json` (RFC 9457), made in this one place."""

import json
from typing import Final

from svc import errors
from svc.http.messages import Response

RETRY_AFTER_SECONDS: Final = 1
CONTENT_TYPE: Final = "application/problem+json"


class BadRequest(errors.ServiceError):
    """The request is not valid HTTP."""


class KeyMissing(errors.ServiceError):
    """A key is needed here; send it as Authorization: Bearer <key>."""

    challenge = 'Bearer realm="clients"'


class KeyRefused(errors.ServiceError):
    """The key is none of those that are accepted here."""

    challenge = f'{KeyMissing.challenge}, error="invalid_token"'


class NoSuchPath(errors.ServiceError):
    """There is nothing at this path; /docs lists what there is."""


class MethodNotAllowed(errors.ServiceError):
    """The path is there, but not for this method."""

    def __init__(self, method: str, allowed: str) -> None:
        self.allowed = allowed
        super().__init__(f"{method} is not allowed here; use {allowed}.")


class HeadTooSlow(errors.ServiceError):
    """The head of the request did not arrive in time."""


class BodyTooLarge(errors.ServiceError):
    """The body is larger than any client could need."""


class BodyTooSlow(errors.ServiceError):
    """The body did not arrive in time."""


class UnsupportedBody(errors.ServiceError):
    """The body is of a type that is not understood here."""


class ExpectationFailed(errors.ServiceError):
    """The only expectation that can be met is 100-continue."""


class NotReady(errors.ServiceError):
    """The service cannot take requests now."""


class InternalError(errors.ServiceError):
    """Something went wrong here, and it is not the request's fault. The request's id will help to find out what."""


# status, title; the type is made from the class's name
_HTTP: Final[dict[type[errors.ServiceError], tuple[int, str]]] = {
    BadRequest: (400, "Bad request"),
    errors.InvalidField: (400, "Invalid field"),
    KeyMissing: (401, "Key missing"),
    KeyRefused: (401, "Key refused"),
    NoSuchPath: (404, "No such path"),
    errors.NoSuchClient: (404, "No such client"),
    MethodNotAllowed: (405, "Method not allowed"),
    HeadTooSlow: (408, "Head too slow"),
    BodyTooSlow: (408, "Body too slow"),
    BodyTooLarge: (413, "Body too large"),
    UnsupportedBody: (415, "Unsupported body"),
    ExpectationFailed: (417, "Expectation failed"),
    errors.KeyReused: (422, "Idempotency key reused"),
    InternalError: (500, "Internal error"),
    errors.DatabaseBusy: (503, "Database busy"),
    errors.DatabaseUnavailable: (503, "Database unavailable"),
    NotReady: (503, "Not ready"),
    errors.QueryTimedOut: (504, "Query timed out"),
}

# A tag URI (RFC 4151): it names the kind of problem, and nobody will ask a server for it.
TYPES: Final = {
    kind: f"tag:olimac.link,2026:clients/{title.lower().replace(' ', '-')}" for kind, (_, title) in _HTTP.items()
}


def response(error: errors.ServiceError, request_id: str) -> Response:
    """The response that says what went wrong."""
    kind = type(error)
    status, title = _HTTP[kind]
    problem = {
        "type": TYPES[kind],
        "title": title,
        "status": status,
        "detail": error.detail,
        "request_id": request_id,
    }
    headers = {}
    if isinstance(error, errors.InvalidField):
        problem["field"] = error.field
    if isinstance(error, KeyMissing | KeyRefused):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(json.dumps(problem).encode(), CONTENT_TYPE, status, headers)
