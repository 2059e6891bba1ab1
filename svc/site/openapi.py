"""The OpenAPI 3.1 description of the API, built from the bounds that the code enforces."""

from typing import Any, Final, TypeAlias

from svc import __version__
from svc.clients.endpoints import JSON, MAX_LIMIT
from svc.clients.model import KEY_PATTERN, MAX_ID, MAX_NAME_CHARACTERS, MONEY_PATTERN
from svc.http.problems import CONTENT_TYPE, RETRY_AFTER_SECONDS, TYPES, KeyMissing, KeyRefused

_Json: TypeAlias = dict[str, Any]

# White space is trimmed, and control characters are refused.
_SPACE: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f"
_INK: Final = f"[^{_CONTROL}{_SPACE}]"
_NAME_PATTERN: Final = f"^[{_SPACE}]*{_INK}([^{_CONTROL}]{{0,{MAX_NAME_CHARACTERS - 2}}}{_INK})?[{_SPACE}]*$"

_ID: Final = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID, "example": 1}
_REQUEST_ID: Final = {
    "X-Request-Id": {
        "description": "The request's own id where it is valid, otherwise a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    }
}
_KEY: Final = {"type": "http", "scheme": "bearer", "description": "The API key that the service's operator gave you."}

_DESCRIPTION: Final = f"""
List, add and get clients. All bodies are JSON in UTF-8. Money is a string with exactly 2 decimals, so that no float
rounds it.

**Fields in the body.** `POST /add` also takes its fields in the body, since proxies and servers often log queries. The
body is a JSON object, `{{"name": "Sofía", "money": "12.50"}}`, or a form, `name=Sof%C3%ADa&money=12.50`. A field that
is given twice, or in both the query and the body, is refused.

**Errors** are `{CONTENT_TYPE}` (RFC 9457) with `type`, `title`, `status`, `detail`, `request_id` and, where one field
is invalid, `field`. A 503 has a `Retry-After` header: the seconds to wait before a retry.
"""


def describe(*, requires_key: bool) -> _Json:
    """Builds the whole document.

    Args:
        requires_key: whether the API requires a key.
    """
    described = _describe()
    if requires_key:
        described["components"]["securitySchemes"] = {"key": _KEY}
        for path in described["paths"].values():
            for operation in path.values():
                if "clients" in operation["tags"]:
                    operation["security"] = [{"key": []}]
                    operation["responses"] |= _problems("401")
    return described


def _describe() -> _Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clients API of olimac.link",
            "version": __version__,
            "description": _DESCRIPTION.strip(),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "clients"}, {"name": "health"}],
        "paths": {
            "/getall": {"get": _getall()},
            "/add": {"post": _add()},
            "/get/{id}": {"get": _get()},
            "/healthz": {"get": _health("Whether the process is alive", "alive")},
            "/readyz": {"get": _health("Whether the service can serve requests", "ready", unavailable=True)},
            "/version": {"get": _version()},
        },
        "components": {"schemas": {"Client": _client(), "Problem": _problem()}},
    }


def _getall() -> _Json:
    return {
        "operationId": "getAllClients",
        "tags": ["clients"],
        "summary": "All clients, or one page",
        "description": "Clients are in order of id. Without parameters, the response has all clients and is streamed. "
        'With `limit` or `after`, it has one page, and a `Link` header with `rel="next"` where more clients follow.',
        "parameters": [
            _query("limit", "The maximum number of clients", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
            _query("after", "Only clients whose ids come after this one", {"type": "integer", "minimum": 0}),
        ],
        "responses": {
            "200": {
                "description": "The clients",
                "headers": {
                    **_REQUEST_ID,
                    "Link": {"description": "The next page, where there is one.", "schema": {"type": "string"}},
                },
                "content": {JSON: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Client"}}}},
            },
            **_problems("400", "503", "504"),
        },
    }


def _add() -> _Json:
    return {
        "operationId": "addClient",
        "tags": ["clients"],
        "summary": "Adds a client",
        "description": "Two clients may share a name. With an `Idempotency-Key`, a retry gets the first response and "
        "adds nothing; keys are kept for 24 hours. The fields may also come in the body: see above.",
        "parameters": [
            _query(
                "name",
                f"1 to {MAX_NAME_CHARACTERS} characters, not counting white space at the ends; no control characters",
                {"type": "string", "pattern": _NAME_PATTERN, "example": "Sofía"},
                required=True,
            ),
            _query(
                "money",
                "An amount between -10^16 and 10^16 with at most 2 decimals; negative where the client owes it",
                {"type": "string", "pattern": f"^{MONEY_PATTERN}$", "example": "12.50"},
                required=True,
            ),
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A key of your choice for this client, which makes a retry of the request safe",
                "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
            },
        ],
        "responses": {
            "201": {
                "description": "The client is added, by this request or by the key's first use",
                "headers": {
                    **_REQUEST_ID,
                    "Location": {"description": "The client's path.", "schema": {"type": "string"}},
                },
                "content": {
                    JSON: {
                        "schema": {
                            "type": "object",
                            "properties": {"id": _ID},
                            "required": ["id"],
                            "additionalProperties": False,
                        }
                    }
                },
                "links": {"client": {"operationId": "getClient", "parameters": {"id": "$response.body#/id"}}},
            },
            **_problems("400", "413", "415", "422", "503", "504"),
        },
    }


def _get() -> _Json:
    return {
        "operationId": "getClient",
        "tags": ["clients"],
        "summary": "One client",
        "parameters": [{"name": "id", "in": "path", "required": True, "description": "The client's id", "schema": _ID}],
        "responses": {
            "200": {
                "description": "The client",
                "headers": _REQUEST_ID,
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Client"}}},
            },
            **_problems("400", "404", "503", "504"),
        },
    }


def _health(summary: str, status: str, *, unavailable: bool = False) -> _Json:
    return {
        "operationId": status,
        "tags": ["health"],
        "summary": summary,
        "responses": {
            "200": _json_response({"status": {"const": status}}),
            **(_problems("503") if unavailable else {}),
        },
    }


def _version() -> _Json:
    return {
        "operationId": "version",
        "tags": ["health"],
        "summary": "The version and the build that run",
        "responses": {"200": _json_response({"version": {"type": "string"}, "build": {"type": "string"}})},
    }


def _json_response(properties: _Json) -> _Json:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": "The response", "headers": _REQUEST_ID, "content": {JSON: {"schema": schema}}}


def _query(name: str, description: str, schema: _Json, *, required: bool = False) -> _Json:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


_MEANINGS: Final = {
    "400": "A field is not valid; `field` names it, and `detail` says what would be valid",
    "401": "The API key is missing or not valid",
    "404": "No client has this id",
    "413": "The body is too large",
    "415": "The type of the body is not supported",
    "422": "The Idempotency-Key was first used with other fields",
    "503": "The database is unavailable or busy; try again shortly",
    "504": "The database took too long to answer",
}

_PROBLEM_HEADERS: Final = {
    "401": {
        "WWW-Authenticate": {
            "description": "How to send an API key (RFC 6750).",
            "schema": {"type": "string", "enum": [KeyMissing.challenge, KeyRefused.challenge]},
        }
    },
    "503": {
        "Retry-After": {
            "description": "The seconds to wait before a retry.",
            "schema": {"type": "integer", "const": RETRY_AFTER_SECONDS},
        }
    },
}


def _problems(*statuses: str) -> _Json:
    return {status: _problem_response(status) for status in statuses}


def _problem_response(status: str) -> _Json:
    return {
        "description": _MEANINGS[status],
        "headers": {**_REQUEST_ID, **_PROBLEM_HEADERS.get(status, {})},
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _client() -> _Json:
    return {
        "type": "object",
        "properties": {
            "id": _ID,
            "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS, "example": "Andres"},
            "money": {"type": "string", "pattern": r"^-?[0-9]{1,16}\.[0-9]{2}$", "example": "200.00"},
        },
        "required": ["id", "name", "money"],
        "additionalProperties": False,
    }


def _problem() -> _Json:
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri", "enum": sorted(TYPES.values())},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is wrong, and what would be valid"},
            "request_id": {"type": "string"},
            "field": {"type": "string", "description": "The field that is not valid"},
        },
        "required": ["type", "title", "status", "detail", "request_id"],
        "additionalProperties": False,
    }
