"""The control plane's logs: all five types are on, whatever became of them since Terraform ran."""

from typing import Final

from ops.deploy.common import CannotProceed, Outputs, aws, say, wait_for
from ops.deploy.kubernetes import describe

TYPES: Final = frozenset({"api", "audit", "authenticator", "controllerManager", "scheduler"})

_UPDATE_SECONDS: Final = 900.0  # EKS takes some minutes


def turn_on(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Turns on those that are off, and waits until EKS has done so.

    Raises:
        CannotProceed: there is no such cluster, or EKS could not.
    """
    off = sorted(TYPES - _on(outputs))
    if not off:
        say(f"All of {outputs.name}'s control-plane logs are on.")
        return
    say(f"Turning on {', '.join(off)}{', if this were no dry run' if dry_run else ''}")
    if dry_run:
        return
    eks = aws("eks", outputs.region)
    logging = {"clusterLogging": [{"types": sorted(TYPES), "enabled": True}]}
    update = eks.update_cluster_config(name=outputs.name, logging=logging)["update"]["id"]

    def ended() -> dict[str, object] | None:
        told: dict[str, object] = eks.describe_update(name=outputs.name, updateId=update)["update"]
        return None if told["status"] == "InProgress" else told

    result = wait_for("EKS to turn them on", ended, seconds=_UPDATE_SECONDS)
    if result["status"] != "Successful":
        raise CannotProceed(f"EKS ended the update as {result['status']}: {result.get('errors')}")


def _on(outputs: Outputs) -> set[str]:
    told = describe(outputs).get("logging", {}).get("clusterLogging", [])
    return {kind for setup in told if setup["enabled"] for kind in setup["types"]}
