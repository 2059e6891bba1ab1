"""Pods as processes: `python -m svc` of a checkout, with the arguments and the environment of a container."""

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
from ops.rehearsal.kubernetes import ApiError, Object, Store, kind_of

_POD: Final = kind_of("Pod")
_POLL_SECONDS: Final = 0.1
_REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
# The name of a Service, which only a cluster resolves; on this machine nothing listens there.
_CLUSTER_NAME: Final = re.compile(r"\b[a-z0-9.-]+\.svc\.cluster\.local\b")


class MissingReference(Exception):
    """A Secret or a ConfigMap of a pod does not exist (yet)."""


class Pod:
    """A pod, whose containers run one after the other.

    Attributes:
        name: of the pod.
        owner: the uid of its Job or Deployment.
        object: the pod as an object of the cluster's API.
        port: on loopback, where its process listens if its container has a port.
        is_ready: whether its readiness probe has succeeded.
        is_stopping: whether it was asked to stop.
    """

    def __init__(self, store: Store, owner: Object, folder: Path, source: Path) -> None:
        """Does not start it yet.

        Args:
            store: has its Secrets and ConfigMaps.
            owner: its Job or Deployment.
            folder: for the pods' files.
            source: the folder with the image's source.
        """
        self.name = f"{owner['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        self.owner: str = owner["metadata"]["uid"]
        self.namespace: str = owner["metadata"]["namespace"]
        self.is_ready = self.is_stopping = False
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
        self._source = source
        self._process: asyncio.subprocess.Process | None = None
        self._run: asyncio.Task[bool] | None = None

    def log(self, container: str) -> str:
        """Returns the container's output; an empty name means the first container."""
        name = container or self.object["spec"]["containers"][0]["name"]
        file = self._folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Starts to run the init containers, then the containers."""
        self._folder.mkdir(parents=True)
        self._run = asyncio.create_task(self._run_containers())
        self.set_phase("Running")

    async def has_succeeded(self) -> bool:
        """Waits until the containers have exited, and returns whether all of them exited with 0."""
        assert self._run
        return await asyncio.shield(self._run)

    async def wait_until_ready(self) -> bool:
        """Sends the readiness probe until the status is 200 or the pod has exited; returns whether it is ready."""
        assert self._run
        probe = self.object["spec"]["containers"][0]["readinessProbe"]["httpGet"]
        async with aiohttp.ClientSession() as session:
            while not (self.is_ready or self._run.done()):
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.port}{probe['path']}") as response:
                        self.is_ready = response.status == HTTPStatus.OK
                await asyncio.sleep(_POLL_SECONDS)
        return self.is_ready

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Stops it as a kubelet does: SIGTERM, then SIGKILL after its own grace period, or the given one."""
        self.is_ready, self.is_stopping = False, True
        assert self._run
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            own_grace: float = self.object["spec"]["terminationGracePeriodSeconds"]
            await asyncio.wait([self._run], timeout=own_grace if grace_seconds is None else grace_seconds)
        self._run.cancel()
        await asyncio.wait([self._run])
        with contextlib.suppress(ApiError):
            self._store.delete(_POD, self.namespace, self.name)

    def set_phase(self, phase: str) -> None:
        """Stores the pod in the cluster's API with its phase: Running, Succeeded or Failed."""
        found = self._store.get(_POD.plural, self.namespace, self.name) or self._store.apply(_POD, self.object)
        self._store.set_status(_POD, found, {"phase": phase})

    async def _run_containers(self) -> bool:
        spec = self.object["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            if await self._run_container(container):
                return False
        return True

    async def _run_container(self, container: Object) -> int:
        environment = await self._wait_for_environment(container)
        with (self._folder / f"{container['name']}.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *dying_with_this_process(),
                *(sys.executable, "-m", "svc", *container.get("args", [])),
                cwd=self._source,
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

    async def _wait_for_environment(self, container: Object) -> dict[str, str]:
        """Returns the container's environment once all Secrets and ConfigMaps that it refers to exist."""
        while True:
            try:
                return self._environment(container)
            except MissingReference:
                await asyncio.sleep(_POLL_SECONDS)

    def _environment(self, container: Object) -> dict[str, str]:
        """Returns the environment of the container's process.

        Raises:
            MissingReference: a Secret or a ConfigMap that it refers to does not exist.
        """
        build = container["image"].rpartition(":")[2]  # as the image has it
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "HOST": "127.0.0.1", "BUILD": build}
        for source in container.get("envFrom", []):
            environment |= self._data(source)
        fields = {"metadata.name": self.name, "spec.nodeName": "rehearsal"}
        for variable in container.get("env", []):
            value = variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            environment[variable["name"]] = _REFERENCE.sub(lambda found: environment.get(found[1], found[0]), value)
        if container.get("ports"):
            environment["PORT"] = str(self.port)
        mounts = dict(self._mounts(container))
        return {name: _to_local_paths_and_hosts(value, mounts) for name, value in environment.items()}

    def _mounts(self, container: Object) -> Iterator[tuple[str, Path]]:
        """Writes the container's volumes; yields each mount path with the folder that has the volume's files."""
        volumes = {volume["name"]: volume for volume in self.object["spec"].get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            folder = self._folder / mount["name"]
            folder.mkdir(exist_ok=True)
            if "configMap" in volume:
                for file, content in self._referenced_data("configmaps", volume["configMap"]).items():
                    (folder / file).write_text(content)
            yield mount["mountPath"], folder

    def _data(self, source: Object) -> dict[str, str]:
        if reference := source.get("secretRef"):
            encoded = self._referenced_data("secrets", reference)
            return {name: base64.b64decode(value).decode() for name, value in encoded.items()}
        return self._referenced_data("configmaps", source["configMapRef"])

    def _referenced_data(self, plural: str, reference: Object) -> dict[str, str]:
        found = self._store.get(plural, self.namespace, reference["name"])
        if found is None and not reference.get("optional"):
            raise MissingReference(f"{plural} {reference['name']}")
        data: dict[str, str] = (found or {}).get("data", {})
        return data


def _to_local_paths_and_hosts(value: str, mounts: dict[str, Path]) -> str:
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return str(folder) + value.removeprefix(path)
    return _CLUSTER_NAME.sub("127.0.0.1", value)


def dying_with_this_process() -> list[str]:
    """Returns a command prefix with which the command dies with this process, even after a SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
