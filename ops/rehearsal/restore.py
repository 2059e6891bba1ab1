"""Restores of the mock RDS: each new instance is a PostgreSQL of its own, with the data of its source.

As with AWS, an instance has the defaults for what the call did not name: no security group of ours, no parameter group,
no managed password. Nobody can connect to one that lacks the security groups of the first instance.

The first instance has a server that stays: when it is deleted, its data goes, for the next instance of that name.

Simplified: a restore to a point in time is one to the latest, and automated snapshots have no data.
"""

import asyncio
import contextlib
import secrets
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

import asyncpg
from moto.rds.models import DBInstance, DBSnapshot, MasterUserSecret, RDSBackend

from ops.common.ports import free_host, free_port
from ops.rehearsal.certificates import Certificate, create_certificate
from ops.rehearsal.tls import Address, TlsProxy, listen
from svc.postgres import embedded
from svc.postgres.embedded import EmbeddedPostgres

# What a restored instance has of its source where the call does not name it; moto would copy everything.
_KEPT: Final = (
    *("engine", "engine_version", "db_name", "db_instance_class", "port", "master_username", "storage_encrypted"),
    *("allocated_storage", "backup_retention_period", "license_model", "preferred_backup_window"),
    "preferred_maintenance_window",
)
# Attributes whose parameter of ModifyDBInstance has another name, which moto does not know.
_RENAMED: Final = {"enable_performance_insights": "performance_insights_enabled"}
_OWNER: Final = "postgres"

_Resource = dict[str, Any]


@dataclass
class _Server:
    """The PostgreSQL of a restored instance.

    Attributes:
        postgres: the server.
        proxy: before it, terminates TLS.
    """

    postgres: EmbeddedPostgres
    proxy: TlsProxy


@dataclass
class RestoredDatabases:
    """The restored instances of a mock AWS.

    Attributes:
        folder: for their data.
        ca: signs their certificates.
        first: the server of the instance that Terraform creates.
        first_address: where that one listens, as RDS describes it.
        owner_password: of that one.
    """

    folder: Path
    ca: Certificate
    first: EmbeddedPostgres
    first_address: Address
    owner_password: str
    _servers: dict[str, _Server] = field(default_factory=dict)
    _passwords: dict[str, str] = field(default_factory=dict)
    # A PostgreSQL ends with the thread that started it, and each request to the mock has one of its own.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))

    @contextlib.contextmanager
    def running(self) -> Iterator["RestoredDatabases"]:
        """Lets the mock restore databases until the context is left; then stops them."""
        self.folder.mkdir(parents=True)
        rules = self.first.data / "pg_hba.conf"
        rules.write_text(rules.read_text() + "local replication all trust\n")  # for copies of its data
        asyncio.run(_execute(self.first.dsn(), "SELECT pg_reload_conf()"))
        try:
            with self._patches():
                yield self
        finally:
            for server in self._servers.values():
                server.proxy.close()
                server.postgres.stop()
            self._thread.shutdown()

    def dsn(self, identifier: str, database: str) -> str:
        """Returns a DSN with which the owner of a restored instance connects without TLS and password."""
        return self._servers[identifier].postgres.dsn(database=database)

    def _patches(self) -> contextlib.ExitStack:
        create_snapshot, delete, update = (
            RDSBackend.create_db_snapshot,
            RDSBackend.delete_db_instance,
            DBInstance.update,
        )

        def snapshot(backend: RDSBackend, *args: Any, **given: Any) -> DBSnapshot:
            created = create_snapshot(backend, *args, **given)
            if created.snapshot_type == "manual":
                self._copy(created.database.db_instance_identifier, self._snapshot(created.db_snapshot_identifier))
            return created

        def restore_snapshot(backend: RDSBackend, name: str, given: _Resource) -> DBInstance:
            source = backend.describe_db_snapshots(None, name)[0].database
            return self._restore(backend, source, given, self._snapshot(name))

        def restore_time(backend: RDSBackend, source: str, target: str, given: _Resource) -> DBInstance:
            found = backend.describe_db_instances(source)[0]
            data = self.folder / "backups" / target
            self._copy(source, data)
            return self._restore(backend, found, {**given, "db_instance_identifier": target}, data)

        def modify(instance: DBInstance, **given: Any) -> None:
            update(instance, **given)
            for parameter, attribute in _RENAMED.items():
                if parameter in given:
                    setattr(instance, attribute, given[parameter])

        def remove(backend: RDSBackend, *args: Any, **given: Any) -> DBInstance:
            deleted = delete(backend, *args, **given)
            if server := self._servers.pop(deleted.db_instance_identifier, None):
                server.proxy.close()
                self._thread.submit(server.postgres.stop).result()
            else:
                asyncio.run(_empty(self.first.dsn(), deleted.db_name))
            return deleted

        generate = MasterUserSecret._generate_secret_string  # noqa: SLF001 - aws.py replaces it too

        def credentials(secret: MasterUserSecret) -> str:
            generated: str = generate(secret)
            own = self._passwords.get(secret.resource.db_instance_identifier)
            return generated.replace(self.owner_password, own) if own else generated

        stack = contextlib.ExitStack()
        for owner, name, value in (
            (RDSBackend, "create_db_snapshot", snapshot),
            (RDSBackend, "restore_db_instance_from_db_snapshot", restore_snapshot),
            (RDSBackend, "restore_db_instance_to_point_in_time", restore_time),
            (RDSBackend, "delete_db_instance", remove),
            (DBInstance, "update", modify),
            (DBInstance, "address", property(lambda instance: self._address(instance)[0])),
            (
                DBInstance,
                "endpoint",
                property(lambda instance: dict(zip(("Address", "Port"), self._address(instance), strict=True))),
            ),
            (MasterUserSecret, "_generate_secret_string", credentials),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        return stack

    def _snapshot(self, name: str) -> Path:
        return self.folder / "snapshots" / name

    def _address(self, instance: DBInstance) -> Address:
        server = self._servers.get(instance.db_instance_identifier)
        return server.proxy.address if server else self.first_address

    def _postgres(self, identifier: str) -> EmbeddedPostgres:
        return self._servers[identifier].postgres if identifier in self._servers else self.first

    def _copy(self, identifier: str, target: Path) -> None:
        """Copies the data of a server, as a backup does; it may have crashed."""
        target.parent.mkdir(parents=True, exist_ok=True)
        postgres = self._postgres(identifier)
        if postgres.answers():
            source = ("--dbname", postgres.dsn(), "--checkpoint", "fast", "--no-sync")
            embedded.run("pg_basebackup", "--pgdata", target, *source)
        else:
            _copy_folder(postgres.data, target)

    def _restore(self, backend: RDSBackend, source: DBInstance, given: _Resource, data: Path) -> DBInstance:
        identifier = given["db_instance_identifier"]
        kept = {name: getattr(source, name) for name in _KEPT}
        settings = {**kept, **{name: value for name, value in given.items() if value is not None}}
        settings.pop("source_db_instance_identifier", None)  # for moto, that of a replica
        if given.get("manage_master_user_password"):
            self._passwords[identifier] = secrets.token_urlsafe(24)
        created = backend.create_db_instance(settings)
        created.dbi_resource_id = f"db-{uuid.uuid4().hex[:26].upper()}"  # moto's is the same for all
        reachable = set(source.vpc_security_group_ids) <= set(created.vpc_security_group_ids)
        self._servers[identifier] = self._thread.submit(self._start, identifier, data, reachable).result()
        return created

    def _start(self, identifier: str, data: Path, reachable: bool) -> _Server:
        folder = self.folder / identifier
        folder.mkdir()
        _copy_folder(data, folder / "postgres")
        port = free_port()
        postgres = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
        postgres.start()
        if password := self._passwords.get(identifier):
            asyncio.run(_execute(postgres.dsn(), f"ALTER ROLE {_OWNER} PASSWORD '{password}'"))
        port_of_all = self.first_address[1]  # a restored instance keeps it
        host = free_host(port_of_all)
        certificate = create_certificate(self.ca, identifier, [host])
        upstream = ("127.0.0.1", port) if reachable else None
        return _Server(postgres, listen(certificate, lambda: upstream, (host, port_of_all), starttls=True))


def _copy_folder(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)  # noqa: S607 - with the owner of the files


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _empty(url: str, database: str) -> None:
    """Makes the server as a new instance has it: the next one that Terraform creates is on it."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
        created = await connection.fetch("SELECT rolname FROM pg_roles WHERE oid >= 16384")  # those before are built in
        for role in created:
            await connection.execute(f"DROP ROLE {role['rolname']}")
        await connection.execute(f"CREATE DATABASE {database}")
    finally:
        await connection.close()
