"""A hospital's own files: read, checked to the last line, and brought into PostgreSQL as a whole or not.

docs/HOSPITAL_FILES.md is the format. Reading collects every error with file and line, so that whoever
prepares the files corrects them in one go. Importing makes the tables say what the files say: a second run
changes nothing.
"""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import asyncpg
import yaml

from engine.domain.calendar import PERIODS, Holiday, SessionOverride, SessionTemplate, hours_of, sessions_on
from engine.domain.limits import NAME_CHARS_MAX, SLOT_CAPACITY_MAX, SLOT_MINUTES
from engine.records.catalog import (
    Department,
    Hospital,
    NumberClass,
    Practitioner,
    Room,
    announce_change,
    lock_catalog,
    write_schedules,
)

HOSPITAL: Final = "hospital.yaml"
DEPARTMENTS: Final = "departments.csv"
PRACTITIONERS: Final = "practitioners.csv"
ROOMS: Final = "rooms.csv"
TEMPLATES: Final = "templates.csv"
OVERRIDES: Final = "overrides.csv"
FILES: Final = (HOSPITAL, DEPARTMENTS, PRACTITIONERS, ROOMS, TEMPLATES, OVERRIDES)

TITLES: Final = ("chief", "associate_chief", "attending", "resident")
SEXES: Final = ("male", "female")

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
TEXT_CHARS_MAX: Final = 2_000
FEE_FEN_MAX: Final = 10_000_000
AGE_MAX: Final = 150

_ID: Final = re.compile(r"[A-Za-z0-9_.]{1,32}")  # as engine/domain/ids.py spells them
_INT: Final = re.compile(r"-?[0-9]{1,9}")
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DAY: Final = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")

# Required columns first, then those that may be missing altogether.
_COLUMNS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
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
    """What is wrong, where, and what to do. Line 0: the file as a whole."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


class ImportRefused(Exception):
    """The files are not right, or the database cannot follow them. Nothing was changed."""

    def __init__(self, errors: Iterable[FileError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda e: (FILES.index(e.file), e.line)))
        super().__init__("\n".join(map(str, self.errors)))


@dataclass(frozen=True, slots=True)
class HospitalFiles:
    """A checked hospital: every reference leads somewhere, no session overlaps another."""

    hospital: Hospital
    campuses: tuple[str, ...]
    number_classes: tuple[NumberClass, ...]
    holidays: tuple[Holiday, ...]
    departments: tuple[Department, ...]
    practitioners: tuple[Practitioner, ...]
    rooms: tuple[Room, ...]
    templates: tuple[SessionTemplate, ...]
    overrides: tuple[SessionOverride, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed


@dataclass(frozen=True, slots=True)
class ImportReport:
    tables: Mapping[str, Changes]  # by the name of the table
    schedules: int  # published days that were added, rewritten or taken away
    kept: int  # days the files would change, but people have booked: they keep their plan

    @property
    def changes(self) -> int:
        return sum(table.total for table in self.tables.values()) + self.schedules


# Reading.


def read_hospital(path: Path) -> HospitalFiles:
    """The hospital in a directory, or beside a hospital.yaml. Raises ImportRefused with every error found."""
    return _Reading(path if path.is_dir() else path.parent).read(HOSPITAL if path.is_dir() else path.name)


_T = TypeVar("_T")


@dataclass(slots=True)
class _Fields:
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


class _Reading:
    """One reading of one folder: the errors so far, and which ids there are (also of lines with errors)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors: list[FileError] = []

    def read(self, yaml_name: str) -> HospitalFiles:
        hospital, campuses, classes, holidays = self._hospital(yaml_name)
        departments = self._departments(campuses)
        practitioners = self._practitioners(departments)
        rooms = self._rooms(departments)
        templates = self._templates(departments, practitioners, rooms, classes)
        # An override can only be judged against a sound week.
        sound = not any(error.file in (HOSPITAL, TEMPLATES) for error in self.errors)
        week = _by_practitioner(templates) if sound else None
        overrides = self._overrides(practitioners, week, holidays or {})
        if self.errors:
            raise ImportRefused(self.errors)
        assert departments is not None and practitioners is not None and rooms is not None
        assert classes is not None and campuses is not None and holidays is not None
        return HospitalFiles(
            hospital,
            tuple(campuses),
            _whole(classes),
            tuple(holidays.values()),
            _whole(departments),
            _whole(practitioners),
            _whole(rooms),
            tuple(templates),
            tuple(overrides),
        )

    def _wrong(self, file: str, line: int, reason: str) -> None:
        self.errors.append(FileError(file, line, reason))

    # hospital.yaml

    def _hospital(
        self, name: str
    ) -> tuple[
        Hospital, dict[str, int] | None, dict[str, NumberClass | None] | None, dict[date, Holiday] | None
    ]:
        top = self._yaml(name)
        if top is None:
            return Hospital("", "", ""), None, None, None
        entries = self._mapping(
            top,
            required=("name", "timezone", "campuses", "number_classes"),
            optional=("name_en", "holidays"),
        )
        fields = self._scalars(top, {k: v for k, v in entries.items() if k not in _YAML_LISTS})
        hospital = Hospital(
            fields.required("name"),
            fields.text("name_en", NAME_CHARS_MAX),
            fields.required("timezone"),
        )
        if hospital.timezone and not _is_zone(hospital.timezone):
            fields.wrong(
                f"timezone {hospital.timezone!r} is unknown: use an IANA name like Asia/Shanghai", "timezone"
            )

        campuses: dict[str, int] = {}
        for node in self._items(entries.get("campuses")):
            one = self._scalars(node, {"campus": node})
            one.once(one.required("campus"), campuses, f"campus {one.values.get('campus', '')!r}")

        classes: dict[str, NumberClass | None] = {}
        seen: dict[str, int] = {}
        for node in self._items(entries.get("number_classes")):
            one = self._scalars(node, self._mapping(node, ("id", "name", "fee_fen")))
            id_ = one.id("id")
            one.once(id_, seen, f"number class {id_!r}")
            made = NumberClass(id_, one.required("name"), one.number("fee_fen", 0, FEE_FEN_MAX))
            classes[id_] = made if one.ok else None

        holidays: dict[date, Holiday] = {}
        days: dict[date, int] = {}
        for node in self._items(entries.get("holidays")):
            one = self._scalars(node, self._mapping(node, ("date", "name"), ("works_as",)))
            day = one.day("date")
            if day != date.min:
                one.once(day, days, f"date {day}")
            works_as = one.number("works_as", 1, 7) if one.has("works_as") else None
            holidays[day] = Holiday(day, one.required("name"), works_as)
        # What is not listed at all has been told once; None keeps its users from telling it again.
        return (
            hospital,
            campuses if "campuses" in entries else None,
            classes if "number_classes" in entries else None,
            holidays,
        )

    def _yaml(self, name: str) -> yaml.Node | None:
        text = self._content(name)
        if text is None:
            return None
        try:
            # Nodes only, which know their lines: nothing is ever constructed from a tag.
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._wrong(HOSPITAL, mark.line + 1 if mark else 0, f"not YAML: {error.problem or error.context}")
            return None
        except (yaml.YAMLError, RecursionError) as error:
            self._wrong(HOSPITAL, 0, f"not YAML: {' '.join(str(error).split())}")
            return None
        if not isinstance(node, yaml.MappingNode):
            self._wrong(HOSPITAL, 1, "must be a mapping with name, timezone, campuses and number_classes")
            return None
        return node

    def _mapping(
        self, node: yaml.Node, required: Sequence[str], optional: Sequence[str] = ()
    ) -> dict[str, yaml.Node]:
        """A mapping's values by key; unknown, repeated and missing keys are errors."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            self._wrong(HOSPITAL, line, f"must be a mapping with {', '.join(required)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.value not in (*required, *optional):
                known = ", ".join((*required, *optional))
                word = repr(key.value) if isinstance(key, yaml.ScalarNode) else "(not a word)"
                self._wrong(HOSPITAL, key_line, f"unknown key {word}: known are {known}")
            elif key.value in found:
                self._wrong(HOSPITAL, key_line, f"duplicate key {key.value!r}: keep one of the two")
            else:
                found[key.value] = value
        for name in required:
            if name not in found:
                self._wrong(HOSPITAL, line, f"missing key {name!r}: add it")
        return found

    def _scalars(self, parent: yaml.Node, entries: Mapping[str, yaml.Node]) -> _Fields:
        """The entries as texts. What is not a plain value is an error and counts as absent."""
        values: dict[str, str] = {}
        lines: dict[str, int] = {}
        ok = True
        for name, node in entries.items():
            lines[name] = node.start_mark.line + 1
            if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN_TAGS:
                values[name] = "" if node.tag == _NULL_TAG else node.value.strip()
            else:
                self._wrong(HOSPITAL, lines[name], f"{name} must be a plain value")
                ok = False
        return _Fields(HOSPITAL, parent.start_mark.line + 1, values, self.errors, lines, ok)

    def _items(self, node: yaml.Node | None) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._wrong(
                HOSPITAL, node.start_mark.line + 1, "must be a list: one entry a line, each after '- '"
            )
            return []
        return list(node.value)

    # The CSV files

    def _departments(self, campuses: Mapping[str, int] | None) -> dict[str, Department | None] | None:
        rows = self._rows(DEPARTMENTS)
        if rows is None:
            return None
        seen: dict[str, int] = {}
        found: dict[str, Department | None] = {}
        parents: dict[str, str] = {}
        for position, row in enumerate(rows, start=1):
            id_ = row.id("id")
            row.once(id_, seen, f"department {id_!r}")
            age_min = row.number("age_min", 0, AGE_MAX) if row.has("age_min") else None
            age_max = row.number("age_max", 0, AGE_MAX) if row.has("age_max") else None
            if age_min is not None and age_max is not None and age_min > age_max:
                row.wrong(f"age_min {age_min} is above age_max {age_max}: swap them")
            department = Department(
                id_,
                row.values.get("parent_id") or None,
                row.required("name"),
                row.text("name_en", NAME_CHARS_MAX),
                row.known("campus", campuses, f"campuses in {HOSPITAL}"),
                row.text("location"),
                row.text("intro"),
                row.choice("sex", SEXES) if row.has("sex") else None,
                age_min,
                age_max,
                position,
            )
            if seen[id_] == row.line:
                parents[id_] = department.parent_id or ""
                found[id_] = department if row.ok else None
        for row in rows:
            self._check_parent(row, parents, found)
        return found

    def _check_parent(
        self, row: _Fields, parents: Mapping[str, str], found: dict[str, Department | None]
    ) -> None:
        id_, parent = row.values.get("id", ""), row.values.get("parent_id", "")
        above = parents.get(parent)
        if not parent:
            return
        if above is None:
            row.wrong(f"parent_id {parent!r} is unknown: add that department or leave parent_id blank")
        elif _leads_back(id_, parents):
            row.wrong(f"department {id_!r} is above itself (by way of {parent!r}): correct parent_id")
        elif above:
            row.wrong(
                f"department {id_!r} is on a third level: {parent!r} already has a parent, and two is all"
            )
        if not row.ok:
            found[id_] = None

    def _practitioners(
        self, departments: Mapping[str, Department | None] | None
    ) -> dict[str, Practitioner | None] | None:
        rows = self._rows(PRACTITIONERS)
        if rows is None:
            return None
        seen: dict[str, int] = {}
        found: dict[str, Practitioner | None] = {}
        for position, row in enumerate(rows, start=1):
            id_ = row.id("id")
            row.once(id_, seen, f"practitioner {id_!r}")
            practitioner = Practitioner(
                id_,
                row.required("name"),
                row.choice("title", TITLES),
                row.known("department_id", departments, DEPARTMENTS),
                row.text("specialty"),
                row.text("intro"),
                position,
            )
            found[id_] = practitioner if row.ok else None
        return found

    def _rooms(self, departments: Mapping[str, Department | None] | None) -> dict[str, Room | None] | None:
        rows = self._rows(ROOMS)
        if rows is None:
            return None
        seen: dict[str, int] = {}
        found: dict[str, Room | None] = {}
        for row in rows:
            id_ = row.id("id")
            row.once(id_, seen, f"room {id_!r}")
            room = Room(id_, row.required("name"), row.known("department_id", departments, DEPARTMENTS))
            found[id_] = room if row.ok else None
        return found

    def _templates(
        self,
        departments: Mapping[str, Department | None] | None,
        practitioners: Mapping[str, Practitioner | None] | None,
        rooms: Mapping[str, Room | None] | None,
        classes: Mapping[str, NumberClass | None] | None,
    ) -> list[SessionTemplate]:
        parents = {d.parent_id for d in (departments or {}).values() if d is not None}
        seen: dict[tuple[str, int, str], int] = {}
        found: list[SessionTemplate] = []
        weekdays: dict[tuple[str, int], list[tuple[SessionTemplate, int]]] = defaultdict(list)
        for row in self._rows(TEMPLATES) or []:
            practitioner_id = row.known("practitioner_id", practitioners, PRACTITIONERS)
            weekday = row.number("weekday", 1, 7)
            period = row.choice("period", PERIODS)
            if row.ok:
                row.once(
                    (practitioner_id, weekday, period),
                    seen,
                    f"the {period} of weekday {weekday} of practitioner {practitioner_id!r}",
                )
            starts, ends = row.clock("starts"), row.clock("ends")
            if row.ok and starts >= ends:
                row.wrong(
                    f"the session ends at {ends:%H:%M}, not after it starts at {starts:%H:%M}: correct them"
                )
            practitioner = (practitioners or {}).get(practitioner_id)
            own = practitioner.department_id if practitioner is not None else ""
            department_id = (
                row.known("department_id", departments, DEPARTMENTS)
                if row.has("department_id")
                else None or own
            )
            if department_id in parents:
                row.wrong(
                    f"department {department_id!r} has departments under it, and patients book those:"
                    " put one of them into department_id"
                )
            template = SessionTemplate(
                practitioner_id,
                weekday,
                period,
                starts,
                ends,
                row.number("capacity", 1, SLOT_CAPACITY_MAX),
                row.known("number_class_id", classes, f"number_classes in {HOSPITAL}"),
                department_id,
                row.known("room_id", rooms, ROOMS) if row.has("room_id") else None,
                row.number("fee_fen", 0, FEE_FEN_MAX) if row.has("fee_fen") else None,
            )
            if row.ok:
                others = weekdays[practitioner_id, weekday]
                for other, line in others:
                    if _collide(_hours(template), _hours(other)):
                        row.wrong(
                            f"the {period} overlaps or is not in the order of the day with the"
                            f" {other.period} on line {line}: correct the times"
                        )
                others.append((template, row.line))
                found.append(template)
        return found

    def _overrides(
        self,
        practitioners: Mapping[str, Practitioner | None] | None,
        week: Mapping[str, list[SessionTemplate]] | None,
        holidays: Mapping[date, Holiday],
    ) -> list[SessionOverride]:
        seen: dict[tuple[str, date, str], int] = {}
        found: dict[tuple[str, date, str], tuple[SessionOverride, _Fields]] = {}
        for row in self._rows(OVERRIDES) or []:
            practitioner_id = row.known("practitioner_id", practitioners, PRACTITIONERS)
            day = row.day("day")
            period = row.choice("period", PERIODS)
            if row.ok:
                row.once(
                    (practitioner_id, day, period), seen, f"the {period} of {practitioner_id!r} on {day}"
                )
            override = SessionOverride(
                practitioner_id,
                day,
                period,
                bool(row.values.get("closed")) and row.choice("closed", ("yes", "no")) == "yes",
                row.clock("starts") if row.has("starts") else None,
                row.clock("ends") if row.has("ends") else None,
                row.number("capacity", 1, SLOT_CAPACITY_MAX) if row.has("capacity") else None,
            )
            changes = (override.starts, override.ends, override.capacity) != (None, None, None)
            if row.ok and override.closed and changes:
                row.wrong("closed is yes: leave starts, ends and capacity blank")
            elif row.ok and not override.closed and not changes:
                row.wrong(
                    "nothing is other than in the week: set closed to yes, or give starts, ends or capacity"
                )
            if row.ok:
                found[practitioner_id, day, period] = override, row
        if week is not None:
            for override, row in found.values():
                self._check_override(row, override, found, week, holidays)
        return [override for override, _ in found.values()]

    def _check_override(
        self,
        row: _Fields,
        override: SessionOverride,
        overrides: Mapping[tuple[str, date, str], tuple[SessionOverride, _Fields]],
        week: Mapping[str, list[SessionTemplate]],
        holidays: Mapping[date, Holiday],
    ) -> None:
        id_, day = override.practitioner_id, override.day
        sessions = sessions_on(day, week.get(id_, []), holidays)
        mine = next((t for t in sessions if t.period == override.period), None)
        if mine is None:
            row.wrong(f"{id_!r} has no {override.period} session on {day} to change: remove this line")
            return
        starts, ends, capacity = hours_of(mine, override)
        if starts >= ends:
            row.wrong(f"the session then ends at {ends:%H:%M}, not after it starts at {starts:%H:%M}")
            return
        for other in sessions:
            changed = overrides.get((id_, day, other.period))
            begin, end, seats = hours_of(other, changed and changed[0])
            if other is mine or not capacity or not seats:
                continue
            if _collide((override.period, starts, ends), (other.period, begin, end)):
                row.wrong(
                    f"the {override.period} then overlaps or is not in the order of the day with the"
                    f" {other.period} of {day}: correct the times"
                )

    def _rows(self, name: str) -> list[_Fields] | None:
        """The lines of a CSV file; None when it cannot be read or its header is wrong."""
        text = self._content(name)
        if text is None:
            return None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows: list[_Fields] = []
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1  # of the record's start: a quoted field may run over lines
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                self._wrong(name, line, f"not CSV: {error}")
                return None
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if not self._check_header(name, line, header):
                    return None
            elif len(cells) != len(header):
                self._wrong(
                    name, line, f"has {len(cells)} values, the header {len(header)}: add or remove commas"
                )
            else:
                values = {c: cell.strip(" \t\u00a0\u3000") for c, cell in zip(header, cells, strict=True)}
                rows.append(_Fields(name, line, values, self.errors))
        if header is None:
            self._wrong(name, 1, "is empty: the first line must name the columns")
            return None
        return rows

    def _check_header(self, name: str, line: int, header: Sequence[str]) -> bool:
        required, optional = _COLUMNS[name]
        before = len(self.errors)
        for n, column in enumerate(header):
            if column not in (*required, *optional):
                known = ", ".join((*required, *optional))
                self._wrong(name, line, f"unknown column {column!r}: known are {known}")
            elif column in header[:n]:
                self._wrong(name, line, f"duplicate column {column!r}: keep one of the two")
        for column in required:
            if column not in header:
                self._wrong(name, line, f"missing column {column!r}: add it")
        return len(self.errors) == before

    def _content(self, name: str) -> str | None:
        path = self.folder / name
        label = name if name in FILES else HOSPITAL  # a YAML file of another name is still that one
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = f"is missing: put it into {self.folder}" if missing else f"cannot be read: {error.strerror}"
            self._wrong(label, 0, why)
            return None
        if len(data) > FILE_BYTES_MAX:
            self._wrong(label, 0, f"is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB")
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            self._wrong(label, line, "is not UTF-8: save it as 'CSV UTF-8' or 'UTF-8 text'")
            return None


_YAML_LISTS: Final = ("campuses", "number_classes", "holidays")
_NULL_TAG: Final = "tag:yaml.org,2002:null"
_PLAIN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "timestamp", "null")
)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, like "Asia"
        return False
    return True


def _leads_back(id_: str, parents: Mapping[str, str]) -> bool:
    at, steps = parents.get(id_, ""), 0
    while at and at != id_ and steps <= len(parents):
        at, steps = parents.get(at, ""), steps + 1
    return at == id_


def _hours(template: SessionTemplate) -> tuple[str, time, time]:
    return template.period, template.starts, template.ends


def _collide(one: tuple[str, time, time], other: tuple[str, time, time]) -> bool:
    """Whether two sessions of a day overlap, or the later period comes first."""
    first, second = sorted((one, other), key=lambda hours: PERIODS.index(hours[0]))
    return first[2] > second[1]


def _by_practitioner(templates: Iterable[SessionTemplate]) -> dict[str, list[SessionTemplate]]:
    found: dict[str, list[SessionTemplate]] = defaultdict(list)
    for template in templates:
        found[template.practitioner_id].append(template)
    return found


def _whole(found: Mapping[str, _T | None]) -> tuple[_T, ...]:
    return tuple(row for row in found.values() if row is not None)


# Importing.


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    file: str
    key: int  # so many columns, from the first, are the primary key
    columns: tuple[tuple[str, str], ...]  # name and PostgreSQL's type; in the order of the dataclass's fields


def _table(name: str, file: str, key: int, columns: str) -> _Table:
    words = columns.split()
    return _Table(name, file, key, tuple(zip(words[::2], words[1::2], strict=True)))


_HOSPITAL = _table("hospital", HOSPITAL, 0, "name text  name_en text  timezone text")
_NUMBER_CLASS = _table("number_class", HOSPITAL, 1, "id text  name text  fee_fen int")
_HOLIDAY = _table("holiday", HOSPITAL, 1, "day date  name text  works_as smallint")
_DEPARTMENT = _table(
    "department",
    DEPARTMENTS,
    1,
    "id text  parent_id text  name text  name_en text  campus text  location text  intro text"
    "  sex text  age_min int  age_max int  position int",
)
_PRACTITIONER = _table(
    "practitioner",
    PRACTITIONERS,
    1,
    "id text  name text  title text  department_id text  specialty text  intro text  position int",
)
_ROOM = _table("room", ROOMS, 1, "id text  name text  department_id text")
_TEMPLATE = _table(
    "session_template",
    TEMPLATES,
    3,
    "practitioner_id text  weekday smallint  period text  starts time  ends time  capacity smallint"
    "  number_class_id text  department_id text  room_id text  fee_fen int",
)
_OVERRIDE = _table(
    "session_override",
    OVERRIDES,
    3,
    "practitioner_id text  day date  period text  closed boolean  starts time  ends time  capacity smallint",
)
_ENTITIES: Final = (_ROOM, _PRACTITIONER, _DEPARTMENT, _NUMBER_CLASS)  # in the order they can be deleted


async def import_hospital(
    connection: asyncpg.Connection, files: HospitalFiles, first_day: date, publish_days: int
) -> ImportReport:
    """Makes the database say what `files` say and publishes from `first_day` (the hospital's today) on.

    One transaction. Raises ImportRefused, with nothing changed, when something that is gone from the files
    is still needed, say by a day that people have booked.
    """
    async with connection.transaction():
        return await _import(connection, files, first_day, publish_days)


async def _import(
    connection: asyncpg.Connection, files: HospitalFiles, first_day: date, publish_days: int
) -> ImportReport:
    await lock_catalog(connection)
    tables: dict[str, Changes] = {}
    gone: dict[str, list[tuple[object, ...]]] = {}
    for table, rows in (
        (_HOSPITAL, (files.hospital,)),
        (_NUMBER_CLASS, files.number_classes),
        (_HOLIDAY, files.holidays),
        (_DEPARTMENT, files.departments),
        (_PRACTITIONER, files.practitioners),
        (_ROOM, files.rooms),
        (_TEMPLATE, files.templates),
        (_OVERRIDE, files.overrides),
    ):
        tables[table.name], gone[table.name] = await _write(connection, table, [astuple(r) for r in rows])
    for table in (_HOLIDAY, _TEMPLATE, _OVERRIDE):  # nothing refers to these
        await _remove(connection, table, gone[table.name])

    ids = {table.name: [str(key[0]) for key in gone[table.name]] for table in _ENTITIES}
    await _refuse_what_is_booked(connection, ids)
    published = await write_schedules(connection, first_day, publish_days)
    # Days before first_day that nobody ever opened.
    await connection.execute(
        "delete from schedule where practitioner_id = any ($1) and not opened", ids["practitioner"]
    )
    for table in _ENTITIES:
        try:
            await _remove(connection, table, gone[table.name])
        except asyncpg.ForeignKeyViolationError as error:
            # Tables of other subjects may refer to the catalog too; PostgreSQL's own words name them.
            reason = f"what is gone from this file is still needed, put it back: {error.detail}"
            raise ImportRefused([FileError(table.file, 0, reason)]) from error

    report = ImportReport(tables, published.changed, published.kept)
    if report.changes:
        await announce_change(connection)
    return report


async def _write(
    connection: asyncpg.Connection, table: _Table, wanted: Sequence[tuple[object, ...]]
) -> tuple[Changes, list[tuple[object, ...]]]:
    """Inserts and updates what differs, and tells the keys that are no longer wanted."""
    columns = [column for column, _ in table.columns]
    names = ", ".join(columns)
    rows = await connection.fetch(f"select {names} from {table.name}")
    have = {tuple(row)[: table.key]: tuple(row) for row in rows}
    want = {row[: table.key]: row for row in wanted}
    different = [row for key, row in want.items() if have.get(key) != row]
    gone = [key for key in have if key not in want]
    if different:
        keys = ", ".join(columns[: table.key]) or "id"
        changes = ", ".join(f"{c} = excluded.{c}" for c in columns[table.key :])
        await connection.execute(
            f"insert into {table.name} ({names}) select * from unnest({_arrays(table.columns)})"
            f" on conflict ({keys}) do update set {changes}",
            *zip(*different, strict=True),
        )
    added = sum(1 for key in want if key not in have)
    return Changes(added, len(different) - added, len(gone)), gone


async def _remove(connection: asyncpg.Connection, table: _Table, keys: Sequence[tuple[object, ...]]) -> None:
    if not keys:
        return
    columns = table.columns[: table.key]
    names = ", ".join(column for column, _ in columns)
    same = " and ".join(f"t.{column} = gone.{column}" for column, _ in columns)
    await connection.execute(
        f"delete from {table.name} t using unnest({_arrays(columns)}) as gone ({names}) where {same}",
        *zip(*keys, strict=True),
    )


def _arrays(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"${n}::{kind}[]" for n, (_, kind) in enumerate(columns, start=1))


async def _refuse_what_is_booked(connection: asyncpg.Connection, gone: Mapping[str, list[str]]) -> None:
    """Opened days are patients' bookings: who and what they name must stay."""
    if not any(gone.values()):
        return
    # A plan's sessions are lists: 1 department, 2 number class, 3 room (planning.plan_as_data).
    rows = await connection.fetch(
        """
        select named.kind, named.id, min(s.id), count(distinct s.id)
          from schedule s, jsonb_array_elements(s.plan) as session,
               lateral (values ('practitioner', s.practitioner_id), ('department', session->>1),
                               ('number_class', session->>2), ('room', session->>3)) as named (kind, id)
         where s.opened
           and (named.kind = 'practitioner' and named.id = any ($1)
                or named.kind = 'department' and named.id = any ($2)
                or named.kind = 'number_class' and named.id = any ($3)
                or named.kind = 'room' and named.id = any ($4))
         group by named.kind, named.id order by named.kind, named.id
        """,
        *(gone[name] for name in ("practitioner", "department", "number_class", "room")),
    )
    errors = []
    for kind, id_, example, days in rows:
        file = next(table.file for table in _ENTITIES if table.name == kind)
        reason = f"{kind.replace('_', ' ')} {id_!r} is gone, but {days} day(s) with bookings need it, such as"
        reason += f" schedule {example}: put it back"
        if kind == "practitioner":
            reason += " (without templates no new days are published)"
        errors.append(FileError(file, 0, reason))
    if errors:
        raise ImportRefused(errors)
