"""The catalogue: every log event, log field, metric and span attribute, with its meaning and who reads it.

Code, queries and dashboards use the names from here and no others.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the catalogue.

    Attributes:
        name: as it is written in the log, the metrics or the spans.
        meaning: what it records.
        read_by: who uses it, or for which work.
    """

    name: str
    meaning: str
    read_by: str


@dataclass(frozen=True, slots=True)
class Metric(Name):
    """A metric in the catalogue.

    Attributes:
        unit: as CloudWatch names it.
        dimensions: sets of dimensions; CloudWatch keeps a metric of its own for each set. The empty set is the metric
            over everything.
    """

    unit: str
    dimensions: tuple[tuple[str, ...], ...]


EVENTS: Final[dict[str, Name]] = {}
FIELDS: Final[dict[str, Name]] = {}
METRICS: Final[dict[str, Metric]] = {}
ATTRIBUTES: Final[dict[str, Name]] = {}


def _event(name: str, meaning: str, read_by: str) -> str:
    EVENTS[name] = Name(name, meaning, read_by)
    return name


def _field(name: str, meaning: str, read_by: str) -> str:
    FIELDS[name] = Name(name, meaning, read_by)
    return name


def _metric(name: str, unit: str, dimensions: tuple[tuple[str, ...], ...], meaning: str, read_by: str) -> str:
    METRICS[name] = Metric(name, meaning, read_by, unit, dimensions)
    return name


def _attribute(name: str, meaning: str, read_by: str) -> str:
    ATTRIBUTES[name] = Name(name, meaning, read_by)
    return name


# Events: what a log line reports.
REQUEST: Final = _event(
    "request", "a request ended: it was answered, or its caller disconnected", "anyone who investigates a request"
)
REQUEST_FAILED: Final = _event(
    "request_failed", "a request raised an unexpected error; with the traceback", "the on-call engineer"
)
DATABASE_UNAVAILABLE: Final = _event(
    "database_unavailable", "the database stopped answering; requests get 503", "the on-call engineer"
)
PASSWORD_FILE_IGNORED: Final = _event(
    "password_file_ignored",
    "the file of the database's password cannot be used; connections are opened without it",
    "the on-call engineer",
)
DATABASE_RECOVERED: Final = _event("database_recovered", "the database answers again", "the on-call engineer")
STATEMENT_REFUSED: Final = _event(
    "statement_refused",
    "the database answers, but cannot run a statement until an operator changes it: a table, a column, a right or a "
    "free id is missing; requests get 503",
    "the on-call engineer",
)
NOT_READY: Final = _event(
    "not_ready", "the database answers, but rejects this service's queries", "the on-call engineer"
)
STARTED: Final = _event("started", "a process started to serve requests", "deployments")
CONNECTIONS_LIMITED: Final = _event(
    "connections_limited",
    "the limit of open files is too low for MAX_CONNECTIONS, so fewer connections are accepted",
    "deployments",
)
STOPPING: Final = _event("stopping", "a process received a signal to stop, and drains", "deployments")
STOPPED: Final = _event("stopped", "a process answered all its requests, and exits", "deployments")
WORKER_EXITED: Final = _event(
    "worker_exited", "a worker process exited; the parent starts another", "the on-call engineer"
)
WORKER_FAILED: Final = _event(
    "worker_failed", "a worker process raised an error; with the traceback", "the on-call engineer"
)
START_FAILED: Final = _event(
    "start_failed", "a process cannot start, and exits; with the reason", "the on-call engineer"
)
UNCAUGHT_ERROR: Final = _event(
    "uncaught_error",
    "an error that no code caught: it ended the process or a thread, or was raised where Python ignores it; with the "
    "traceback",
    "the on-call engineer",
)
LIBRARY: Final = _event("library", "a library logged a message", "developers")

# Fields of every line.
TIMESTAMP: Final = _field("timestamp", "the time in UTC, ISO 8601 with milliseconds", "everyone")
LEVEL: Final = _field("level", "info, warning or error", "log filters")
EVENT: Final = _field("event", "one of the events above", "log filters")

# Fields of a request's line.
METHOD: Final = _field("method", "the request's method; OTHER if HTTP does not define it", "log filters")
ROUTE: Final = _field("route", "the path's template, such as /get/{id}; never the path itself", "log filters")
STATUS: Final = _field("status", "the response's status; 499 if the caller disconnected first", "log filters")
DURATION_MS: Final = _field(
    "duration_ms",
    "milliseconds from the complete request head to the response; of a streamed list, to its first byte",
    "latency analysis",
)
DATABASE_MS: Final = _field(
    "database_ms", "the part of duration_ms spent in round trips to the database", "latency analysis"
)
QUEUE_MS: Final = _field(
    "queue_ms", "the part of duration_ms spent waiting to be sent to the database", "latency analysis"
)
SLOT_MS: Final = _field(
    "slot_ms",
    "the part of duration_ms spent waiting for a slot, because the worker was busy; only if there was one",
    "latency analysis, abuse investigation",
)
STREAM_MS: Final = _field(
    "stream_ms",
    "milliseconds from the first to the last byte of a streamed list, which is sent as fast as its caller reads",
    "cost analysis and large responses",
)
BATCH_SIZE: Final = _field(
    "batch_size", "the number of items in the largest batch that this request was part of", "performance tuning"
)
BYTES: Final = _field("bytes", "the size of the response's body", "cost analysis and large responses")
SAMPLE_WEIGHT: Final = _field(
    "sample_weight",
    "how many requests of the same route, method and status the line stands for, itself included; 1 if each has a line",
    "every query that counts or averages lines",
)
REQUEST_ID: Final = _field(
    "request_id", "the response's X-Request-Id; on a request's line only if it is not the trace_id", "support"
)
TRACE_ID: Final = _field(
    "trace_id",
    "the ID of the request's trace, 32 hexadecimal digits; it is the X-Request-Id as well, unless the caller sent one",
    "support: callers quote it; finding the trace",
)
SPAN_ID: Final = _field(
    "span_id",
    "the ID of the request's span, 16 hexadecimal digits; only if the trace began elsewhere: otherwise, these are the "
    "first 16 of trace_id",
    "finding the trace",
)
SAMPLED: Final = _field("sampled", "whether the trace is recorded", "finding the trace")
CLIENT: Final = _field("client", "the caller's address, from the trusted proxies' headers", "abuse investigation")

CALLER: Final = _field(
    "caller",
    "the name of the caller's API key; only if the request has a known one",
    "abuse investigation, key rotation",
)

# Fields of other lines.
ERROR: Final = _field(
    "error", "the type of the error; on a request's line only if there was one", "the on-call engineer"
)
DETAIL: Final = _field("detail", "the error's message", "the on-call engineer")
SERVER: Final = _field("server", "the database's hosts, each with its port", "the on-call engineer")
EXCEPTION: Final = _field("exception", "the traceback", "developers")
LOGGER: Final = _field("logger", "the library's module that logged the message", "developers")
MESSAGE: Final = _field("message", "the library's message", "developers")
SIGNAL: Final = _field("signal", "the signal that stopped the process", "deployments")
PID: Final = _field("pid", "the ID of the process that the line is about", "developers")
EXIT_STATUS: Final = _field(
    "exit_status", "the exit status of the process; a negative one is a signal", "the on-call engineer"
)
PORT: Final = _field("port", "the port that the process listens on", "deployments")
BUILD: Final = _field("build", "the build that is running", "deployments")
API_KEYS: Final = _field(
    "api_keys", "the number of keys that the API accepts; with 0, anyone may call it", "deployments"
)
MAX_CONNECTIONS: Final = _field("max_connections", "the connections that each worker accepts", "deployments")
CONFIGURED: Final = _field("configured", "the connections that MAX_CONNECTIONS asked for", "deployments")
POD: Final = _field(
    "pod",
    "the pod, or the host if it is not in a pod; with several workers, `-` and the worker's number",
    "comparing pods",
)
NODE: Final = _field("node", "the node that the pod runs on", "comparing nodes")
CLUSTER: Final = _field("cluster", "the cluster that the node belongs to", "comparing clusters")
LINES_DROPPED: Final = _field(
    "lines_dropped", "log lines dropped since the start because they could not be written", "the on-call engineer"
)

# Dimensions of metrics. Their values come from a short list, never from a request.
ROUTE_DIMENSION: Final = "Route"  # as the field route
METHOD_DIMENSION: Final = "Method"  # GET (includes HEAD), POST or OTHER
STATUS_DIMENSION: Final = "Status"  # 2xx, 3xx, 4xx or 5xx
CALLER_DIMENSION: Final = "Caller"  # as the field caller: a name in API_KEY_HASHES
OPERATION_DIMENSION: Final = "Operation"  # get, add or page: a kind of database query

NAMESPACE: Final = "ClientsApi"

OVERALL: Final = ((),)
BY_ROUTE: Final = ((), (ROUTE_DIMENSION, METHOD_DIMENSION, STATUS_DIMENSION))  # probes only in the second
BY_ROUTE_AND_CALLER: Final = (*BY_ROUTE, (CALLER_DIMENSION,))
BY_OPERATION: Final = ((OPERATION_DIMENSION,),)

# The maximum number of metrics, as CloudWatch counts and bills them, whatever requests the service gets. Each name in
# API_KEY_HASHES adds one.
MAX_SERIES: Final = 320

REQUESTS: Final = _metric(
    "Requests", "Count", BY_ROUTE_AND_CALLER, "requests that were answered or whose caller disconnected", "everyone"
)
LATENCY: Final = _metric("Latency", "Milliseconds", BY_ROUTE, "one sample per request, as duration_ms", "everyone")
ERRORS: Final = _metric("Errors", "Count", OVERALL, "requests with a 4xx status, without probes", "caller support")
FAULTS: Final = _metric(
    "Faults", "Count", OVERALL, "requests with a 5xx status, without probes", "the on-call engineer: objectives"
)
SHED: Final = _metric(
    "Shed", "Count", OVERALL, "requests refused because too many were waiting", "the on-call engineer: capacity"
)
SLOT_WAIT: Final = _metric(
    "SlotWait",
    "Milliseconds",
    OVERALL,
    "one sample per request that waited for a slot, as slot_ms",
    "the on-call engineer: capacity",
)
IN_FLIGHT: Final = _metric(
    "InFlight", "Count", OVERALL, "requests in progress, 100 samples per interval", "the on-call engineer: capacity"
)
CONNECTIONS: Final = _metric(
    "Connections", "Count", OVERALL, "callers' connections, 100 samples per interval", "the on-call engineer: capacity"
)
CONNECTIONS_SHED: Final = _metric(
    "ConnectionsShed",
    "Count",
    OVERALL,
    "connections closed to make room for others, or refused because there was no room",
    "the on-call engineer: abuse",
)
CONNECTIONS_TIMED_OUT: Final = _metric(
    "ConnectionsTimedOut",
    "Count",
    OVERALL,
    "connections closed because no complete head arrived, or the response was not read, in time",
    "the on-call engineer: abuse",
)
CONNECTIONS_IN_USE: Final = _metric(
    "ConnectionsInUse",
    "Count",
    OVERALL,
    "database connections of the pool in use, 100 samples per interval",
    "the on-call engineer: database",
)
DATABASE_IS_UNAVAILABLE: Final = _metric(
    "DatabaseUnavailable",
    "None",
    OVERALL,
    "1 while the database does not answer, else 0, 100 samples per interval",
    "the on-call engineer",
)
EVENT_LOOP_LAG: Final = _metric(
    "EventLoopLag",
    "Milliseconds",
    OVERALL,
    "how late a timer ran, 100 samples per interval",
    "the on-call engineer: saturation",
)
BATCH_SIZE_METRIC: Final = _metric("BatchSize", "Count", BY_OPERATION, "items in a round trip", "performance tuning")
QUEUE_WAIT: Final = _metric(
    "QueueWait",
    "Milliseconds",
    BY_OPERATION,
    "how long the oldest item of a round trip waited to be sent",
    "the on-call engineer: database",
)
ROUND_TRIP: Final = _metric(
    "RoundTrip",
    "Milliseconds",
    BY_OPERATION,
    "the duration of a round trip to the database",
    "the on-call engineer: database",
)
LOG_LINES_DROPPED: Final = _metric(
    "LogLinesDropped", "Count", OVERALL, "log lines dropped because they could not be written", "the on-call engineer"
)
PROCESS_CPU: Final = _metric(
    "ProcessCpu",
    "Percent",
    OVERALL,
    "CPU time of the process, in percent of one core",
    "the on-call engineer: capacity",
)
PROCESS_MEMORY: Final = _metric(
    "ProcessMemory", "Bytes", OVERALL, "resident memory of the process", "the on-call engineer: leaks"
)
OPEN_FILES: Final = _metric(
    "OpenFiles", "Count", OVERALL, "open file descriptors, including sockets", "the on-call engineer: leaks"
)

# Attributes of a request's span: OpenTelemetry's stable names.
HTTP_METHOD: Final = _attribute("http.request.method", "as the field method, but _OTHER instead of OTHER", "X-Ray")
HTTP_ROUTE: Final = _attribute("http.route", "the path's template", "X-Ray")
HTTP_STATUS: Final = _attribute(
    "http.response.status_code", "the response's status", "X-Ray: whether it is an error, a fault or a throttle"
)
URL_PATH: Final = _attribute("url.path", "the path, if it has a route", "anyone who reads the trace")
URL_SCHEME: Final = _attribute(
    "url.scheme", "https if a trusted proxy reports it, since TLS ends in front of this service; else http", "X-Ray"
)
CLIENT_ADDRESS: Final = _attribute("client.address", "as the field client", "X-Ray")
ENDUSER_ID: Final = _attribute("enduser.id", "as the field caller", "X-Ray: the segment's user")
USER_AGENT: Final = _attribute("user_agent.original", "the User-Agent header", "X-Ray")
ERROR_TYPE: Final = _attribute("error.type", "the type of the error", "error analysis")
QUEUE_SECONDS: Final = _attribute("clients.queue.duration", "queue_ms, in seconds", "latency analysis")
DATABASE_SECONDS: Final = _attribute("clients.database.duration", "database_ms, in seconds", "latency analysis")

# Attributes of a batch's span: the stable names, and the old ones, which X-Ray's exporter still reads.
DB_SYSTEM: Final = _attribute("db.system.name", "postgresql", "anyone who reads the trace")
SERVER_ADDRESS: Final = _attribute(
    "server.address",
    "of a request, the host in its Host header, without which X-Ray shows no URL; of a batch, the database's hosts",
    "X-Ray; anyone who reads the trace",
)
SERVER_PORT: Final = _attribute("server.port", "the port that belongs to server.address", "anyone who reads the trace")
DB_NAMESPACE: Final = _attribute("db.namespace", "the database's name", "anyone who reads the trace")
DB_OPERATION: Final = _attribute("db.operation.name", "SELECT or INSERT", "anyone who reads the trace")
DB_COLLECTION: Final = _attribute("db.collection.name", "the table", "anyone who reads the trace")
DB_QUERY: Final = _attribute("db.query.text", "the statement, without its values", "anyone who reads the trace")
DB_SUMMARY: Final = _attribute("db.query.summary", "the operation and the table", "anyone who reads the trace")
DB_BATCH_SIZE: Final = _attribute(
    "db.operation.batch.size", "the number of items in the batch, if more than one", "performance tuning"
)
DB_STATUS: Final = _attribute(
    "db.response.status_code", "the SQLSTATE, if PostgreSQL returned an error", "the on-call engineer"
)
OLD_DB_CONNECTION: Final = _attribute(
    "db.connection_string", "the first of the database's hosts as a URL, without a user", "X-Ray's exporter"
)
OLD_DB_SYSTEM: Final = _attribute("db.system", "postgresql", "X-Ray's exporter")
OLD_DB_NAME: Final = _attribute("db.name", "the database's name", "X-Ray's exporter")
OLD_DB_STATEMENT: Final = _attribute("db.statement", "the statement, without its values", "X-Ray's exporter")
