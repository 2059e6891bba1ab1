"""The OpenAPI 3.1 description of the API, built from the bounds that the code enforces."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from svc import __version__
from svc.clients.endpoints import JSON, MAX_LIMIT
from svc.clients.model import (
    KEY_PATTERN,
    MAX_ID,
    MAX_MONEY_DIGITS,
    MAX_NAME_CHARACTERS,
    MONEY_PATTERN,
    parse_id,
    parse_limit,
    parse_money,
)
from svc.errors import DatabaseUnavailable, KeyReused, NoSuchClient, QueryTimedOut, ServiceError
from svc.http import fields, problems
from svc.http.problems import (
    CONTENT_TYPE,
    RETRY_AFTER_SECONDS,
    TYPES,
    BodyTooLarge,
    KeyExpired,
    KeyMissing,
    KeyRefused,
    NotReady,
    UnsupportedBody,
)
from svc.site import health

_Json: TypeAlias = dict[str, Any]

# White space is trimmed, and control characters are refused.
_SPACE: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f"
_INK: Final = f"[^{_CONTROL}{_SPACE}]"
_NAME_PATTERN: Final = f"^[{_SPACE}]*{_INK}([^{_CONTROL}]{{0,{MAX_NAME_CHARACTERS - 2}}}{_INK})?[{_SPACE}]*$"

_FORM: Final = "application/x-www-form-urlencoded"

_ID: Final = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID, "example": 1}
_NAME: Final = {
    "type": "string",
    "pattern": _NAME_PATTERN,
    "description": f"1 to {MAX_NAME_CHARACTERS} characters without white space at the ends; no control characters",
}
_MONEY: Final = {
    "type": "string",
    "pattern": f"^{MONEY_PATTERN}$",
    "description": "An amount between -10^16 and 10^16 with at most 2 decimals; negative where the client owes it",
}
_MONEY_NUMBER: Final = {
    "type": "number",
    "multipleOf": 0.01,
    "exclusiveMinimum": -(10**MAX_MONEY_DIGITS),
    "exclusiveMaximum": 10**MAX_MONEY_DIGITS,
    "description": "The amount as a number; a string is safer, since many programs read a number as a float",
}
_REQUEST_ID: Final = {
    "X-Request-Id": {
        "description": "The request's own id where it is valid, otherwise a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    }
}
_KEY: Final = {"type": "http", "scheme": "bearer", "description": "The API key that the service's operator gave you."}


# The examples are what the service answers: the first clients, and its own errors.
_CLIENTS: Final = [
    {"id": 1, "name": "Andres", "money": "200.00"},
    {"id": 2, "name": "Camilo", "money": "300.00"},
    {"id": 3, "name": "Laura", "money": "400.00"},
    {"id": 4, "name": "Felipe", "money": "400.00"},
]
_EXAMPLE_REQUEST_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"

_DESCRIPTION: Final = f"""
List, add and get clients. All bodies are JSON in UTF-8. Money is a string with exactly 2 decimals, so that no float
rounds it.

**Adding a client.** `POST /add` takes `name` and `money` as a JSON object, `{{"name":"Sofía","money":"12.50"}}`, as
a form, `name=Sof%C3%ADa&money=12.50`, or in the query. Prefer a body, since proxies and servers often log queries. A
field that is given twice, or in both the query and the body, is refused.

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
                    responses = {**operation["responses"], **_problems(KeyMissing())}
                    operation["responses"] = dict(sorted(responses.items()))
    return described


def _describe() -> _Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clients API of olimac.link",
            "version": __version__,
            "description": _DESCRIPTION.strip(),
            "contact": {"name": "olimac.link", "url": "https://flask.olimac.link"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "tags": [
            {"name": "clients", "description": "List, add and get clients."},
            {"name": "health", "description": "Probes, and the version that runs. They never require a key."},
        ],
        "paths": {
            "/getall": {"get": _getall()},
            "/add": {"post": _add()},
            "/get/{id}": {"get": _get()},
            "/healthz": {"get": _alive()},
            "/readyz": {"get": _ready()},
            "/version": {"get": _version()},
        },
        "components": {
            "schemas": {
                "Client": _client(),
                "NewClient": _new(money={"anyOf": [_MONEY, _MONEY_NUMBER]}),
                "NewClientForm": _new(money=_MONEY),
                "AddedClient": _object(id=_ID),
                "Problem": _problem(),
            }
        },
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
                    "Link": {
                        "description": "The next page, where there is one; relative to this URL.",
                        "schema": {"type": "string"},
                    },
                },
                "content": _json({"type": "array", "items": _ref("Client")}, _CLIENTS),
            },
            **_problems(_refusal(parse_limit, "5000", MAX_LIMIT), DatabaseUnavailable(), QueryTimedOut()),
        },
    }


def _add() -> _Json:
    return {
        "operationId": "addClient",
        "tags": ["clients"],
        "summary": "Adds a client",
        "description": "The fields are in the body, as JSON or as a form, or in the query. Names may repeat. "
        "With an `Idempotency-Key`, a retry gets the first response and adds nothing; keys are kept for 24 hours.",
        "requestBody": {
            "description": "The client to add; without a body, both fields are in the query.",
            "required": False,
            "content": {JSON: {"schema": _ref("NewClient")}, _FORM: {"schema": _ref("NewClientForm")}},
        },
        "parameters": [
            _query("name", "The client's name, where there is no body", _NAME),
            _query("money", "The amount, where there is no body", _MONEY),
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
                    "Location": {
                        "description": "The client's URL, relative to this one.",
                        "schema": {"type": "string"},
                    },
                    "Idempotency-Replayed": {
                        "description": "Only where an earlier request with this Idempotency-Key added the client.",
                        "schema": {"type": "string", "const": "true"},
                    },
                },
                "content": _json(_ref("AddedClient"), {"id": 5}),
                "links": {"client": {"operationId": "getClient", "parameters": {"id": "$response.body#/id"}}},
            },
            **_problems(
                _refusal(parse_money, "12.505"),
                BodyTooLarge(fields.TOO_LARGE),
                UnsupportedBody(fields.WRONG_TYPE),
                KeyReused(),
                DatabaseUnavailable(),
                QueryTimedOut(),
            ),
        },
    }


def _get() -> _Json:
    return {
        "operationId": "getClient",
        "tags": ["clients"],
        "summary": "One client",
        "description": "The client with this id.",
        "parameters": [{"name": "id", "in": "path", "required": True, "description": "The client's id", "schema": _ID}],
        "responses": {
            "200": {
                "description": "The client",
                "headers": _REQUEST_ID,
                "content": _json(_ref("Client"), _CLIENTS[0]),
            },
            **_problems(_refusal(parse_id, "first"), NoSuchClient(), DatabaseUnavailable(), QueryTimedOut()),
        },
    }


def _alive() -> _Json:
    return {
        "operationId": "alive",
        "tags": ["health"],
        "summary": "Whether the process is alive",
        "description": "It does not query the database.",
        "responses": _checked(_object(status={"const": "alive"}), {"status": "alive"}),
    }


def _ready() -> _Json:
    ready = _object(status={"const": "ready"}, problem={"type": "string"})
    ready["required"].remove("problem")
    return {
        "operationId": "ready",
        "tags": ["health"],
        "summary": "Whether the service takes requests",
        "description": "A 503 has the reason. A service that was ready stays so without its database: it responds to "
        "requests with 503, and the response to this one has the problem.",
        "responses": {**_checked(ready, {"status": "ready"}), **_problems(NotReady(health.UNAVAILABLE))},
    }


def _version() -> _Json:
    version = _object(version={"type": "string"}, build={"type": "string"})
    return {
        "operationId": "version",
        "tags": ["health"],
        "summary": "The version and the build that run",
        "description": "The build is what the deployment configured, such as a commit.",
        "responses": _checked(version, {"version": __version__, "build": "3f9c1a7"}),
    }


def _new(money: _Json) -> _Json:
    """The fields of a new client. Only a body has examples: pages that send requests fill in every field with one."""
    return _object(name={**_NAME, "example": "Sofía"}, money={**money, "example": "12.50"})


def _checked(schema: _Json, example: _Json) -> _Json:
    """The responses of an endpoint that reads no field."""
    ok = {"description": "The response", "headers": _REQUEST_ID, "content": _json(schema, example)}
    return {"200": ok, **_problems(_refusal(fields.collect, {}, [("verbose", "")], ()))}


def _json(schema: _Json, example: object) -> _Json:
    return {JSON: {"schema": schema, "example": example}}


def _refusal(parse: Callable[..., object], *arguments: object) -> ServiceError:
    """The error with which a parser refuses such arguments."""
    try:
        parse(*arguments)
    except ServiceError as error:
        return error
    raise AssertionError(f"{parse} accepts {arguments}")


def _object(**properties: _Json) -> _Json:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _ref(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _query(name: str, description: str, schema: _Json) -> _Json:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


_MEANINGS: Final = {
    "400": "A field, or the request as a whole, is not valid; `field` names the field, and `detail` has what is valid",
    "401": "The API key is missing or not valid",
    "404": "No client has this id",
    "413": "The body is too large",
    "415": "The type of the body is not supported",
    "422": "The Idempotency-Key was first used with other fields",
    "503": "The database is unavailable, busy or not set up, which `detail` has; try again shortly",
    "504": "The database took too long to answer",
}

_PROBLEM_HEADERS: Final = {
    "401": {
        "WWW-Authenticate": {
            "description": "How to send an API key (RFC 6750).",
            "schema": {
                "type": "string",
                "enum": sorted({kind.challenge for kind in (KeyMissing, KeyRefused, KeyExpired)}),
            },
        }
    },
    "503": {
        "Retry-After": {
            "description": "The seconds to wait before a retry.",
            "schema": {"type": "integer", "const": RETRY_AFTER_SECONDS},
        }
    },
}


def _problems(*examples: ServiceError) -> _Json:
    """The responses to errors, each with an example."""
    described = [problems.describe(error, _EXAMPLE_REQUEST_ID) for error in examples]
    return {str(problem["status"]): _problem_response(problem) for problem in described}


def _problem_response(example: _Json) -> _Json:
    status = str(example["status"])
    return {
        "description": _MEANINGS[status],
        "headers": {**_REQUEST_ID, **_PROBLEM_HEADERS.get(status, {})},
        "content": {CONTENT_TYPE: {"schema": _ref("Problem"), "example": example}},
    }


def _client() -> _Json:
    return _object(
        id=_ID,
        name={"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS, "example": "Andres"},
        money={"type": "string", "pattern": r"^-?[0-9]{1,16}\.[0-9]{2}$", "example": "200.00"},
    )


def _problem() -> _Json:
    types = sorted(TYPES.values())
    return {
        "type": "object",
        "properties": {
            "type": {
                "type": "string",
                "format": "uri",
                "enum": types,
                # The names of the constants in generated clients.
                "x-enum-varnames": [kind.rpartition("/")[2].replace("-", "_").upper() for kind in types],
            },
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is wrong, and what would be valid"},
            "request_id": {"type": "string"},
            "field": {"type": "string", "description": "The field that is not valid"},
        },
        "required": ["type", "title", "status", "detail", "request_id"],
        "additionalProperties": False,
    }
