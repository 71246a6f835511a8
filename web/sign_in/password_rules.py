"""Which passwords are refused, and why.

Length and guessability decide, not a mix of signs (NIST SP 800-63B, ASVS 5.0 6.2). A hospital that must
follow GB/T 22239 (等保) sets kinds, days and history as well; the standards contradict each other, so it is a
setting.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from web.passwords import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN

_COMMON: Final = Path(__file__).parent / "common_passwords.txt"
_WORDS: Final = Path(__file__).parent / "guessable_words.txt"
_ROWS: Final = (
    "`1234567890-=",
    "~!@#$%^&*()_+",
    "qwertyuiop[]",
    "asdfghjkl;'",
    "zxcvbnm,./",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "qazwsxedcrfvtgbyhnujmikolp",
    "147258369",
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
)
_LEET: Final = str.maketrans("@4310$57!", "aaeiossti")
_UNIT_MAX: Final = 5
_DIGITS_MAX: Final = 11  # a birthday, a QQ number, a telephone
_ID_NUMBER: Final = re.compile(r"[0-9]{17}[0-9x]")
_TAIL_MAX: Final = 8
_PART_MIN: Final = 4  # of a username: shorter ones are in too many words


@dataclass(frozen=True, slots=True)
class PasswordRules:
    chars_min: int = PASSWORD_CHARS_MIN
    kinds_min: int = 0
    """Of small letters, capitals, digits and other signs. 0: whatever it is made of."""
    days_max: int = 0
    """It must be changed after as long. 0: never, but when somebody else knows it."""
    not_again: int = 0
    """The last so many must not come back. The one in force never may."""
    common: frozenset[str] = field(default=frozenset(), repr=False)
    """Beside the list that comes along."""


class Unfit(NamedTuple):
    """One reason; web/faults.py has the words."""

    code: str
    words: dict[str, object] = {}


def unfit(password: str, rules: PasswordRules, username: str, name: str) -> list[Unfit]:
    """All that is wrong with it; what it was before, the caller looks at."""
    spelled = unicodedata.normalize("NFKC", password)
    text = spelled.casefold()
    found = []
    if len(spelled) < rules.chars_min:
        found.append(Unfit("password_too_short", {"min": rules.chars_min}))
    if len(password) > PASSWORD_CHARS_MAX:
        found.append(Unfit("password_too_long", {"max": PASSWORD_CHARS_MAX}))
    if _kinds(spelled) < rules.kinds_min:
        found.append(Unfit("password_too_plain", {"kinds": rules.kinds_min}))
    if any(part in text for part in _parts_of(username, name)):
        found.append(Unfit("password_has_name"))
    if _is_guessable(text, rules.common):
        found.append(Unfit("password_common"))
    return found


def is_due(rules: PasswordRules, set_at: datetime | None, now: datetime) -> bool:
    """Whether it is so old that it must be changed."""
    return rules.days_max > 0 and set_at is not None and now - set_at >= timedelta(days=rules.days_max)


@cache
def listed(file: Path) -> frozenset[str]:
    """The passwords of a file, one a line. Raises OSError, UnicodeDecodeError."""
    with file.open(encoding="utf-8") as lines:
        return frozenset(_normal(lines))


def _normal(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        text = unicodedata.normalize("NFKC", line.rstrip("\r\n")).casefold()
        if len(text) >= PASSWORD_CHARS_MIN:  # shorter ones are refused anyway
            yield text


def _kinds(text: str) -> int:
    return len(
        {
            "lower"
            if sign.islower()
            else "upper"
            if sign.isupper()
            else "digit"
            if sign.isdigit()
            else "other"
            for sign in text
        }
    )


def _parts_of(username: str, name: str) -> set[str]:
    parts = {part for part in re.split(r"[._\-]", username.casefold()) if len(part) >= _PART_MIN}
    if len(username) >= _PART_MIN:
        parts.add(username.casefold())
    spelled = unicodedata.normalize("NFKC", name).casefold().strip()
    if len(spelled) >= (2 if not spelled.isascii() else _PART_MIN):
        parts.add(spelled)
    return parts


def _is_guessable(text: str, more: frozenset[str]) -> bool:
    return (
        text in listed(_COMMON)
        or text in more
        or (text.isdigit() and len(text) <= _DIGITS_MAX)
        or _ID_NUMBER.fullmatch(text) is not None
        or _is_repeated(text)
        or _is_run(text)
        or _is_word_with_a_tail(text)
    )


def _is_repeated(text: str) -> bool:
    """`aaaaaaaa`, `abcabcab`."""
    return any(
        text == (text[:unit] * (len(text) // unit + 1))[: len(text)]
        for unit in range(1, min(_UNIT_MAX, len(text) // 2) + 1)
    )


def _is_run(text: str) -> bool:
    """Along a row of the keyboard or of the alphabet, either way, or twice along one."""
    halves = (text,) if len(text) % 2 else (text, text[: len(text) // 2])
    return any(
        half in row or half in row[::-1]
        for row in _ROWS
        for half in halves
        if half == text or half * 2 == text
    )


def _is_word_with_a_tail(text: str) -> bool:
    """`password123!`, `2024xinglin`, `P@ssw0rd`."""
    words = _words()
    for spelled in (text, text.translate(_LEET)):
        word = re.sub(r"^[^a-z]+|[^a-z]+$", "", spelled)
        if word in words and len(text) - len(word) <= _TAIL_MAX:
            return True
    return text.rstrip("0123456789!@#$%^&*._-").translate(_LEET) in words


@cache
def _words() -> frozenset[str]:
    return frozenset(_WORDS.read_text(encoding="utf-8").split())
