"""Turns errors into HTTP responses, `application/problem+json` (RFC 9457). Only this module does."""

from typing import Final

from svc import errors
from svc.http.messages import Response, json_body

RETRY_AFTER_SECONDS: Final = 1
CONTENT_TYPE: Final = "application/problem+json"


class BadRequest(errors.ServiceError):
    """The request is not valid HTTP."""


class KeyMissing(errors.ServiceError):
    """An API key is required; send it as Authorization: Bearer <key>."""

    challenge = 'Bearer realm="clients"'


class KeyRefused(errors.ServiceError):
    """The API key is not valid."""

    challenge = f'{KeyMissing.challenge}, error="invalid_token"'


class KeyExpired(errors.ServiceError):
    """The API key has expired; ask the service's operator for a new one."""

    challenge = KeyRefused.challenge  # RFC 6750 has no other code for it


class NoSuchPath(errors.ServiceError):
    """This path does not exist; /docs lists the paths that do."""


class HostRefused(errors.ServiceError):
    """Without API keys, a service on loopback accepts only names of this machine as Host, such as localhost."""


class MethodNotAllowed(errors.ServiceError):
    """The path does not have this method."""

    def __init__(self, method: str, allowed: str) -> None:
        self.allowed = allowed
        super().__init__(f"{method} is not allowed for this path; use {allowed}.")


class HeadTooSlow(errors.ServiceError):
    """The head of the request did not arrive in time."""


class BodyTooLarge(errors.ServiceError):
    """The body is too large."""


class BodyTooSlow(errors.ServiceError):
    """The body did not arrive in time."""


class UnsupportedBody(errors.ServiceError):
    """The type or the encoding of the body is not supported."""


class ExpectationFailed(errors.ServiceError):
    """The only supported expectation is 100-continue."""


class NotReady(errors.ServiceError):
    """The service is not ready for requests."""


class InternalError(errors.ServiceError):
    """The service failed to answer the request. The request's id identifies the error in the service's log."""


# Status and title. The problem's type is derived from the title.
_HTTP: Final[dict[type[errors.ServiceError], tuple[int, str]]] = {
    BadRequest: (400, "Bad request"),
    errors.InvalidField: (400, "Invalid field"),
    KeyMissing: (401, "Key missing"),
    KeyRefused: (401, "Key refused"),
    KeyExpired: (401, "Key expired"),
    NoSuchPath: (404, "No such path"),
    errors.NoSuchClient: (404, "No such client"),
    MethodNotAllowed: (405, "Method not allowed"),
    HeadTooSlow: (408, "Head too slow"),
    BodyTooSlow: (408, "Body too slow"),
    BodyTooLarge: (413, "Body too large"),
    UnsupportedBody: (415, "Unsupported body"),
    ExpectationFailed: (417, "Expectation failed"),
    HostRefused: (421, "Host refused"),
    errors.KeyReused: (422, "Idempotency key reused"),
    InternalError: (500, "Internal error"),
    errors.ServiceBusy: (503, "Service busy"),
    errors.DatabaseBusy: (503, "Database busy"),
    errors.DatabaseUnavailable: (503, "Database unavailable"),
    errors.DatabaseNotMigrated: (503, "Database not migrated"),
    errors.DatabaseRightsMissing: (503, "Database rights missing"),
    errors.NoFreeId: (503, "No free id"),
    errors.TransactionRolledBack: (503, "Transaction rolled back"),
    NotReady: (503, "Not ready"),
    errors.QueryTimedOut: (504, "Query timed out"),
}

# Tag URIs (RFC 4151) identify the kind of problem, and do not look like pages that one could open.
TYPES: Final = {
    kind: f"tag:olimac.link,2026:clients/{title.lower().replace(' ', '-')}" for kind, (_, title) in _HTTP.items()
}


def describe(error: errors.ServiceError, request_id: str) -> dict[str, str | int]:
    """The members of the problem that describes the error."""
    kind = type(error)
    status, title = _HTTP[kind]
    field = {"field": error.field} if isinstance(error, errors.InvalidField) else {}
    return {
        "type": TYPES[kind],
        "title": title,
        "status": status,
        "detail": error.detail,
        "request_id": request_id,
        **field,
    }


def response(error: errors.ServiceError, request_id: str) -> Response:
    """The response that describes the error."""
    status, _ = _HTTP[type(error)]
    headers = {}
    if isinstance(error, KeyMissing | KeyRefused | KeyExpired):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(json_body(describe(error, request_id)), CONTENT_TYPE, status, headers)
