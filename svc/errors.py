"""The service's errors. `svc.http.problems` maps each to an HTTP status.

A class's docstring is its message, unless it is raised with another one.
"""


class ServiceError(Exception):
    """The request failed."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or type(self).__doc__ or ""
        super().__init__(self.detail)


class InvalidField(ServiceError):
    """A field of the request is not valid."""

    def __init__(self, field: str, detail: str) -> None:
        self.field = field
        super().__init__(detail)


class NoSuchClient(ServiceError):
    """No client has this id."""


class KeyReused(ServiceError):
    """This Idempotency-Key was first used with another name or money; use a new key for another client."""


class ServiceBusy(ServiceError):
    """Too many requests are waiting for their turn. Try again shortly; nothing was changed."""


class DatabaseUnavailable(ServiceError):
    """The database is unavailable. Try again shortly; an add is safe to repeat with the same Idempotency-Key."""


class DatabaseBusy(ServiceError):
    """Too many requests are waiting for the database. Try again shortly; nothing was changed."""


class DatabaseNotMigrated(ServiceError):
    """The database is not migrated: a table or a column is missing. Nothing was changed."""


class DatabaseRightsMissing(ServiceError):
    """The service's role lacks rights in the database. Nothing was changed."""


class TransactionRolledBack(ServiceError):
    """The request conflicted with others in the database. Try again shortly; nothing was changed."""


class RowRefused(Exception):
    """The database refused one of a statement's rows, and so the statement. Without that row, it may succeed."""


class NoFreeId(ServiceError, RowRefused):
    """The database has no free id for a new client until its id sequence is corrected. Nothing was changed."""


class QueryTimedOut(ServiceError):
    """The database took too long to answer. An add is safe to repeat with the same Idempotency-Key."""


class InvalidSetting(ValueError):
    """A setting is not valid. The message names the variable, its value and what is valid."""

    def __init__(self, variable: str, value: str, expected: str) -> None:
        super().__init__(f"{variable} is {value}, but must be {expected}.")
