"""Whether the service is on its way out: set by the server, told by `/readyz`, and by every answer meanwhile."""

from dataclasses import dataclass


@dataclass(slots=True)
class Lifecycle:
    """The state of this worker process."""

    draining: bool = False
