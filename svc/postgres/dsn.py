"""PostgreSQL connection URLs: parsed as libpq parses them, and written in a form that both drivers accept.

libpq (https://www.postgresql.org/docs/current/libpq-connect.html), asyncpg, and dbmate's driver each accept different
URLs. The form written here has all parameters in the query, with the defaults filled in. The defaults are libpq's,
except one: where sslmode is not set, a database that is not on this machine must prove its identity (verify-full).
"""

import getpass
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_VERIFY_FULL: Final = "verify-full"
_VERIFYING: Final = ("require", "verify-ca", _VERIFY_FULL)  # require verifies only where CA certificates are given
_SYSTEM: Final = "system"  # the value of sslrootcert that means the CAs that this machine trusts
_SYSTEM_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")

_SCHEMES: Final = ("postgresql", "postgres")
_SOCKET_FOLDERS: Final = ("/var/run/postgresql", "/tmp")  # noqa: S108 - libpq's own defaults

# The parameters that both drivers support.
_SUPPORTED: Final = frozenset(
    (
        "host port user password passfile sslmode sslcert sslkey sslrootcert sslpassword sslnegotiation "
        "ssl_min_protocol_version ssl_max_protocol_version target_session_attrs application_name options"
    ).split()
)
# libpq's parameters that at least one driver does not support. They are safe to ignore: none selects the database, or
# makes the connection safer than sslmode does. The service has its own time-outs, and the rest tunes libpq itself.
_IGNORED: Final = frozenset(
    (
        "connect_timeout keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout "
        "client_encoding fallback_application_name gssencmode gssdelegation gsslib krbsrvname load_balance_hosts "
        "min_protocol_version max_protocol_version sslcompression sslcrl sslcrldir sslsni sslcertmode sslkeylogfile "
        "replication"
    ).split()
)


class InvalidDsn(ValueError):
    """The URL is not a valid PostgreSQL connection URL, or has a parameter that the drivers cannot support."""


@dataclass(frozen=True, slots=True)
class Dsn:
    """Where a database is and how to log in.

    Attributes:
        database: the database's name.
        parameters: all other parameters, by libpq's names.
    """

    database: str
    parameters: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        """The URL in the form that asyncpg and dbmate accept. It includes the password."""
        return f"postgresql:///{quote(self.database, safe='')}?{urlencode(self.parameters, quote_via=quote)}"

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """The host and the port of each server that the URL lists."""
        hosts, ports = self.parameters["host"].split(","), self.parameters["port"].split(",")
        return list(zip(hosts, ports, strict=True))

    def at(self, host: str, port: str) -> "Dsn":
        """The same database on one of the servers only."""
        return replace(self, parameters={**self.parameters, "host": host, "port": port})

    @property
    def is_unverified(self) -> bool:
        """Whether an attacker on the network could read the connection, or impersonate the database."""
        return not self.authorities and not _is_local(self.parameters["host"])

    @property
    def authorities(self) -> str:
        """The file of CA certificates that verify the database's certificate; empty where it is not verified."""
        return self.parameters.get("sslrootcert", "") if self.parameters["sslmode"] in _VERIFYING else ""


def parse(url: str) -> Dsn:
    """Parses a URL as libpq does: `postgresql://user@host:5432/name?sslmode=require`.

    Raises:
        InvalidDsn: with the reason, which includes no secret.
    """
    scheme, separator, _ = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        raise InvalidDsn("it must start with postgresql://")
    try:
        # The host is not taken from urlsplit().hostname, which fails on percent-encoded folders and lists of hosts.
        split = urlsplit(url)
        query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError as error:
        raise InvalidDsn("it cannot be parsed; percent-encode the special characters in its parts") from error
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
    """Builds the DSN from parameters by libpq's names, with the defaults for those that are missing or empty.

    Raises:
        InvalidDsn: with the reason, which includes no secret.
    """
    given = {name: value for name, value in parts.items() if value}
    if "service" in given:
        raise InvalidDsn("service files are not supported; give their parameters instead")
    if given.get("channel_binding") == "require" or "require_auth" in given or "requirepeer" in given:
        raise InvalidDsn("channel_binding=require, require_auth and requirepeer are not supported; remove them")
    # With a hostaddr, libpq does not resolve the host, and only compares it to the certificate's names.
    if "hostaddr" in given:
        given.setdefault("host", given["hostaddr"])
    unknown = given.keys() - _SUPPORTED - _IGNORED - {"dbname", "hostaddr", "channel_binding"}
    if unknown:
        raise InvalidDsn(f"these are not parameters of a PostgreSQL connection: {', '.join(sorted(unknown))}")
    user = given.get("user") or os.environ.get("PGUSER") or _process_user()
    host = given.get("host") or os.environ.get("PGHOST") or _default_host()
    authorities = given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or ""
    may_prefer = _is_local(host) and authorities != _SYSTEM
    ssl_mode = given.get("sslmode") or os.environ.get("PGSSLMODE") or ("prefer" if may_prefer else _VERIFY_FULL)
    if ssl_mode not in SSL_MODES:
        raise InvalidDsn(f"its sslmode must be one of {', '.join(SSL_MODES)}")
    supported = {name: value for name, value in given.items() if name in _SUPPORTED}
    return Dsn(
        given.get("dbname") or os.environ.get("PGDATABASE") or user,
        {
            **supported,
            "user": user,
            "host": host,
            "port": _ports(given.get("port") or os.environ.get("PGPORT") or "5432", host),
            "sslmode": ssl_mode,
            **_given(sslrootcert=_authorities(authorities, ssl_mode)),
        },
    )


def _is_local(hosts: str) -> bool:
    """Whether all hosts are on this machine: Unix sockets and loopback addresses."""
    return all(
        host.startswith(("/", "@")) or host.lower() == "localhost" or _is_loopback(host) for host in hosts.split(",")
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _authorities(named: str, ssl_mode: str) -> str:
    """The file of CA certificates, given explicitly since the drivers' own defaults differ.

    Args:
        named: a file, or `system`; empty for the default.
        ssl_mode: the sslmode of the connection.

    Returns:
        The file, which may not exist if it was named; empty where this sslmode verifies nothing.
    """
    if named == _SYSTEM and ssl_mode != _VERIFY_FULL:
        # libpq has the same rule: the system's CAs sign certificates for anyone, so the name must be verified too.
        raise InvalidDsn(f"its sslrootcert=system needs sslmode={_VERIFY_FULL}")
    if ssl_mode not in _VERIFYING:
        return ""
    file = _system_bundle() if named == _SYSTEM else named or _default_authorities()
    if not file and ssl_mode != "require":
        if ssl_mode != _VERIFY_FULL:
            raise InvalidDsn(f"its sslmode={ssl_mode} needs sslrootcert, a file of CA certificates")
        file = _system_bundle()
    return file


def _default_authorities() -> str:
    """The default file of libpq; empty where it does not exist."""
    file = Path(os.environ.get("HOME") or "/", ".postgresql", "root.crt")
    return str(file) if file.exists() else ""


def _system_bundle() -> str:
    bundles = (ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES)
    found = next((bundle for bundle in bundles if bundle and Path(bundle).exists()), None)
    if found is None:
        raise InvalidDsn("this machine has no CA certificates; set sslrootcert to a file of CA certificates")
    return found


def _host_and_port(hosts: str) -> dict[str, str]:
    """Splits `a:1,b` as libpq does: into a list of hosts and a list of ports, whose items may be empty."""
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
    """One port for each host. libpq accepts one port for all hosts, but asyncpg does not."""
    listed = ports.split(",")
    if not all(port.isascii() and port.isdigit() and 0 < int(port) < 2**16 for port in listed):
        raise InvalidDsn("its port must be a number from 1 to 65535")
    hosts = len(host.split(","))
    if len(listed) not in (1, hosts):
        raise InvalidDsn("it must have one port, or one for each host")
    return ",".join(listed * hosts if len(listed) == 1 else listed)


def _given(**parts: str) -> dict[str, str]:
    return {name: value for name, value in parts.items() if value}


def _process_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # only a number, as in a container
        raise InvalidDsn("it must name a user, since the user of this process has no name") from error


def _default_host() -> str:
    return next((folder for folder in _SOCKET_FOLDERS if Path(folder, ".s.PGSQL.5432").exists()), "localhost")
