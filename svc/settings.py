"""The service's settings: read once from the environment, validated, and frozen."""

import math
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from os.path import commonprefix
from pathlib import Path
from socket import inet_aton
from typing import Final, TypeVar

from svc.errors import InvalidSetting
from svc.http.access import NAME, ApiKey
from svc.http.connections import KEEPALIVE_SECONDS
from svc.http.hosts import is_loopback
from svc.http.proxies import Network
from svc.postgres import dsn
from svc.postgres.settings import GRACE_SECONDS, HIDDEN, POOLERS, SERVICE_ROLES, DatabaseSettings
from svc.process.settings import ServerSettings
from svc.telemetry.settings import TelemetrySettings, TraceSettings

_T = TypeVar("_T")

# A load balancer's default timeout for a response. After it, callers get a 504 that the service cannot describe.
_BALANCER_SECONDS: Final = 60.0

_ROLES: Final = {name: name for name in SERVICE_ROLES}


@dataclass(frozen=True)
class Settings:
    """Everything that environment variables configure.

    Attributes:
        server: where the service listens and how it stops.
        max_connections: the maximum number of callers' connections, per worker.
        max_concurrent: the requests of each route that a worker handles at once.
        max_queue: the requests of one caller that may wait for that, for each route and worker.
        keepalive_seconds: how long a caller's connection may wait for its next request.
        build: the build that `/version` returns, such as a commit.
        api_key_hashes: the keys that the API accepts; empty where it is open to everyone.
        trusted_proxies: networks whose X-Forwarded-* headers are believed.
        cors_origins: the origins whose pages may call the API from a browser.
        log_format: json; text, which is for people; or auto, which is text on a terminal and json elsewhere.
        telemetry: which telemetry the service emits.
        local_folder: the folder of the embedded PostgreSQL's data.
        database: how to reach PostgreSQL; without a URL, the embedded one is used.
    """

    server: ServerSettings = field(default_factory=ServerSettings)
    max_connections: int = 4000  # of hostile callers, they take 35 KB each: 140 MB on top of a busy pod's 75 MB
    max_concurrent: int = 64
    max_queue: int = 10_000
    keepalive_seconds: float = KEEPALIVE_SECONDS
    build: str = "development"
    api_key_hashes: tuple[ApiKey, ...] = field(default=(), repr=False)
    trusted_proxies: tuple[Network, ...] = ()
    cors_origins: tuple[str, ...] = ()
    log_format: str = "auto"
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    local_folder: Path = Path(".local")
    database: DatabaseSettings = field(default_factory=DatabaseSettings)

    @property
    def slot_seconds(self) -> float:
        """The longest that a request waits for its slot: as long as it may then wait for a connection."""
        return self.database.acquire_seconds

    @property
    def longest_seconds(self) -> float:
        """The longest that a request takes, apart from its caller's part in it."""
        return self.slot_seconds + self.database.deadline_seconds

    @property
    def accepts_only_loopback_hosts(self) -> bool:
        """Whether the API is open to this machine only: then pages of other sites must not read it through a browser.

        A trusted proxy in front of it, or a key, is what such a page lacks.
        """
        return is_loopback(self.server.host) and not (self.api_key_hashes or self.trusted_proxies)


def read(environment: Mapping[str, str]) -> Settings:
    """The settings from environment variables.

    Raises:
        InvalidSetting: for the first variable that is not valid.
    """
    variables = {name: value for name, value in environment.items() if value}  # empty is unset, as in compose files
    # Set but empty, the first was meant to close the API and the second to name the build, so a value was lost.
    for name, expected in (
        ("API_KEY_HASHES", "hashes of keys, or unset to open the API to everyone"),
        ("BUILD", "the build that runs, such as a commit, or unset"),
    ):
        if environment.get(name) == "":
            raise InvalidSetting(name, "empty", expected)

    def get(name: str, parse: Callable[[str, str], _T], default: _T) -> _T:
        return parse(name, variables[name]) if name in variables else default

    settings = Settings(
        server=ServerSettings(
            host=get("HOST", _host, ServerSettings.host),
            port=get("PORT", _whole(0, 65535), ServerSettings.port),
            workers=get("WORKERS", _whole(1, 64), ServerSettings.workers),
            drain_seconds=get("DRAIN_SECONDS", _seconds(0, 600), ServerSettings.drain_seconds),
            shutdown_seconds=get("SHUTDOWN_SECONDS", _seconds(0, 600), ServerSettings.shutdown_seconds),
        ),
        max_connections=get("MAX_CONNECTIONS", _whole(1, 1_000_000), Settings.max_connections),
        max_concurrent=get("MAX_CONCURRENT", _whole(1, 1_000_000), Settings.max_concurrent),
        max_queue=get("MAX_QUEUE", _whole(1, 1_000_000), Settings.max_queue),
        keepalive_seconds=get("KEEPALIVE_SECONDS", _seconds(1, 7200), Settings.keepalive_seconds),
        build=variables.get("BUILD", Settings.build),
        api_key_hashes=get("API_KEY_HASHES", _api_keys, Settings.api_key_hashes),
        trusted_proxies=get("TRUSTED_PROXIES", _networks, Settings.trusted_proxies),
        cors_origins=get("CORS_ORIGINS", _origins, Settings.cors_origins),
        log_format=get("LOG_FORMAT", _one_of({name: name for name in ("auto", "json", "text")}), Settings.log_format),
        telemetry=TelemetrySettings(
            is_on=get("TELEMETRY", _one_of({"on": True, "off": False}), TelemetrySettings.is_on),
            lines_per_second=get("LOG_LINES_PER_SECOND", _rate, TelemetrySettings.lines_per_second),
            metrics_interval=get("METRICS_INTERVAL", _seconds(1, 60), TelemetrySettings.metrics_interval),
            traces=_traces(variables),
        ),
        local_folder=Path(variables.get("LOCAL_FOLDER", Settings.local_folder)),
        database=DatabaseSettings(
            dsn=_database_dsn(variables),
            service_username=get("DB_SERVICE_USERNAME", _one_of(_ROLES), DatabaseSettings.service_username),
            service_password=get("DB_SERVICE_PASSWORD", _password, DatabaseSettings.service_password),
            pool_size=get("DB_POOL_SIZE", _whole(1, 100), DatabaseSettings.pool_size),
            connect_seconds=get("DB_CONNECT_SECONDS", _seconds(0.1, 60), DatabaseSettings.connect_seconds),
            acquire_seconds=get("DB_ACQUIRE_SECONDS", _seconds(0.01, 60), DatabaseSettings.acquire_seconds),
            statement_seconds=get("DB_STATEMENT_SECONDS", _seconds(0.01, 60), DatabaseSettings.statement_seconds),
            keepalive_seconds=get("DB_KEEPALIVE_SECONDS", _whole(0, 7200), DatabaseSettings.keepalive_seconds),
            idle_seconds=get("DB_IDLE_SECONDS", _seconds(0.1, 86400), DatabaseSettings.idle_seconds),
            pooler=get("DB_POOLER", _one_of({name: name for name in POOLERS}), DatabaseSettings.pooler),
        ),
    )
    _check_timeouts(settings)
    return settings


_NAMES: Final = frozenset(
    (
        "HOST PORT WORKERS DRAIN_SECONDS SHUTDOWN_SECONDS MAX_CONNECTIONS MAX_CONCURRENT MAX_QUEUE KEEPALIVE_SECONDS "
        "BUILD API_KEY_HASHES TRUSTED_PROXIES CORS_ORIGINS LOG_FORMAT TELEMETRY LOG_LINES_PER_SECOND "
        "TRACES_PER_SECOND METRICS_INTERVAL LOCAL_FOLDER DATABASE_URL DB_HOST DB_PORT DB_NAME DB_USERNAME DB_PASSWORD "
        "DB_PASSFILE DB_SSLMODE DB_SSLROOTCERT DB_SERVICE_USERNAME DB_SERVICE_PASSWORD DB_POOL_SIZE DB_CONNECT_SECONDS "
        "DB_ACQUIRE_SECONDS DB_STATEMENT_SECONDS DB_KEEPALIVE_SECONDS DB_IDLE_SECONDS DB_POOLER "
        "OTEL_EXPORTER_OTLP_ENDPOINT OTEL_EXPORTER_OTLP_PROTOCOL OTEL_TRACES_SAMPLER OTEL_TRACES_SAMPLER_ARG "
        "OTEL_SERVICE_NAME OTEL_RESOURCE_ATTRIBUTES OTEL_EXPORTER_OTLP_COMPRESSION"
    ).split()
)


def misspelled(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are probably settings with a typing error, each with the setting's name.

    Another program's variable may have such a name, so it is no error.
    """
    unset = sorted(_NAMES - environment.keys())
    similar = {name: next((ours for ours in unset if _is_typo(name.upper(), ours)), "") for name in environment}
    return {name: ours for name, ours in similar.items() if ours and name not in _NAMES}


def _is_typo(name: str, intended: str) -> bool:
    """Whether one character was added, left out or replaced, or two were swapped, or none."""
    start = _shared(name, intended)
    name, intended = name[start:], intended[start:]
    end = _shared(name[::-1], intended[::-1])
    name, intended = name[: len(name) - end], intended[: len(intended) - end]
    return max(len(name), len(intended)) <= 1 or (len(name) == 2 and name == intended[::-1])


def _shared(one: str, other: str) -> int:
    return len(commonprefix([one, other]))  # noqa: RUF071 - characters, not parts of paths


def _check_timeouts(settings: Settings) -> None:
    longest = settings.longest_seconds
    if longest >= _BALANCER_SECONDS:
        hosts = settings.database.hosts
        connect = "DB_CONNECT_SECONDS" if hosts == 1 else f"DB_CONNECT_SECONDS for each of {hosts} hosts"
        variables = f"twice DB_ACQUIRE_SECONDS + {connect} + DB_STATEMENT_SECONDS"
        maximum = _BALANCER_SECONDS - GRACE_SECONDS
        expected = f"less than {maximum:g}, so that the service responds before a load balancer times out"
        raise InvalidSetting(variables, f"{longest - GRACE_SECONDS:g}", expected)
    if settings.server.shutdown_seconds < longest:
        expected = f"at least {longest:g}, the longest time that a request may take"
        raise InvalidSetting("SHUTDOWN_SECONDS", f"{settings.server.shutdown_seconds:g}", expected)


def check_certificates(file: str) -> None:
    """Checks that a file of CA certificates can be read. The driver would fail only later, at each connection.

    Raises:
        InvalidSetting: it cannot.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        reason = "it contains none" if isinstance(error, ssl.SSLError) else error.strerror
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
    per_second = TraceSettings.per_second
    if "TRACES_PER_SECOND" in variables:
        per_second = _rate("TRACES_PER_SECOND", variables["TRACES_PER_SECOND"])
    return TraceSettings("" if is_off else protocol, ratio, sampler.startswith("parentbased_"), per_second)


_PARTS: Final = {
    "DB_HOST": "host",
    "DB_PORT": "port",
    "DB_NAME": "dbname",
    "DB_USERNAME": "user",
    "DB_PASSWORD": "password",  # nosec B105 # libpq's name for it
    "DB_PASSFILE": "passfile",
    "DB_SSLMODE": "sslmode",
    "DB_SSLROOTCERT": "sslrootcert",
}


def _database_dsn(variables: Mapping[str, str]) -> str:
    parts = {name: variables[name] for name in _PARTS if name in variables}
    if "DB_SSLMODE" in parts:
        _ssl_mode("DB_SSLMODE", parts["DB_SSLMODE"])
    if "DATABASE_URL" in variables:
        return _dsn_of_url(variables, parts)
    if not parts:
        return ""
    if "DB_HOST" not in parts:
        raise InvalidSetting("DB_HOST", "not set", f"the database's host, since {', '.join(parts)} is set")
    if "DB_PORT" in parts:
        _whole(1, 65535)("DB_PORT", parts["DB_PORT"])
    try:
        return str(dsn.from_parts({_PARTS[name]: value for name, value in parts.items()}, variables))
    except dsn.InvalidDsn as error:
        raise InvalidSetting(
            "DB_HOST", repr(parts["DB_HOST"]), f"a valid address together with the other DB_ variables: {error}"
        ) from None


def _dsn_of_url(variables: Mapping[str, str], parts: Mapping[str, str]) -> str:
    if parts:
        expected = f"the only variable that names a database, but {', '.join(parts)} is set too"
        raise InvalidSetting("DATABASE_URL", "set", expected)
    try:
        return str(dsn.parse(variables["DATABASE_URL"], variables))
    except dsn.InvalidDsn as error:
        expected = f"a URL such as postgresql://user:password@host:5432/name: {error}"
        raise InvalidSetting("DATABASE_URL", HIDDEN, expected) from None


_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def _host(name: str, value: str) -> str:
    try:
        if ":" in value:
            ip_address(value)
        elif not value.strip("0123456789."):
            inet_aton(value)
    except (ValueError, OSError):
        is_valid = False
    else:
        is_valid = ":" in value or _HOST_NAME.fullmatch(value) is not None
    if not is_valid:
        raise InvalidSetting(name, repr(value), "an IPv4 or IPv6 address, or a host's name, such as 0.0.0.0")
    return value


def _whole(minimum: int, maximum: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 10 and minimum <= int(value) <= maximum):
            raise InvalidSetting(name, repr(value), f"a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def _seconds(minimum: float, maximum: float) -> Callable[[str, str], float]:
    return _number(minimum, maximum, f"a number of seconds from {minimum:g} to {maximum:g}")


def _rate(name: str, value: str) -> float:
    return _number(0, 1_000_000, "a number per second from 0, which has no limit, to 1000000")(name, value)


def _number(minimum: float, maximum: float, expected: str) -> Callable[[str, str], float]:
    def parse(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not minimum <= number <= maximum:
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
        return tuple(_network(part.strip()) for part in value.split(","))
    except ValueError:
        expected = "addresses or networks separated by commas, such as 10.0.0.0/16,192.168.1.7"
        raise InvalidSetting(name, repr(value), expected) from None


def _network(text: str) -> Network:
    """The network; that of `::ffff:10.0.0.0/104` is IPv4, as the addresses in it are."""
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return IPv4Network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


# As a browser sends an origin: in lower case, without a default port or a path.
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORT: Final = re.compile(r"http:.*:80|https:.*:443")


def _origins(name: str, value: str) -> tuple[str, ...]:
    origins = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
            expected = (
                "origins separated by commas, each as browsers send it: in lower case, without a default port, a "
            )
            raise InvalidSetting(name, repr(origin), f"{expected}path or a wildcard, such as https://app.example")
    return origins


_API_KEY: Final = re.compile(rf"(?:({NAME.pattern}):)?([0-9A-Fa-f]{{64}})(?::([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}))?")
_EMPTY_KEY_HASH: Final = sha256().digest()
_SHOWN_HASH_DIGITS: Final = 8  # enough to find a key, and too few to reveal its hash


def _api_keys(name: str, value: str) -> tuple[ApiKey, ...]:
    # The value is not shown, since it may be a key by mistake.
    keys = tuple(dict.fromkeys(_api_key(name, part.strip()) for part in value.split(",")))
    if _EMPTY_KEY_HASH in {key.hash for key in keys}:
        raise InvalidSetting(name, HIDDEN, "hashes of keys, and one is the hash of an empty key")
    if min(len({key.hash for key in keys}), len({key.caller for key in keys})) < len(keys):
        raise InvalidSetting(name, HIDDEN, "hashes of keys, each with a name of its own; a name or a hash is repeated")
    return keys


def _api_key(name: str, text: str) -> ApiKey:
    found = _API_KEY.fullmatch(text)
    expires_at = _end_of(found[3]) if found else None
    if not found or expires_at is None:
        expected = (
            "SHA-256 hashes of 64 hexadecimal digits, separated by commas, each as HASH, NAME:HASH or "
            "NAME:HASH:YYYY-MM-DD; `python -m svc key NAME` makes one"
        )
        raise InvalidSetting(name, HIDDEN, expected)
    return ApiKey(bytes.fromhex(found[2]), found[1] or found[2][:_SHOWN_HASH_DIGITS].lower(), expires_at)


def _end_of(day: str | None) -> float | None:
    """The end of a day in UTC, in seconds since 1970: infinity without a day; None where there is no such day."""
    if day is None:
        return math.inf
    try:
        return (datetime.fromisoformat(f"{day}T00:00Z") + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        return None


def _password(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise InvalidSetting(name, HIDDEN, "of printable ASCII characters")
    return value


def _ssl_mode(name: str, value: str) -> None:
    if value not in dsn.SSL_MODES:
        raise InvalidSetting(name, repr(value), f"one of {', '.join(dsn.SSL_MODES)}")
