"""A hospital's own files, read and checked to the last line.

docs/HOSPITAL_FILES.md is the format. Reading collects every error with file and line, so that whoever
prepares the files corrects them in one go. What cannot be wrong by itself but only against other lines is
checked here; the rest is in hospital_rules.py, and hospital_import.py brings the result into PostgreSQL.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Final, TypeVar

import yaml

from engine.domain.calendar import PERIODS, Holiday, SessionOverride, SessionTemplate, hours_of, sessions_on
from engine.domain.limits import NAME_CHARS_MAX, SLOT_CAPACITY_MAX
from engine.domain.policy import Policy
from engine.records.catalog import Campus, Department, Hospital, NumberClass, Practitioner, Room
from engine.records.hospital_rules import (
    AGE_MAX,
    COLUMNS,
    DEPARTMENTS,
    FEE_FEN_MAX,
    FILE_BYTES_MAX,
    FILES,
    HOSPITAL,
    OVERRIDES,
    POLICY,
    PRACTITIONERS,
    ROOMS,
    SEXES,
    TEMPLATES,
    TITLES,
    Fields,
    FileError,
    ImportRefused,
    collide,
    is_zone,
    leads_back,
)
from engine.records.policy_file import Known, PolicyRefused, read_policy

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HospitalFiles:
    """A checked hospital: every reference leads somewhere, no session overlaps another."""

    hospital: Hospital
    campuses: tuple[Campus, ...]
    number_classes: tuple[NumberClass, ...]
    holidays: tuple[Holiday, ...]
    departments: tuple[Department, ...]
    practitioners: tuple[Practitioner, ...]
    rooms: tuple[Room, ...]
    templates: tuple[SessionTemplate, ...]
    overrides: tuple[SessionOverride, ...]
    policy: str | None = None  # the text of policy.yaml; None: there is none, so the one in force stays


def read_hospital(path: Path) -> HospitalFiles:
    """The hospital in a directory, or beside a hospital.yaml. Raises ImportRefused with every error found."""
    return _Reading(path if path.is_dir() else path.parent).read(HOSPITAL if path.is_dir() else path.name)


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
        policy = self._policy(departments, classes, practitioners or {})
        if self.errors:
            raise ImportRefused(self.errors)
        assert departments is not None and practitioners is not None and rooms is not None
        assert classes is not None and campuses is not None and holidays is not None
        return HospitalFiles(
            hospital,
            _whole(campuses),
            _whole(classes),
            tuple(holidays.values()),
            _whole(departments),
            _whole(practitioners),
            _whole(rooms),
            tuple(templates),
            tuple(overrides),
            policy,
        )

    def _wrong(self, file: str, line: int, reason: str) -> None:
        self.errors.append(FileError(file, line, reason))

    # hospital.yaml

    def _hospital(
        self, name: str
    ) -> tuple[
        Hospital,
        dict[str, Campus | None] | None,
        dict[str, NumberClass | None] | None,
        dict[date, Holiday] | None,
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
        if hospital.timezone and not is_zone(hospital.timezone):
            fields.wrong(
                f"timezone {hospital.timezone!r} is unknown: use an IANA name like Asia/Shanghai", "timezone"
            )

        campuses = self._campuses(entries.get("campuses"))
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

    def _campuses(self, node: yaml.Node | None) -> dict[str, Campus | None]:
        """Each is a name alone, or a mapping that says where it is, too."""
        found: dict[str, Campus | None] = {}
        seen: dict[str, int] = {}
        for position, item in enumerate(self._items(node), start=1):
            plain = not isinstance(item, yaml.MappingNode)
            entries = {"name": item} if plain else self._mapping(item, ("name",), ("latitude", "longitude"))
            one = self._scalars(item, entries)
            name = one.required("name")
            one.once(name, seen, f"campus {name!r}")
            latitude = one.degrees("latitude", 90) if "latitude" in entries else None
            longitude = one.degrees("longitude", 180) if "longitude" in entries else None
            if ("latitude" in entries) != ("longitude" in entries):
                one.wrong("has latitude or longitude alone: give both or none")
            if seen.get(name) == one.line:
                found[name] = Campus(name, latitude, longitude, position) if one.ok else None
        return found

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

    def _scalars(self, parent: yaml.Node, entries: Mapping[str, yaml.Node]) -> Fields:
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
        return Fields(HOSPITAL, parent.start_mark.line + 1, values, self.errors, lines, ok)

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

    def _departments(
        self, campuses: Mapping[str, Campus | None] | None
    ) -> dict[str, Department | None] | None:
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
        self, row: Fields, parents: Mapping[str, str], found: dict[str, Department | None]
    ) -> None:
        id_, parent = row.values.get("id", ""), row.values.get("parent_id", "")
        above = parents.get(parent)
        if not parent:
            return
        if above is None:
            row.wrong(f"parent_id {parent!r} is unknown: add that department or leave parent_id blank")
        elif leads_back(id_, parents):
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
                    if collide(_hours(template), _hours(other)):
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
        found: dict[tuple[str, date, str], tuple[SessionOverride, Fields]] = {}
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
        row: Fields,
        override: SessionOverride,
        overrides: Mapping[tuple[str, date, str], tuple[SessionOverride, Fields]],
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
            if collide((override.period, starts, ends), (other.period, begin, end)):
                row.wrong(
                    f"the {override.period} then overlaps or is not in the order of the day with the"
                    f" {other.period} of {day}: correct the times"
                )

    # policy.yaml

    def _policy(
        self,
        departments: Mapping[str, Department | None] | None,
        classes: Mapping[str, NumberClass | None] | None,
        practitioners: Mapping[str, Practitioner | None],
    ) -> str | None:
        if not (self.folder / POLICY).exists():
            return None
        text = self._content(POLICY)
        known = None
        if departments is not None and classes is not None:  # else its ids cannot be judged
            parents = {d.parent_id for d in departments.values() if d is not None}
            known = Known({id_: id_ not in parents for id_ in departments}, classes, practitioners)
        try:
            if text is not None:
                read_policy(text, Policy(), known)
        except PolicyRefused as refused:
            self.errors += refused.errors
        return text

    def _rows(self, name: str) -> list[Fields] | None:
        """The lines of a CSV file; None when it cannot be read or its header is wrong."""
        text = self._content(name)
        if text is None:
            return None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows: list[Fields] = []
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
                rows.append(Fields(name, line, values, self.errors))
        if header is None:
            self._wrong(name, 1, "is empty: the first line must name the columns")
            return None
        return rows

    def _check_header(self, name: str, line: int, header: Sequence[str]) -> bool:
        required, optional = COLUMNS[name]
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


def _hours(template: SessionTemplate) -> tuple[str, time, time]:
    return template.period, template.starts, template.ends


def _by_practitioner(templates: Iterable[SessionTemplate]) -> dict[str, list[SessionTemplate]]:
    found: dict[str, list[SessionTemplate]] = defaultdict(list)
    for template in templates:
        found[template.practitioner_id].append(template)
    return found


def _whole(found: Mapping[str, _T | None]) -> tuple[_T, ...]:
    return tuple(row for row in found.values() if row is not None)
