"""Tests of the service itself."""

from typing import Final

import pytest

from tests.patience import PATIENCE_SECONDS

# The bounds of a service in the tests' own process that no setting changes.
_BOUNDS: Final = (
    "svc.http.connections.HEAD_SECONDS",
    "svc.http.connections.WRITE_SECONDS",
    "svc.http.fields.BODY_SECONDS",
    "svc.postgres.maintenance._CONNECT_SECONDS",
    "svc.site.health.READY_SECONDS",
    "svc.telemetry.traces._STOP_SECONDS",
)


@pytest.fixture(autouse=True)
def patient_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose subject is one of the bounds sets its own value."""
    for bound in _BOUNDS:
        monkeypatch.setattr(bound, PATIENCE_SECONDS)
