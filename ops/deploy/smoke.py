"""The smoke test of a deployment: requests to the three endpoints by the public name, with TLS verified.

It changes nothing: it reads a client, and sends an add that the service has to refuse. Whether the service may add is a
part of its readiness.
"""

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any, Final

from ops.common.api_key import authorization
from ops.deploy.common import CannotProceed, report, wait_for

_REQUEST_SECONDS: Final = 10
_READY_SECONDS: Final = 300.0  # a new DNS name and the health checks of a new load balancer both need time


class _Connection(http.client.HTTPSConnection):
    """An HTTPS connection that verifies one hostname but may connect to another address."""

    def __init__(self, hostname: str, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(hostname, context=context, timeout=_REQUEST_SECONDS)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection(self._address, _REQUEST_SECONDS)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class SmokeTest:
    """Calls the service as a client would."""

    def __init__(self, hostname: str, address: tuple[str, int] | None = None, ca_file: Path | None = None) -> None:
        """Sends nothing yet.

        Args:
            hostname: the name that the certificate must be for.
            address: where to connect, if not to the address of the hostname.
            ca_file: the CA certificates to trust instead of the machine's.

        Raises:
            CannotProceed: the CA certificates cannot be read.
        """
        self._hostname = hostname
        self._address = address or (hostname, 443)
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise CannotProceed(f"cannot read CA certificates from {ca_file}: {error}") from None
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def run(self, *, timeout: float = _READY_SECONDS) -> None:
        """Waits until the service is ready, then calls each endpoint.

        Raises:
            CannotProceed: the service was not ready in time, or a response is wrong.
        """
        attempts: list[str] = []

        def is_ready() -> bool | None:
            try:
                status, body = self._request("GET", "/readyz")
            except (OSError, http.client.HTTPException, ValueError) as error:
                attempts.append(f"{type(error).__name__}: {error}")
                return None
            attempts.append(f"{status}: {body}")
            return status == http.HTTPStatus.OK or None

        try:
            wait_for(f"https://{self._hostname}/readyz", is_ready, timeout=timeout)
        except CannotProceed as error:
            raise CannotProceed(f"{error}; the last result was {attempts[-1]}") from None
        try:
            self._check_endpoints()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CannotProceed(f"https://{self._hostname}: {type(error).__name__}: {error}") from None

    def _check_endpoints(self) -> None:
        clients = self._expect("GET", "/getall?limit=1", 200)
        if not isinstance(clients, list) or not all(isinstance(client, dict) and "id" in client for client in clients):
            raise CannotProceed(f"GET /getall?limit=1 returned {clients}, which is not a list of clients")
        for client in clients:  # none in an empty database
            path = f"/get/{client['id']}"
            found = self._expect("GET", path, 200)
            if found != client:
                raise CannotProceed(f"GET {path} returned {found}, but /getall has {client}")
        self._expect("POST", "/add", 400)  # without a name and money
        report(f"https://{self._hostname} works: listed and read {len(clients)} client; an empty add was refused.")

    def _expect(self, method: str, path: str, expected: int) -> Any:
        status, body = self._request(method, path)
        if status != expected:
            raise CannotProceed(f"{method} {path} returned {status} instead of {expected}: {body}")
        return body

    def _request(self, method: str, path: str) -> tuple[int, Any]:
        connection = _Connection(self._hostname, self._address, self._context)
        try:
            connection.request(method, path, headers=authorization())
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()
