"""The key of whoever calls the API from here, where it wants one."""

import os


def authorization() -> dict[str, str]:
    """The header that carries the key in `API_KEY`, which no command line shows; none where it is not set."""
    key = os.environ.get("API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
