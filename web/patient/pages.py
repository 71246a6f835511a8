"""What patients read of the schedules, kept as the bytes that are sent.

A schedule's part of an answer is made once and made again only when the schedule has changed, or when time
has changed what is seen of it: a share has opened, a slot has begun. An answer is a join of such parts, and
its tag a digest of their digests.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Generic, NamedTuple, TypeVar

import orjson

from engine.domain.limits import SLOT_MINUTES
from engine.domain.policy import Channel
from engine.records.catalog import ScheduleRow
from engine.views.availability import FOREVER, Availability, OpenSlot
from web.conditional import digest, etag_of
from web.patient.bodies import (
    ScheduleAnswer,
    SessionOutlineAnswer,
    SlotAnswer,
    SlotsAnswer,
    SubstituteAnswer,
)

SELECTIONS_MAX: Final = 128  # lists that are kept ready, the longest unused goes first
MADE_MAX: Final = 64  # parts made in one go: others have the loop in between
CHANNEL: Final = Channel.MINI_PROGRAM

_SLOT: Final = timedelta(minutes=SLOT_MINUTES)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    body: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """Good while the schedule has this stamp, from `since` until `until` (ms)."""

    stamp: int
    since: int
    until: int
    value: T


class Wanted(NamedTuple):
    """Which schedules: see Availability.schedules."""

    department_id: str | None = None
    practitioner_id: str | None = None
    title: str | None = None
    first: date | None = None
    last: date | None = None


@dataclass(slots=True)
class Selection:
    """A list of schedules as it was at one moment."""

    structure: int
    rows: list[ScheduleRow]
    places: dict[str, int]  # schedule id -> where it stands in `rows`
    changes: int = -1
    since: int = 0
    until: int = 0  # at first it holds at no time
    parts: list[Part] = field(default_factory=list)
    etag: str = ""

    def body(self) -> bytes:
        return b'{"schedules":[' + b",".join([part.body for part in self.parts]) + b"]}"


class Pages:
    def __init__(self, availability: Availability, zone: tzinfo) -> None:
        self._availability = availability
        self._zone = zone
        self._schedules: dict[str, _Kept[Part]] = {}
        self._slots: dict[str, _Kept[Part]] = {}
        self._counts: dict[str, _Kept[dict[str, bytes]]] = {}
        self._selections: dict[Wanted, Selection] = {}
        self._catalog = availability.catalog
        self._of_catalog: dict[str, Part] = {}

    def of_catalog(self, name: str, make: Callable[[], object]) -> Part:
        """An answer that only another catalog changes, by a name of its own."""
        if self._catalog is not self._availability.catalog:
            self._catalog = self._availability.catalog
            self._of_catalog.clear()
        part = self._of_catalog.get(name)
        if part is None:
            part = self._of_catalog[name] = _part(make())
        return part

    def schedule(self, row: ScheduleRow, now: int) -> Part:
        """A ScheduleAnswer."""
        return self._kept(self._schedules, row, now, self._make_schedule).value

    def until(self, row: ScheduleRow, now: int) -> int:
        """When (ms) time alone changes what is seen of a schedule; FOREVER: never."""
        return self._kept(self._schedules, row, now, self._make_schedule).until

    def slots(self, row: ScheduleRow, now: int) -> Part:
        """A SlotsAnswer."""
        return self._kept(self._slots, row, now, self._make_slots).value

    def counts(self, row: ScheduleRow, now: int) -> dict[str, bytes]:
        """Clock -> what the stream says of that slot, as JSON."""
        return self._kept(self._counts, row, now, self._make_counts).value

    async def selection(self, wanted: Wanted, now: int) -> Selection:
        """The schedules that are wanted, each as it is now. Where many have to be made, others have turns."""
        availability = self._availability
        selection = self._selections.pop(wanted, None)
        if selection is None or selection.structure != availability.structure:
            rows = list(availability.schedules(*wanted))
            selection = Selection(availability.structure, rows, {row.id: n for n, row in enumerate(rows)})
        self._selections[wanted] = selection
        if len(self._selections) > SELECTIONS_MAX:
            del self._selections[next(iter(self._selections))]
        if not selection.since <= now < selection.until:
            return await self._make_selection(selection, now)
        if selection.changes != availability.changes:
            touched = availability.touched(selection.changes)
            if touched is None:
                return await self._make_selection(selection, now)
            self._renew(selection, touched, now)
        return selection

    async def _make_selection(self, selection: Selection, now: int) -> Selection:
        changes = self._availability.changes
        kept: list[_Kept[Part]] = []
        made = 0
        for row in selection.rows:
            before = self._schedules.get(row.id)
            kept.append(now_kept := self._kept(self._schedules, row, now, self._make_schedule))
            made += now_kept is not before
            if made == MADE_MAX:
                made = 0
                await asyncio.sleep(0)
        # What changed meanwhile is newer than `changes`, so the next reader looks at it again.
        selection.changes = changes
        selection.since = max((each.since for each in kept), default=-FOREVER)
        selection.until = min((each.until for each in kept), default=FOREVER)
        selection.parts = [each.value for each in kept]
        selection.etag = etag_of(part.digest for part in selection.parts)
        return selection

    def _renew(self, selection: Selection, touched: set[str], now: int) -> None:
        selection.changes = self._availability.changes
        mine = touched & selection.places.keys()
        for schedule_id in mine:
            place = selection.places[schedule_id]
            kept = self._kept(self._schedules, selection.rows[place], now, self._make_schedule)
            selection.parts[place] = kept.value
            selection.since = max(selection.since, kept.since)
            selection.until = min(selection.until, kept.until)
        if mine:
            selection.etag = etag_of(part.digest for part in selection.parts)

    def _kept(
        self, shelf: dict[str, _Kept[T]], row: ScheduleRow, now: int, make: Callable[[ScheduleRow, int], T]
    ) -> _Kept[T]:
        stamp = self._availability.stamp(row.id)
        kept = shelf.get(row.id)
        if kept is None or kept.stamp != stamp or not kept.since <= now < kept.until:
            if len(shelf) > len(self._availability):  # some are of days that are over
                for schedule_id in [id for id in shelf if self._availability.schedule(id) is None]:
                    del shelf[schedule_id]
            since, until = self._availability.stretch(row, CHANNEL, now)
            kept = shelf[row.id] = _Kept(stamp, since, until, make(row, now))
        return kept

    def _make_schedule(self, row: ScheduleRow, now: int) -> Part:
        people = self._availability.catalog.practitioners
        practitioner = people[row.practitioner_id]
        by_session: dict[int, list[OpenSlot]] = {}
        for slot in self._availability.slots(row, CHANNEL, now):
            by_session.setdefault(id(slot.session), []).append(slot)
        sessions = []
        for session in row.sessions:
            slots = by_session.get(id(session))
            if not slots:
                continue
            substitute = people.get(session.substitute_id) if session.substitute_id else None
            opens = [slot.opens_at for slot in slots if slot.opens_at is not None]
            sessions.append(
                SessionOutlineAnswer(
                    session.period,
                    session.department_id,
                    session.number_class_id,
                    session.room_id,
                    session.fee_fen,
                    self._time(slots[0].starts_at),
                    self._time(slots[-1].starts_at) + _SLOT,
                    sum(slot.capacity for slot in slots),
                    sum(slot.remaining for slot in slots),
                    session.status,  # type: ignore[arg-type]
                    self._time(min(opens)) if opens else None,
                    session.substitute_id,
                    substitute.name if substitute else None,
                )
            )
        answer = ScheduleAnswer(
            row.id,
            practitioner.id,
            practitioner.name,
            practitioner.title,
            row.day.isoformat(),
            sum(s.capacity for s in sessions),
            sum(s.remaining for s in sessions),
            sessions,
        )
        return _part(answer)

    def _make_slots(self, row: ScheduleRow, now: int) -> Part:
        people = self._availability.catalog.practitioners
        slots = [
            SlotAnswer(
                slot.slot_id,
                start := self._time(slot.starts_at),
                start + _SLOT,
                slot.capacity,
                slot.remaining,
                slot.session.fee_fen,
                slot.session.status,  # type: ignore[arg-type]
                None if slot.opens_at is None else self._time(slot.opens_at),
            )
            for slot in self._availability.slots(row, CHANNEL, now)
        ]
        substitutes = [
            SubstituteAnswer(
                session.period,
                session.substitute_id,
                person.name if (person := people.get(session.substitute_id)) else "",
                person.title if person else None,
            )
            for session in row.sessions
            if session.substitute_id is not None
        ]
        version = self._availability.version(row.id)
        return _part(SlotsAnswer(slots, version, row.practitioner_id, substitutes))

    def _make_counts(self, row: ScheduleRow, now: int) -> dict[str, bytes]:
        return {
            slot.clock: orjson.dumps(
                {
                    "slot_id": slot.slot_id,
                    "remaining": slot.remaining,
                    "capacity": slot.capacity,
                    "status": slot.session.status,
                    "opens_at": None if slot.opens_at is None else self._time(slot.opens_at),
                }
            )
            for slot in self._availability.slots(row, CHANNEL, now)
        }

    def _time(self, ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, UTC).astimezone(self._zone)


def _part(answer: object) -> Part:
    body = orjson.dumps(answer)
    return Part(body, digest(body))
