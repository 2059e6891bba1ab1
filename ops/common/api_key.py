"""The API key with which the tools of this repository call the service, where it requires one."""

import os


def authorization() -> dict[str, str]:
    """The `Authorization` header with the key in `API_KEY`, or no header where that is not set.

    The key comes from the environment because other users of the machine can read command lines.
    """
    key = os.environ.get("API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
