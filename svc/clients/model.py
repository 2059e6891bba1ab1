"""The rules for an id, a name and an amount of money: parsing from text, and printing."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from svc.errors import InvalidField, NoSuchClient

MAX_ID: Final = 2**63 - 1  # bigint
MAX_NAME_CHARACTERS: Final = 150
MAX_MONEY_DIGITS: Final = 16  # before the decimal point, as in numeric(18, 2)
MAX_KEY_CHARACTERS: Final = 255

# Only one way to read a zero: with two, 16 KB of zeros would take 10 ms.
MONEY_PATTERN: Final = rf"[+-]?0*(?:0|[1-9][0-9]{{0,{MAX_MONEY_DIGITS - 1}}})(?:\.[0-9]{{1,2}})?"
KEY_PATTERN: Final = rf"[!-~]{{1,{MAX_KEY_CHARACTERS}}}"

# NFC composes up to 4 code points into one, so a longer text cannot become a valid name. Checked before NFC, which is
# quadratic in the length of a run of combining marks: 16 KB of them would take 60 to 350 ms.
_MAX_NAME_CODE_POINTS: Final = 4 * MAX_NAME_CHARACTERS
_ID_DIGITS: Final = len(str(MAX_ID))  # checked before int(), which is slow for long numbers, and refuses very long ones
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DIGITS = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_MONEY = re.compile(MONEY_PATTERN)
_KEY = re.compile(KEY_PATTERN)
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client to add.

    Attributes:
        name: 1 to 150 characters in NFC, without white space at either end.
        money: exactly 2 decimals, a magnitude under 10^16.
    """

    name: str
    money: Decimal

    def fingerprint(self) -> bytes:
        """A digest of 32 bytes, equal for two clients with equal fields."""
        return hashlib.sha256(f"{print_money(self.money)} {self.name}".encode()).digest()


def parse_new(name: str, money: str) -> NewClient:
    """Parses a client from its two fields.

    Raises:
        InvalidField: one of them is not valid; the error names it.
    """
    return NewClient(parse_name(name), parse_money(money))


def parse_id(text: str) -> int:
    """Parses an id: a positive integer in ASCII digits.

    Raises:
        InvalidField: the text is not such a number.
        NoSuchClient: the number is larger than the largest possible id.
    """
    digits = _natural("id", text, "a positive whole number in the digits 0 to 9, such as 5")
    if not digits:
        raise InvalidField("id", "id must be 1 or more, but is 0.")
    if len(digits) > _ID_DIGITS or (found := int(digits)) > MAX_ID:
        raise NoSuchClient
    return found


def parse_after(text: str) -> int:
    """Parses the id after which a page starts: 0 or more. A number above the largest possible id becomes that id."""
    digits = _natural("after", text, "an id in the digits 0 to 9, such as 5")
    return MAX_ID if len(digits) > _ID_DIGITS else min(int(digits or "0"), MAX_ID)


def parse_limit(text: str, max_limit: int) -> int:
    """Parses the maximum number of clients in a page: 1 to `max_limit`."""
    expected = f"a whole number from 1 to {max_limit}"
    digits = _natural("limit", text, expected)
    if not digits or len(digits) > len(str(max_limit)) or int(digits) > max_limit:
        raise InvalidField("limit", f"limit must be {expected}, but is {_quoted(text)}.")
    return int(digits)


def parse_name(text: str) -> str:
    """Parses a name: converts it to NFC and trims the white space at its ends.

    Control characters are refused before the trim, which would drop some of them silently.
    """
    trimmed = text.strip()
    if len(trimmed) > _MAX_NAME_CODE_POINTS:
        raise InvalidField("name", f"name has more than {MAX_NAME_CHARACTERS} characters, which is the maximum.")
    if control := _CONTROL.search(text):
        raise InvalidField("name", f"name has a control character, U+{ord(control[0]):04X}; remove it.")
    if _SURROGATE.search(text):
        raise InvalidField("name", "name has bytes or a lone surrogate that are not a character; send it in UTF-8.")
    name = unicodedata.normalize("NFC", trimmed)
    if not name:
        raise InvalidField(
            "name", f"name is empty; it must have 1 to {MAX_NAME_CHARACTERS} characters, not only white space."
        )
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidField("name", f"name has {len(name)} characters; the maximum is {MAX_NAME_CHARACTERS}.")
    return name


def parse_money(text: str) -> Decimal:
    """Parses an amount: exact, with 2 decimals."""
    if not _MONEY.fullmatch(text):
        raise InvalidField("money", _money_error(text))
    # Adding 0 turns -0.00 into 0.00, as PostgreSQL's numeric does.
    return Decimal(text).quantize(_CENT) + 0


def print_money(money: Decimal) -> str:
    """Prints the amount as the API and PostgreSQL do: `-0.50`, `200.00`."""
    return f"{money:.2f}"


def parse_key(text: str) -> str:
    """Parses an Idempotency-Key: 1 to 255 visible ASCII characters."""
    if not _KEY.fullmatch(text):
        raise InvalidField(
            "Idempotency-Key",
            f"Idempotency-Key must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters, without spaces.",
        )
    return text


def _natural(field: str, text: str, expected: str) -> str:
    """The ASCII digits of a natural number, without leading zeros: "" for 0."""
    if not _DIGITS.fullmatch(text):
        raise InvalidField(field, f"{field} must be {expected}, but is {_quoted(text)}.")
    return text.lstrip("0")


def _money_error(text: str) -> str:
    """A sentence for the caller about why the text is not an amount."""
    if text.startswith(" "):
        return "money starts with a space; in a query or a form, write a plus sign as %2B."
    if not _DECIMAL.fullmatch(text):
        return f"money must be a decimal number such as 200, -3.5 or 1234.56, but is {_quoted(text)}."
    if len(text.lstrip("+-").partition(".")[0].lstrip("0")) > MAX_MONEY_DIGITS:
        return f"money has more than {MAX_MONEY_DIGITS} digits before the decimal point."
    return f"money must have 1 or 2 digits after the decimal point, or no decimal point, but is {_quoted(text)}."


def _quoted(text: str, max_characters: int = 40) -> str:
    """The text in quotes for an error message: shortened, and with every unprintable character escaped."""
    shown = text if len(text) <= max_characters else text[:max_characters] + "…"
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown) + '"'
