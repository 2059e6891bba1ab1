"""What an id, a name and an amount of money may be."""

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from svc.clients.model import (
    MAX_ID,
    NewClient,
    parse_after,
    parse_id,
    parse_key,
    parse_limit,
    parse_money,
    parse_name,
    print_money,
)
from svc.errors import InvalidField, NoSuchClient

CENTS = st.integers(-(10**18) + 1, 10**18 - 1)
INK = st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), (str(MAX_ID), MAX_ID), ("0" * 5000 + "1", 1)])
def test_an_id_is_a_positive_integer_of_64_bits(text: str, number: int) -> None:
    """parse_id takes ASCII digits up to the largest bigint."""
    assert parse_id(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "00", "-1", "+1", " 1", "1 ", "1.0", "1e3", "1_000", "٣", "x", "\x00", "\udcff"]
)
def test_what_is_no_positive_number_is_no_id(text: str) -> None:
    """parse_id refuses all that is not a positive integer in ASCII digits."""
    with pytest.raises(InvalidField) as refused:
        parse_id(text)

    assert refused.value.field == "id"


@pytest.mark.parametrize("text", [str(MAX_ID + 1), "9" * 5000])
def test_an_id_beyond_64_bits_is_nobodys(text: str) -> None:
    """parse_id says of a number that no bigint holds that there is no such client."""
    with pytest.raises(NoSuchClient):
        parse_id(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("5", 5), ("9" * 30, MAX_ID)])
def test_a_page_may_start_anywhere(text: str, number: int) -> None:
    """parse_after takes 0, any id, and what lies beyond them all."""
    assert parse_after(text) == number


@pytest.mark.parametrize("text", ["0", "1001", "-1", "", "1.5", "٣", "9" * 5000])
def test_a_limit_stays_within_its_bounds(text: str) -> None:
    """parse_limit refuses what is not a number from 1 to the most."""
    with pytest.raises(InvalidField):
        parse_limit(text, 1000)


def test_a_limit_may_be_its_bounds() -> None:
    """parse_limit takes both ends of its range."""
    assert [parse_limit(text, 1000) for text in ("1", "1000", "01")] == [1, 1000, 1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A", "A"),
        ("  Andrés \u3000", "Andrés"),
        ("Andre\u0301s", "Andrés"),
        ("a" * 150, "a" * 150),
        ("  " + "a" * 150 + "  ", "a" * 150),
        ("😀" * 150, "😀" * 150),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("e\u0301" * 150, "é" * 150),
    ],
)
def test_a_name_is_trimmed_and_composed(text: str, name: str) -> None:
    """parse_name takes off white space at the ends, composes to NFC, and counts characters after that."""
    assert parse_name(text) == name


@pytest.mark.parametrize("text", ["", " ", "\u2003\u3000", "a" * 151, "\u0958" * 76])
def test_a_name_has_1_to_150_characters(text: str) -> None:
    """parse_name refuses what is empty once trimmed, or longer than 150 characters once composed."""
    with pytest.raises(InvalidField) as refused:
        parse_name(text)

    assert refused.value.field == "name"


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "Ann\n", "\tAnn", "\x7f", "\x85Ann", "a\ud800", "\udcff"])
def test_a_name_with_control_characters_or_surrogates_is_refused(text: str) -> None:
    """parse_name repairs nothing silently, at the ends neither."""
    with pytest.raises(InvalidField):
        parse_name(text)


@given(st.text(INK, min_size=1, max_size=50))
@example("ﷺ")
def test_a_parsed_name_parses_to_itself(text: str) -> None:
    """parse_name is done after one go, and gives NFC."""
    name = parse_name(text)

    assert parse_name(name) == name
    assert unicodedata.is_normalized("NFC", name)


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """parse_name has no third way out."""
    try:
        name = parse_name(text)
    except InvalidField:
        return

    assert 1 <= len(name) <= 150
    assert name == name.strip()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0", "0.00"),
        ("-0", "0.00"),
        ("-0.00", "0.00"),
        ("200", "200.00"),
        ("+3.5", "3.50"),
        ("-0.01", "-0.01"),
        ("9999999999999999.99", "9999999999999999.99"),
        ("-9999999999999999.99", "-9999999999999999.99"),
        ("0" * 40 + "1.20", "1.20"),
    ],
)
def test_money_is_a_decimal_with_two_decimals(text: str, printed: str) -> None:
    """parse_money takes what numeric(18, 2) holds, and print_money writes it with 2 decimals."""
    assert print_money(parse_money(text)) == printed


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", ".", "5.", ".5", "1.234", "10000000000000000", "-10000000000000000.00", "1e5", "1E-2"),
        *("NaN", "Infinity", "-inf", "1,5", "1_000", "0x10", "٣", "１", " 5", "5 ", "--5", "5\n", "$5", "\x00"),
    ],
)
def test_what_is_no_such_decimal_is_refused(text: str) -> None:
    """parse_money refuses all else, and says that it is the money."""
    with pytest.raises(InvalidField) as refused:
        parse_money(text)

    assert refused.value.field == "money"


@given(CENTS)
def test_printed_money_parses_to_itself(cents: int) -> None:
    """parse_money undoes print_money over the whole range, to the cent."""
    money = Decimal(cents) / 100

    assert parse_money(print_money(money)) == money


@given(st.text())
def test_any_text_is_money_or_refused(text: str) -> None:
    """parse_money has no third way out."""
    try:
        money = parse_money(text)
    except InvalidField:
        return

    assert abs(money) < 10**16


@pytest.mark.parametrize("text", ["a", "!" * 255, "0b6f-8.~"])
def test_a_key_is_visible_ascii(text: str) -> None:
    """parse_key takes 1 to 255 visible ASCII characters."""
    assert parse_key(text) == text


@pytest.mark.parametrize("text", ["", "a b", "a" * 256, "é", "a\x7f", "\udcff", "a\n"])
def test_what_is_not_visible_ascii_is_no_key(text: str) -> None:
    """parse_key refuses all else."""
    with pytest.raises(InvalidField):
        parse_key(text)


def test_only_the_same_fields_have_the_same_fingerprint() -> None:
    """A fingerprint tells clients apart by both of their fields."""
    clients = [NewClient("Ann", Decimal("1.00")), NewClient("Ann", Decimal("2.00")), NewClient("Bob", Decimal("1.00"))]

    assert len({client.fingerprint() for client in clients}) == 3
    assert clients[0].fingerprint() == NewClient("Ann", parse_money("+1")).fingerprint()
