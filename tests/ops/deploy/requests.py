"""Requests to the service's pods while something is done to them, and what came of each."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final

from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import roll_out
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object
from tests.ops.deploy.fixtures import Account
from tests.patience import PATIENCE_SECONDS, PATIENT_SERVICE

_PAUSE_SECONDS: Final = 0.05


def deploy(account: Account, production: Sequence[Object], settings: Mapping[str, str]) -> None:
    """Rolls the service out as one patient pod, with these settings; its database has to be prepared before."""
    objects = deepcopy(list(production))
    for one in objects:
        if one["kind"] == "HorizontalPodAutoscaler":
            one["spec"]["minReplicas"] = 1
        if one["kind"] == "ConfigMap" and "DRAIN_SECONDS" in one["data"]:
            one["data"] |= {**PATIENT_SERVICE, **settings}
    roll_out(Kubernetes(account.outputs), objects)


@dataclass(frozen=True)
class Sent:
    """A request that was sent.

    Attributes:
        what: add or get.
        status: of the response; 0 without one.
        detail: the reason why there is none, or the body.
        client: the name of the client that was added, or empty. Two databases may give an id twice.
        at: when the response was read, by time.monotonic().
    """

    what: str
    status: int
    detail: str
    client: str
    at: float


@dataclass
class Callers:
    """Callers that add a client and get a seeded one, in turn, each on a connection of its own to a ready pod.

    Attributes:
        controllers: run the pods.
        sent: all requests so far.
    """

    controllers: Controllers
    sent: list[Sent] = field(default_factory=list)

    @contextmanager
    def calling(self) -> Iterator["Callers"]:
        """Sends requests until the context is left."""
        stopping = threading.Event()

        def call() -> None:
            for number in itertools.count():
                if stopping.is_set():
                    return
                self._send(number)
                time.sleep(_PAUSE_SECONDS)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stopping.set()
            thread.join()

    def statuses(self, what: str) -> set[int]:
        return {one.status for one in self.sent if one.what == what}

    def added(self) -> dict[str, float]:
        """The names of all acknowledged clients, and when each was acknowledged."""
        return {one.client: one.at for one in self.sent if one.client}

    def wait_for(self, count: int, status: int) -> None:
        """Waits until so many more adds had this status."""
        end = time.monotonic() + PATIENCE_SECONDS
        start = len(self.sent)
        while sum(one.what == "add" and one.status == status for one in self.sent[start:]) < count:
            assert time.monotonic() < end, self.sent[-5:]
            time.sleep(_PAUSE_SECONDS)

    def _send(self, number: int) -> None:
        what, method, path = ("add", "POST", f"/add?name=Caller%20{number}&money=1") if number % 2 else _GET
        status, client = 0, ""
        try:
            address = self.controllers.next_pod()
            assert address, "there is no ready pod"
            connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
            try:
                connection.request(method, path)
                response = connection.getresponse()
                status, detail = response.status, response.read().decode()
            finally:
                connection.close()
            client = f"Caller {number}" if status == http.client.CREATED else ""
        except (OSError, http.client.HTTPException, AssertionError) as error:
            detail = f"{type(error).__name__}: {error}"
        self.sent.append(Sent(what, status, detail, client, time.monotonic()))


_GET: Final = ("get", "GET", "/get/1")
