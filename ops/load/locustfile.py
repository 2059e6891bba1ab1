"""The locustfile. `python -m ops.load` starts Locust with it; `locust -f ops/load/locustfile.py` works too.

Here, a Locust user is a source of requests. Each process runs one source, and the sources share the rate. A source
schedules its requests in advance, and no response delays them. Locust runs the sources, in one process or in many on
many machines, and serves its web page.
"""

import logging
import random
import uuid
from typing import Any, Final

from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner, WorkerRunner

from ops.load import target
from ops.load.client import Api, RequestFailed
from ops.load.scenarios import SCENARIOS
from ops.load.session import MESSAGE, Session
from ops.load.source import Source

FOLDER: Final = ".local/load"

_PREPARED_CLIENTS: Final = 20  # few are enough for get: the database keeps its hot rows in memory anyway


def add_options(parser: LocustArgumentParser) -> None:
    """Adds the options of a run, which Locust's web page offers too."""
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="mixed", help="which requests to send")
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second (0: the scenario's rate)")
    parser.add_argument("--duration", type=int, default=0, help="seconds (0: the scenario's duration)")
    parser.add_argument("--output", default=FOLDER, help="folder for the results", include_in_web_ui=False)
    parser.add_argument(
        "--i-own-this-host",
        action="store_true",
        help="confirm that you may load a service that is not on this machine",
        include_in_web_ui=False,
    )


def start_session(environment: Environment, **_: Any) -> None:
    """Gathers results in the process that starts and stops runs."""
    # Locust's own summary would repeat the report in another form.
    logging.getLogger("locust.stats_logger").disabled = True
    if not isinstance(environment.runner, WorkerRunner):
        Session(environment)


class SourceUser(User):
    """Sends one source's share of the requests."""

    @task
    def run_source(self) -> None:
        """Runs the source from start to end; Locust calls this once."""
        error = ""
        try:
            self._run_source()
        except (target.Refused, RequestFailed) as reason:
            error = str(reason)
        self._report({"seen": [], "late": [], "cpu": []}, error=error, is_last=True)
        raise StopUser

    def _run_source(self) -> None:
        options = self.environment.parsed_options
        assert options is not None
        url = str(self.environment.host)
        target.check(url, is_owned=options.i_own_this_host)
        name = uuid.uuid4().hex[:8]
        api = Api(url, options.run_id, name)
        source = Source(api, api.prepare(_PREPARED_CLIENTS), self._report, self._report_to_locust)
        scenario = SCENARIOS[options.scenario]
        source.run(scenario, options.rate / options.sources, options.duration, random.Random(name))

    def _report(self, observations: dict[str, Any], *, error: str = "", is_last: bool = False) -> None:
        runner = self.environment.runner
        assert isinstance(runner, (LocalRunner, WorkerRunner))
        runner.send_message(MESSAGE, {**observations, "error": error, "is_last": is_last})

    def _report_to_locust(self, endpoint: str, milliseconds: float, failure: RequestFailed | None) -> None:
        self.environment.events.request.fire(
            request_type="POST" if endpoint == "add" else "GET",
            name=endpoint,
            response_time=milliseconds,
            response_length=0,
            exception=failure,
            context={},
        )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(start_session)
