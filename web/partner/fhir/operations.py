"""The operations on Appointment: $find, $hold, $book, $confirm, $cancel, $reschedule.

$find, $hold and $book are those of the Argonaut scheduling guide and answer Bundles; the others answer the
Appointment. What they do is what patients' own apps do, through the partner's channel.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey, derived
from engine.domain.refusal import Reason
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.his.truth import changed
from web.openapi import api
from web.partner.fhir import resources
from web.partner.fhir.answers import check_version, told, told_all
from web.partner.fhir.appointments import (
    BOOKING,
    CONFIRMING,
    Wish,
    confirmed,
    described,
    find,
    keep,
    key_of,
    taken,
    tell,
    wish_of,
)
from web.partner.fhir.asking import COUNT_DEFAULT, COUNT_MAX, Search, accept_json, now_ms, search_of
from web.partner.fhir.names import BASE, MEDIA, our_id
from web.partner.fhir.patients import bring, brought, person_of
from web.partner.fhir.reading import Part, body_of, parameters_of, resource_of, said
from web.partner.fhir.schedules import SEARCH, FhirPath, slot_of, slots_of
from web.partner.sight import Partner
from web.patient.appointments import OVERLOAD, alternatives, answered

Json = dict[str, Any]
_FIND: Final = ("start", "end", "practitioner", "specialty", "schedule")
_TAKE: Final = (
    "appt-id",
    "appt-resource",
    "appointment",
    "slot",
    "patient",
    "patient-id",
    "patient-resource",
    "identifier",
    "visit-type",
)
_ONE: Final = ("String", "Id", "Uri", "Code", "Date", "DateTime", "Instant", "Integer")
_OF_ONE: Final[list[Reason | Fault]] = [
    Reason.NO_SUCH_APPOINTMENT,
    Fault.VERSION_STALE,
    Fault.NOT_ACCEPTABLE,
    *OVERLOAD,
]


@api.route(
    "GET",
    f"{BASE}/Appointment/$find",
    zh="查找可约时段（FHIR）",
    tags=["fhir"],
    errors=SEARCH,
    answer=Json,
    media=MEDIA,
)
async def fhir_find(request: web.Request, *, partner: Partner) -> web.Response:
    """Proposed appointments, one for each slot with free numbers: `start` and `end` (dates or times),
    `practitioner`, `specialty` (a department), `schedule`, `_count`."""
    search = search_of(request, request.app[keys.ZONE], _FIND)
    return _proposed(request, partner, search.values, search.count)


@api.route(
    "POST",
    f"{BASE}/Appointment/$find",
    zh="查找可约时段（FHIR，Parameters）",
    tags=["fhir"],
    errors=[*SEARCH, Fault.INVALID_RESOURCE],
    answer=Json,
    takes=Json,
    media=MEDIA,
)
async def fhir_find_by_parameters(request: web.Request, *, partner: Partner) -> web.Response:
    """The same, asked with Parameters."""
    accept_json(request)
    given = parameters_of(await body_of(request, "Parameters"), (*_FIND, "count"))
    values: dict[str, Sequence[str]] = {}
    count = COUNT_DEFAULT
    for name, parameter in given.items():
        if name == "count":
            number = parameter.value.get("valueInteger")
            if type(number) is not int or number < 0:
                raise parameter.wrong("valueInteger", "int_type")
            count = min(number, COUNT_MAX)
            continue
        reference = parameter.child("valueReference")
        text = reference.text("reference") if reference is not None else said(parameter, *_ONE)
        if text is None:
            raise parameter.wrong("value[x]", "string_type")
        values[name] = (text,)
    return _proposed(request, partner, values, count)


@api.route(
    "POST",
    f"{BASE}/Appointment/$hold",
    zh="占号（FHIR）",
    tags=["fhir"],
    errors=BOOKING,
    answer=Json,
    takes=Json,
    media=MEDIA,
)
async def fhir_hold(request: web.Request, *, partner: Partner) -> web.Response:
    """Holds a number: Parameters with `slot` and `patient`, or `appt-resource`, or an Appointment itself. It
    is `pending`, and ends by itself at held-until unless it is booked or confirmed before."""
    wanted = await _wish(request, partner)
    assert isinstance(wanted, Wish)
    found, _ = await taken(request, partner, wanted, confirm=False)
    return told_all(request, "collection", [await described(request.app, found, wanted.identifiers)])


@api.route(
    "POST",
    f"{BASE}/Appointment/$book",
    zh="预约（FHIR 操作）",
    tags=["fhir"],
    errors=[*BOOKING, *CONFIRMING, Reason.NO_SUCH_APPOINTMENT],
    answer=Json,
    takes=Json,
    media=MEDIA,
)
async def fhir_book(request: web.Request, *, partner: Partner) -> web.Response:
    """Books a number, to be paid at the hospital: one that is held (`appt-id`), or as $hold takes it."""
    wanted = await _wish(request, partner, "appt-id")
    if isinstance(wanted, str):
        found = await find(request.app, partner, wanted)
        await confirmed(request.app, found)
        booked = await find(request.app, partner, wanted)
        return told_all(request, "collection", [await described(request.app, booked)])
    found, _ = await taken(request, partner, wanted, confirm=True)
    return told_all(request, "collection", [await described(request.app, found, wanted.identifiers)])


@api.route(
    "POST",
    f"{BASE}/Appointment/{{id}}/$confirm",
    zh="确认占号（FHIR）",
    tags=["fhir"],
    errors=[*_OF_ONE, *CONFIRMING],
    answer=Json,
    media=MEDIA,
)
async def fhir_confirm(request: web.Request, *, partner: Partner, path: FhirPath) -> web.Response:
    """Books what is held, to be paid at the hospital. Again changes nothing. `If-Match` is looked at."""
    accept_json(request)
    found = await find(request.app, partner, path.id)
    check_version(request, resources.version_of(found))
    await confirmed(request.app, found)
    return told(request, await described(request.app, await find(request.app, partner, path.id)))


@api.route(
    "POST",
    f"{BASE}/Appointment/{{id}}/$cancel",
    zh="取消预约（FHIR）",
    tags=["fhir"],
    errors=[*_OF_ONE, Reason.SLOT_PAST, Reason.CANCEL_TOO_LATE],
    answer=Json,
    media=MEDIA,
)
async def fhir_cancel(request: web.Request, *, partner: Partner, path: FhirPath) -> web.Response:
    """Gives the number back, until the time at which patients may. Again changes nothing."""
    accept_json(request)
    found = await find(request.app, partner, path.id)
    check_version(request, resources.version_of(found))
    await tell(request.app, found, s.CancelAppointment(found.id, found.account_id))
    return told(request, await described(request.app, await find(request.app, partner, path.id)))


@api.route(
    "POST",
    f"{BASE}/Appointment/{{id}}/$reschedule",
    zh="改签（FHIR）",
    tags=["fhir"],
    errors=[
        *_OF_ONE,
        *BOOKING,
        Reason.NOT_BOOKED,
        Reason.ALREADY_CANCELLED,
        Reason.CHANGE_TOO_LATE,
        Reason.TOO_MANY_CHANGES,
        Reason.CHANGE_GIVEN_UP,
    ],
    answer=Json,
    takes=Json,
    media=MEDIA,
)
async def fhir_reschedule(request: web.Request, *, partner: Partner, path: FhirPath) -> web.Response:
    """Gives a booked number up for one in another `slot`: both happen, or neither. The answer is the new
    Appointment, whose extension `replaces` is the old one."""
    accept_json(request)
    app = request.app
    body = await body_of(request, "Parameters")
    given = parameters_of(body, ("slot", "identifier"))
    if "slot" not in given:
        raise body.wrong("parameter", "missing")
    key, identifiers = key_of(request, _identified(given))
    new_id = derived(b"change", partner.id, key.encode())
    old = await find(app, partner, path.id)
    check_version(request, resources.version_of(old))
    slot = slot_of(app, partner, _slot(given["slot"]), now_ms())
    to = ScheduleKey.of_schedule(slot.row.id)
    assert to is not None
    try:
        answered(await changed(app, old, to, slot, new_id, "", int(partner.channel)))
    except Problem as problem:
        if problem.code is Reason.SLOT_FULL:
            problem.members["alternatives"] = alternatives(app, slot.slot_id, partner.channel)
        raise
    await keep(request, partner, new_id, old.patient_id, "appointment_changed")
    found = await find(app, partner, new_id.hex())
    return told(request, await described(app, found, identifiers))


def _proposed(
    request: web.Request, partner: Partner, values: Mapping[str, Sequence[str]], count: int
) -> web.Response:
    app, now = request.app, now_ms()
    availability, zone = app[keys.AVAILABILITY], app[keys.ZONE]
    asked: dict[str, Sequence[str]] = {
        name: values[name] for name in ("practitioner", "specialty", "schedule") if name in values
    }
    times = [f"ge{text}" for text in values.get("start", ())]
    # A day that is named as the end is in it; a moment is not.
    times += [f"{'lt' if 'T' in text else 'le'}{text}" for text in values.get("end", ())]
    if times:
        asked["start"] = times
    search = Search(asked, count, 0, zone)
    free = (
        one for one in slots_of(request, partner, search, "practitioner", "start", now) if one.remaining > 0
    )
    catalog = availability.catalog
    found = [resources.proposed(one, catalog, zone) for one in islice(free, count)]
    return told_all(request, "searchset", found)


async def _wish(request: web.Request, partner: Partner, *also: str) -> Wish | str:
    """Of an Appointment, or of Parameters; the id of an appointment that is there already, where `also` has
    appt-id and it is given. Raises Problem."""
    accept_json(request)
    body = await body_of(request, "Parameters", "Appointment")
    if body.value["resourceType"] == "Appointment":
        return await wish_of(request, partner, body)
    given = parameters_of(body, [name for name in _TAKE if name != "appt-id" or name in also])
    if "appt-id" in given:
        return _id(given["appt-id"], "Appointment")
    resource = given.get("appt-resource") or given.get("appointment")
    patient = await _patient(request, partner, given)
    if resource is not None:
        part = resource_of(resource.value.get("resource"), (*resource.at, "resource"), ("Appointment",))
        return await wish_of(request, partner, part, patient)
    if "slot" not in given:
        raise body.wrong("parameter", "missing")
    if patient is None:
        raise body.wrong("parameter", "one_patient")
    key, identifiers = key_of(request, _identified(given))
    slot_id = _slot(given["slot"])
    slot_of(request.app, partner, slot_id, now_ms())
    visit = given.get("visit-type")
    code = None if visit is None else said(visit, "Code", "String")
    if visit is not None and code not in ("first", "follow_up"):
        raise visit.wrong("value[x]", "literal_error", expected="first, follow_up")
    patient_id = (await brought(request, partner, patient)).id
    return Wish(slot_id, patient_id, key, identifiers, "follow_up" if code == "follow_up" else "first")


async def _patient(request: web.Request, partner: Partner, given: Mapping[str, Part]) -> str | None:
    """The id of the patient that parameters name, or bring."""
    named = given.get("patient") or given.get("patient-id")
    if named is not None and not named.has("resource"):
        return _id(named, "Patient")
    resource = named or given.get("patient-resource")
    if resource is None:
        return None
    part = resource_of(resource.value.get("resource"), (*resource.at, "resource"), ("Patient",))
    known, _ = await bring(request, partner, person_of(request, part))
    return known.id.hex()


def _identified(given: Mapping[str, Part]) -> Part | None:
    """A part that has the identifier among its own, as an Appointment has."""
    parameter = given.get("identifier")
    if parameter is None:
        return None
    identifier = parameter.child("valueIdentifier")
    if identifier is None:
        raise parameter.wrong("valueIdentifier", "missing")
    return Part({"identifier": [identifier.value]}, parameter.at)


def _slot(parameter: Part) -> str:
    """Of a reference, an id, or a Slot as it was found."""
    held = parameter.value.get("resource")
    if held is not None:
        part = resource_of(held, (*parameter.at, "resource"), ("Slot",))
        told_id = part.text("id", 64)
        if told_id is None:
            raise part.wrong("id", "missing")
        return our_id(told_id)
    return our_id(_id(parameter, "Slot"))


def _id(parameter: Part, kind: str) -> str:
    """What a parameter names, by reference or by its id alone."""
    found = parameter.reference("valueReference", kind)
    if found is not None:
        return found
    text = said(parameter, *_ONE)
    if text is None:
        raise parameter.wrong("valueReference", "missing")
    return parameter.referred("value[x]", text, kind) if "/" in text else text
