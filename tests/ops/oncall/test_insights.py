"""The query language of Logs Insights: what each part of it does, and the errors of invalid queries."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.oncall import insights
from ops.oncall.insights import InvalidQuery
from ops.oncall.logs import Record, Value

NOON: Final = 1_767_268_800_000  # 2026-01-01 12:00 UTC, in milliseconds

# Of requests a minute apart, oldest first.
REQUESTS: Final[list[dict[str, Any]]] = [
    {"route": "/get/{id}", "status": 200, "ms": 1.5, "client": "10.0.0.1", "sampled": True},
    {"route": "/get/{id}", "status": 404, "ms": 2.5, "client": "10.0.0.1", "error": "NoSuchClient", "sampled": False},
    {"route": "/add", "status": 201, "ms": 9, "client": "10.0.0.2", "note": ""},
    {"route": "/add", "status": 503, "ms": 0.5, "client": "10.0.0.2", "error": "DatabaseBusy", "note": "  "},
    {"route": "/getall", "status": 200, "ms": 70, "client": "10.0.0.3", "tags": ["x", {"deep": 7}], "odd-name": 1},
]


def records(*found: Mapping[str, Any]) -> list[Record]:
    """Records a minute apart, from noon on."""
    return [record(fields, number) for number, fields in enumerate(found)]


def record(fields: Mapping[str, Any], minute: int = 0) -> Record:
    """A record that was written some minutes after noon."""
    return Record(NOON + minute * 60_000, "stream", fields, json.dumps(fields, separators=(",", ":")))


def ask(query: str, *found: Mapping[str, Any]) -> list[list[Value]]:
    """The rows that a query gives of these records, or of the requests."""
    return insights.run(insights.parse(query), records(*(found or REQUESTS))).rows


def column(query: str, *found: Mapping[str, Any]) -> list[Value]:
    """The values of a query with one column."""
    return [value for (value,) in ask(query, *found)]


def columns(query: str) -> list[str]:
    return insights.run(insights.parse(query), records(*REQUESTS)).columns


# Columns.


def test_time_and_message_are_the_default_columns_and_the_newest_row_is_first() -> None:
    """As in the console; the message is the logged line, and the time is in UTC."""
    query = "filter status = 200"

    assert columns(query) == ["@timestamp", "@message"]
    assert ask(query) == [
        ["2026-01-01 12:04:00.000", json.dumps(REQUESTS[4], separators=(",", ":"))],
        ["2026-01-01 12:00:00.000", json.dumps(REQUESTS[0], separators=(",", ":"))],
    ]


def test_records_with_equal_times_are_ordered_by_arrival() -> None:
    """The last record to arrive is first."""
    found = [record({"n": number}) for number in range(3)]

    assert insights.run(insights.parse("fields n"), found).rows == [[2], [1], [0]]


def test_several_fields_add_columns_and_the_last_display_replaces_them() -> None:
    """Each `fields` adds its columns; after a `display`, the result has its columns only."""
    assert columns("fields route | fields status, route") == ["route", "status"]
    assert columns("fields route | display status | fields ms") == ["status"]
    assert columns("display status | display ms, route") == ["ms", "route"]
    assert columns("display status | stats count(*) as n | fields n * 2 as twice") == ["n", "twice"]


def test_a_column_has_its_alias_or_its_expression_as_name() -> None:
    """As in CloudWatch."""
    assert columns("fields route, ms * 2, strlen(route) as length") == ["route", "ms * 2", "length"]
    assert columns("stats count(*), max(ms) as most by route, bin(5m)") == ["route", "bin(5m)", "count(*)", "most"]


def test_dotted_names_select_values_inside_objects_and_lists() -> None:
    """A number selects an item of a list. An object, a list and a missing field have no value."""
    query = "fields tags.0, tags.1.deep, tags.1, tags, tags.7, nowhere.at.all, `odd-name` | limit 1"

    assert ask(query) == [["x", 7, None, None, None, None, 1]]
    assert column("fields a.`b-c`.d", {"a": {"b-c": {"d": "found"}}}) == ["found"]


def test_true_is_1_and_false_is_0() -> None:
    """In a record, and as the result of a comparison."""
    assert column("fields sampled") == [None, None, None, 0, 1]
    assert column("fields status >= 400") == [0, 1, 0, 1, 0]


def test_keywords_and_functions_are_case_insensitive() -> None:
    """AWS's own examples write them in several."""
    assert column("FIELDS route | FILTER isPresent(error) AND status IN [404] | LIMIT 1") == ["/get/{id}"]


# Filters.


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [
        ("status = 200", [200, 200]),
        ('status = "200"', [200, 200]),
        ("status != 200", [503, 201, 404]),
        ("status < 201", [200, 200]),
        ("status <= 201", [200, 201, 200]),
        ("status > 404", [503]),
        ("status >= 404", [503, 404]),
        ("ms > 1.5 and ms < 70", [201, 404]),
        ("status = 404 or status = 503 and ms > 1", [404]),
        ("(status = 404 or status = 503) and ms > 1", [404]),
        ("not status = 200 and ms > 1", [201, 404]),
        ("not (status = 200 or ms > 1)", [503]),
        ("status in [404, 503]", [503, 404]),
        ("status not in [404, 503]", [200, 201, 200]),
        ("route in ['/add']", [503, 201]),
        ("route like '/get'", [200, 404, 200]),
        ("route not like '/get'", [503, 201]),
        ("route like /^.a/", [503, 201]),
        ("route like /(?i)GETALL/", [200]),
        ("route =~ /all$/", [200]),
        ("status like /^5/", [503]),
        ("ispresent(error)", [503, 404]),
        ("not ispresent(error)", [200, 201, 200]),
        ("isempty(note)", [200, 201, 404, 200]),
        ("isblank(note)", [200, 503, 201, 404, 200]),
        ("error = 'DatabaseBusy'", [503]),
        ("error != 'DatabaseBusy'", [404]),
        ("error < 'E'", [503]),
        ("error < 5", []),
        ("nowhere = nowhere", []),
        ("client = '10.0.0.2' # only here\n and status > 201", [503]),
        ("@timestamp >= 1767269040000", [200]),
        ("ms = -1", []),
        ("ms in [-1, 9]", [201]),
    ],
)
def test_a_filter_keeps_the_records_that_meet_its_condition(condition: str, statuses: list[int]) -> None:
    """`and` binds more than `or`, and `not` more than both. A comparison with a missing value is false."""
    assert column(f"fields status | filter {condition}") == statuses
    assert column(f"fields status | where {condition}") == statuses


def test_filters_combine_and_can_follow_stats() -> None:
    """Each filter reads the rows that the filter before it kept."""
    assert column("filter status >= 400 | filter ms > 1 | fields status") == [404]
    assert ask("stats count(*) as n by route | filter n > 1 | sort route") == [["/add", 2], ["/get/{id}", 2]]


CONDITIONS: Final = st.recursive(
    st.sampled_from(
        ["status >= 400", "ispresent(error)", "route like /a/", "status in [200, 503]", "nowhere = 1", "ms < 2"]
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not {one}"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: f"({' '.join(three)})"),
    ),
    max_leaves=8,
)


@given(CONDITIONS)
def test_a_record_meets_either_a_condition_or_its_negation(condition: str) -> None:
    """Each record meets exactly one of the two."""
    kept = column(f"fields ms | filter {condition}")
    rest = column(f"fields ms | filter not ({condition})")

    assert sorted([*kept, *rest], key=str) == sorted((request["ms"] for request in REQUESTS), key=str)


# Functions and operators.


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("2 ^ 3", 8),
        ("10 % 3", 1),
        ("7 / 2", 3.5),
        ("-n + 1", -41),
        ("n-2", 40),
        ("n / 0", None),
        ("n + word", None),
        ("n + nowhere", None),
        ("text + 1", 13),
        ("abs(2 - n)", 40),
        ("ceil(1.2)", 2),
        ("floor(1.8)", 1),
        ("sqrt(n - 6)", 6),
        ("sqrt(-1)", None),
        ("log(1)", 0),
        ("greatest(1, n, 3)", 42),
        ("least(1, n, 3)", 1),
        ("coalesce(nowhere, word)", "Word"),
        ("concat(word, '-', n)", "Word-42"),
        ("concat(word, n > 1)", "Word1"),
        ("strlen(word)", 4),
        ("toupper(word)", "WORD"),
        ("tolower(word)", "word"),
        ("trim(blank)", "x"),
        ("trim('xyZfooxyZ', 'xyZ')", "foo"),
        ("replace(word, 'W', 'w')", "word"),
        ("strcontains(word, 'or')", 1),
        ("strcontains(word, 'no')", 0),
        ("substr('xyZfooxyZ', 3)", "fooxyZ"),
        ("substr('xyZfooxyZ', 3, 3)", "foo"),
        ("toupper(nowhere)", None),
        ("fromMillis(n * 1000)", "1970-01-01 00:00:42.000"),
        ("toMillis(@timestamp)", NOON),
        ("fromMillis(10 ^ 18)", None),
        ("fromMillis(word)", None),
        ("toMillis(word)", None),
        ("'1e999' + 1", None),
        ("10 ^ 999", None),
        ("datefloor(@timestamp, 1d)", "2026-01-01 00:00:00.000"),
        ("dateceil(@timestamp, 1d)", "2026-01-02 00:00:00.000"),
        ("dateceil(@timestamp, 1h)", "2026-01-01 12:00:00.000"),
        ("dateceil(@timestamp - 1, 1h)", "2026-01-01 12:00:00.000"),
        ("dateceil(@timestamp + 1, 1h)", "2026-01-01 13:00:00.000"),
        ("dateceil(word, 1h)", None),
        ("dateceil(253402300799999, 1d)", None),
        ("datefloor(@timestamp - 1, 3600s)", "2026-01-01 11:59:00.000"),
        ("datefloor(@timestamp - 1, 300m)", "2026-01-01 11:00:00.000"),
        ("ltrim('xyZxyfooxyZ', 'xyZ')", "fooxyZ"),
        ("rtrim('xyZfooxyxyZ', 'xyZ')", "xyZfoo"),
        ("ltrim(blank)", "x "),
        ("rtrim(blank)", "  x"),
        ("unmask(word)", "Word"),
        ("isValidIp(ip)", 1),
        ("isValidIp(ip6)", 1),
        ("isValidIp(word)", 0),
        ("isValidIp(n)", 0),
        ("isValidIp(nowhere)", 0),
        ("isValidIpV4(ip)", 1),
        ("isValidIpV4(ip6)", 0),
        ("isValidIpV6(ip6)", 1),
        ("isValidIpV6(ip)", 0),
        ("isIpInSubnet(ip, '192.0.2.0/24')", 1),
        ("isIpInSubnet(ip, '192.0.2.128/25')", 0),
        ("isIpInSubnet(ip6, '2001:db8::/32')", 1),
        ("isIpInSubnet(ip6, '192.0.2.0/24')", 0),
        ("isIpv4InSubnet(ip, '192.0.2.0/24')", 1),
        ("isIpv4InSubnet(ip6, '2001:db8::/32')", 0),
        ("isIpv6InSubnet(ip6, '2001:db8::/32')", 1),
        ("isIpv6InSubnet(ip, '192.0.2.0/24')", 0),
        ("isIpv4InSubnet(ip, 'no subnet')", 0),
        ("isIpv4InSubnet(nowhere, '192.0.2.0/24')", 0),
        ("bin(1h)", "2026-01-01 12:00:00.000"),
        ("bin(30s)", "2026-01-01 12:00:00.000"),
        ("@logStream", "stream"),
    ],
)
def test_values_are_computed(expression: str, value: Value) -> None:
    """As AWS documents the functions. An operation without a result gives no value, and no error."""
    found = {"n": 42, "word": "Word", "text": "12", "blank": "  x ", "ip": "192.0.2.9", "ip6": "2001:db8::9"}

    assert column(f"fields {expression} as value", found) == [value]


def test_an_alias_can_be_used_after_its_definition() -> None:
    """In later commands, and later in the same command."""
    query = "fields ms * 2 as twice, twice * 2 as fourfold | filter fourfold > 30 | sort twice | display fourfold"

    assert column(query) == [36, 280]


def test_parse_extracts_fields_with_a_glob() -> None:
    """A star matches as little as possible, and at either end all of the rest. Fields without a match are empty."""
    log = {"log": "user=ann, method:GET, took := 12 ms"}

    assert ask(
        "parse log 'user=*, method:*, took := * ms' as user, method, took | display user, method, took", log
    ) == [["ann", "GET", "12"]]
    assert ask("parse log '*=*, *' as a, b, c | display a, b, c", log) == [["user", "ann", "method:GET, took := 12 ms"]]
    assert ask("parse log 'group=*' as group | display group, log", log) == [[None, log["log"]]]
    assert column("parse nowhere '*' as all | display all", log) == [None]


def test_parse_extracts_fields_with_named_groups() -> None:
    """It reads the message where no field is named. A text that is a number compares as a number."""
    query = r"parse /took := (?<took>\d+) (?<unit>\w+)/ | filter took > 9 | display took, unit"

    assert ask(query, {"log": "took := 12 ms"}, {"log": "took := 7 ms"}) == [["12", "ms"]]
    assert column(r"parse log /a\/(?<rest>.*)/ | display rest", {"log": "a/b"}) == ["b"]


# Aggregates.


def test_stats_give_one_row_for_all_records_or_for_each_group() -> None:
    """The columns of the groups are first. Without a record there is no row."""
    assert ask("stats count(*) as n, sum(ms), avg(ms), min(ms), max(ms)") == [[5, 83.5, 16.7, 0.5, 70]]
    assert ask("stats count() as n by route | sort n desc, route asc") == [
        ["/add", 2],
        ["/get/{id}", 2],
        ["/getall", 1],
    ]
    assert ask("filter nowhere = 1 | stats count(*)") == []


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ("count(error)", 2),
        ("count_distinct(client)", 3),
        ("sum(status >= 400)", 2),
        ("stddev(sampled)", 0.5),
        ("stddev(route)", None),
        ("sortsFirst(client)", "10.0.0.1"),
        ("sortsLast(error)", "NoSuchClient"),
        ("pct(ms, 50)", 2.5),
        ("pct(ms, 99)", 70),
        ("pct(ms, 0)", 0.5),
        ("max(error)", "NoSuchClient"),
        ("min(client)", "10.0.0.1"),
        ("latest(route)", "/getall"),
        ("earliest(route)", "/get/{id}"),
        ("latest(error)", "DatabaseBusy"),
        ("earliest(@timestamp)", "2026-01-01 12:00:00.000"),
        ("max(@timestamp)", "2026-01-01 12:04:00.000"),
        ("fromMillis(max(@timestamp))", "2026-01-01 12:04:00.000"),
        ("max(ms) - min(ms)", 69.5),
        ("100 * sum(status >= 400) / count(*)", 40),
        ("max(ms * 2)", 140),
        ("sum(route)", None),
        ("avg(nowhere)", None),
        ("pct(nowhere, 50)", None),
        ("max(nowhere)", None),
        ("latest(nowhere)", None),
        ("earliest(nowhere)", None),
        ("count(nowhere)", 0),
    ],
)
def test_an_aggregate_is_computed_over_a_group(aggregate: str, value: Value) -> None:
    """Over the values that are not missing, and over numbers only where the aggregate needs numbers."""
    assert column(f"stats {aggregate} as value") == [value]


def test_a_column_of_stats_can_use_the_columns_before_it() -> None:
    """As in AWS's own example of unused memory."""
    assert ask("stats max(ms) as most, min(ms) as least, most - least as span") == [[70, 0.5, 69.5]]
    assert ask("stats count(*) as n | fields n * 2 as twice, twice * 2 as fourfold") == [[5, 10, 20]]


def test_records_are_grouped_by_times_and_expressions() -> None:
    """`bin` rounds the time down. Records without the value are a group too."""
    assert ask("stats count(*) as n by bin(2m) as period | sort period") == [
        ["2026-01-01 12:00:00.000", 2],
        ["2026-01-01 12:02:00.000", 2],
        ["2026-01-01 12:04:00.000", 1],
    ]
    assert ask("stats count(*) as n by error | sort error") == [[None, 3], ["DatabaseBusy", 1], ["NoSuchClient", 1]]
    assert ask("stats count(*) as n by floor(status / 100) as class | sort class") == [[2, 3], [4, 1], [5, 1]]


def test_a_second_stats_aggregates_the_rows_of_the_first() -> None:
    """Other commands may come between them, and each can use what the one before it computed."""
    by_route = "stats count(*) as n, sum(ms) as total by route, bin(2m) as @t"

    assert ask(f"{by_route} | stats max(n) as most, sum(total), count(*)") == [[2, 83.5, 3]]
    assert ask(
        f"{by_route} | filter total > 5 | fields total * 2 as twice | stats sum(twice) by route | sort route"
    ) == [
        ["/add", 19],
        ["/getall", 140],
    ]
    assert ask(f"{by_route} | stats sum(n) as n by dateceil(@t, 4m) as until | sort until") == [
        ["2026-01-01 12:00:00.000", 2],
        ["2026-01-01 12:04:00.000", 3],
    ]
    assert columns(f"{by_route} | stats max(n) as most by route") == ["route", "most"]


def test_a_pattern_counts_the_texts_that_differ_in_numbers() -> None:
    """The most frequent is first, and other commands read its columns."""
    found: list[dict[str, Any]] = [
        *({"log": f"GET /get/{number} took {number}.5 ms"} for number in range(3)),
        {"log": "stopped"},
        {"other": 1},
    ]
    pattern = "GET /get/<Token-1> took <Token-2> ms"

    assert ask("pattern log", *found) == [[pattern, 0.75, 3], ["stopped", 0.25, 1]]
    assert ask("pattern log | sort @sampleCount | limit 1 | display @pattern", *found) == [["stopped"]]
    assert ask("filter log like 'GET' | pattern substr(log, 4) | display @ratio", *found) == [[1]]
    assert ask("parse log 'took *' as rest | pattern rest | fields @sampleCount", *found) == [
        ["<Token-1> ms", 1, 3],
    ]


def test_now_is_the_same_for_all_rows() -> None:
    """In seconds, as AWS documents it."""
    before = time.time()
    (first, *others) = column("fields now() as now")

    assert before - 1 < float(str(first)) <= time.time()
    assert set(others) == {first}


NUMBERS: Final = st.lists(st.integers(-1000, 1000), min_size=1, max_size=50)


@given(NUMBERS, st.integers(0, 100))
def test_a_percentile_is_one_of_the_values_and_divides_them(numbers: list[int], percent: int) -> None:
    """At least that percentage of the values is not above it, and at least the rest is not below it."""
    (value,) = column(f"stats pct(n, {percent})", *({"n": number} for number in numbers))

    assert value in numbers
    assert sum(number <= float(value) for number in numbers) >= len(numbers) * percent / 100
    assert sum(number >= float(value) for number in numbers) >= len(numbers) * (100 - percent) / 100


# Order and number of rows.


def test_sorting_uses_natural_order() -> None:
    """AWS's own example: texts first, their digits ordered by length, and then numbers."""
    ordered = "! # *%04 0# 5A 111A 2345_ @ @_ A A9876fghj a12345hfh 0 1 2 3".split()
    found = [{"value": value} for value in sorted(ordered)]

    assert column("fields value | sort value", *found) == ordered
    assert column("fields value | sort value asc", *found) == ordered
    assert column("fields value | sort value desc", *found) == ordered[::-1]


@given(NUMBERS)
def test_numbers_are_sorted_by_value(numbers: list[int]) -> None:
    """Also numbers that are texts."""
    found = [{"n": number if number % 2 else str(number)} for number in numbers]

    assert [int(str(value)) for value in column("fields n | sort n", *found)] == sorted(numbers)


def test_rows_are_sorted_by_the_first_key_first() -> None:
    """A later key orders rows that are equal by the keys before it. A missing value is before all others."""
    assert ask("fields route, ms | sort route desc, ms") == [
        ["/getall", 70],
        ["/get/{id}", 1.5],
        ["/get/{id}", 2.5],
        ["/add", 0.5],
        ["/add", 9],
    ]
    assert column("fields error | sort error | limit 4") == [None, None, None, "DatabaseBusy"]


def test_dedup_keeps_the_first_row_of_each_value_and_all_without_a_value() -> None:
    """The first in the current order, which is newest first by default."""
    assert column("fields ms | dedup client") == [70, 0.5, 2.5]
    assert column("fields ms | sort ms desc | dedup client") == [70, 9, 2.5]
    assert column("fields ms | dedup error") == [70, 0.5, 9, 2.5, 1.5]
    assert column("fields ms | dedup client, status | limit 2") == [70, 0.5]


def test_a_result_has_at_most_10000_rows() -> None:
    """Also without a limit."""
    found = [{"n": number} for number in range(10_001)]

    assert column("fields n", *found) == list(range(10_000, 0, -1))
    assert column("fields n | limit 3", *found) == [10_000, 9999, 9998]
    assert column("fields n | sort n | limit 2", *found) == [0, 1]


# Queries as a whole.


def test_comments_and_blank_lines_are_ignored() -> None:
    """A comment can be before, between and after commands. A hash inside a text starts no comment."""
    query = "# what it is for\n\nfields route # the path\n # | limit 1\n | filter route != '#'\n| limit 2\n# the end\n"

    assert column(query) == ["/getall", "/add"]


def test_source_names_the_log_group() -> None:
    """As in the widgets of a dashboard."""
    query = insights.parse("SOURCE '/clients/clients-api/lines' | fields route")

    assert query.group == "/clients/clients-api/lines"
    assert query.commands == insights.parse("fields route").commands
    assert insights.parse("fields route").group == ""


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("fields a, b.c as d, strlen(e) | filter d > 1 and not ispresent(f) | sort g", {"a", "b.c", "e", "f", "g"}),
        ("filter a = 1", {"a", "@timestamp", "@message"}),
        ("parse '* *' as a, b | display a, b, c", {"@message", "c"}),
        ("parse a /(?<b>x)/ | display b", {"a"}),
        ("stats max(a - b) as c, c * 2 as d by e, bin(5m) | sort c | display d", {"a", "b", "e", "@timestamp"}),
        ("fields a as a | filter a = 1", {"a"}),
        ("fields a as b, b as c | dedup c", {"a"}),
        ("fields a | dedup b", {"a", "b"}),
        ("stats max(a) as b by c | stats sum(b) as d by c", {"a", "c"}),
        ("pattern a | sort @sampleCount", {"a"}),
    ],
)
def test_fields_of_a_query_are_the_fields_of_records_that_it_reads(query: str, fields: set[str]) -> None:
    """Not the columns that it computes itself."""
    assert insights.fields_of(insights.parse(query)) == fields


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "Line 1, column 1: found the end, expected"),
        ("# only a comment", "column 17: found the end, expected"),
        ("fields a |", "column 11: found the end, expected"),
        ("fields a\n| stat count(*)", "Line 2, column 3: found stat, expected"),
        ("fields a filter b", "column 10: found filter, expected"),
        ("patterns @message", "column 1: found patterns, expected"),
        ("fields a,", "column 10: found the end, expected"),
        ("fields a as", "column 12: found the end, expected a name"),
        ("fields a-", "column 10: found the end, expected"),
        ("fields (a", "column 10: found the end, expected ')', an operator"),
        ("fields foo(a)", "column 8: 'foo' is not a supported function"),
        ("fields strlen()", "column 8: strlen does not take 0 arguments"),
        ("fields strlen(a, b)", "column 8: strlen does not take 2 arguments"),
        ("fields count(*)", "column 8: count is an aggregate: it is allowed only in stats, and not inside another one"),
        ("filter max(a) > 1", "column 8: max is an aggregate: it is allowed only in stats, and not inside another one"),
        (
            "stats max(max(a))",
            "column 11: max is an aggregate: it is allowed only in stats, and not inside another one",
        ),
        (
            "stats count(*) by max(a)",
            "column 19: max is an aggregate: it is allowed only in stats, and not inside another one",
        ),
        ("stats a", "column 7: 'a' is not inside an aggregate, such as max or latest"),
        ("stats max(a) - b", "column 16: 'b' is not inside an aggregate, such as max or latest"),
        ("stats bin(5m)", "column 7: '@timestamp' is not inside an aggregate, such as max or latest"),
        ("stats count(*) as n by a | sort b", "column 33: 'b' is not a column any more: there are only a, n"),
        (
            "stats count(*) as n by bin(5m) | sort @timestamp",
            "column 39: '@timestamp' is not a column any more: there are only bin(5m), n",
        ),
        (
            "stats count(*) as n by a | stats max(a) by n | stats count(*)",
            "column 48: a query has at most two stats, with no sort, limit or pattern before them",
        ),
        (
            "stats count(*) as n by a | sort n | stats max(n)",
            "column 37: a query has at most two stats, with no sort, limit or pattern before them",
        ),
        ("stats count(*) as n by a | stats max(b)", "column 38: 'b' is not a column any more: there are only a, n"),
        (
            "stats count(*) as n by a | stats max(n) by b",
            "column 44: 'b' is not a column any more: there are only a, n",
        ),
        (
            "stats sum(a) as b by c | stats avg(b) by bin(5m)",
            "column 42: '@timestamp' is not a column any more: there are only c, b",
        ),
        (
            "pattern @message | filter @severityLabel = 'x'",
            "column 27: '@severityLabel' is not a column any more: there are only @pattern, @ratio, @sampleCount",
        ),
        ("pattern max(a)", "column 9: max is an aggregate"),
        ("pattern @message | diff", "column 20: diff is not supported: it compares with an earlier time"),
        ("fields a | diff previousDay", "column 12: diff is not supported: it compares with an earlier time"),
        ("filterIndex a = 1", "column 1: filterIndex is not supported: it reads only what a field index covers"),
        ("fields a | unnest b into c", "column 12: unnest is not supported: lists as values are not supported"),
        ("fields a diff", "column 10: found diff, expected"),
        ("limit 1 | sort a", "column 11: found sort, expected 'display'"),
        ("dedup a | filter b", "column 11: found filter, expected 'limit'"),
        ("stats pct(a, b)", "column 7: the last argument of pct has to be a number from 0 to 100"),
        ("stats pct(a, 101)", "column 7: the last argument of pct has to be a number from 0 to 100"),
        ("stats spread(a)", "column 7: 'spread' is not a supported function"),
        ("fields bin(300)", "column 8: the last argument of bin has to be a time such as 5m"),
        ("fields bin(5mo)", "column 12: '5mo' is not a time such as 30s, 5m, 1h or 1d"),
        ("fields bin(0m)", "column 12: '0m' is not a time such as 30s, 5m, 1h or 1d"),
        ("fields datefloor(@timestamp, 5)", "column 8: the last argument of datefloor has to be a time such as 5m"),
        ("fields 5m", "column 8: found 5m, expected"),
        ("filter a like 5", "column 15: found 5, expected a regular expression in slashes, a text in quotes"),
        ("filter a like b", "column 15: found b, expected a regular expression in slashes, a text in quotes"),
        ("filter a =~ 'b'", "column 13: found 'b', expected a regular expression in slashes"),
        (
            "filter a like /(/",
            "column 15: invalid regular expression: missing ), unterminated subpattern at position 0",
        ),
        ("filter a", "column 8: expected a condition, such as a comparison"),
        ("filter a = 1 or 2", "column 17: expected a condition, such as a comparison"),
        ("filter 2 and a = 1", "column 8: expected a condition, such as a comparison"),
        ("filter not a", "column 12: expected a condition, such as a comparison"),
        ("fields a and b = 1 as both", "column 8: expected a condition, such as a comparison"),
        ("filter a not 5", "column 14: found 5, expected an operator"),
        ("filter a in 5", "column 13: found 5, expected '['"),
        ("filter a in []", "column 14: found ], expected a number, a text in quotes, an operator"),
        ("filter a in [b]", "column 14: found b, expected a number, a text in quotes, an operator"),
        ("filter a == 1", "column 11: found =, expected"),
        ("filter a && b", "column 10: unexpected character &"),
        ("filter a = 'b", "column 12: unexpected character '"),
        ("fields foo bar", "column 12: found bar, expected"),
        ("fields a 'or'", "column 10: found 'or', expected"),
        ("fields bin(5M)", "column 12: '5M' is not a time such as 30s, 5m, 1h or 1d"),
        ("limit 0", "column 7: limit takes a whole number from 1 to 10000"),
        ("limit 1.5", "column 7: limit takes a whole number from 1 to 10000"),
        ("limit 10001", "column 7: limit takes a whole number from 1 to 10000"),
        ("limit a", "column 7: found a, expected a number"),
        ("parse a 'x * y' as b, c", "column 9: the pattern has 1 values and 2 names"),
        ("parse a 'x' as b", "column 9: the pattern has 0 values and 1 names"),
        ("parse a /x(.)/", "column 9: the pattern has 1 values and 0 names"),
        ("parse a /(?<n>.)(.)/", "column 9: the pattern has 2 values and 1 names"),
        ("parse a 'x * y'", "column 16: found the end, expected 'as'"),
        ("parse a", "column 8: found the end, expected a regular expression in slashes, a text in quotes"),
        ("sort a up", "column 8: found up, expected"),
        (
            "SOURCE logGroups() | fields a",
            "column 8: SOURCE takes one log group in quotes here, since each query reads one",
        ),
        ("SOURCE 'a' fields a", "column 12: found fields, expected '|'"),
        ("SOURCE 'a' | SOURCE 'b' | fields a", "column 14: found SOURCE, expected"),
        ("fields bin(1h, 5m)", "column 8: bin does not take 2 arguments"),
        ("fields strlen(5m)", "column 8: only the last argument of bin, datefloor, dateceil can be a time such as 5m"),
        ("fields strlen(*)", "column 8: only count takes *"),
        ("filter " + "(" * 10_000, "a query has at most 10000 characters"),
        ("filter " + "not " * 2000 + "a = 1", "expressions are nested more than 100 levels deep"),
        ("fields a" + " + a" * 2000, "expressions are nested more than 100 levels deep"),
    ],
)
def test_an_invalid_query_is_refused_with_its_place(query: str, reason: str) -> None:
    """The message is a sentence with the line, the column and the reason."""
    with pytest.raises(InvalidQuery) as refused:
        insights.parse(query)

    assert reason in str(refused.value)
    assert str(refused.value).startswith("Line ")
    assert str(refused.value).endswith(".")


PIECES: Final = (
    "fields display filter parse pattern stats sort limit dedup SOURCE by as and or not like in asc desc count max pct "
    "bin ispresent a b.c @message `d-e` 1 2.5 5m 'x*' /z/ /(?<n>.)/ =~ = != < <= > >= + - * / ^ % ( ) [ ] , | #c \n"
).split(" ")


COMMANDS: Final = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "fields route, ms * 2 as twice",
                "display route, n",
                "parse route '/*' as path",
                "stats count(*) as n, avg(ms) by route, bin(5m) as period",
                "stats max(ms) - 1 as n by client as route",
                "stats sum(n) as n by route",
                "pattern route",
                "sort n desc, route",
                "dedup route",
                "limit 3",
            ]
        ),
        CONDITIONS.map(lambda condition: f"filter {condition}"),
    ),
    min_size=1,
    max_size=6,
).map(" | ".join)


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join), COMMANDS))
def test_any_text_gives_a_result_or_an_invalid_query(query: str) -> None:
    """No text raises another error, and each row has a value for each column."""
    try:
        parsed = insights.parse(query)
    except InvalidQuery:
        return
    table = insights.run(parsed, records(*REQUESTS))

    assert {len(row) for row in table.rows} <= {len(table.columns)}
    assert all(isinstance(value, str | int | float | None) for row in table.rows for value in row)
