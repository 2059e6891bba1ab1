"""Checks with Jobs on a real cluster: the pruning works, and the same Job without its label gets no connection."""

import os

import asyncpg
import pytest

from ops.deploy.common import Outputs, wait_for
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import NAMESPACE

_JOB_SECONDS = 120.0
_COMPONENT = "app.kubernetes.io/component"


@pytest.fixture(name="kubernetes", scope="module")
def find_kubernetes(outputs: Outputs) -> Kubernetes:
    return Kubernetes(outputs)


def run_job(kubernetes: Kubernetes, component: str) -> tuple[str, str]:
    """Runs the Job of the CronJob by hand; returns its last condition and its log.

    Args:
        kubernetes: the cluster.
        component: of its pod, by which the network policies select it.
    """
    cronjob = kubernetes.get(NAMESPACE, "cronjob", "prune")
    assert cronjob
    spec, name = cronjob["spec"]["jobTemplate"]["spec"], f"by-hand-{component}"
    spec["backoffLimit"] = 0
    spec["template"]["metadata"]["labels"][_COMPONENT] = component
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
    kubernetes.delete(NAMESPACE, "job", name, timeout=60)
    kubernetes.apply(job)

    def final_condition() -> str | None:
        found = kubernetes.get(NAMESPACE, "job", name) or {}
        conditions = {one["type"] for one in found.get("status", {}).get("conditions", []) if one["status"] == "True"}
        return next(iter(conditions & {"Complete", "Failed"}), None)

    condition = wait_for(f"the Job {name}", final_condition, timeout=_JOB_SECONDS)
    return condition, kubernetes.run("logs", f"job/{name}", "--namespace", NAMESPACE)


async def test_the_pruning_deletes_old_keys(kubernetes: Kubernetes) -> None:
    """As a Job in the cluster, with the service's role; it reaches the database by the label of its pod."""
    connection = await asyncpg.connect(os.environ["REHEARSAL_DATABASE"])
    await connection.execute(
        "INSERT INTO idempotency_keys SELECT 'old', sha256('old'), 1, now() - interval '2 days' ON CONFLICT DO NOTHING"
    )

    condition, log = run_job(kubernetes, "prune")

    assert condition == "Complete", log
    assert "idempotency keys deleted" in log
    assert not await connection.fetchval("SELECT count(*) FROM idempotency_keys WHERE key = 'old'")
    await connection.close()


def test_a_forbidden_connection_is_dropped(kubernetes: Kubernetes) -> None:
    """A pod that no policy lets connect to the database gets no response from it, not even a refusal."""
    condition, log = run_job(kubernetes, "forbidden")

    assert condition == "Failed", log
    assert "cannot connect to the database" in log
    assert "did not respond" in log
