"""The cluster's objects as a deployment renders them, held against the rules that no schema knows."""

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
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeAlias

import kubernetes_validate
import pytest
import yaml

from ops.common.process import ROOT, Service
from ops.deploy import balancer, database, manifests
from ops.deploy.common import CannotProceed, Outputs
from ops.deploy.kubernetes import kubectl
from svc import __main__ as command_line
from svc import settings
from svc.http import connections
from svc.http.access import digest
from svc.postgres import database as pool
from svc.postgres import dsn
from svc.settings import Settings
from svc.site import health
from tests.missing import missing
from tests.ops.adot import model as adot
from tests.ops.fluent_bit import model as fluentbit

Object: TypeAlias = dict[str, Any]

K8S = ROOT / "k8s"
VARIABLES = (ROOT / "terraform" / "variables.tf").read_text()

# Nobody's, so that what is found in the rendered objects was filled in.
OUTPUTS = Outputs(
    name="made-up",
    region="eu-north-1",
    kubernetes_version=re.findall(r'variable "kubernetes_version" \{.*?default *= "(.*?)"', VARIABLES, re.DOTALL)[0],
    cluster_range="10.64.0.0/16",
    database_range="10.65.0.0/16",
    database_identifier="made-up",
    hostname="api.example",
    zone_id="Z0",
    certificate_arn="arn:aws:acm:eu-north-1:123456789012:certificate/made-up",
)
IMAGE = "registry.example/clients-api@sha256:" + "0123456789abcdef" * 4
LOAD_IMAGE = "registry.example/clients-api-load@sha256:" + "0123456789abcdef" * 4

# What a deployment's Secrets hold, and that of who loads it.
PLACE = {"DB_HOST": "db.example", "DB_PORT": "5432", "DB_NAME": "clients", "DB_PASSWORD": "made-up"}
SECRETS = {
    database.SERVICE_SECRET: {**PLACE, "DB_USERNAME": "clients_service"},
    database.OWNER_SECRET: {**PLACE, "DB_USERNAME": "postgres", "DB_SERVICE_PASSWORD": "made-up"},
    "load-key": {"API_KEY": "a-key"},
}

NODE = "10.64.1.1"  # a balancer's address is in the same network

# Of a db.t4g.micro: LEAST({DBInstanceClassMemory/9531392}, 5000) of what its system leaves of 1 GiB.
CONNECTIONS = 80
RESERVED = 5  # of these, for RDS and for the owner


@functools.cache
def rendered(overlay: str, outputs: Outputs = OUTPUTS) -> tuple[Object, ...]:
    if not shutil.which("kubectl"):
        missing("kubectl is missing")
    return tuple(yaml.safe_load_all(manifests.render(overlay, outputs, IMAGE)))


def load_test() -> str:
    """k8s/load as YAML, once its image is named."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(K8S / "load", Path(folder, "load")))
        settings_file = copy / "settings.env"
        settings_file.write_text(settings_file.read_text().replace("IMAGE=\n", f"IMAGE={LOAD_IMAGE}\n"))
        return kubectl(["kustomize", str(copy)], {"HOME": folder})


@functools.cache
def loading() -> tuple[Object, ...]:
    if not shutil.which("kubectl"):
        missing("kubectl is missing")
    return tuple(yaml.safe_load_all(load_test()))


def everything() -> list[Object]:
    return [found for objects in (*map(rendered, manifests.OVERLAYS), loading()) for found in objects]


def all_of(kind: str) -> list[Object]:
    return [found for found in everything() if found["kind"] == kind]


def the(kind: str, name: str) -> Object:
    (found,) = [one for one in all_of(kind) if one["metadata"]["name"] == name]
    return found


def config(overlay: tuple[Object, ...]) -> Object:
    """The service's settings."""
    (found,) = [one for one in overlay if one["kind"] == "ConfigMap"]
    return found


def service() -> Object:
    """The Deployment that serves."""
    return the("Deployment", database.DEPLOYMENT)


@dataclass(frozen=True)
class Pod:
    """What an object makes pods from.

    Attributes:
        owner: kind and name of the object.
        namespace: that the pods are in.
        labels: of the pods.
        spec: likewise.
    """

    owner: str
    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    spec: Object = field(default_factory=dict)

    @property
    def containers(self) -> list[Object]:
        """All of them, in the order in which they run."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods() -> list[Pod]:
    return [pod for found in everything() for pod in pods_of(found)]


def pods_of(found: Object) -> Iterator[Pod]:
    spec = found.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    if template:
        metadata = found["metadata"]
        labels = template["metadata"]["labels"]
        yield Pod(f"{found['kind']} {metadata['name']}", metadata["namespace"], labels, template["spec"])


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All that is no mapping and no list, and where it is."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, str(name)))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def environment(pod: Pod, container: Object) -> dict[str, str]:
    """What the container's process finds, as a kubelet puts it together."""
    data = {found["metadata"]["name"]: found["data"] for found in all_of("ConfigMap")}
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
        # Of what is listed before it, and not of what comes from a ConfigMap: what is unknown stays as it is.
        listed[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: listed.get(found[1], found[0]), value)
    return variables | listed


def service_settings() -> Settings:
    (pod,) = pods_of(service())
    return settings.read(environment(pod, pod.spec["containers"][0]))


# --- All objects


def test_every_object_is_valid_for_the_clusters_version() -> None:
    """Nothing is misspelt or out of place; strictly, since the cluster would pass over what it does not know."""
    for found in everything():
        kubernetes_validate.validate(found, OUTPUTS.kubernetes_version, strict=True)


def test_nothing_is_left_to_fill_in() -> None:
    """No value is empty, but for the group of API that has no name."""
    for found in everything():
        empty = [path for path, value in leaves(found) if value in ("", None) or str(value).endswith("=")]

        assert [path for path in empty if path[-1] != "apiGroups"] == []


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_an_overlay_wants_just_the_values_that_it_uses(overlay: str) -> None:
    """Each value that it lists is in its objects, and the values' own ConfigMap is not."""
    known = {
        "IMAGE": IMAGE,
        "CLUSTER": OUTPUTS.name,
        "REGION": OUTPUTS.region,
        "KUBERNETES_VERSION": f":v{OUTPUTS.kubernetes_version}.",
        "CLUSTER_RANGE": OUTPUTS.cluster_range,
        "DATABASE_RANGE": OUTPUTS.database_range,
        "CERTIFICATE_ARN": OUTPUTS.certificate_arn,
    }
    wanted = re.findall(r"^(\w+)=", (K8S / "overlays" / overlay / "deployment.env").read_text(), re.MULTILINE)
    values = [str(value) for found in rendered(overlay) for _, value in leaves(found)]

    assert [name for name in wanted if not any(known[name] in value for value in values)] == []
    assert "deployment" not in [found["metadata"]["name"] for found in rendered(overlay)]


@pytest.mark.parametrize("file", sorted(K8S.rglob("*.*")), ids=lambda file: str(file.relative_to(K8S)))
def test_no_file_knows_whose_cluster_it_is(file: Path) -> None:
    """Account ids, ARNs, hosts, addresses, names of clusters and passwords are a deployment's."""
    text = file.read_text()

    assert (
        re.findall(r"\b\d{12}\b|arn:aws|amazonaws|olimac|\b(?:10|172|192)(?:\.\d+){3}|(?i:password)\W*[:=]", text) == []
    )
    assert "kind: Secret" not in text
    if file.name == "deployment.env":
        assert [line for line in text.splitlines() if not re.fullmatch(r"#.*|[A-Z_]+=", line)] == []


def test_an_image_without_a_digest_is_refused() -> None:
    """What was tested is what runs."""
    with pytest.raises(CannotProceed, match="digest"):
        manifests.render("migration", OUTPUTS, "registry.example/clients-api:latest")


def test_labels_say_what_belongs_together() -> None:
    """Everything is part of something, and each pod says what it is."""
    assert [found for found in everything() if "app.kubernetes.io/part-of" not in found["metadata"]["labels"]] == []
    assert [pod.owner for pod in pods() if "app.kubernetes.io/name" not in pod.labels] == []
    names = [(pod.namespace, tuple(sorted(pod.labels.items()))) for pod in pods()]
    assert len(set(names)) == len(names)


def test_an_exception_to_the_policy_has_its_reason() -> None:
    """Each says which rule it is from, and why."""
    said = [
        value
        for found in everything()
        for name, value in found["metadata"].get("annotations", {}).items()
        if name.startswith("checkov.io/skip")
    ]

    assert said
    assert [one for one in said if not re.fullmatch(r"CKV2?_K8S_\d+=\w.{19,}", one)] == []


def test_what_pods_obey_and_find_is_there_before_they_are() -> None:
    """Objects are made in their order: no pod is without its policies or its rights, or waits for its settings."""
    for objects in (*map(rendered, manifests.OVERLAYS), loading()):
        makes_pods = [bool(list(pods_of(found))) for found in objects]

        assert makes_pods == sorted(makes_pods)
        assert [at for at, found in enumerate(objects) if found["kind"] == "Namespace"] in ([], [0])


# --- Pods


def breaches(pod: Pod) -> Iterator[str]:
    """What the restricted standard forbids: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
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
        yield from (f"{container['name']}: {rule}" for rule, is_kept in rules.items() if not is_kept)


def test_pods_meet_the_restricted_standard() -> None:
    """All do, but in a namespace that says it is for those that cannot."""
    label = "pod-security.kubernetes.io/enforce"
    exempt = {ns["metadata"]["name"] for ns in all_of("Namespace") if ns["metadata"]["labels"][label] == "privileged"}

    assert exempt == {"telemetry"}
    assert the("Namespace", "clients")["metadata"]["labels"][label] == "restricted"
    assert {pod.owner: found for pod in pods() if pod.namespace not in exempt and (found := list(breaches(pod)))} == {}


def test_a_breach_of_the_standard_is_seen() -> None:
    """The check above is no blank cheque: a bare container breaks the rules that have to be met by saying so."""
    bare = Pod(
        "Deployment bare", "clients", {}, {"containers": [{"name": "a"}], "volumes": [{"name": "v", "hostPath": {}}]}
    )
    said = ("runAsNonRoot", "allowPrivilegeEscalation", "capabilities", "seccompProfile")

    assert list(breaches(bare)) == ["hostPath", *(f"a: {rule}" for rule in said)]


def test_our_own_containers_are_the_images_user_on_a_root_that_none_can_write() -> None:
    """They are as the Dockerfile has them, and run what the command line knows."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = set(re.findall(r"^USER (\d+:\d+)$", dockerfile, re.MULTILINE))
    ours = [pod for pod in pods() if pod.labels["app.kubernetes.io/part-of"] == "clients"]
    serving = [pod for pod in ours if pod.labels["app.kubernetes.io/name"] == "clients-api"]

    assert {pod.owner for pod in serving} == {"Deployment clients-api", "Job migrate", "CronJob prune"}
    assert {pod.owner for pod in ours if pod not in serving} == {"Job load-master", "Job load-workers"}
    for pod in ours:
        context = pod.spec["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
        for container in pod.containers:
            assert container["image"] == (IMAGE if pod in serving else LOAD_IMAGE)
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            if pod in serving:
                command_line._parser().parse_args(container["args"])  # ends the test where it does not


def test_pods_ask_for_what_they_take() -> None:
    """The scheduler and the autoscaler count requests, and memory has an end."""
    for pod in pods():
        for container in pod.containers:
            asked = container["resources"]
            assert asked["requests"].keys() == {"cpu", "memory"}
            assert "memory" in asked["limits"]


def test_service_accounts_are_those_that_have_a_role() -> None:
    """Terraform binds a role to each, and every pod has one of them."""
    bound = re.findall(r'= \{ namespace = "(.+?)", account = "(.+?)" \}', (ROOT / "terraform" / "pods.tf").read_text())
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in all_of("ServiceAccount")}

    assert accounts == set(bound)
    assert {(pod.namespace, pod.spec["serviceAccountName"]) for pod in pods()} <= accounts


def test_only_the_autoscaler_has_a_token_of_the_clusters_api() -> None:
    """A token that is not there cannot be stolen. What ships telemetry asks the API about pods, and may have one."""
    others = [pod for pod in pods() if pod.namespace != "telemetry"]

    assert {one["automountServiceAccountToken"] for one in all_of("ServiceAccount")} == {False}
    assert [pod.owner for pod in others if pod.spec["automountServiceAccountToken"]] == [
        "Deployment cluster-autoscaler"
    ]


# --- The service


def test_the_probes_mean_different_things() -> None:
    """No restart mends a database that is away; and a probe waits until the service has had its say."""
    (container,) = service()["spec"]["template"]["spec"]["containers"]
    asks = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}

    assert asks == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert container["readinessProbe"]["timeoutSeconds"] > health.READY_SECONDS


def test_the_port_is_the_one_that_is_listened_on() -> None:
    """Probes, the Service and the network's policy mean the port that the image has."""
    (listened,) = re.findall(r"PORT=(\d+)", (ROOT / "Dockerfile").read_text())
    (container,) = service()["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    (outside,) = the("Service", balancer.SERVICE)["spec"]["ports"]
    (rule,) = the("NetworkPolicy", "from-the-balancer")["spec"]["ingress"]

    assert port["containerPort"] == int(listened)
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")} == {
        port["name"]
    }
    assert outside == {"name": "https", "port": 443, "targetPort": port["name"]}
    assert rule["ports"] == [{"port": int(listened)}]


def test_a_pod_has_the_time_to_end_well() -> None:
    """The grace holds the pause, the drain, twice aiohttp's time-out, the closing of what is open, and some more."""
    spec = service()["spec"]["template"]["spec"]
    known = service_settings()
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pause + known.server.drain_seconds + 2 * known.server.shutdown_seconds + pool._CLOSE_SECONDS

    assert needed + 10 <= spec["terminationGracePeriodSeconds"] <= needed + 20


def test_a_roll_out_takes_no_pod_away_before_another_serves() -> None:
    """One more comes up, and only then one goes."""
    spec = service()["spec"]

    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["minReadySeconds"] > 0
    # The first pods wait for the Job. The cluster is not to give up before the deployment does.
    assert spec["progressDeadlineSeconds"] >= database._JOB_SECONDS + database._ROLLOUT_SECONDS


def test_all_connections_fit_the_smallest_database() -> None:
    """Of the most pods in a roll-out, those that are ending, and the Jobs."""
    spec, most = service()["spec"], the("HorizontalPodAutoscaler", "clients-api")["spec"]["maxReplicas"]
    known = service_settings()
    ending = math.ceil(spec["template"]["spec"]["terminationGracePeriodSeconds"] / spec["minReadySeconds"])
    serving = (
        (most + spec["strategy"]["rollingUpdate"]["maxSurge"] + ending)
        * known.server.workers
        * known.database.pool_size
    )

    assert serving + 2 + 1 <= (CONNECTIONS - RESERVED) * 0.8  # migrate has two, prune one


def test_pods_are_spread_over_zones_and_nodes() -> None:
    """Each revision by itself, and with its own pods in mind."""
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
def test_what_selects_the_services_pods_selects_no_others(kind: str, path: tuple[str, ...]) -> None:
    """A Job's pod gets no requests, and is not counted among those that may be disrupted."""
    selector = functools.reduce(lambda found, name: found[name], path, the(kind, "clients-api")["spec"])

    assert [pod.owner for pod in pods() if selector.items() <= pod.labels.items()] == ["Deployment clients-api"]


def test_the_number_of_pods_is_the_autoscalers_alone() -> None:
    """A number in the Deployment would be back with each apply."""
    scaler = the("HorizontalPodAutoscaler", "clients-api")["spec"]

    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "clients-api"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "replicas" not in service()["spec"]


def test_a_node_can_always_be_replaced() -> None:
    """One pod at a time, and those that are not well do not stand in the way."""
    budget = the("PodDisruptionBudget", "clients-api")["spec"]

    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


# --- Settings


def test_the_settings_are_settings() -> None:
    """README knows each, and the service takes their values."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    known = {
        name for row in re.findall(r"^\| (`[A-Z].*?) \|", readme, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    read = service_settings()

    assert config(rendered("production"))["data"].keys() - known == set()
    assert (read.server.workers, read.log_format) == (1, "json")
    assert read.trusted_proxies == (ip_network(OUTPUTS.cluster_range),)
    assert read.telemetry.traces.protocol == "http/protobuf"


def test_telemetry_says_which_pod_it_is_of() -> None:
    """The pod, its node and its cluster are told, by the names that the service looks for."""
    (pod,) = pods_of(service())
    said = environment(pod, pod.spec["containers"][0])["OTEL_RESOURCE_ATTRIBUTES"]

    assert dict(part.split("=") for part in said.split(",")) == {
        "k8s.pod.name": "clients-api-1",
        "k8s.node.name": "node-1",
        "k8s.cluster.name": OUTPUTS.name,
    }


def test_a_changed_setting_starts_new_pods() -> None:
    """The ConfigMap's name changes with its content, and so does the template that names it."""
    (pod,) = pods_of(service())
    name = config(rendered("production"))["metadata"]["name"]
    changed = replace(OUTPUTS, cluster_range="10.66.0.0/16")

    assert {"configMapRef": {"name": name}} in pod.spec["containers"][0]["envFrom"]
    assert config(rendered("production", changed))["metadata"]["name"] != name


def test_whoever_speaks_to_the_database_checks_whom_it_speaks_to() -> None:
    """Each of our containers has the database's place and user, and the CA certificates that the deployment writes."""
    users = {}
    for pod in pods():
        for container in pod.containers:
            if container["image"] != IMAGE:
                continue
            named = dsn.parse(settings.read(environment(pod, container)).database.dsn).parameters
            authority = Path(named["sslrootcert"])
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume["configMap"]["name"] for volume in pod.spec["volumes"]}
            assert named["sslmode"] == "verify-full"
            assert (volumes[mounts[str(authority.parent)]], authority.name) == (database.AUTHORITY, "ca.pem")
            users[container["args"][0]] = named["user"]

    assert users == {"serve": "clients_service", "prune": "clients_service", "migrate": "postgres", "seed": "postgres"}


# --- Jobs


def test_the_job_migrates_and_then_seeds() -> None:
    """One after the other, to an end that the deployment waits for."""
    (pod,) = pods_of(the("Job", database.JOB))
    spec = the("Job", database.JOB)["spec"]

    assert [one["args"] for one in pod.spec["initContainers"]] == [["migrate"]]
    assert [one["args"] for one in pod.spec["containers"]] == [["seed"]]
    assert spec["activeDeadlineSeconds"] < database._JOB_SECONDS
    assert (pod.namespace, pod.spec["restartPolicy"]) == (database.NAMESPACE, "Never")
    assert [found["kind"] for found in rendered("migration")] == ["Job"]


def test_keys_are_pruned_each_hour_by_one_at_a_time() -> None:
    """Each run ends before the next one begins, and is seen for a while."""
    spec = the("CronJob", "prune")["spec"]

    assert re.fullmatch(r"\d+ \* \* \* \*", spec["schedule"])
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] + spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600
    assert spec["successfulJobsHistoryLimit"] >= 1
    assert spec["failedJobsHistoryLimit"] >= 1


# --- Load tests


def test_what_loads_is_applied_by_people_alone() -> None:
    """No deployment has it, and both Jobs are told as many workers as there are."""
    spec = the("Job", "load-workers")["spec"]
    (found,) = [one for one in loading() if one["kind"] == "ConfigMap"]

    assert "load" not in manifests.OVERLAYS
    assert not any("clients-api-load" in str(rendered(overlay)) for overlay in manifests.OVERLAYS)
    assert spec["parallelism"] == spec["completions"] == int(found["data"]["WORKERS"]) > 1
    assert {the("Job", name)["spec"]["backoffLimit"] for name in ("load-master", "load-workers")} == {0}


def test_who_loads_reaches_the_service_and_its_master_alone() -> None:
    """Workers find names, the service and the master, at the ports that these have; nobody else finds the master."""
    found, (port,) = ends(), the("Service", "load-master")["spec"]["ports"]
    worker, master, serving = (found[name] for name in ("Job load-workers", "Job load-master", SERVING))
    (container,) = [one for pod in pods() if pod.owner == "Job load-master" for one in pod.containers]

    assert container["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]
    assert may(worker, DNS, 53, "UDP")
    assert may(worker, serving, 8080)
    assert [name for name, end in found.items() if may(end, master, port["port"])] == ["Job load-workers"]
    assert [end for end in (DATABASE, INTERNET, COLLECTOR, End(NODE)) if may(worker, end, 443)] == []
    assert [end for end in (*found.values(), DNS, INTERNET) if may(master, end, 53, "UDP")] == []


def test_the_host_that_is_loaded_is_the_service() -> None:
    """By its Service's name and port, in the namespace of both."""
    (found,) = [one for one in loading() if one["kind"] == "ConfigMap"]
    outside = the("Service", balancer.SERVICE)

    assert found["metadata"]["namespace"] == outside["metadata"]["namespace"]
    assert found["data"]["HOST"] == f"http://{balancer.SERVICE}:{outside['spec']['ports'][0]['port']}"


def command(container: Object, known: dict[str, str]) -> list[str]:
    """What a node would run: the image's own entry point, where there is no other, and variables filled in."""
    (entry, _) = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    words = [*container.get("command", json.loads(entry)), *container["args"]]
    return [re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], word) for word in words]


def unpack(log: str, folder: Path) -> Path:
    """Where README's command puts the results that are in a log."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^\$ .*logs job/load-master \| (.*)$", readme, re.MULTILINE)
    folder.mkdir()
    subprocess.run(["/bin/sh", "-c", words], cwd=folder, input=log, text=True, check=True)
    return folder / ".local" / "load"


async def test_the_jobs_of_a_load_test_load_the_service(
    serve: Callable[..., Service], tmp_path: Path, unused_tcp_port: int
) -> None:
    """Their commands end with a verdict, and README's finds the results in the log; here, shorter and on loopback."""
    # A name, which is refused without the word of whoever owns it: workers have that from the master.
    url = serve(API_KEY_HASHES=digest("a-key").hex()).url.replace("127.0.0.1", "localhost")
    at_home = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": os.environ["HOME"],
        "PYTHONPATH": str(ROOT),
        "LOCUST_MASTER_BIND_HOST": "127.0.0.1",
        "LOCUST_MASTER_BIND_PORT": str(unused_tcp_port),
        "LOCUST_MASTER_NODE_PORT": str(unused_tcp_port),
    }
    processes = {}
    for pod in pods():
        if pod.labels["app.kubernetes.io/name"] != "clients-api-load":
            continue
        (container,) = pod.containers
        known = environment(pod, container) | at_home | {"HOST": url, "RATE": "100", "DURATION": "3"}
        words = [word.replace("load-master", "127.0.0.1") for word in command(container, known)]
        for number in range(the(*pod.owner.split())["spec"].get("parallelism", 1)):
            processes[pod.owner, number] = await asyncio.create_subprocess_exec(
                *words,
                cwd=tmp_path,
                env=known,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
    try:
        said = await asyncio.wait_for(asyncio.gather(*(one.communicate() for one in processes.values())), 60)
    finally:
        for one in processes.values():
            if one.returncode is None:
                os.killpg(one.pid, signal.SIGKILL)
    logs = {name: out.decode() for name, (out, _) in zip(processes, said, strict=True)}
    (log,) = [text for (owner, _), text in logs.items() if owner == "Job load-master"]

    assert {name: one.returncode for name, one in processes.items()} == dict.fromkeys(processes, 0), logs
    assert "All objectives are met." in log

    (made,) = (tmp_path / ".local" / "load").iterdir()
    unpacked = unpack(log, tmp_path / "unpacked") / made.name
    kept = {file.name: file.read_bytes() for file in unpacked.iterdir()}
    assert kept == {file.name: file.read_bytes() for file in made.iterdir()}
    assert kept.keys() == {"results.json", "report.html"}
    assert json.loads(kept["results.json"])["run"]["sources"] == len(processes) - 1


# --- The balancer

_ANNOTATION = "service.beta.kubernetes.io/aws-load-balancer-"


def test_the_balancer_ends_tls_with_the_certificate() -> None:
    """A classic one, that speaks TLS 1.2 at least to callers on its only port, and HTTP to pods."""
    found = the("Service", balancer.SERVICE)
    said = {name.removeprefix(_ANNOTATION): value for name, value in found["metadata"]["annotations"].items()}

    assert found["metadata"]["namespace"] == balancer.NAMESPACE
    assert found["spec"]["type"] == "LoadBalancer"
    assert "type" not in said
    assert said["ssl-cert"] == OUTPUTS.certificate_arn
    assert said["ssl-ports"] == found["spec"]["ports"][0]["name"]
    assert said["ssl-negotiation-policy"] == "ELBSecurityPolicy-TLS-1-2-2017-01"
    assert said["backend-protocol"] == "http"
    assert said["cross-zone-load-balancing-enabled"] == said["connection-draining-enabled"] == "true"
    assert said["additional-resource-tags"] == f"Project={OUTPUTS.name}"


def test_the_balancer_closes_idle_connections_before_the_service_does() -> None:
    """Who closes first may lose a request that was on its way."""
    said = the("Service", balancer.SERVICE)["metadata"]["annotations"]

    assert float(said[f"{_ANNOTATION}connection-idle-timeout"]) < connections.KEEPALIVE_SECONDS


# --- The cluster's autoscaler


@pytest.mark.parametrize("version", [OUTPUTS.kubernetes_version, "1.37"])
def test_the_autoscalers_minor_version_is_the_clusters(version: str) -> None:
    """It follows whatever version the cluster has."""
    (image,) = [
        container["image"]
        for found in rendered("production", replace(OUTPUTS, kubernetes_version=version))
        for pod in pods_of(found)
        for container in pod.containers
        if container["name"] == "cluster-autoscaler"
    ]

    assert image == f"registry.k8s.io/autoscaling/cluster-autoscaler:v{version}.0"


def test_the_autoscaler_finds_the_nodes_of_its_own_cluster() -> None:
    """By the tags that EKS gives the group, in the cluster's region."""
    (pod,) = pods_of(the("Deployment", "cluster-autoscaler"))
    (container,) = pod.containers
    known = environment(pod, container)
    tags = f"k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/{OUTPUTS.name}"

    assert f"--node-group-auto-discovery=asg:tag={tags}" in container["args"]
    assert "--cloud-provider=aws" in container["args"]
    assert known["AWS_REGION"] == OUTPUTS.region


def test_nobody_may_do_everything() -> None:
    """No rule has a wildcard, reads Secrets or gives rights away, and each binding is one account's."""
    rules = [rule for kind in ("Role", "ClusterRole") for found in all_of(kind) for rule in found["rules"]]
    bindings = [*all_of("RoleBinding"), *all_of("ClusterRoleBinding")]
    subjects = [one for found in bindings for one in found["subjects"]]

    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        # Who may ask a node's proxy may also have it run a command in a pod.
        assert not {"secrets", "nodes/proxy", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])
        assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
        if {"update", "delete"} & set(rule["verbs"]) and rule["resources"] != ["nodes"]:
            assert rule["resourceNames"]
    assert {(one["kind"], one["namespace"], one["name"]) for one in subjects} == {
        ("ServiceAccount", pod.namespace, pod.spec["serviceAccountName"])
        for pod in pods()
        if pod.spec["automountServiceAccountToken"]
    }


# --- The collector

COLLECTORS = {"collector": "Deployment", "container-insights": "DaemonSet"}
each_collector = pytest.mark.parametrize("name", COLLECTORS)


def collector(name: str) -> tuple[Pod, Object, adot.Config]:
    """Its pods, their container, and what that reads."""
    (pod,) = pods_of(the(COLLECTORS[name], name))
    (container,) = pod.containers
    return pod, container, adot.read(adot.FOLDER / f"{name}.yaml")


@each_collector
def test_a_collector_reads_its_file_and_starts_anew_when_that_changes(name: str) -> None:
    """The object that holds the file is named by what is in it."""
    pod, container, _ = collector(name)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (volume,) = [one for one in pod.spec["volumes"] if "configMap" in one]
    found = the("ConfigMap", volume["configMap"]["name"])

    assert found["data"] == {f"{name}.yaml": (adot.FOLDER / f"{name}.yaml").read_text()}
    assert container["args"] == [f"--config={mounts[volume['name']]}/{name}.yaml"]
    assert re.fullmatch(rf"{name}-[a-z0-9]{{10}}", volume["configMap"]["name"])


@each_collector
def test_a_collector_finds_what_its_file_asks_the_environment_for(name: str) -> None:
    """What is not there would be taken for an empty word."""
    pod, container, _ = collector(name)
    known = environment(pod, container)
    asked = re.findall(r"\$\{env:(\w+)\}", (adot.FOLDER / f"{name}.yaml").read_text())

    assert [one for one in asked if not known.get(one)] == []
    assert (known["CLUSTER"], known["REGION"]) == (OUTPUTS.name, OUTPUTS.region)


@each_collector
def test_a_collector_refuses_before_the_kernel_ends_it(name: str) -> None:
    """The garbage collector works against 80 % of the limit, and what comes in is refused below that.

    In MiB: with the node's control groups mounted, a percentage would be of the node's memory.
    """
    pod, container, config = collector(name)
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    heap = int(environment(pod, container)["GOMEMLIMIT"].removesuffix("MiB"))
    limiter = config["processors"]["memory_limiter"]

    assert heap == 0.8 * limit
    assert limiter["spike_limit_mib"] < limiter["limit_mib"] < heap


def test_the_collector_listens_where_it_is_looked_for() -> None:
    """Senders, the Service and the probes mean its ports; what is on the node's network is on loopback only."""
    pod, container, config = collector("collector")
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    outside = the("Service", "collector")["spec"]
    protocols = config["receivers"]["otlp"]["protocols"]
    listens = {f"otlp-{name}": int(one["endpoint"].rpartition(":")[2]) for name, one in protocols.items()}
    _, on_the_node, of_the_node = collector("container-insights")

    assert ports == {**listens, "health": port_of_health(config)}
    assert {one["name"]: one["port"] for one in outside["ports"]} == listens
    assert outside["selector"].items() <= pod.labels.items()
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("liveness", "readiness")} == {"health"}
    assert of_the_node["extensions"]["health_check"]["endpoint"].startswith("127.0.0.1:")
    assert {
        (on_the_node[f"{kind}Probe"]["httpGet"]["host"], on_the_node[f"{kind}Probe"]["httpGet"]["port"])
        for kind in ("liveness", "readiness")
    } == {("127.0.0.1", port_of_health(of_the_node))}
    assert "otlp" not in of_the_node["receivers"]


def port_of_health(config: adot.Config) -> int:
    return int(config["extensions"]["health_check"]["endpoint"].rpartition(":")[2])


def test_who_counts_meets_the_same_collector_each_time() -> None:
    """Of two, each would take what the other had counted for its own."""
    assert the("Deployment", "collector")["spec"]["replicas"] == 2
    assert the("Service", "collector")["spec"]["sessionAffinity"] == "ClientIP"
    assert the("PodDisruptionBudget", "collector")["spec"]["maxUnavailable"] == 1


def test_what_all_traces_have_in_common_is_told_to_the_collector() -> None:
    """It could not find it out: a pod does not reach its node's metadata."""
    pod, container, config = collector("collector")
    said = environment(pod, container)["OTEL_RESOURCE_ATTRIBUTES"]

    assert config["processors"]["resource_detection"]["detectors"] == ["env"]
    assert dict(part.split("=") for part in said.split(",")) == {
        "cloud.provider": "aws",
        "cloud.platform": "aws_eks",
        "cloud.region": OUTPUTS.region,
        "k8s.cluster.name": OUTPUTS.name,
    }


def test_what_reads_the_node_can_change_nothing_of_it() -> None:
    """It is root, without what makes root more than a user, and sees no more of the node than the receiver looks at."""
    pod, container, _ = collector("container-insights")
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    paths = {one["name"]: one["hostPath"]["path"] for one in pod.spec["volumes"] if "hostPath" in one}

    assert sorted(breaches(pod)) == [
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


def test_collectors_may_only_look() -> None:
    """One at pods, the other at nodes and what is behind services, too; it holds the lease of the one that leads."""
    rules = {
        (found["kind"], found["metadata"]["name"]): sorted(
            (resource, verb) for rule in found["rules"] for resource in rule["resources"] for verb in rule["verbs"]
        )
        for kind in ("ClusterRole", "Role")
        for found in all_of(kind)
    }
    looked_at = ("endpointslices", "nodes", "pods", "replicasets")

    assert rules["ClusterRole", "collector"] == [("pods", "list"), ("pods", "watch")]
    assert rules["ClusterRole", "container-insights"] == sorted(
        [("nodes/pods", "get"), *((resource, verb) for resource in looked_at for verb in ("list", "watch"))]
    )
    assert {resource for resource, _ in rules["Role", "container-insights"]} == {"events", "leases"}


# --- Fluent Bit


def shipper() -> tuple[Pod, Object, str]:
    """Its pods, their container, and what that reads."""
    (pod,) = pods_of(the("DaemonSet", "fluent-bit"))
    (container,) = pod.containers
    return pod, container, fluentbit.FILE.read_text()


def test_fluent_bit_reads_its_file_and_starts_anew_when_that_changes() -> None:
    """The object that holds the file is named by what is in it."""
    pod, container, text = shipper()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (volume,) = [one for one in pod.spec["volumes"] if "configMap" in one]
    name = volume["configMap"]["name"]

    assert the("ConfigMap", name)["data"] == {"fluent-bit.yaml": text}
    assert container["args"] == [f"--config={mounts[volume['name']]}/fluent-bit.yaml"]
    assert re.fullmatch(r"fluent-bit-[a-z0-9]{10}", name)


def test_fluent_bit_finds_what_its_file_asks_the_environment_for() -> None:
    """What is not there would be taken for an empty word."""
    pod, container, text = shipper()
    known = environment(pod, container)

    assert set(re.findall(r"\$\{(\w+)\}", text)) == known.keys() == fluentbit.ENVIRONMENT.keys()
    assert (known["CLUSTER"], known["REGION"]) == (OUTPUTS.name, OUTPUTS.region)
    assert (known["NODE"], known["NODE_ADDRESS"]) == ("node-1", NODE)


def test_fluent_bit_is_on_each_node_and_starts_anew_on_one_at_a_time() -> None:
    """Whatever keeps others away; and its own grace, in which it sends what it has, is within the pod's."""
    pod, _, _ = shipper()
    update = the("DaemonSet", "fluent-bit")["spec"]["updateStrategy"]

    assert pod.spec["tolerations"] == [{"operator": "Exists"}]
    assert not {"nodeSelector", "affinity"} & pod.spec.keys()
    assert update["rollingUpdate"] == {"maxUnavailable": 1}
    assert fluentbit.read()["service"]["grace"] + 10 <= pod.spec["terminationGracePeriodSeconds"]


def test_fluent_bit_is_well_as_long_as_it_answers_and_ready_while_events_are_taken() -> None:
    """No restart mends CloudWatch, and one that waits for names as it starts is not hanging."""
    _, container, _ = shipper()
    (port,) = container["ports"]
    asks = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    startup = container["startupProbe"]

    assert {kind: one["path"] for kind, one in asks.items()} == {
        "startup": "/api/v1/uptime",
        "liveness": "/api/v1/uptime",
        "readiness": "/api/v1/health",
    }
    assert {one["port"] for one in asks.values()} == {port["name"]}
    assert port["containerPort"] == fluentbit.read()["service"]["http_port"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 6 * 30


def test_fluent_bit_can_change_nothing_of_the_node_but_its_own_state() -> None:
    """It is root, without what makes root more than a user; what it keeps outlives the pod, what it reads is there."""
    pod, container, _ = shipper()
    paths = {one["name"]: one["hostPath"]["path"] for one in pod.spec["volumes"] if "hostPath" in one}
    written = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    read = [mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")]
    config = fluentbit.read()
    inputs = config["pipeline"]["inputs"]
    kept = [config["service"]["storage.path"], *(one["db"] for one in inputs if "db" in one)]

    assert sorted(breaches(pod)) == ["fluent-bit: runAsNonRoot", "fluent-bit: runAsUser", *["hostPath"] * 4]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [paths[mount["name"]] for mount in written] == [mount["mountPath"] for mount in written]
    assert {str(Path(one).parent) for one in kept} == {mount["mountPath"] for mount in written}
    assert all(mount["mountPath"] == paths.get(mount["name"], "/etc/fluent-bit") for mount in container["volumeMounts"])
    assert {"/var/log", "/run/log", "/etc/machine-id"} < set(read)
    assert {one["path"].partition("/containers/")[0] for one in inputs if "path" in one} == {"/var/log"}


def test_fluent_bit_may_ask_for_the_pods_of_its_node_alone() -> None:
    """Of the kubelet, at the port that the network lets it; the cluster's API has nothing for it."""
    (kubernetes,) = fluentbit.of_kind(fluentbit.read(), "filters", "kubernetes")

    assert the("ClusterRole", "fluent-bit")["rules"] == [
        {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}
    ]
    assert kubernetes["use_kubelet"] is True
    assert may(ends()["DaemonSet fluent-bit"], End(NODE), kubernetes["kubelet_port"])


# --- The network


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        address: its own.
        namespace: of the pod that it is; empty where it is none.
        labels: likewise.
    """

    address: str
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def may(source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let the source speak to the target: https://kubernetes.io/docs/concepts/services-networking/."""
    return _lets(source, target, "Egress", port, protocol) and _lets(target, source, "Ingress", port, protocol)


def _lets(end: End, other: End, direction: str, port: int, protocol: str) -> bool:
    """Whether those policies that are about the one end let it speak to, or hear from, the other."""
    about = [
        policy["spec"]
        for policy in all_of("NetworkPolicy")
        if policy["metadata"]["namespace"] == end.namespace
        and direction in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], end.labels)
    ]
    side = {"Egress": "to", "Ingress": "from"}[direction]
    rules = [rule for spec in about for rule in spec.get(direction.lower(), [])]
    return not about or any(
        (side not in rule or any(_is(peer, other, end.namespace) for peer in rule[side]))
        and (
            "ports" not in rule
            or (port, protocol) in [(one["port"], one.get("protocol", "TCP")) for one in rule["ports"]]
        )
        for rule in rules
    )


def _is(peer: Object, end: End, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        excepted = [ip_network(one) for one in block.get("except", [])]
        address = ip_address(end.address)
        return address in ip_network(block["cidr"]) and not any(address in one for one in excepted)
    if "namespaceSelector" in peer:
        of_namespace = {"kubernetes.io/metadata.name": end.namespace}
        is_there = bool(end.namespace) and _selects(peer["namespaceSelector"], of_namespace)
    else:
        is_there = end.namespace == namespace
    return is_there and _selects(peer.get("podSelector", {}), end.labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    def holds(wanted: Object) -> bool:
        value = labels.get(wanted["key"])
        match wanted["operator"]:
            case "In":
                return value in wanted["values"]
            case "NotIn":
                return value not in wanted["values"]
            case "Exists":
                return value is not None
            case _:
                return value is None

    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        holds(one) for one in selector.get("matchExpressions", [])
    )


DATABASE = End("10.65.1.1")
INTERNET = End("203.0.113.1")
DNS = End("10.64.2.1", "kube-system", {"k8s-app": "kube-dns"})
COLLECTOR = End("10.64.3.1", "telemetry", {"app.kubernetes.io/name": "collector"})


def ends() -> dict[str, End]:
    """Our pods, and some that could be there beside them."""
    return {pod.owner: End("10.64.4.1", pod.namespace, pod.labels) for pod in pods()} | {
        "a stranger": End("10.64.5.1", "clients"),
        "a stranger by our name": End("10.64.5.2", "clients", {"app.kubernetes.io/name": "clients-api"}),
        "a stranger by our component": End("10.64.5.3", "clients", {"app.kubernetes.io/component": "service"}),
        "the collector": COLLECTOR,
    }


SERVING = "Deployment clients-api"
OURS = ["Job migrate", SERVING, "CronJob prune"]


def test_only_our_own_pods_reach_the_database() -> None:
    """The service and the two Jobs, at PostgreSQL's port."""
    assert sorted(name for name, end in ends().items() if may(end, DATABASE, 5432)) == sorted(OURS)
    assert [name for name, end in ends().items() if end.namespace == "clients" and may(end, DATABASE, 22)] == []


def test_our_own_pods_find_names_and_little_else() -> None:
    """Neither AWS, nor a node's metadata, nor the cluster's API."""
    elsewhere = [
        (INTERNET, 443),
        (End("169.254.169.254"), 80),
        (End("169.254.170.23"), 80),
        (End(NODE), 443),
        (End(NODE), 10250),
    ]
    for name in OURS:
        assert may(ends()[name], DNS, 53, "UDP")
        assert may(ends()[name], DNS, 53, "TCP")
        assert [(end, port) for end, port in elsewhere if may(ends()[name], end, port)] == []


def test_the_balancer_and_the_kubelet_reach_the_service_at_its_port() -> None:
    """What is outside the cluster's network comes through the balancer, or not at all; nobody reaches a Job."""
    reached = ends()
    assert may(End(NODE), reached["Deployment clients-api"], 8080)
    assert not may(INTERNET, reached["Deployment clients-api"], 8080)
    assert not may(DATABASE, reached["Deployment clients-api"], 8080)
    assert [port for port in (80, 443, 5432, 8081) if may(End(NODE), reached["Deployment clients-api"], port)] == []
    assert [name for name in OURS if may(End(NODE), reached[name], 8080)] == ["Deployment clients-api"]


def test_traces_go_from_the_service_to_the_collector() -> None:
    """Both ends let them, at the port that the setting names; nobody else's."""
    (pod,) = pods_of(service())
    endpoint = environment(pod, pod.spec["containers"][0])["OTEL_EXPORTER_OTLP_ENDPOINT"]
    port = int(endpoint.rpartition(":")[2])
    inside = {name: end for name, end in ends().items() if end.namespace == "clients"}

    assert f"//{COLLECTOR.labels['app.kubernetes.io/name']}.{COLLECTOR.namespace}.svc" in endpoint
    for one in (port, 4317):
        assert [name for name, end in inside.items() if may(end, COLLECTOR, one)] == ["Deployment clients-api"]
    assert not may(inside["Deployment clients-api"], COLLECTOR, 13133)
    assert may(End(NODE), COLLECTOR, 13133)


def test_what_ships_telemetry_reaches_aws_and_its_node() -> None:
    """AWS's APIs, its role, the kubelets and names; nobody but the service reaches it."""
    for name in ("the collector", "DaemonSet fluent-bit"):
        end = ends()[name]
        assert may(end, INTERNET, 443)
        assert may(end, End("169.254.170.23"), 80)
        assert may(end, End(NODE), 10250)
        assert may(end, DNS, 53, "UDP")
        assert not may(end, INTERNET, 80)
        assert not may(End(NODE), end, 4318)


def test_counts_go_from_fluent_bit_to_the_collector() -> None:
    """Both ends let them, at the place that the configuration names; and its kubelet reaches its page of health."""
    (output,) = fluentbit.of_kind(fluentbit.read(), "outputs", "opentelemetry")
    watching = {name: end for name, end in ends().items() if end.namespace == COLLECTOR.namespace}
    itself = watching["DaemonSet fluent-bit"]

    assert output["host"].startswith(f"{COLLECTOR.labels['app.kubernetes.io/name']}.{COLLECTOR.namespace}.svc")
    assert [name for name, end in watching.items() if may(end, COLLECTOR, output["port"])] == ["DaemonSet fluent-bit"]
    assert not may(itself, COLLECTOR, 4317)
    assert may(End(NODE), itself, 2020)
    assert not may(INTERNET, itself, 2020)
    assert not may(COLLECTOR, itself, 2020)


def test_the_autoscaler_reaches_aws_and_the_clusters_api() -> None:
    """And its kubelet reaches its page of health."""
    end = ends()["Deployment cluster-autoscaler"]
    assert may(end, INTERNET, 443)
    assert may(end, End("169.254.170.23"), 80)
    assert may(end, DNS, 53, "UDP")
    assert may(End(NODE), end, 8085)
    assert not may(INTERNET, end, 8085)


def test_what_no_policy_is_about_is_free() -> None:
    """The evaluator knows that as well, or all of the above would hold of a cluster without any policy."""
    assert may(End("10.64.6.1", "elsewhere"), INTERNET, 80)
    assert may(INTERNET, End("10.64.6.1", "elsewhere"), 80)
