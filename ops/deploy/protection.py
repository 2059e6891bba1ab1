"""The protection of cluster and database from deletion: on while they are deployed, off before they are destroyed.

Terraform turns on that of the database. It does not manage the cluster's: version 5 of its AWS provider does not have
the attribute.
"""

from contextlib import suppress

from ops.deploy.common import Outputs, aws_client, report
from ops.deploy.kubernetes import NoCluster, describe_cluster, update_cluster


def turn_on(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Lets EKS refuse to delete the cluster, and waits until EKS has finished.

    Raises:
        CannotProceed: the cluster does not exist, or the update failed.
    """
    _set_of_cluster(outputs, is_protected=True, dry_run=dry_run)


def turn_off(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Lets AWS delete cluster and database, and waits until EKS has finished; skips what is already gone.

    Raises:
        CannotProceed: the update of the cluster failed.
    """
    with suppress(NoCluster):
        _set_of_cluster(outputs, is_protected=False, dry_run=dry_run)
    turn_off_of_database(outputs, outputs.database_identifier, dry_run=dry_run)


def turn_off_of_database(outputs: Outputs, identifier: str, *, dry_run: bool = False) -> None:
    """Lets RDS delete this database, if it exists."""
    rds = aws_client("rds", outputs.region)
    with suppress(rds.exceptions.DBInstanceNotFoundFault):
        (described,) = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
        if _has_to_change(f"database {identifier}", described["DeletionProtection"], is_wanted=False, dry_run=dry_run):
            rds.modify_db_instance(DBInstanceIdentifier=identifier, DeletionProtection=False, ApplyImmediately=True)


def _set_of_cluster(outputs: Outputs, *, is_protected: bool, dry_run: bool) -> None:
    present = describe_cluster(outputs).get("deletionProtection", False)
    if _has_to_change(f"cluster {outputs.name}", present, is_wanted=is_protected, dry_run=dry_run):
        update_cluster(outputs, f"EKS to turn {_name(is_protected)} the protection", deletionProtection=is_protected)


def _has_to_change(what: str, is_protected: bool, *, is_wanted: bool, dry_run: bool) -> bool:
    """Reports what happens to the protection; returns whether it has to change now."""
    if is_protected is is_wanted:
        report(f"The protection of the {what} from deletion is {_name(is_wanted)}.")
        return False
    report(f"{'Would turn' if dry_run else 'Turning'} {_name(is_wanted)} the protection of the {what} from deletion")
    return not dry_run


def _name(is_on: bool) -> str:
    return "on" if is_on else "off"
