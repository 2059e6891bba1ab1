"""Recordings, as they grow and as they are replayed."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ops.oncall.lines import NoDocument, parse
from ops.oncall.sources import Follow, Replay, Source, put_aside

AT = 1_795_600_000.0


def line(second: float, **more: object) -> bytes:
    """A line of a log, so many seconds after the first."""
    timestamp = f"2026-11-25T09:46:{40 + second:06.3f}Z"  # that is AT, and so on
    return orjson.dumps({"timestamp": timestamp, "event": "request", **more}, option=orjson.OPT_APPEND_NEWLINE)


@pytest.fixture(name="follow")
def make_follow(tmp_path: Path) -> Iterator[Follow]:
    """Follows recording.jsonl in the test's folder."""
    follow = Follow(tmp_path / "recording.jsonl")
    yield follow
    follow.close()


def seconds(source: Source, wall: float = AT) -> list[float]:
    """When what it tells next was told, in seconds after the first."""
    return [told.at - AT for told in source.read(wall)]


def test_each_kind_of_line_tells_its_time() -> None:
    """A line of the log has its timestamp, metrics theirs in ms, spans the end of the last one in ns."""
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
def test_what_is_no_document_is_refused(text: bytes) -> None:
    """Whatever else may be in the file, nothing but NoDocument comes of it."""
    with pytest.raises(NoDocument):
        parse(text)


def test_a_recording_is_followed_from_before_it_is_there(follow: Follow, tmp_path: Path) -> None:
    """It waits for the file, reads it from its beginning, and a line once it is whole."""
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
    """What comes after a new start is read from its beginning; what was written before a rotation is not lost."""
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


def test_what_was_put_aside_is_read_first(follow: Follow, tmp_path: Path) -> None:
    """Whoever opens the page late sees as much as there is."""
    path = tmp_path / "recording.jsonl"
    put_aside(path).write_bytes(line(0) + line(1))
    path.write_bytes(line(2))

    assert seconds(follow) + seconds(follow) + seconds(follow) == [0.0, 1.0, 2.0]


def test_what_is_no_document_is_counted_and_passed_over(follow: Follow, tmp_path: Path) -> None:
    """A line that a service prints besides is no reason to stop."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"starting\n" + line(0) + b'{"half": \n' + line(1))

    replay = Replay(path)

    assert seconds(follow) == [0.0, 1.0]
    assert seconds(replay) == [0.0, 1.0]
    assert follow.status().refused == replay.status().refused == 2


def test_a_large_recording_is_read_a_piece_at_a_time(follow: Follow, tmp_path: Path) -> None:
    """The page is answered in between: no look at the file takes more than a piece."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0, text="x" * 1000) * 2000)
    replay = Replay(path)

    pieces = [len(follow.read(AT)) for _ in range(20)]

    assert sum(pieces) == 2000
    assert max(pieces) < 300
    assert len(replay.read(AT)) == 500
    assert 0 < replay.status().share < 1
    replay.close()


def test_a_long_line_is_read_at_once(follow: Follow, tmp_path: Path) -> None:
    """A line that takes several looks, as many spans at once do, is no reason to wait in between."""
    (tmp_path / "recording.jsonl").write_bytes(line(0, text="x" * 1_000_000) + line(1))

    told: list[float] = []
    while not told:
        told = seconds(follow)
        assert told or follow.status().state == "reading"

    assert told == [0.0, 1.0]


def test_a_replay_is_as_long_as_it_was(tmp_path: Path) -> None:
    """At a speed of 2, a second on the wall is two of the recording, and the page's time is the recording's."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0) + line(1) + line(4))
    replay = Replay(path, speed=2)

    assert seconds(replay, wall=100.0) == [0.0]
    assert seconds(replay, wall=100.4) == []
    assert seconds(replay, wall=100.5) == [1.0]
    assert (replay.now(101.0), replay.status().state) == (AT + 2, "playing")
    assert seconds(replay, wall=109.0) == [4.0]
    assert (replay.now(200.0), replay.status().state) == (AT + 4, "ended")


def test_a_replay_is_all_at_once_without_a_speed(tmp_path: Path) -> None:
    """All of it is there as fast as it can be read, and its end is the time on the page; it may be compressed."""
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(gzip.compress(line(0) + line(9) + line(3)))
    replay = Replay(path)

    assert seconds(replay) == [0.0, 9.0, 3.0]
    assert replay.now(0.0) == AT + 9
    assert replay.status().state == "ended"


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    """A file that is not there, and one that has no line to begin with."""
    path = tmp_path / "recording.jsonl"
    with pytest.raises(FileNotFoundError):
        Replay(path)

    path.write_text("nothing\n")
    with pytest.raises(NoDocument, match="has no line that tells its time"):
        Replay(path)


def test_a_file_that_may_not_be_read_is_waited_for(follow: Follow, tmp_path: Path) -> None:
    """As one that is not there yet: whoever writes it may still let it be read."""
    (tmp_path / "recording.jsonl").mkdir()

    assert (seconds(follow), follow.status().state) == ([], "waiting")
