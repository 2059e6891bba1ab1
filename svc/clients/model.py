"""What an id, a name and an amount of money may be: parse them from text, and print them."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from svc.errors import InvalidField, NoSuchClient

MAX_ID: Final = 2**63 - 1  # bigint
MAX_NAME_CHARACTERS: Final = 150
MAX_MONEY_DIGITS: Final = 16  # before the mark: numeric(18, 2)
MAX_KEY_CHARACTERS: Final = 255

MONEY_PATTERN: Final = rf"[+-]?0*[0-9]{{1,{MAX_MONEY_DIGITS}}}(\.[0-9]{{1,2}})?"
KEY_PATTERN: Final = rf"[!-~]{{1,{MAX_KEY_CHARACTERS}}}"

_ID_DIGITS: Final = len(str(MAX_ID))  # looked at before int(), which refuses, and wastes time on, very long runs
_DIGITS = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_MONEY = re.compile(MONEY_PATTERN)
_KEY = re.compile(KEY_PATTERN)
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client to be added.

    Attributes:
        name: 1 to 150 characters, NFC, no white space at its ends.
        money: exactly 2 decimals, a magnitude under 10^16.
    """

    name: str
    money: Decimal

    def fingerprint(self) -> bytes:
        """32 bytes that two clients share exactly where their fields are the same."""
        return hashlib.sha256(f"{print_money(self.money)} {self.name}".encode()).digest()


def parse_new(name: str, money: str) -> NewClient:
    """The client that the two fields describe; InvalidField names the one that is wrong."""
    return NewClient(parse_name(name), parse_money(money))


def parse_id(text: str) -> int:
    """A positive integer in ASCII digits.

    Raises:
        InvalidField: it is not such a number.
        NoSuchClient: it is, but beyond 64 bits, where no client can be.
    """
    digits = _natural("id", text, "a positive whole number in the digits 0 to 9, such as 5")
    if not digits:
        raise InvalidField("id", "id has to be 1 or more, and is 0.")
    if len(digits) > _ID_DIGITS or (found := int(digits)) > MAX_ID:
        raise NoSuchClient
    return found


def parse_after(text: str) -> int:
    """The id after which a page starts: 0 or more, and the largest id there can be where it is larger still."""
    digits = _natural("after", text, "an id in the digits 0 to 9, such as 5")
    return MAX_ID if len(digits) > _ID_DIGITS else min(int(digits or "0"), MAX_ID)


def parse_limit(text: str, most: int) -> int:
    """How many clients a page may hold: 1 to `most`."""
    expected = f"a whole number from 1 to {most}"
    digits = _natural("limit", text, expected)
    if not digits or len(digits) > len(str(most)) or int(digits) > most:
        raise InvalidField("limit", f"limit has to be {expected}, and is {_quoted(text)}.")
    return int(digits)


def parse_name(text: str) -> str:
    """The name in NFC without the white space at its ends.

    Control characters are refused before anything is trimmed, so that none is dropped unseen.
    """
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            raise InvalidField("name", f"name has a control character, U+{ord(character):04X}; take it out.")
        if category == "Cs":
            raise InvalidField("name", "name has bytes or a lone surrogate that are no character; send it in UTF-8.")
    name = unicodedata.normalize("NFC", text.strip())
    if not name:
        raise InvalidField("name", "name is empty; it has to have 1 to 150 characters besides white space.")
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidField("name", f"name has {len(name)} characters; it may have {MAX_NAME_CHARACTERS} at most.")
    return name


def parse_money(text: str) -> Decimal:
    """The amount, exact, with 2 decimals."""
    if not _MONEY.fullmatch(text):
        raise InvalidField("money", _what_is_wrong_with_money(text))
    # Adding 0 turns -0.00 into 0.00, as numeric does.
    return Decimal(text).quantize(_CENT) + 0


def print_money(money: Decimal) -> str:
    """The amount as the API and PostgreSQL write it: `-0.50`, `200.00`."""
    return f"{money:.2f}"


def parse_key(text: str) -> str:
    """An Idempotency-Key: 1 to 255 visible ASCII characters."""
    if not _KEY.fullmatch(text):
        raise InvalidField(
            "Idempotency-Key",
            f"Idempotency-Key has to be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters without spaces.",
        )
    return text


def _natural(field: str, text: str, expected: str) -> str:
    """The digits of a number in ASCII digits, without leading zeros."""
    if not _DIGITS.fullmatch(text):
        raise InvalidField(field, f"{field} has to be {expected}, and is {_quoted(text)}.")
    return text.lstrip("0")


def _what_is_wrong_with_money(text: str) -> str:
    if text.startswith(" "):
        return "money starts with a space; in a query or a form, a plus sign is written %2B."
    if not _DECIMAL.fullmatch(text):
        return f"money has to be a decimal such as 200, -3.5 or 1234.56, and is {_quoted(text)}."
    if len(text.lstrip("+-").partition(".")[0].lstrip("0")) > MAX_MONEY_DIGITS:
        return f"money may have {MAX_MONEY_DIGITS} digits before the decimal mark at most."
    return f"money has to have 1 or 2 decimals after its decimal mark, or no mark, and is {_quoted(text)}."


def _quoted(text: str, most: int = 40) -> str:
    """The text as a caller would recognise it, short, and printable whatever it holds."""
    shown = text if len(text) <= most else text[:most] + "…"
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown) + '"'
