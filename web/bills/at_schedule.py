"""A bill's errands at the schedule that has its seat, and what the schedule's numbers tell their bills."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from actors.changes import ms
from actors.directory import Outcome
from actors.errands import TryAgain
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refund_rules import Cause, cause_of
from engine.domain.refusal import Reason, Refusal
from engine.records import appointments
from engine.records.appointments import AppointmentRecord
from web import keys
from web.bills.at_provider import OfBill
from web.fresh_ids import new_id

log = logging.getLogger(__name__)

RETAKE_HOLD_SECONDS: Final = 600
"""Between holding the seat again and booking it. Whoever holds it may die: the next one comes after the
errand's lease and its longest pause, and must not find it lapsed, for it is not held twice under one id."""
AGAIN_SECONDS: Final = 1.0
CHANGES_MAX: Final = 32  # of one number, that are followed
_NOT_NOW: Final = (Reason.BUSY, Reason.TOO_LATE, Reason.AWAY)
_TAKEN: Final = (s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED)


async def book_seat(of: OfBill, appointment_id: bytes) -> None:
    """Raises TryAgain."""
    found = await _number(of.app, appointment_id)
    outcome = await _ask(of.app, found, s.ConfirmAppointment(found.id, found.account_id, SYSTEM))
    if isinstance(outcome, s.Answer):
        await of.tell(p.SeatTaken(new_id(), appointment_id))
    elif outcome.reason is Reason.HOLD_EXPIRED:
        await of.tell(p.SeatGone(new_id(), appointment_id, Cause.EXPIRED, ms(found.hold_until)))
    else:
        await look_at_seat(of, appointment_id)


async def retake_seat(of: OfBill, appointment_id: bytes, successor: bytes) -> None:
    """A seat in the same slot for money that came too late for the first one. Raises TryAgain."""
    found = await _number(of.app, appointment_id)
    clock = found.slot_id.rpartition("-")[2]
    held = await _ask(
        of.app,
        found,
        s.HoldSeat(
            successor,
            clock,
            found.patient_id,
            found.account_id,
            RETAKE_HOLD_SECONDS,
            found.channel,
            by=SYSTEM,
        ),
    )
    outcome = held
    if isinstance(held, s.Answer) and held.status == s.Status.PENDING:
        outcome = await _ask(of.app, found, s.ConfirmAppointment(successor, found.account_id, SYSTEM))
    if isinstance(outcome, s.Answer) and outcome.status in _TAKEN:
        await of.tell(p.SeatTakenAgain(new_id(), appointment_id))
        return
    if isinstance(outcome, Refusal) and outcome.detail.get("appointment_id") == appointment_id.hex():
        raise TryAgain("the number that lapsed still stands in its successor's way", AGAIN_SECONDS)
    # Somebody may have booked it before us and died, and the patient may have given it up or changed it.
    row = await appointments.any_appointment(of.app[keys.POOL], of.app[keys.VAULT], successor)
    if row is not None and row.status == s.Status.PENDING and row.hold_until > datetime.now(UTC):
        raise TryAgain("a seat is held again, and not booked yet", AGAIN_SECONDS)
    is_over = row is None or row.status == s.Status.PENDING or row.reason == Cause.EXPIRED
    if not is_over:
        await of.tell(p.SeatTakenAgain(new_id(), appointment_id))
        return
    why = outcome.reason if isinstance(outcome, Refusal) else f"status {outcome.status}"
    log.warning("no seat again for a late payment: %s", why)
    await of.tell(p.SeatGone(new_id(), appointment_id, Cause.FULL, now_ms()))


async def release_seat(of: OfBill, appointment_id: bytes) -> None:
    """The number, or what it was changed to since. Raises TryAgain."""
    found = await appointments.any_appointment(of.app[keys.POOL], of.app[keys.VAULT], appointment_id)
    for _ in range(CHANGES_MAX):
        if found is None or found.reason != "changed" or found.successor is None:
            break
        found = await _number(of.app, found.successor)
    if found is not None and found.status in (s.Status.PENDING, *_TAKEN):
        outcome = await _ask(of.app, found, s.CancelAppointment(found.id, found.account_id, SYSTEM))
        if isinstance(outcome, Refusal) and outcome.reason is not Reason.NO_SUCH_APPOINTMENT:
            # It has begun, or was held: nobody else can have it any more.
            log.warning("a seat that nobody paid for could not be released: %s", outcome.reason)
    await of.tell(p.SeatGone(new_id(), appointment_id, Cause.CANCELLED, now_ms()))


async def look_at_seat(of: OfBill, appointment_id: bytes, at: int = 0) -> None:
    """What the number's row says, told to the bill; a hold that is over, and not swept yet, is waited for.

    Raises TryAgain."""
    found = await _number(of.app, appointment_id)
    command = await report_of_seat(of.app, of.bill, found, at)
    if command is not None:
        await of.tell(command)
    elif found.status == s.Status.PENDING and ms(found.hold_until) <= now_ms():
        raise TryAgain("the hold is over, and nobody has said so yet", AGAIN_SECONDS)


async def report_of_seat(
    app: web.Application, bill: p.Bill, found: AppointmentRecord, at: int
) -> p.OfSeat | None:
    """What a bill should hear of the number that it is for; None: nothing new. `at`: when that was, in ms."""
    when = at or ms(found.updated_at)
    starts_at = ms(found.starts_at)
    match found.status:
        case s.Status.CANCELLED if found.reason == "changed" and found.successor is not None:
            to = await _number(app, found.successor)
            return p.SeatMoved(new_id(), found.id, to.id, ms(to.starts_at))
        case s.Status.CANCELLED:
            return p.SeatGone(new_id(), found.id, cause_of(found.reason or ""), when)
        case s.Status.NOSHOW:
            return p.SeatGone(new_id(), found.id, Cause.NO_SHOW, when)
    if starts_at != bill.starts_at and bill.seat in (p.Seat.HELD, p.Seat.TAKEN):
        return p.SeatMoved(new_id(), found.id, found.id, starts_at)
    if found.status in _TAKEN and bill.seat is not p.Seat.TAKEN:
        return p.SeatTaken(new_id(), found.id)
    return None


async def _number(app: web.Application, appointment_id: bytes) -> AppointmentRecord:
    found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], appointment_id)
    if found is None:
        raise TryAgain(f"there is no number {appointment_id.hex()}")
    return found


async def _ask(app: web.Application, found: AppointmentRecord, command: s.Command) -> s.Answer | Refusal:
    """Raises TryAgain while nobody knows."""
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    outcome: Outcome = await app[keys.DIRECTORY].ask(key.stream, command, deadline)
    if isinstance(outcome, s.Answer) or (isinstance(outcome, Refusal) and outcome.reason not in _NOT_NOW):
        return outcome
    raise TryAgain(f"{type(command).__name__}: {outcome}")


def now_ms() -> int:
    return int(time.time() * 1000)
