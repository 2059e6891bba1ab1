"""The first requests of a deployment: the three endpoints by their public name, over TLS that is checked."""

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any, Final

from ops.common.api_key import authorization
from ops.deploy.common import CannotProceed, say, wait_for

_ANSWER_SECONDS: Final = 10
_READY_SECONDS: Final = 300.0  # a new name takes a while to be known, and a new balancer to see its pods

# The same for a day, so that deployments add one client a day at most.
_CLIENT: Final = {"name": "Smoke test", "money": "0.01"}
_KEY: Final = {"Idempotency-Key": "smoke-test"}


class _Connection(http.client.HTTPSConnection):
    """HTTPS to a name, but at an address that may be another."""

    def __init__(self, hostname: str, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(hostname, context=context, timeout=_ANSWER_SECONDS)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection(self._address, _ANSWER_SECONDS)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class Smoke:
    """Asks the service, as a caller would."""

    def __init__(self, hostname: str, address: tuple[str, int] | None = None, authority: Path | None = None) -> None:
        """Nothing is asked yet.

        Args:
            hostname: that the certificate has to be for.
            address: where to connect, if not where the name leads.
            authority: a CA to trust instead of the machine's.

        Raises:
            CannotProceed: it is none.
        """
        self._hostname = hostname
        self._address = address or (hostname, 443)
        try:
            self._context = ssl.create_default_context(cafile=authority)
        except OSError as error:
            raise CannotProceed(f"the CA certificates cannot be had from {authority}: {error}") from None
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def run(self, *, seconds: float = _READY_SECONDS) -> None:
        """Waits until the service is ready, then asks each endpoint.

        Raises:
            CannotProceed: it did not get ready in that time, or an answer is not as it has to be.
        """
        reasons: list[str] = []

        def ready() -> bool | None:
            try:
                status, answer = self._ask("GET", "/readyz")
            except (OSError, http.client.HTTPException, ValueError) as error:
                reasons.append(f"{type(error).__name__}: {error}")
                return None
            reasons.append(f"{status}: {answer}")
            return status == http.HTTPStatus.OK or None

        try:
            wait_for(f"https://{self._hostname}/readyz", ready, seconds=seconds)
        except CannotProceed as error:
            raise CannotProceed(f"{error}; last, it was {reasons[-1]}") from None
        try:
            self._ask_all()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CannotProceed(f"https://{self._hostname}: {type(error).__name__}: {error}") from None

    def _ask_all(self) -> None:
        added = self._expect("POST", "/add?name=Smoke%20test&money=0.01", 201, _KEY)
        if not isinstance(added, dict) or "id" not in added:
            raise CannotProceed(f"POST /add says {added}, in which there is no id")
        found = self._expect("GET", f"/get/{added['id']}", 200)
        if found != {"id": added["id"], **_CLIENT}:
            raise CannotProceed(f"GET /get/{added['id']} says {found}, which is not what was added")
        clients = self._expect("GET", "/getall", 200)
        if not isinstance(clients, list):
            raise CannotProceed(f"GET /getall says {clients}, which is no list")
        if found not in clients:
            raise CannotProceed(f"GET /getall has {len(clients)} clients, and not the one that was added")
        say(f"https://{self._hostname} answers: client {added['id']} added, read, and one of {len(clients)}.")

    def _expect(self, method: str, path: str, status: int, headers: dict[str, str] | None = None) -> Any:
        got, answer = self._ask(method, path, headers)
        if got != status:
            raise CannotProceed(f"{method} {path} was answered with {got} instead of {status}: {answer}")
        return answer

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        connection = _Connection(self._hostname, self._address, self._context)
        try:
            connection.request(method, path, headers={**authorization(), **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()
