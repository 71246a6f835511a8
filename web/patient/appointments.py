"""Booking: a number is held, confirmed, cancelled. Each write is a command to its schedule's actor.

What a retry means: after 2xx, 5xx or silence the same Idempotency-Key finds the first answer; after 4xx
nothing was done, and a new attempt takes a new key.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from uuid import UUID

from aiohttp import web

from actors.directory import Outcome, Unknown
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey, appointment_id
from engine.domain.limits import ANSWER_MS_MAX, SLOT_MINUTES
from engine.domain.refusal import Reason, Refusal
from engine.records import appointments as records
from engine.records.appointments import AppointmentRecord
from engine.views.availability import Availability
from web import keys
from web.errors import Problem, refused
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import (
    AlternativeAnswer,
    AppointmentAnswer,
    AppointmentsAnswer,
    AppointmentsQuery,
    ChangedAnswer,
    HeldAnswer,
    HoldBody,
    IdPath,
    PaymentAnswer,
    PaymentBody,
    StatusWord,
)
from web.patient.catalog import alternative
from web.patient.offers import RANKED_MAX

WORDS: Final[dict[int, StatusWord]] = {
    s.Status.PENDING: "pending",
    s.Status.BOOKED: "booked",
    s.Status.ARRIVED: "arrived",
    s.Status.FULFILLED: "fulfilled",
    s.Status.CANCELLED: "cancelled",
    s.Status.NOSHOW: "noshow",
    s.Status.WAITLIST: "waitlist",
}
_NUMBERS: Final = {word: int(status) for status, word in WORDS.items()}
_SLOT: Final = timedelta(minutes=SLOT_MINUTES)
_OVERLOAD: Final[list[Reason | Fault]] = [
    Reason.BUSY,
    Reason.TOO_LATE,
    Reason.AWAY,
    Fault.OUTCOME_UNKNOWN,
    Fault.DATABASE_DOWN,
]


@api.route(
    "POST",
    "/api/v1/appointments",
    zh="预约占号",
    status=201,
    tags=["appointments"],
    errors=[
        Reason.NO_SUCH_SCHEDULE,
        Reason.NO_SUCH_SLOT,
        Reason.SLOT_PAST,
        Reason.SLOT_FULL,
        Reason.KEY_REUSED,
        Reason.ALREADY_BOOKED,
        Reason.TIME_CONFLICT,
        Reason.NOT_ELIGIBLE,
        *_OVERLOAD,
    ],
)
async def hold_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, body: HoldBody
) -> HeldAnswer:
    """Holds a number until `pay_by`; confirm it or pay its bill before then."""
    asked = Hold(request.app, account_id, idempotency_key, body)
    return asked.answer(await asked.ask())


class Hold:
    """One hold on its way; apart from its handler, so that the express lane takes the very same steps."""

    __slots__ = ("_app", "_body", "_command", "_stream")

    def __init__(self, app: web.Application, account_id: bytes, key: str, body: HoldBody) -> None:
        """Raises Problem when no such slot can exist."""
        found = ScheduleKey.of_slot(body.slot_id)
        if found is None:
            raise Problem(Reason.NO_SUCH_SLOT)
        schedule, clock = found
        if app[keys.AVAILABILITY].schedule(schedule.schedule_id) is None:
            raise Problem(Reason.NO_SUCH_SCHEDULE)
        self._app = app
        self._body = body
        self._stream = schedule.stream
        self._command = s.HoldSeat(
            appointment_id(account_id, key),
            clock,
            body.patient_id.bytes,
            account_id,
            app[keys.SETTINGS].hold_seconds,
        )

    def ask(self) -> asyncio.Future[Outcome]:
        """Raises Problem `busy` at once where too many are under way."""
        admission = self._app[keys.ADMISSION]
        if not admission.enter():
            raise Problem(Reason.BUSY)
        deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
        outcome = self._app[keys.DIRECTORY].ask(self._stream, self._command, deadline)
        outcome.add_done_callback(lambda _: admission.leave())
        return outcome

    def answer(self, outcome: Outcome) -> HeldAnswer:
        """Raises Problem for a refusal, with what helps."""
        metrics = self._app[keys.METRICS]
        try:
            answer = _answered(outcome)
        except Problem as problem:
            metrics.bookings.labels(problem.code).inc()
            if problem.code is Reason.SLOT_FULL:
                problem.members["alternatives"] = _alternatives(self._app, self._body.slot_id)
            raise
        metrics.held.inc()
        appointment = _uuid(answer.appointment_id)
        return HeldAnswer(
            appointment,
            "pending",
            answer.number,
            self._body.slot_id,
            _time(answer.hold_until, self._app[keys.ZONE]),
            appointment,
        )


@api.route("GET", "/api/v1/appointments", zh="我的预约", tags=["appointments"], errors=[Fault.DATABASE_DOWN])
async def list_appointments(
    request: web.Request, *, account_id: bytes, query: AppointmentsQuery
) -> AppointmentsAnswer:
    """Of this account, newest first."""
    statuses = None if query.status is None else [_NUMBERS[word] for word in query.status]
    found = await records.appointments_of(
        request.app[keys.POOL], account_id, statuses, query.before, query.limit + 1
    )
    page = found[: query.limit]
    more = page[-1].created_at if len(found) > query.limit else None
    return AppointmentsAnswer([_described(request.app, a) for a in page], more)


@api.route(
    "GET",
    "/api/v1/appointments/{id}",
    zh="预约详情",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Fault.DATABASE_DOWN],
)
async def read_appointment(request: web.Request, *, account_id: bytes, path: IdPath) -> AppointmentAnswer:
    """One appointment of this account."""
    return _described(request.app, await _find(request.app, path.id, account_id))


@api.route(
    "POST",
    "/api/v1/appointments/{id}/confirm",
    zh="确认预约（到院支付）",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.HOLD_EXPIRED, Reason.ALREADY_CANCELLED, *_OVERLOAD],
)
async def confirm_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> ChangedAnswer:
    """Books a held number, to be paid at the hospital. Confirming again changes nothing."""
    found = await _find(request.app, path.id, account_id)
    return await _change(request.app, found, s.ConfirmAppointment(found.id, account_id))


@api.route(
    "POST",
    "/api/v1/appointments/{id}/cancel",
    zh="取消预约",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.SLOT_PAST, *_OVERLOAD],
)
async def cancel_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> ChangedAnswer:
    """Gives the number back. Cancelling again changes nothing."""
    found = await _find(request.app, path.id, account_id)
    return await _change(request.app, found, s.CancelAppointment(found.id, account_id))


@api.route(
    "POST",
    "/api/v1/bills/{id}/payments",
    zh="支付账单",
    status=201,
    tags=["bills"],
    errors=[
        Fault.NO_SUCH_BILL,
        Fault.UNSUPPORTED_PROVIDER,
        Reason.HOLD_EXPIRED,
        Reason.ALREADY_CANCELLED,
        *_OVERLOAD,
    ],
)
async def pay_bill(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: PaymentBody
) -> PaymentAnswer:
    """Pays a registration. `at_hospital` books the number at once, to be paid at the window."""
    if body.provider != "at_hospital":
        raise Problem(Fault.UNSUPPORTED_PROVIDER)
    found = await records.appointment(request.app[keys.POOL], path.id.bytes, account_id)
    if found is None:
        raise Problem(Fault.NO_SUCH_BILL)
    await _change(request.app, found, s.ConfirmAppointment(found.id, account_id))
    return PaymentAnswer(_uuid(found.id), body.provider, "at_hospital", found.fee_fen, {})


async def _ask(app: web.Application, stream: str, command: s.Command) -> s.Answer:
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    return _answered(await app[keys.DIRECTORY].ask(stream, command, deadline))


def _answered(outcome: Outcome) -> s.Answer:
    """Raises Problem for whatever is not an answer: refused, overloaded, or unknown."""
    if isinstance(outcome, Refusal):
        raise refused(outcome)
    if isinstance(outcome, Unknown):
        raise Problem(Fault.OUTCOME_UNKNOWN)
    return outcome


async def _change(app: web.Application, found: AppointmentRecord, command: s.Command) -> ChangedAnswer:
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    answer = await _ask(app, key.stream, command)
    return ChangedAnswer(_uuid(found.id), WORDS[answer.status], answer.number, found.slot_id)


async def _find(app: web.Application, wanted: UUID, account_id: bytes) -> AppointmentRecord:
    found = await records.appointment(app[keys.POOL], wanted.bytes, account_id)
    if found is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    return found


def _alternatives(app: web.Application, slot_id: str) -> list[AlternativeAnswer]:
    """Ranked once in a while for each slot: in a rush thousands are refused the same one."""
    now = time.monotonic()
    offers = app[keys.OFFERS]
    ranked = offers.ranked(slot_id, now)
    if ranked is None:
        availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
        found = availability.alternatives(slot_id, int(time.time() * 1000), RANKED_MAX)
        ranked = [alternative(availability, slot, zone) for slot in found]
        offers.keep(slot_id, ranked, now)
    return offers.choose(ranked, now)


def _described(app: web.Application, found: AppointmentRecord) -> AppointmentAnswer:
    availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
    practitioner_id = found.schedule_id.rpartition("-")[0]
    practitioner = availability.catalog.practitioners.get(practitioner_id)
    department_id = _department_of(availability, found)
    department = None if department_id is None else availability.catalog.departments.get(department_id)
    start = found.starts_at.astimezone(zone)
    pending = found.status == s.Status.PENDING
    return AppointmentAnswer(
        id=_uuid(found.id),
        status=WORDS[found.status],
        number=found.number,
        slot_id=found.slot_id,
        schedule_id=found.schedule_id,
        patient_id=_uuid(found.patient_id),
        patient_name=found.patient_name,
        practitioner_id=practitioner_id,
        practitioner_name=practitioner.name if practitioner else "",
        department_id=department_id,
        department_name=department.name if department else None,
        start=start,
        end=start + _SLOT,
        fee=found.fee_fen,
        pay_by=found.hold_until.astimezone(zone) if pending else None,
        bill_id=_uuid(found.id),
        reason=found.reason,
        created_at=found.created_at.astimezone(zone),
        updated_at=found.updated_at.astimezone(zone),
    )


def _department_of(availability: Availability, found: AppointmentRecord) -> str | None:
    row = availability.schedule(found.schedule_id)
    if row is None:
        return None
    slots = availability.slots(row)
    return next((slot.session.department_id for slot in slots if slot.slot_id == found.slot_id), None)


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _time(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)
