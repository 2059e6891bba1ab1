"""The cluster's objects: kustomize puts them together, with what only a deployment knows filled in."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from ops.deploy.common import CannotProceed, Outputs, say
from ops.deploy.kubernetes import Kubernetes, kubectl

_ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = _ROOT / "k8s"
OVERLAYS: Final = sorted(overlay.name for overlay in (FOLDER / "overlays").iterdir())
APPLIED: Final = ("production", "monitoring")  # the third is the database's step, which knows when

_BY_DIGEST: Final = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_CONFIGURATIONS: Final = ("ops/fluent-bit", "ops/adot")  # of what k8s/telemetry runs
_VALUES: Final = "deployment.env"  # of each overlay: the names of the values that it wants


def render(overlay: str, outputs: Outputs, image: str) -> str:
    """The overlay's objects as YAML.

    Args:
        overlay: a folder of k8s/overlays.
        outputs: of Terraform.
        image: the service's, by digest: name@sha256:…

    Raises:
        CannotProceed: the overlay wants what is not known, or kustomize does not take it.
    """
    if not _BY_DIGEST.fullmatch(image):
        raise CannotProceed(f"the image {image} is not named by digest (name@sha256:…), so what runs could change")
    known = {
        "IMAGE": image,
        "CLUSTER": outputs.name,
        "REGION": outputs.region,
        "KUBERNETES_VERSION": outputs.kubernetes_version,
        "CLUSTER_RANGE": outputs.cluster_range,
        "DATABASE_RANGE": outputs.database_range,
        "CERTIFICATE_ARN": outputs.certificate_arn,
    }
    with tempfile.TemporaryDirectory(prefix="k8s-") as folder:
        copy = Path(folder, FOLDER.name)
        shutil.copytree(FOLDER, copy)
        for configuration in _CONFIGURATIONS:
            shutil.copytree(_ROOT / configuration, Path(folder, configuration))
        for values in (copy / "overlays" / overlay).glob(_VALUES):
            wanted = [line.partition("=")[0] for line in values.read_text().splitlines() if line[:1].isalpha()]
            if missing := [name for name in wanted if not known.get(name)]:
                raise CannotProceed(f"{overlay} wants {', '.join(missing)}, of which nothing is known")
            values.write_text("".join(f"{name}={known[name]}\n" for name in wanted))
        return kubectl(["kustomize", str(copy / "overlays" / overlay)], {"HOME": folder})


def apply(overlay: str, outputs: Outputs, image: str, *, dry_run: bool = False) -> None:
    """Makes the cluster's objects what the overlay says, or shows them."""
    manifests = render(overlay, outputs, image)
    say(manifests if dry_run else Kubernetes(outputs).apply(manifests).rstrip())
