"""Trace headers, by the cases that W3C's own test suite checks.

https://github.com/w3c/trace-context/tree/main/test
"""

from typing import Final

import pytest
from multidict import CIMultiDict

from svc.telemetry import propagation
from svc.telemetry.propagation import RemoteParent
from tests.conftest import Log

TRACE_ID: Final = "12345678901234567890123456789012"
PARENT_ID: Final = "1234567890123456"
VALID: Final = f"00-{TRACE_ID}-{PARENT_ID}-01"
XRAY: Final = "Root=1-67891234-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"
LONG: Final = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


def extract(*headers: tuple[str, str]) -> RemoteParent | None:
    return propagation.extract(CIMultiDict(headers))


def state(*headers: str) -> str:
    """The tracestate that is passed on, of a request with these headers and a valid traceparent."""
    found = extract(("traceparent", VALID), *(("tracestate", header) for header in headers))
    assert found is not None
    assert (found.trace_id, found.parent_id, found.is_sampled) == (TRACE_ID, PARENT_ID, True)
    return found.state


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TrAcEpArEnT", "TRACEPARENT"])
def test_the_name_of_a_header_has_any_case(name: str) -> None:
    """As all names of headers."""
    assert extract((name, VALID)) == RemoteParent(TRACE_ID, PARENT_ID, True, "")


@pytest.mark.parametrize("name", ["trace-parent", "trace.parent", "traceparents"])
def test_another_name_is_no_trace(name: str) -> None:
    """Also where only a separator differs."""
    assert extract((name, VALID)) is None


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (VALID, True),
        (f"00-{TRACE_ID}-{PARENT_ID}-00", False),
        (f"00-{TRACE_ID}-{PARENT_ID}-02", False),
        (f"00-{TRACE_ID}-{PARENT_ID}-03", True),
        (f"00-{TRACE_ID}-{PARENT_ID}-ff", True),
        (f"cc-{TRACE_ID}-{PARENT_ID}-01", True),
        (f"cc-{TRACE_ID}-{PARENT_ID}-01-what-comes-later", True),
        (f"\t {VALID}", True),
        (f"{VALID} \t", True),
    ],
)
def test_a_valid_trace_is_joined(header: str, is_sampled: bool) -> None:
    """A version of the future may have more fields and flags. White space around the header has no meaning."""
    assert extract(("traceparent", header)) == RemoteParent(TRACE_ID, PARENT_ID, is_sampled, "")


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"{VALID}.",
        f"{VALID}-what-comes-later",
        f"cc-{TRACE_ID}-{PARENT_ID}-01.what-comes-later",
        *(f"{version}-{TRACE_ID}-{PARENT_ID}-01" for version in ("ff", ".0", "0.", "000", "0000", "0", "CC")),
        *(f"00-{wrong}-{PARENT_ID}-01" for wrong in ("0" * 32, f".{TRACE_ID[1:]}", f"{TRACE_ID[1:]}.")),
        *(f"00-{wrong}-{PARENT_ID}-01" for wrong in (f"{TRACE_ID}3", TRACE_ID[1:], f"A{TRACE_ID[1:]}")),
        *(f"00-{TRACE_ID}-{wrong}-01" for wrong in ("0" * 16, f".{PARENT_ID[1:]}", f"{PARENT_ID[1:]}.")),
        *(f"00-{TRACE_ID}-{wrong}-01" for wrong in (f"{PARENT_ID}7", PARENT_ID[1:], f"A{PARENT_ID[1:]}")),
        *(f"00-{TRACE_ID}-{PARENT_ID}-{wrong}" for wrong in (".0", "0.", "001", "1", "", "0A")),
        f"{VALID},{VALID}",
        "\udcff" * 55,  # bytes that are not UTF-8
    ],
)
def test_an_invalid_trace_is_none(header: str) -> None:
    """The trace begins here, or continues the one of X-Ray's header."""
    assert extract(("traceparent", header), ("tracestate", "foo=1")) is None
    joined = extract(("traceparent", header), ("X-Amzn-Trace-Id", XRAY))
    assert joined == RemoteParent("678912340123456789abcdef01234567", "0123456789abcdef", True, "")


@pytest.mark.parametrize("header", ["", "Root=1-67891234-x", f"Root=1-{'0' * 8}-{'0' * 24}"])
def test_an_invalid_header_of_x_ray_is_none(header: str) -> None:
    """The trace begins here."""
    assert extract(("X-Amzn-Trace-Id", header)) is None


def test_two_traceparents_are_none() -> None:
    """Also two equal ones: a header that may be there once is there twice, so the request is not trusted in this."""
    other = f"00-{TRACE_ID[:-1]}1-{PARENT_ID}-01"

    assert extract(("traceparent", VALID), ("traceparent", other)) is None
    assert extract(("traceparent", VALID), ("TraceParent", VALID), ("tracestate", "foo=1")) is None


@pytest.mark.parametrize(
    ("headers", "passed_on"),
    [
        ([], ""),
        ([""], ""),
        (["foo=1,bar=2"], "foo=1,bar=2"),
        (["foo=1", ""], "foo=1"),
        (["", "foo=1"], "foo=1"),
        (["foo=1,,bar=2,"], "foo=1,bar=2"),
        (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
        (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (["\t foo=1 \t"], "foo=1"),
        ([f"{LONG}={PRINTABLE}"], f"{LONG}={PRINTABLE}"),
        ([f"{LONG}@a-z0-9_-*/=1"], f"{LONG}@a-z0-9_-*/=1"),
        ([f"{'z' * 256}=1"], f"{'z' * 256}=1"),
        ([f"{'t' * 241}@{'v' * 14}=1"], f"{'t' * 241}@{'v' * 14}=1"),
        ([f"foo={'1' * 256}"], f"foo={'1' * 256}"),
    ],
)
def test_a_valid_state_is_passed_on(headers: list[str], passed_on: str) -> None:
    """Several headers are one list, in their order; empty members and white space around members are dropped."""
    assert state(*headers) == passed_on


@pytest.mark.parametrize(
    "headers",
    [
        ["foo=1,foo=1"],
        ["foo=1,foo=2"],
        ["foo=1", "foo=2"],
        ["foo =1"],
        ["FOO=1"],
        ["foo.bar=1"],
        ["foo@=1,bar=2"],
        ["@foo=1,bar=2"],
        ["foo@@bar=1,bar=2"],
        ["foo@bar@baz=1,bar=2"],
        ["foo=bar=baz"],
        ["foo=,bar=3"],
        ["foo=öl"],
        ["foo"],
        [f"{'z' * 257}=1"],
        [f"{'t' * 242}@v=1"],
        [f"t@{'v' * 15}=1"],
        [f"foo={'1' * 257}"],
    ],
)
def test_an_invalid_state_is_dropped_as_a_whole(log: Log, headers: list[str]) -> None:
    """The trace is joined all the same, and a caller who sends one with each request does not fill the log."""
    assert state(*headers) == ""
    assert log.read() == []


def test_a_state_has_at_most_32_members() -> None:
    """In one header or in several; a longer list is dropped, as cutting it would lose a member at random."""
    members = [f"bar{number:02d}=1" for number in range(1, 34)]

    assert state(",".join(members[:32])) == ",".join(members[:32])
    assert state(*members[:32]) == ",".join(members[:32])
    assert state(",".join(members)) == ""
    assert state(*members) == ""


def test_a_state_without_a_trace_is_dropped() -> None:
    """It belongs to no trace."""
    assert extract(("tracestate", "foo=1")) is None
