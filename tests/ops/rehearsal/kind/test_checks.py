"""The checks on a real cluster, on stand-ins: that they pass where they should, and fail where nothing is enforced."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.deploy import common
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.environment import DATABASE
from ops.rehearsal.kind import autoscaler, check_drain, check_jobs, check_scaling
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.steps import IMAGE, ROOT
from svc.postgres.embedded import EmbeddedPostgres
from tests.ops.deploy.fixtures import (
    Account,
    MockAws,
    NoLoadBalancers,
    prepare_database,
    running_cluster,
    running_database,
)

pytestmark = pytest.mark.slow

# Keeps what a cluster would keep, as files: the nodes of the pods, and the number of pods.
KUBECTL = """#!/bin/sh
cd {folder}
echo "$*" >>calls
case "$*" in
  "get pods "*) cat pods ;;
  "get service "*) echo '{{"spec": {{"ports": [{{"nodePort": 30443}}]}}}}' ;;
  "get horizontalpodautoscaler "*)
    echo '{{"status": {{"currentReplicas": '"$(head -1 replicas)"'}}}}'
    [ "$(wc -l <replicas)" = 1 ] || [ ! -e loaded ] || sed -i 1d replicas ;;
  "drain "*) sed -i s/one/two/ pods ;;
esac
"""


@pytest.fixture(name="bin_folder")
def install_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts programs on PATH, by name with their text, and returns their folder."""
    monkeypatch.setattr(common, "poll_seconds", 0.01)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def install(**programs: str) -> Path:
        for name, text in programs.items():
            (tmp_path / name).write_text(text.format(folder=tmp_path))
            (tmp_path / name).chmod(stat.S_IRWXU)
        return tmp_path

    return install


def pods(*nodes: str) -> str:
    return json.dumps({"items": [{"spec": {"nodeName": node}} for node in nodes]})


def test_a_drained_node_has_no_pod(account: Account, bin_folder: Callable[..., Path]) -> None:
    """The node of the first pod is drained, and gets pods again afterwards."""
    folder = bin_folder(kubectl=KUBECTL)
    (folder / "pods").write_text(
        json.dumps({"items": [{"spec": {"nodeName": f"node-{name}"}} for name in ("one", "two")]})
    )

    check_drain.test_a_drained_node_has_no_pod_of_the_service(account.outputs)

    calls = (folder / "calls").read_text().splitlines()
    changes = [call for call in calls if not call.startswith("get ")]
    assert changes[0].startswith("drain node-one --ignore-daemonsets --delete-emptydir-data --timeout=")
    assert changes[1].startswith("rollout status deployment/clients-api --namespace clients --timeout=")
    assert changes[2:] == ["uncordon node-one"]


def test_a_pod_that_stays_on_the_node_is_found(account: Account, bin_folder: Callable[..., Path]) -> None:
    """The check fails, and the node gets pods again all the same."""
    folder = bin_folder(kubectl=KUBECTL.replace("s/one/two/", "s/no/no/"))
    (folder / "pods").write_text(pods("node-one"))

    with pytest.raises(AssertionError):
        check_drain.test_a_drained_node_has_no_pod_of_the_service(account.outputs)
    assert (folder / "calls").read_text().endswith("uncordon node-one\n")


def test_load_makes_pods_and_then_fewer(
    account: Account, bin_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads a port of the node until there are more pods; the highest number is what there must be fewer than."""
    monkeypatch.setenv("REHEARSAL_NODE", "10.90.0.2")
    wrk = '#!/bin/sh\necho "$*" >>{folder}/loads; touch {folder}/loaded\n'
    folder = bin_folder(kubectl=KUBECTL, wrk=wrk)
    (folder / "replicas").write_text("".join(f"{number}\n" for number in (2, 2, 4, 8, 8, 8, 8, 7)))

    check_scaling.test_load_makes_pods_and_then_fewer(account.outputs)

    assert set((folder / "loads").read_text().splitlines()) == {"-t2 -c64 -d15s http://10.90.0.2:30443/get/1"}
    assert (folder / "replicas").read_text() == "7\n"


def test_an_autoscaler_without_metrics_is_found(
    account: Account, bin_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of pods stays as it is."""
    monkeypatch.setenv("REHEARSAL_NODE", "10.90.0.2")
    monkeypatch.setattr(check_scaling, "_MORE_SECONDS", 0.1)
    folder = bin_folder(kubectl=KUBECTL, wrk="#!/bin/sh\n")
    (folder / "replicas").write_text("2\n")

    with pytest.raises(AssertionError, match="still 2 pods"):
        check_scaling.test_load_makes_pods_and_then_fewer(account.outputs)


def test_the_stand_in_for_the_autoscaler_has_the_port_of_the_real_one(production_objects: list[Object]) -> None:
    """Its probes ask there; the program has the interpreter of the image, and is executable."""
    deployments = [one for one in production_objects if one["kind"] == "Deployment"]
    (deployment,) = [one for one in deployments if one["metadata"]["name"] == "cluster-autoscaler"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    file = Path(autoscaler.__file__)

    assert container["ports"] == [{"name": "http", "containerPort": autoscaler.PORT}]
    assert container["command"] == ["/cluster-autoscaler"]
    assert file.read_text().startswith("#!/opt/venv/bin/python\n")
    assert file.stat().st_mode & stat.S_IXOTH


@pytest.fixture(name="server")
def run_server(mock_aws: MockAws) -> Iterator[EmbeddedPostgres]:
    """Runs a PostgreSQL as RDS creates it."""
    with running_database(mock_aws) as server:
        yield server


@pytest.fixture(name="cluster")
def run_cluster(
    mock_aws: MockAws, account: Account, server: EmbeddedPostgres, production_objects: list[Object], tmp_path: Path
) -> Iterator[Kubernetes]:
    """Runs a cluster with the CronJob, whose Jobs are processes that no policy keeps from the database."""
    controllers = Controllers({IMAGE: ROOT}, tmp_path / "pods", NoLoadBalancers())
    with running_cluster(mock_aws, account, controllers.running):
        prepare_database(mock_aws, account, server)
        kinds = ("ServiceAccount", "ConfigMap", "CronJob")
        created = Kubernetes(account.outputs)
        created.apply(*(one for one in production_objects if one["kind"] in kinds))
        yield created


@pytest.mark.deployment
async def test_the_pruning_is_checked_by_a_job(
    cluster: Kubernetes, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check passes, a second time, too."""
    monkeypatch.setenv("REHEARSAL_DATABASE", server.dsn(database=DATABASE))

    await check_jobs.test_the_pruning_deletes_old_keys(cluster)
    await check_jobs.test_the_pruning_deletes_old_keys(cluster)


@pytest.mark.deployment
def test_a_cluster_that_enforces_no_policies_is_found(cluster: Kubernetes) -> None:
    """The forbidden pod connects, so its Job completes."""
    with pytest.raises(AssertionError, match="idempotency keys deleted"):
        check_jobs.test_a_forbidden_connection_is_dropped(cluster)
