"""Fixtures of the mock AWS and of a cluster. Not a plugin of all tests: moto takes more than a second to import."""

from tests.ops.deploy.fixtures import (
    create_account,
    make_run,
    render_production,
    run_empty_cluster,
    run_mock_aws,
    wrap_kubectl,
)

__all__ = [
    "create_account",
    "make_run",
    "render_production",
    "run_empty_cluster",
    "run_mock_aws",
    "wrap_kubectl",
]
