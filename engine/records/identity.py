"""Names, documents and phone numbers as people write them: what is acceptable, and how little of it is shown.

Pure. `identify` makes a Person of what was typed, or says which part is wrong.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from engine.domain.limits import NAME_CHARS_MAX

AGE_YEARS_MAX: Final = 150


class IdType(StrEnum):
    RESIDENT_ID = "resident_id"  # 居民身份证 and 港澳台居民居住证 (81, 82, 83): both are GB 11643
    PASSPORT = "passport"
    HK_MACAU_PERMIT = "hk_macau_permit"  # 港澳居民来往内地通行证
    TAIWAN_PERMIT = "taiwan_permit"  # 台湾居民来往大陆通行证
    FOREIGN_PERMANENT = "foreign_permanent"  # 外国人永久居留身份证


IN_REGISTER: Final = frozenset({IdType.RESIDENT_ID})
"""Papers that the register of real names knows; clerks look at the others."""


class IdentityFault(StrEnum):
    """Which part is wrong; web/errors.py has the words."""

    INVALID_NAME = "invalid_name"
    INVALID_ID_NUMBER = "invalid_id_number"
    INVALID_BIRTH_DATE = "invalid_birth_date"
    INVALID_SEX = "invalid_sex"
    INVALID_PHONE = "invalid_phone"


@dataclass(frozen=True, slots=True)
class Person:
    """Normalised: two spellings of one thing are equal here."""

    name: str
    id_type: IdType
    id_number: str
    phone: str
    birth_date: date | None
    sex: str | None  # male | female


def identify(
    name: str,
    id_type: IdType,
    id_number: str,
    phone: str,
    today: date,
    birth_date: date | None = None,
    sex: str | None = None,
) -> Person | IdentityFault:
    """`today` is the hospital's. A resident's number says birth date and sex; contradicting it is a fault."""
    clean_name = normal_name(name)
    if clean_name is None:
        return IdentityFault.INVALID_NAME
    number = normal_id_number(id_type, id_number)
    if number is None:
        return IdentityFault.INVALID_ID_NUMBER
    if _is_like_a_residents(id_type, number):
        said = _born(number)
        if said is None or not _is_alive(said, today):
            return IdentityFault.INVALID_ID_NUMBER
        if birth_date is not None and birth_date != said:
            return IdentityFault.INVALID_BIRTH_DATE
        birth_date = said
        if id_type is IdType.RESIDENT_ID:
            said_sex = "male" if int(number[16]) % 2 else "female"
            if sex is not None and sex != said_sex:
                return IdentityFault.INVALID_SEX
            sex = said_sex
    elif birth_date is not None and not _is_alive(birth_date, today):
        return IdentityFault.INVALID_BIRTH_DATE
    clean_phone = normal_phone(phone)
    if clean_phone is None:
        return IdentityFault.INVALID_PHONE
    return Person(clean_name, id_type, number, clean_phone, birth_date, sex)


# Names.

_NAME_SIGNS: Final = frozenset("·•・-‐'’. ")
_BLANK_LETTERS: Final = frozenset(
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"
)  # letters to Unicode, nothing to the eye
_MARKS_TOGETHER_MAX: Final = 4


def normal_name(name: str) -> str | None:
    """Composed, trimmed, single-spaced; None when it is not letters of any script and what joins them."""
    clean = unicodedata.normalize("NFC", " ".join(name.replace("\u3000", " ").split(" "))).strip(" ")
    while "  " in clean:
        clean = clean.replace("  ", " ")
    if not 1 <= len(clean) <= NAME_CHARS_MAX:
        return None
    letters = marks = 0
    for character in clean:
        if _is_letter(character):
            letters += 1
            marks = 0
        elif _is_mark(character) and letters and marks < _MARKS_TOGETHER_MAX:
            marks += 1
        elif character in _NAME_SIGNS:
            marks = 0
        else:
            return None
    return clean if letters else None


def is_same_name(one: str, other: str) -> bool:
    """Whether two normal names name one person: capitals, spaces and the kind of dot do not matter."""
    return _compared(one) == _compared(other)


def _compared(name: str) -> str:
    return (
        name.casefold()
        .replace("•", "·")
        .replace("・", "·")
        .replace("’", "'")
        .replace("‐", "-")
        .replace(" ", "")
    )


def _is_letter(character: str) -> bool:
    if character in _BLANK_LETTERS:
        return False
    if character == "〇":  # a number to Unicode, a name to its bearer
        return True
    category = unicodedata.category(character)
    # Planes 2 and 3 are ideographs alone; the newest are not yet in Python's tables.
    return category[0] == "L" or (category == "Cn" and 0x20000 <= ord(character) <= 0x3FFFD)


def _is_mark(character: str) -> bool:
    # Variation selectors 15 and 16 make emoji of signs; the ideographic ones belong to rare names.
    return unicodedata.category(character) in ("Mn", "Mc") and character not in "\ufe0e\ufe0f"


# Documents.

_FORMATS: Final = {
    # Which districts there are is not asked: they come, go and are renumbered, and people keep their numbers.
    IdType.RESIDENT_ID: re.compile(r"[1-9][0-9]{16}[0-9X]"),
    IdType.PASSPORT: re.compile(r"[A-Z0-9]{5,17}"),
    IdType.HK_MACAU_PERMIT: re.compile(r"[HM][0-9]{8}(?:[0-9]{2})?"),
    IdType.TAIWAN_PERMIT: re.compile(r"[0-9]{8}|[0-9]{10}"),
    IdType.FOREIGN_PERMANENT: re.compile(r"[A-Z]{3}[0-9]{12}|9[0-9]{16}[0-9X]"),
}
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS: Final = "10X98765432"


def normal_id_number(id_type: IdType, id_number: str) -> str | None:
    """Trimmed and in capitals; None when it is not spelled like this kind of document."""
    number = id_number.strip(" ").upper()
    if not number.isascii() or _FORMATS[id_type].fullmatch(number) is None:
        return None
    if _is_like_a_residents(id_type, number) and check_digit(number[:17]) != number[17]:
        return None
    return number


def _is_like_a_residents(id_type: IdType, number: str) -> bool:
    """Foreigners' permanent papers since December 2023 are numbered likewise: 9, where they were issued (2),
    the country (3), the birth date (8), the order (3), the check digit. The older ones are three letters and
    twelve digits."""
    return id_type is IdType.RESIDENT_ID or (id_type is IdType.FOREIGN_PERMANENT and number[0] == "9")


def check_digit(first_17: str) -> str:
    """GB 11643's last character (ISO 7064, MOD 11-2)."""
    return _CHECK_DIGITS[sum(w * int(d) for w, d in zip(_WEIGHTS, first_17, strict=True)) % 11]


def _born(number: str) -> date | None:
    try:
        return date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return None


def _is_alive(birth_date: date, today: date) -> bool:
    return today.year - AGE_YEARS_MAX <= birth_date.year and birth_date <= today


# Phones.

_MAINLAND: Final = re.compile(r"1[3-9][0-9]{9}")
_INTERNATIONAL: Final = re.compile(r"\+[1-9][0-9]{6,14}")


def normal_phone(phone: str) -> str | None:
    """Eleven digits, or + and the country's; None when it is neither. Spaces and hyphens do not count."""
    number = phone.replace(" ", "").replace("-", "")
    if number.startswith("+86"):
        number = number[3:]
        return number if _MAINLAND.fullmatch(number) else None
    return number if _MAINLAND.fullmatch(number) or _INTERNATIONAL.fullmatch(number) else None


# What others see.


def masked_id_number(id_number: str) -> str:
    """110***********1234; of a shorter one less is shown."""
    shown = (3, 4) if len(id_number) >= 15 else (1, 2)
    return _masked(id_number, *shown)


def masked_phone(phone: str) -> str:
    """138****1234."""
    return _masked(phone, 3, 4)


def _masked(text: str, first: int, last: int) -> str:
    return text[:first] + "*" * (len(text) - first - last) + text[-last:]
