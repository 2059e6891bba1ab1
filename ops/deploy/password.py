"""Changes the password of the service's role without a refused request.

The service has two roles with the same rights, and uses one. The other gets a new password, then the pods move to it in
an ordinary rollout, then the first loses its password. At each moment, every pod has a password that the database
accepts, however late it starts or stops.
"""

from ops.deploy import database
from ops.deploy.common import Outputs, report
from ops.deploy.database import SERVICE_ROLES, Jobs
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import require_release, wait_for_old_pods


def rotate(outputs: Outputs, ca_bundle: str, *, dry_run: bool = False) -> None:
    """Moves the service to its other role, with a new password, and takes the old role's password.

    Args:
        outputs: of Terraform.
        ca_bundle: a URL or a file of the database's CA certificates.
        dry_run: only check what exists, and print what would change.

    Raises:
        CannotProceed: with the reason. A later run continues or starts again; no pod is ever refused.
    """
    instance = database.find(outputs)
    bundle = database.read_ca_bundle(ca_bundle)
    cluster = Kubernetes(outputs)
    current = database.service_credentials(cluster, instance)
    (other,) = (role for role in SERVICE_ROLES if role != current["DB_USERNAME"])
    if dry_run:
        report(f"Would give {other} a new password, move the pods from {current['DB_USERNAME']} to it")
        return
    image = require_release(cluster)  # the database has its migrations
    # An earlier run may have failed amid its rollout: then some pods still use the other role, and must move first.
    _move_completely(cluster, current)
    jobs = Jobs(cluster, outputs, image, bundle)
    new = {**current, "DB_USERNAME": other, "DB_PASSWORD": database.new_password()}
    jobs.migrate(instance, new)
    _move_completely(cluster, new)
    jobs.maintain(instance, new, "revoke")
    report(f"The service logs in as {other} with a new password; {current['DB_USERNAME']} has none.")


def _move_completely(cluster: Kubernetes, service: dict[str, str]) -> None:
    database.move(cluster, service)
    wait_for_old_pods(cluster)
