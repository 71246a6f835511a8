"""Brings the HIS to where our numbers are: one step at a time, each noted before the next (his_rules.py).

Used by the outbox for each committed event, by the reconciliation for what it found, and by nobody who holds
a database connection: the HIS may take its time.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg

from actors.directory import Outcome
from engine.domain import schedule as s
from engine.domain.by import HIS
from engine.domain.his_rules import Believed, Differs, Do, Phase, Step, next_step
from engine.domain.ids import ScheduleKey
from engine.domain.policy import Channel
from engine.records import his as records
from engine.records import his_differences
from engine.records.his import Kept, Note
from integrations.connector import Refused
from integrations.his.his import Booking, His, Kind, Registration
from web.his import states
from web.his.bookings import Bookings, at

log = logging.getLogger(__name__)

STEPS_MAX: Final = 16
"""For one chain at once. More than a few means that the two sides talk past one another."""

Ask = Callable[[str, s.Command], Awaitable[Outcome]]
"""A command to a schedule's actor, with a deadline."""

_KINDS: Final = {
    Do.BOOK: Kind.BOOKED,
    Do.RESCHEDULE: Kind.RESCHEDULED,
    Do.CHANGE: Kind.CHANGED,
    Do.ARRIVE: Kind.ARRIVED,
    Do.FULFIL: Kind.FULFILLED,
    Do.MISS: Kind.NO_SHOW,
    Do.CANCEL: Kind.CANCELLED,
}
_LETTERS: Final = {
    Do.BOOK: "b",
    Do.RESCHEDULE: "r",
    Do.CHANGE: "u",
    Do.ARRIVE: "a",
    Do.FULFIL: "f",
    Do.MISS: "m",
    Do.CANCEL: "c",
}
"""Of their message's id: what was told under it once is never told otherwise."""
_AFTER: Final = {
    Do.BOOK: Phase.BOOKED,
    Do.RESCHEDULE: Phase.BOOKED,
    Do.CHANGE: Phase.BOOKED,
    Do.ARRIVE: Phase.ARRIVED,
    Do.FULFIL: Phase.FULFILLED,
    Do.MISS: Phase.NO_SHOW,
}


class Restless(Exception):
    """Step after step, and the two sides still differ."""


@dataclass(frozen=True, slots=True)
class Telling:
    pool: asyncpg.Pool
    his: His
    bookings: Bookings
    ask: Ask
    zone: ZoneInfo

    async def settle(self, root: bytes, message_id: str, is_uncertain: bool = False) -> int:
        """How many things they were told. `is_uncertain`: a try before this one may have been heard.

        Raises TryAgain, Refused, OutcomeUnknown."""
        if is_uncertain:
            await self._look(await records.chain(self.pool, root))
        told, has_looked = 0, is_uncertain
        for count in range(STEPS_MAX):
            chain = await records.chain(self.pool, root)
            step = next_step([(one.ours, one.believed) for one in chain])
            if step is None:
                return told
            by_id = {one.ours.id: one for one in chain}
            try:
                await self._do(step, by_id, f"{message_id}{_LETTERS.get(step.do, '')}{count:x}")
            except Refused:
                if has_looked:
                    raise
                has_looked = True  # perhaps they have something else than we believed
                await self._look(chain)
                continue
            told += step.do not in (Do.FIND, Do.LOCK, Do.UNLOCK)
        raise Restless(root.hex())

    async def look(self, root: bytes) -> None:
        """Believes from now on what they say that they have, whatever was believed."""
        for one in await records.chain(self.pool, root):
            if one.believed is not None or one.ours.status in states.COUNTS:
                await self._find(one)

    async def _do(self, step: Step, by_id: dict[bytes, Kept], tell_id: str) -> None:
        one = by_id[step.id]
        match step.do:
            case Do.FIND:
                await self._find(one)
            case Do.LOCK:
                await self._lock(one)
            case Do.UNLOCK:
                await self.his.unlock(one.ours.id.hex())
                await self._note(one, Note(Phase.GONE))
            case _:
                await self._tell(step, one, by_id.get(step.before), tell_id)

    async def _tell(self, step: Step, one: Kept, before: Kept | None, tell_id: str) -> None:
        booking = await self._booking(one)
        earlier = None if before is None else await self._booking(before)
        if step.do is Do.CHANGE and one.believed is not None and one.believed.slot_id is not None:
            earlier = _as_told(booking, one.believed)
        reason = one.reason if step.do is Do.CANCEL else ""
        his_id = await self.his.tell(tell_id, _KINDS[step.do], booking, before=earlier, reason=reason)
        if before is not None:
            await self._note(before, Note(Phase.GONE))
        if step.do is Do.CANCEL:
            await self._note(one, Note(Phase.GONE))
            return
        number = booking.number
        await self._note(
            one, Note(_AFTER[step.do], his_id or None, one.ours.slot_id, one.ours.starts_at, number)
        )

    async def _booking(self, one: Kept) -> Booking:
        """Their number, where theirs count or they gave it."""
        theirs = None if one.believed is None else one.believed.number
        is_theirs = one.ours.asks_first or one.ours.channel == Channel.HIS
        return await self.bookings.read(one.ours.id, theirs if is_theirs else None)

    async def _lock(self, one: Kept) -> None:
        """For a number that was given here before they were asked: by the waiting list, to a family."""
        await records.begin_asking(self.pool, one.ours.id, one.department_id)
        try:
            locked = await self.his.lock(await self.bookings.read(one.ours.id))
        except Refused as refused:
            await records.no_place(self.pool, one.ours.id)
            if one.ours.status == s.Status.PENDING:
                await give_back(self.ask, one)
            else:
                await self.differs(one, Differs.NO_PLACE_THERE, {"code": refused.code})
            return
        await self._note(
            one, Note(Phase.LOCKED, locked.his_id, one.ours.slot_id, one.ours.starts_at, locked.number)
        )

    async def _look(self, chain: list[Kept]) -> None:
        for one in chain:
            if one.believed is not None and one.believed.phase is not Phase.GONE:
                await self._find(one)

    async def _find(self, one: Kept) -> None:
        found = await self.his.find(one.ours.id.hex())
        await self._note(one, _found(one, found))

    async def _note(self, one: Kept, note: Note) -> None:
        await records.note(self.pool, one.ours.id, one.department_id, note)

    async def differs(self, one: Kept, kind: Differs, evidence: dict[str, object]) -> None:
        day = self.day_of(one.ours.starts_at)
        subject = his_differences.subject_of(one.ours.id, None)
        await his_differences.note(self.pool, day, kind, subject, evidence, datetime.now(UTC))

    def day_of(self, ms: int) -> date:
        return at(ms).astimezone(self.zone).date()


def _found(one: Kept, found: Registration | None) -> Note:
    phase = Phase.GONE if found is None else states.phase_of(found.status)
    is_wanted = one.ours.status in (s.Status.PENDING, *states.COUNTS)
    if found is None and is_wanted:
        phase = Phase.DUE  # they never had it, or lost it: it is told again
    if found is None:
        return Note(phase)
    starts_at = round(found.starts_at.timestamp() * 1000)
    is_ours = starts_at == one.ours.starts_at
    # Of another time than ours the slot is not ours either: then it is told once more.
    return Note(phase, found.his_id, one.ours.slot_id if is_ours else "", starts_at, found.number)


def _as_told(booking: Booking, believed: Believed) -> Booking:
    """What they have now, of which only the time and the number may be another."""
    length = booking.ends_at - booking.starts_at
    starts_at = booking.starts_at if believed.starts_at is None else at(believed.starts_at)
    return replace(
        booking,
        starts_at=starts_at,
        ends_at=starts_at + length,
        number=booking.number if believed.number is None else believed.number,
    )


async def give_back(ask: Ask, one: Kept) -> None:
    """A place that they have not: whoever holds it here learns that it is gone."""
    key = ScheduleKey.of_schedule(one.ours.slot_id.rpartition("-")[0])
    assert key is not None
    outcome = await ask(key.stream, s.CancelAppointment(one.ours.id, one.account_id, HIS, "no place there"))
    if not isinstance(outcome, s.Answer):
        log.warning("a number that the HIS has no place for could not be given back: %s", outcome)
