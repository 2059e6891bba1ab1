"""The service's settings: read once from the environment, frozen, and refused in a sentence."""

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from svc import dsn

_T = TypeVar("_T")

Network: TypeAlias = IPv4Network | IPv6Network

_HIDDEN: Final = "(not shown)"

# Beyond the statement's own time, which the server keeps: an answer on its way still arrives.
_GRACE_SECONDS: Final = 1.0
# What the balancer waits for an answer, by default; then callers are told 504, and not by us.
_BALANCER_SECONDS: Final = 60.0


class InvalidSetting(ValueError):
    """A setting is not what it may be; the message names the variable, its value and what would do."""

    def __init__(self, variable: str, value: str, expected: str) -> None:
        super().__init__(f"{variable} is {value}, and has to be {expected}.")


@dataclass(frozen=True)
class DatabaseSettings:
    """How the service reaches PostgreSQL and how long it waits for it.

    The times form a ladder: a statement ends before the service gives up on it (`command_seconds`), that before the
    question's time is over (`answer_seconds`), and that before whoever asked goes away.

    Attributes:
        dsn: where the database is; it holds the password. Empty where no database is named.
        service_password: what `migrate` gives the service's role as its password; empty to leave that alone.
        pool_size: connections of each worker process.
        connect_seconds: the longest that making a connection may take.
        acquire_seconds: the longest that a request waits for its turn.
        statement_seconds: the longest that a statement may run.
        max_queue: questions of a kind that may wait to be sent, in each worker.
    """

    dsn: str = ""
    service_password: str = ""
    pool_size: int = 4
    connect_seconds: float = 2.0
    acquire_seconds: float = 1.0
    statement_seconds: float = 2.0
    max_queue: int = 10_000

    @property
    def command_seconds(self) -> float:
        """The longest that the service waits for a statement's answer."""
        return self.statement_seconds + _GRACE_SECONDS

    @property
    def answer_seconds(self) -> float:
        """The longest from a question to its answer, or to an error that says why there is none."""
        return self.acquire_seconds + self.connect_seconds + self.command_seconds

    def __repr__(self) -> str:
        secret = ("dsn", "service_password")
        rest = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name not in secret)
        return f"{type(self).__name__}({', '.join(f'{name}={_HIDDEN}' for name in secret)}, {rest})"


@dataclass(frozen=True)
class TraceSettings:
    """Which requests are traced and how the spans leave; OTEL_* variables decide the rest where they are used.

    Attributes:
        protocol: grpc or http/protobuf; empty where no collector is named, and so nothing is traced.
        ratio: of the traces that begin here, how many are recorded.
        is_parent_based: whether the others are recorded just where they were recorded before.
    """

    protocol: str = ""
    ratio: float = 0.05
    is_parent_based: bool = True


@dataclass(frozen=True)
class Settings:
    """Everything that the environment decides.

    Attributes:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        workers: processes that share the port.
        max_connections: the most that each worker holds at once.
        drain_seconds: how long the service goes on serving after SIGTERM, so that balancers see it is not ready.
        shutdown_seconds: the longest that requests in flight may take after that.
        build: what `/version` says of the build, such as a commit.
        api_key_hashes: SHA-256 of the keys that the API accepts; none where it is open to everyone.
        telemetry: whether the service tells of its requests; off for measurements only.
        log_format: json, text for people, or auto: text on a terminal, else json.
        trusted_proxies: networks whose X-Forwarded-For is believed.
        metrics_interval: seconds from one telling of metrics to the next.
        traces: which there are, and where they go.
        local_folder: where the embedded PostgreSQL keeps its data.
        database: how PostgreSQL is reached; where none is named, the embedded one is to be used.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    max_connections: int = 4000  # at their most hostile, some 35 KB each: 140 MB beside the 75 MB of a pod at work
    drain_seconds: float = 5.0
    shutdown_seconds: float = 20.0
    build: str = "development"
    api_key_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    telemetry: bool = True
    log_format: str = "auto"
    trusted_proxies: tuple[Network, ...] = ()
    metrics_interval: float = 10.0
    traces: TraceSettings = TraceSettings()
    local_folder: Path = Path(".local")
    database: DatabaseSettings = DatabaseSettings()


def read(environment: Mapping[str, str]) -> Settings:
    """The settings that the environment's variables give.

    Raises:
        InvalidSetting: for the first one that is wrong.
    """
    variables = {name: value for name, value in environment.items() if value}  # empty is unset, as in compose files
    if "API_KEY_HASHES" in environment and "API_KEY_HASHES" not in variables:
        # But not this one: who set it meant to close the API, and what should have filled it may be lost.
        raise InvalidSetting("API_KEY_HASHES", "empty", "hashes of keys, or not set at all to open the API to everyone")

    def get(name: str, parse: Callable[[str, str], _T], default: _T) -> _T:
        return parse(name, variables[name]) if name in variables else default

    settings = Settings(
        host=variables.get("HOST", Settings.host),
        port=get("PORT", _whole(0, 65535), Settings.port),
        workers=get("WORKERS", _whole(1, 64), Settings.workers),
        max_connections=get("MAX_CONNECTIONS", _whole(1, 1_000_000), Settings.max_connections),
        drain_seconds=get("DRAIN_SECONDS", _seconds(0, 600), Settings.drain_seconds),
        shutdown_seconds=get("SHUTDOWN_SECONDS", _seconds(0, 600), Settings.shutdown_seconds),
        build=variables.get("BUILD", Settings.build),
        api_key_hashes=get("API_KEY_HASHES", _hashes, Settings.api_key_hashes),
        telemetry=get("TELEMETRY", _one_of({"on": True, "off": False}), Settings.telemetry),
        log_format=get("LOG_FORMAT", _one_of({name: name for name in ("auto", "json", "text")}), Settings.log_format),
        trusted_proxies=get("TRUSTED_PROXIES", _networks, Settings.trusted_proxies),
        metrics_interval=get("METRICS_INTERVAL", _seconds(1, 60), Settings.metrics_interval),
        traces=_traces(variables),
        local_folder=Path(variables.get("LOCAL_FOLDER", Settings.local_folder)),
        database=DatabaseSettings(
            dsn=_database_dsn(variables),
            service_password=get("DB_SERVICE_PASSWORD", _password, DatabaseSettings.service_password),
            pool_size=get("DB_POOL_SIZE", _whole(1, 100), DatabaseSettings.pool_size),
            connect_seconds=get("DB_CONNECT_SECONDS", _seconds(0.1, 60), DatabaseSettings.connect_seconds),
            acquire_seconds=get("DB_ACQUIRE_SECONDS", _seconds(0.01, 60), DatabaseSettings.acquire_seconds),
            statement_seconds=get("DB_STATEMENT_SECONDS", _seconds(0.01, 60), DatabaseSettings.statement_seconds),
            max_queue=get("MAX_QUEUE", _whole(1, 1_000_000), DatabaseSettings.max_queue),
        ),
    )
    _check_ladder(settings)
    return settings


def _check_ladder(settings: Settings) -> None:
    longest = settings.database.answer_seconds
    if longest >= _BALANCER_SECONDS:
        variables = "DB_ACQUIRE_SECONDS + DB_CONNECT_SECONDS + DB_STATEMENT_SECONDS"
        most = _BALANCER_SECONDS - _GRACE_SECONDS
        expected = f"less than {most:g}, so that an answer comes before a balancer gives up on it"
        raise InvalidSetting(variables, f"{longest - _GRACE_SECONDS:g}", expected)
    if settings.shutdown_seconds < longest:
        expected = f"at least {longest:g}, the longest that an answer may take"
        raise InvalidSetting("SHUTDOWN_SECONDS", f"{settings.shutdown_seconds:g}", expected)


def check_certificates(file: str) -> None:
    """Sees at the start whether CA certificates can be read; a driver would only find it at each connection.

    Raises:
        InvalidSetting: they cannot.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        reason = "there are none in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidSetting("sslrootcert", repr(file), f"a file of CA certificates (PEM): {reason}") from None


# https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
_SAMPLERS: Final = ("always_on", "always_off", "traceidratio")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("http/protobuf", "grpc")


def _traces(variables: Mapping[str, str]) -> TraceSettings:
    def choose(name: str, choices: Sequence[str], default: str) -> str:
        return _one_of({choice: choice for choice in choices})(name, variables[name]) if name in variables else default

    samplers = [*_SAMPLERS, *(f"parentbased_{sampler}" for sampler in _SAMPLERS)]
    sampler = choose("OTEL_TRACES_SAMPLER", samplers, "parentbased_traceidratio")
    ratio = TraceSettings.ratio
    if "OTEL_TRACES_SAMPLER_ARG" in variables:
        ratio = _number(0, 1, "a number from 0 to 1")("OTEL_TRACES_SAMPLER_ARG", variables["OTEL_TRACES_SAMPLER_ARG"])
    ratio = {"always_on": 1.0, "always_off": 0.0}.get(sampler.removeprefix("parentbased_"), ratio)
    endpoints = [name for name in _ENDPOINTS if name in variables]
    for name in endpoints:
        if not variables[name].startswith(("http://", "https://")):
            raise InvalidSetting(name, repr(variables[name]), "a URL such as http://collector:4318")
    exporter = choose("OTEL_TRACES_EXPORTER", ("otlp", "none"), "otlp" if endpoints else "none")
    protocol = choose("OTEL_EXPORTER_OTLP_PROTOCOL", _PROTOCOLS, _PROTOCOLS[0])
    protocol = choose("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", _PROTOCOLS, protocol)
    is_off = exporter == "none" or variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return TraceSettings("" if is_off else protocol, ratio, sampler.startswith("parentbased_"))


_PARTS: Final = {
    "DB_HOST": "host",
    "DB_PORT": "port",
    "DB_NAME": "dbname",
    "DB_USERNAME": "user",
    "DB_PASSWORD": "password",  # nosec B105 # libpq's name for it
    "DB_SSLMODE": "sslmode",
    "DB_SSLROOTCERT": "sslrootcert",
}


def _database_dsn(variables: Mapping[str, str]) -> str:
    parts = {name: variables[name] for name in _PARTS if name in variables}
    if "DB_SSLMODE" in parts:
        _ssl_mode("DB_SSLMODE", parts["DB_SSLMODE"])
    if "DATABASE_URL" in variables:
        return _dsn_of_url(variables["DATABASE_URL"], parts)
    if not parts:
        return ""
    if "DB_HOST" not in parts:
        raise InvalidSetting("DB_HOST", "not set", f"the database's host, since {', '.join(parts)} is set")
    if "DB_PORT" in parts:
        _whole(1, 65535)("DB_PORT", parts["DB_PORT"])
    try:
        return str(dsn.from_parts({_PARTS[name]: value for name, value in parts.items()}))
    except dsn.InvalidDsn as error:
        raise InvalidSetting("DB_HOST", repr(parts["DB_HOST"]), f"with the rest, a PostgreSQL: {error}") from None


def _dsn_of_url(url: str, parts: Mapping[str, str]) -> str:
    if parts:
        expected = f"the only one that names a database, and {', '.join(parts)} is set"
        raise InvalidSetting("DATABASE_URL", "set", expected)
    try:
        return str(dsn.parse(url))
    except dsn.InvalidDsn as error:
        expected = f"a URL such as postgresql://user:password@host:5432/name: {error}"
        raise InvalidSetting("DATABASE_URL", _HIDDEN, expected) from None


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
            raise InvalidSetting(name, repr(value), f"a whole number from {least} to {most}")
        return int(value)

    return parse


def _seconds(least: float, most: float) -> Callable[[str, str], float]:
    return _number(least, most, f"a number of seconds from {least:g} to {most:g}")


def _number(least: float, most: float, expected: str) -> Callable[[str, str], float]:
    def parse(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise InvalidSetting(name, repr(value), expected)
        return number

    return parse


def _one_of(choices: Mapping[str, _T]) -> Callable[[str, str], _T]:
    def parse(name: str, value: str) -> _T:
        if value not in choices:
            raise InvalidSetting(name, repr(value), f"one of {', '.join(choices)}")
        return choices[value]

    return parse


def _networks(name: str, value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in value.split(","))
    except ValueError:
        expected = "addresses or networks with commas between them, such as 10.0.0.0/16,192.168.1.7"
        raise InvalidSetting(name, repr(value), expected) from None


_HASH: Final = re.compile("[0-9A-Fa-f]{64}")
_HASH_OF_NOTHING: Final = sha256().digest()


def _hashes(name: str, value: str) -> tuple[bytes, ...]:
    # Not shown: who mistakes what belongs here may have given a key.
    parts = [part.strip() for part in value.split(",")]
    if not all(map(_HASH.fullmatch, parts)):
        expected = "SHA-256 hashes of 64 hexadecimal digits with commas between them; `python -m svc key` makes one"
        raise InvalidSetting(name, _HIDDEN, expected)
    hashes = tuple(dict.fromkeys(map(bytes.fromhex, parts)))
    if _HASH_OF_NOTHING in hashes:
        raise InvalidSetting(name, _HIDDEN, "hashes of keys, and one of them is of no key at all")
    return hashes


def _password(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise InvalidSetting(name, _HIDDEN, "of printable ASCII characters")
    return value


def _ssl_mode(name: str, value: str) -> None:
    if value not in dsn.SSL_MODES:
        raise InvalidSetting(name, repr(value), f"one of {', '.join(dsn.SSL_MODES)}")
