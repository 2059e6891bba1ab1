"""What can go wrong, in the domain's own words; `problems` says what each is in HTTP.

A class's docstring is its message unless it is raised with another.
"""


class ServiceError(Exception):
    """The request could not be served."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or type(self).__doc__ or ""
        super().__init__(self.detail)


class InvalidField(ServiceError):
    """A field of the request is not what it may be."""

    def __init__(self, field: str, detail: str) -> None:
        self.field = field
        super().__init__(detail)


class NoSuchClient(ServiceError):
    """There is no client with this id."""


class KeyReused(ServiceError):
    """This Idempotency-Key was first used with another name or money; use a new key for another client."""


class DatabaseUnavailable(ServiceError):
    """The database is away. Try again shortly; an add is safe to repeat with the same Idempotency-Key."""


class DatabaseBusy(ServiceError):
    """Too many requests are waiting for the database. Try again shortly; nothing was changed."""


class QueryTimedOut(ServiceError):
    """The database took too long to answer. An add is safe to repeat with the same Idempotency-Key."""


class InvalidSetting(ValueError):
    """A setting is not valid; the message names the variable, its value and what would be valid."""

    def __init__(self, variable: str, value: str, expected: str) -> None:
        super().__init__(f"{variable} is {value}, and has to be {expected}.")
