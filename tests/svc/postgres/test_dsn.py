"""Connection URLs: they mean the same as in libpq, whose own parser is psycopg's, or they are refused in words."""

import ssl
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from asyncpg import connect_utils
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict

from svc.errors import InvalidSetting
from svc.postgres import dsn
from svc.postgres.embedded import EmbeddedPostgres
from svc.settings import read

VERIFIED = {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
VERIFIED_ENVIRONMENT = {"PGSSLROOTCERT": "/ca.pem"}
SECRET: Final = "hunter2"

# Characters with a meaning somewhere in a URL, escapes, valid or not, and some plain text.
TEXT = st.lists(
    st.sampled_from([*":/?#[]@!$&'()*+,;=% ~\t\n.-_\\\"|", "%2F", "%40", "%00", "%+1", "%C3%BC", "%ff", "é", "a", "7"])
)
PLAIN_TEXT = st.text(st.sampled_from("+#'!$~ab7éß\u2028\t"), min_size=1)


def libpq(url: str) -> dict[str, str] | None:
    """The parameters of a URL by libpq's own parser; None if it refuses the URL, or it is not UTF-8."""
    try:
        parameters = conninfo_to_dict(url)
    except (ProgrammingError, UnicodeDecodeError):
        return None
    return {name: str(value) for name, value in parameters.items() if value}


def database_of(variables: dict[str, str]) -> str:
    return read(variables).database.dsn


@st.composite
def urls(draw: st.DrawFn) -> str:
    """URLs of all shapes: with lists of hosts, brackets, parameters that exist or not, and special characters."""
    text = TEXT.map("".join)
    host = st.one_of(text, st.sampled_from(["h", "::1", "[::1]", "[]", "[a/?b]", "%2Frun", "10.0.0.1"]))
    address = st.builds("{}{}".format, host, st.one_of(st.just(""), st.sampled_from([":1", ":", ":%35"])))
    login = draw(st.one_of(st.just(""), st.builds("{}@".format, text), st.builds("{}:{}@".format, text, text)))
    hosts = ",".join(draw(st.lists(address, max_size=3)))
    path = draw(st.one_of(st.just(""), st.builds("/{}".format, text)))
    name = st.sampled_from([*sorted(dsn.VARIABLES), "ssl", "requiressl", "sslmod", "s%73lmode", ""])
    value = st.one_of(text, st.sampled_from(["true", "require", "1", "5433", "", "a,b"]))
    item = st.one_of(st.builds("{}={}".format, name, value), text)
    query = "&".join(draw(st.lists(item, max_size=3)))
    return f"postgresql://{login}{hosts}{path}{draw(st.sampled_from(['', '?']))}{query}"


@given(urls())
@example("postgresql://h/d?application_name=a+b")
@example("postgresql://u:p#w@h/d#e?user=x#y")
@example("postgresql://u:p?w@h/d")
@example("postgresql://u:a@b/d@c")
@example("postgresql://h//d")
@example("postgresql://a,b:/d")
@example("postgresql://[::1,b]:5,c/d")
@example("postgresql://[::1]x/d")
@example("postgresql://h/d?ssl=true&user=v")
@example("postgresql://h/d?user=a&user=b&")
@example("postgresql://h/d?user=a&&")
@example("postgresql:// h / d ?user= a ")
@example("postgresql://h/d?user=%ff")
@example("postgresql://h/d?user=\udc80")
def test_a_url_is_split_as_by_libpq(url: str) -> None:
    """Every URL has the same parameters as libpq's own parser finds, and is refused where libpq refuses it."""
    try:
        expected = libpq(url)
    except UnicodeEncodeError:
        expected = None
    try:
        parameters = dsn._split(url.partition("://")[2])
        dsn._check_names(parameters)
    except dsn.InvalidDsn:
        assert expected is None
    else:
        assert dsn._given(**parameters) == expected


@given(
    st.fixed_dictionaries(dict.fromkeys(("user", "password", "dbname", "application_name", "options"), PLAIN_TEXT)),
    st.lists(st.tuples(st.sampled_from(["h", "::1", "10.0.0.1", "/run/x y:@"]), st.integers(1, 65535)), min_size=1),
)
def test_the_driver_gets_what_libpq_would_use(parts: dict[str, str], addresses: list[tuple[str, int]]) -> None:
    """The service finds the same database, login and servers in the URL that is written, whatever the characters."""
    written = dsn.from_parts(
        {
            **parts,
            "host": ",".join(host for host, _ in addresses),
            "port": ",".join(str(port) for _, port in addresses),
            "sslmode": "disable",
        }
    )
    assert dsn.parse(str(written)) == written
    for host, port in addresses:
        found, parameters = connect_utils._parse_connect_dsn_and_args(  # type: ignore[attr-defined] # private
            **dict.fromkeys(
                "host port user password passfile database ssl service servicefile direct_tls server_settings "
                "target_session_attrs krbsrvname gsslib".split()
            ),
            dsn=str(written.at(host, str(port))),
        )
        assert found == [f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)]
        assert [parameters.user, parameters.password, parameters.database] == [
            parts["user"],
            parts["password"],
            parts["dbname"],
        ]
        assert parameters.server_settings == {name: parts[name] for name in ("application_name", "options")}


@given(
    TEXT.map("".join), TEXT.map("".join), st.sampled_from(["{}@h/d", "h/d?password={}", "h/d?passfile=x&{}", "u:{}"])
)
def test_no_error_shows_a_part_of_the_password(before: str, after: str, url: str) -> None:
    """Wherever a password with special characters is cut, its parts are in no error."""
    shown = ""
    try:
        dsn.parse("postgresql://" + url.format(f"u:{before}{SECRET}{after}"))
    except dsn.InvalidDsn as error:
        shown = str(error)

    assert SECRET not in shown


def test_every_parameter_of_libpq_is_known() -> None:
    """Each is supported, ignored or refused, and libpq's variables for those that matter are read."""
    known = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    variables = {name: variable.decode() for name, variable in known.items() if variable and name not in dsn._IGNORED}

    assert set(known) == dsn._PARAMETERS
    assert {**variables, "channel_binding": "PGCHANNELBINDING"}.items() <= dsn.VARIABLES.items()
    assert {known[name] for name in dsn.VARIABLES} == {variable.encode() for variable in dsn.VARIABLES.values()}


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
def test_a_url_is_completed_with_defaults(url: str, parameters: dict[str, str]) -> None:
    """Users, hosts, ports and parameters are read wherever a URL may have them; the rest has its defaults."""
    found = dsn.parse(url, VERIFIED_ENVIRONMENT)

    assert found == dsn.Dsn("d", parameters)
    assert dsn.parse(str(found)) == found


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
def test_an_explicit_sslmode_is_used(mode: str) -> None:
    """It may be in the URL, in DB_SSLMODE or in PGSSLMODE. Modes that do not verify the database are marked as such."""
    url = "postgresql://u@h/d?sslrootcert=/ca.pem"
    parts = {"DB_HOST": "h", "DB_USERNAME": "u", "DB_NAME": "d", "DB_SSLROOTCERT": "/ca.pem"}
    found = [dsn.parse(f"{url}&sslmode={mode}"), dsn.parse(database_of({**parts, "DB_SSLMODE": mode}))]
    variable = {"PGSSLMODE": mode}
    found += [dsn.parse(url, variable), dsn.parse(database_of({**parts, **variable}))]

    assert [one.parameters["sslmode"] for one in found] == [mode] * 4
    assert [one.is_unverified for one in found] == [mode in ("disable", "allow", "prefer")] * 4


def test_tls_without_certificates_verifies_nothing() -> None:
    """sslmode=require encrypts, but without CA certificates it does not verify a remote database."""
    assert dsn.parse("postgresql://u@h/d?sslmode=require").is_unverified
    assert not dsn.parse("postgresql://u@localhost/d?sslmode=require").is_unverified


def test_ca_certificates_come_from_the_most_specific_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the URL, then the environment, then the user's file as in libpq, then the machine's bundle."""

    def used(url: str, **environment: str) -> str:
        return dsn.parse(url, environment).authorities

    monkeypatch.setenv("HOME", str(tmp_path))
    machine = used("postgresql://u@h/d")
    own = tmp_path / ".postgresql" / "root.crt"
    own.parent.mkdir()
    own.touch()

    assert ssl.create_default_context(cafile=machine).cert_store_stats()["x509_ca"] > 10
    assert used("postgresql://u@h/d") == used("postgresql://u@h/d?sslmode=verify-ca") == str(own)
    assert used("postgresql://u@h/d?sslrootcert=system") == machine
    assert used("postgresql://u@h/d", PGSSLROOTCERT="/env.pem") == "/env.pem"
    assert used("postgresql://u@h/d?sslrootcert=/url.pem", PGSSLROOTCERT="/env.pem") == "/url.pem"
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


def test_the_environment_completes_a_url() -> None:
    """The PG* variables provide what the URL does not, as in libpq."""
    variables = {"PGHOST": "h", "PGPORT": "1", "PGUSER": "u", "PGDATABASE": "d", "PGSSLMODE": "disable"}
    parameters = {"host": "h", "port": "1", "user": "u", "sslmode": "disable"}

    assert dsn.parse("postgresql://", variables) == dsn.Dsn("d", parameters)
    assert dsn.parse("postgresql://v@:2", variables) == dsn.Dsn("d", {**parameters, "user": "v", "port": "2"})
    assert dsn.parse("postgresql://?host=", {"PGHOSTADDR": "::1"}).addresses == [("::1", "5432")]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("h/d", "postgresql://"),
        ("postgresql://h/d?sslmod=require", "did you mean sslmode"),
        ("postgresql://h/d?sslmod=", "did you mean sslmode"),
        ("postgresql://h/d?sslmode=on", "sslmode"),
        ("postgresql://h/d?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
        ("postgresql://h/d?sslmode=verify-ca", "needs sslrootcert"),
        ("postgresql://localhost/d?sslnegotiation=direct", "needs an sslmode"),
        ("postgresql://h/d?sslnegotiation=tls", "sslnegotiation must be one of"),
        ("postgresql://h/d?ssl_min_protocol_version=1.2", "ssl_min_protocol_version must be one of"),
        ("postgresql://h/d?target_session_attrs=master", "target_session_attrs must be one of"),
        ("postgresql://h:x/d", "port"),
        ("postgresql://h:70000/d", "port"),
        (f"postgresql://h:{'9' * 5000}/d", "port"),
        ("postgresql://a:1,b:2,c:3/d?port=1,2", "port"),
        ("postgresql://u:a/b@h/d", "percent-encode the / of a password"),
        ("postgresql://u:a@b@h/d", "percent-encode the @ of a password"),
        ("postgresql://u:100%@h/d", "percent-encode a space and a %"),
        ("postgresql://h/d?host=a:5433", "must not have a port"),
        (f"postgresql://{'a' * 64}.example/d", "a name of the DNS"),
        ("postgresql://u@a..example,b/d", "a name of the DNS"),
        ("postgresql://[h/d", "between brackets"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, reason: str) -> None:
    """A parameter with a wrong name or value is an error at the start, rather than at each connection."""
    with pytest.raises(dsn.InvalidDsn, match=reason):
        dsn.parse(url)


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("service=s", {"PGSERVICE": "s"}),
        ("require_auth=scram-sha-256", {"PGREQUIREAUTH": "scram-sha-256"}),
        ("requirepeer=postgres", {"PGREQUIREPEER": "postgres"}),
        ("channel_binding=require", {"PGCHANNELBINDING": "require"}),
        ("gssencmode=require", {"PGGSSENCMODE": "require"}),
        ("sslcertmode=require", {"PGSSLCERTMODE": "require"}),
        ("sslcrl=/crl.pem", {"PGSSLCRL": "/crl.pem"}),
        ("sslcrldir=/crl", {"PGSSLCRLDIR": "/crl"}),
        ("hostaddr=10.0.0.1", {"PGHOSTADDR": "10.0.0.1"}),
        ("replication=database", {}),
        ("scram_client_key=a", {}),
        ("oauth_issuer=a", {}),
    ],
)
def test_what_the_drivers_cannot_keep_is_refused(query: str, variables: dict[str, str]) -> None:
    """A parameter that libpq would enforce is not ignored, neither in the URL nor in libpq's variables."""
    name = query.partition("=")[0]
    with pytest.raises(dsn.InvalidDsn, match=name):
        dsn.parse(f"postgresql://u@h/d?{query}")
    if variables:
        with pytest.raises(dsn.InvalidDsn, match=name):
            dsn.parse("postgresql://u@h/d", variables)


def test_what_is_safe_to_ignore_is_ignored() -> None:
    """Parameters that only tune libpq change nothing."""
    ignored = "gssencmode=prefer&channel_binding=prefer&sslcertmode=allow&keepalives=1&connect_timeout=3&sslsni=1"

    assert dsn.parse(f"postgresql://u@h/d?{ignored}") == dsn.parse("postgresql://u@h/d")


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
