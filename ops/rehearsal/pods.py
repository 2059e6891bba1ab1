"""Pods as processes of this machine: the container's arguments given to this checkout, in the pod's own environment."""

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from ops.common.ports import free_port
from ops.rehearsal.kubernetes import Object, Refused, Store, kind_of
from ops.rehearsal.steps import ROOT

_POD: Final = kind_of("Pod")
_LOOK_SECONDS: Final = 0.1
_REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
# A Service's name, which only a cluster knows: on this machine nobody is there.
_CLUSTER_NAME: Final = re.compile(r"\b[a-z0-9.-]+\.svc\.cluster\.local\b")


class Lacks(Exception):
    """A pod wants a Secret or a ConfigMap that is not there (yet)."""


class Pod:
    """A pod, whose containers are run one after the other.

    Attributes:
        name: of the pod.
        owner: the uid of its Job or Deployment.
        object: as the cluster's API tells of it.
        port: on loopback, where its process listens if its container has a port.
        is_ready: whether its readiness probe was answered.
    """

    def __init__(self, store: Store, owner: Object, folder: Path) -> None:
        """Not started yet.

        Args:
            store: where its Secrets and ConfigMaps are.
            owner: the Job's or the Deployment's object.
            folder: for the pods' files.
        """
        self.name = f"{owner['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        self.owner: str = owner["metadata"]["uid"]
        self.namespace: str = owner["metadata"]["namespace"]
        self.is_ready = False
        self.port = free_port()
        template = owner["spec"]["template"]
        self.object: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, **template.get("metadata", {})},
            "spec": template["spec"],
        }
        self._store = store
        self._folder = folder / self.name
        self._process: asyncio.subprocess.Process | None = None
        self._run: asyncio.Task[bool] | None = None

    def log(self, container: str) -> str:
        """What the container has said; the only one's where the name is empty."""
        name = container or self.object["spec"]["containers"][0]["name"]
        file = self._folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Runs the containers, first the initial ones."""
        self._folder.mkdir(parents=True)
        self._run = asyncio.create_task(self._containers())
        self.tell("Running")

    async def ended(self) -> bool:
        """Waits for the containers to end, and says whether all of them ended well."""
        assert self._run
        return await asyncio.shield(self._run)

    async def is_up(self) -> bool:
        """Asks as the readiness probe says until the answer is 200, or the pod has ended."""
        assert self._run
        probe = self.object["spec"]["containers"][0]["readinessProbe"]["httpGet"]
        async with aiohttp.ClientSession() as session:
            while not (self.is_ready or self._run.done()):
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.port}{probe['path']}") as answer:
                        self.is_ready = answer.status == HTTPStatus.OK
                await asyncio.sleep(_LOOK_SECONDS)
        return self.is_ready

    async def stop(self, seconds: float | None = None) -> None:
        """Ends it as a kubelet does: SIGTERM, and SIGKILL after its grace, or the seconds."""
        self.is_ready = False
        assert self._run
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            grace: float = self.object["spec"]["terminationGracePeriodSeconds"] if seconds is None else seconds
            await asyncio.wait([self._run], timeout=grace)
        self._run.cancel()
        await asyncio.wait([self._run])
        with contextlib.suppress(Refused):
            self._store.delete(_POD, self.namespace, self.name)

    def tell(self, phase: str) -> None:
        """Shows it in the cluster's API, in its phase: Running, Succeeded or Failed."""
        found = self._store.get(_POD.plural, self.namespace, self.name) or self._store.apply(_POD, self.object)
        self._store.set_status(_POD, found, {"phase": phase})

    async def _containers(self) -> bool:
        spec = self.object["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            if await self._container(container):
                return False
        return True

    async def _container(self, container: Object) -> int:
        environment = await self._when_there(container)
        with (self._folder / f"{container['name']}.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_ends_with_us(),
                *(sys.executable, "-m", "svc", *container.get("args", [])),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            return await self._process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _when_there(self, container: Object) -> dict[str, str]:
        """The container's environment, once all that it refers to is there."""
        while True:
            try:
                return self._environment(container)
            except Lacks:
                await asyncio.sleep(_LOOK_SECONDS)

    def _environment(self, container: Object) -> dict[str, str]:
        """What the container's process has in its environment.

        Raises:
            Lacks: something that it refers to is missing.
        """
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "HOST": "127.0.0.1"}
        for source in container.get("envFrom", []):
            environment |= self._data(source)
        fields = {"metadata.name": self.name, "spec.nodeName": "rehearsal"}
        for variable in container.get("env", []):
            value = variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            environment[variable["name"]] = _REFERENCE.sub(lambda found: environment.get(found[1], found[0]), value)
        if container.get("ports"):
            environment["PORT"] = str(self.port)
        mounts = dict(self._mounts(container))
        return {name: _on_this_machine(value, mounts) for name, value in environment.items()}

    def _mounts(self, container: Object) -> Iterator[tuple[str, Path]]:
        """Where the container's volumes are mounted, and in which folders their files are."""
        volumes = {volume["name"]: volume for volume in self.object["spec"].get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            folder = self._folder / mount["name"]
            folder.mkdir(exist_ok=True)
            if "configMap" in volume:
                for file, content in self._referred("configmaps", volume["configMap"]).items():
                    (folder / file).write_text(content)
            yield mount["mountPath"], folder

    def _data(self, source: Object) -> dict[str, str]:
        if reference := source.get("secretRef"):
            encoded = self._referred("secrets", reference)
            return {name: base64.b64decode(value).decode() for name, value in encoded.items()}
        return self._referred("configmaps", source["configMapRef"])

    def _referred(self, plural: str, reference: Object) -> dict[str, str]:
        found = self._store.get(plural, self.namespace, reference["name"])
        if found is None and not reference.get("optional"):
            raise Lacks(f"{plural} {reference['name']}")
        data: dict[str, str] = (found or {}).get("data", {})
        return data


def _on_this_machine(value: str, mounts: dict[str, Path]) -> str:
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return str(folder) + value.removeprefix(path)
    return _CLUSTER_NAME.sub("127.0.0.1", value)


def _ends_with_us() -> list[str]:
    """What to put before a command so that not even a SIGKILL of this process leaves it behind."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
