"""Free seats, folded from what is published and what the feeds say. Lives in every gateway's memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from engine.domain.ids import ScheduleKey
from engine.records.catalog import Catalog, ScheduleRow, SessionOutline

ALTERNATIVES_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot as somebody sees it who is looking for one."""

    slot_id: str
    row: ScheduleRow
    session: SessionOutline
    clock: str
    starts_at: int  # ms
    capacity: int
    remaining: int


@dataclass(slots=True)
class _Changed:
    """What the actors said of one schedule: free seats of the slots that are not as published."""

    remaining: dict[str, int] = field(default_factory=dict)  # clock -> free seats
    version: int = 0


class Availability:
    def __init__(self, catalog: Catalog, rows: Iterable[ScheduleRow]) -> None:
        self.catalog = catalog
        self._changed: dict[str, _Changed] = {}
        self.replace(catalog, rows)

    def replace(self, catalog: Catalog, rows: Iterable[ScheduleRow]) -> None:
        """A new catalog. What the actors said stays true."""
        self.catalog = catalog
        self._rows: dict[str, ScheduleRow] = {}
        self._by_practitioner: dict[str, list[ScheduleRow]] = defaultdict(list)
        self._by_department: dict[str, list[ScheduleRow]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.day):
            self._rows[row.id] = row
            self._by_practitioner[row.practitioner_id].append(row)
            for department_id in {session.department_id for session in row.sessions}:
                self._by_department[department_id].append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def schedule(self, schedule_id: str) -> ScheduleRow | None:
        return self._rows.get(schedule_id)

    def schedules(
        self,
        department_id: str | None = None,
        practitioner_id: str | None = None,
        title: str | None = None,
        first: date | None = None,
        last: date | None = None,
    ) -> Iterator[ScheduleRow]:
        """By day. A first-level department stands for all below it."""
        if practitioner_id is not None:
            rows: Iterable[ScheduleRow] = self._by_practitioner.get(practitioner_id, ())
        elif department_id is not None:
            rows = self._of_departments(self.departments_below(department_id))
        else:
            rows = self._rows.values()
        wanted = None if department_id is None else self.departments_below(department_id)
        for row in rows:
            if (first and row.day < first) or (last and row.day > last):
                continue
            if wanted is not None and not any(s.department_id in wanted for s in row.sessions):
                continue
            if title is not None and self.catalog.practitioners[row.practitioner_id].title != title:
                continue
            yield row

    def departments_below(self, department_id: str) -> set[str]:
        return {d.id for d in self.catalog.departments.values() if department_id in (d.id, d.parent_id)}

    def slots(self, row: ScheduleRow) -> Iterator[OpenSlot]:
        changed = self._changed.get(row.id)
        key, midnight = row.key, row.midnight_utc
        for session in row.sessions:
            for clock, start, capacity in session.slots:
                free = capacity if changed is None else changed.remaining.get(clock, capacity)
                yield OpenSlot(key.slot_id(clock), row, session, clock, midnight + start, capacity, free)

    def version(self, schedule_id: str) -> int:
        """Grows with every change of the schedule's free seats; 0 as published."""
        changed = self._changed.get(schedule_id)
        return 0 if changed is None else changed.version

    def change(self, remaining: dict[str, int], version: int) -> None:
        """What a feed says: slot id -> free seats now."""
        for slot_id, free in remaining.items():
            schedule_id, _, clock = slot_id.rpartition("-")
            changed = self._changed.get(schedule_id)
            if changed is None:
                changed = self._changed[schedule_id] = _Changed()
            changed.remaining[clock] = free
            changed.version = max(changed.version, version)

    def reset(self, schedule_ids: frozenset[str] | None, taken: dict[str, int], version: int) -> None:
        """A snapshot of seats taken, for the schedules of one shard (None: all)."""
        for schedule_id, changed in self._changed.items():
            if schedule_ids is None or schedule_id in schedule_ids:
                changed.remaining.clear()
                changed.version = max(changed.version, version)
        for slot_id, seats in taken.items():
            schedule_id, _, clock = slot_id.rpartition("-")
            if schedule_ids is not None and schedule_id not in schedule_ids:
                continue
            capacity = self._capacity(schedule_id, clock)
            if capacity is not None:
                self.change({slot_id: capacity - seats}, version)

    def alternatives(self, slot_id: str, now: int, most: int = ALTERNATIVES_MAX) -> list[OpenSlot]:
        """Where else there is a seat, best first: the same doctor at a near time, then the same department
        and title in the same half day, then the same doctor on the next days, then anybody there."""
        found = ScheduleKey.of_slot(slot_id)
        row = None if found is None else self._rows.get(found[0].schedule_id)
        if found is None or row is None:
            return []
        wanted = next((slot for slot in self.slots(row) if slot.clock == found[1]), None)
        if wanted is None:
            return []
        title = self.catalog.practitioners[row.practitioner_id].title

        def rank(slot: OpenSlot) -> tuple[int, int, str]:
            same_doctor = slot.row.practitioner_id == row.practitioner_id
            same_day = slot.row.day == row.day
            same_title = self.catalog.practitioners[slot.row.practitioner_id].title == title
            if same_doctor and same_day:
                kind = 0
            elif same_day and same_title and slot.session.period == wanted.session.period:
                kind = 1
            elif same_doctor:
                kind = 2
            elif same_day:
                kind = 3
            else:
                kind = 4
            return kind, abs(slot.starts_at - wanted.starts_at), slot.slot_id

        department = wanted.session.department_id
        near = [*self._by_practitioner[row.practitioner_id], *self._by_department[department]]
        ranked: list[OpenSlot] = []
        # The same day and the doctor's own days; the whole department only where that is too little.
        close = [x for x in near if x.day == row.day or x.practitioner_id == row.practitioner_id]
        for rows in (close, near):
            ranked = sorted(
                {
                    slot.slot_id: slot
                    for each in rows
                    for slot in self.slots(each)
                    if slot.slot_id != slot_id  # its actor has just refused it, whatever this view says
                    and slot.remaining > 0
                    and slot.starts_at > now
                    and slot.session.department_id == department
                }.values(),
                key=rank,
            )[:most]
            if len(ranked) == most:
                break
        return ranked

    def _of_departments(self, departments: set[str]) -> list[ScheduleRow]:
        rows = {row.id: row for d in departments for row in self._by_department.get(d, ())}
        return sorted(rows.values(), key=lambda row: row.day)

    def _capacity(self, schedule_id: str, clock: str) -> int | None:
        row = self._rows.get(schedule_id)
        if row is None:
            return None
        return next((c for s in row.sessions for at, _, c in s.slots if at == clock), None)
