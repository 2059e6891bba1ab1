"""The command line: `python -m svc serve | migrate | seed | prune | inspect | freeze | thaw | revoke | key`."""

from svc.logs import hooks
from svc.process import startup

if __name__ == "__main__":
    # The imports below take half a second, and may fail.
    startup.exit_at_once_on_signals()
    hooks.install()

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from svc import __version__, app
from svc.errors import InvalidSetting
from svc.http import access
from svc.logs.writer import LineWriter
from svc.postgres import dsn, embedded, maintenance, recovery
from svc.postgres.connector import Connection
from svc.process.sockets import CannotListen
from svc.settings import Settings, check_certificates, misspelled, read


def main() -> int:
    """Runs a command. Returns 0 on success and 1 on failure; argparse exits with 2 for a wrong command line."""
    hooks.install()
    startup.open_standard_streams()
    with startup.exit_on_signals():
        arguments = _parser().parse_args()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        try:
            if arguments.command is key:
                key(arguments.name)  # works with missing or wrong settings, since it generates one of them
            else:
                for name, intended in misspelled(os.environ).items():
                    _print(f"warning: {name} is not a setting; did you mean {intended}?")
                settings = read(os.environ)
                dsn.isolate_drivers()
                _check_database_tls(settings)
                arguments.command(settings)
        except (InvalidSetting, embedded.EmbeddedPostgresError, maintenance.MaintenanceError, CannotListen) as error:
            _print(f"error: {error}")
            if arguments.command is serve:
                hooks.report_failed_start(error)
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clients-api",
        description="The clients API of olimac.link.",
        epilog="Environment variables configure it; docs/configuration.md lists them. Where they name no database, "
        "an embedded PostgreSQL is used, with its data in .local/.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(command=serve)
    commands = parser.add_subparsers(title="commands", metavar="")
    for command in (serve, migrate, seed, prune, inspect, freeze, thaw, revoke, key):
        summary = (command.__doc__ or "").partition("\n")[0]
        commands.add_parser(command.__name__, help=summary, description=summary).set_defaults(command=command)
    commands.choices["key"].add_argument("name", nargs="?", type=_caller, help="the name of its caller, for the log")
    return parser


def serve(settings: Settings) -> None:
    """Serves the API (the default)."""
    if settings.database.dsn:
        seconds = settings.database.connect_seconds * settings.database.hosts
        if problem := asyncio.run(maintenance.find_problem(settings.database.dsn, seconds)):
            _print(f"warning: {problem}. The service starts all the same, and responds with 503.")
        app.serve(settings, lambda port: _greet(settings, port, "the PostgreSQL that the environment variables name"))
        return
    _print(f"No database is configured: starting the embedded PostgreSQL, with its data in {settings.local_folder}/")
    with embedded.running(settings.local_folder) as postgres:
        asyncio.run(maintenance.migrate(postgres.dsn()))
        asyncio.run(maintenance.seed(postgres.dsn()))
        named = replace(settings, database=replace(settings.database, dsn=postgres.dsn("clients_service")))
        data = f"{settings.local_folder}/postgres\nSQL   psql '{postgres.dsn()}'"
        app.serve(named, lambda port: _greet(settings, port, data))


def migrate(settings: Settings) -> None:
    """Updates the database's schema, and never drops anything."""
    with _database(settings) as url:
        service = settings.database
        _print(asyncio.run(maintenance.migrate(url, service.service_password, service.service_username)))


def seed(settings: Settings) -> None:
    """Adds the first four clients to an empty database."""
    with _database(settings) as url:
        added = asyncio.run(maintenance.seed(url))
        _print(f"{added} clients added." if added else "The database already has clients: nothing was changed.")


def prune(settings: Settings) -> None:
    """Deletes idempotency keys older than 24 hours."""
    with _database(settings) as url:
        _print(f"{asyncio.run(maintenance.prune(url))} idempotency keys deleted.")


def inspect(settings: Settings) -> None:
    """Prints the version of the schema, the number of clients and the newest ones, as JSON."""
    _recover(settings, recovery.inspect)


def freeze(settings: Settings) -> None:
    """Makes the database read-only, before the service moves to a restored one; `thaw` and `migrate` undo it."""
    _recover(settings, recovery.freeze)


def thaw(settings: Settings) -> None:
    """Makes a frozen database writable again."""
    _recover(settings, recovery.thaw)


def revoke(settings: Settings) -> None:
    """Takes the password from the service's role that DB_SERVICE_USERNAME does not name."""
    _recover(settings, lambda connection: recovery.revoke(connection, settings.database.service_username))


def _recover(settings: Settings, task: Callable[[Connection], Awaitable[str]]) -> None:
    with _database(settings) as url:
        _print(asyncio.run(maintenance.run(url, task)))


def key(caller: str | None) -> None:
    """Generates an API key: the caller sends the key, and its hash with the caller's name goes into API_KEY_HASHES."""
    new = access.new_key()
    hashed = access.digest(new).hex()
    print(f"Key   {new}")
    print(f"Hash  {caller}:{hashed}" if caller else f"Hash  {hashed}")


def _caller(name: str) -> str:
    if not access.NAME.fullmatch(name):
        raise argparse.ArgumentTypeError("a name has 1 to 32 letters, digits, '.', '_' or '-'")
    return name


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    if settings.database.dsn:
        yield settings.database.dsn
    else:
        with embedded.running(settings.local_folder) as postgres:
            yield postgres.dsn()


def _greet(settings: Settings, port: int, data: str) -> None:
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    _print(f"API   http://{host}:{port}/")
    _print(f"Docs  http://{host}:{port}/docs")
    _print(f"Keys  {_keys(len(settings.api_key_hashes))}")
    _print(f"Data  {data}")


def _keys(accepted: int) -> str:
    return f"{accepted} accepted" if accepted else "none: the API is open to everyone who can reach it"


def _check_database_tls(settings: Settings) -> None:
    """Checks the CA certificates, and warns where the database's identity is not verified.

    Raises:
        InvalidSetting: the certificates cannot be read.
    """
    if not settings.database.dsn:
        return
    database = dsn.parse(settings.database.dsn)
    if database.authorities:
        check_certificates(database.authorities)
    if database.is_unverified:
        mode = database.parameters["sslmode"]
        _print(f"warning: sslmode={mode} does not verify that the server is the database; verify-full does")


def _print(text: str) -> None:
    # To stderr, since stdout has the log. A LineWriter, since stderr may be a closed or a full pipe.
    LineWriter(sys.stderr.fileno()).write(f"{text}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    sys.exit(main())
