"""The catalogue: every log event and field, with what it means and who reads it.

Code, queries and dashboards use names from here and no others.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in the catalogue.

    Attributes:
        name: as it is written.
        means: what it says.
        read_by: for whom it is there.
    """

    name: str
    means: str
    read_by: str


EVENTS: Final[dict[str, Entry]] = {}
FIELDS: Final[dict[str, Entry]] = {}


def _event(name: str, means: str, read_by: str) -> str:
    EVENTS[name] = Entry(name, means, read_by)
    return name


def _field(name: str, means: str, read_by: str) -> str:
    FIELDS[name] = Entry(name, means, read_by)
    return name


# Events: what a line of the log is about.
REQUEST: Final = _event("request", "a request was answered, or its caller went away", "whoever asks what happened")
REQUEST_FAILED: Final = _event("request_failed", "a request met an error of ours, with its traceback", "on call")
DATABASE_AWAY: Final = _event("database_away", "the database stopped answering; requests get 503", "on call")
DATABASE_BACK: Final = _event("database_back", "the database answers again", "on call")
NOT_READY: Final = _event("not_ready", "the database answers, but not this service's questions", "on call")
STARTED: Final = _event("started", "a process serves requests", "deployers")
STOPPING: Final = _event("stopping", "a process was told to stop, and drains", "deployers")
STOPPED: Final = _event("stopped", "a process has answered all it took, and ends", "deployers")
WORKER_ENDED: Final = _event("worker_ended", "a worker process ended, and another is started", "on call")
WORKER_FAILED: Final = _event("worker_failed", "a worker process met an error, with its traceback", "on call")
LIBRARY: Final = _event("library", "a library's own words", "developers")

# Fields of every line.
TIMESTAMP: Final = _field("timestamp", "when, in UTC, ISO 8601 with milliseconds", "everyone")
LEVEL: Final = _field("level", "info, warning or error", "filters")
EVENT: Final = _field("event", "one of the events above", "filters")

# Fields of a request's line.
METHOD: Final = _field("method", "of the request; OTHER where it is none that HTTP knows", "filters")
ROUTE: Final = _field("route", "the path's template, such as /get/{id}; never the path itself", "filters")
STATUS: Final = _field("status", "of the answer; 499 where the caller went away first", "filters")
DURATION_MS: Final = _field("duration_ms", "from the whole head of the request to its answer", "percentiles")
DATABASE_MS: Final = _field("database_ms", "of that, spent in round trips to the database", "who asks what was slow")
QUEUE_MS: Final = _field("queue_ms", "of that, spent waiting to be sent there", "who asks what was slow")
BATCH_SIZE: Final = _field("batch_size", "questions in the largest batch that this request was part of", "tuning")
BYTES: Final = _field("bytes", "of the answer's body", "cost, and who asks for too much")
REQUEST_ID: Final = _field("request_id", "the X-Request-Id of the answer", "callers who quote it")
CLIENT: Final = _field("client", "the address of the caller, seen past trusted proxies", "who looks for abuse")

# Fields of other lines.
ERROR: Final = _field("error", "the error's type", "on call")
DETAIL: Final = _field("detail", "the error's own words", "on call")
EXCEPTION: Final = _field("exception", "a traceback", "developers")
LOGGER: Final = _field("logger", "the library's module", "developers")
MESSAGE: Final = _field("message", "what a library said", "developers")
SIGNAL: Final = _field("signal", "that told it to stop", "deployers")
PID: Final = _field("pid", "of the process that it is about", "developers")
EXIT_STATUS: Final = _field("exit_status", "of the process that ended; a negative one is a signal", "on call")
PORT: Final = _field("port", "that is listened on", "deployers")
BUILD: Final = _field("build", "what is running", "deployers")
LINES_DROPPED: Final = _field("lines_dropped", "log lines that found no reader since the start", "on call")
