"""PostgreSQL connection URLs: parsed as libpq parses them, and written in a form that both drivers accept.

libpq (https://www.postgresql.org/docs/current/libpq-connect.html), asyncpg, and dbmate's driver each accept different
URLs. The form written here has all parameters in the query, with the defaults filled in. The defaults are libpq's,
except one: where sslmode is not set, a database that is not on this machine must prove its identity (verify-full).
"""

import getpass
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlencode

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_VERIFY_FULL: Final = "verify-full"
_VERIFYING: Final = ("require", "verify-ca", _VERIFY_FULL)  # require verifies only where CA certificates are given
_SYSTEM: Final = "system"  # the value of sslrootcert that means the CAs that this machine trusts
_SYSTEM_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")

_SCHEMES: Final = ("postgresql", "postgres")
_SOCKET_FOLDERS: Final = ("/var/run/postgresql", "/tmp")  # noqa: S108 - libpq's own defaults
_PORT: Final = "5432"
_NO_HOME: Final = "/nonexistent"

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
        "channel_binding connect_timeout keepalives keepalives_idle keepalives_interval keepalives_count "
        "tcp_user_timeout client_encoding fallback_application_name gssencmode gssdelegation gsslib krbsrvname "
        "load_balance_hosts min_protocol_version max_protocol_version sslcertmode sslcompression sslsni sslkeylogfile "
        "replication"
    ).split()
)
# libpq's parameters that at least one driver does not support, and that are not safe to ignore.
_REFUSED: Final = frozenset(
    (
        "service require_auth requirepeer sslcrl sslcrldir scram_client_key scram_server_key "
        "oauth_issuer oauth_client_id oauth_client_secret oauth_scope"
    ).split()
)
_PARAMETERS: Final = _SUPPORTED | _IGNORED | _REFUSED | {"dbname", "hostaddr"}
# The values that the drivers support, or that it is safe to ignore.
_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_VALUES: Final = {
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "replication": ("0", "false", "no", "off"),
}

# https://www.postgresql.org/docs/current/libpq-envars.html, without the variables of what is ignored in any case
VARIABLES: Final = {
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    **{
        name: f"PG{name.upper().replace('_', '')}"
        for name in (
            "host hostaddr port user password passfile service options target_session_attrs channel_binding gssencmode "
            "require_auth requirepeer sslmode sslnegotiation sslcert sslkey sslcertmode sslrootcert sslcrl sslcrldir "
            "ssl_min_protocol_version ssl_max_protocol_version"
        ).split()
    },
}

# A host and a port up to the next separator. Where libpq cuts a URL differs from RFC 3986: a # is an ordinary
# character, and the user and password end at the first @.
_HOST: Final = re.compile(
    r"(?:\[(?P<address>[^]]+)]|(?P<name>(?!\[)[^:/?,]*))(?::(?P<port>[^/?,]*))?(?P<separator>[/?,]|\Z)"
)
_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})|%00")


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
        """The URL, which includes the password. asyncpg and dbmate accept it where it has one host."""
        location, parameters = "", dict(self.parameters)
        if ":" in parameters["host"] and _is_address(parameters["host"]):
            # asyncpg accepts an IPv6 address in the query only in brackets, and dbmate only without.
            location = f"[{quote(parameters.pop('host'), safe=':')}]:{parameters.pop('port')}"
        return f"postgresql://{location}/{quote(self.database, safe='')}?{urlencode(parameters, quote_via=quote)}"

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


def parse(url: str, environment: Mapping[str, str] = {}) -> Dsn:
    """Parses a URL as libpq does: `postgresql://user@host:5432/name?sslmode=require`.

    Args:
        url: the URL.
        environment: has the PG* variables that complete the URL.

    Raises:
        InvalidDsn: with the reason, which includes no secret.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        raise InvalidDsn("it must start with postgresql://")
    return from_parts(_split(rest), environment)


def from_parts(parts: Mapping[str, str], environment: Mapping[str, str] = {}) -> Dsn:
    """Builds the DSN from parameters by libpq's names, with the defaults for those that are missing or empty.

    Raises:
        InvalidDsn: with the reason, which includes no secret.
    """
    _check_names(parts)
    from_environment = {name: environment.get(variable, "") for name, variable in VARIABLES.items()}
    given = _given(**from_environment) | _given(**parts)
    _check_support(given)
    user = given.get("user") or _process_user()
    host = _hosts(given)
    authorities = given.get("sslrootcert", "")
    may_prefer = _is_local(host) and authorities != _SYSTEM
    ssl_mode = given.get("sslmode") or ("prefer" if may_prefer else _VERIFY_FULL)
    if given.get("sslnegotiation") == "direct" and ssl_mode not in _VERIFYING:
        raise InvalidDsn(f"its sslnegotiation=direct needs an sslmode of {', '.join(_VERIFYING)}")
    supported = {name: value for name, value in given.items() if name in _SUPPORTED}
    completed = {
        "user": user,
        "host": host,
        "port": _ports(given.get("port", _PORT), host),
        "sslmode": ssl_mode,
        "sslrootcert": _authorities(authorities, ssl_mode),
    }
    return Dsn(given.get("dbname") or user, _given(**supported | completed))


def isolate_drivers() -> None:
    """Leaves the URL as the only source of parameters: call it once, after the settings were read.

    asyncpg and dbmate's driver would read the PG* variables, too, and differ in which. They also read files in the home
    folder, and would fail where it cannot be read.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    try:
        _home_file("root.crt").stat()
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError):
        os.environ["HOME"] = _NO_HOME


def _split(url: str) -> dict[str, str]:
    """The parameters of a URL without its scheme, split in the same places as libpq does."""
    login, found, rest = url.partition("@")
    if not found or "/" in login:
        login, rest = "", url
    user, _, password = login.partition(":")
    hosts, ports, separator = [], [], ","
    while separator == ",":
        match = _HOST.match(rest)
        if match is None:
            raise InvalidDsn("an IPv6 address in it must be between brackets, and only a port may follow")
        hosts.append(match["address"] or match["name"] or "")
        ports.append(match["port"] or "")
        separator, rest = match["separator"], rest[match.end() :]
    database, _, query = rest.partition("?") if separator == "/" else ("", "", rest)
    parts = {"user": user, "password": password, "host": ",".join(hosts), "port": ",".join(ports), "dbname": database}
    return {name: _decode(value) for name, value in parts.items()} | _query(query)


def _query(query: str) -> dict[str, str]:
    parameters = {}
    for item in query.removesuffix("&").split("&") if query else ():
        name, *values = map(_decode, item.split("="))
        if len(values) != 1:
            raise InvalidDsn("each parameter after its ? must have one =; percent-encode the others, and each &")
        (value,) = values
        if (name, value) == ("ssl", "true"):  # of JDBC
            name, value = "sslmode", "require"
        elif name == "requiressl":  # of PostgreSQL 7
            name, value = "sslmode", "require" if value.startswith("1") else "prefer"
        parameters[name] = value
    return parameters


def _decode(text: str) -> str:
    text = text.strip(" ")
    if " " in text or _BROKEN_ESCAPE.search(text):
        raise InvalidDsn("it has a space, %00, or a % without two hexadecimal digits; percent-encode a space and a %")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError as error:
        raise InvalidDsn("it is not UTF-8") from error


def _check_names(parts: Mapping[str, str]) -> None:
    unknown = parts.keys() - _PARAMETERS
    if unknown:
        # An unknown name may be a part of a password with special characters, so it is not shown.
        similar = sorted(match for name in unknown for match in get_close_matches(name, _PARAMETERS, 1))
        hint = f"; did you mean {', '.join(similar)}?" if similar else ""
        raise InvalidDsn(f"it has a parameter that PostgreSQL does not have{hint}")


def _check_support(given: Mapping[str, str]) -> None:
    refused = sorted(given.keys() & _REFUSED)
    if refused:
        named = ", ".join(f"{name} (or {VARIABLES[name]})" if name in VARIABLES else name for name in refused)
        raise InvalidDsn(f"the service's drivers do not support {named}")
    for name, values in _VALUES.items():
        if given.get(name, values[0]) not in values:
            raise InvalidDsn(f"its {name} must be one of {', '.join(values)}")


def _hosts(given: Mapping[str, str]) -> str:
    """The hosts, separated by commas. Where a list has an empty item, it is the default host, as in libpq."""
    addresses = given.get("hostaddr")
    hosts = given.get("host", addresses or "")
    if addresses not in (None, hosts):
        raise InvalidDsn("the service's drivers do not support host and hostaddr together; remove one")
    names = [host for host in hosts.split(",") if not host.startswith("/")]
    if any("@" in name for name in names):
        raise InvalidDsn("its host must not have an @; percent-encode the @ of a password as %40")
    if any(":" in name and not _is_address(name) for name in names):
        raise InvalidDsn("its host must not have a port or another :")
    try:
        for name in names:
            name.encode("idna")
    except UnicodeError as error:  # the driver would fail with it at each connection
        raise InvalidDsn("its host must be a name of the DNS: each label has 1 to 63 characters") from error
    return ",".join(host or _default_host() for host in hosts.split(","))


def _is_local(hosts: str) -> bool:
    """Whether all hosts are on this machine: Unix sockets and loopback addresses."""
    return all(
        host.startswith("/") or host.lower() == "localhost" or (_is_address(host) and ip_address(host).is_loopback)
        for host in hosts.split(",")
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


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
    """The default file of libpq; empty where it does not exist, or is in a folder that cannot be read."""
    try:
        file = _home_file("root.crt")
        return str(file) if file.exists() else ""
    except (OSError, RuntimeError):
        return ""


def _home_file(name: str) -> Path:
    return Path.home() / ".postgresql" / name


def _system_bundle() -> str:
    bundles = (ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES)
    found = next((bundle for bundle in bundles if bundle and Path(bundle).exists()), None)
    if found is None:
        raise InvalidDsn("this machine has no CA certificates; set sslrootcert to a file of CA certificates")
    return found


def _ports(ports: str, host: str) -> str:
    """One port for each host. libpq accepts one port for all hosts, but asyncpg does not."""
    listed = [port or _PORT for port in ports.split(",")]
    if not all(port.isascii() and port.isdigit() and len(port) < 10 and 0 < int(port) < 2**16 for port in listed):
        raise InvalidDsn("its port must be a number from 1 to 65535; percent-encode the / of a password as %2F")
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
