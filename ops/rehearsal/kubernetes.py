"""A fake Kubernetes API server, with the parts of the API that kubectl uses in a deployment.

A real API server would have to be downloaded. This one stores objects, validates each against the schemas of
Kubernetes, and lets `controllers` do what a cluster does with Jobs, Deployments and Services.

Simplified: there are two field managers, one for all applies and one for all patches. So an object is what was applied
last, plus what was patched and never applied since. A deletion is complete when the server responds.
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
from typing import Any, Final, TypeAlias, TypeVar

import kubernetes_validate
import yaml
from aiohttp import web

from ops.rehearsal.certificates import Certificate

Object: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str, str]  # plural, namespace (or ""), name
_T = TypeVar("_T")


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        version: such as apps/v1.
        name: such as Deployment.
        plural: the name in URL paths.
        has_namespace: whether its objects are in a namespace.
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
_BY_PLURAL: Final = {kind.plural: kind for kind in KINDS}
_VERBS: Final = ["create", "delete", "get", "list", "patch", "update", "watch"]
_APPLY: Final = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Change:
    """A change of an object.

    Attributes:
        type: ADDED, MODIFIED or DELETED.
        kind: of the object.
        object: as it is now, or was before its deletion.
    """

    type: str
    kind: Kind
    object: Object


class ApiError(Exception):
    """A request cannot be fulfilled; the message is that of Kubernetes."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Store:
    """Stores the objects and notifies watchers of changes. All methods must be called in one event loop."""

    def __init__(self, version: str) -> None:
        """Creates only the namespaces that every cluster has.

        Args:
            version: of Kubernetes, such as 1.35; its schemas validate the objects.
        """
        self.version = version
        self._objects: dict[Key, Object] = {}
        self._patches: dict[Key, Object] = {}
        self._revision = 0
        self._watchers: set[asyncio.Queue[Change | None]] = set()
        self._create_namespaces()

    def _create_namespaces(self) -> None:
        for name in ("default", "kube-system"):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.apply(_BY_PATH["v1", "namespaces"], body)

    def clear(self) -> None:
        """Removes all objects, as the end of a cluster does. Its load balancers stay: nothing deletes them any more."""
        for kind in (_BY_PLURAL["deployments"], _BY_PLURAL["jobs"]):  # their pods end
            for found in self.objects(kind.plural):
                self.delete(kind, found["metadata"]["namespace"], found["metadata"]["name"])
        self._objects.clear()
        self._patches.clear()
        self._create_namespaces()

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Returns the object, or None."""
        return self._objects.get((plural, namespace, name))

    def find(self, kind: Kind, namespace: str, name: str) -> Object:
        """Returns the object.

        Raises:
            ApiError: it does not exist.
        """
        found = self.get(kind.plural, namespace, name)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "NotFound", f'{kind.plural} "{name}" not found')
        return found

    def objects(self, plural: str) -> list[Object]:
        """Returns all objects of a kind."""
        return [found for (of, _, _), found in self._objects.items() if of == plural]

    def apply(self, kind: Kind, body: Object) -> Object:
        """Creates the object or replaces it, except for its status and metadata of the cluster.

        Raises:
            ApiError: the body does not match the schema, or its namespace does not exist.
        """
        key = _key(kind, body)
        self._patches[key] = _without(self._patches.get(key, {}), body)  # an apply takes over the fields that it has
        return self._write(kind, body)

    def _write(self, kind: Kind, body: Object) -> Object:
        """Stores the body and what was patched."""
        self._validate(kind, body)
        metadata, key = body["metadata"], _key(kind, body)
        before = self._objects.get(key, {})
        initial = {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 0,
        }
        kept = {name: before.get("metadata", {}).get(name, value) for name, value in initial.items()}
        new: Object = _merge({**body, "metadata": {**metadata, **kept}}, self._patches.get(key, {}))
        _set_defaults(new, before)
        if before.get("spec") != new.get("spec"):
            new["metadata"]["generation"] += 1
        if "status" in before:
            new["status"] = before["status"]
        return self._put("MODIFIED" if before else "ADDED", kind, new)

    def patch(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Changes some fields of the object; a later apply keeps those that it does not have itself.

        Raises:
            ApiError: the object does not exist, or the result does not match the schema.
        """
        key = (kind.plural, namespace, name)
        body = {part: of for part, of in self.find(kind, namespace, name).items() if part != "status"}
        self._patches[key] = _merge(self._patches.get(key, {}), patch)
        return self._write(kind, body)

    def set_status(self, kind: Kind, found: Object, status: Object) -> None:
        """Sets the object's status, if the object still exists."""
        key = _key(kind, found)
        current = self._objects.get(key)
        if current and current["metadata"]["uid"] == found["metadata"]["uid"]:
            self._put("MODIFIED", kind, {**current, "status": status})

    def delete(self, kind: Kind, namespace: str, name: str) -> Object:
        """Deletes the object and all that it owns.

        Raises:
            ApiError: it does not exist.
        """
        key = (kind.plural, namespace, name)
        found = self.find(kind, namespace, name)
        del self._objects[key]
        self._patches.pop(key, None)
        self._notify("DELETED", kind, found)
        for owned in [key for key, one in self._objects.items() if _is_owned(one, found)]:
            self.delete(_BY_PLURAL[owned[0]], *owned[1:])
        return found

    def changes(self) -> AsyncIterator[Change]:
        """Yields each change from now on, until the store is closed."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers.add(queue)
        return self._read(queue)

    async def _read(self, queue: "asyncio.Queue[Change | None]") -> AsyncIterator[Change]:
        try:
            while change := await queue.get():
                yield change
        finally:
            self._watchers.remove(queue)

    def close(self) -> None:
        """Ends all iterations over changes."""
        for queue in self._watchers:
            queue.put_nowait(None)

    @property
    def revision(self) -> str:
        """The resourceVersion of the latest change."""
        return str(self._revision)

    def _put(self, change_type: str, kind: Kind, new: Object) -> Object:
        key = _key(kind, new)
        before = self._objects.get(key)
        if before and _unversioned(before) == _unversioned(new):
            return before  # nothing has changed, so no watcher is notified
        self._revision += 1
        new["metadata"]["resourceVersion"] = self.revision
        self._objects[key] = new
        self._notify(change_type, kind, new)
        return new

    def _notify(self, change_type: str, kind: Kind, changed: Object) -> None:
        for queue in self._watchers:
            queue.put_nowait(Change(change_type, kind, deepcopy(changed)))

    def _validate(self, kind: Kind, body: Object) -> None:
        name = f'{kind.name} "{body["metadata"]["name"]}"'
        try:
            kubernetes_validate.validate(body, self.version, strict=True)
        except kubernetes_validate.ValidationError as error:
            message = f"{name} is invalid: {'.'.join(map(str, error.path))}: {error.message}"
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message) from None
        namespace = body["metadata"].get("namespace", "")
        if kind.has_namespace and ("namespaces", "", namespace) not in self._objects:
            raise ApiError(HTTPStatus.NOT_FOUND, "NotFound", f'namespaces "{namespace}" not found, for {name}')


@dataclass(frozen=True)
class Cluster:
    """A running API server.

    Attributes:
        url: of the API.
        objects: returns all objects of a kind, given by its plural.
        upgrade: gives it this version of Kubernetes.
        clear: removes all objects.
    """

    url: str
    objects: Callable[[str], list[Object]]
    upgrade: Callable[[str], None]
    clear: Callable[[], None]


class ApiServer:
    """Handles the HTTP requests to the store."""

    def __init__(self, store: Store, is_authorized: Callable[[str], bool], log: Callable[[str, str], str]) -> None:
        """Stores the arguments.

        Args:
            store: of the objects.
            is_authorized: whether a bearer token gives access.
            log: returns the log of a pod's container.
        """
        self._store, self._is_authorized, self._log = store, is_authorized, log

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handles any request."""
        if not self._is_authorized(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return _failure(ApiError(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized"))
        if (document := _discovery(request.path, self._store.version)) is not None:
            return web.json_response(document)
        try:
            return await self._handle_object(request)
        except ApiError as error:
            return _failure(error)

    async def _handle_object(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name, subresource = _parse(request.path)
        if subresource == "log":
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
                raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", f"{request.method} is not supported")
        return web.json_response(found)

    async def _list_or_watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        labels = _parse_selector(request.query.get("labelSelector", ""))
        name = _parse_selector(request.query.get("fieldSelector", "")).get("metadata.name")

        def matches(found: Object) -> bool:
            is_in_namespace = namespace in ("", found["metadata"].get("namespace", ""))
            has_labels = labels.items() <= found["metadata"].get("labels", {}).items()
            return is_in_namespace and has_labels and name in (None, found["metadata"]["name"])

        if request.query.get("sendInitialEvents"):
            # Older clusters respond with this error too; the client then lists the objects first.
            message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message)
        if request.query.get("watch") not in ("true", "1"):
            items = [found for found in self._store.objects(kind.plural) if matches(found)]
            body = {"kind": f"{kind.name}List", "apiVersion": kind.version, "items": items}
            return web.json_response({**body, "metadata": {"resourceVersion": self._store.revision}})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        since = int(request.query.get("resourceVersion") or 0)
        changes = self._store.changes()
        with contextlib.suppress(ConnectionError):  # a watching client disconnects when it has seen enough
            await response.prepare(request)
            for found in self._store.objects(kind.plural):
                if matches(found) and int(found["metadata"]["resourceVersion"]) > since:
                    await response.write(_watch_event("MODIFIED", found))
            async for change in changes:
                if change.kind is kind and matches(change.object):
                    await response.write(_watch_event(change.type, change.object))
        return response


@contextlib.contextmanager
def running(
    version: str,
    certificate: Certificate,
    is_authorized: Callable[[str], bool],
    controllers: Callable[[Store], contextlib.AbstractAsyncContextManager[Callable[[str, str], str]]],
) -> Iterator[Cluster]:
    """Runs the API server on loopback, in a thread of its own.

    Args:
        version: of Kubernetes.
        certificate: of the server.
        is_authorized: whether a bearer token gives access.
        controllers: reconcile the objects of a store; give a function that returns the log of a pod's container.
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
        server = web.Server(ApiServer(store, is_authorized, log).handle)  # type: ignore[arg-type]
        runner = web.ServerRunner(server, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(store.close)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()

        def in_loop(function: Callable[[], _T]) -> _T:
            async def call() -> _T:
                return function()

            return asyncio.run_coroutine_threadsafe(call(), loop).result()

        return Cluster(
            f"https://127.0.0.1:{runner.addresses[0][1]}",
            lambda plural: in_loop(lambda: deepcopy(store.objects(plural))),
            lambda version: in_loop(lambda: setattr(store, "version", version)),
            lambda: in_loop(store.clear),
        )

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def kind_of(name: str) -> Kind:
    """Returns the kind with this name, such as Deployment."""
    return next(kind for kind in KINDS if kind.name == name)


def _failure(error: ApiError) -> web.Response:
    details: Object = {"message": str(error), "reason": error.reason, "code": error.status.value}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **details}
    return web.json_response(status, status=error.status)


def _discovery(path: str, version: str) -> Object | None:
    """Returns the discovery document of the path, which lists the kinds; None for any other path."""
    versions = sorted({kind.version for kind in KINDS})
    major, _, minor = version.partition(".")
    documents: dict[str, Object] = {
        "version": {"major": major, "minor": minor, "gitVersion": f"v{version}.0"},
        "api": {"kind": "APIVersions", "versions": ["v1"]},
        "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(v) for v in versions if "/" in v]},
        "openapi/v3": {"paths": {_root(v): {"serverRelativeURL": f"/openapi/v3/{_root(v)}"} for v in versions}},
    }
    for one in versions:
        resources = [_resource(kind) for kind in KINDS if kind.version == one]
        documents[_root(one)] = {"kind": "APIResourceList", "groupVersion": one, "resources": resources}
        documents[f"openapi/v3/{_root(one)}"] = _openapi(_root(one))
    return documents.get(path.strip("/"))


def _root(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _group(version: str) -> Object:
    name, _, number = version.partition("/")
    only_version = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [only_version], "preferredVersion": only_version}


def _resource(kind: Kind) -> Object:
    names = {"name": kind.plural, "singularName": kind.name.lower(), "kind": kind.name}
    return {**names, "namespaced": kind.has_namespace, "verbs": _VERBS}


def _openapi(root: str) -> Object:
    """Returns the part of OpenAPI that kubectl reads before it applies: this server validates fields itself."""
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
    """Splits a path into kind, namespace, name and subresource."""
    root, *parts = path.strip("/").split("/")
    version, rest = ("/".join(parts[:2]), parts[2:]) if root == "apis" else (parts[0], parts[1:])
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3] if rest else ("", "", "")
    kind = _BY_PATH.get((version, plural))
    if kind is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource")
    return kind, namespace, name, subresource


def _parse_selector(selector: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in selector.replace("==", "=").split(",") if "=" in part)


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merge(old.get(name), value) for name, value in new.items()}}
    return new


def _without(patch: Any, applied: Any) -> Any:
    """Returns the part of a patch that is not in the applied object."""
    if not (isinstance(patch, dict) and isinstance(applied, dict)):
        return patch
    kept = {name: _without(value, applied.get(name)) for name, value in patch.items()}
    return {name: value for name, value in kept.items() if name not in applied or (isinstance(value, dict) and value)}


def _key(kind: Kind, body: Object) -> Key:
    return kind.plural, body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _is_owned(one: Object, owner: Object) -> bool:
    owners = one["metadata"].get("ownerReferences", [])
    return owner["metadata"]["uid"] in [reference["uid"] for reference in owners]


def _unversioned(found: Object) -> Object:
    metadata = {name: value for name, value in found["metadata"].items() if name != "resourceVersion"}
    return {**found, "metadata": metadata}


def _watch_event(change_type: str, found: Object) -> bytes:
    return json.dumps({"type": change_type, "object": found}).encode() + b"\n"


def _set_defaults(new: Object, before: Object) -> None:
    """Sets the fields that an API server adds to objects of some kinds; `before` is empty for a new object."""
    match new["kind"]:
        case "Secret" if "stringData" in new:  # it only adds to what the Secret has
            texts = {name: base64.b64encode(text.encode()).decode() for name, text in new.pop("stringData").items()}
            new["data"] = {**before.get("data", {}), **new.get("data", {}), **texts}
        case "DaemonSet":
            strategy = {"type": "RollingUpdate", **new["spec"].get("updateStrategy", {})}
            new["spec"] = {**new["spec"], "updateStrategy": strategy}
        case "Job":
            label = {"batch.kubernetes.io/controller-uid": new["metadata"]["uid"]}
            template = new["spec"]["template"]
            metadata = template.get("metadata", {})
            labels = {**metadata.get("labels", {}), **label}
            template = {**template, "metadata": {**metadata, "labels": labels}}
            new["spec"] = {**new["spec"], "selector": {"matchLabels": label}, "template": template}
