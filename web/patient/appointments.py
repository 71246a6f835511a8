"""Booking: a number is held, confirmed, cancelled. Each write is a command to its schedule's actor.

What a retry means: after 2xx, 5xx or silence the same Idempotency-Key finds the first answer; after 4xx
nothing was done, and a new attempt takes a new key.
"""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal
from uuid import UUID

from aiohttp import web

from actors.changes import ms
from actors.directory import Outcome, Unknown
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import ScheduleKey, appointment_id
from engine.domain.limits import ANSWER_MS_MAX, SLOT_MINUTES
from engine.domain.policy import Channel
from engine.domain.refusal import Reason, Refusal
from engine.records import appointments as records
from engine.records.appointments import AppointmentRecord
from engine.records.bills_of_numbers import BillOfNumber, bills_of_numbers
from engine.views.availability import Availability
from web import keys
from web.attendance import attend_by
from web.auditing import noted_delegation
from web.bills.at_hospital import book_at_hospital
from web.errors import Problem, refused
from web.faults import Fault
from web.his.truth import asks_first, must_have_place, placed, shown_number, shown_numbers
from web.openapi import api
from web.patient.bodies import (
    AlternativeAnswer,
    AppointmentAnswer,
    AppointmentsAnswer,
    AppointmentsQuery,
    ChangedAnswer,
    ChannelWord,
    HeldAnswer,
    HoldBody,
    IdPath,
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
VISITS: Final = {"first": 0, "follow_up": 1}
OVERLOAD: Final[list[Reason | Fault]] = [
    Reason.BUSY,
    Reason.TOO_LATE,
    Reason.AWAY,
    Fault.OUTCOME_UNKNOWN,
    Fault.DATABASE_DOWN,
]

CLOSED: Final[list[Reason | Fault]] = [
    Reason.NOT_RELEASED,
    Reason.BOOKING_CLOSED,
    Reason.SESSION_PAUSED,
    Reason.SESSION_SUSPENDED,
    Reason.VISIT_LIMIT,
]
"""Why nobody may book a slot now, however many seats are free."""


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
        Reason.CONSENT_NEEDED,
        *CLOSED,
        *OVERLOAD,
    ],
    is_bounded=False,
)
async def hold_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, body: HoldBody
) -> HeldAnswer:
    """Holds a number until `pay_by`; confirm it or pay its bill before then."""
    asked = Hold(request.app, account_id, idempotency_key, body)
    return await asked.held()


class Hold:
    """One hold on its way; apart from its handler, so that the express lane takes the very same steps."""

    __slots__ = ("_app", "_body", "_command", "_schedule", "asks_first")

    def __init__(
        self,
        app: web.Application,
        account_id: bytes,
        key: str,
        body: HoldBody,
        channel: Channel = Channel.MINI_PROGRAM,
        asker: bytes = b"",
    ) -> None:
        """`asker`: whose key it is, where that is not the account. Raises Problem when no such slot can
        exist."""
        found = ScheduleKey.of_slot(body.slot_id)
        if found is None:
            raise Problem(Reason.NO_SUCH_SLOT)
        schedule, clock = found
        if app[keys.AVAILABILITY].schedule(schedule.schedule_id) is None:
            raise Problem(Reason.NO_SUCH_SCHEDULE)
        self._app = app
        self._body = body
        self._schedule = schedule
        self.asks_first = asks_first(app, schedule, clock)
        self._command = s.HoldSeat(
            appointment_id(asker or account_id, key),
            clock,
            body.patient_id.bytes,
            account_id,
            channel=int(channel),
            visit=VISITS[body.visit],
        )

    def ask(self) -> asyncio.Future[Outcome]:
        """Raises Problem `busy` at once where too many are under way."""
        admission = self._app[keys.ADMISSION]
        if not admission.enter():
            raise Problem(Reason.BUSY)
        deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
        outcome = self._app[keys.DIRECTORY].ask(self._schedule.stream, self._command, deadline)
        outcome.add_done_callback(lambda _: admission.leave())
        return outcome

    async def held(self) -> HeldAnswer:
        """The whole way, with a place at the HIS where its numbers count. Raises Problem."""
        outcome = await self.ask()
        if not self.asks_first or not isinstance(outcome, s.Answer):
            return self.answer(outcome)
        answer = self.answer(outcome)
        try:
            if outcome.status == s.Status.CANCELLED:  # it was given back when they had no place
                raise Problem(Reason.SLOT_FULL)
            account_id = self._command.account_id
            number = await placed(self._app, outcome.appointment_id, account_id, self._schedule)
        except Problem as problem:
            self._app[keys.METRICS].bookings.labels(problem.code).inc()
            if problem.code is Reason.SLOT_FULL:
                problem.members["alternatives"] = self._alternatives()
            raise
        return answer if number is None else replace(answer, number=number)

    def _alternatives(self) -> list[AlternativeAnswer]:
        return alternatives(self._app, self._body.slot_id, Channel(self._command.channel))

    def answer(self, outcome: Outcome) -> HeldAnswer:
        """Raises Problem for a refusal, with what helps."""
        metrics = self._app[keys.METRICS]
        try:
            answer = answered(outcome)
        except Problem as problem:
            metrics.bookings.labels(problem.code).inc()
            if problem.code is Reason.SLOT_FULL:
                problem.members["alternatives"] = self._alternatives()
            raise
        metrics.held.inc()
        return held_answer(self._app, answer, self._body.slot_id)


def held_answer(app: web.Application, answer: s.Answer, slot_id: str) -> HeldAnswer:
    appointment = uuid(answer.appointment_id)
    until = _time(answer.hold_until, app[keys.ZONE])
    return HeldAnswer(appointment, "pending", answer.number, slot_id, until, appointment)


@api.route("GET", "/api/v1/appointments", zh="我的预约", tags=["appointments"], errors=[Fault.DATABASE_DOWN])
async def list_appointments(
    request: web.Request, *, account_id: bytes, query: AppointmentsQuery
) -> AppointmentsAnswer:
    """Of this account, newest first."""
    statuses = None if query.status is None else [_NUMBERS[word] for word in query.status]
    app = request.app
    found = await records.appointments_of(
        app[keys.POOL], app[keys.VAULT], account_id, statuses, query.before, query.limit + 1
    )
    page = found[: query.limit]
    await noted_delegation(request, account_id, "appointment_read", [one.patient_id for one in page])
    more = page[-1].created_at if len(found) > query.limit else None
    shown = await bills_of_numbers(app[keys.POOL], [one.id for one in page])
    numbers = await shown_numbers(app, {one.id: one.number for one in page})
    page = [replace(one, number=numbers[one.id]) for one in page]
    return AppointmentsAnswer([_described(app, a, shown.get(a.id)) for a in page], more)


@api.route(
    "GET",
    "/api/v1/appointments/{id}",
    zh="预约详情",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Fault.DATABASE_DOWN],
)
async def read_appointment(request: web.Request, *, account_id: bytes, path: IdPath) -> AppointmentAnswer:
    """One appointment of this account."""
    found = await find(request.app, path.id, account_id)
    await noted_delegation(request, account_id, "appointment_read", [found.patient_id])
    shown = await bills_of_numbers(request.app[keys.POOL], [found.id])
    found = replace(found, number=await shown_number(request.app, found.id, found.number))
    return _described(request.app, found, shown.get(found.id))


@api.route(
    "POST",
    "/api/v1/appointments/{id}/confirm",
    zh="确认预约（到院支付）",
    tags=["appointments"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.HOLD_EXPIRED,
        Reason.SLOT_FULL,
        Reason.ALREADY_CANCELLED,
        Reason.CHANGE_TOO_LATE,
        Reason.TOO_MANY_CHANGES,
        Reason.CHANGE_GIVEN_UP,
        Reason.AT_HOSPITAL_NOT_ALLOWED,
        Reason.BILL_PAID,
        Reason.BILL_CLOSED,
        *OVERLOAD,
    ],
)
async def confirm_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> ChangedAnswer:
    """Books a held number, to be paid at the hospital. Confirming again changes nothing.

    A number that was offered instead of a booked one is taken in exchange: the booked one is given up."""
    found = await find(request.app, path.id, account_id)
    return await book_at_hospital(request.app, found, lambda: book(request.app, found))


@api.route(
    "POST",
    "/api/v1/appointments/{id}/cancel",
    zh="取消预约",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.SLOT_PAST, Reason.CANCEL_TOO_LATE, *OVERLOAD],
)
async def cancel_appointment(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> ChangedAnswer:
    """Gives the number back, or declines what was offered. Cancelling again changes nothing."""
    found = await find(request.app, path.id, account_id)
    return await _change(request.app, found, s.CancelAppointment(found.id, account_id))


@api.route(
    "POST",
    "/api/v1/appointments/{id}/attend",
    zh="确认到诊",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Reason.WRONG_STATE, Reason.SLOT_PAST, *OVERLOAD],
)
async def confirm_attendance(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath
) -> ChangedAnswer:
    """Says that the patient will come. Where the hospital asks (`attend_by`), silence gives it back."""
    found = await find(request.app, path.id, account_id)
    return await _change(request.app, found, s.ConfirmAttendance(found.id, account_id))


async def _ask(app: web.Application, stream: str, command: s.Command) -> s.Answer:
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    return answered(await app[keys.DIRECTORY].ask(stream, command, deadline))


def answered(outcome: Outcome) -> s.Answer:
    """Raises Problem for whatever is not an answer: refused, overloaded, or unknown."""
    if isinstance(outcome, Refusal):
        raise refused(outcome)
    if isinstance(outcome, Unknown):
        raise Problem(Fault.OUTCOME_UNKNOWN)
    assert isinstance(outcome, s.Answer)
    return outcome


async def _change(app: web.Application, found: AppointmentRecord, command: s.Command) -> ChangedAnswer:
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    answer = await _ask(app, key.stream, command)
    return ChangedAnswer(uuid(found.id), WORDS[answer.status], answer.number, found.slot_id)


async def book(app: web.Application, found: AppointmentRecord) -> ChangedAnswer:
    """Confirms what is held. Raises Problem."""
    await must_have_place(app, found)
    if found.replaces is None or found.status != s.Status.PENDING:
        return await _change(app, found, s.ConfirmAppointment(found.id, found.account_id))
    old = await records.any_appointment(app[keys.POOL], app[keys.VAULT], found.replaces)
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert old is not None and key is not None
    outcome = await app[keys.CHANGES].accept(old, key, found.id, found.department_id, ms(found.starts_at))
    answer = answered(outcome)
    return ChangedAnswer(uuid(found.id), WORDS[answer.status], answer.number, found.slot_id)


async def find(app: web.Application, wanted: UUID, account_id: bytes) -> AppointmentRecord:
    found = await records.appointment(app[keys.POOL], app[keys.VAULT], wanted.bytes, account_id)
    if found is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    return found


def alternatives(
    app: web.Application, slot_id: str, channel: Channel = Channel.MINI_PROGRAM
) -> list[AlternativeAnswer]:
    """Ranked once in a while for each slot: in a rush thousands are refused the same one."""
    if channel is not Channel.MINI_PROGRAM:  # no crowd stands at a window
        found = app[keys.AVAILABILITY].alternatives(slot_id, int(time.time() * 1000), channel=channel)
        return [alternative(app[keys.AVAILABILITY], slot, app[keys.ZONE]) for slot in found]
    now = time.monotonic()
    offers = app[keys.OFFERS]
    ranked = offers.ranked(slot_id, now)
    if ranked is None:
        availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
        found = availability.alternatives(slot_id, int(time.time() * 1000), RANKED_MAX)
        ranked = [alternative(availability, slot, zone) for slot in found]
        offers.keep(slot_id, ranked, now)
    return offers.choose(ranked, now)


def _described(
    app: web.Application, found: AppointmentRecord, bill: BillOfNumber | None
) -> AppointmentAnswer:
    availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
    practitioner_id = found.schedule_id.rpartition("-")[0]
    practitioner = availability.catalog.practitioners.get(practitioner_id)
    department_id = _department_of(availability, found)
    department = None if department_id is None else availability.catalog.departments.get(department_id)
    start = found.starts_at.astimezone(zone)
    pending = found.status == s.Status.PENDING
    by = attend_by(app, found)
    return AppointmentAnswer(
        id=uuid(found.id),
        status=WORDS[found.status],
        number=found.number,
        slot_id=found.slot_id,
        schedule_id=found.schedule_id,
        patient_id=uuid(found.patient_id),
        patient_name=found.patient_name,
        practitioner_id=practitioner_id,
        practitioner_name=practitioner.name if practitioner else "",
        department_id=department_id,
        department_name=department.name if department else None,
        start=start,
        end=start + _SLOT,
        fee=found.fee_fen,
        pay_by=found.hold_until.astimezone(zone) if pending else None,
        bill_id=uuid(found.id if bill is None else bill.bill_id),
        bill_status=None if bill is None else bill.status,  # type: ignore[arg-type]  # the engine's words
        reason=found.reason,
        created_at=found.created_at.astimezone(zone),
        updated_at=found.updated_at.astimezone(zone),
        channel=channel_word(found.channel),
        offered_by=_offered_by(found),
        replaces=None if found.replaces is None else uuid(found.replaces),
        replaced_by=None if found.successor is None else uuid(found.successor),
        fate=found.fate,  # type: ignore[arg-type]  # the engine's words are the contract's
        refund_due=_owed(found) if bill is None else bill.owed_back,
        attend_by=None if by is None else by.astimezone(zone),
        will_come=found.will_come,
    )


def _owed(found: AppointmentRecord) -> int:
    """What a patient gets back because of what the hospital did."""
    put_out = found.fate in ("refunded", "waitlisted") or found.reason in _BY_THE_HOSPITAL
    return found.fee_fen if put_out else 0


_BY_THE_HOSPITAL: Final = ("excused", "substitute_declined", "unconfirmed")


def channel_word(channel: int) -> ChannelWord:
    return Channel(channel).name.lower()  # type: ignore[union-attr,return-value]


def _offered_by(found: AppointmentRecord) -> Literal["waitlist", "suspension", "change"] | None:
    """While it is pending: why it is kept, if nobody asked for this very number."""
    if found.wish_id is not None:
        return "waitlist"
    if found.replaces is None or found.status != s.Status.PENDING:
        return None
    return "suspension" if found.booked_by == SYSTEM else "change"


def _department_of(availability: Availability, found: AppointmentRecord) -> str | None:
    row = availability.schedule(found.schedule_id)
    session = None if row is None else availability.session_of(row, found.slot_id.rpartition("-")[2])
    return None if session is None else session.department_id


def uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _time(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)
