"""PostgreSQL connection URLs, read as libpq reads them and written in the one form that all our drivers take.

libpq (https://www.postgresql.org/docs/current/libpq-connect.html), asyncpg, and dbmate's driver each take a
different part of what a URL may say. The form written here has all of it in the query, with the defaults filled in.
They are libpq's but for one: a database that is not on this machine has to prove who it is, unless sslmode says less.
"""

import getpass
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_VERIFY_FULL: Final = "verify-full"
_VERIFYING: Final = ("require", "verify-ca", _VERIFY_FULL)  # the first only where it is given certificates
_SYSTEM: Final = "system"  # as sslrootcert: the CAs that this machine trusts
_SYSTEM_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")

_SCHEMES: Final = ("postgresql", "postgres")
_SOCKET_FOLDERS: Final = ("/var/run/postgresql", "/tmp")  # noqa: S108 - where libpq looks

# What both drivers understand.
_UNDERSTOOD: Final = frozenset(
    (
        "host port user password passfile sslmode sslcert sslkey sslrootcert sslpassword sslnegotiation "
        "ssl_min_protocol_version ssl_max_protocol_version target_session_attrs application_name options"
    ).split()
)
# What libpq knows and at least one driver does not. None of it decides which database is reached, or how safely
# beyond sslmode: time-outs are the service's own settings, the rest tunes libpq itself.
_PASSED_OVER: Final = frozenset(
    (
        "connect_timeout keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout "
        "client_encoding fallback_application_name gssencmode gssdelegation gsslib krbsrvname load_balance_hosts "
        "min_protocol_version max_protocol_version sslcompression sslcrl sslcrldir sslsni sslcertmode sslkeylogfile "
        "replication"
    ).split()
)


class InvalidDsn(ValueError):
    """The URL is not one that libpq would take."""


@dataclass(frozen=True, slots=True)
class Dsn:
    """Where a database is and how to log in.

    Attributes:
        database: its name.
        parameters: all else, by libpq's names.
    """

    database: str
    parameters: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        """The URL in the form that asyncpg and dbmate take; it holds the password."""
        return f"postgresql:///{quote(self.database, safe='')}?{urlencode(self.parameters, quote_via=quote)}"

    @property
    def is_unverified(self) -> bool:
        """Whether who stands on the way to a database that is not on this machine could read along, or pose as it."""
        return not self.authorities and not _is_local(self.parameters["host"])

    @property
    def authorities(self) -> str:
        """The file of CA certificates that the database's is checked with; empty where it is not checked."""
        return self.parameters.get("sslrootcert", "") if self.parameters["sslmode"] in _VERIFYING else ""


def parse(url: str) -> Dsn:
    """The URL as libpq understands it: `postgresql://user@host:5432/name?sslmode=require`.

    Raises:
        InvalidDsn: with what is wrong, in words that hold no secret.
    """
    scheme, separator, _ = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        raise InvalidDsn("it has to start with postgresql://")
    try:
        # libpq takes percent-encoded socket folders and lists of hosts where urlsplit().hostname would not.
        split = urlsplit(url)
        query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError as error:
        raise InvalidDsn("its parts cannot be told apart; percent-encode what is special in them") from error
    login, _, hosts = split.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return from_parts(
        {
            **_host_and_port(hosts),
            **_given(user=unquote(user), password=unquote(password), dbname=unquote(split.path.lstrip("/"))),
            **{("sslmode" if name == "ssl" and value == "true" else name): value for name, value in query.items()},
        }
    )


def from_parts(parts: Mapping[str, str]) -> Dsn:
    """The DSN of parameters by libpq's names, with libpq's defaults for what is missing or empty."""
    given = {name: value for name, value in parts.items() if value}
    if "service" in given:
        raise InvalidDsn("a service file cannot be used; write its parameters out")
    if given.get("channel_binding") == "require" or "require_auth" in given or "requirepeer" in given:
        raise InvalidDsn("channel_binding=require, require_auth and requirepeer cannot be kept; leave them out")
    # A numeric address saves libpq the look-up of the host's name, which then only serves its certificate.
    if "hostaddr" in given:
        given.setdefault("host", given["hostaddr"])
    unknown = given.keys() - _UNDERSTOOD - _PASSED_OVER - {"dbname", "hostaddr", "channel_binding"}
    if unknown:
        raise InvalidDsn(f"{', '.join(sorted(unknown))} is no parameter of a PostgreSQL connection")
    user = given.get("user") or os.environ.get("PGUSER") or _own_name()
    host = given.get("host") or os.environ.get("PGHOST") or _default_host()
    authorities = given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or ""
    may_prefer = _is_local(host) and authorities != _SYSTEM
    ssl_mode = given.get("sslmode") or os.environ.get("PGSSLMODE") or ("prefer" if may_prefer else _VERIFY_FULL)
    if ssl_mode not in SSL_MODES:
        raise InvalidDsn(f"its sslmode has to be one of {', '.join(SSL_MODES)}")
    understood = {name: value for name, value in given.items() if name in _UNDERSTOOD}
    return Dsn(
        given.get("dbname") or os.environ.get("PGDATABASE") or user,
        {
            **understood,
            "user": user,
            "host": host,
            "port": _ports(given.get("port") or os.environ.get("PGPORT") or "5432", host),
            "sslmode": ssl_mode,
            **_given(sslrootcert=_authorities(authorities, ssl_mode)),
        },
    )


def _is_local(hosts: str) -> bool:
    """Whether no byte to any of these hosts leaves this machine: Unix sockets and loopback."""
    return all(
        host.startswith(("/", "@")) or host.lower() == "localhost" or _is_loopback(host) for host in hosts.split(",")
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _authorities(named: str, ssl_mode: str) -> str:
    """The file of CA certificates, named to both drivers, which by themselves look in different places.

    Args:
        named: a file, or `system`; empty where none is named.
        ssl_mode: that it is for.

    Returns:
        The file, which may be missing where it was named; empty where sslmode does without.
    """
    if named == _SYSTEM and ssl_mode != _VERIFY_FULL:
        # As libpq has it: these sign for everyone, so that the name is all that tells our database from others.
        raise InvalidDsn(f"its sslrootcert=system needs sslmode={_VERIFY_FULL}")
    if ssl_mode not in _VERIFYING:
        return ""
    file = _system_bundle() if named == _SYSTEM else named or _own_authorities()
    if not file and ssl_mode != "require":
        if ssl_mode != _VERIFY_FULL:
            raise InvalidDsn(f"its sslmode={ssl_mode} needs sslrootcert, a file of CA certificates")
        file = _system_bundle()
    return file


def _own_authorities() -> str:
    """Where libpq looks first."""
    file = Path(os.environ.get("HOME") or "/", ".postgresql", "root.crt")
    return str(file) if file.exists() else ""


def _system_bundle() -> str:
    bundles = (ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES)
    found = next((bundle for bundle in bundles if bundle and Path(bundle).exists()), None)
    if found is None:
        raise InvalidDsn("this machine has no CA certificates of its own; name a file of them as sslrootcert")
    return found


def _host_and_port(hosts: str) -> dict[str, str]:
    """`a:1,b` as libpq splits it: lists of hosts and ports, either of which may be empty in places."""
    pairs = [_split_port(host) for host in hosts.split(",")] if hosts else []
    ports = [port for _, port in pairs]
    return _given(
        host=",".join(unquote(host) for host, _ in pairs),
        port=",".join(port or "5432" for port in ports) if any(ports) else "",
    )


def _split_port(host: str) -> tuple[str, str]:
    if host.startswith("["):  # [::1]:5432
        address, _, rest = host[1:].partition("]")
        return address, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def _ports(ports: str, host: str) -> str:
    """A port for each host: asyncpg wants as many, libpq takes one for all."""
    listed = ports.split(",")
    if not all(port.isascii() and port.isdigit() and 0 < int(port) < 2**16 for port in listed):
        raise InvalidDsn("its port has to be a number from 1 to 65535")
    hosts = len(host.split(","))
    if len(listed) not in (1, hosts):
        raise InvalidDsn("it has to name one port, or one for each host")
    return ",".join(listed * hosts if len(listed) == 1 else listed)


def _given(**parts: str) -> dict[str, str]:
    return {name: value for name, value in parts.items() if value}


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a bare number, as in a container
        raise InvalidDsn("it has to name a user, since this process's own user has no name") from error


def _default_host() -> str:
    return next((folder for folder in _SOCKET_FOLDERS if Path(folder, ".s.PGSQL.5432").exists()), "localhost")
