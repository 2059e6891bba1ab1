"""Gathers what the sources of a run report, and ends it with a verdict; for Locust's processes only."""

import itertools
import sys
import uuid
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import Greenlet
from locust.env import Environment
from locust.rpc import Message

from ops.common import machine
from ops.load import report, verdict
from ops.load.measured import FILE, Measured
from ops.load.scenarios import SCENARIOS

MESSAGE: Final = "measured"  # by which sources report

_PACKAGES: Final = ("locust", "gevent", "geventhttpclient")
COULD_NOT_RUN: Final = 2  # the exit status, as of a command line that is not understood


class Session:
    """All runs of a Locust process that is no worker: one, or as many as someone starts on its page.

    Args:
        environment: Locust's.
    """

    def __init__(self, environment: Environment) -> None:
        assert environment.runner is not None
        self._environment = environment
        self._runner = environment.runner
        self._runner.register_message(MESSAGE, self.take)
        self._measured = Measured({})
        self._running = 0
        self._refused = 0
        self._progress = Greenlet()
        environment.events.test_start.add_listener(self.begin)
        environment.events.test_stop.add_listener(self.end)
        # A run that is interrupted has a verdict too, and Locust asks for its status right after this.
        environment.events.quitting.add_listener(lambda **_: self._runner.stop())

    def begin(self, **_: Any) -> None:
        """Gives the run its id, and tells the sources by Locust's options, which go to its workers."""
        options = self._options
        scenario = SCENARIOS[options.scenario]
        started = datetime.now(UTC)
        self._running = options.sources = self._runner.target_user_count
        self._refused = 0
        options.run_id = f"{started:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
        options.rate = options.rate or scenario.rate
        options.duration = options.duration or scenario.seconds
        self._measured = Measured(
            {
                "id": options.run_id,
                "scenario": options.scenario,
                "means": scenario.means,
                "host": self._environment.host,
                "rate": options.rate,
                "duration": options.duration,
                "sources": options.sources,
            }
        )
        _say(f"Run {options.run_id}: {options.scenario}, {options.rate:g}/s for {options.duration} s")
        _say(f"    to {self._environment.host}")
        self._progress = gevent.spawn(self._tell)

    def take(self, msg: Message, **_: Any) -> None:
        """Adds a source's report; the last one's last ends the run."""
        told = msg.data
        if told.get("error"):
            self._refuse(told["error"])
        else:
            self._measured.merge(told)
        if told["is_last"]:
            self._running -= 1
            if not self._running:
                # Not here: stopping waits for the source whose message this is.
                gevent.spawn(self._runner.quit if self._is_headless else self._runner.stop)

    def end(self, **_: Any) -> None:
        """Judges what was measured, and writes it down."""
        self._progress.kill()
        measured, self._measured = self._measured, Measured({})
        if not measured.seconds:
            return
        folder = Path(self._options.output) / measured.run["id"]
        folder.mkdir(parents=True)
        measured.run["unfinished"] = self._running + self._refused
        measured.machine.update(machine.describe(_PACKAGES, {}))
        found = verdict.judge(measured)
        measured.save(folder / FILE, verdict=found.summary())
        report.write(measured, found, folder / report.FILE)
        for line in report.told(measured, found):
            _say(line)
        _say(f"Report  {folder / report.FILE}")
        if not self._refused:
            self._environment.process_exit_code = 0 if found.passed else 1

    @property
    def _options(self) -> Namespace:
        options = self._environment.parsed_options
        assert isinstance(options, Namespace)
        return options

    @property
    def _is_headless(self) -> bool:
        return bool(self._options.headless)

    def _refuse(self, why: str) -> None:
        _say(f"error: {why}")
        self._refused += 1
        self._environment.process_exit_code = COULD_NOT_RUN

    def _tell(self) -> None:
        """A line for each second, once it is over and most of its requests have ended."""
        for number in itertools.count():
            while len(self._measured.seconds) <= number + 1:
                gevent.sleep(0.5)
            _say(f"{number + 1:5} s  {report.sum_up(self._measured.seconds[number])}")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
