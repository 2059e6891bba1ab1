"""Fluent Bit with ops/fluent-bit/fluent-bit.yaml: a model of how it processes logs, and the real one on this machine.

The facts are from the source of Fluent Bit 5.1.1 and from experiments with it.
"""

import codecs
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, TypeAlias

import yaml

from ops.common.ports import free_port
from ops.common.process import ROOT
from ops.rehearsal.tls import Address
from tests.patience import PATIENCE_SECONDS

Options: TypeAlias = dict[str, Any]
Record: TypeAlias = dict[str, Any]

FILE: Final = ROOT / "ops" / "fluent-bit" / "fluent-bit.yaml"
BINARY: Final = shutil.which("fluent-bit")
JOURNAL_WRITER: Final = shutil.which("systemd-journal-remote", path="/usr/lib/systemd:/lib/systemd")
ENVIRONMENT: Final = {"CLUSTER": "made-up", "REGION": "us-east-1", "NODE": "node-1"}

_RUNTIME_BYTES: Final = 16384  # the longest line that containerd writes in one part


def read() -> Options:
    """The configuration, with variables expanded."""
    text = re.sub(r"\$\{(\w+)\}", lambda found: ENVIRONMENT[found[1]], FILE.read_text())
    config: Options = yaml.safe_load(text)
    return config


def of_kind(config: Options, part: str, name: str) -> list[Options]:
    """The inputs, filters or outputs of one plugin."""
    return [one for one in config["pipeline"][part] if one["name"] == name]


class Event(NamedTuple):
    """An event that CloudWatch receives."""

    group: str
    stream: str
    milliseconds: int
    message: str

    def record(self) -> Record:
        """The message's fields."""
        fields: Record = json.loads(self.message)
        return fields

    def comparable(self) -> "Event":
        """The event with its message's members in sorted order, unless the message is a line as it was written."""
        if "/clients-api/" in self.group:
            return self
        return self._replace(message=json.dumps(self.record(), sort_keys=True))


@dataclass
class Logs:
    """The logs of a node.

    Attributes:
        containers: the content of log files, by name, as the runtime writes them.
        old: the names of files that were last written 15 days ago.
        journal: the journal's entries.
    """

    containers: dict[str, bytes] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)
    journal: list[dict[str, str]] = field(default_factory=list)

    def add(self, pod: str, namespace: str, container: str, *lines: str | bytes, stream: str = "stdout") -> None:
        """Adds lines to a container's file."""
        name = f"{pod}_{namespace}_{container}-{'0123456789abcdef' * 4}.log"
        self.containers[name] = self.containers.get(name, b"") + b"".join(parts(line, stream) for line in lines)


def parts(line: str | bytes, stream: str = "stdout") -> bytes:
    """A line as the runtime writes it: in parts with the flag P, and F for the last one."""
    encoded = line.encode() if isinstance(line, str) else line
    pieces = [encoded[at : at + _RUNTIME_BYTES] for at in range(0, len(encoded), _RUNTIME_BYTES)] or [b""]
    flags = ["P"] * (len(pieces) - 1) + ["F"]
    return b"".join(
        b"2026-11-25T10:00:00.%09dZ %s %s %s\n" % (at, stream.encode(), flag.encode(), part)
        for at, (flag, part) in enumerate(zip(flags, pieces, strict=True), 123_456_789)
    )


# --- The model


class Line(NamedTuple):
    """A record in the pipeline."""

    tag: str
    milliseconds: int
    record: Record


def ship(config: Options, logs: Logs) -> list[Event]:
    """The events that CloudWatch receives. The model does not cover lines above 1 MB, or not written by the runtime."""
    lines = [line for source in config["pipeline"]["inputs"] for line in _INPUTS[source["name"]](source, logs)]
    regexes = {one["name"]: one["regex"] for one in config["parsers"]}
    for filter_ in config["pipeline"]["filters"]:
        step = {**filter_, "regex": regexes.get(filter_.get("regex_parser"))}
        lines = [_FILTERS[step["name"]](step, line) if matches(step, line.tag) else line for line in lines]
    outputs = config["pipeline"]["outputs"]
    return [
        event
        for line in lines
        for output in outputs
        if matches(output, line.tag)
        for event in _OUTPUTS[output["name"]](output, line)
    ]


def matches(step: Options, tag: str) -> bool:
    """Whether a filter or an output matches a tag."""
    if "match" in step:
        return fnmatchcase(tag, step["match"])
    return search(step["match_regex"], tag)


def search(pattern: str, text: str) -> bool:
    """Whether the pattern is found. In Fluent Bit, classes such as white space are ASCII only."""
    return re.search(pattern, text, re.ASCII) is not None


def _tail(source: Options, logs: Logs) -> Iterator[Line]:
    pattern = PurePosixPath(source["path"])
    excluded = [PurePosixPath(one.strip()).name for one in source.get("exclude_path", "").split(",")] + sorted(logs.old)
    assert (source["multiline.parser"], source["ignore_older"]) == ("cri", "14d")
    for name, content in logs.containers.items():
        if fnmatchcase(name, pattern.name) and not any(fnmatchcase(name, one) for one in excluded):
            tag = source["tag"].replace("*", str(pattern.parent / name).lstrip("/").replace("/", "."))
            for record in _whole_lines(content):
                yield _processed(source, Line(tag, _milliseconds(record["time"]), record))


_CRI: Final = re.compile(r"(?P<time>\S+) (?P<stream>stdout|stderr) (?P<_p>[FP]) (?P<log>.*)")


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """Replaces each byte that is not UTF-8 by a character; Python would use one character for several bytes."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("fluent-bit", _replace_each_byte)


def _whole_lines(content: bytes) -> Iterator[Record]:
    """Joins the parts of lines, for each stream separately. Other fields are those of the first part."""
    incomplete: dict[str, Record] = {}
    for line in content.decode(errors="fluent-bit").removesuffix("\n").split("\n"):
        match = _CRI.fullmatch(line)
        assert match, line
        part = match.groupdict()
        whole = incomplete.setdefault(part["stream"], {**part, "log": ""})
        whole["log"] += part["log"]
        if part["_p"] == "F":
            yield incomplete.pop(part["stream"])
    assert not incomplete


def _milliseconds(timestamp: str) -> int:
    seconds, _, rest = timestamp.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{seconds}+00:00").timestamp()) * 1000 + int(rest[:3])


def _processed(source: Options, line: Line) -> Line:
    for step in source.get("processors", {}).get("logs", ()):
        line = _PROCESSORS[step["name"]](step, line)
    return line


def _rewrite_tag(step: Options, line: Line) -> Line:
    key, pattern, tag, keep = step["rule"].split(" ")
    assert keep == "false"
    if not search(pattern, line.record[key.removeprefix("$")]):
        return line
    return line._replace(tag=tag.replace("$TAG", line.tag))


def _journal(source: Options, logs: Logs) -> Iterator[Line]:
    for entry in logs.journal:
        tag = source["tag"].replace("*", entry.get("_SYSTEMD_UNIT", "unknown"))
        fields = {name: value for name, value in entry.items() if not name.startswith("__")}
        yield Line(tag, int(entry["__REALTIME_TIMESTAMP"]) // 1000, fields)


def _modify(step: Options, line: Line) -> Line:
    kind, key, pattern = step["condition"].split(" ")
    old, new = step["rename"].split(" ")
    assert kind == "Key_value_matches"
    if not search(pattern, line.record[key]):
        return line
    return line._replace(record={new if name == old else name: value for name, value in line.record.items()})


_TAG_PREFIX: Final = "kube.var.log.containers."  # the default


def _kubernetes(step: Options, line: Line) -> Line:
    """Adds what the tag has of the container, and replaces the text of a JSON object by the object."""
    assert (step["merge_log"], step["merge_log_trim"], step["keep_log"]) == (True, False, False)
    assert step["use_tag_for_meta"] is True
    found = re.search(pythonic(step["regex"]), line.tag.removeprefix(step.get("kube_tag_prefix", _TAG_PREFIX)))
    assert found
    record = {**line.record, "kubernetes": found.groupdict()}
    merged = _values(record.get("log", ""))
    if len(merged) == 1 and isinstance(merged[0], dict):
        del record["log"]
        record |= {step["merge_log_key"]: merged[0]} if merged[0] else {}
    return line._replace(record=record)


def pythonic(pattern: str) -> str:
    """A regular expression of Fluent Bit with its named groups as Python writes them."""
    return pattern.replace("(?<", "(?P<")


_JSON: Final = json.JSONDecoder(parse_constant=int)  # int() rejects NaN and Infinity


def _values(text: str) -> list[Any]:
    """The JSON values at the beginning of a text."""
    values: list[Any] = []
    while text := text.lstrip(" \t\r"):
        try:
            value, end = _JSON.raw_decode(text)
        except ValueError:
            break
        values.append(value)
        text = text[end:]
    return values


def _record_modifier(step: Options, line: Line) -> Line:
    kept = step.get("allowlist_key", line.record.keys() - {step.get("remove_key")})
    added = [step["record"].split(" ")] if "record" in step else []
    return line._replace(record={name: value for name, value in line.record.items() if name in kept} | dict(added))


def _cloudwatch_logs(output: Options, line: Line) -> Iterator[Event]:
    message = line.record[output["log_key"]] if "log_key" in output else json.dumps(line.record)
    if message:
        yield Event(output["log_group_name"], output["log_stream_prefix"] + line.tag, line.milliseconds, message)


# A plugin that is missing here is not modelled, and fails the test.
_INPUTS: Final[dict[str, Callable[[Options, Logs], Iterator[Line]]]] = {
    "tail": _tail,
    "systemd": _journal,
    "fluentbit_metrics": lambda *_: iter(()),
}
_PROCESSORS: Final = {"rewrite_tag": _rewrite_tag}
_FILTERS: Final = {"modify": _modify, "kubernetes": _kubernetes, "record_modifier": _record_modifier}
_OUTPUTS: Final = {"cloudwatch_logs": _cloudwatch_logs}


# The options that the configuration uses and the model knows.
_OPTIONS: Final = {
    "tail": set(
        "tag path exclude_path multiline.parser read_from_head refresh_interval rotate_wait buffer_chunk_size "
        "buffer_max_size skip_long_lines ignore_older db storage.type processors".split()
    ),
    "systemd": set("tag db storage.type".split()),
    "fluentbit_metrics": set("tag scrape_interval".split()),
    "rewrite_tag": {"rule"},
    "modify": set("match condition rename".split()),
    "kubernetes": set("match merge_log merge_log_key merge_log_trim keep_log use_tag_for_meta regex_parser".split()),
    "record_modifier": set("match allowlist_key remove_key record".split()),
    "cloudwatch_logs": set(
        "match match_regex region log_group_name log_stream_prefix log_key log_format auto_create_group retry_limit "
        "storage.total_limit_size".split()
    ),
    "opentelemetry": set("match host port metrics_uri retry_limit".split()),
    "service": set(
        "flush grace log_level http_server http_listen http_port health_check json.escape_unicode storage.path "
        "storage.max_chunks_up storage.backlog.mem_limit scheduler.base scheduler.cap".split()
    ),
}


def unknown(config: Options) -> list[str]:
    """Options that Fluent Bit does not know, or that the model does not cover."""
    pipeline = config["pipeline"]
    steps = [*pipeline["inputs"], *pipeline["filters"], *pipeline["outputs"], *processors(config)]
    return [
        f"{step['name']}: {option}"
        for step in [{"name": "service", **config["service"]}, *steps]
        for option in step.keys() - _OPTIONS[step["name"]] - {"name", "alias"}
    ]


def processors(config: Options) -> list[Options]:
    """The processors of all inputs."""
    return [step for one in config["pipeline"]["inputs"] for step in one.get("processors", {}).get("logs", ())]


# --- The real one


# Fluent Bit's own metrics that the collector may use, with their values of the attribute "name": aliases of inputs and
# outputs.
METRICS: Final = {
    "fluentbit_input_long_line_skipped_total": {"clients", "containers"},
    "fluentbit_input_records_total": {"clients", "containers", "journal", "counts"},
    **{
        f"fluentbit_output_{count}_total": {"metrics", "lines", "application", "dataplane", "host", "collector"}
        for count in "dropped_records errors proc_records retries retries_failed".split()
    },
}


def for_this_machine(config: Options, folder: Path, aws: Address, authority: Path, collector: Address) -> Options:
    """The configuration for this machine. This function makes all changes from the configuration on a node."""
    text = json.dumps(config).replace("/var/log/containers", f"{folder}/containers")
    changed: Options = json.loads(text.replace("/var/lib/fluent-bit", f"{folder}/state"))
    changed["service"] |= {"flush": 0.2, "http_listen": "127.0.0.1", "http_port": free_port()}
    changed["service"] |= {"scheduler.base": 1, "scheduler.cap": 2, "grace": 3}
    for one in of_kind(changed, "inputs", "tail"):
        one["refresh_interval"] = 1
    for one in of_kind(changed, "inputs", "systemd"):
        one["path"] = f"{folder}/journal"
    for one in of_kind(changed, "inputs", "fluentbit_metrics"):
        one["scrape_interval"] = 1
    for one in of_kind(changed, "filters", "kubernetes"):
        one["kube_tag_prefix"] = f"kube{folder}/containers/".replace("/", ".")
    for one in of_kind(changed, "outputs", "cloudwatch_logs"):
        one |= {"endpoint": aws[0], "port": aws[1], "tls.ca_file": str(authority)}
    for one in of_kind(changed, "outputs", "opentelemetry"):
        one |= {"host": collector[0], "port": collector[1]}
    return changed


class Real:
    """Fluent Bit on this machine, with a folder as the node's file system.

    Args:
        folder: the node's file system.
        config: from for_this_machine().

    Attributes:
        config: the same configuration.
    """

    def __init__(self, folder: Path, config: Options) -> None:
        self.config = config
        self._folder = folder
        self._file = folder / "fluent-bit.yaml"
        self._file.write_text(yaml.safe_dump(config, sort_keys=False, width=10_000))
        self._process: subprocess.Popen[bytes] | None = None
        self._output = folder / "output"
        (folder / "containers").mkdir()
        (folder / "journal").mkdir()
        (folder / "state").mkdir()

    def write(self, logs: Logs) -> None:
        """Adds logs to the node."""
        for name, content in logs.containers.items():
            path = self._folder / "containers" / name
            with path.open("ab") as file:
                file.write(content)
            if name in logs.old:
                os.utime(path, (time.time() - 15 * 86400,) * 2)
        if logs.journal:
            write_journal(self._folder / "journal", logs.journal)

    @property
    def output(self) -> str:
        """Fluent Bit's own log."""
        return self._output.read_text(errors="replace")

    def check(self) -> subprocess.CompletedProcess[str]:
        """Lets it check its configuration, without running it."""
        return subprocess.run(
            self._command("--dry-run"), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command(), stdout=output, stderr=output)

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Stops it, and returns its exit status."""
        assert self._process
        self._process.send_signal(sent)
        return self._process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Kills it if it still runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _command(self, *more: str) -> list[str]:
        assert BINARY
        return [BINARY, *more, "--config", str(self._file)]

    def has_read(self, logs: Mapping[str, bytes]) -> bool:
        """Whether it has saved that it read these files completely."""
        offsets: dict[str, int] = {}
        for database in (self._folder / "state").glob("c*.db"):
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                offsets |= dict(connection.execute("SELECT name, offset FROM in_tail_files").fetchall())
        at = {Path(name).name: offset for name, offset in offsets.items()}
        return all(at.get(name) == len(content) for name, content in logs.items())


def write_journal(folder: Path, entries: list[dict[str, str]]) -> None:
    """Writes a journal as systemd does, in a folder with the machine's ID."""
    assert JOURNAL_WRITER
    machine = folder / ("1" * 32)
    machine.mkdir()
    common = {"_MACHINE_ID": "1" * 32, "_BOOT_ID": "2" * 32, "__MONOTONIC_TIMESTAMP": "1"}
    text = "\n".join("".join(f"{name}={value}\n" for name, value in {**entry, **common}.items()) for entry in entries)
    command = [JOURNAL_WRITER, "--output", str(machine / "system.journal"), "-"]
    subprocess.run(command, input=f"{text}\n".encode(), capture_output=True, check=True, timeout=PATIENCE_SECONDS)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
