"""The Kubernetes objects: kustomize renders an overlay after the values of this deployment are filled in."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import yaml

from ops.deploy.common import CannotProceed, Outputs, report
from ops.deploy.kubernetes import Kubernetes, Object, kubectl
from ops.deploy.rollout import ROLLOUT_SECONDS, roll_out

_ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = _ROOT / "k8s"
OVERLAYS: Final = sorted(overlay.name for overlay in (FOLDER / "overlays").iterdir())
ENVIRONMENTS: Final = ("production", "staging")
APPLIED: Final = (*ENVIRONMENTS, "monitoring")  # the others are Jobs, which ops/deploy/database.py runs

_BY_DIGEST: Final = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_CONFIGURATIONS: Final = ("ops/fluent-bit", "ops/adot")  # the configuration files that k8s/telemetry includes
_VALUES_FILE: Final = "deployment.env"  # in an overlay: the names of the values that it needs


def render(overlay: str, outputs: Outputs, image: str, command: str = "inspect") -> str:
    """Returns the overlay's objects as YAML.

    Args:
        overlay: a folder of k8s/overlays.
        outputs: of Terraform.
        image: the service's image by digest: name@sha256:…
        command: of the Job of the overlay `maintenance`.

    Raises:
        CannotProceed: the overlay needs a value that is unknown, or kustomize fails.
    """
    if not _BY_DIGEST.fullmatch(image):
        raise CannotProceed(f"the image {image} has no digest (name@sha256:…), so its content could change")
    values = {
        "IMAGE": image,
        "COMMAND": command,
        "CLUSTER": outputs.name,
        "REGION": outputs.region,
        "AUTOSCALER_VERSION": outputs.autoscaler_version,
        "CLUSTER_RANGE": outputs.cluster_range,
        "DATABASE_RANGE": outputs.database_range,
        "CERTIFICATE_ARN": outputs.certificate_arn,
        "BALANCER_LOGS": outputs.balancer_logs,
    }
    with tempfile.TemporaryDirectory(prefix="k8s-") as folder:
        copy = Path(folder, FOLDER.name)
        shutil.copytree(FOLDER, copy)
        for configuration in _CONFIGURATIONS:
            shutil.copytree(_ROOT / configuration, Path(folder, configuration))
        for file in (copy / "overlays").glob(f"*/{_VALUES_FILE}"):  # all, because an overlay may include another
            needed = [line.partition("=")[0] for line in file.read_text().splitlines() if line[:1].isalpha()]
            if unknown := [name for name in needed if not values.get(name)]:
                raise CannotProceed(f"the overlay {file.parent.name} needs a value for {', '.join(unknown)}")
            file.write_text("".join(f"{name}={values[name]}\n" for name in needed))
        return kubectl(["kustomize", str(copy / "overlays" / overlay)], {"HOME": folder})


def parse(manifests: str) -> list[Object]:
    """Returns the objects of rendered manifests."""
    return list(yaml.safe_load_all(manifests))


def apply(
    overlay: str, outputs: Outputs, image: str, *, timeout: float = ROLLOUT_SECONDS, dry_run: bool = False
) -> None:
    """Applies the overlay's objects to the cluster, and waits for their pods; a dry run prints the objects.

    Raises:
        CannotProceed: as `render` and `rollout.roll_out`.
    """
    manifests = render(overlay, outputs, image)
    if dry_run:
        report(manifests)
        return
    roll_out(Kubernetes(outputs), parse(manifests), timeout=timeout)
