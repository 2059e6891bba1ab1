"""Whom a load test may load."""

from urllib.parse import urlsplit

from ops.common.loopback import is_loopback


class Refused(Exception):
    """A load test that must not be run."""


def check(url: str, *, is_owned: bool) -> None:
    """Makes sure that the load goes to this machine, or to one that the person who asks for it says is theirs.

    Raises:
        Refused: with the reason.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Refused(f"{url!r} is no URL of a service, such as http://127.0.0.1:8080.")
    if not is_owned and not is_loopback(url):
        raise Refused(
            f"{url} is not an address of loopback such as http://127.0.0.1:8080. A load test can look like an attack "
            "and cost money; if the service there is yours to load, say --i-own-this-host."
        )
