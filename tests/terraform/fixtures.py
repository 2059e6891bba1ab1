"""Runs the real Terraform on a copy of terraform/, since it writes files next to what it reads."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from ops.common.process import ROOT
from tests.missing import missing

_SECONDS: Final = 600


def run_terraform(folder: Path, *arguments: str, **variables: str) -> str:
    """Runs Terraform in the folder, with only these environment variables; returns its output.

    The test is skipped where Terraform is missing.
    """
    if not shutil.which("terraform"):
        missing("terraform is missing")
    done = subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments],  # noqa: S607 - PATH says where it is
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_terraform(target: Path) -> Path:
    """Copies terraform/, with what it reads of ops/, and without its tests; returns the copied folder."""
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "bootstrap", "*.tftest.hcl")
    shutil.copytree(ROOT / "terraform", target / "terraform", ignore=ignored)
    shutil.copytree(ROOT / "ops" / "cloudwatch", target / "ops" / "cloudwatch")
    return target / "terraform"


def init_with_provider(folder: Path) -> dict[str, str]:
    """Initialises the folder without a backend; returns the variables with which Terraform finds its provider.

    The provider comes from its registry or from a folder on this machine. The test is skipped where there is none.
    """
    inherited = {name: os.environ[name] for name in ("TF_CLI_CONFIG_FILE",) if name in os.environ}
    init = functools.partial(run_terraform, folder, "init", "-backend=false", "-input=false")
    try:
        init(**inherited)
    except AssertionError:
        command = ["bash", str(ROOT / ".ci" / "mirror")]
        mirror = subprocess.run(command, capture_output=True, text=True, check=False)
        config = folder / "terraformrc"
        config.write_text(mirror.stdout)
        inherited = {"TF_CLI_CONFIG_FILE": str(config)}
        if mirror.returncode:
            missing("Terraform's AWS provider is neither in its registry nor on this machine")
        init(**inherited)
    return inherited


def block(kind: str, file: str) -> str:
    """Returns the only block of a file of terraform/ that starts with these words, with its braces."""
    text = (ROOT / "terraform" / file).read_text()
    (found,) = re.findall(rf"^( *){re.escape(kind)} (\{{.*?^\1\}})", text, re.MULTILINE | re.DOTALL)
    return f"{kind} {found[1]}"
