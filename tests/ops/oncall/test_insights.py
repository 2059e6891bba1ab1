"""The query language of Logs Insights, sentence by sentence; what it does not know is refused, and where is said."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.oncall import insights
from ops.oncall.insights import Refused
from ops.oncall.logs import Record, Value

NOON: Final = 1_767_268_800_000  # 2026-01-01 12:00 UTC, in milliseconds

# Of requests, the oldest first; a minute apart.
REQUESTS: Final[list[dict[str, Any]]] = [
    {"route": "/get/{id}", "status": 200, "ms": 1.5, "client": "10.0.0.1", "sampled": True},
    {"route": "/get/{id}", "status": 404, "ms": 2.5, "client": "10.0.0.1", "error": "NoSuchClient", "sampled": False},
    {"route": "/add", "status": 201, "ms": 9, "client": "10.0.0.2", "note": ""},
    {"route": "/add", "status": 503, "ms": 0.5, "client": "10.0.0.2", "error": "DatabaseBusy", "note": "  "},
    {"route": "/getall", "status": 200, "ms": 70, "client": "10.0.0.3", "tags": ["x", {"deep": 7}], "odd-name": 1},
]


def records(*found: Mapping[str, Any]) -> list[Record]:
    """Records a minute apart, from noon on."""
    return [Record(NOON + number * 60_000, "stream", fields) for number, fields in enumerate(found)]


def ask(query: str, *found: Mapping[str, Any]) -> list[list[Value]]:
    """What a query gives of these, or else of the requests."""
    return insights.run(insights.parse(query), records(*(found or REQUESTS))).rows


def column(query: str, *found: Mapping[str, Any]) -> list[Value]:
    """The same, where it is one column."""
    return [value for (value,) in ask(query, *found)]


def columns(query: str) -> list[str]:
    return insights.run(insights.parse(query), records(*REQUESTS)).columns


# What is shown.


def test_without_a_word_on_it_time_and_message_are_shown_and_the_newest_is_first() -> None:
    """As the console does; the message is what was logged, the time is in UTC."""
    query = "filter status = 200"

    assert columns(query) == ["@timestamp", "@message"]
    assert ask(query) == [
        ["2026-01-01 12:04:00.000", json.dumps(REQUESTS[4], separators=(",", ":"))],
        ["2026-01-01 12:00:00.000", json.dumps(REQUESTS[0], separators=(",", ":"))],
    ]


def test_of_records_of_one_moment_the_last_that_came_is_first() -> None:
    """Where times are equal, the order of coming decides."""
    found = [Record(NOON, "stream", {"n": number}) for number in range(3)]

    assert insights.run(insights.parse("fields n"), found).rows == [[2], [1], [0]]


def test_fields_add_up_and_the_last_display_decides() -> None:
    """Several `fields` show all of theirs; where there is a `display`, only its own are shown."""
    assert columns("fields route | fields status, route") == ["route", "status"]
    assert columns("fields route | display status | fields ms") == ["status"]
    assert columns("display status | display ms, route") == ["ms", "route"]
    assert columns("display status | stats count(*) as n | fields n * 2 as twice") == ["n", "twice"]


def test_a_column_is_called_by_its_alias_or_else_by_its_own_words() -> None:
    """As CloudWatch calls them."""
    assert columns("fields route, ms * 2, strlen(route) as length") == ["route", "ms * 2", "length"]
    assert columns("stats count(*), max(ms) as most by route, bin(5m)") == ["route", "bin(5m)", "count(*)", "most"]


def test_names_reach_into_objects_and_lists() -> None:
    """By dots, and by numbers into lists; an object itself is no value, and neither is what is not there."""
    query = "fields tags.0, tags.1.deep, tags.1, tags, tags.7, nowhere.at.all, `odd-name` | limit 1"

    assert ask(query) == [["x", 7, None, None, None, None, 1]]
    assert column("fields a.`b-c`.d", {"a": {"b-c": {"d": "found"}}}) == ["found"]


def test_true_and_false_are_one_and_zero() -> None:
    """In a record, and where a comparison is shown."""
    assert column("fields sampled") == [None, None, None, 0, 1]
    assert column("fields status >= 400") == [0, 1, 0, 1, 0]


def test_keywords_and_functions_are_the_same_in_any_case() -> None:
    """AWS's own examples write them in several."""
    assert column("FIELDS route | FILTER isPresent(error) AND status IN [404] | LIMIT 1") == ["/get/{id}"]


# What is filtered.


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
def test_a_filter_keeps_what_meets_its_condition(condition: str, statuses: list[int]) -> None:
    """`and` binds closer than `or`, and `not` closer than both; what is missing meets no comparison."""
    assert column(f"fields status | filter {condition}") == statuses
    assert column(f"fields status | where {condition}") == statuses


def test_filters_add_up_and_may_come_after_stats() -> None:
    """Each takes from what the one before has left."""
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
def test_a_condition_and_its_opposite_share_out_the_records(condition: str) -> None:
    """Each record is in one of the two, and none in both."""
    kept = column(f"fields ms | filter {condition}")
    rest = column(f"fields ms | filter not ({condition})")

    assert sorted([*kept, *rest], key=str) == sorted((request["ms"] for request in REQUESTS), key=str)


# What is computed.


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
        ("bin(1h)", "2026-01-01 12:00:00.000"),
        ("bin(30s)", "2026-01-01 12:00:00.000"),
        ("@logStream", "stream"),
    ],
)
def test_values_are_computed(expression: str, value: Value) -> None:
    """As AWS's table of functions has it; where it has no result, there is none, and no error."""
    found = {"n": 42, "word": "Word", "text": "12", "blank": "  x "}

    assert column(f"fields {expression} as value", found) == [value]


def test_what_a_command_makes_the_next_can_use() -> None:
    """An alias is a field from there on, in the same command too."""
    query = "fields ms * 2 as twice, twice * 2 as fourfold | filter fourfold > 30 | sort twice | display fourfold"

    assert column(query) == [36, 280]


def test_parse_takes_fields_out_of_a_text_with_stars() -> None:
    """A star is as little as fits, and at an end all that there is; where nothing fits, there are no fields."""
    log = {"log": "user=ann, method:GET, took := 12 ms"}

    assert ask(
        "parse log 'user=*, method:*, took := * ms' as user, method, took | display user, method, took", log
    ) == [["ann", "GET", "12"]]
    assert ask("parse log '*=*, *' as a, b, c | display a, b, c", log) == [["user", "ann", "method:GET, took := 12 ms"]]
    assert ask("parse log 'nobody=*' as nobody | display nobody, log", log) == [[None, log["log"]]]
    assert column("parse nowhere '*' as all | display all", log) == [None]


def test_parse_takes_fields_out_by_named_groups() -> None:
    """Of an expression; of the message, where no field is named; numbers in a text count as numbers."""
    query = r"parse /took := (?<took>\d+) (?<unit>\w+)/ | filter took > 9 | display took, unit"

    assert ask(query, {"log": "took := 12 ms"}, {"log": "took := 7 ms"}) == [["12", "ms"]]
    assert column(r"parse log /a\/(?<rest>.*)/ | display rest", {"log": "a/b"}) == ["b"]


# What is counted.


def test_stats_make_one_row_of_all_or_one_of_each_group() -> None:
    """The groups' own columns come first; without a record there is no row."""
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
def test_a_group_is_summed_up(aggregate: str, value: Value) -> None:
    """Of what is there, and of numbers where it takes numbers; aggregates can be computed with."""
    assert column(f"stats {aggregate} as value") == [value]


def test_a_column_of_stats_can_use_those_before_it() -> None:
    """As in AWS's own example of memory that is not used."""
    assert ask("stats max(ms) as most, min(ms) as least, most - least as span") == [[70, 0.5, 69.5]]
    assert ask("stats count(*) as n | fields n * 2 as twice, twice * 2 as fourfold") == [[5, 10, 20]]


def test_groups_are_made_of_times_and_expressions() -> None:
    """`bin` cuts the time, and a record without the value is a group too."""
    assert ask("stats count(*) as n by bin(2m) as period | sort period") == [
        ["2026-01-01 12:00:00.000", 2],
        ["2026-01-01 12:02:00.000", 2],
        ["2026-01-01 12:04:00.000", 1],
    ]
    assert ask("stats count(*) as n by error | sort error") == [[None, 3], ["DatabaseBusy", 1], ["NoSuchClient", 1]]
    assert ask("stats count(*) as n by floor(status / 100) as class | sort class") == [[2, 3], [4, 1], [5, 1]]


NUMBERS: Final = st.lists(st.integers(-1000, 1000), min_size=1, max_size=50)


@given(NUMBERS, st.integers(0, 100))
def test_a_percentile_is_a_value_that_parts_the_rest(numbers: list[int], percent: int) -> None:
    """At least that share is not above it, and at least the rest is not below it."""
    (value,) = column(f"stats pct(n, {percent})", *({"n": number} for number in numbers))

    assert value in numbers
    assert sum(number <= float(value) for number in numbers) >= len(numbers) * percent / 100
    assert sum(number >= float(value) for number in numbers) >= len(numbers) * (100 - percent) / 100


# How it is ordered and cut.


def test_sorting_is_natural() -> None:
    """AWS's own example: what is no number first, with digits by their length, and then numbers."""
    ordered = "! # *%04 0# 5A 111A 2345_ @ @_ A A9876fghj a12345hfh 0 1 2 3".split()
    found = [{"value": value} for value in sorted(ordered)]

    assert column("fields value | sort value", *found) == ordered
    assert column("fields value | sort value asc", *found) == ordered
    assert column("fields value | sort value desc", *found) == ordered[::-1]


@given(NUMBERS)
def test_numbers_are_sorted_by_their_size(numbers: list[int]) -> None:
    """Whether they are written as numbers or as texts."""
    found = [{"n": number if number % 2 else str(number)} for number in numbers]

    assert [int(str(value)) for value in column("fields n | sort n", *found)] == sorted(numbers)


def test_sorting_by_several_keeps_the_first_as_the_first() -> None:
    """The later ones decide where those before are equal; what is missing is the least."""
    assert ask("fields route, ms | sort route desc, ms") == [
        ["/getall", 70],
        ["/get/{id}", 1.5],
        ["/get/{id}", 2.5],
        ["/add", 0.5],
        ["/add", 9],
    ]
    assert column("fields error | sort error | limit 4") == [None, None, None, "DatabaseBusy"]


def test_dedup_keeps_the_first_of_each_and_all_without_a_value() -> None:
    """The first in the order that there is: the newest, where none is asked for."""
    assert column("fields ms | dedup client") == [70, 0.5, 2.5]
    assert column("fields ms | sort ms desc | dedup client") == [70, 9, 2.5]
    assert column("fields ms | dedup error") == [70, 0.5, 9, 2.5, 1.5]
    assert column("fields ms | dedup client, status | limit 2") == [70, 0.5]


def test_there_are_ten_thousand_rows_at_most() -> None:
    """Also where no limit is given."""
    found = [{"n": number} for number in range(10_001)]

    assert column("fields n", *found) == list(range(10_000, 0, -1))
    assert column("fields n | limit 3", *found) == [10_000, 9999, 9998]
    assert column("fields n | sort n | limit 2", *found) == [0, 1]


# What a query is.


def test_comments_and_blank_lines_are_passed_over() -> None:
    """A line of comment can stand before, between and after commands, and a hash in a text is no comment."""
    query = "# what it is for\n\nfields route # the path\n # | limit 1\n | filter route != '#'\n| limit 2\n# the end\n"

    assert column(query) == ["/getall", "/add"]


def test_the_group_is_what_source_names() -> None:
    """As a dashboard's widgets have it."""
    query = insights.parse("SOURCE '/aws/containerinsights/clients/application' | fields route")

    assert query.group == "/aws/containerinsights/clients/application"
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
    ],
)
def test_a_query_knows_what_it_reads(query: str, fields: set[str]) -> None:
    """The fields of records; what it makes itself is none of them."""
    assert insights.fields_of(insights.parse(query)) == fields


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "Line 1, column 1: here is the end, and not one of fields, display, filter"),
        ("# nothing but a comment", "Line 1, column 24: here is the end"),
        ("fields a |", "Line 1, column 11: here is the end"),
        ("fields a\n| stat count(*)", "Line 2, column 3: here is 'stat', and not one of"),
        ("fields a filter b", "column 10: here is 'filter', and not \"|\" or the end"),
        ("pattern @message", "here is 'pattern', and not one of"),
        ("fields a,", "here is the end, and not a field, a value or a function"),
        ("fields a as", "here is the end, and not a name"),
        ("fields a-", "here is the end, and not a field"),
        ("fields (a", 'here is the end, and not ")"'),
        ("fields foo(a)", "column 8: 'foo' is no function that is known here"),
        ("fields strlen()", "column 8: strlen is not given what it takes"),
        ("fields strlen(a, b)", "strlen is not given what it takes"),
        ("fields count(*)", "column 8: count has its place in stats, and a name by as for later"),
        ("filter max(a) > 1", "max has its place in stats"),
        ("stats max(max(a))", "column 11: max has its place in stats"),
        ("stats count(*) by max(a)", "max has its place in stats"),
        ("stats a", "column 7: 'a' has to stand within one of count, count_distinct"),
        ("stats max(a) - b", "'b' has to stand within one of"),
        ("stats bin(5m)", "'@timestamp' has to stand within one of"),
        ("stats count(*) as n by a | sort b", "column 33: after stats there is no 'b', only a, n"),
        ("stats count(*) as n by bin(5m) | sort @timestamp", "after stats there is no '@timestamp'"),
        ("stats count(*) | stats count(*)", "stats cannot stand here, only fields"),
        ("sort a | stats count(*)", "stats cannot stand here"),
        ("limit 1 | sort a", "sort cannot stand here, only display"),
        ("dedup a | filter b", "filter cannot stand here, only limit"),
        ("stats pct(a, b)", "pct takes a number from 0 to 100 last"),
        ("stats pct(a, 101)", "pct takes a number from 0 to 100 last"),
        ("stats stddev(a)", "'stddev' is no function"),
        ("fields bin(300)", "bin takes a time such as 5m last"),
        ("fields bin(5mo)", "'5mo' is no time such as 30s, 5m, 1h or 1d"),
        ("fields bin(0m)", "'0m' is no time"),
        ("fields datefloor(@timestamp, 5)", "datefloor takes a time such as 5m last"),
        ("fields 5m", "here is '5m', and not"),
        ("filter a like 5", "here is '5', and not a text or a regex"),
        ("filter a like b", "here is 'b', and not a text or a regex"),
        ("filter a =~ 'b'", "here is 'b', and not a regex"),
        ("filter a like /(/", "column 15: the regular expression is none: missing )"),
        ("filter a", "column 8: 'a' is no condition, such as a comparison"),
        ("filter a = 1 or 2", "column 17: '2' is no condition"),
        ("filter 2 and a = 1", "column 8: '2' is no condition"),
        ("filter not a", "column 12: 'a' is no condition"),
        ("fields a and b = 1 as both", "column 8: 'a' is no condition"),
        ("filter a not 5", "here is '5', and not like or in"),
        ("filter a in 5", "here is '5', and not \"[\""),
        ("filter a in []", "here is ']', and not a number, or a text in quotes"),
        ("filter a in [b]", "here is 'b', and not a number, or a text in quotes"),
        ("filter a == 1", "here is '=', and not"),
        ("filter a && b", "column 10: '&' begins nothing that is known here"),
        ("filter a = 'b", 'column 12: "\'" begins nothing that is known here'),
        ("fields foo bar", "here is 'bar'"),
        ("fields a 'or'", "column 10: here is 'or', and not"),
        ("fields bin(5M)", "'5M' is no time"),
        ("filter " + "(" * 10_000, "it has more within one another than can be read"),
        ("limit 0", "a limit is a whole number from 1 to 10000"),
        ("limit 1.5", "a limit is a whole number from 1 to 10000"),
        ("limit 10001", "a limit is a whole number from 1 to 10000"),
        ("limit a", "here is 'a', and not a number of rows"),
        ("parse a 'x * y' as b, c", "column 9: 1 values and 2 names do not fit together"),
        ("parse a 'x' as b", "0 values and 1 names"),
        ("parse a /x(.)/", "1 values and 0 names"),
        ("parse a /(?<n>.)(.)/", "2 values and 1 names"),
        ("parse a 'x * y'", "here is the end, and not as, with a name for each *"),
        ("parse a", "here is the end, and not a text with * in it"),
        ("sort a up", "here is 'up'"),
        ("SOURCE logGroups() | fields a", "here is 'logGroups', and not a log group's name in quotes"),
        ("SOURCE 'a' fields a", "here is 'fields', and not \"|\""),
        ("SOURCE 'a' | SOURCE 'b' | fields a", "here is 'SOURCE', and not one of"),
    ],
)
def test_what_is_not_understood_is_refused_where_it_stands(query: str, why: str) -> None:
    """With a sentence for people, and never passed over."""
    with pytest.raises(Refused) as refused:
        insights.parse(query)

    assert why in str(refused.value)
    assert str(refused.value).startswith("Line ")
    assert str(refused.value).endswith(".")


PIECES: Final = (
    "fields display filter parse stats sort limit dedup SOURCE by as and or not like in asc desc count max pct bin "
    "ispresent a b.c @message `d-e` 1 2.5 5m 'x*' \"y\" /z/ /(?<n>.)/ =~ = != < <= > >= + - * / ^ % ( ) [ ] , | #c \n"
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
def test_whatever_is_asked_is_answered_or_refused(query: str) -> None:
    """With rows that have a value for each column, or not at all; nothing else comes of it."""
    try:
        parsed = insights.parse(query)
    except Refused:
        return
    table = insights.run(parsed, records(*REQUESTS))

    assert {len(row) for row in table.rows} <= {len(table.columns)}
    assert all(isinstance(value, str | int | float | None) for row in table.rows for value in row)
