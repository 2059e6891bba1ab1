"""Tests of the Kubernetes manifests as a deployment renders them, for rules that no schema checks."""

import asyncio
import functools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeAlias

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import schema_contents

from ops.common.process import ROOT
from ops.deploy import canary, database, load_balancer, manifests, rollout
from ops.deploy.common import CannotProceed, Outputs
from ops.deploy.kubernetes import kubectl
from ops.load import measurements
from ops.rehearsal import annotations
from svc import __main__ as command_line
from svc import settings
from svc.http import connections
from svc.http.access import digest
from svc.postgres import dsn, pool
from svc.process import server
from svc.settings import Settings
from svc.site import health
from tests.missing import missing
from tests.ops.adot import model as adot
from tests.ops.fluent_bit import model as fluentbit
from tests.service import Service
from tests.svc.logs import lines

Object: TypeAlias = dict[str, Any]

K8S = ROOT / "k8s"
VARIABLES = (ROOT / "terraform" / "variables.tf").read_text()

# Made-up values, so that a value that appears in the rendered objects was filled in.
OUTPUTS = Outputs(
    name="made-up",
    region="eu-north-1",
    kubernetes_version=re.findall(r'variable "kubernetes_version" \{.*?default *= "(.*?)"', VARIABLES, re.DOTALL)[0],
    autoscaler_version="1.99.5",
    cluster_range="10.64.0.0/16",
    database_range="10.65.0.0/16",
    database_identifier="made-up",
    hostname="api.example",
    zone_id="Z0",
    certificate_arn="arn:aws:acm:eu-north-1:123456789012:certificate/made-up",
    balancer_logs="made-up-balancer-logs",
)
IMAGE = "registry.example/clients-api@sha256:" + "0123456789abcdef" * 4
LOAD_IMAGE = "registry.example/clients-api-load@sha256:" + "0123456789abcdef" * 4

# The content of a deployment's Secrets, and of the load test's.
CONNECTION = {"DB_HOST": "db.example", "DB_PORT": "5432", "DB_NAME": "clients", "DB_PASSWORD": "made-up"}
SECRETS = {
    rollout.SERVICE_SECRET: {**CONNECTION, "DB_USERNAME": "clients_service"},
    database.OWNER_SECRET: {**CONNECTION, "DB_USERNAME": "postgres", "DB_SERVICE_PASSWORD": "made-up"},
    "load-key": {"API_KEY": "a-key"},
}

NODE = "10.64.1.1"  # the load balancer's addresses are in the same network

# max_connections of a db.t4g.micro: LEAST({DBInstanceClassMemory/9531392}, 5000), of the part of 1 GiB that its system
# leaves.
MAX_CONNECTIONS = 80
RESERVED = 5  # for RDS and the owner


@functools.cache
def rendered(overlay: str, outputs: Outputs = OUTPUTS) -> tuple[Object, ...]:
    if not shutil.which("kubectl"):
        missing("kubectl is missing")
    return tuple(yaml.safe_load_all(manifests.render(overlay, outputs, IMAGE)))


def render_load_test() -> str:
    """k8s/load as YAML, with an image filled in."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(K8S / "load", Path(folder, "load")))
        settings_file = copy / "settings.env"
        settings_file.write_text(settings_file.read_text().replace("IMAGE=\n", f"IMAGE={LOAD_IMAGE}\n"))
        return kubectl(["kustomize", str(copy)], {"HOME": folder})


@functools.cache
def load_test() -> tuple[Object, ...]:
    if not shutil.which("kubectl"):
        missing("kubectl is missing")
    return tuple(yaml.safe_load_all(render_load_test()))


def all_objects() -> list[Object]:
    """The objects of production, and of a load test. Those of staging are the same, which a test below demands."""
    overlays = [overlay for overlay in manifests.OVERLAYS if overlay != "staging"]
    return [manifest for objects in (*map(rendered, overlays), load_test()) for manifest in objects]


def find_all(kind: str) -> list[Object]:
    return [manifest for manifest in all_objects() if manifest["kind"] == kind]


def find(kind: str, name: str) -> Object:
    (manifest,) = [one for one in find_all(kind) if one["metadata"]["name"] == name]
    return manifest


def config(objects: tuple[Object, ...]) -> Object:
    """The only ConfigMap, which has the settings."""
    (manifest,) = [one for one in objects if one["kind"] == "ConfigMap"]
    return manifest


def service() -> Object:
    """The Deployment of the service."""
    return find("Deployment", rollout.DEPLOYMENT)


@dataclass(frozen=True)
class Pod:
    """A pod template.

    Attributes:
        owner: the kind and the name of the object that has it.
        namespace: of the pods.
        labels: of the pods.
        spec: of the pods.
    """

    owner: str
    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    spec: Object = field(default_factory=dict)

    @property
    def containers(self) -> list[Object]:
        """All containers, in the order in which they start."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods() -> list[Pod]:
    return [pod for manifest in all_objects() for pod in pods_of(manifest)]


def pods_of(manifest: Object) -> Iterator[Pod]:
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    if template:
        metadata = manifest["metadata"]
        labels = template["metadata"]["labels"]
        yield Pod(f"{manifest['kind']} {metadata['name']}", metadata["namespace"], labels, template["spec"])


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All scalar values with their paths."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, str(name)))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def environment(pod: Pod, container: Object) -> dict[str, str]:
    """The environment variables of a container, as the kubelet sets them."""
    data = {manifest["metadata"]["name"]: manifest["data"] for manifest in find_all("ConfigMap")}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        ((kind, reference),) = source.items()
        variables |= {"configMapRef": data, "secretRef": SECRETS}[kind][reference["name"]]
    fields = {
        "metadata.name": f"{pod.owner.split()[1]}-1",
        "metadata.namespace": pod.namespace,
        "spec.nodeName": "node-1",
        "status.hostIP": NODE,
    }
    listed: dict[str, str] = {}
    for one in container.get("env", []):
        value = one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        # References are expanded only to variables listed earlier, not to those of a ConfigMap; others stay unchanged.
        listed[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: listed.get(match[1], match[0]), value)
    return variables | listed


def service_settings() -> Settings:
    (pod,) = pods_of(service())
    return settings.read(environment(pod, pod.spec["containers"][0]))


# --- All objects


def test_every_object_is_valid_for_the_clusters_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """All fields are known. The check is strict, because the cluster would ignore an unknown field."""
    # The library reads its 2 MB of definitions again for each object.
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", functools.cache(schema_contents))
    for manifest in all_objects():
        kubernetes_validate.validate(manifest, OUTPUTS.kubernetes_version, strict=True)


def test_all_values_are_filled_in() -> None:
    """No value is empty, except the name of the core API group."""
    for manifest in all_objects():
        empty = [path for path, value in leaves(manifest) if value in ("", None) or str(value).endswith("=")]

        assert [path for path in empty if path[-1] != "apiGroups"] == []


def test_staging_has_fewer_pods_and_is_otherwise_production() -> None:
    """The same objects in the same order, so that what runs in staging runs in production."""
    production = rendered("production")
    staging = deepcopy(rendered("staging"))
    (scaler,) = [one for one in staging if one["kind"] == "HorizontalPodAutoscaler"]
    (reference,) = [one for one in production if one["kind"] == "HorizontalPodAutoscaler"]

    assert reference["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"] < reference["spec"]["maxReplicas"]
    scaler["spec"]["maxReplicas"] = reference["spec"]["maxReplicas"]
    assert staging == production


@pytest.mark.parametrize("overlay", sorted(file.parent.name for file in K8S.glob("overlays/*/deployment.env")))
def test_an_overlay_uses_each_value_that_it_lists(overlay: str) -> None:
    """Each listed value is in the objects. The ConfigMap that lists the values is not."""
    expected = {
        "IMAGE": IMAGE,
        "COMMAND": "inspect",
        "CLUSTER": OUTPUTS.name,
        "REGION": OUTPUTS.region,
        "AUTOSCALER_VERSION": f":v{OUTPUTS.autoscaler_version}",
        "CLUSTER_RANGE": OUTPUTS.cluster_range,
        "DATABASE_RANGE": OUTPUTS.database_range,
        "CERTIFICATE_ARN": OUTPUTS.certificate_arn,
        "BALANCER_LOGS": OUTPUTS.balancer_logs,
    }
    listed = re.findall(r"^(\w+)=", (K8S / "overlays" / overlay / "deployment.env").read_text(), re.MULTILINE)
    values = [str(value) for manifest in rendered(overlay) for _, value in leaves(manifest)]

    assert [name for name in listed if not any(expected[name] in value for value in values)] == []
    assert "deployment" not in [manifest["metadata"]["name"] for manifest in rendered(overlay)]


@pytest.mark.parametrize("file", sorted(K8S.rglob("*.*")), ids=lambda file: str(file.relative_to(K8S)))
def test_no_file_names_a_deployment(file: Path) -> None:
    """No file contains an account ID, ARN, host, address, cluster name or password."""
    text = file.read_text()

    assert (
        re.findall(r"\b\d{12}\b|arn:aws|amazonaws|olimac|\b(?:10|172|192)(?:\.\d+){3}|(?i:password)\W*[:=]", text) == []
    )
    assert "kind: Secret" not in text
    if file.name == "deployment.env":
        assert [line for line in text.splitlines() if not re.fullmatch(r"#.*|[A-Z_]+=", line)] == []


def test_an_image_without_a_digest_is_refused() -> None:
    """A tag could be moved to an image that was not tested."""
    with pytest.raises(CannotProceed, match="digest"):
        manifests.render("migration", OUTPUTS, "registry.example/clients-api:latest")


def test_objects_and_pods_are_labelled() -> None:
    """Each object has a part-of label, each pod has a name label, and no two workloads have the same labels."""
    assert [
        manifest for manifest in all_objects() if "app.kubernetes.io/part-of" not in manifest["metadata"]["labels"]
    ] == []
    assert [pod.owner for pod in pods() if "app.kubernetes.io/name" not in pod.labels] == []
    names = [(pod.namespace, tuple(sorted(pod.labels.items()))) for pod in pods()]
    assert len(set(names)) == len(names)


def test_each_exception_to_checkovs_policy_has_a_reason() -> None:
    """Each exception names the rule and gives a reason."""
    exceptions = [
        value
        for manifest in all_objects()
        for name, value in manifest["metadata"].get("annotations", {}).items()
        if name.startswith("checkov.io/skip")
    ]

    assert exceptions
    assert [one for one in exceptions if not re.fullmatch(r"CKV2?_K8S_\d+=\w.{19,}", one)] == []


def test_pods_are_created_last() -> None:
    """Objects are created in order: policies, permissions and settings exist before the pods that need them."""
    for objects in (*map(rendered, manifests.OVERLAYS), load_test()):
        has_pods = [bool(list(pods_of(manifest))) for manifest in objects]

        assert has_pods == sorted(has_pods)
        assert [at for at, manifest in enumerate(objects) if manifest["kind"] == "Namespace"] in ([], [0])


# --- Pods


def violations(pod: Pod) -> Iterator[str]:
    """Violations of the restricted standard: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    spec, own = pod.spec, pod.spec.get("securityContext", {})
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in spec.get("volumes", []):
        yield from (kind for kind in volume.keys() - {"name"} if kind not in allowed)
    for container in pod.containers:
        context = {**own, **container.get("securityContext", {})}
        rules = {
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser") != 0,
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "privileged": not context.get("privileged"),
            "capabilities": context.get("capabilities")
            in ({"drop": ["ALL"]}, {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "procMount": context.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        yield from (f"{container['name']}: {rule}" for rule, is_met in rules.items() if not is_met)


def test_pods_meet_the_restricted_standard() -> None:
    """All pods do, except in the namespace that is labelled as privileged."""
    label = "pod-security.kubernetes.io/enforce"
    exempt = {ns["metadata"]["name"] for ns in find_all("Namespace") if ns["metadata"]["labels"][label] == "privileged"}

    assert exempt == {"telemetry"}
    assert find("Namespace", "clients")["metadata"]["labels"][label] == "restricted"
    assert {
        pod.owner: manifest for pod in pods() if pod.namespace not in exempt and (manifest := list(violations(pod)))
    } == {}


def test_violations_of_the_restricted_standard_are_found() -> None:
    """A container without any security settings violates the rules that require explicit settings."""
    bare = Pod(
        "Deployment bare", "clients", {}, {"containers": [{"name": "a"}], "volumes": [{"name": "v", "hostPath": {}}]}
    )
    missing_settings = ("runAsNonRoot", "allowPrivilegeEscalation", "capabilities", "seccompProfile")

    assert list(violations(bare)) == ["hostPath", *(f"a: {rule}" for rule in missing_settings)]


def test_own_containers_run_as_the_images_user_on_a_read_only_root() -> None:
    """The user is the Dockerfile's, and the arguments are valid commands of the service."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = set(re.findall(r"^USER (\d+:\d+)$", dockerfile, re.MULTILINE))
    ours = [pod for pod in pods() if pod.labels["app.kubernetes.io/part-of"] == "clients"]
    serving = [pod for pod in ours if pod.labels["app.kubernetes.io/name"] == "clients-api"]

    assert {pod.owner for pod in serving} == {
        "Deployment clients-api",
        "Job migrate",
        "Job maintain",
        "CronJob prune",
    }
    assert {pod.owner for pod in ours if pod not in serving} == {"Job load-master", "Job load-workers"}
    for pod in ours:
        context = pod.spec["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
        for container in pod.containers:
            assert container["image"] == (IMAGE if pod in serving else LOAD_IMAGE)
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            if pod in serving:
                command_line._parser().parse_args(container["args"])  # exits if they are invalid


def test_containers_request_resources() -> None:
    """All have requests, which the scheduler and the autoscaler use, and a memory limit."""
    for pod in pods():
        for container in pod.containers:
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}
            assert "memory" in resources["limits"]


def test_each_service_account_has_an_aws_role() -> None:
    """Terraform binds a role to each service account, and each pod uses one of them."""
    bound = re.findall(r'= \{ namespace = "(.+?)", account = "(.+?)" \}', (ROOT / "terraform" / "pods.tf").read_text())
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in find_all("ServiceAccount")}

    assert accounts == set(bound)
    assert {(pod.namespace, pod.spec["serviceAccountName"]) for pod in pods()} <= accounts


def test_only_the_autoscaler_and_telemetry_have_an_api_token() -> None:
    """A token that is not mounted cannot be stolen. The pods of telemetry need one to query pods."""
    others = [pod for pod in pods() if pod.namespace != "telemetry"]

    assert {one["automountServiceAccountToken"] for one in find_all("ServiceAccount")} == {False}
    assert [pod.owner for pod in others if pod.spec["automountServiceAccountToken"]] == [
        "Deployment cluster-autoscaler"
    ]


# --- The service


def test_only_readiness_depends_on_the_database() -> None:
    """A restart does not fix an unavailable database. The readiness probe waits for the service's own time limit."""
    (container,) = service()["spec"]["template"]["spec"]["containers"]
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}

    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert container["readinessProbe"]["timeoutSeconds"] > health.READY_SECONDS


def test_all_ports_are_the_images_port() -> None:
    """The probes, the Service and the network policy use the port that the image listens on."""
    (listened,) = re.findall(r"PORT=(\d+)", (ROOT / "Dockerfile").read_text())
    (container,) = service()["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    (exposed,) = find("Service", load_balancer.SERVICE)["spec"]["ports"]
    (rule,) = find("NetworkPolicy", "from-the-balancer")["spec"]["ingress"]

    assert port["containerPort"] == int(listened)
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")} == {
        port["name"]
    }
    assert exposed == {"name": "https", "port": 443, "targetPort": port["name"]}
    assert rule["ports"] == [{"port": int(listened)}]


def test_the_grace_period_allows_a_complete_shutdown() -> None:
    """It covers the preStop sleep, the drain, its last callers, twice aiohttp's timeout, the pool's end, a margin."""
    spec = service()["spec"]["template"]["spec"]
    values = service_settings()
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    draining = values.server.drain_seconds + server._MAX_LAST_SECONDS
    needed = pause + draining + 2 * values.server.shutdown_seconds + pool._CLOSE_SECONDS

    assert needed + 10 <= spec["terminationGracePeriodSeconds"] <= needed + 20


def test_a_rollout_removes_a_pod_only_after_another_is_ready() -> None:
    """A rollout first adds a pod, and removes one when the new pod is ready."""
    spec = service()["spec"]

    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["minReadySeconds"] > 0
    # The cluster gives up first, with the reason.
    assert spec["progressDeadlineSeconds"] < canary.READY_SECONDS < rollout.ROLLOUT_SECONDS


def test_all_connections_fit_the_smallest_database() -> None:
    """The database has room for all pods of a rollout, for pods that are stopping, and for the Jobs."""
    spec, max_pods = service()["spec"], find("HorizontalPodAutoscaler", "clients-api")["spec"]["maxReplicas"]
    values = service_settings()
    stopping = math.ceil(spec["template"]["spec"]["terminationGracePeriodSeconds"] / spec["minReadySeconds"])
    serving = (
        (max_pods + spec["strategy"]["rollingUpdate"]["maxSurge"] + stopping)
        * values.server.workers
        * values.database.pool_size
    )

    assert serving + 2 + 1 <= (MAX_CONNECTIONS - RESERVED) * 0.8  # migrate opens two, prune one


def test_pods_are_spread_over_zones_and_nodes() -> None:
    """Each revision is spread separately."""
    spec = service()["spec"]
    spreads = spec["template"]["spec"]["topologySpreadConstraints"]

    assert [one["topologyKey"] for one in spreads] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for one in spreads:
        assert one["labelSelector"] == spec["selector"]
        assert one["matchLabelKeys"] == ["pod-template-hash"]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("selector", "matchLabels")),
        ("Service", ("selector",)),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
    ],
)
def test_selectors_match_only_the_services_pods(kind: str, path: tuple[str, ...]) -> None:
    """A Job's pod gets no requests, and does not count for the disruption budget."""
    selector = functools.reduce(lambda value, name: value[name], path, find(kind, "clients-api")["spec"])

    assert [pod.owner for pod in pods() if selector.items() <= pod.labels.items()] == [SERVICE_POD]


def test_only_the_pod_autoscaler_sets_the_number_of_pods() -> None:
    """A number in the Deployment would be restored by each apply."""
    scaler = find("HorizontalPodAutoscaler", "clients-api")["spec"]

    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "clients-api"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "replicas" not in service()["spec"]


def test_a_node_can_always_be_replaced() -> None:
    """One pod may be evicted at a time, and pods that are not ready do not block the replacement."""
    budget = find("PodDisruptionBudget", "clients-api")["spec"]

    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


# --- Settings


def test_all_settings_are_documented_and_valid() -> None:
    """Each setting is documented, and the service accepts its value."""
    documentation = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = {
        name
        for row in re.findall(r"^\| (`[A-Z].*?) \|", documentation, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    read = service_settings()

    assert config(rendered("production"))["data"].keys() - documented == set()
    assert (read.server.workers, read.log_format) == (1, "json")
    assert read.trusted_proxies == (ip_network(OUTPUTS.cluster_range),)
    assert read.telemetry.traces.protocol == "http/protobuf"


def test_telemetry_names_its_pod() -> None:
    """The pod, its node and its cluster are set, by the names that the service reads."""
    (pod,) = pods_of(service())
    attributes = environment(pod, pod.spec["containers"][0])["OTEL_RESOURCE_ATTRIBUTES"]

    assert dict(part.split("=") for part in attributes.split(",")) == {
        "k8s.pod.name": "clients-api-1",
        "k8s.node.name": "node-1",
        "k8s.cluster.name": OUTPUTS.name,
    }


def test_a_changed_setting_starts_new_pods() -> None:
    """The ConfigMap's name changes with its content, and so does the pod template that refers to it."""
    (pod,) = pods_of(service())
    name = config(rendered("production"))["metadata"]["name"]
    changed = replace(OUTPUTS, cluster_range="10.66.0.0/16")

    assert {"configMapRef": {"name": name}} in pod.spec["containers"][0]["envFrom"]
    assert config(rendered("production", changed))["metadata"]["name"] != name


def test_containers_verify_the_databases_certificate() -> None:
    """Each container has the database's address and user, and the CA certificates that the deployment writes."""
    users = {}
    for pod in pods():
        for container in pod.containers:
            if container["image"] != IMAGE:
                continue
            parameters = dsn.parse(settings.read(environment(pod, container)).database.dsn).parameters
            authority = Path(parameters["sslrootcert"])
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume["configMap"]["name"] for volume in pod.spec["volumes"]}
            assert parameters["sslmode"] == "verify-full"
            assert (volumes[mounts[str(authority.parent)]], authority.name) == (database.CA_CONFIG_MAP, "ca.pem")
            users[container["args"][0]] = parameters["user"]

    owned = dict.fromkeys(("migrate", "seed", "inspect"), "postgres")
    assert users == {**dict.fromkeys(("serve", "prune"), "clients_service"), **owned}


# --- Jobs


def test_the_job_migrates_and_then_seeds() -> None:
    """It seeds after the migration, and ends before the deployment stops waiting for it."""
    (pod,) = pods_of(find("Job", "migrate"))
    spec = find("Job", "migrate")["spec"]

    assert [one["args"] for one in pod.spec["initContainers"]] == [["migrate"]]
    assert [one["args"] for one in pod.spec["containers"]] == [["seed"]]
    assert spec["activeDeadlineSeconds"] < database._JOB_SECONDS
    assert (pod.namespace, pod.spec["restartPolicy"]) == (rollout.NAMESPACE, "Never")
    assert [manifest["kind"] for manifest in rendered("migration")] == ["Job"]


@pytest.mark.parametrize("command", ["inspect", "freeze", "thaw", "revoke"])
def test_the_other_job_runs_one_command_once(command: str) -> None:
    """It is the migration's Job with another command; a failure is reported at once."""
    (job,) = yaml.safe_load_all(manifests.render("maintenance", OUTPUTS, IMAGE, command))
    (pod,) = pods_of(job)

    assert job["metadata"]["name"] == "maintain"
    assert job["spec"]["backoffLimit"] == 0
    assert [(one["name"], one["args"]) for one in pod.containers] == [("maintain", [command])]


def test_one_job_at_a_time_prunes_keys_each_hour() -> None:
    """Each run ends before the next one starts, and is kept for inspection."""
    spec = find("CronJob", "prune")["spec"]

    assert re.fullmatch(r"\d+ \* \* \* \*", spec["schedule"])
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] + spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600
    assert spec["successfulJobsHistoryLimit"] >= 1
    assert spec["failedJobsHistoryLimit"] >= 1


# --- Load tests


def test_a_deployment_does_not_include_the_load_test() -> None:
    """No overlay contains it. Both Jobs have the same number of workers."""
    spec = find("Job", "load-workers")["spec"]

    assert "load" not in manifests.OVERLAYS
    assert not any("clients-api-load" in str(rendered(overlay)) for overlay in manifests.OVERLAYS)
    assert spec["parallelism"] == spec["completions"] == int(config(load_test())["data"]["WORKERS"]) > 1
    assert {find("Job", name)["spec"]["backoffLimit"] for name in ("load-master", "load-workers")} == {0}


def test_load_workers_reach_only_dns_the_service_and_the_master() -> None:
    """Workers reach these at their ports. Only workers reach the master."""
    known, (port,) = peers(), find("Service", "load-master")["spec"]["ports"]
    worker, master, serving = (known[name] for name in ("Job load-workers", "Job load-master", SERVICE_POD))
    (container,) = [one for pod in pods() if pod.owner == "Job load-master" for one in pod.containers]

    assert container["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]
    assert is_allowed(worker, DNS, 53, "UDP")
    assert is_allowed(worker, serving, 8080)
    assert [name for name, peer in known.items() if is_allowed(peer, master, port["port"])] == ["Job load-workers"]
    assert [peer for peer in (DATABASE, INTERNET, COLLECTOR, Peer(NODE)) if is_allowed(worker, peer, 443)] == []
    assert [peer for peer in (*known.values(), DNS, INTERNET) if is_allowed(master, peer, 53, "UDP")] == []


def test_the_load_test_sends_to_the_service() -> None:
    """HOST is the Service's name and port, in the same namespace."""
    manifest = config(load_test())
    exposed = find("Service", load_balancer.SERVICE)

    assert manifest["metadata"]["namespace"] == exposed["metadata"]["namespace"]
    assert manifest["data"]["HOST"] == f"http://{load_balancer.SERVICE}:{exposed['spec']['ports'][0]['port']}"


def command(container: Object, variables: dict[str, str]) -> list[str]:
    """The command line that a node runs: the image's entry point, unless overridden, with variables expanded."""
    (entry, _) = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    arguments = [*container.get("command", json.loads(entry)), *container["args"]]
    return [re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], argument) for argument in arguments]


def unpack(log: str, folder: Path) -> Path:
    """Unpacks the results in a log with the documented command, and returns their folder."""
    documentation = (ROOT / "docs" / "load-testing.md").read_text(encoding="utf-8")
    (pipeline,) = re.findall(r"^\$ .*logs job/load-master \| (.*)$", documentation, re.MULTILINE)
    folder.mkdir()
    subprocess.run(["/bin/sh", "-c", pipeline], cwd=folder, input=log, text=True, check=True)
    return folder / ".local" / "load"


async def test_the_jobs_of_a_load_test_load_the_service(
    serve: Callable[..., Service], tmp_path: Path, unused_tcp_port: int
) -> None:
    """The Jobs' commands, on loopback and shorter, end with a verdict. The documented command unpacks the results."""
    service = serve(API_KEY_HASHES=digest("a-key").hex(), LOG_FORMAT="json", DRAIN_SECONDS="0")
    local = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": os.environ["HOME"],
        "PYTHONPATH": str(ROOT),
        "LOCUST_MASTER_BIND_HOST": "127.0.0.1",
        "LOCUST_MASTER_BIND_PORT": str(unused_tcp_port),
        "LOCUST_MASTER_NODE_PORT": str(unused_tcp_port),
        # A name, which the load test refuses unless the master confirms to the workers that its user owns the host.
        "HOST": service.url.replace("127.0.0.1", "localhost"),
        "RATE": "50",
        "DURATION": "2",
    }
    processes = {}
    for pod in pods():
        if pod.labels["app.kubernetes.io/name"] != "clients-api-load":
            continue
        (container,) = pod.containers
        variables = environment(pod, container) | local
        arguments = [one.replace("load-master", "127.0.0.1") for one in command(container, variables)]
        for number in range(find(*pod.owner.split())["spec"].get("parallelism", 1)):
            processes[pod.owner, number] = await asyncio.create_subprocess_exec(
                *arguments,
                cwd=tmp_path,
                env=variables,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
    try:
        outputs = await asyncio.wait_for(asyncio.gather(*(one.communicate() for one in processes.values())), 180)
    finally:
        for one in processes.values():
            if one.returncode is None:
                os.killpg(one.pid, signal.SIGKILL)
    logs = {name: output.decode() for name, (output, _) in zip(processes, outputs, strict=True)}
    (log,) = [text for (owner, _), text in logs.items() if owner == "Job load-master"]
    assert await asyncio.to_thread(service.stop, signal.SIGTERM, 60) == 0

    statuses = {name: one.returncode for name, one in processes.items()}
    assert statuses.pop(("Job load-master", 0)) in (0, 1, 3), logs  # not 0 on a busy machine
    assert set(statuses.values()) == {0}, logs

    (written,) = (tmp_path / ".local" / "load").iterdir()
    unpacked = unpack(log, tmp_path / "unpacked") / written.name
    files = {file.name: file.read_bytes() for file in unpacked.iterdir()}
    assert files == {file.name: file.read_bytes() for file in written.iterdir()}
    assert files.keys() == {"results.json", "report.html"}

    run = measurements.load(unpacked)
    received = lines.requests(service.output)
    assert (run.run["sources"], run.run["unfinished"]) == (len(statuses), 0)
    assert 0 < sum(second.requests - second.failed for second in run.seconds) <= len(received)
    assert {line["status"] for line in received}.isdisjoint((401, 403))


# --- The load balancer


def test_the_load_balancer_accepts_its_annotations() -> None:
    """The API server accepts any value of an annotation, and the cloud controller passes most of them on."""
    for manifest in find_all("Service"):
        assert list(annotations.problems(manifest)) == []


def test_the_load_balancer_terminates_tls_with_the_certificate() -> None:
    """It is a Classic Load Balancer, which requires at least TLS 1.2 on its only port, and uses HTTP to the pods."""
    manifest = find("Service", load_balancer.SERVICE)
    given = annotations.given(manifest)

    assert manifest["metadata"]["namespace"] == load_balancer.NAMESPACE
    assert manifest["spec"]["type"] == "LoadBalancer"
    assert "type" not in given
    assert given["ssl-cert"] == OUTPUTS.certificate_arn
    assert given["ssl-ports"] == manifest["spec"]["ports"][0]["name"]
    assert given["ssl-negotiation-policy"] == "ELBSecurityPolicy-TLS-1-2-2017-01"
    assert given["backend-protocol"] == "http"
    assert given["cross-zone-load-balancing-enabled"] == given["connection-draining-enabled"] == "true"
    assert given["additional-resource-tags"] == f"Project={OUTPUTS.name}"
    assert (given["access-log-enabled"], given["access-log-s3-bucket-name"]) == ("true", OUTPUTS.balancer_logs)


def test_the_load_balancer_closes_idle_connections_before_the_service_does() -> None:
    """If the service closed first, a request that is just being sent would be lost."""
    given = annotations.given(find("Service", load_balancer.SERVICE))

    assert float(given["connection-idle-timeout"]) < connections.KEEPALIVE_SECONDS


# --- The cluster's autoscaler


@pytest.mark.parametrize("version", [OUTPUTS.autoscaler_version, "1.37.10"])
def test_the_autoscaler_has_the_release_that_terraform_names(version: str) -> None:
    """The image's tag is the release for the cluster's version."""
    (image,) = [
        container["image"]
        for manifest in rendered("production", replace(OUTPUTS, autoscaler_version=version))
        for pod in pods_of(manifest)
        for container in pod.containers
        if container["name"] == "cluster-autoscaler"
    ]

    assert image == f"registry.k8s.io/autoscaling/cluster-autoscaler:v{version}"


def test_the_autoscaler_finds_the_nodes_of_its_own_cluster() -> None:
    """It finds the node group by the tags that EKS sets, in the cluster's region."""
    (pod,) = pods_of(find("Deployment", "cluster-autoscaler"))
    (container,) = pod.containers
    variables = environment(pod, container)
    tags = f"k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/{OUTPUTS.name}"

    assert f"--node-group-auto-discovery=asg:tag={tags}" in container["args"]
    assert "--cloud-provider=aws" in container["args"]
    assert variables["AWS_REGION"] == OUTPUTS.region


def test_permissions_are_minimal() -> None:
    """No rule has a wildcard, reads Secrets or grants permissions. Each binding has one subject that needs it."""
    rules = [rule for kind in ("Role", "ClusterRole") for manifest in find_all(kind) for rule in manifest["rules"]]
    bindings = [*find_all("RoleBinding"), *find_all("ClusterRoleBinding")]
    subjects = [one for manifest in bindings for one in manifest["subjects"]]

    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        # Access to a node's proxy includes running commands in its pods.
        assert not {"secrets", "nodes/proxy", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])
        assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
        if {"update", "delete"} & set(rule["verbs"]) and rule["resources"] != ["nodes"]:
            assert rule["resourceNames"]
    assert {(one["kind"], one["namespace"], one["name"]) for one in subjects} == {
        ("ServiceAccount", pod.namespace, pod.spec["serviceAccountName"])
        for pod in pods()
        if pod.spec["automountServiceAccountToken"]
    }


def test_each_binding_grants_a_role_that_exists() -> None:
    """The API server accepts a binding to any name."""
    roles = {
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for kind in ("Role", "ClusterRole")
        for one in find_all(kind)
    }
    granted = {
        (one["roleRef"]["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"])
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for one in find_all(kind)
    }

    assert granted == roles


# --- The collector

COLLECTORS = {"collector": "Deployment", "container-insights": "DaemonSet"}
each_collector = pytest.mark.parametrize("name", COLLECTORS)


def collector(name: str) -> tuple[Pod, Object, adot.Config]:
    """The collector's pod, its container and its configuration."""
    (pod,) = pods_of(find(COLLECTORS[name], name))
    (container,) = pod.containers
    return pod, container, adot.read(adot.FOLDER / f"{name}.yaml")


@each_collector
def test_a_collector_restarts_when_its_configuration_changes(name: str) -> None:
    """The ConfigMap with the file has a name that depends on its content."""
    pod, container, _ = collector(name)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (volume,) = [one for one in pod.spec["volumes"] if "configMap" in one]
    manifest = find("ConfigMap", volume["configMap"]["name"])

    assert manifest["data"] == {f"{name}.yaml": (adot.FOLDER / f"{name}.yaml").read_text()}
    assert container["args"] == [f"--config={mounts[volume['name']]}/{name}.yaml"]
    assert re.fullmatch(rf"{name}-[a-z0-9]{{10}}", volume["configMap"]["name"])


@each_collector
def test_a_collectors_variables_are_set(name: str) -> None:
    """A variable that is not set would be replaced by an empty string."""
    pod, container, _ = collector(name)
    variables = environment(pod, container)
    used = re.findall(r"\$\{env:(\w+)\}", (adot.FOLDER / f"{name}.yaml").read_text())

    assert [one for one in used if not variables.get(one)] == []
    assert (variables["CLUSTER"], variables["REGION"]) == (OUTPUTS.name, OUTPUTS.region)


@each_collector
def test_a_collector_refuses_data_before_its_memory_runs_out(name: str) -> None:
    """The garbage collector aims at 80 % of the limit, and data is refused below that.

    The limits are in MiB: with the node's control groups mounted, a percentage would be of the node's memory.
    """
    pod, container, config = collector(name)
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    heap = int(environment(pod, container)["GOMEMLIMIT"].removesuffix("MiB"))
    limiter = config["processors"]["memory_limiter"]

    assert heap == 0.8 * limit
    assert limiter["spike_limit_mib"] < limiter["limit_mib"] < heap


def test_the_collector_listens_on_the_ports_that_others_use() -> None:
    """Senders, the Service and the probes use its ports. On the node's network, it listens only on loopback."""
    pod, container, config = collector("collector")
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    exposed = find("Service", "collector")["spec"]
    protocols = config["receivers"]["otlp"]["protocols"]
    listens = {f"otlp-{name}": int(one["endpoint"].rpartition(":")[2]) for name, one in protocols.items()}
    _, node_container, node_config = collector("container-insights")

    assert ports == {**listens, "health": health_port(config)}
    assert {one["name"]: one["port"] for one in exposed["ports"]} == listens
    assert exposed["selector"].items() <= pod.labels.items()
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("liveness", "readiness")} == {"health"}
    assert node_config["extensions"]["health_check"]["endpoint"].startswith("127.0.0.1:")
    assert {
        (node_container[f"{kind}Probe"]["httpGet"]["host"], node_container[f"{kind}Probe"]["httpGet"]["port"])
        for kind in ("liveness", "readiness")
    } == {("127.0.0.1", health_port(node_config))}
    assert "otlp" not in node_config["receivers"]


def health_port(config: adot.Config) -> int:
    return int(config["extensions"]["health_check"]["endpoint"].rpartition(":")[2])


def test_a_sender_always_reaches_the_same_collector() -> None:
    """A collector that received only some of a sender's totals would compute wrong counts."""
    assert find("Deployment", "collector")["spec"]["replicas"] == 2
    assert find("Service", "collector")["spec"]["sessionAffinity"] == "ClientIP"
    assert find("PodDisruptionBudget", "collector")["spec"]["maxUnavailable"] == 1


def test_the_collector_gets_the_attributes_that_all_traces_share() -> None:
    """They are set by a variable, because a pod cannot reach its node's metadata."""
    pod, container, config = collector("collector")
    attributes = environment(pod, container)["OTEL_RESOURCE_ATTRIBUTES"]

    assert config["processors"]["resource_detection"]["detectors"] == ["env"]
    assert dict(part.split("=") for part in attributes.split(",")) == {
        "cloud.provider": "aws",
        "cloud.platform": "aws_eks",
        "cloud.region": OUTPUTS.region,
        "k8s.cluster.name": OUTPUTS.name,
    }


def test_container_insights_cannot_change_the_node() -> None:
    """It is root without capabilities, and mounts only what the receiver reads, read-only."""
    pod, container, _ = collector("container-insights")
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    paths = {one["name"]: one["hostPath"]["path"] for one in pod.spec["volumes"] if "hostPath" in one}

    assert sorted(violations(pod)) == [
        "container-insights: runAsNonRoot",
        "container-insights: runAsUser",
        "hostNetwork",
        "hostPath",
        "hostPath",
        "hostPath",
    ]
    assert paths == {"proc": "/proc", "sys": "/sys", "containerd": "/run/containerd/containerd.sock"}
    assert all(mount["readOnly"] for mount in mounts.values())
    assert {mounts[name].get("recursiveReadOnly") for name in ("proc", "sys")} == {"IfPossible"}
    assert {"HOST_IP", "HOST_NAME", "K8S_NAMESPACE", "AWS_REGION"} <= environment(pod, container).keys()


def test_collectors_have_only_read_permissions() -> None:
    """One reads pods, the other also nodes and endpoints. That one also holds the leader's lease."""
    rules = {
        (manifest["kind"], manifest["metadata"]["name"]): sorted(
            (resource, verb) for rule in manifest["rules"] for resource in rule["resources"] for verb in rule["verbs"]
        )
        for kind in ("ClusterRole", "Role")
        for manifest in find_all(kind)
    }
    readable = ("endpointslices", "nodes", "pods", "replicasets")

    assert rules["ClusterRole", "collector"] == [("pods", "list"), ("pods", "watch")]
    assert rules["ClusterRole", "container-insights"] == sorted(
        [("nodes/pods", "get"), *((resource, verb) for resource in readable for verb in ("list", "watch"))]
    )
    assert {resource for resource, _ in rules["Role", "container-insights"]} == {"events", "leases"}


# --- Fluent Bit


def shipper() -> tuple[Pod, Object, str]:
    """Fluent Bit's pod, its container and its configuration."""
    (pod,) = pods_of(find("DaemonSet", "fluent-bit"))
    (container,) = pod.containers
    return pod, container, fluentbit.FILE.read_text()


def test_fluent_bit_restarts_when_its_configuration_changes() -> None:
    """The ConfigMap with the file has a name that depends on its content."""
    pod, container, text = shipper()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (volume,) = [one for one in pod.spec["volumes"] if "configMap" in one]
    name = volume["configMap"]["name"]

    assert find("ConfigMap", name)["data"] == {"fluent-bit.yaml": text}
    assert container["args"] == [f"--config={mounts[volume['name']]}/fluent-bit.yaml"]
    assert re.fullmatch(r"fluent-bit-[a-z0-9]{10}", name)


def test_fluent_bits_variables_are_set() -> None:
    """A variable that is not set would be replaced by an empty string."""
    pod, container, text = shipper()
    variables = environment(pod, container)

    assert set(re.findall(r"\$\{(\w+)\}", text)) == variables.keys() == fluentbit.ENVIRONMENT.keys()
    assert (variables["CLUSTER"], variables["REGION"]) == (OUTPUTS.name, OUTPUTS.region)
    assert variables["NODE"] == "node-1"


def test_fluent_bit_runs_on_each_node_and_restarts_on_one_at_a_time() -> None:
    """It tolerates all taints, and the pod's grace period is longer than its own."""
    pod, _, _ = shipper()
    update = find("DaemonSet", "fluent-bit")["spec"]["updateStrategy"]

    assert pod.spec["tolerations"] == [{"operator": "Exists"}]
    assert not {"nodeSelector", "affinity"} & pod.spec.keys()
    assert update["rollingUpdate"] == {"maxUnavailable": 1}
    assert fluentbit.read()["service"]["grace"] + 10 <= pod.spec["terminationGracePeriodSeconds"]


def test_only_fluent_bits_readiness_depends_on_cloudwatch() -> None:
    """A restart does not fix CloudWatch. The startup probe allows for six slow DNS lookups."""
    _, container, _ = shipper()
    (port,) = container["ports"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    startup = container["startupProbe"]

    assert {kind: one["path"] for kind, one in probes.items()} == {
        "startup": "/api/v1/uptime",
        "liveness": "/api/v1/uptime",
        "readiness": "/api/v1/health",
    }
    assert {one["port"] for one in probes.values()} == {port["name"]}
    assert port["containerPort"] == fluentbit.read()["service"]["http_port"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 6 * 30


def test_fluent_bit_can_change_only_its_own_state_on_the_node() -> None:
    """It is root without capabilities. Its state is on the node, and all the logs that it reads are mounted."""
    pod, container, _ = shipper()
    paths = {one["name"]: one["hostPath"]["path"] for one in pod.spec["volumes"] if "hostPath" in one}
    written = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    read = [mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")]
    config = fluentbit.read()
    inputs = config["pipeline"]["inputs"]
    kept = [config["service"]["storage.path"], *(one["db"] for one in inputs if "db" in one)]

    assert sorted(violations(pod)) == ["fluent-bit: runAsNonRoot", "fluent-bit: runAsUser", *["hostPath"] * 4]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [paths[mount["name"]] for mount in written] == [mount["mountPath"] for mount in written]
    assert {str(Path(one).parent) for one in kept} == {mount["mountPath"] for mount in written}
    assert all(mount["mountPath"] == paths.get(mount["name"], "/etc/fluent-bit") for mount in container["volumeMounts"])
    assert {"/var/log", "/run/log", "/etc/machine-id"} < set(read)
    assert {one["path"].partition("/containers/")[0] for one in inputs if "path" in one} == {"/var/log"}


def test_fluent_bit_asks_neither_the_kubelet_nor_the_clusters_api() -> None:
    """What it adds to a line is in the name of the line's file. So it has no token and no rights in the cluster."""
    pod, _, _ = shipper()
    (kubernetes,) = fluentbit.of_kind(fluentbit.read(), "filters", "kubernetes")

    assert kubernetes["use_tag_for_meta"] is True
    assert pod.spec["automountServiceAccountToken"] is False
    assert [one for one in all_objects() if one["kind"].startswith("ClusterRole") and "fluent-bit" in str(one)] == []


# --- The network


@dataclass(frozen=True)
class Peer:
    """A peer of a connection.

    Attributes:
        address: its IP address.
        namespace: its namespace; empty if it is not a pod.
        labels: its labels; empty if it is not a pod.
    """

    address: str
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def is_allowed(source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the network policies allow a connection: https://kubernetes.io/docs/concepts/services-networking/."""
    return _allows(source, target, "Egress", port, protocol) and _allows(target, source, "Ingress", port, protocol)


def _allows(peer: Peer, other: Peer, direction: str, port: int, protocol: str) -> bool:
    """Whether the policies that select a peer allow connections to, or from, the other one."""
    selecting = [
        policy["spec"]
        for policy in find_all("NetworkPolicy")
        if policy["metadata"]["namespace"] == peer.namespace
        and direction in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], peer.labels)
    ]
    side = {"Egress": "to", "Ingress": "from"}[direction]
    rules = [rule for spec in selecting for rule in spec.get(direction.lower(), [])]
    return not selecting or any(
        (side not in rule or any(_matches(one, other, peer.namespace) for one in rule[side]))
        and (
            "ports" not in rule
            or (port, protocol) in [(one["port"], one.get("protocol", "TCP")) for one in rule["ports"]]
        )
        for rule in rules
    )


def _matches(rule: Object, peer: Peer, namespace: str) -> bool:
    if block := rule.get("ipBlock"):
        excepted = [ip_network(one) for one in block.get("except", [])]
        address = ip_address(peer.address)
        return address in ip_network(block["cidr"]) and not any(address in one for one in excepted)
    if "namespaceSelector" in rule:
        labels = {"kubernetes.io/metadata.name": peer.namespace}
        has_namespace = bool(peer.namespace) and _selects(rule["namespaceSelector"], labels)
    else:
        has_namespace = peer.namespace == namespace
    return has_namespace and _selects(rule.get("podSelector", {}), peer.labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    def is_met(requirement: Object) -> bool:
        value = labels.get(requirement["key"])
        match requirement["operator"]:
            case "In":
                return value in requirement["values"]
            case "NotIn":
                return value not in requirement["values"]
            case "Exists":
                return value is not None
            case _:
                return value is None

    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        is_met(one) for one in selector.get("matchExpressions", [])
    )


DATABASE = Peer("10.65.1.1")
INTERNET = Peer("203.0.113.1")
DNS = Peer("10.64.2.1", "kube-system", {"k8s-app": "kube-dns"})
COLLECTOR = Peer("10.64.3.1", "telemetry", {"app.kubernetes.io/name": "collector"})


def peers() -> dict[str, Peer]:
    """The pods of the manifests, and some others that could run in the cluster."""
    return {pod.owner: Peer("10.64.4.1", pod.namespace, pod.labels) for pod in pods()} | {
        "another pod": Peer("10.64.5.1", "clients"),
        "another pod with the service's name": Peer("10.64.5.2", "clients", {"app.kubernetes.io/name": "clients-api"}),
        "another pod with the service's component": Peer(
            "10.64.5.3", "clients", {"app.kubernetes.io/component": "service"}
        ),
        "the collector": COLLECTOR,
    }


SERVICE_POD = "Deployment clients-api"
SERVICE_PODS = ["Job migrate", "Job maintain", SERVICE_POD, "CronJob prune"]


def test_only_the_service_and_its_jobs_reach_the_database() -> None:
    """They reach it only at PostgreSQL's port."""
    assert sorted(name for name, peer in peers().items() if is_allowed(peer, DATABASE, 5432)) == sorted(SERVICE_PODS)
    assert [
        name for name, peer in peers().items() if peer.namespace == "clients" and is_allowed(peer, DATABASE, 22)
    ] == []


def test_the_services_pods_reach_dns_and_nothing_of_aws_or_the_cluster() -> None:
    """They do not reach AWS, the node's metadata, the kubelet or the cluster's API."""
    elsewhere = [
        (INTERNET, 443),
        (Peer("169.254.169.254"), 80),
        (Peer("169.254.170.23"), 80),
        (Peer(NODE), 443),
        (Peer(NODE), 10250),
    ]
    for name in SERVICE_PODS:
        assert is_allowed(peers()[name], DNS, 53, "UDP")
        assert is_allowed(peers()[name], DNS, 53, "TCP")
        assert [(peer, port) for peer, port in elsewhere if is_allowed(peers()[name], peer, port)] == []


def test_the_load_balancer_and_the_kubelet_reach_the_service_at_its_port() -> None:
    """Addresses outside the cluster's network reach it only through the load balancer. No address reaches a Job."""
    known = peers()
    assert is_allowed(Peer(NODE), known[SERVICE_POD], 8080)
    assert not is_allowed(INTERNET, known[SERVICE_POD], 8080)
    assert not is_allowed(DATABASE, known[SERVICE_POD], 8080)
    assert [port for port in (80, 443, 5432, 8081) if is_allowed(Peer(NODE), known[SERVICE_POD], port)] == []
    assert [name for name in SERVICE_PODS if is_allowed(Peer(NODE), known[name], 8080)] == [SERVICE_POD]


def test_only_the_service_sends_traces_to_the_collector() -> None:
    """The policies of both sides allow it, at the port that the setting names."""
    (pod,) = pods_of(service())
    endpoint = environment(pod, pod.spec["containers"][0])["OTEL_EXPORTER_OTLP_ENDPOINT"]
    port = int(endpoint.rpartition(":")[2])
    inside = {name: peer for name, peer in peers().items() if peer.namespace == "clients"}

    assert f"//{COLLECTOR.labels['app.kubernetes.io/name']}.{COLLECTOR.namespace}.svc" in endpoint
    for one in (port, 4317):
        assert [name for name, peer in inside.items() if is_allowed(peer, COLLECTOR, one)] == [SERVICE_POD]
    assert not is_allowed(inside[SERVICE_POD], COLLECTOR, 13133)
    assert is_allowed(Peer(NODE), COLLECTOR, 13133)


def test_telemetry_pods_reach_aws_and_no_kubelet() -> None:
    """They reach AWS's APIs, the Pod Identity agent and DNS. What asks the kubelet is on its node's own network."""
    for name in ("the collector", "DaemonSet fluent-bit"):
        peer = peers()[name]
        assert is_allowed(peer, INTERNET, 443)
        assert is_allowed(peer, Peer("169.254.170.23"), 80)
        assert not is_allowed(peer, Peer(NODE), 10250)
        assert is_allowed(peer, DNS, 53, "UDP")
        assert not is_allowed(peer, INTERNET, 80)
        assert not is_allowed(Peer(NODE), peer, 4318)


def test_only_fluent_bit_sends_metrics_to_the_collector() -> None:
    """The policies of both sides allow it, at the configured address. Its kubelet reaches its health check."""
    (output,) = fluentbit.of_kind(fluentbit.read(), "outputs", "opentelemetry")
    telemetry_pods = {name: peer for name, peer in peers().items() if peer.namespace == COLLECTOR.namespace}
    itself = telemetry_pods["DaemonSet fluent-bit"]

    assert output["host"].startswith(f"{COLLECTOR.labels['app.kubernetes.io/name']}.{COLLECTOR.namespace}.svc")
    assert [name for name, peer in telemetry_pods.items() if is_allowed(peer, COLLECTOR, output["port"])] == [
        "DaemonSet fluent-bit"
    ]
    assert not is_allowed(itself, COLLECTOR, 4317)
    assert is_allowed(Peer(NODE), itself, 2020)
    assert not is_allowed(INTERNET, itself, 2020)
    assert not is_allowed(COLLECTOR, itself, 2020)


def test_the_autoscaler_reaches_aws_and_the_clusters_api() -> None:
    """Its kubelet reaches its health check."""
    peer = peers()["Deployment cluster-autoscaler"]
    assert is_allowed(peer, INTERNET, 443)
    assert is_allowed(peer, Peer("169.254.170.23"), 80)
    assert is_allowed(peer, DNS, 53, "UDP")
    assert is_allowed(Peer(NODE), peer, 8085)
    assert not is_allowed(INTERNET, peer, 8085)


def test_pods_without_a_policy_are_not_restricted() -> None:
    """The evaluator allows their connections, so the tests above do not pass merely because it denies everything."""
    assert is_allowed(Peer("10.64.6.1", "elsewhere"), INTERNET, 80)
    assert is_allowed(INTERNET, Peer("10.64.6.1", "elsewhere"), 80)
