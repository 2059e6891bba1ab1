"""Turns on all five log types of the EKS control plane, even if somebody turned some off after Terraform ran."""

from typing import Final

from ops.deploy.common import CannotProceed, Outputs, aws_client, report, wait_for
from ops.deploy.kubernetes import describe_cluster

TYPES: Final = frozenset({"api", "audit", "authenticator", "controllerManager", "scheduler"})

_UPDATE_SECONDS: Final = 900.0  # EKS needs some minutes


def turn_on(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Turns on the log types that are off, and waits until EKS has finished.

    Raises:
        CannotProceed: the cluster does not exist, or the update failed.
    """
    off = sorted(TYPES - _enabled_types(outputs))
    if not off:
        report(f"All control-plane logs of {outputs.name} are on.")
        return
    report(f"{'Would turn' if dry_run else 'Turning'} on the control-plane logs {', '.join(off)}")
    if dry_run:
        return
    eks = aws_client("eks", outputs.region)
    logging = {"clusterLogging": [{"types": sorted(TYPES), "enabled": True}]}
    update_id = eks.update_cluster_config(name=outputs.name, logging=logging)["update"]["id"]

    def finished_update() -> dict[str, object] | None:
        update: dict[str, object] = eks.describe_update(name=outputs.name, updateId=update_id)["update"]
        return None if update["status"] == "InProgress" else update

    update = wait_for("EKS to turn on the logs", finished_update, timeout=_UPDATE_SECONDS)
    if update["status"] != "Successful":
        raise CannotProceed(f"the EKS update ended with status {update['status']}: {update.get('errors')}")


def _enabled_types(outputs: Outputs) -> set[str]:
    setups = describe_cluster(outputs).get("logging", {}).get("clusterLogging", [])
    return {kind for setup in setups if setup["enabled"] for kind in setup["types"]}
