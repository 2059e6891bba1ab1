"""Reading a recording: while it is written, and as a replay."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ops.oncall.documents import InvalidDocument, parse
from ops.oncall.sources import Follow, Replay, Source, max_bytes, rotated
from svc.errors import InvalidSetting

AT = 1_795_600_000.0


def line(second: float, **more: object) -> bytes:
    """A log line, a number of seconds after AT."""
    timestamp = f"2026-11-25T09:46:{40 + second:06.3f}Z"  # AT is 40 s
    return orjson.dumps({"timestamp": timestamp, "event": "request", **more}, option=orjson.OPT_APPEND_NEWLINE)


@pytest.fixture(name="follow")
def make_follow(tmp_path: Path) -> Iterator[Follow]:
    """A source that follows recording.jsonl in the test's folder."""
    follow = Follow(tmp_path / "recording.jsonl")
    yield follow
    follow.close()


def seconds(source: Source, wall: float = AT) -> list[float]:
    """The times of the next entries, in seconds after AT."""
    return [entry.at - AT for entry in source.read(wall)]


def test_each_kind_of_line_has_a_time() -> None:
    """A log line in its timestamp, metrics in ms, spans in ns; the time of spans is the last end."""
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [{"endTimeUnixNano": "2000000000"}] * 2}]}]}

    assert parse(line(1)).at == AT + 1
    assert parse(b'{"_aws": {"Timestamp": 1500}}').at == 1.5
    assert parse(orjson.dumps(spans)).at == 2.0
    assert parse(line(1)).line == line(1).decode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"API   http://127.0.0.1:8080/",
        b"[1]",
        b"7",
        b"{}",
        b'{"timestamp": 7}',
        b'{"resourceSpans": []}',
        b'{"_aws": {}}',
    ],
)
def test_a_line_that_is_not_a_document_is_refused(text: bytes) -> None:
    """No line raises another error."""
    with pytest.raises(InvalidDocument):
        parse(text)


def test_a_source_waits_for_its_file(follow: Follow, tmp_path: Path) -> None:
    """It then reads the file from its beginning, and a line when it is complete."""
    path = tmp_path / "recording.jsonl"
    assert (seconds(follow), follow.status().state) == ([], "waiting")

    path.write_bytes(line(0) + line(1)[:20])
    assert seconds(follow) == [0.0]
    assert follow.status().state == "live"
    with path.open("ab") as file:
        file.write(line(1)[20:] + line(2))
    assert seconds(follow) == [1.0, 2.0]
    assert follow.now(7.0) == 7.0


def test_a_recording_is_followed_through_truncation_and_rotation(follow: Follow, tmp_path: Path) -> None:
    """It reads a truncated file from its beginning, and loses no line before a rotation."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0) + line(1))
    assert seconds(follow) == [0.0, 1.0]

    path.write_bytes(line(2))
    assert seconds(follow) + seconds(follow) == [2.0]

    with path.open("ab") as file:
        file.write(line(3))
    path.rename(tmp_path / "recording.1.jsonl")
    path.write_bytes(line(4))
    assert seconds(follow) + seconds(follow) + seconds(follow) == [3.0, 4.0]

    path.unlink()
    assert seconds(follow) == []


def test_a_rotated_file_is_read_first(follow: Follow, tmp_path: Path) -> None:
    """A page that is opened late shows all that is kept."""
    path = tmp_path / "recording.jsonl"
    rotated(path).write_bytes(line(0) + line(1))
    path.write_bytes(line(2))

    assert seconds(follow) + seconds(follow) + seconds(follow) == [0.0, 1.0, 2.0]


def test_lines_that_are_not_documents_are_counted_and_skipped(follow: Follow, tmp_path: Path) -> None:
    """Reading continues after them."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"starting\n" + line(0) + b'{"half": \n' + line(1))

    replay = Replay(path)

    assert seconds(follow) == [0.0, 1.0]
    assert seconds(replay) == [0.0, 1.0]
    assert follow.status().refused == replay.status().refused == 2


def test_a_large_recording_is_read_a_piece_at_a_time(follow: Follow, tmp_path: Path) -> None:
    """The server answers requests between two reads."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0, text="x" * 1000) * 2000)
    replay = Replay(path)

    pieces = [len(follow.read(AT)) for _ in range(20)]

    assert sum(pieces) == 2000
    assert max(pieces) < 300
    assert len(replay.read(AT)) == 100
    assert 0 < replay.status().share < 1
    replay.close()


def test_a_long_line_is_read_without_a_pause(follow: Follow, tmp_path: Path) -> None:
    """While a line needs several reads, the state is reading."""
    (tmp_path / "recording.jsonl").write_bytes(line(0, text="x" * 1_000_000) + line(1))

    found: list[float] = []
    while not found:
        found = seconds(follow)
        assert found or follow.status().state == "reading"

    assert found == [0.0, 1.0]


def test_a_replay_runs_at_its_speed(tmp_path: Path) -> None:
    """At a speed of 2, one second covers two of the recording, and the page shows the time of the recording."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0) + line(1) + line(4))
    replay = Replay(path, speed=2)

    assert seconds(replay, wall=100.0) == [0.0]
    assert seconds(replay, wall=100.4) == []
    assert seconds(replay, wall=100.5) == [1.0]
    assert (replay.now(101.0), replay.status().state) == (AT + 2, "playing")
    assert seconds(replay, wall=109.0) == [4.0]
    assert (replay.now(200.0), replay.status().state) == (AT + 4, "ended")


def test_a_replay_without_a_speed_reads_all_at_once(tmp_path: Path) -> None:
    """The page shows the time of its end. The file can be compressed."""
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(gzip.compress(line(0) + line(9) + line(3)))
    replay = Replay(path)

    assert seconds(replay) == [0.0, 9.0, 3.0]
    assert replay.now(0.0) == AT + 9
    assert replay.status().state == "ended"


def test_a_file_without_documents_cannot_be_replayed(tmp_path: Path) -> None:
    """And neither can a missing file."""
    path = tmp_path / "recording.jsonl"
    with pytest.raises(FileNotFoundError):
        Replay(path)

    path.write_text("nothing\n")
    with pytest.raises(InvalidDocument, match="has no line that is a JSON object with a time"):
        Replay(path)


def test_a_source_waits_for_a_file_that_it_cannot_read(follow: Follow, tmp_path: Path) -> None:
    """As for a file that does not exist yet."""
    (tmp_path / "recording.jsonl").mkdir()

    assert (seconds(follow), follow.status().state) == ([], "waiting")


def test_the_size_of_a_recording_is_that_of_both_files(tmp_path: Path) -> None:
    """With the maximum, which a replay does not have."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0) + line(1))
    rotated(path).write_bytes(line(0))
    follow, replay = Follow(path, limit=10_000), Replay(path)

    assert (follow.status().bytes, follow.status().max_bytes) == (3 * len(line(0)), 10_000)
    assert (replay.status().bytes, replay.status().max_bytes) == (2 * len(line(0)), None)
    replay.close()


@pytest.mark.parametrize(("text", "expected"), [("", 100_000_000), ("1", 1_000_000), ("99999", 99_999_000_000)])
def test_the_maximum_size_is_a_setting(text: str, expected: int) -> None:
    """In megabytes."""
    assert max_bytes({"RECORDING_MB": text}) == expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "100 MB", "100000", "\u0661"])
def test_a_wrong_maximum_size_is_refused(text: str) -> None:
    """With the values that are valid."""
    with pytest.raises(InvalidSetting, match="must be a whole number of megabytes from 1 to 99999"):
        max_bytes({"RECORDING_MB": text})
