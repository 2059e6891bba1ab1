"""The logs of the EKS control plane: on while the cluster is deployed, and off before it is destroyed."""

from typing import Final

from ops.deploy.common import Outputs, report
from ops.deploy.kubernetes import describe_cluster, update_cluster

TYPES: Final = frozenset({"api", "audit", "authenticator", "controllerManager", "scheduler"})


def turn_on(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Turns on all five log types, even if somebody turned some off after Terraform ran; waits until EKS has finished.

    Raises:
        CannotProceed: the cluster does not exist, or the update failed.
    """
    off = TYPES - _enabled_types(outputs)
    if not off:
        report(f"All control-plane logs of {outputs.name} are on.")
        return
    report(f"{'Would turn' if dry_run else 'Turning'} on the control-plane logs {', '.join(sorted(off))}")
    if not dry_run:
        _update(outputs, "on", {"types": sorted(TYPES), "enabled": True})


def turn_off(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Turns off the log types that are on, and waits until EKS has finished.

    EKS delivers a cluster's last lines after it has deleted the cluster. It would then create the log group again that
    Terraform has just deleted, and Terraform could not create it in the next deployment.

    Raises:
        CannotProceed: the cluster does not exist, or the update failed.
    """
    on = sorted(_enabled_types(outputs))
    if not on:
        report(f"All control-plane logs of {outputs.name} are off.")
        return
    report(f"{'Would turn' if dry_run else 'Turning'} off the control-plane logs {', '.join(on)}")
    if not dry_run:
        _update(outputs, "off", {"types": on, "enabled": False})


def _update(outputs: Outputs, state: str, setup: dict[str, object]) -> None:
    update_cluster(outputs, f"EKS to turn {state} the logs", logging={"clusterLogging": [setup]})


def _enabled_types(outputs: Outputs) -> set[str]:
    setups = describe_cluster(outputs).get("logging", {}).get("clusterLogging", [])
    return {kind for setup in setups if setup["enabled"] for kind in setup["types"]}
