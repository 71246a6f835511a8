"""Appointment: those a partner has booked, and what came in their place; read, searched and booked.

Booking is the patients' own: the same holds and actors, rules and limits, through the partner's channel.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import unquote
from uuid import UUID

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey, appointment_id
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Reason
from engine.records import appointments, partners
from engine.records.appointments import AppointmentRecord
from engine.records.day_people import account_for
from web import keys
from web.auditing import audited, noted_reading
from web.bills.at_hospital import book_at_hospital
from web.errors import Problem
from web.faults import Fault
from web.his.truth import shown_numbers
from web.openapi import api, idempotency_key_of
from web.partner.fhir import resources
from web.partner.fhir.answers import told, told_page
from web.partner.fhir.asking import Search, accept_json, asked, now_ms, wrong_parameter
from web.partner.fhir.names import APPOINTMENT_ID, BASE, MEDIA, our_id
from web.partner.fhir.patients import PERSON_FAULTS, bring, brought, person_of
from web.partner.fhir.reading import Part, body_of, resource_of
from web.partner.fhir.schedules import SEARCH, FhirPath, slot_of
from web.partner.sight import Partner
from web.patient.appointments import CLOSED, OVERLOAD, Hold, answered, book
from web.patient.bodies import HoldBody

Json = dict[str, Any]
BOOKING: Final[list[Reason | Fault]] = [
    Reason.NO_SUCH_SCHEDULE,
    Reason.NO_SUCH_SLOT,
    Reason.SLOT_PAST,
    Reason.SLOT_FULL,
    Reason.KEY_REUSED,
    Reason.ALREADY_BOOKED,
    Reason.TIME_CONFLICT,
    Reason.NOT_ELIGIBLE,
    Reason.CONSENT_NEEDED,
    Fault.NO_SUCH_PATIENT,
    Fault.MISSING_IDEMPOTENCY_KEY,
    Fault.INVALID_IDEMPOTENCY_KEY,
    Fault.NOT_ACCEPTABLE,
    *PERSON_FAULTS,
    *CLOSED,
    *OVERLOAD,
]
CONFIRMING: Final[list[Reason | Fault]] = [
    Reason.HOLD_EXPIRED,
    Reason.ALREADY_CANCELLED,
    Reason.CHANGE_TOO_LATE,
    Reason.TOO_MANY_CHANGES,
    Reason.CHANGE_GIVEN_UP,
    Reason.AT_HOSPITAL_NOT_ALLOWED,
    Reason.BILL_PAID,
    Reason.BILL_CLOSED,
]
_STATUSES: Final = {word: int(number) for number, word in resources.STATUSES.items()}
_FHIR_STATUSES: Final = (*_STATUSES, "proposed", "entered-in-error", "checked-in")


@api.route(
    "GET",
    f"{BASE}/Appointment/{{id}}",
    zh="预约详情（FHIR）",
    tags=["fhir"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Fault.NOT_ACCEPTABLE, Fault.DATABASE_DOWN],
    answer=Json,
    media=MEDIA,
)
async def fhir_read_appointment(request: web.Request, *, partner: Partner, path: FhirPath) -> web.Response:
    """One that this partner has booked, or that came in the place of one."""
    accept_json(request)
    found = await find(request.app, partner, path.id)
    await noted_reading(request, "appointment_read", [found.patient_id])
    return told(request, await described(request.app, found))


@api.route(
    "GET",
    f"{BASE}/Appointment",
    zh="查找预约（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.DATABASE_DOWN],
    answer=Json,
    media=MEDIA,
)
async def fhir_search_appointments(request: web.Request, *, partner: Partner) -> web.Response:
    """Of this partner, by time: `patient`, `practitioner`, `slot`, `date` (with prefixes), `status`, `_id`,
    `identifier` (ours, or the one that it was booked with); in pages."""
    app = request.app
    known = ("patient", "practitioner", "actor", "slot", "date", "status", "identifier")
    search = await asked(request, known)
    wanted = _wanted(search, partner)
    total, ids = await partners.appointments_of(
        app[keys.POOL], partner.id, wanted, search.offset, search.count
    )
    by_id = await appointments.appointments_by_id(app[keys.POOL], app[keys.VAULT], ids)
    found = [by_id[one] for one in ids if one in by_id]
    await noted_reading(request, "appointment_read", [one.patient_id for one in found])
    page = await described_all(app, found)
    return told_page(request, search, page, total, "Appointment")


@api.route(
    "POST",
    f"{BASE}/Appointment/_search",
    zh="按表单查找预约（FHIR）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.DATABASE_DOWN, Fault.UNSUPPORTED_MEDIA_TYPE, Fault.BODY_TOO_LARGE],
    answer=Json,
    media=MEDIA,
)
async def fhir_post_search_appointments(request: web.Request, *, partner: Partner) -> web.Response:
    """As the search by address, with the parameters in a form."""
    return await fhir_search_appointments(request, partner=partner)


@api.route(
    "POST",
    f"{BASE}/Appointment",
    zh="预约（FHIR）",
    status=201,
    tags=["fhir"],
    errors=[*BOOKING, *CONFIRMING],
    answer=Json,
    takes=Json,
    media=MEDIA,
)
async def fhir_create_appointment(request: web.Request, *, partner: Partner) -> web.Response:
    """Books a number (`status: booked`) or holds one (`pending`, `proposed`): one `slot`, and one Patient
    among the participants (a reference, or contained). Asked again with the same `identifier`,
    `If-None-Exist` or Idempotency-Key it is the same appointment: 200."""
    accept_json(request)
    part = await body_of(request, "Appointment")
    wanted = await wish_of(request, partner, part)
    status = part.code("status", _FHIR_STATUSES)
    if status not in ("booked", "pending", "proposed"):
        raise part.wrong("status", "literal_error", expected="booked, pending, proposed")
    found, is_new = await taken(request, partner, wanted, confirm=status == "booked")
    described_ = await described(request.app, found, wanted.identifiers)
    return told(request, described_, 201 if is_new else 200)


# Reading.


async def find(app: web.Application, partner: Partner, told_id: str) -> AppointmentRecord:
    """Raises Problem no_such_appointment, also for those of others."""
    try:
        wanted = UUID(told_id).bytes
    except ValueError:
        raise Problem(Reason.NO_SUCH_APPOINTMENT) from None
    if not await partners.is_its_appointment(app[keys.POOL], partner.id, wanted):
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    return await _read(app, wanted)


async def _read(app: web.Application, id_: bytes) -> AppointmentRecord:
    found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], id_)
    if found is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    return found


async def described(app: web.Application, found: AppointmentRecord, identifiers: Sequence[Json] = ()) -> Json:
    shown = await shown_numbers(app, {found.id: found.number})
    found = replace(found, number=shown[found.id])
    return resources.appointment(found, app[keys.AVAILABILITY].catalog, app[keys.ZONE], identifiers)


async def described_all(app: web.Application, found: Sequence[AppointmentRecord]) -> list[Json]:
    shown = await shown_numbers(app, {one.id: one.number for one in found})
    catalog, zone = app[keys.AVAILABILITY].catalog, app[keys.ZONE]
    return [resources.appointment(replace(one, number=shown[one.id]), catalog, zone) for one in found]


def _wanted(search: Search, partner: Partner) -> partners.Wanted:
    statuses = search.codes("status", _FHIR_STATUSES)
    if "practitioner" in search and "actor" in search:
        raise wrong_parameter("actor", "repeated")
    people = search.references("practitioner" if "practitioner" in search else "actor", "Practitioner")
    slots = search.references("slot", "Slot")
    patients = search.references("patient", "Patient")
    ids = _ids_of(search.any_of("_id"))
    identifiers = search.any_of("identifier")
    if identifiers is not None:
        named = [_of_identifier(partner, one) for one in identifiers]
        ids = [one for one in named if one is not None and (ids is None or one in ids)]
    begins, ends = None, None
    for span in search.spans("date"):
        low, high = _bounds(span.prefix, span.begins, span.ends)
        begins = max(filter(None, (begins, low)), default=None)
        ends = min(filter(None, (ends, high)), default=None)
    return partners.Wanted(
        patient_ids=_ids_of(patients),
        practitioner_ids=None if people is None else [our_id(one) for one in people],
        slot_ids=None if slots is None else [our_id(one) for one in slots],
        statuses=None if statuses is None else [_STATUSES.get(one, 0) for one in statuses],
        ids=ids,
        starts_from=begins,
        starts_before=ends,
    )


def _bounds(prefix: str, begins: datetime, ends: datetime) -> tuple[datetime | None, datetime | None]:
    """From when (inclusive) until when (exclusive) a start may be."""
    match prefix:
        case "eq":
            return begins, ends
        case "ge":
            return begins, None
        case "gt" | "sa":
            return ends, None
        case "le":
            return None, ends
        case _:  # lt, eb
            return None, begins


def _ids_of(given: Sequence[str] | None) -> list[bytes] | None:
    if given is None:
        return None
    found = []
    for one in given:
        try:
            found.append(UUID(one).bytes)
        except ValueError:  # spelled like an id, and of nothing
            found.append(bytes(16))
    return found


def _of_identifier(partner: Partner, said: str) -> bytes | None:
    system, _, value = said.rpartition("|")
    if system == APPOINTMENT_ID:
        try:
            return UUID(value).bytes
        except ValueError:
            return None
    return appointment_id(partner.id, key_of_identifier(system, value))


# Booking.


@dataclass(frozen=True, slots=True)
class Wish:
    """What a partner wants: which number for whom, and what it calls that."""

    slot_id: str
    patient_id: bytes
    key: str
    """Tells a retry from a new wish."""
    identifiers: tuple[Json, ...] = ()
    visit: Literal["first", "follow_up"] = "first"


def key_of_identifier(system: str, value: str) -> str:
    return f"identifier:{system}|{value}"


def key_of(request: web.Request, part: Part | None) -> tuple[str, tuple[Json, ...]]:
    """What tells a retry from a new wish: If-None-Exist, the partner's own identifier, or Idempotency-Key;
    and the identifier. Raises Problem where there is none of them."""
    condition = request.headers.get("If-None-Exist")
    if condition is not None:
        name, _, said = condition.partition("=")
        system, bar, value = unquote(said).rpartition("|")
        if name != "identifier" or not bar or not value or "&" in said or len(said) > 512:
            raise Problem(Fault.INVALID_IDEMPOTENCY_KEY)
        return key_of_identifier(system, value), ({"system": system, "value": value},)
    for one in [] if part is None else part.children("identifier"):
        system_, value_ = one.text("system", 200), one.text("value", 128)
        if system_ is not None and value_ is not None and system_ != APPOINTMENT_ID:
            return key_of_identifier(system_, value_), ({"system": system_, "value": value_},)
    return f"key:{idempotency_key_of(request.headers)}", ()


async def wish_of(request: web.Request, partner: Partner, part: Part, patient: str | None = None) -> Wish:
    """Of an Appointment; `patient`: the id of one who is named elsewhere. Raises Problem."""
    key, identifiers = key_of(request, part)
    slots = part.children("slot")
    if len(slots) != 1:
        raise part.wrong("slot", "missing" if not slots else "too_many", limit=1)
    said = slots[0].text("reference")
    if said is None:
        raise slots[0].wrong("reference", "missing")
    slot_id = our_id(slots[0].referred("reference", said, "Slot"))
    slot = slot_of(request.app, partner, slot_id, now_ms())
    start = part.text("start")
    if start is not None and _ms(part, "start", start) != slot.starts_at:
        raise part.wrong("start", "other_than_slot")
    if patient is None:
        patient_id = await _patient(request, partner, part)
    else:
        patient_id = (await brought(request, partner, patient)).id
    return Wish(slot_id, patient_id, key, identifiers, _visit(part))


def _ms(part: Part, name: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise part.wrong(name, "zoned_time") from None
    if at.tzinfo is None:
        raise part.wrong(name, "zoned_time")
    return int(at.timestamp() * 1000)


def _visit(part: Part) -> Literal["first", "follow_up"]:
    """HL7's own code for a follow-up (v2-0276) makes it one."""
    kind = part.child("appointmentType")
    codes = [] if kind is None else [one.text("code") for one in kind.children("coding")]
    return "follow_up" if "FOLLOWUP" in codes else "first"


async def _patient(request: web.Request, partner: Partner, part: Part) -> bytes:
    """The one Patient among the participants; a contained one is brought."""
    named = []
    for one in part.children("participant"):
        actor = one.child("actor")
        said = None if actor is None else actor.text("reference")
        if actor is not None and said is not None:
            if said.startswith("#"):
                named.append((actor, said))
            elif "Patient/" in said:
                named.append((actor, actor.referred("reference", said, "Patient")))
    if len(named) != 1:
        raise part.wrong("participant", "one_patient")
    actor, said = named[0]
    if not said.startswith("#"):
        return (await brought(request, partner, said)).id
    for n, held in enumerate(part.children("contained", 4)):
        if held.value.get("id") == said[1:]:
            contained = resource_of(held.value, (*part.at, "contained", n), ("Patient",))
            known, _ = await bring(request, partner, person_of(request, contained))
            return known.id
    raise actor.wrong("reference", "reference", kind="Patient")


async def taken(
    request: web.Request, partner: Partner, wanted: Wish, *, confirm: bool
) -> tuple[AppointmentRecord, bool]:
    """Held, and with `confirm` booked: the appointment, and whether it is new. What was held for a booking
    that is then refused is given back. Raises Problem."""
    app = request.app
    id_ = appointment_id(partner.id, wanted.key)
    known = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], id_)
    is_new = known is None
    if known is not None and (known.slot_id, known.patient_id) != (wanted.slot_id, wanted.patient_id):
        raise Problem(Reason.KEY_REUSED)
    if known is None or known.status == s.Status.PENDING:
        account_id = await _account(app, wanted.patient_id) if known is None else known.account_id
        body = HoldBody.model_construct(
            slot_id=wanted.slot_id, patient_id=UUID(bytes=wanted.patient_id), visit=wanted.visit
        )
        await Hold(app, account_id, wanted.key, body, partner.channel, partner.id).held()
    await keep(request, partner, id_, wanted.patient_id, "appointment_held")
    found = await _read(app, id_)
    if not confirm or found.status != s.Status.PENDING:
        return found, is_new
    try:
        await confirmed(app, found)
    except Problem as problem:
        if is_new and 400 <= problem.status < 500:
            await tell(app, found, s.CancelAppointment(found.id, found.account_id))
        raise
    return await _read(app, id_), is_new


async def _account(app: web.Application, patient_id: bytes) -> bytes:
    """That the number will belong to: the patient's own, where they have one. Raises Problem."""
    async with app[keys.POOL].acquire() as connection:
        found = await account_for(connection, patient_id, datetime.now(UTC))
    if found is None:
        raise Problem(Fault.NO_SUCH_PATIENT)
    return found


async def keep(request: web.Request, partner: Partner, id_: bytes, patient_id: bytes, action: str) -> None:
    """The number is the partner's from now on. A hold that nobody kept ends by itself."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if await partners.book(connection, partner.id, id_, datetime.now(UTC)):
            await audited(
                request,
                connection,
                action,
                subjects=(patient_id,),
                object=("appointment", str(UUID(bytes=id_))),
            )


async def confirmed(app: web.Application, found: AppointmentRecord) -> None:
    """As patients confirm: paid at the hospital, where the hospital allows that. Raises Problem."""
    await book_at_hospital(app, found, lambda: book(app, found))


async def tell(app: web.Application, found: AppointmentRecord, command: s.Command) -> None:
    """Raises Problem for whatever is not an answer."""
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    answered(await app[keys.DIRECTORY].ask(key.stream, command, deadline))
