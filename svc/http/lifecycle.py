"""Whether the service is draining. The server sets it; `/readyz` then responds with 503, and connections close."""

from dataclasses import dataclass


@dataclass(slots=True)
class Lifecycle:
    """The state of this worker process."""

    draining: bool = False
