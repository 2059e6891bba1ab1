"""HAProxy, as Debian's package has it: where its program is, and what it says of its servers."""

import csv
import shutil
import socket

_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"  # a user's PATH often lacks the first two


def find() -> str | None:
    """Returns the path of the program, or None if it is not installed."""
    return shutil.which("haproxy", path=_PATH)


def parse_statistics(text: str) -> dict[str, dict[str, str]]:
    """Returns each server's values by their names, of the response to `show stat PROXY 4 -1`: 4 means servers only."""
    return {row["svname"]: row for row in csv.DictReader(filter(None, text.lstrip("# ").splitlines()))}


def command(port: int, text: str) -> str:
    """Sends a command to the runtime API on this port of 127.0.0.1, and returns the response."""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as api:
        api.write(f"{text}\n")
        api.flush()
        return api.read()
