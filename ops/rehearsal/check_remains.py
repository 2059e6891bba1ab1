"""Checks after destroy: in AWS is only what was there before, and what docs/deploying.md says that remains."""

import json
import os
import re
from pathlib import Path

from ops.rehearsal.aws import inventory
from ops.rehearsal.environment import NAME

# The resources of bootstrap, and the databases' backups with their final snapshots.
REMAINING = re.compile(rf"bucket: .*|OIDC provider: .*|role: {NAME}-github-.*|database snapshot: (rds:)?{NAME}-.*")


def test_nothing_else_remains_in_aws() -> None:
    """Of all kinds of resources that Terraform, the cluster or the commands create."""
    before = json.loads(Path(os.environ["REHEARSAL_INVENTORY"]).read_text())

    assert [one for one in sorted(inventory().difference(before)) if not REMAINING.fullmatch(one)] == []
