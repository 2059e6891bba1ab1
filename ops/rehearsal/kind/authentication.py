"""What EKS does with the tokens of its callers: an authentication webhook, which the API server asks about each token.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
"""

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from ops.rehearsal.certificates import Certificate
from ops.rehearsal.environment import is_eks_token
from ops.rehearsal.kubernetes import Object

_USER: Final = {"username": "rehearsal", "groups": ["system:masters"]}


@contextlib.contextmanager
def running(host: str, certificate: Certificate) -> Iterator[str]:
    """Runs the webhook, and gives its URL.

    Args:
        host: the address of this machine that the API server reaches.
        certificate: for that address.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with ThreadingHTTPServer((host, 0), _Webhook) as server:
        # Each connection's own thread shakes hands, so that none waits for another.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, name="authentication", daemon=True)
        thread.start()
        yield f"https://{host}:{server.server_port}/"
        server.shutdown()
        thread.join()


def config(url: str, ca: Certificate) -> Object:
    """Returns the API server's configuration of the webhook, which has the form of a kubeconfig."""
    encoded = base64.b64encode(ca.certificate.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "eks", "cluster": {"server": url, "certificate-authority-data": encoded}}],
        "users": [{"name": "api-server", "user": {}}],
        "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "api-server"}}],
        "current-context": "eks",
    }


class _Webhook(BaseHTTPRequestHandler):
    """Answers a TokenReview: a token of EKS gives all permissions, as the administrators of the cluster have."""

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_valid = is_eks_token(review["spec"]["token"])
        review["status"] = {"authenticated": True, "user": _USER} if is_valid else {"authenticated": False}
        body = json.dumps(review).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Writes nothing: the API server logs what it needs."""
