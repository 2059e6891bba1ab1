"""A stand-in for the cluster's API, as far as kubectl asks it for a deployment.

No API server can be had without one to download. This one keeps objects, holds each against Kubernetes' own schemas,
and lets `controllers` do what the cluster would do with Jobs, Deployments and Services.

Simplified: who applies is one field manager and who patches another, so that an object becomes what was applied last
and what was ever patched stays; deletion is done when it is answered.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import kubernetes_validate
import yaml
from aiohttp import web

from ops.rehearsal.certificates import Certificate

Object: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str, str]  # plural, namespace ("" for what has none), name


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        version: such as apps/v1.
        name: such as Deployment.
        plural: as it is in paths.
        has_namespace: whether its objects are in one.
    """

    version: str
    name: str
    plural: str
    has_namespace: bool = True


KINDS: Final = (
    Kind("v1", "Namespace", "namespaces", has_namespace=False),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Secret", "secrets"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "Pod", "pods"),
    Kind("apps/v1", "DaemonSet", "daemonsets"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("batch/v1", "CronJob", "cronjobs"),
    Kind("batch/v1", "Job", "jobs"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", has_namespace=False),
    Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", has_namespace=False),
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    Kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", has_namespace=False),
)
_BY_PATH: Final = {(kind.version, kind.plural): kind for kind in KINDS}
_VERBS: Final = ["create", "delete", "get", "list", "patch", "update", "watch"]
_APPLY: Final = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Change:
    """A change of an object.

    Attributes:
        how: ADDED, MODIFIED or DELETED.
        kind: of the object.
        object: as it is now, or was.
    """

    how: str
    kind: Kind
    object: Object


class Refused(Exception):
    """What was asked cannot be done, as Kubernetes says it."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Store:
    """The objects, and who waits for one to change. All of it belongs to one event loop."""

    def __init__(self, version: str) -> None:
        """Empty, but for the namespaces that every cluster has.

        Args:
            version: of Kubernetes, such as 1.35, whose schemas objects have to meet.
        """
        self._version = version
        self._objects: dict[Key, Object] = {}
        self._patches: dict[Key, Object] = {}
        self._revision = 0
        self._watchers: set[asyncio.Queue[Change | None]] = set()
        for name in ("default", "kube-system"):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.apply(_BY_PATH["v1", "namespaces"], body)

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        return self._objects.get((plural, namespace, name))

    def find(self, kind: Kind, namespace: str, name: str) -> Object:
        """The object.

        Raises:
            Refused: there is none.
        """
        found = self.get(kind.plural, namespace, name)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "NotFound", f'{kind.plural} "{name}" not found')
        return found

    def all_of(self, plural: str) -> list[Object]:
        """All of a kind."""
        return [found for (of, _, _), found in self._objects.items() if of == plural]

    def apply(self, kind: Kind, body: Object) -> Object:
        """Makes the object what the body says, and keeps what is the cluster's.

        Raises:
            Refused: the body does not meet the schema, or is in no namespace that there is.
        """
        self._check(kind, body)
        metadata = body["metadata"]
        key = (kind.plural, metadata.get("namespace", ""), metadata["name"])
        before = self._objects.get(key, {})
        own = {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 0,
        }
        kept = {name: before.get("metadata", {}).get(name, value) for name, value in own.items()}
        new: Object = _merged({**body, "metadata": {**metadata, **kept}}, self._patches.get(key, {}))
        _fill_in(new)
        if before.get("spec") != new.get("spec"):
            new["metadata"]["generation"] += 1
        if "status" in before:
            new["status"] = before["status"]
        return self._put("MODIFIED" if before else "ADDED", kind, new)

    def patch(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Changes some of the object's fields, which later applications leave as they are.

        Raises:
            Refused: there is none, or the result does not meet the schema.
        """
        key = (kind.plural, namespace, name)
        body = {part: of for part, of in self.find(kind, namespace, name).items() if part != "status"}
        self._patches[key] = _merged(self._patches.get(key, {}), patch)
        return self.apply(kind, body)

    def set_status(self, kind: Kind, found: Object, status: Object) -> None:
        """Changes the object's status, if it is still there."""
        key = (kind.plural, found["metadata"].get("namespace", ""), found["metadata"]["name"])
        current = self._objects.get(key)
        if current and current["metadata"]["uid"] == found["metadata"]["uid"]:
            self._put("MODIFIED", kind, {**current, "status": status})

    def delete(self, kind: Kind, namespace: str, name: str) -> Object:
        """Removes the object.

        Raises:
            Refused: there is none.
        """
        key = (kind.plural, namespace, name)
        found = self.find(kind, namespace, name)
        del self._objects[key]
        self._patches.pop(key, None)
        self._tell("DELETED", kind, found)
        return found

    def changes(self) -> AsyncIterator[Change]:
        """What changes from here on, until the store is closed."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers.add(queue)
        return self._from(queue)

    async def _from(self, queue: "asyncio.Queue[Change | None]") -> AsyncIterator[Change]:
        try:
            while change := await queue.get():
                yield change
        finally:
            self._watchers.remove(queue)

    def close(self) -> None:
        """Nothing changes any more."""
        for queue in self._watchers:
            queue.put_nowait(None)

    @property
    def revision(self) -> str:
        """How far the changes have come."""
        return str(self._revision)

    def _put(self, how: str, kind: Kind, new: Object) -> Object:
        key = (kind.plural, new["metadata"].get("namespace", ""), new["metadata"]["name"])
        before = self._objects.get(key)
        if before and _unversioned(before) == _unversioned(new):
            return before  # nothing has changed, and nobody is told
        self._revision += 1
        new["metadata"]["resourceVersion"] = self.revision
        self._objects[key] = new
        self._tell(how, kind, new)
        return new

    def _tell(self, how: str, kind: Kind, changed: Object) -> None:
        for queue in self._watchers:
            queue.put_nowait(Change(how, kind, deepcopy(changed)))

    def _check(self, kind: Kind, body: Object) -> None:
        name = f'{kind.name} "{body["metadata"]["name"]}"'
        try:
            kubernetes_validate.validate(body, self._version, strict=True)
        except kubernetes_validate.ValidationError as error:
            message = f"{name} is invalid: {'.'.join(map(str, error.path))}: {error.message}"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message) from None
        namespace = body["metadata"].get("namespace", "")
        if kind.has_namespace and ("namespaces", "", namespace) not in self._objects:
            raise Refused(HTTPStatus.NOT_FOUND, "NotFound", f'namespaces "{namespace}" not found, for {name}')


@dataclass(frozen=True)
class Cluster:
    """The API that listens.

    Attributes:
        url: where.
        objects: all of a kind (its plural) as they are now.
    """

    url: str
    objects: Callable[[str], list[Object]]


class Api:
    """What is asked over HTTP, answered from the store."""

    def __init__(self, store: Store, version: str, may: Callable[[str], bool], log: Callable[[str, str], str]) -> None:
        """No request yet.

        Args:
            store: of the objects.
            version: of Kubernetes.
            may: whether who has this bearer token may ask.
            log: what a container of a pod has said.
        """
        self._store, self._version, self._may, self._log = store, version, may, log

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers a request, whatever it asks."""
        if not self._may(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return _failure(Refused(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized"))
        if (told := _discovery(request.path, self._version)) is not None:
            return web.json_response(told)
        try:
            return await self._object(request)
        except Refused as error:
            return _failure(error)

    async def _object(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name, below = _parse(request.path)
        if below == "log":
            return web.Response(text=self._log(name, request.query.get("container", "")))
        if not name:
            return await self._list_or_watch(request, kind, namespace)
        match request.method:
            case "GET":
                found = self._store.find(kind, namespace, name)
            case "PATCH" if request.content_type == _APPLY:
                found = self._store.apply(kind, yaml.safe_load(await request.text()))
            case "PATCH":
                found = self._store.patch(kind, namespace, name, await request.json())
            case "DELETE":
                found = self._store.delete(kind, namespace, name)
            case _:
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", f"{request.method} is not supported")
        return web.json_response(found)

    async def _list_or_watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        labels = _equalities(request.query.get("labelSelector", ""))
        name = _equalities(request.query.get("fieldSelector", "")).get("metadata.name")

        def wanted(found: Object) -> bool:
            is_there = namespace in ("", found["metadata"].get("namespace", ""))
            is_labelled = labels.items() <= found["metadata"].get("labels", {}).items()
            return is_there and is_labelled and name in (None, found["metadata"]["name"])

        if request.query.get("sendInitialEvents"):
            # Older clusters say so too; the client then lists first.
            message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message)
        if request.query.get("watch") not in ("true", "1"):
            items = [found for found in self._store.all_of(kind.plural) if wanted(found)]
            listed = {"kind": f"{kind.name}List", "apiVersion": kind.version, "items": items}
            return web.json_response({**listed, "metadata": {"resourceVersion": self._store.revision}})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        since = int(request.query.get("resourceVersion") or 0)
        changes = self._store.changes()
        with contextlib.suppress(ConnectionError):  # who watches goes away when it has seen enough
            await response.prepare(request)
            for found in self._store.all_of(kind.plural):
                if wanted(found) and int(found["metadata"]["resourceVersion"]) > since:
                    await response.write(_event("MODIFIED", found))
            async for change in changes:
                if change.kind is kind and wanted(change.object):
                    await response.write(_event(change.how, change.object))
        return response


@contextlib.contextmanager
def started(
    version: str,
    certificate: Certificate,
    may: Callable[[str], bool],
    controllers: Callable[[Store], contextlib.AbstractAsyncContextManager[Callable[[str, str], str]]],
) -> Iterator[Cluster]:
    """Listens on loopback meanwhile, in a thread of its own.

    Args:
        version: of Kubernetes.
        certificate: that it shows.
        may: whether who has this bearer token may ask.
        controllers: what acts on the objects of a store meanwhile; gives what a container of a pod has said.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cluster", daemon=True)
    thread.start()
    stack = contextlib.AsyncExitStack()

    async def start() -> Cluster:
        store = Store(version)
        log = await stack.enter_async_context(controllers(store))
        runner = web.ServerRunner(web.Server(Api(store, version, may, log).answer), shutdown_timeout=1)  # type: ignore[arg-type]
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(store.close)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()

        async def objects(plural: str) -> list[Object]:
            return deepcopy(store.all_of(plural))

        def now(plural: str) -> list[Object]:
            return asyncio.run_coroutine_threadsafe(objects(plural), loop).result()

        return Cluster(f"https://127.0.0.1:{runner.addresses[0][1]}", now)

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def kind_of(name: str) -> Kind:
    """The kind of that name, such as Deployment."""
    return next(kind for kind in KINDS if kind.name == name)


def _failure(why: Refused) -> web.Response:
    said: Object = {"message": str(why), "reason": why.reason, "code": why.status.value}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **said}
    return web.json_response(status, status=why.status)


def _discovery(path: str, version: str) -> Object | None:
    """What clients ask before anything else: which kinds there are. None for any other path."""
    versions = sorted({kind.version for kind in KINDS})
    major, _, minor = version.partition(".")
    fixed: dict[str, Object] = {
        "version": {"major": major, "minor": minor, "gitVersion": f"v{version}.0"},
        "api": {"kind": "APIVersions", "versions": ["v1"]},
        "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(v) for v in versions if "/" in v]},
        "openapi/v3": {"paths": {_root(v): {"serverRelativeURL": f"/openapi/v3/{_root(v)}"} for v in versions}},
    }
    for one in versions:
        resources = [_resource(kind) for kind in KINDS if kind.version == one]
        fixed[_root(one)] = {"kind": "APIResourceList", "groupVersion": one, "resources": resources}
        fixed[f"openapi/v3/{_root(one)}"] = _openapi(_root(one))
    return fixed.get(path.strip("/"))


def _root(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _group(version: str) -> Object:
    name, _, number = version.partition("/")
    only = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [only], "preferredVersion": only}


def _resource(kind: Kind) -> Object:
    named = {"name": kind.plural, "singularName": kind.name.lower(), "kind": kind.name}
    return {**named, "namespaced": kind.has_namespace, "verbs": _VERBS}


def _openapi(root: str) -> Object:
    """As much as kubectl reads before it applies: that this API itself refuses unknown fields."""
    paths = {}
    for kind in KINDS:
        if _root(kind.version) == root:
            group, _, number = kind.version.rpartition("/")
            patch = {
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind.name},
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {},
            }
            paths[f"/{root}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths}


def _parse(path: str) -> tuple[Kind, str, str, str]:
    """Kind, namespace, name and what is below the object, of a path."""
    root, *parts = path.strip("/").split("/")
    version, rest = ("/".join(parts[:2]), parts[2:]) if root == "apis" else (parts[0], parts[1:])
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, below = (*rest, "", "")[:3] if rest else ("", "", "")
    kind = _BY_PATH.get((version, plural))
    if kind is None:
        raise Refused(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource")
    return kind, namespace, name, below


def _equalities(selector: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in selector.replace("==", "=").split(",") if "=" in part)


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return new


def _unversioned(found: Object) -> Object:
    metadata = {name: value for name, value in found["metadata"].items() if name != "resourceVersion"}
    return {**found, "metadata": metadata}


def _event(how: str, found: Object) -> bytes:
    return json.dumps({"type": how, "object": found}).encode() + b"\n"


def _fill_in(new: Object) -> None:
    """What the API itself adds to some kinds."""
    match new["kind"]:
        case "Secret":
            texts = {name: base64.b64encode(text.encode()).decode() for name, text in new.pop("stringData", {}).items()}
            new["data"] = {**new.get("data", {}), **texts}
        case "Job":
            label = {"batch.kubernetes.io/controller-uid": new["metadata"]["uid"]}
            template = new["spec"]["template"]
            metadata = template.get("metadata", {})
            labels = {**metadata.get("labels", {}), **label}
            template = {**template, "metadata": {**metadata, "labels": labels}}
            new["spec"] = {**new["spec"], "selector": {"matchLabels": label}, "template": template}
