"""Gathers the reports of a run's sources, and ends the run with a verdict. Only Locust's processes import this."""

import itertools
import uuid
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import Greenlet
from locust.env import Environment
from locust.rpc import Message

from ops.common import console, machine
from ops.load import report, verdict
from ops.load.measurements import FILE, Measurements
from ops.load.scenarios import SCENARIOS
from ops.load.verdict import Result

MESSAGE: Final = "measured"  # the type of Locust message in which sources report

_PACKAGES: Final = ("locust", "gevent", "geventhttpclient")

# Exit statuses. An invalid command line has 2 as well.
_STATUSES: Final = {Result.MET: 0, Result.MISSED: 1, Result.UNKNOWN: 3}
COULD_NOT_RUN: Final = 2


class Session:
    """All runs of a Locust process that is not a worker: one, or as many as are started on its web page.

    Args:
        environment: Locust's.
    """

    def __init__(self, environment: Environment) -> None:
        assert environment.runner is not None
        self._environment = environment
        self._runner = environment.runner
        self._runner.register_message(MESSAGE, self.receive)
        self._measurements = Measurements({})
        self._running = 0
        self._failed_sources = 0
        self._progress = Greenlet()
        environment.events.test_start.add_listener(self.start_run)
        environment.events.test_stop.add_listener(self.end_run)
        # An interrupted run gets a verdict too. Locust asks for the exit status right after this event.
        environment.events.quitting.add_listener(lambda **_: self._runner.stop())

    def start_run(self, **_: Any) -> None:
        """Gives the run its id, and passes its parameters to the sources in Locust's options, which go to workers."""
        options = self._options
        scenario = SCENARIOS[options.scenario]
        started = datetime.now(UTC)
        self._running = options.sources = self._runner.target_user_count
        self._failed_sources = 0
        options.run_id = f"{started:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
        options.rate = options.rate or scenario.rate
        options.duration = options.duration or scenario.seconds
        self._measurements = Measurements(
            {
                "id": options.run_id,
                "scenario": options.scenario,
                "means": scenario.description,
                "host": self._environment.host,
                "rate": options.rate,
                "duration": options.duration,
                "sources": options.sources,
            }
        )
        console.err.print(f"Run {options.run_id}: {options.scenario}, {options.rate:g}/s for {options.duration} s")
        console.err.print(f"    to {self._environment.host}")
        self._progress = gevent.spawn(self._print_progress)

    def receive(self, msg: Message, **_: Any) -> None:
        """Adds a source's report. After the last report of all sources, it ends the run."""
        data = msg.data
        if data.get("error"):
            self._record_error(data["error"])
        else:
            self._measurements.merge(data)
        if data["is_last"]:
            self._running -= 1
            if not self._running:
                # In another greenlet: stopping waits for the source that sent this message.
                gevent.spawn(self._runner.quit if self._is_headless else self._runner.stop)

    def end_run(self, **_: Any) -> None:
        """Evaluates the measurements, and writes the results and the report."""
        self._progress.kill()
        measurements, self._measurements = self._measurements, Measurements({})
        if not measurements.run:  # Locust stops twice: when the run ends, and when it quits
            return
        if not measurements.seconds:
            if not self._failed_sources:
                self._record_error("the run was interrupted before it measured anything")
            return
        folder = Path(self._options.output) / measurements.run["id"]
        folder.mkdir(parents=True)
        measurements.run["unfinished"] = self._running + self._failed_sources
        measurements.machine.update(machine.describe(_PACKAGES, {}))
        found = verdict.evaluate(measurements)
        measurements.save(folder / FILE, verdict=found.summary())
        report.write(measurements, found, folder / report.FILE)
        report.show(measurements, found)
        console.err.print(f"Report  {folder / report.FILE}")
        if not self._failed_sources:
            self._environment.process_exit_code = _STATUSES[found.result]

    @property
    def _options(self) -> Namespace:
        options = self._environment.parsed_options
        assert isinstance(options, Namespace)
        return options

    @property
    def _is_headless(self) -> bool:
        return bool(self._options.headless)

    def _record_error(self, error: str) -> None:
        console.err.print(f"error: {error}")
        self._failed_sources += 1
        self._environment.process_exit_code = COULD_NOT_RUN

    def _print_progress(self) -> None:
        """Prints a line for each second, a second after its end, when most of its requests have ended."""
        for number in itertools.count():
            while len(self._measurements.seconds) <= number + 1:
                gevent.sleep(0.5)
            console.err.print(f"{number + 1:5} s  {report.progress(self._measurements.seconds[number])}")
