"""The rules of hospital files (docs/HOSPITAL_FILES.md) that a single value or a single line can break.

`Fields` is one line: every taker gives the value as what it should be, or adds an error that says what to do.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from typing import Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.domain.calendar import PERIODS
from engine.domain.limits import NAME_CHARS_MAX, SLOT_MINUTES

HOSPITAL: Final = "hospital.yaml"
DEPARTMENTS: Final = "departments.csv"
PRACTITIONERS: Final = "practitioners.csv"
ROOMS: Final = "rooms.csv"
TEMPLATES: Final = "templates.csv"
OVERRIDES: Final = "overrides.csv"
POLICY: Final = "policy.yaml"
FILES: Final = (HOSPITAL, DEPARTMENTS, PRACTITIONERS, ROOMS, TEMPLATES, OVERRIDES, POLICY)

TITLES: Final = ("chief", "associate_chief", "attending", "resident")
SEXES: Final = ("male", "female")

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
TEXT_CHARS_MAX: Final = 2_000
FEE_FEN_MAX: Final = 10_000_000
AGE_MAX: Final = 150

_ID: Final = re.compile(r"[A-Za-z0-9_.]{1,32}")  # as engine/domain/ids.py spells them
_INT: Final = re.compile(r"-?[0-9]{1,9}")
_DEGREES: Final = re.compile(r"-?[0-9]{1,3}\.[0-9]{4,8}")
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DAY: Final = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")

# Required columns first, then those that may be missing altogether.
COLUMNS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    DEPARTMENTS: (
        ("id", "parent_id", "name", "campus"),
        ("name_en", "location", "intro", "sex", "age_min", "age_max"),
    ),
    PRACTITIONERS: (("id", "name", "title", "department_id"), ("specialty", "intro")),
    ROOMS: (("id", "name", "department_id"), ()),
    TEMPLATES: (
        ("practitioner_id", "weekday", "period", "starts", "ends", "capacity", "number_class_id"),
        ("department_id", "room_id", "fee_fen"),
    ),
    OVERRIDES: (("practitioner_id", "day", "period", "closed"), ("starts", "ends", "capacity")),
}


@dataclass(frozen=True, slots=True)
class FileError:
    """What is wrong, where, and what to do. Line 0: the file as a whole; column 0: the whole line."""

    file: str
    line: int
    reason: str
    column: int = 0

    def __str__(self) -> str:
        place = [self.file, *(str(n) for n in (self.line, self.column) if n)]
        return f"{':'.join(place)}: {self.reason}"


class ImportRefused(Exception):
    """The files are not right, or the database cannot follow them. Nothing was changed."""

    def __init__(self, errors: Iterable[FileError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda e: (FILES.index(e.file), e.line, e.column)))
        super().__init__("\n".join(map(str, self.errors)))


_T = TypeVar("_T")


@dataclass(slots=True)
class Fields:
    """One line of a CSV file, or one mapping of the YAML file: text by name, taken out as what it should be.

    Every taker adds an error and gives a stand-in when the text is wrong; `ok` tells whether one has.
    """

    file: str
    line: int
    values: Mapping[str, str]
    errors: list[FileError]
    lines: Mapping[str, int] = field(default_factory=dict)  # of single values, where they have their own
    ok: bool = True

    def wrong(self, reason: str, name: str = "") -> None:
        self.ok = False
        if not name or name in self.values:  # else that it is missing has been said
            self.errors.append(FileError(self.file, self.lines.get(name, self.line), reason))

    def text(self, name: str, chars_max: int = TEXT_CHARS_MAX) -> str:
        value = self.values.get(name, "")
        bad = next(
            (c for c in value if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDI), ""
        )
        if bad:
            self.wrong(f"{name} contains a control character (U+{ord(bad):04X}): remove it", name)
        elif len(value) > chars_max:
            self.wrong(f"{name} has {len(value)} characters: at most {chars_max}", name)
        return value

    def required(self, name: str, chars_max: int = NAME_CHARS_MAX) -> str:
        value = self.text(name, chars_max)
        if not value:
            self.wrong(f"{name} is blank: fill it in", name)
        return value

    def id(self, name: str) -> str:
        value = self.values.get(name, "")
        if not value:
            self.wrong(f"{name} is blank: fill it in", name)
        elif not _ID.fullmatch(value):
            self.wrong(f"{name} {value!r} must be 1 to 32 letters (A-Z, a-z), digits, _ or .", name)
        return value

    def choice(self, name: str, among: Sequence[str]) -> str:
        value = self.values.get(name, "")
        if value not in among:
            self.wrong(f"{name} is {value!r}: it must be one of {', '.join(among)}", name)
        return value

    def number(self, name: str, lowest: int, highest: int) -> int:
        value = self.values.get(name, "")
        if not _INT.fullmatch(value) or not lowest <= int(value) <= highest:
            self.wrong(f"{name} is {value!r}: it must be a whole number from {lowest} to {highest}", name)
            return lowest
        return int(value)

    def degrees(self, name: str, highest: int) -> float:
        """A latitude or longitude: with four decimals or more, else it may be beside the campus."""
        value = self.values.get(name, "")
        if not _DEGREES.fullmatch(value):
            self.wrong(f"{name} is {value!r}: write degrees with 4 to 8 decimals, like 39.9042", name)
        elif abs(float(value)) > highest:
            self.wrong(f"{name} is {value!r}: it must be from -{highest} to {highest}", name)
        else:
            return float(value)
        return 0.0

    def clock(self, name: str) -> time:
        value = self.values.get(name, "")
        found = _CLOCK.fullmatch(value)
        if found is None:
            self.wrong(f"{name} is {value!r}: write a time of the day as HH:MM, like 08:30", name)
            return time()
        hour, minute = int(found[1]), int(found[2])
        if minute % SLOT_MINUTES:
            self.wrong(f"{name} is {value!r}: it must be on the half hour (HH:00 or HH:30)", name)
        return time(hour, minute)

    def day(self, name: str) -> date:
        value = self.values.get(name, "")
        try:
            if _DAY.fullmatch(value):
                return date.fromisoformat(value)
        except ValueError:
            pass
        self.wrong(f"{name} is {value!r}: write an existing date as YYYY-MM-DD, like 2026-11-24", name)
        return date.min

    def has(self, name: str) -> bool:
        """Whether the value is there and not blank."""
        return bool(self.values.get(name, ""))

    def known(self, name: str, ids: Mapping[str, object] | None, where: str) -> str:
        """An id that must be in `ids` (None: that file could not be read, so do not complain twice)."""
        value = self.values.get(name, "")
        if not value:
            self.wrong(f"{name} is blank: fill it in", name)
        elif ids is not None and value not in ids:
            self.wrong(f"{name} {value!r} is unknown: add it to {where} or correct it", name)
        return value

    def once(self, key: _T, seen: dict[_T, int], what: str) -> None:
        """Adds an error when `key` was there before, and remembers its line when not."""
        if key not in seen:
            seen[key] = self.line
        elif self.ok:
            self.wrong(f"{what} is already on line {seen[key]}: keep one of the two")


# Characters that make a text read otherwise than it is written.
_BIDI: Final = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


def is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, like "Asia"
        return False
    return True


def leads_back(id_: str, parents: Mapping[str, str]) -> bool:
    at, steps = parents.get(id_, ""), 0
    while at and at != id_ and steps <= len(parents):
        at, steps = parents.get(at, ""), steps + 1
    return at == id_


def collide(one: tuple[str, time, time], other: tuple[str, time, time]) -> bool:
    """Whether two sessions of a day overlap, or the later period comes first."""
    first, second = sorted((one, other), key=lambda hours: PERIODS.index(hours[0]))
    return first[2] > second[1]
