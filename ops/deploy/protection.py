"""The cluster's protection from deletion: on from `make apply` until teardown.

Terraform does not manage it: version 5 of its AWS provider does not have the attribute.
"""

from ops.deploy.common import Outputs, report
from ops.deploy.kubernetes import describe_cluster, update_cluster


def turn_on(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Lets EKS refuse to delete the cluster, and waits until EKS has finished.

    Raises:
        CannotProceed: the cluster does not exist, or the update failed.
    """
    _set(outputs, is_protected=True, dry_run=dry_run)


def turn_off(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Lets EKS delete the cluster, and waits until EKS has finished.

    Raises:
        CannotProceed: as `turn_on`.
    """
    _set(outputs, is_protected=False, dry_run=dry_run)


def _set(outputs: Outputs, *, is_protected: bool, dry_run: bool) -> None:
    state = "on" if is_protected else "off"
    if describe_cluster(outputs).get("deletionProtection", False) is is_protected:
        report(f"The protection of {outputs.name} from deletion is {state}.")
        return
    report(f"{'Would turn' if dry_run else 'Turning'} {state} the protection of {outputs.name} from deletion")
    if not dry_run:
        update_cluster(outputs, f"EKS to turn {state} the protection", deletionProtection=is_protected)
