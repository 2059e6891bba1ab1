"""The OpenAPI 3.1 description of the API, its bounds taken from where they are kept."""

from typing import Any, Final, TypeAlias

from svc import __version__
from svc.clients.endpoints import JSON, MAX_LIMIT
from svc.clients.model import KEY_PATTERN, MAX_ID, MAX_NAME_CHARACTERS, MONEY_PATTERN
from svc.http.problems import CONTENT_TYPE, RETRY_AFTER_SECONDS, TYPES, KeyMissing, KeyRefused

_Json: TypeAlias = dict[str, Any]

# White space that is trimmed, and control characters, which are refused.
_SPACE: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f"
_INK: Final = f"[^{_CONTROL}{_SPACE}]"
_NAME_PATTERN: Final = f"^[{_SPACE}]*{_INK}([^{_CONTROL}]{{0,{MAX_NAME_CHARACTERS - 2}}}{_INK})?[{_SPACE}]*$"

_ID: Final = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID, "example": 1}
_REQUEST_ID: Final = {
    "X-Request-Id": {
        "description": "The caller's own where it is sane, else a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    }
}
_KEY: Final = {"type": "http", "scheme": "bearer", "description": "A key that whoever runs the service gave you."}

_DESCRIPTION: Final = f"""
List, add and look up clients. Everything is JSON in UTF-8; money is a string with exactly 2 decimals, so that no
cent is lost to a float.

**Another way to add.** The fields of `POST /add` may come in its body instead of its query, since queries end up in
other people's logs: as a JSON object, `{{"name": "Sofía", "money": "12.50"}}`, or as a form,
`name=Sof%C3%ADa&money=12.50`. A field given twice, or in both places, is refused.

**Errors** are `{CONTENT_TYPE}` (RFC 9457) with `type`, `title`, `status`, `detail`, `request_id` and, where one field
is at fault, `field`. A 503 says in `Retry-After` when to try again.
"""


def describe(*, wants_key: bool) -> _Json:
    """The whole document.

    Args:
        wants_key: whether the API wants a key.
    """
    described = _describe()
    if wants_key:
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
            "/healthz": {"get": _health("Whether the process lives", "alive")},
            "/readyz": {"get": _health("Whether requests are welcome", "ready", unavailable=True)},
            "/version": {"get": _version()},
        },
        "components": {"schemas": {"Client": _client(), "Problem": _problem()}},
    }


def _getall() -> _Json:
    return {
        "operationId": "getAllClients",
        "tags": ["clients"],
        "summary": "All clients, or one page of them",
        "description": "In order of id. Without parameters, all of them, streamed. With `limit` or `after`, one page, "
        'and a `Link` with `rel="next"` while there is more.',
        "parameters": [
            _query("limit", "How many clients at most", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
            _query("after", "Only clients whose ids come after this one", {"type": "integer", "minimum": 0}),
        ],
        "responses": {
            "200": {
                "description": "The clients",
                "headers": {
                    **_REQUEST_ID,
                    "Link": {"description": "The next page, while there is one.", "schema": {"type": "string"}},
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
        "description": "Two clients may share a name. With an `Idempotency-Key`, a retry gets the first answer and "
        "adds nothing; keys are known for 24 hours. The fields may come in the body instead: see above.",
        "parameters": [
            _query(
                "name",
                f"1 to {MAX_NAME_CHARACTERS} characters besides white space at its ends, and no control characters",
                {"type": "string", "pattern": _NAME_PATTERN, "example": "Sofía"},
                required=True,
            ),
            _query(
                "money",
                "A decimal with at most 2 decimals and a magnitude under 10^16; negative where the client owes",
                {"type": "string", "pattern": f"^{MONEY_PATTERN}$", "example": "12.50"},
                required=True,
            ),
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Makes it safe to send the request again",
                "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
            },
        ],
        "responses": {
            "201": {
                "description": "Added, now or by the key's first use",
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
            "200": _json_answer({"status": {"const": status}}),
            **(_problems("503") if unavailable else {}),
        },
    }


def _version() -> _Json:
    return {
        "operationId": "version",
        "tags": ["health"],
        "summary": "What is running",
        "responses": {"200": _json_answer({"version": {"type": "string"}, "build": {"type": "string"}})},
    }


def _json_answer(properties: _Json) -> _Json:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": "The answer", "headers": _REQUEST_ID, "content": {JSON: {"schema": schema}}}


def _query(name: str, description: str, schema: _Json, *, required: bool = False) -> _Json:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


_MEANINGS: Final = {
    "400": "A field is not what it may be; `field` and `detail` say which and what would do",
    "401": "There is no key, or none that is accepted",
    "404": "There is no such client",
    "413": "The body is too large",
    "415": "The body is of a type that is not understood",
    "422": "The key was first used with other fields",
    "503": "The database is away or busy; try again shortly",
    "504": "The database took too long",
}

_PROBLEM_HEADERS: Final = {
    "401": {
        "WWW-Authenticate": {
            "description": "How to send a key (RFC 6750).",
            "schema": {"type": "string", "enum": [KeyMissing.challenge, KeyRefused.challenge]},
        }
    },
    "503": {
        "Retry-After": {
            "description": "When to try again, in seconds.",
            "schema": {"type": "integer", "const": RETRY_AFTER_SECONDS},
        }
    },
}


def _problems(*statuses: str) -> _Json:
    return {status: _problem_answer(status) for status in statuses}


def _problem_answer(status: str) -> _Json:
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
            "detail": {"type": "string", "description": "What is wrong, and what would be right"},
            "request_id": {"type": "string"},
            "field": {"type": "string", "description": "The field at fault"},
        },
        "required": ["type", "title", "status", "detail", "request_id"],
        "additionalProperties": False,
    }
