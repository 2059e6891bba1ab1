"""Settings: read once and frozen; an error names the variable, its value and what is valid."""

import dataclasses
import hashlib
import math
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from ops.common.process import ROOT
from svc.errors import InvalidSetting
from svc.settings import _NAMES, Settings, misspelled, read
from svc.telemetry.settings import TraceSettings

HASH, OTHER_HASH = "ab" * 32, "12" * 32
NO_HASHES = (
    "API_KEY_HASHES is (not shown), but must be SHA-256 hashes of 64 hexadecimal digits, separated by commas, "
    "each as HASH, NAME:HASH or NAME:HASH:YYYY-MM-DD; `python -m svc key NAME` makes one."
)
REPEATED = (
    "API_KEY_HASHES is (not shown), but must be hashes of keys, each with a name of its own; "
    "a name or a hash is repeated."
)


def test_without_variables_settings_are_the_defaults() -> None:
    """An empty environment gives the defaults, without a database."""
    assert read({}) == Settings()
    assert read({"PORT": "", "DATABASE_URL": ""}) == Settings()


def test_a_key_may_have_a_name_and_a_last_day() -> None:
    """Without a name, the first digits of its hash are its name; without a last day, it does not expire."""
    keys = read({"API_KEY_HASHES": f"billing:{HASH}, partner.2:{OTHER_HASH}:2027-01-31,{'CD' * 32}"}).api_key_hashes

    assert [(key.hash.hex(), key.caller, key.expires_at) for key in keys] == [
        (HASH, "billing", math.inf),
        (OTHER_HASH, "partner.2", datetime(2027, 2, 1, tzinfo=UTC).timestamp()),
        ("cd" * 32, "cdcdcdcd", math.inf),
    ]


def test_every_variable_is_read() -> None:
    """Each variable sets its setting."""
    settings = read(
        {
            "HOST": "0.0.0.0",
            "PORT": "0",
            "WORKERS": "2",
            "MAX_CONNECTIONS": "12",
            "MAX_CONCURRENT": "99",
            "MAX_QUEUE": "11",
            "KEEPALIVE_SECONDS": "90",
            "DRAIN_SECONDS": "0.5",
            "SHUTDOWN_SECONDS": "12",
            "BUILD": "abc",
            "API_KEY_HASHES": f"{HASH}, {HASH.upper()},{OTHER_HASH}",
            "TELEMETRY": "off",
            "LOG_FORMAT": "text",
            "CORS_ORIGINS": "https://app.example, http://[::1]:3000",
            "TRUSTED_PROXIES": "10.0.0.0/8, ::1, ::ffff:192.168.0.0/112",
            "LOG_LINES_PER_SECOND": "0",
            "TRACES_PER_SECOND": "1.5",
            "METRICS_INTERVAL": "2.5",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "LOCAL_FOLDER": "elsewhere",
            "DATABASE_URL": "postgresql://u@h/d",
            "DB_SERVICE_USERNAME": "clients_service_b",
            "DB_SERVICE_PASSWORD": "secret",
            "DB_POOL_SIZE": "7",
            "DB_CONNECT_SECONDS": "1",
            "DB_ACQUIRE_SECONDS": "0.1",
            "DB_STATEMENT_SECONDS": "9",
            "DB_KEEPALIVE_SECONDS": "0",
            "DB_IDLE_SECONDS": "300",
            "DB_POOLER": "transaction",
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
    assert [key.hash for key in settings.api_key_hashes] == [bytes.fromhex(HASH), bytes.fromhex(OTHER_HASH)]
    assert settings.telemetry.traces == TraceSettings("grpc", 0.5, is_parent_based=False, per_second=1.5)
    assert settings.cors_origins == ("https://app.example", "http://[::1]:3000")
    assert settings.trusted_proxies == tuple(map(ip_network, ("10.0.0.0/8", "::1", "192.168.0.0/16")))
    assert dataclasses.astuple(settings.database)[1:] == (
        "clients_service_b",
        "secret",
        7,
        1,
        0.1,
        9,
        0,
        300,
        "transaction",
    )


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


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", "0", "::", "::1", "fe80::1%eth0", "localhost", "a-b.example."]
)
def test_addresses_and_names_are_hosts(host: str) -> None:
    """HOST may be whatever a socket can listen on."""
    assert read({"HOST": host}).server.host == host


@pytest.mark.parametrize(
    ("name", "intended"),
    [
        ("WORKER", "WORKERS"),
        ("WORKERSS", "WORKERS"),
        ("PROT", "PORT"),
        ("BIULD", "BUILD"),
        ("port", "PORT"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("MAX_CONNECTION", "MAX_CONNECTIONS"),
        ("DBHOST", "DB_HOST"),
    ],
)
def test_a_misspelled_setting_is_found(name: str, intended: str) -> None:
    """A variable with one typing error in it is found, unless the setting that it resembles is set, too."""
    assert misspelled({name: "1"}) == {name: intended}
    assert misspelled({name: "1", intended: "1"}) == {}


def test_variables_of_other_programs_are_not_taken_for_settings() -> None:
    """A shared environment has many variables; some even share a word with a setting."""
    others = "PATH HOME HOSTNAME HOSTTYPE SHELL PWD USER LANG TERM KUBERNETES_PORT API_PORT HTTP_HOST DB_HOST_2 PGPORT"

    assert misspelled(dict.fromkeys(others.split(), "1")) == {}
    assert misspelled(dict.fromkeys(_NAMES, "1")) == {}


def test_the_names_of_the_settings_are_those_of_the_documentation() -> None:
    """Each variable in the table is known, and no other."""
    table = (ROOT / "docs/configuration.md").read_text().partition("## Settings")[2].partition("##")[0]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("|")]
    documented = {name for row in rows for name in re.findall("`([A-Z_]+)`", row)}

    assert documented == _NAMES


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
        *(
            (
                {"HOST": host},
                f"HOST is {host!r}, but must be an IPv4 or IPv6 address, or a host's name, such as 0.0.0.0.",
            )
            for host in (
                "999.1.1.1",
                "1.2.3.4.5",
                "[::1]",
                "::g",
                "localhost:8080",
                "http://localhost",
                "*",
                " ",
                "a b",
            )
        ),
        ({"BUILD": ""}, "BUILD is empty, but must be the build that runs, such as a commit, or unset."),
        ({"PORT": "x"}, "PORT is 'x', but must be a whole number from 0 to 65535."),
        ({"PORT": "65536"}, "PORT is '65536', but must be a whole number from 0 to 65535."),
        ({"PORT": "٣"}, "PORT is '٣', but must be a whole number from 0 to 65535."),
        ({"MAX_CONNECTIONS": "0"}, "MAX_CONNECTIONS is '0', but must be a whole number from 1 to 1000000."),
        ({"WORKERS": "0"}, "WORKERS is '0', but must be a whole number from 1 to 64."),
        ({"KEEPALIVE_SECONDS": "0"}, "KEEPALIVE_SECONDS is '0', but must be a number of seconds from 1 to 7200."),
        ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS is '-1', but must be a number of seconds from 0 to 600."),
        ({"DRAIN_SECONDS": "nan"}, "DRAIN_SECONDS is 'nan', but must be a number of seconds from 0 to 600."),
        (
            {"SHUTDOWN_SECONDS": "6", "DB_STATEMENT_SECONDS": "2.5"},
            "SHUTDOWN_SECONDS is 6, but must be at least 7.5, the longest time that a request may take.",
        ),
        (
            {"SHUTDOWN_SECONDS": "600", "DB_STATEMENT_SECONDS": "56"},
            (
                "twice DB_ACQUIRE_SECONDS + DB_CONNECT_SECONDS + DB_STATEMENT_SECONDS is 60, but must be less than 59, "
                "so that the service responds before a load balancer times out."
            ),
        ),
        (
            {"DATABASE_URL": "postgresql://u@a,b,c/d", "SHUTDOWN_SECONDS": "9"},
            "SHUTDOWN_SECONDS is 9, but must be at least 11, the longest time that a request may take.",
        ),
        (
            {"DATABASE_URL": "postgresql://u@a,b,c/d", "DB_CONNECT_SECONDS": "20"},
            (
                "twice DB_ACQUIRE_SECONDS + DB_CONNECT_SECONDS for each of 3 hosts + DB_STATEMENT_SECONDS is 64, "
                "but must be less than 59, so that the service responds before a load balancer times out."
            ),
        ),
        ({"TELEMETRY": "no"}, "TELEMETRY is 'no', but must be one of on, off."),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is 'xml', but must be one of auto, json, text."),
        *(
            (
                {"CORS_ORIGINS": f"https://app.example,{origin}"},
                (
                    f"CORS_ORIGINS is {origin!r}, but must be origins separated by commas, each as browsers send it: "
                    "in lower case, without a default port, a path or a wildcard, such as https://app.example."
                ),
            )
            for origin in ("*", "null", "https://a.example/", "https://A.example", "https://a.example:443", "a.example")
        ),
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
        ({"API_KEY_HASHES": f":{HASH}"}, NO_HASHES),
        ({"API_KEY_HASHES": f"two words:{HASH}"}, NO_HASHES),
        ({"API_KEY_HASHES": f"{'x' * 33}:{HASH}"}, NO_HASHES),
        ({"API_KEY_HASHES": f"billing:{HASH}:"}, NO_HASHES),
        ({"API_KEY_HASHES": f"billing:{HASH}:2027-02-29"}, NO_HASHES),
        ({"API_KEY_HASHES": f"billing:{HASH}:9999-12-31"}, NO_HASHES),
        ({"API_KEY_HASHES": f"billing:{HASH}:2027-01-31T00:00"}, NO_HASHES),
        ({"API_KEY_HASHES": f"billing:{HASH},billing:{OTHER_HASH}"}, REPEATED),
        ({"API_KEY_HASHES": f"billing:{HASH},partner:{HASH}"}, REPEATED),
        ({"API_KEY_HASHES": f"{HASH},{HASH}:2027-01-31"}, REPEATED),
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
            {"LOG_LINES_PER_SECOND": "-1"},
            "LOG_LINES_PER_SECOND is '-1', but must be a number per second from 0, which has no limit, to 1000000.",
        ),
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
            {"DB_SERVICE_USERNAME": "postgres"},
            "DB_SERVICE_USERNAME is 'postgres', but must be one of clients_service, clients_service_b.",
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

    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"error: {sentence}")
    assert "Traceback" not in done.stderr
