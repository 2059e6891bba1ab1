"""The rules for an id, a name and an amount of money."""

import sys
import unicodedata
from contextlib import nullcontext
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
VISIBLE = st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), (str(MAX_ID), MAX_ID), ("0" * 5000 + "1", 1)])
def test_an_id_is_a_positive_integer_of_64_bits(text: str, number: int) -> None:
    """parse_id takes ASCII digits up to the largest bigint."""
    assert parse_id(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "00", "-1", "+1", " 1", "1 ", "1.0", "1e3", "1_000", "٣", "x", "\x00", "\udcff"]
)
def test_an_id_that_is_not_a_positive_number_is_rejected(text: str) -> None:
    """parse_id rejects everything that is not a positive integer in ASCII digits."""
    with pytest.raises(InvalidField) as rejected:
        parse_id(text)

    assert rejected.value.field == "id"


@pytest.mark.parametrize("text", [str(MAX_ID + 1), "9" * 5000])
def test_an_id_beyond_64_bits_has_no_client(text: str) -> None:
    """parse_id raises NoSuchClient for a number that is too large for a bigint."""
    with pytest.raises(NoSuchClient):
        parse_id(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("5", 5), ("9" * 30, MAX_ID)])
def test_a_page_may_start_anywhere(text: str, number: int) -> None:
    """parse_after takes 0, any id, and numbers above the largest id."""
    assert parse_after(text) == number


@pytest.mark.parametrize("text", ["0", "1001", "-1", "", "1.5", "٣", "9" * 5000])
def test_a_limit_out_of_bounds_is_rejected(text: str) -> None:
    """parse_limit rejects everything that is not a number from 1 to the maximum."""
    with pytest.raises(InvalidField):
        parse_limit(text, 1000)


def test_a_limit_may_equal_its_bounds() -> None:
    """parse_limit takes both the minimum and the maximum."""
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
        (" " + "\u03b1\u0313\u0300\u0345" * 150 + " ", "\u1f82" * 150),
    ],
)
def test_a_name_is_trimmed_and_composed(text: str, name: str) -> None:
    """parse_name trims white space, composes to NFC, and counts the characters afterwards."""
    assert parse_name(text) == name


@pytest.mark.parametrize("text", ["", " ", "\u2003\u3000", "a" * 151, "\u0958" * 76, "\u0300" * 8000, "a" * 601])
def test_a_name_has_1_to_150_characters(text: str) -> None:
    """parse_name rejects a name that is empty after the trim, or longer than 150 characters after composition."""
    with pytest.raises(InvalidField) as rejected:
        parse_name(text)

    assert rejected.value.field == "name"


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "Ann\n", "\tAnn", "\x7f", "\x85Ann", "a\ud800", "\udcff"])
def test_a_name_with_control_characters_or_surrogates_is_rejected(text: str) -> None:
    """parse_name removes none of them silently, not even at the ends."""
    with pytest.raises(InvalidField):
        parse_name(text)


def test_nfc_makes_a_text_at_most_4_times_shorter() -> None:
    """No code point decomposes into more than 4, so a name of over 600 code points can be refused before NFC."""
    assert max(len(unicodedata.normalize("NFD", chr(point))) for point in range(sys.maxunicode + 1)) == 4


def test_exactly_control_characters_and_surrogates_are_rejected() -> None:
    """parse_name rejects the categories Cc and Cs of Unicode, whose members never change, and no other category."""
    for point in map(chr, [*range(0x300), *range(0xD7F0, 0xD810), *range(0xDFF0, 0xE010)]):
        with pytest.raises(InvalidField) if unicodedata.category(point) in ("Cc", "Cs") else nullcontext():
            parse_name(f"a{point}a")


@given(st.text(VISIBLE, min_size=1, max_size=50))
@example("ﷺ")
def test_a_parsed_name_parses_to_itself(text: str) -> None:
    """parse_name changes nothing the second time, and its result is in NFC."""
    name = parse_name(text)

    assert parse_name(name) == name
    assert unicodedata.is_normalized("NFC", name)


@given(st.text())
def test_any_text_is_a_name_or_rejected(text: str) -> None:
    """parse_name returns a valid name or raises InvalidField, for any text."""
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
        ("0" * 16000, "0.00"),
        ("0" * 40 + "9999999999999999", "9999999999999999.00"),
    ],
)
def test_money_is_a_decimal_with_two_decimals(text: str, printed: str) -> None:
    """parse_money takes every value of numeric(18, 2), and print_money prints it with 2 decimals."""
    assert print_money(parse_money(text)) == printed


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", ".", "5.", ".5", "1.234", "10000000000000000", "-10000000000000000.00", "1e5", "1E-2"),
        *("NaN", "Infinity", "-inf", "1,5", "1_000", "0x10", "٣", "１", " 5", "5 ", "--5", "5\n", "$5", "\x00"),
        "0" * 40 + "1" + "0" * 16,
    ],
)
def test_money_that_is_not_such_a_decimal_is_rejected(text: str) -> None:
    """parse_money rejects everything else, and the error names the field."""
    with pytest.raises(InvalidField) as rejected:
        parse_money(text)

    assert rejected.value.field == "money"


@given(CENTS)
def test_printed_money_parses_to_itself(cents: int) -> None:
    """parse_money is the exact inverse of print_money over the whole range."""
    money = Decimal(cents) / 100

    assert parse_money(print_money(money)) == money


@given(st.text())
def test_any_text_is_money_or_rejected(text: str) -> None:
    """parse_money returns a valid amount or raises InvalidField, for any text."""
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
def test_a_key_that_is_not_visible_ascii_is_rejected(text: str) -> None:
    """parse_key rejects everything else."""
    with pytest.raises(InvalidField):
        parse_key(text)


def test_only_equal_fields_have_equal_fingerprints() -> None:
    """Fingerprints differ where either field differs, and are equal where both fields are."""
    clients = [NewClient("Ann", Decimal("1.00")), NewClient("Ann", Decimal("2.00")), NewClient("Bob", Decimal("1.00"))]

    assert len({client.fingerprint() for client in clients}) == 3
    assert clients[0].fingerprint() == NewClient("Ann", parse_money("+1")).fingerprint()
