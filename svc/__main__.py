"""The command line: `python -m svc serve | migrate | seed | prune | key`."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from svc import __version__, app
from svc.errors import InvalidSetting
from svc.http import access
from svc.postgres import embedded, maintenance
from svc.postgres.dsn import parse as parse_dsn
from svc.process.server import CannotListen
from svc.settings import Settings, check_certificates, read


def main() -> int:
    """Does what the command line says; 0 where it worked, 1 where not, 2 where it is not understood."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if arguments.command is key:
            key()  # it needs no settings, and makes what a wrong one lacks
        else:
            settings = read(os.environ)
            _check_way(settings)
            arguments.command(settings)
    except (InvalidSetting, embedded.EmbeddedPostgresError, maintenance.MaintenanceError, CannotListen) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clients-api",
        description="The clients API of olimac.link.",
        epilog="Settings come from the environment; the README lists them. Where it names no database, "
        "an embedded PostgreSQL is used, with its data under .local/.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(command=serve)
    commands = parser.add_subparsers(title="commands", metavar="")
    for command in (serve, migrate, seed, prune, key):
        summary = (command.__doc__ or "").partition("\n")[0]
        commands.add_parser(command.__name__, help=summary, description=summary).set_defaults(command=command)
    return parser


def serve(settings: Settings) -> None:
    """Serves the API (the default)."""
    if settings.database.dsn:
        app.serve(settings, lambda port: _greet(settings, port, "the PostgreSQL that the environment names"))
        return
    _say(f"No database is named: starting PostgreSQL on {settings.local_folder}/")
    with embedded.running(settings.local_folder) as postgres:
        asyncio.run(maintenance.migrate(postgres.dsn()))
        asyncio.run(maintenance.seed(postgres.dsn()))
        named = replace(settings, database=replace(settings.database, dsn=postgres.dsn("clients_service")))
        data = f"{settings.local_folder}/postgres; to look at it: psql '{postgres.dsn()}'"
        app.serve(named, lambda port: _greet(settings, port, data))


def migrate(settings: Settings) -> None:
    """Brings the database's schema up to date; nothing is ever dropped."""
    with _database(settings) as dsn:
        _say(asyncio.run(maintenance.migrate(dsn, settings.database.service_password)))


def seed(settings: Settings) -> None:
    """Adds the first four clients to an empty database."""
    with _database(settings) as dsn:
        added = asyncio.run(maintenance.seed(dsn))
        _say(f"{added} clients added." if added else "There are clients already: nothing was changed.")


def prune(settings: Settings) -> None:
    """Forgets idempotency keys older than 24 hours."""
    with _database(settings) as dsn:
        _say(f"{asyncio.run(maintenance.prune(dsn))} idempotency keys forgotten.")


def key() -> None:
    """Makes a key for the API: the key is its caller's, the hash goes into API_KEY_HASHES."""
    made = access.new_key()
    print(f"Key   {made}")
    print(f"Hash  {access.digest(made).hex()}")


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    if settings.database.dsn:
        yield settings.database.dsn
    else:
        with embedded.running(settings.local_folder) as postgres:
            yield postgres.dsn()


def _greet(settings: Settings, port: int, data: str) -> None:
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    _say(f"API   http://{host}:{port}/")
    _say(f"Docs  http://{host}:{port}/docs")
    _say(f"Keys  {_keys(len(settings.api_key_hashes))}")
    _say(f"Data  {data}")


def _keys(accepted: int) -> str:
    return f"{accepted} accepted" if accepted else "none: the API is open to everyone who reaches it"


def _check_way(settings: Settings) -> None:
    """Whether the database can be told from others, which is refused where it cannot, and said where it need not."""
    if not settings.database.dsn:
        return
    database = parse_dsn(settings.database.dsn)
    if database.authorities:
        check_certificates(database.authorities)
    if database.is_unverified:
        mode = database.parameters["sslmode"]
        _say(f"warning: sslmode={mode} lets whoever is between here and the database pose as it; verify-full does not")


def _say(words: str) -> None:
    # Beside the logs, not among them.
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
