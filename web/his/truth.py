"""Departments whose numbers the HIS owns: it is asked for a place before ours is promised.

Our number is held first, so that nobody else is told the same here; then a place is locked there. Where
they have none, ours is given back and the caller told `slot_full`. Where nobody can say, they are asked what
became of it until the caller's time is over; then the caller hears `outcome_unknown`, and the outbox's
subscriber goes on by itself (web/his/telling.py): at the end both sides hold it, or neither.

Everywhere else the numbers are ours, and all of this is one look at an empty set.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from aiohttp import ClientSession, web

from actors.changes import HOLD_SECONDS
from actors.directory import Outcome
from engine.domain import schedule as s
from engine.domain.by import HIS
from engine.domain.his_rules import Phase
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Reason, Refusal
from engine.records import his as records
from engine.records.appointments import AppointmentRecord
from engine.records.his import Note
from engine.views.availability import OpenSlot
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.his.his import Booking, His
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.his import states
from web.his.bookings import Bookings

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.1
_REASONS: Final = {"session_suspended": Reason.SESSION_SUSPENDED, "already_booked": Reason.ALREADY_BOOKED}
"""Their words for why there is no place; whatever else they say, it is full."""
_HAD: Final = (Phase.LOCKED, Phase.BOOKED, Phase.ARRIVED, Phase.FULFILLED)


@dataclass(slots=True)
class Truth:
    departments: frozenset[str] = frozenset()
    """Of which the HIS owns the numbers"""
    his: His | None = None

    def connect(self, at: Any, session: ClientSession) -> None:
        """`at`: as SystemsConfig has it. Its modules are loaded where there is a HIS only."""
        from integrations.his.his_at import make

        self.his = make(at, session)

    async def close(self) -> None:
        if self.his is not None:
            await self.his.close()

    async def read(self, executor: asyncpg.Pool | asyncpg.Connection) -> None:
        self.departments = await records.truth(executor)


def asks_first(app: web.Application, schedule: ScheduleKey, clock: str) -> bool:
    """Whether the HIS must be asked before a number of this slot is promised."""
    departments = app[keys.HIS_TRUTH].departments
    if not departments:
        return False
    availability = app[keys.AVAILABILITY]
    row = availability.schedule(schedule.schedule_id)
    session = None if row is None else availability.session_of(row, clock)
    return session is not None and session.department_id in departments


async def placed(
    app: web.Application,
    appointment_id: bytes,
    account_id: bytes,
    schedule: ScheduleKey,
    department_id: str | None = None,
) -> int | None:
    """Their number for what is held here; asking again gives the same. None: the numbers there are ours.

    Raises Problem."""
    truth = app[keys.HIS_TRUTH]
    if not truth.departments:
        return None
    if department_id is None:
        department_id = await app[keys.POOL].fetchval(
            "select department_id from appointment where id = $1", appointment_id.hex()
        )
    if department_id not in truth.departments:
        return None
    assert department_id is not None
    if truth.his is None:
        raise Problem(Reason.AWAY)
    pool = app[keys.POOL]
    believed = await records.begin_asking(pool, appointment_id, department_id)
    if believed.phase in _HAD:
        return believed.number
    if believed.phase is Phase.GONE:
        raise Problem(Reason.SLOT_FULL)
    booking = await Bookings(pool, app[keys.VAULT]).read(appointment_id)
    try:
        async with asyncio.timeout(ANSWER_MS_MAX / 1000):
            note = await _locked(truth.his, booking)
    except TimeoutError:
        raise Problem(Fault.OUTCOME_UNKNOWN) from None
    except Refused as refused:
        await records.no_place(pool, appointment_id)
        await _give_back(app, appointment_id, account_id, schedule)
        raise Problem(_REASONS.get(refused.code, Reason.SLOT_FULL)) from None
    ms = round(booking.starts_at.timestamp() * 1000)
    slot_id = await pool.fetchval("select slot_id from appointment where id = $1", appointment_id.hex())
    note = Note(note.phase, note.his_id, slot_id, ms, note.number)
    await records.note(pool, appointment_id, department_id, note)
    return note.number


async def must_have_place(app: web.Application, number: AppointmentRecord | None) -> None:
    """Before money is taken for a number that is held, or it is booked. Raises Problem."""
    if number is None or number.status != s.Status.PENDING:
        return
    schedule = ScheduleKey.of_schedule(number.schedule_id)
    if schedule is not None:
        await placed(app, number.id, number.account_id, schedule, number.department_id)


async def changed(
    app: web.Application,
    old: AppointmentRecord,
    to: ScheduleKey,
    slot: OpenSlot,
    new_id: bytes,
    by: str = "",
    channel: int | None = None,
) -> Outcome:
    """改签, with a place at the HIS before the old number is left. Raises Problem where they have none."""
    changes = app[keys.CHANGES]
    department_id = slot.session.department_id
    if department_id not in app[keys.HIS_TRUTH].departments:
        return await changes.change(old, to, slot.clock, new_id, department_id, slot.starts_at, by, channel)
    held = await changes.hold(old, to, slot.clock, new_id, HOLD_SECONDS, by, channel)
    if not isinstance(held, s.Answer) or held.status == s.Status.BOOKED:
        return held
    if held.status != s.Status.PENDING:
        return Refusal(Reason.CHANGE_GIVEN_UP)
    await placed(app, new_id, old.account_id, to, department_id)
    return await changes.accept(old, to, new_id, department_id, slot.starts_at, by)


async def _locked(his: His, booking: Booking) -> Note:
    """Until somebody knows. Raises Refused."""
    while True:
        try:
            locked = await his.lock(booking)
            return Note(Phase.LOCKED, locked.his_id, number=locked.number)
        except TryAgain as busy:
            await asyncio.sleep(PAUSE_SECONDS if busy.after is None else busy.after)
        except OutcomeUnknown:
            found = None
            try:
                found = await his.find(booking.id)
            except (TryAgain, OutcomeUnknown):
                await asyncio.sleep(PAUSE_SECONDS)
            if found is not None and states.phase_of(found.status) in _HAD:
                return Note(states.phase_of(found.status), found.his_id, number=found.number)


async def _give_back(
    app: web.Application, appointment_id: bytes, account_id: bytes, schedule: ScheduleKey
) -> None:
    """Where that does not succeed, the hold ends by itself."""
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    command = s.CancelAppointment(appointment_id, account_id, HIS, "no place there")
    outcome = await app[keys.DIRECTORY].ask(schedule.stream, command, deadline)
    if not isinstance(outcome, s.Answer):
        log.warning("a number that the HIS has no place for could not be given back: %s", outcome)


async def shown_number(app: web.Application, appointment_id: bytes, ours: int) -> int:
    """Theirs, where their numbers count and it is known."""
    return (await shown_numbers(app, {appointment_id: ours}))[appointment_id]


async def shown_numbers(app: web.Application, ours: dict[bytes, int]) -> dict[bytes, int]:
    """Of each appointment the number to show."""
    if not app[keys.HIS_TRUTH].departments or not ours:
        return ours
    return ours | await records.their_numbers(app[keys.POOL], list(ours))
