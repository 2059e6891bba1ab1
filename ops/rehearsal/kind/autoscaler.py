#!/opt/venv/bin/python
"""A stand-in for the autoscaler of the nodes: a program of its name, which only reports that it is healthy."""

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT = 8085  # of k8s/autoscaler


class Health(BaseHTTPRequestHandler):
    """Responds to the probes."""

    def do_GET(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("", PORT), Health).serve_forever()
