"""Check-in at a kiosk or a desk (自助机、分诊台签到), and reporting back there after a call was missed or an
examination is over. Any kiosk does it for any department (通签).

A document may stand for several numbers of today. Where more than one could be meant, they are listed, and
the next request names one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from aiohttp import web

from engine.domain import queue_order as order
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.by import by_staff
from engine.domain.ids import RoomKey, ScheduleKey, ticket_id
from engine.domain.masking import masked
from engine.domain.refusal import Reason
from engine.records import arrivals, tickets
from engine.records.arrivals import Booked
from engine.records.staff import Role
from engine.records.tickets import TicketRecord
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, uuid
from web.queues import ticket_bodies as bodies
from web.queues.asking import ask_room, command_id, today
from web.queues.booking_facts import UNKNOWN_M, Facts, facts_of, not_booked, time_of
from web.queues.check_in import REFUSED, Arriving, check_in
from web.queues.documents import Shown, is_given, shown_by
from web.queues.place_names import practitioner_name
from web.queues.rights import runs
from web.queues.sight import Seen, find_ticket, key_of, must_be_of_today
from web.queues.ticket_pages import department_answer, look_at, now_ms, ticket_answer

AT_DESK: Final = (Role.DESK, Role.NURSE, Role.MANAGER, Role.DEPARTMENT_HEAD)
RETURNING: Final = (w.Status.PASSED, w.Status.AWAY, w.Status.PARKED)


@dataclass(frozen=True, slots=True)
class Choice:
    """One number of today: booked, or with a ticket, or both."""

    booked: Booked | None
    ticket: TicketRecord | None
    state: bodies.ChoiceState
    check_in_from: int = 0  # ms; 0: any time
    check_in_until: int = 0

    @property
    def department_id(self) -> str:
        one = self.booked or self.ticket
        assert one is not None
        return one.department_id

    def is_meant(self, body: bodies.KioskCheckInBody) -> bool:
        """As far as the request says which one."""
        return (
            (body.appointment_id is None or self._is(body.appointment_id.bytes))
            and (body.ticket_id is None or self._has(body.ticket_id.bytes))
            and body.department_id in (None, self.department_id)
        )

    def _is(self, appointment_id: bytes) -> bool:
        return self.booked is not None and self.booked.id == appointment_id

    def _has(self, ticket_id: bytes) -> bool:
        return self.ticket is not None and self.ticket.id == ticket_id


def where_of(staff: Staff) -> w.Where:
    """A machine is a kiosk, whatever else it may do; people are the desk."""
    return w.Where.DESK if staff.roles & set(AT_DESK) else w.Where.KIOSK


@api.route(
    "POST",
    "/api/v1/check-ins",
    zh="自助机或分诊台签到、报到",
    status=201,
    tags=["queues"],
    errors=[
        Fault.SAY_WHO,
        Fault.INVALID_ID_NUMBER,
        Fault.QR_INVALID,
        Fault.QR_EXPIRED,
        Fault.NO_NUMBER_TODAY,
        Fault.SEVERAL_NUMBERS,
        Reason.NO_SUCH_APPOINTMENT,
        Reason.NO_SUCH_TICKET,
        Reason.PASSED_TOO_OFTEN,
        Reason.WRONG_STATUS,
        Reason.UNKNOWN_PRIORITY,
        *REFUSED,
        *OVERLOAD,
    ],
)
async def check_in_here(
    request: web.Request, *, staff: Staff, idempotency_key: str, body: bodies.KioskCheckInBody
) -> bodies.TicketAnswer:
    """Checks somebody in by a document, a QR code or the number itself; gives the ticket.

    Whose call was missed, or who is back from an examination, reports back by the same request. With several
    numbers today, `several_numbers` lists them in `choices`: ask again with the appointment_id or ticket_id
    of one."""
    app = request.app
    check_classes(staff, body.priority, body.emergency)
    mine = command_id(staff.id, idempotency_key)
    shown = await shown_by(app, body) if is_given(body) else None
    if shown is None and body.appointment_id is None and body.ticket_id is None:
        raise Problem(Fault.SAY_WHO)
    chosen = await _chosen(app, staff, body, shown, mine)
    if not runs_here(app, staff, chosen.department_id):
        raise Problem(Fault.FORBIDDEN)
    found = await _arrive(app, staff, body, shown, chosen, mine)
    seen = Seen.KIOSK if where_of(staff) is w.Where.KIOSK else Seen.STAFF
    return await ticket_answer(app, found, seen)


@api.route(
    "POST",
    "/api/v1/check-ins/lookup",
    zh="查询今天可签到的号",
    tags=["queues"],
    errors=[
        Fault.SAY_WHO,
        Fault.INVALID_ID_NUMBER,
        Fault.QR_INVALID,
        Fault.QR_EXPIRED,
        Fault.NO_NUMBER_TODAY,
        Fault.DATABASE_DOWN,
    ],
)
async def look_up_check_ins(
    request: web.Request, *, staff: Staff, body: bodies.DocumentBody
) -> bodies.LookupAnswer:
    """What this document or code has today: numbers to check in, tickets that wait or may report back.

    Asked by POST, since an identity number has no place in an address. The name is masked."""
    app = request.app
    shown = await shown_by(app, body)
    found = await choices_of(app, staff, shown.patient.id)
    await audited(request, app[keys.POOL], "numbers_of_today_read", subjects=(shown.patient.id,))
    return bodies.LookupAnswer(masked(shown.patient.name), [choice_answer(app, one) for one in found])


def runs_here(app: web.Application, staff: Staff, department_id: str) -> bool:
    """A kiosk checks in for the whole hospital; a desk for its own department and those below it."""
    if where_of(staff) is w.Where.KIOSK:
        return True
    return runs(staff, department_id, app[keys.AVAILABILITY].catalog.departments)


def check_classes(staff: Staff, priority: str, emergency: int) -> None:
    """A machine believes nobody who says that he is a soldier; only a nurse says how urgent it is."""
    if priority and where_of(staff) is w.Where.KIOSK:
        raise Problem(Fault.FORBIDDEN, roles=list(AT_DESK))
    if emergency and Role.NURSE not in staff.roles:
        raise Problem(Fault.FORBIDDEN, roles=[Role.NURSE])


async def _chosen(
    app: web.Application,
    staff: Staff,
    body: bodies.KioskCheckInBody,
    shown: Shown | None,
    mine: bytes,
) -> Choice:
    """Raises Problem where that is nothing, or could be several."""
    wanted = b"" if shown is None else shown.appointment_id
    if body.appointment_id is not None:
        wanted = body.appointment_id.bytes
    if wanted:
        return await _of_appointment(app, staff, wanted)
    if body.ticket_id is not None:
        return await _of_ticket(app, body.ticket_id.bytes)
    assert shown is not None
    found = await choices_of(app, staff, shown.patient.id)
    meant = [one for one in found if one.is_meant(body)]
    asked_before = [one for one in meant if await _knows(app, one, mine)]
    if asked_before:
        return asked_before[0]
    if not meant and found:
        return found[0]  # of another department, which the waiting room tells
    able = [one for one in meant if one.state in ("check_in", "return")]
    if len(able) > 1:
        raise Problem(Fault.SEVERAL_NUMBERS, choices=[choice_answer(app, one) for one in able])
    if not able:
        # The one that helps most to be told about: it waits already, is too early, was called off.
        able = sorted(meant, key=lambda one: _TOLD.index(one.state))[:1]
    if not able:
        raise Problem(Fault.NO_NUMBER_TODAY)
    return able[0]


_TOLD: Final[Sequence[bodies.ChoiceState]] = (
    "check_in",
    "return",
    "waits",
    "too_early",
    "too_late",
    "not_booked",
    "over",
)


async def _of_appointment(app: web.Application, staff: Staff, appointment_id: bytes) -> Choice:
    booked = await arrivals.booked(app[keys.POOL], app[keys.VAULT], appointment_id)
    if booked is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    found = await tickets.ticket(app[keys.POOL], app[keys.VAULT], ticket_id(appointment_id))
    return _choice(app, staff, booked, found)


async def _of_ticket(app: web.Application, wanted: bytes) -> Choice:
    found = await find_ticket(app, wanted)
    must_be_of_today(app, found)
    return Choice(None, found, "return")


async def _knows(app: web.Application, choice: Choice, mine: bytes) -> bool:
    """Whether this very command was given for it before: a retry finds its ticket, whatever came since."""
    if choice.ticket is None:
        return False
    copy, _ = await look_at(app, choice.ticket)
    told = copy.room.commands.get(mine)
    return told is not None and told.ticket_id == choice.ticket.id


async def _arrive(
    app: web.Application,
    staff: Staff,
    body: bodies.KioskCheckInBody,
    shown: Shown | None,
    chosen: Choice,
    mine: bytes,
) -> bytes:
    where, by = where_of(staff), by_staff(staff.id)
    found = chosen.ticket
    if found is not None and (chosen.state == "return" or chosen.booked is None):
        if shown is not None and shown.patient.id != found.patient_id:
            raise Problem(Reason.WRONG_PATIENT)
        command = w.ReturnTicket(mine, found.id, where, UNKNOWN_M, by)
        await ask_room(app, key_of(found), command)
        return found.id
    assert chosen.booked is not None
    arriving = Arriving(
        mine,
        where,
        UNKNOWN_M,
        by,
        b"" if shown is None else shown.patient.id,
        body.department_id or "",
        body.priority,
        body.emergency,
    )
    return await check_in(app, chosen.booked, arriving)


async def choices_of(app: web.Application, staff: Staff, patient_id: bytes) -> list[Choice]:
    """All numbers and open tickets that somebody has today."""
    booked = await todays_numbers(app, patient_id)
    mine = await tickets.tickets_of_patient(
        app[keys.POOL], app[keys.VAULT], patient_id, datetime.now(app[keys.ZONE]).date()
    )
    by_appointment = {one.appointment_id: one for one in mine if one.appointment_id is not None}
    found = [_choice(app, staff, one, by_appointment.get(one.id)) for one in booked if _counts(one)]
    walk_ins = [
        Choice(None, one, _state_of(app, one))
        for one in mine
        if one.appointment_id is None and not one.is_over
    ]
    return [*found, *walk_ins]


async def todays_numbers(app: web.Application, patient_id: bytes) -> list[Booked]:
    """Whatever became of them."""
    begins = datetime.now(app[keys.ZONE]).replace(hour=0, minute=0, second=0, microsecond=0)
    return await arrivals.booked_between(
        app[keys.POOL], app[keys.VAULT], patient_id, begins, begins + timedelta(days=1)
    )


def _counts(booked: Booked) -> bool:
    """What was given back long ago helps nobody to hear of; what the hospital called off does."""
    return booked.status != s.Status.CANCELLED or booked.fate is not None


def _choice(app: web.Application, staff: Staff, booked: Booked, ticket: TicketRecord | None) -> Choice:
    facts = facts_of(app, booked)
    opens = order.early_from(app[keys.ROOMS].rules(RoomKey(booked.department_id, facts.day)), facts.starts_at)
    state = _state_of(app, ticket) if ticket is not None else _state(booked, facts, where_of(staff), opens)
    return Choice(booked, ticket, state, opens, facts.session_ends_at)


def _state_of(app: web.Application, ticket: TicketRecord) -> bodies.ChoiceState:
    if ticket.is_over:
        return "over"
    returns = ticket.status in RETURNING and ticket.day.isoformat() == today(app)
    return "return" if returns else "waits"


def _state(booked: Booked, facts: Facts, where: w.Where, opens: int) -> bodies.ChoiceState:
    if not_booked(booked, facts, where) is not None:
        return "not_booked"
    if now_ms() < opens:
        return "too_early"
    if facts.session_ends_at and now_ms() >= facts.session_ends_at and where is w.Where.KIOSK:
        return "too_late"
    return "check_in"


def choice_answer(app: web.Application, choice: Choice) -> bodies.ChoiceAnswer:
    booked, ticket = choice.booked, choice.ticket
    practitioner_id = "" if ticket is None else ticket.practitioner_id
    if booked is not None:
        key = ScheduleKey.of_schedule(booked.schedule_id)
        assert key is not None
        practitioner_id = key.practitioner_id
    if ticket is not None:
        number = ticket.label
    else:
        assert booked is not None
        number = str(booked.number)
    return bodies.ChoiceAnswer(
        None if booked is None else uuid(booked.id),
        None if ticket is None else uuid(ticket.id),
        number,
        choice.department_id,
        department_answer(app, choice.department_id),
        practitioner_name(app, practitioner_id),
        None if booked is None else booked.starts_at.astimezone(app[keys.ZONE]),
        choice.state,
        time_of(choice.check_in_from, app),
        time_of(choice.check_in_until, app),
    )
