"""What Locust runs: `python -m ops.load` starts it, and `locust -f ops/load/locustfile.py` may as well.

Locust's users are sources of requests here, one in each process, that share the rate: what they send is scheduled
beforehand, and no answer holds it up. Locust runs them, in one process or in many on many machines, and has its page.
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
from ops.load.client import Api, Failed
from ops.load.scenarios import SCENARIOS
from ops.load.session import MESSAGE, Session
from ops.load.source import Source

FOLDER: Final = ".local/load"

_PREPARED: Final = 20  # clients to get; the database has its hot rows in memory in any case


def add_options(parser: LocustArgumentParser) -> None:
    """What a run can be told; Locust's page asks for it too."""
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="mixed", help="what is asked")
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second; 0: as the scenario has it")
    parser.add_argument("--duration", type=int, default=0, help="seconds; 0: as the scenario has it")
    parser.add_argument("--output", default=FOLDER, help="folder of the results", include_in_web_ui=False)
    parser.add_argument(
        "--i-own-this-host",
        action="store_true",
        help="load a service that is not on this machine",
        include_in_web_ui=False,
    )


def begin(environment: Environment, **_: Any) -> None:
    """Whoever starts and stops a run gathers what comes of it."""
    # What Locust prints are its own words for what the report has.
    logging.getLogger("locust.stats_logger").disabled = True
    if not isinstance(environment.runner, WorkerRunner):
        Session(environment)


class Sender(User):
    """Sends its share of the requests."""

    @task
    def send(self) -> None:
        """The whole run: Locust calls it once."""
        error = ""
        try:
            self._send()
        except (target.Refused, Failed) as reason:
            error = str(reason)
        self._report({"seen": [], "late": [], "cpu": []}, error=error, is_last=True)
        raise StopUser

    def _send(self) -> None:
        options = self.environment.parsed_options
        assert options is not None
        url = str(self.environment.host)
        target.check(url, is_owned=options.i_own_this_host)
        mark = uuid.uuid4().hex[:8]
        api = Api(url, options.run_id, mark)
        source = Source(api, api.prepare(_PREPARED), self._report, self._tell_locust)
        scenario = SCENARIOS[options.scenario]
        source.run(scenario, options.rate / options.sources, options.duration, random.Random(mark))

    def _report(self, seen: dict[str, Any], *, error: str = "", is_last: bool = False) -> None:
        runner = self.environment.runner
        assert isinstance(runner, (LocalRunner, WorkerRunner))
        runner.send_message(MESSAGE, {**seen, "error": error, "is_last": is_last})

    def _tell_locust(self, endpoint: str, milliseconds: float, failed: Failed | None) -> None:
        self.environment.events.request.fire(
            request_type="POST" if endpoint == "add" else "GET",
            name=endpoint,
            response_time=milliseconds,
            response_length=0,
            exception=failed,
            context={},
        )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(begin)
