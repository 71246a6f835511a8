"""Free seats, folded from what is published and what the feeds say. Lives in every gateway's memory.

What somebody sees depends on their channel and on the moment: a share of the seats may not be open to them
yet (放号), a session may be paused, a slot may have closed. So readers say who they are and what time it is.
Times are ms since the epoch, UTC.
"""

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import takewhile
from typing import Any, Final

from engine.domain.ids import ScheduleKey
from engine.domain.limits import SLOT_MS
from engine.domain.planning import plan_from_data
from engine.domain.policy import SELF_SERVICE, Channel, Policy
from engine.records.appointments import Taken
from engine.records.catalog import Catalog, ScheduleRow, SessionOutline, schedule_row

ALTERNATIVES_MAX: Final = 6
_DEFAULT: Final = Policy()
NEWS_MAX: Final = 256  # pieces of news that are remembered by whom they were about
FOREVER: Final = 1 << 62  # ms: a moment that never comes

Free = int | list[int]
"""Free seats of a slot; a list by share where its session has shares."""


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot as somebody sees it who is looking for one."""

    slot_id: str
    row: ScheduleRow
    session: SessionOutline
    clock: str
    starts_at: int  # ms
    capacity: int  # of the shares that are open to them now
    remaining: int  # that they could book now
    opens_at: int | None = None  # ms: when more seats open to them


@dataclass(slots=True)
class Heard:
    """What a piece of news has changed, for those who are looking at it."""

    slots: dict[str, set[str]] = field(default_factory=dict)
    """schedule id -> clocks whose free seats are others"""
    days: set[str] = field(default_factory=set)
    """Schedules that have another structure, or have come or gone."""

    def __bool__(self) -> bool:
        return bool(self.slots or self.days)


@dataclass(slots=True)
class _Changed:
    """What is not as published of one schedule."""

    remaining: dict[str, Free] = field(default_factory=dict)  # clock -> free seats
    version: int = 0
    stamp: int = 0
    planned: int = 0  # `changes` when a feed or a snapshot last brought its plan


class Availability:
    def __init__(self, catalog: Catalog, rows: Iterable[ScheduleRow], policy: Policy = _DEFAULT) -> None:
        self.catalog = catalog
        self._policy = policy
        self._ruled = 0  # `changes` when last the policy was another
        self.changes = 0
        """Grows with everything that can be seen, in this process: never compare it with another's."""
        self.structure = 0
        """`changes` when last a schedule came, went, or had its sessions changed."""
        self._changed: dict[str, _Changed] = {}
        self._rows: dict[str, ScheduleRow] = {}
        self._news: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=NEWS_MAX)
        self.replace(catalog, rows)

    def replace(
        self,
        catalog: Catalog,
        rows: Iterable[ScheduleRow],
        read_at: int | None = None,
        policy: Policy | None = None,
    ) -> Heard:
        """A new catalog, or other rules. What the actors said stays true.

        `read_at` is `changes` when the reading began: an actor's plan that came later is newer than these.
        """
        before, old = self.catalog, self._rows
        self.catalog = catalog
        self._rows = {}
        for row in rows:
            if not row.sessions:
                continue
            was = old.get(row.id)
            # An equal row is kept, so that nothing made of it has to be made again.
            self._rows[row.id] = was if was is not None and was.sessions == row.sessions else row
        for schedule_id, changed in self._changed.items():
            if read_at is not None and changed.planned > read_at:
                self._rows.pop(schedule_id, None)
                if schedule_id in old:
                    self._rows[schedule_id] = old[schedule_id]
        self._forget_the_past()
        self._index()
        heard = Heard()
        people = {
            id
            for id in {*before.practitioners, *catalog.practitioners}
            if before.practitioners.get(id) != catalog.practitioners.get(id)
        }
        for schedule_id in {*old, *self._rows}:
            now_row = self._rows.get(schedule_id)
            if now_row is not old.get(schedule_id) or (
                people
                and now_row is not None
                and (
                    now_row.practitioner_id in people
                    or any(session.substitute_id in people for session in now_row.sessions)
                )
            ):
                heard.days.add(schedule_id)
        if policy is not None and policy != self._policy:
            self._policy = policy
            self._ruled = self.changes + 1
            heard.days |= self._rows.keys()
            self._note((), restructured=True)
            return heard
        # A day that was never here before needs no stamp of its own: nobody has seen it yet.
        self._note([id for id in heard.days if id in old or id in self._changed], restructured=True)
        return heard

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
        """By day and practitioner. A first-level department stands for all below it."""
        wanted = None if department_id is None else self.departments_below(department_id)
        if practitioner_id is not None:
            rows: Iterable[ScheduleRow] = self._by_practitioner.get(practitioner_id, ())
        elif wanted is not None:
            rows = {row.id: row for d in wanted for row in self._by_department.get(d, ())}.values()
        else:
            rows = self._rows.values()
        people = self.catalog.practitioners
        for row in sorted(rows, key=_by_day):
            if (first and row.day < first) or (last and row.day > last):
                continue
            if wanted is not None and not any(s.department_id in wanted for s in row.sessions):
                continue
            person = people.get(row.practitioner_id)  # a day may be heard of before its practitioner
            if person is None or (title is not None and person.title != title):
                continue
            yield row

    def departments_below(self, department_id: str) -> set[str]:
        return {d.id for d in self.catalog.departments.values() if department_id in (d.id, d.parent_id)}

    def slots(self, row: ScheduleRow, channel: Channel, now: int) -> Iterator[OpenSlot]:
        """As this channel sees them now. What is paused, called off or closed has nothing left."""
        changed = self._changed.get(row.id)
        said: dict[str, Free] = {} if changed is None else changed.remaining
        prefix, midnight = f"{row.id}-", row.midnight_utc
        since_midnight = now - midnight
        for session in row.sessions:
            is_open = session.status == "open"
            lead = self._lead(session, channel)
            if not session.shares:
                for clock, start, capacity in session.slots:
                    left = 0
                    if is_open and start - lead > since_midnight:
                        free = said.get(clock, capacity)
                        left = min(free if isinstance(free, int) else sum(free), capacity)
                    yield OpenSlot(prefix + clock, row, session, clock, midnight + start, capacity, left)
                continue
            open_shares = [bool(share.channels(since_midnight) & channel) for share in session.shares]
            opening = [_next_opening(session, n, channel, since_midnight) for n in range(len(open_shares))]
            for (clock, start, _), runs in zip(session.slots, session.runs, strict=True):
                seats = _by_share(runs, len(open_shares))
                free = said.get(clock, seats)
                capacity = sum(n for n, open_ in zip(seats, open_shares, strict=True) if open_)
                left, opens_at = 0, None
                if is_open and start - lead > since_midnight:
                    if isinstance(free, list) and len(free) == len(open_shares):
                        left = sum(n for n, open_ in zip(free, open_shares, strict=True) if open_)
                    else:  # said of another plan than this one, and soon said again
                        left = free if isinstance(free, int) else sum(free)
                    left = max(0, min(left, capacity))
                    opens = min(
                        (at for at, n in zip(opening, seats, strict=True) if n and at < start - lead),
                        default=FOREVER,
                    )
                    opens_at = None if opens == FOREVER else midnight + opens
                yield OpenSlot(
                    prefix + clock, row, session, clock, midnight + start, capacity, left, opens_at
                )

    def stretch(self, row: ScheduleRow, channel: Channel, now: int) -> tuple[int, int]:
        """From when (inclusive) until when (exclusive) this channel sees the same of a schedule, as long as
        nobody does anything: a slot's closing and a share's opening are such moments."""
        since_midnight = now - row.midnight_utc
        moments = sorted(moment for session in row.sessions for moment, _ in self._moments(session, channel))
        n = bisect_right(moments, since_midnight)
        return (
            row.midnight_utc + moments[n - 1] if n else -FOREVER,
            row.midnight_utc + moments[n] if n < len(moments) else FOREVER,
        )

    def turned(self, row: ScheduleRow, channel: Channel, after: int, now: int) -> set[str]:
        """Clocks of the slots that time alone has changed for this channel since `after`."""
        midnight = row.midnight_utc
        found: set[str] = set()
        for session in row.sessions:
            for moment, clocks in self._moments(session, channel):
                if after < midnight + moment <= now:
                    found.update(clocks)
        return found

    def version(self, schedule_id: str) -> int:
        """Grows with every change of the schedule's free seats; 0 as published."""
        changed = self._changed.get(schedule_id)
        return 0 if changed is None else changed.version

    def stamp(self, schedule_id: str) -> int:
        """Another one after everything that can be seen of this schedule, its people's names included."""
        changed = self._changed.get(schedule_id)
        return self._ruled if changed is None else max(changed.stamp, self._ruled)

    def touched(self, after: int) -> set[str] | None:
        """Schedules that look otherwise than when `changes` was `after`; None: too long ago to tell."""
        if after < self.structure or (self._news and after < self._news[0][0] - 1):
            return None
        news = takewhile(lambda piece: piece[0] > after, reversed(self._news))
        return {schedule_id for _, ids in news for schedule_id in ids}

    def change(self, remaining: Mapping[str, Free], plans: Mapping[str, list[Any]], version: int) -> Heard:
        """What a feed says: free seats of slots, and whole days (planning.plan_as_data) that have changed."""
        heard = Heard()
        for schedule_id, data in plans.items():
            key = ScheduleKey.of_schedule(schedule_id)
            if key is not None:
                row = schedule_row(
                    key.practitioner_id, date.fromisoformat(key.day), True, plan_from_data(data)
                )
                self._put(row, heard)
                changed = self._changed[schedule_id]
                changed.version = max(changed.version, version)
                heard.slots.setdefault(schedule_id, set())  # the version, too, can be seen
        for slot_id, free in remaining.items():
            schedule_id, _, clock = slot_id.rpartition("-")
            changed = self._of(schedule_id)
            changed.remaining[clock] = free
            changed.version = max(changed.version, version)
            heard.slots.setdefault(schedule_id, set()).add(clock)
        if heard:
            self._note([*heard.slots, *heard.days], restructured=bool(heard.days))
        return heard

    def reset(self, schedule_ids: frozenset[str] | None, taken: Taken, version: int) -> Heard:
        """A snapshot, for the schedules of one shard (None: all)."""
        heard = Heard()
        for row in taken.rows:
            if schedule_ids is None or row.id in schedule_ids:
                self._put(row, heard)
        now: dict[str, dict[str, Free]] = defaultdict(dict)
        for slot_id, count in taken.seats.items():
            schedule_id, _, clock = slot_id.rpartition("-")
            if schedule_ids is None or schedule_id in schedule_ids:
                free = self._free(schedule_id, clock, count, taken.which.get(slot_id, []))
                if free is not None:
                    now[schedule_id][clock] = free
        for schedule_id in {*self._changed, *now}:
            if schedule_ids is not None and schedule_id not in schedule_ids:
                continue
            changed = self._of(schedule_id)
            before, changed.remaining = changed.remaining, now.get(schedule_id, {})
            others = {
                clock
                for clock in {*before, *changed.remaining}
                if before.get(clock) != changed.remaining.get(clock)
            }
            if others:
                heard.slots[schedule_id] = others
            if changed.version < version:
                changed.version = version
                heard.slots.setdefault(schedule_id, set())
        self._note([*heard.slots, *heard.days], restructured=bool(heard.days))
        return heard

    def alternatives(
        self,
        slot_id: str,
        now: int,
        most: int = ALTERNATIVES_MAX,
        channel: Channel = Channel.MINI_PROGRAM,
    ) -> list[OpenSlot]:
        """Where else this channel can book now, best first: the same doctor at a near time, then the same
        department and title in the same half day, then the same doctor on the next days, then anybody
        there."""
        found = ScheduleKey.of_slot(slot_id)
        row = None if found is None else self._rows.get(found[0].schedule_id)
        if found is None or row is None:
            return []
        wanted = next((slot for slot in self.slots(row, channel, now) if slot.clock == found[1]), None)
        people = self.catalog.practitioners
        if wanted is None or row.practitioner_id not in people:
            return []
        title = people[row.practitioner_id].title

        def rank(slot: OpenSlot) -> tuple[int, int, str]:
            same_doctor = slot.row.practitioner_id == row.practitioner_id
            same_day = slot.row.day == row.day
            same_title = people[slot.row.practitioner_id].title == title
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
        near = [
            each
            for each in (*self._by_practitioner[row.practitioner_id], *self._by_department[department])
            if each.practitioner_id in people
        ]
        ranked: list[OpenSlot] = []
        # The same day and the doctor's own days; the whole department only where that is too little.
        close = [x for x in near if x.day == row.day or x.practitioner_id == row.practitioner_id]
        for rows in (close, near):
            ranked = sorted(
                {
                    slot.slot_id: slot
                    for each in rows
                    for slot in self.slots(each, channel, now)
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

    def session_of(self, row: ScheduleRow, clock: str) -> SessionOutline | None:
        """The session that a slot belongs to."""
        return next((s for s in row.sessions for at, _, _ in s.slots if at == clock), None)

    def _lead(self, session: SessionOutline, channel: Channel) -> int:
        """How long (ms) before a slot begins this channel can book it last. Staff can while it runs."""
        if not channel & SELF_SERVICE:
            return -SLOT_MS
        return self._policy.terms_of(session.department_id, session.number_class_id).closes_minutes * 60_000

    def _moments(self, session: SessionOutline, channel: Channel) -> Iterator[tuple[int, list[str]]]:
        """Each moment (ms after midnight, UTC) at which what this channel sees of a session changes by
        itself, with the clocks of the slots that it changes."""
        lead = self._lead(session, channel)
        for clock, start, _ in session.slots:
            yield start - lead, [clock]
        for n, share in enumerate(session.shares):
            was_open = False
            for stage in share.stages:
                is_open = bool(stage.channels & channel)
                if is_open != was_open:
                    touched = [
                        clock
                        for (clock, _, _), runs in zip(session.slots, session.runs, strict=True)
                        if any(of == n for of, _ in runs)
                    ]
                    yield stage.at, touched
                was_open = is_open

    def _put(self, row: ScheduleRow, heard: Heard) -> None:
        """A day as its actor has it. What was said of slots that it no longer has is forgotten."""
        changed = self._of(row.id)
        changed.planned = self.changes + 1  # after everything that was read before now
        was = self._rows.get(row.id)
        if (() if was is None else was.sessions) == row.sessions:
            return
        self._take_out(was)
        if row.sessions:
            self._rows[row.id] = row
            self._by_practitioner[row.practitioner_id].append(row)
            for department_id in {session.department_id for session in row.sessions}:
                self._by_department[department_id].append(row)
        clocks = {clock for session in row.sessions for clock, _, _ in session.slots}
        changed.remaining = {clock: free for clock, free in changed.remaining.items() if clock in clocks}
        heard.days.add(row.id)

    def _take_out(self, row: ScheduleRow | None) -> None:
        if row is None:
            return
        del self._rows[row.id]
        for rows in (
            self._by_practitioner[row.practitioner_id],
            *(self._by_department[d] for d in {session.department_id for session in row.sessions}),
        ):
            rows[:] = [each for each in rows if each is not row]

    def _index(self) -> None:
        self._by_practitioner: dict[str, list[ScheduleRow]] = defaultdict(list)
        self._by_department: dict[str, list[ScheduleRow]] = defaultdict(list)
        for row in self._rows.values():
            self._by_practitioner[row.practitioner_id].append(row)
            for department_id in {session.department_id for session in row.sessions}:
                self._by_department[department_id].append(row)

    def _forget_the_past(self) -> None:
        """What was said of days before the first one that is published: nobody will ask."""
        if self._rows:
            first = min(row.day for row in self._rows.values()).strftime("%Y%m%d")
            self._changed = {
                id: said for id, said in self._changed.items() if id in self._rows or id[-8:] >= first
            }

    def _note(self, schedule_ids: Iterable[str], restructured: bool) -> None:
        self.changes += 1
        if restructured:
            self.structure = self.changes
        stamped = tuple(schedule_ids)
        for schedule_id in stamped:
            self._of(schedule_id).stamp = self.changes
        self._news.append((self.changes, stamped))

    def _of(self, schedule_id: str) -> _Changed:
        changed = self._changed.get(schedule_id)
        if changed is None:
            changed = self._changed[schedule_id] = _Changed()
        return changed

    def _free(self, schedule_id: str, clock: str, count: int, which: list[int]) -> Free | None:
        """What is left when so many seats, or just these, are taken. None: there is no such slot."""
        row = self._rows.get(schedule_id)
        session = None if row is None else self.session_of(row, clock)
        if session is None:
            return None
        n = next(n for n, (at, _, _) in enumerate(session.slots) if at == clock)
        if not session.shares:
            return session.slots[n][2] - count
        of_seat = [share for share, seats in session.runs[n] for _ in range(seats)]
        free = _by_share(session.runs[n], len(session.shares))
        for seat in which:
            if seat < len(of_seat):
                free[of_seat[seat]] -= 1
        return free


def _by_day(row: ScheduleRow) -> tuple[date, str]:
    return row.day, row.practitioner_id


def _by_share(runs: tuple[tuple[int, int], ...], shares: int) -> list[int]:
    seats = [0] * shares
    for share, count in runs:
        seats[share] += count
    return seats


def _next_opening(session: SessionOutline, share: int, channel: Channel, since_midnight: int) -> int:
    """When a share that is closed to this channel opens to it; FOREVER where it is open, or never will be."""
    stages = session.shares[share].stages
    if session.shares[share].channels(since_midnight) & channel:
        return FOREVER
    return next((s.at for s in stages if s.at > since_midnight and s.channels & channel), FOREVER)
