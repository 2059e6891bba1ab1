"""The catalogue: every log event and field, with what it means and who reads it.

Code, queries and dashboards use names from here and no others.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the catalogue.

    Attributes:
        name: as it is written.
        means: what it says.
        read_by: for whom it is there.
    """

    name: str
    means: str
    read_by: str


@dataclass(frozen=True, slots=True)
class Metric(Name):
    """A metric in the catalogue.

    Attributes:
        unit: CloudWatch's word for it.
        dimensions: each set of them makes the metric anew; the empty one is the metric over everything.
    """

    unit: str
    dimensions: tuple[tuple[str, ...], ...]


EVENTS: Final[dict[str, Name]] = {}
FIELDS: Final[dict[str, Name]] = {}
METRICS: Final[dict[str, Metric]] = {}
ATTRIBUTES: Final[dict[str, Name]] = {}


def _event(name: str, means: str, read_by: str) -> str:
    EVENTS[name] = Name(name, means, read_by)
    return name


def _field(name: str, means: str, read_by: str) -> str:
    FIELDS[name] = Name(name, means, read_by)
    return name


def _metric(name: str, unit: str, dimensions: tuple[tuple[str, ...], ...], means: str, read_by: str) -> str:
    METRICS[name] = Metric(name, means, read_by, unit, dimensions)
    return name


def _attribute(name: str, means: str, read_by: str) -> str:
    ATTRIBUTES[name] = Name(name, means, read_by)
    return name


# Events: what a line of the log is about.
REQUEST: Final = _event("request", "a request was answered, or its caller went away", "whoever asks what happened")
REQUEST_FAILED: Final = _event("request_failed", "a request met an error of ours, with its traceback", "on call")
DATABASE_UNAVAILABLE: Final = _event(
    "database_unavailable", "the database stopped answering; requests get 503", "on call"
)
DATABASE_RECOVERED: Final = _event("database_recovered", "the database answers again", "on call")
NOT_READY: Final = _event("not_ready", "the database answers, but not this service's questions", "on call")
STARTED: Final = _event("started", "a process serves requests", "deployers")
CONNECTIONS_LIMITED: Final = _event(
    "connections_limited", "the limit of open files is too low for MAX_CONNECTIONS; there will be fewer", "deployers"
)
STOPPING: Final = _event("stopping", "a process was told to stop, and drains", "deployers")
STOPPED: Final = _event("stopped", "a process has answered all it took, and ends", "deployers")
WORKER_EXITED: Final = _event("worker_exited", "a worker process ended, and another is started", "on call")
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
TRACE_ID: Final = _field("trace_id", "of its trace, 32 hexadecimal digits", "who goes on to its trace")
XRAY_TRACE_ID: Final = _field("xray_trace_id", "the same as X-Ray writes it, 1-8-24 digits", "X-Ray's links to logs")
SPAN_ID: Final = _field("span_id", "of its span, 16 hexadecimal digits", "who goes on to its trace")
SAMPLED: Final = _field("sampled", "whether its trace is recorded", "who goes on to its trace")
CLIENT: Final = _field("client", "the address of the caller, seen past trusted proxies", "who looks for abuse")

# Fields of other lines.
ERROR: Final = _field("error", "the error's type; on a request's line only where there is one", "on call")
DETAIL: Final = _field("detail", "the error's own words", "on call")
EXCEPTION: Final = _field("exception", "a traceback", "developers")
LOGGER: Final = _field("logger", "the library's module", "developers")
MESSAGE: Final = _field("message", "what a library said", "developers")
SIGNAL: Final = _field("signal", "that told it to stop", "deployers")
PID: Final = _field("pid", "of the process that it is about", "developers")
EXIT_STATUS: Final = _field("exit_status", "of the process that ended; a negative one is a signal", "on call")
PORT: Final = _field("port", "that is listened on", "deployers")
BUILD: Final = _field("build", "what is running", "deployers")
API_KEYS: Final = _field("api_keys", "how many keys the API accepts; 0: it is open to everyone", "deployers")
MAX_CONNECTIONS: Final = _field("max_connections", "how many each worker can hold", "deployers")
CONFIGURED: Final = _field("configured", "how many it was to hold", "deployers")
POD: Final = _field("pod", "that tells: its name, or its host's", "who looks for the odd one out")
NODE: Final = _field("node", "that the pod is on", "who looks for the odd one out")
CLUSTER: Final = _field("cluster", "that the node is of", "who looks for the odd one out")
LINES_DROPPED: Final = _field("lines_dropped", "log lines that found no reader since the start", "on call")

# Dimensions of metrics. A value of theirs comes from a short list, never from a request.
ROUTE_DIMENSION: Final = "Route"  # as the field route
METHOD_DIMENSION: Final = "Method"  # GET (and HEAD), POST or OTHER
STATUS_DIMENSION: Final = "Status"  # 2xx, 3xx, 4xx or 5xx
OPERATION_DIMENSION: Final = "Operation"  # get, add or page: a kind of question to the database

NAMESPACE: Final = "ClientsApi"

OVERALL: Final = ((),)
BY_ROUTE: Final = ((), (ROUTE_DIMENSION, METHOD_DIMENSION, STATUS_DIMENSION))  # without the first for probes
BY_OPERATION: Final = ((OPERATION_DIMENSION,),)

# The most metrics, as CloudWatch counts and bills them, that this service can make, whatever it is sent.
MAX_SERIES: Final = 320

REQUESTS: Final = _metric("Requests", "Count", BY_ROUTE, "requests answered, or left by their caller", "everyone")
LATENCY: Final = _metric("Latency", "Milliseconds", BY_ROUTE, "a sample for each request, as duration_ms", "everyone")
ERRORS: Final = _metric(
    "Errors", "Count", OVERALL, "requests whose status is 4xx, without probes", "who sees to callers"
)
FAULTS: Final = _metric(
    "Faults", "Count", OVERALL, "requests whose status is 5xx, without probes", "on call: objectives"
)
SHED: Final = _metric("Shed", "Count", OVERALL, "requests refused since too many wait", "on call: capacity")
IN_FLIGHT: Final = _metric("InFlight", "Count", OVERALL, "requests under way, looked at 100 times", "on call: capacity")
CONNECTIONS: Final = _metric("Connections", "Count", OVERALL, "of callers, looked at 100 times", "on call: capacity")
CONNECTIONS_SHED: Final = _metric(
    "ConnectionsShed", "Count", OVERALL, "cut to make room for others, or refused for lack of it", "on call: abuse"
)
CONNECTIONS_TIMED_OUT: Final = _metric(
    "ConnectionsTimedOut", "Count", OVERALL, "cut since no head came, or no answer was read, in time", "on call: abuse"
)
CONNECTIONS_IN_USE: Final = _metric(
    "ConnectionsInUse", "Count", OVERALL, "of the pool, looked at 100 times", "on call: the database"
)
DATABASE_IS_UNAVAILABLE: Final = _metric(
    "DatabaseUnavailable",
    "None",
    OVERALL,
    "1 while the database does not answer, else 0, looked at 100 times",
    "on call",
)
EVENT_LOOP_LAG: Final = _metric(
    "EventLoopLag", "Milliseconds", OVERALL, "how late a timer ran, 100 timers", "on call: saturation"
)
BATCH_SIZE_METRIC: Final = _metric("BatchSize", "Count", BY_OPERATION, "questions in a round trip", "tuning")
QUEUE_WAIT: Final = _metric(
    "QueueWait", "Milliseconds", BY_OPERATION, "of the oldest question in a round trip", "on call: the database"
)
ROUND_TRIP: Final = _metric(
    "RoundTrip", "Milliseconds", BY_OPERATION, "to the database and back", "on call: the database"
)
LOG_LINES_DROPPED: Final = _metric("LogLinesDropped", "Count", OVERALL, "log lines that found no reader", "on call")
PROCESS_CPU: Final = _metric("ProcessCpu", "Percent", OVERALL, "of one core", "on call: capacity")
PROCESS_MEMORY: Final = _metric("ProcessMemory", "Bytes", OVERALL, "resident", "on call: leaks")
OPEN_FILES: Final = _metric("OpenFiles", "Count", OVERALL, "file descriptors, sockets included", "on call: leaks")

# Attributes of a request's span: OpenTelemetry's stable names.
HTTP_METHOD: Final = _attribute("http.request.method", "as the field method, _OTHER where it is none", "X-Ray")
HTTP_ROUTE: Final = _attribute("http.route", "the path's template", "X-Ray")
HTTP_STATUS: Final = _attribute("http.response.status_code", "of the answer", "X-Ray: error, fault, throttle")
URL_PATH: Final = _attribute("url.path", "the path, where it has a route", "who looks at one trace")
URL_SCHEME: Final = _attribute("url.scheme", "http: TLS ends before this service", "X-Ray")
CLIENT_ADDRESS: Final = _attribute("client.address", "as the field client", "X-Ray")
USER_AGENT: Final = _attribute("user_agent.original", "the caller's program, as it says", "X-Ray")
ERROR_TYPE: Final = _attribute("error.type", "the error's type", "who looks for faults")
QUEUE_SECONDS: Final = _attribute("clients.queue.duration", "seconds, as queue_ms", "who asks what was slow")
DATABASE_SECONDS: Final = _attribute("clients.database.duration", "seconds, as database_ms", "who asks what was slow")

# Attributes of a batch's span: stable names, and the old ones, which X-Ray's exporter still reads.
DB_SYSTEM: Final = _attribute("db.system.name", "postgresql", "traces")
SERVER_ADDRESS: Final = _attribute("server.address", "the database's host, or several", "traces")
SERVER_PORT: Final = _attribute("server.port", "the database's port, or several", "traces")
DB_NAMESPACE: Final = _attribute("db.namespace", "the database", "traces")
DB_OPERATION: Final = _attribute("db.operation.name", "SELECT or INSERT", "traces")
DB_COLLECTION: Final = _attribute("db.collection.name", "the table", "traces")
DB_QUERY: Final = _attribute("db.query.text", "the statement, without its values", "traces")
DB_SUMMARY: Final = _attribute("db.query.summary", "operation and table", "traces")
DB_BATCH_SIZE: Final = _attribute("db.operation.batch.size", "questions in it, where there are several", "tuning")
DB_STATUS: Final = _attribute("db.response.status_code", "SQLSTATE, where PostgreSQL refused", "on call")
OLD_DB_SYSTEM: Final = _attribute("db.system", "postgresql", "X-Ray's exporter")
OLD_DB_NAME: Final = _attribute("db.name", "the database", "X-Ray's exporter")
OLD_DB_STATEMENT: Final = _attribute("db.statement", "the statement, without its values", "X-Ray's exporter")
