"""Decides which service a load test may load."""

from urllib.parse import urlsplit

from ops.common.loopback import is_loopback


class Refused(Exception):
    """The load test must not run against this URL."""


def check(url: str, *, is_owned: bool) -> None:
    """Makes sure that the load goes to this machine, or to a service that the user says is theirs.

    Raises:
        Refused: with the reason.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Refused(f"{url!r} is not the URL of a service, such as http://127.0.0.1:8080.")
    if not is_owned and not is_loopback(url):
        raise Refused(
            f"{url} is not an address of loopback such as http://127.0.0.1:8080. A load test can look like an attack "
            "and cost money. If you may load the service there, add --i-own-this-host."
        )
