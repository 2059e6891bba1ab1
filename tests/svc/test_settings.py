"""Settings: read once and frozen; an error names the variable, its value and what is valid."""

import dataclasses
import hashlib
import os
import ssl
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import asyncpg
import pytest

from ops.common.process import ROOT
from svc.errors import InvalidSetting
from svc.postgres import dsn
from svc.postgres.embedded import EmbeddedPostgres
from svc.settings import Settings, read
from svc.telemetry.settings import TraceSettings

VERIFIED = {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
HASH, OTHER_HASH = "ab" * 32, "12" * 32
NO_HASHES = (
    "API_KEY_HASHES is (not shown), but must be SHA-256 hashes of 64 hexadecimal digits, separated by commas; "
    "`python -m svc key` makes one."
)


def database_of(variables: dict[str, str]) -> str:
    return read(variables).database.dsn


def test_without_variables_settings_are_the_defaults() -> None:
    """An empty environment gives the defaults, without a database."""
    assert read({}) == Settings()
    assert read({"PORT": "", "DATABASE_URL": ""}) == Settings()


def test_every_variable_is_read() -> None:
    """Each variable sets its setting."""
    settings = read(
        {
            "HOST": "0.0.0.0",
            "PORT": "0",
            "WORKERS": "2",
            "MAX_CONNECTIONS": "12",
            "DRAIN_SECONDS": "0.5",
            "SHUTDOWN_SECONDS": "12",
            "BUILD": "abc",
            "API_KEY_HASHES": f"{HASH}, {HASH.upper()},{OTHER_HASH}",
            "TELEMETRY": "off",
            "LOG_FORMAT": "text",
            "TRUSTED_PROXIES": "10.0.0.0/8, ::1, ::ffff:192.168.0.0/112",
            "METRICS_INTERVAL": "2.5",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "LOCAL_FOLDER": "elsewhere",
            "DATABASE_URL": "postgresql://u@h/d",
            "DB_SERVICE_PASSWORD": "secret",
            "DB_POOL_SIZE": "7",
            "DB_CONNECT_SECONDS": "1",
            "DB_ACQUIRE_SECONDS": "0.1",
            "DB_STATEMENT_SECONDS": "9",
            "DB_KEEPALIVE_SECONDS": "0",
            "DB_IDLE_SECONDS": "300",
            "MAX_QUEUE": "11",
        }
    )
    default = Settings()

    for read_part, default_part in (
        (settings, default),
        (settings.server, default.server),
        (settings.telemetry, default.telemetry),
        (settings.database, default.database),
    ):
        names = {field.name for field in dataclasses.fields(read_part)}
        assert {name for name in names if getattr(read_part, name) != getattr(default_part, name)} == names
    assert settings.api_key_hashes == (bytes.fromhex(HASH), bytes.fromhex(OTHER_HASH))
    assert settings.telemetry.traces == TraceSettings("grpc", 0.5, is_parent_based=False)
    assert settings.trusted_proxies == tuple(map(ip_network, ("10.0.0.0/8", "::1", "192.168.0.0/16")))
    assert dataclasses.astuple(settings.database)[1:] == ("secret", 7, 1, 0.1, 9, 0, 300, 11)


@pytest.mark.parametrize(
    ("variables", "traces"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, TraceSettings("http/protobuf")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"}, TraceSettings("http/protobuf")),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, TraceSettings("grpc")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, TraceSettings()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, TraceSettings()),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, TraceSettings(ratio=1)),
        (
            {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "0.5"},
            TraceSettings(ratio=0, is_parent_based=False),
        ),
    ],
)
def test_the_standard_variables_configure_traces(variables: dict[str, str], traces: TraceSettings) -> None:
    """The OTEL_* variables have the effect that OpenTelemetry specifies. Without an endpoint, nothing is traced."""
    assert read(variables).telemetry.traces == traces


def test_each_timeout_is_shorter_than_the_next() -> None:
    """A statement times out in the server, then in the service, then comes the deadline, then the end of a shutdown."""
    settings = Settings()
    waits = [settings.database.statement_seconds, settings.database.command_seconds, settings.database.deadline_seconds]
    assert (
        [*waits, settings.server.shutdown_seconds]
        == sorted([*waits, settings.server.shutdown_seconds])
        == [2, 3, 6, 20]
    )


def test_settings_are_frozen() -> None:
    """A setting cannot be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read({}).build = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PORT": "x"}, "PORT is 'x', but must be a whole number from 0 to 65535."),
        ({"PORT": "65536"}, "PORT is '65536', but must be a whole number from 0 to 65535."),
        ({"PORT": "٣"}, "PORT is '٣', but must be a whole number from 0 to 65535."),
        ({"MAX_CONNECTIONS": "0"}, "MAX_CONNECTIONS is '0', but must be a whole number from 1 to 1000000."),
        ({"WORKERS": "0"}, "WORKERS is '0', but must be a whole number from 1 to 64."),
        ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS is '-1', but must be a number of seconds from 0 to 600."),
        ({"DRAIN_SECONDS": "nan"}, "DRAIN_SECONDS is 'nan', but must be a number of seconds from 0 to 600."),
        (
            {"SHUTDOWN_SECONDS": "6", "DB_STATEMENT_SECONDS": "2.5"},
            "SHUTDOWN_SECONDS is 6, but must be at least 6.5, the longest time that a request may take.",
        ),
        (
            {"SHUTDOWN_SECONDS": "600", "DB_STATEMENT_SECONDS": "56"},
            (
                "DB_ACQUIRE_SECONDS + DB_CONNECT_SECONDS + DB_STATEMENT_SECONDS is 59, but must be less than 59, "
                "so that the service responds before a load balancer times out."
            ),
        ),
        (
            {"DATABASE_URL": "postgresql://u@a,b,c/d", "SHUTDOWN_SECONDS": "9"},
            "SHUTDOWN_SECONDS is 9, but must be at least 10, the longest time that a request may take.",
        ),
        (
            {"DATABASE_URL": "postgresql://u@a,b,c/d", "DB_CONNECT_SECONDS": "20"},
            (
                "DB_ACQUIRE_SECONDS + DB_CONNECT_SECONDS for each of 3 hosts + DB_STATEMENT_SECONDS is 63, "
                "but must be less than 59, so that the service responds before a load balancer times out."
            ),
        ),
        ({"TELEMETRY": "no"}, "TELEMETRY is 'no', but must be one of on, off."),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is 'xml', but must be one of auto, json, text."),
        (
            {"TRUSTED_PROXIES": "10.0.0.1/8"},
            (
                "TRUSTED_PROXIES is '10.0.0.1/8', but must be addresses or networks separated by commas, "
                "such as 10.0.0.0/16,192.168.1.7."
            ),
        ),
        ({"API_KEY_HASHES": "the-key-itself"}, NO_HASHES),
        ({"API_KEY_HASHES": HASH[1:]}, NO_HASHES),
        ({"API_KEY_HASHES": HASH[1:] + "g"}, NO_HASHES),
        ({"API_KEY_HASHES": HASH[1:] + "٣"}, NO_HASHES),
        ({"API_KEY_HASHES": f"{HASH} {OTHER_HASH}"}, NO_HASHES),
        ({"API_KEY_HASHES": f"{HASH},"}, NO_HASHES),
        ({"API_KEY_HASHES": " "}, NO_HASHES),
        (
            {"API_KEY_HASHES": ""},
            "API_KEY_HASHES is empty, but must be hashes of keys, or unset to open the API to everyone.",
        ),
        (
            {"API_KEY_HASHES": f"{HASH},{hashlib.sha256().hexdigest()}"},
            "API_KEY_HASHES is (not shown), but must be hashes of keys, and one is the hash of an empty key.",
        ),
        ({"METRICS_INTERVAL": "0"}, "METRICS_INTERVAL is '0', but must be a number of seconds from 1 to 60."),
        (
            {"OTEL_TRACES_SAMPLER_ARG": "5%"},
            "OTEL_TRACES_SAMPLER_ARG is '5%', but must be a number from 0 to 1.",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
            ("OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318', but must be a URL such as http://collector:4318."),
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json', but must be one of http/protobuf, grpc.",
        ),
        ({"DB_POOL_SIZE": "many"}, "DB_POOL_SIZE is 'many', but must be a whole number from 1 to 100."),
        ({"DB_PORT": "5432"}, "DB_HOST is not set, but must be the database's host, since DB_PORT is set."),
        ({"DB_HOST": "h", "DB_PORT": "0"}, "DB_PORT is '0', but must be a whole number from 1 to 65535."),
        (
            {"DB_HOST": "h", "DB_SSLMODE": "on"},
            "DB_SSLMODE is 'on', but must be one of disable, allow, prefer, require, verify-ca, verify-full.",
        ),
        (
            {"DB_SERVICE_PASSWORD": "pässword"},
            "DB_SERVICE_PASSWORD is (not shown), but must be of printable ASCII characters.",
        ),
        (
            {"DATABASE_URL": "postgresql://h/d", "DB_HOST": "h"},
            "DATABASE_URL is set, but must be the only variable that names a database, but DB_HOST is set too.",
        ),
        (
            {"DATABASE_URL": "mysql://u:secret@h/d"},
            (
                "DATABASE_URL is (not shown), but must be a URL such as postgresql://user:password@host:5432/name: "
                "it must start with postgresql://."
            ),
        ),
    ],
)
def test_an_invalid_setting_is_an_error(variables: dict[str, str], sentence: str) -> None:
    """The error names the variable, the value, and what is valid."""
    with pytest.raises(InvalidSetting) as error:
        read(variables)

    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "variables",
    [
        {"DATABASE_URL": "postgresql://u:hunter2@h/d"},
        {"DB_HOST": "h", "DB_PASSWORD": "hunter2"},
        {"DB_HOST": "h", "DB_SERVICE_PASSWORD": "hunter2"},
        {"DATABASE_URL": "postgresql://u:hunter2@h:x/d"},
        {"DATABASE_URL": "postgresql://u:hunter2@[h/d"},
        {"DATABASE_URL": "postgresql://h/d?password=hunter2&nonsense=1"},
    ],
)
def test_passwords_are_not_shown(variables: dict[str, str]) -> None:
    """Neither an error nor the repr of the settings contains the password."""
    try:
        shown = repr(read(variables))
    except InvalidSetting as error:
        shown = str(error)

    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PORT": "x"}, "PORT is 'x', but must be a whole number from 0 to 65535."),
        (
            {
                "DATABASE_URL": "postgresql://u@127.0.0.1:9/d",
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_BSP_MAX_QUEUE_SIZE": "0",
            },
            (
                "an OTEL_* variable is wrong, but must be what OpenTelemetry takes: "
                "max_queue_size must be a positive integer."
            ),
        ),
    ],
)
def test_an_invalid_setting_ends_the_command_with_status_1(variables: dict[str, str], sentence: str) -> None:
    """The command prints the error, without a traceback."""
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(
        [sys.executable, "-m", "svc"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (1, f"error: {sentence}\n")


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("postgresql://u:p@h:1/d", {"user": "u", "password": "p", "host": "h", "port": "1", **VERIFIED}),
        (
            "postgres://u@h/d?sslmode=require",
            {"user": "u", "host": "h", "port": "5432", **VERIFIED, "sslmode": "require"},
        ),
        ("postgresql://u@/d?host=/run/x", {"user": "u", "host": "/run/x", "port": "5432", "sslmode": "prefer"}),
        ("postgresql://u@%2Frun%2Fx/d", {"user": "u", "host": "/run/x", "port": "5432", "sslmode": "prefer"}),
        ("postgresql://u@[::1]:2/d", {"user": "u", "host": "::1", "port": "2", "sslmode": "prefer"}),
        ("postgresql://u@a:1,b:2/d", {"user": "u", "host": "a,b", "port": "1,2", **VERIFIED}),
        ("postgresql://u@a,b:2/d", {"user": "u", "host": "a,b", "port": "5432,2", **VERIFIED}),
        ("postgresql:///d?host=a,b&port=3&user=u", {"user": "u", "host": "a,b", "port": "3,3", **VERIFIED}),
        (
            "postgresql://u%40x:p%2F%3A@h/d",
            {"user": "u@x", "password": "p/:", "host": "h", "port": "5432", **VERIFIED},
        ),
        (
            "postgresql://u@h/d?keepalives=1&gssencmode=prefer",
            {"user": "u", "host": "h", "port": "5432", **VERIFIED},
        ),
    ],
)
def test_a_url_means_the_same_as_in_libpq(
    url: str, parameters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users, hosts, ports and parameters are read wherever a URL may have them."""
    monkeypatch.setenv("PGSSLROOTCERT", VERIFIED["sslrootcert"])

    assert dsn.parse(url) == dsn.Dsn("d", parameters)


LOCAL_HOSTS = ["/run/x", "%2Frun%2Fx", "localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1", "/run/x,127.0.0.1"]
REMOTE_HOSTS = [
    "h",
    "db.example",
    "10.0.0.1",
    "0.0.0.0",
    "::2",
    "localhost.example",
    "127.0.0.1.example",
    "localhost,h",
]


@pytest.mark.parametrize(
    ("host", "mode"), [*((h, "prefer") for h in LOCAL_HOSTS), *((h, "verify-full") for h in REMOTE_HOSTS)]
)
def test_a_remote_database_is_verified_by_default(host: str, mode: str) -> None:
    """Without an sslmode, the certificate of a remote database is verified; a local one needs none."""
    found = dsn.parse(f"postgresql://u@/d?host={host}")

    assert found.parameters["sslmode"] == mode
    assert not found.is_unverified


@pytest.mark.parametrize("mode", dsn.SSL_MODES)
def test_an_explicit_sslmode_is_used(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in the URL, in DB_SSLMODE or in PGSSLMODE. Modes that do not verify the database are marked as such."""
    url = "postgresql://u@h/d?sslrootcert=/ca.pem"
    parts = {"DB_HOST": "h", "DB_USERNAME": "u", "DB_NAME": "d", "DB_SSLROOTCERT": "/ca.pem"}
    found = [dsn.parse(f"{url}&sslmode={mode}"), dsn.parse(database_of({**parts, "DB_SSLMODE": mode}))]
    monkeypatch.setenv("PGSSLMODE", mode)
    found += [dsn.parse(url), dsn.parse(database_of(parts))]

    assert [one.parameters["sslmode"] for one in found] == [mode] * 4
    assert [one.is_unverified for one in found] == [mode in ("disable", "allow", "prefer")] * 4


def test_tls_without_certificates_verifies_nothing() -> None:
    """sslmode=require encrypts, but without CA certificates it does not verify a remote database."""
    assert dsn.parse("postgresql://u@h/d?sslmode=require").is_unverified
    assert not dsn.parse("postgresql://u@localhost/d?sslmode=require").is_unverified


def test_ca_certificates_come_from_the_most_specific_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the URL, then the environment, then the user's file as in libpq, then the machine's bundle."""

    def used(url: str) -> str:
        return dsn.parse(url).authorities

    monkeypatch.setenv("HOME", str(tmp_path))
    machine = used("postgresql://u@h/d")
    own = tmp_path / ".postgresql" / "root.crt"
    own.parent.mkdir()
    own.touch()

    assert ssl.create_default_context(cafile=machine).cert_store_stats()["x509_ca"] > 10
    assert used("postgresql://u@h/d") == used("postgresql://u@h/d?sslmode=verify-ca") == str(own)
    assert used("postgresql://u@h/d?sslrootcert=system") == machine
    monkeypatch.setenv("PGSSLROOTCERT", "/env.pem")
    assert used("postgresql://u@h/d") == "/env.pem"
    assert used("postgresql://u@h/d?sslrootcert=/url.pem") == "/url.pem"
    assert used("postgresql://u@localhost/d") == ""


def test_a_machine_without_ca_certificates_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any CA certificates, the service does not start, instead of trusting every server."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    monkeypatch.setattr(dsn, "_SYSTEM_BUNDLES", ())

    with pytest.raises(InvalidSetting, match="no CA certificates; set sslrootcert to a file of CA certificates"):
        read({"DATABASE_URL": "postgresql://u@h/d"})


def test_a_process_without_a_user_name_needs_one_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user id has no name, so the settings must name the database's user."""

    def nameless() -> str:
        raise KeyError("uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nameless)
    for variables in ({"DB_HOST": "h"}, {"DATABASE_URL": "postgresql://h/d"}):
        with pytest.raises(InvalidSetting, match="must name a user"):
            read(variables)


def test_the_environment_completes_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PG* variables provide what the URL does not, as in libpq."""
    for name, value in {"PGHOST": "h", "PGPORT": "1", "PGUSER": "u", "PGDATABASE": "d", "PGSSLMODE": "disable"}.items():
        monkeypatch.setenv(name, value)

    assert dsn.parse("postgresql://") == dsn.Dsn("d", {"host": "h", "port": "1", "user": "u", "sslmode": "disable"})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("h/d", "postgresql://"),
        ("postgresql://h/d?sslmod=require", "sslmod"),
        ("postgresql://h/d?sslmode=on", "sslmode"),
        ("postgresql://h/d?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
        ("postgresql://h/d?sslmode=verify-ca", "needs sslrootcert"),
        ("postgresql://h:x/d", "port"),
        ("postgresql://h:70000/d", "port"),
        ("postgresql://a:1,b:2,c:3/d?port=1,2", "port"),
        ("postgresql:///d?service=s", "service"),
        ("postgresql://h/d?require_auth=none", "require_auth"),
        ("postgresql://[h/d", "percent-encode"),
    ],
)
def test_a_url_that_libpq_rejects_is_an_error(url: str, reason: str) -> None:
    """A parameter with a wrong name or value is an error, and is not ignored."""
    with pytest.raises(dsn.InvalidDsn, match=reason):
        dsn.parse(url)


async def test_a_url_with_special_characters_connects(postgres: EmbeddedPostgres) -> None:
    """A socket's folder and a database's name with special characters reach the driver unchanged."""
    folder = str(postgres.data).replace("/", "%2F")
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute('CREATE DATABASE "odd name/?&="')
    await connection.close()
    url = f"postgresql://postgres:p%20w@{folder}/odd%20name%2F%3F%26%3D?connect_timeout=3&application_name=a%20b"
    connection = await asyncpg.connect(str(dsn.parse(url)))
    found = await connection.fetchrow("SELECT current_database(), current_setting('application_name')")
    await connection.close()

    assert found is not None
    assert tuple(found) == ("odd name/?&=", "a b")
