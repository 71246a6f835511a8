"""Check-in (签到) of a booked patient, by the mini-program: near enough to the hospital. And the steps that
it shares with kiosks and desks.

The waiting room decides. What was booked and how far away somebody is, the gateway looks up. The Idempotency-
Key makes the command's id, so that a retry finds its ticket, also when it has been called meanwhile.
"""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.refusal import Reason
from engine.records import arrivals
from engine.records.arrivals import Booked
from web import keys
from web.auth import QR_SECONDS, QrKind
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD
from web.patient.bodies import IdPath
from web.queues.asking import ask_room, command_id, today
from web.queues.booking_facts import Facts, facts_of, metres, not_booked
from web.queues.sight import Seen
from web.queues.ticket_bodies import CheckInBody, QrAnswer, TicketAnswer
from web.queues.ticket_pages import ticket_answer

QR_PREFIX: Final = "xinglin:"
"""Before the token, so that a scanner knows whose code it reads."""

REFUSED: Final[list[Reason | Fault]] = [
    Reason.NO_SUCH_WAITING_ROOM,
    Reason.WRONG_DEPARTMENT,
    Reason.WRONG_DAY,
    Reason.WRONG_PATIENT,
    Reason.NOT_BOOKED,
    Reason.ALREADY_CHECKED_IN,
    Reason.PATIENT_WAITS_ALREADY,
    Reason.CHECK_IN_TOO_EARLY,
    Reason.CHECK_IN_TOO_LATE,
    Reason.NO_SUCH_QUEUE,
    Reason.NUMBERS_EXHAUSTED,
    Reason.KEY_REUSED,
]
"""Why a check-in is refused wherever it is asked for."""


@dataclass(frozen=True, slots=True)
class Arriving:
    """Who checks in where, and how we know that he is here."""

    command_id: bytes
    where: w.Where
    distance_m: int
    by: str = ""
    patient_id: bytes = b""  # of the document that was shown; b"": whoever the number was booked for
    department_id: str = ""  # where he stands; "": the number's own department
    priority: str = ""
    emergency: int = 0


async def check_in(app: web.Application, booked: Booked, arriving: Arriving) -> bytes:
    """The ticket. Raises Problem, with words for what the booking is instead."""
    facts = facts_of(app, booked)
    key = RoomKey(arriving.department_id or facts.department_id, today(app))
    fault = not_booked(booked, facts, arriving.where)
    try:
        told = await ask_room(app, key, _command(booked, facts, arriving, is_booked=fault is None))
    except Problem as problem:
        if problem.code is Reason.NOT_BOOKED:
            problem.members["rule"] = fault
        raise
    return told.ticket_id


def _command(booked: Booked, facts: Facts, arriving: Arriving, *, is_booked: bool) -> w.CheckIn:
    return w.CheckIn(
        arriving.command_id,
        arriving.patient_id or booked.patient_id,
        arriving.where,
        arriving.distance_m,
        booked.id,
        booked.patient_id,
        facts.department_id,
        facts.practitioner_id,
        facts.day,
        is_booked,
        facts.starts_at,
        facts.window_ends_at,
        facts.session_ends_at,
        booked.number,
        booked.visit,
        priority=arriving.priority,
        emergency=arriving.emergency,
        by=arriving.by,
    )


@api.route(
    "POST",
    "/api/v1/appointments/{id}/check-in",
    zh="小程序签到",
    status=201,
    tags=["queues"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.PLACE_UNKNOWN, Reason.TOO_FAR, *REFUSED, *OVERLOAD],
)
async def check_in_by_oneself(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: CheckInBody
) -> TicketAnswer:
    """Checks one of the account's numbers in, from where the phone says it is (GCJ-02).

    Whoever is too far away, or does not say where he is, checks in at a kiosk or at the desk."""
    app = request.app
    booked = await own_booking(app, path.id.bytes, account_id)
    far = metres(app, booked.department_id, body.latitude, body.longitude, body.accuracy_m)
    arriving = Arriving(command_id(account_id, idempotency_key), w.Where.MINI_PROGRAM, far)
    return await ticket_answer(app, await check_in(app, booked, arriving), Seen.OWN)


@api.route(
    "GET",
    "/api/v1/appointments/{id}/qr",
    zh="签到二维码",
    tags=["queues"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Fault.DATABASE_DOWN],
)
async def appointment_qr(request: web.Request, *, account_id: bytes, path: IdPath) -> QrAnswer:
    """What a kiosk or a desk reads to check this number in. Good for two minutes: show it fresh."""
    booked = await own_booking(request.app, path.id.bytes, account_id)
    return _qr(request.app, "qr_appointment", booked.id)


@api.route(
    "GET",
    "/api/v1/patients/{id}/qr",
    zh="就诊人二维码",
    tags=["queues"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.DATABASE_DOWN],
)
async def patient_qr(request: web.Request, *, account_id: bytes, path: IdPath) -> QrAnswer:
    """What a kiosk or a desk reads instead of a document. Good for two minutes: show it fresh."""
    if not await arrivals.may_act_for(request.app[keys.POOL], account_id, path.id.bytes):
        raise Problem(Fault.NO_SUCH_PATIENT)
    return _qr(request.app, "qr_patient", path.id.bytes)


def _qr(app: web.Application, kind: QrKind, owner: bytes) -> QrAnswer:
    token = app[keys.TOKENS].issue_qr(kind, owner)
    return QrAnswer(token, QR_SECONDS, QR_PREFIX + token)


async def own_booking(app: web.Application, appointment_id: bytes, account_id: bytes) -> Booked:
    """Raises Problem where it is not this account's: whether others have it is not told."""
    found = await arrivals.booked(app[keys.POOL], app[keys.VAULT], appointment_id)
    if found is None or found.account_id != account_id:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    return found
