"""What there is, as FHIR R4 resources: plain dicts, because they are made on every request. Pure.

Names of patients stand in Patient alone; identity numbers stand nowhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import orjson

from engine.domain.limits import SLOT_MINUTES
from engine.domain.schedule import Status
from engine.records.appointments import AppointmentRecord
from engine.records.catalog import Catalog, Practitioner, ScheduleRow
from engine.records.partners import KnownPatient
from engine.views.availability import OpenSlot
from web.partner.fhir import names

Json = dict[str, Any]
_SLOT: Final = timedelta(minutes=SLOT_MINUTES)
TITLES: Final = {
    "chief": "主任医师",
    "associate_chief": "副主任医师",
    "attending": "主治医师",
    "resident": "住院医师",
}
PERIODS: Final = {"morning": "上午", "afternoon": "下午", "night": "夜间"}
STATUSES: Final[dict[int, str]] = {
    Status.PENDING: "pending",
    Status.BOOKED: "booked",
    Status.ARRIVED: "arrived",
    Status.FULFILLED: "fulfilled",
    Status.CANCELLED: "cancelled",
    Status.NOSHOW: "noshow",
    Status.WAITLIST: "waitlist",
}
"""FHIR's own words, which ours are taken from."""


def schedule(row: ScheduleRow, catalog: Catalog, zone: tzinfo) -> Json:
    """A practitioner's day."""
    begins = datetime.combine(row.day, time.min, zone)
    departments = dict.fromkeys(session.department_id for session in row.sessions)
    person = catalog.practitioners.get(row.practitioner_id)
    return versioned(
        {
            "resourceType": "Schedule",
            "id": names.fhir_id(row.id),
            "active": any(session.status != "suspended" for session in row.sessions),
            "serviceCategory": [_period(p) for p in dict.fromkeys(s.period for s in row.sessions)],
            "serviceType": [
                _number_class(n, catalog) for n in dict.fromkeys(s.number_class_id for s in row.sessions)
            ],
            "specialty": [_department(one, catalog) for one in departments],
            "actor": [_practitioner_reference(row.practitioner_id, person)],
            "planningHorizon": {
                "start": begins.isoformat(),
                "end": datetime.combine(row.day + timedelta(1), time.min, zone).isoformat(),
            },
        }
    )


def slot(one: OpenSlot, catalog: Catalog, zone: tzinfo, now: int) -> Json:
    """Half an hour of it, with the numbers that are free for whoever asks."""
    start = _at(one.starts_at, zone)
    extensions: list[Json] = [
        {"url": names.REMAINING, "valueInteger": one.remaining},
        {"url": names.CAPACITY, "valueInteger": one.capacity},
        {"url": names.FEE, "valueMoney": _money(one.session.fee_fen)},
    ]
    if one.opens_at is not None:
        extensions.append(
            {"url": names.OPENS_AT, "valueInstant": _at(one.opens_at, zone).isoformat(timespec="seconds")}
        )
    return versioned(
        {
            "resourceType": "Slot",
            "id": names.fhir_id(one.slot_id),
            "extension": extensions,
            "serviceCategory": [_period(one.session.period)],
            "serviceType": [_number_class(one.session.number_class_id, catalog)],
            "specialty": [_department(one.session.department_id, catalog)],
            "schedule": {"reference": f"Schedule/{names.fhir_id(one.row.id)}"},
            "status": slot_status(one, now),
            "start": start.isoformat(timespec="seconds"),
            "end": (start + _SLOT).isoformat(timespec="seconds"),
        }
    )


def slot_status(one: OpenSlot, now: int) -> str:
    """free: somebody could book it now; busy: others have it; busy-unavailable: nobody can have it now."""
    if one.remaining > 0:
        return "free"
    if one.session.status != "open" or one.starts_at <= now or one.opens_at is not None:
        return "busy-unavailable"
    return "busy"


def practitioner(one: Practitioner) -> Json:
    return versioned(
        {
            "resourceType": "Practitioner",
            "id": names.fhir_id(one.id),
            "identifier": [{"system": names.PRACTITIONER_ID, "value": one.id}],
            "active": True,
            "name": [{"use": "official", "text": one.name}],
            "qualification": [
                {
                    "code": {
                        "coding": [_coding(names.TITLE, one.title, TITLES.get(one.title))],
                        "text": TITLES.get(one.title, one.title),
                    }
                }
            ],
        }
    )


def patient(one: KnownPatient) -> Json:
    """The document's number is not told: who searched by it knows it, and nobody else need."""
    told: Json = {
        "resourceType": "Patient",
        "id": str(UUID(bytes=one.id)),
        "identifier": [
            {"use": "official", "system": names.PATIENT_ID, "value": str(UUID(bytes=one.id))},
            {
                "use": "official",
                "system": names.DOCUMENT + one.id_type,
                "_value": {"extension": [{"url": names.ABSENT, "valueCode": "masked"}]},
            },
        ],
        "active": True,
        "name": [{"use": "official", "text": one.name}],
    }
    if one.sex is not None:
        told["gender"] = one.sex
    if one.birth_date is not None:
        told["birthDate"] = one.birth_date.isoformat()
    return versioned(told)


def appointment(
    one: AppointmentRecord, catalog: Catalog, zone: tzinfo, identifiers: Sequence[Json] = ()
) -> Json:
    """`identifiers`: what the partner calls it, where this very request says so."""
    id_ = str(UUID(bytes=one.id))
    start = one.starts_at.astimezone(zone)
    practitioner_id = one.schedule_id.rpartition("-")[0]
    extensions: list[Json] = [
        {"url": names.NUMBER, "valueInteger": one.number},
        {"url": names.FEE, "valueMoney": _money(one.fee_fen)},
    ]
    if one.status == Status.PENDING:
        until = one.hold_until.astimezone(zone).isoformat(timespec="seconds")
        extensions.append({"url": names.HELD_UNTIL, "valueInstant": until})
    for url, other in ((names.REPLACES, one.replaces), (names.REPLACED_BY, one.successor)):
        if other is not None:
            reference = {"reference": f"Appointment/{UUID(bytes=other)}"}
            extensions.append({"url": url, "valueReference": reference})
    told: Json = {
        "resourceType": "Appointment",
        "id": id_,
        "meta": {
            "versionId": version_of(one),
            "lastUpdated": one.updated_at.astimezone(zone).isoformat(timespec="milliseconds"),
        },
        "extension": extensions,
        "identifier": [{"system": names.APPOINTMENT_ID, "value": id_}, *identifiers],
        "status": STATUSES[one.status],
        "serviceType": [_number_class(one.number_class_id, catalog)],
        "specialty": [_department(one.department_id, catalog)],
        "start": start.isoformat(timespec="seconds"),
        "end": (start + _SLOT).isoformat(timespec="seconds"),
        "minutesDuration": SLOT_MINUTES,
        "slot": [{"reference": f"Slot/{names.fhir_id(one.slot_id)}"}],
        "created": one.created_at.astimezone(zone).isoformat(timespec="seconds"),
        "participant": [
            {
                "actor": {"reference": f"Patient/{UUID(bytes=one.patient_id)}"},
                "required": "required",
                "status": "accepted",
            },
            {
                "actor": _practitioner_reference(practitioner_id, catalog.practitioners.get(practitioner_id)),
                "required": "required",
                "status": "accepted",
            },
        ],
    }
    if one.status == Status.CANCELLED:
        told["cancelationReason"] = {"coding": [_coding(names.CANCELLED_BY, one.reason or "cancelled", None)]}
    return told


def proposed(one: OpenSlot, catalog: Catalog, zone: tzinfo) -> Json:
    """What somebody could book, as $find proposes it. It has no id: nothing is kept of it."""
    start = _at(one.starts_at, zone)
    person = catalog.practitioners.get(one.row.practitioner_id)
    return {
        "resourceType": "Appointment",
        "extension": [
            {"url": names.REMAINING, "valueInteger": one.remaining},
            {"url": names.FEE, "valueMoney": _money(one.session.fee_fen)},
        ],
        "status": "proposed",
        "serviceType": [_number_class(one.session.number_class_id, catalog)],
        "specialty": [_department(one.session.department_id, catalog)],
        "start": start.isoformat(timespec="seconds"),
        "end": (start + _SLOT).isoformat(timespec="seconds"),
        "minutesDuration": SLOT_MINUTES,
        "slot": [{"reference": f"Slot/{names.fhir_id(one.slot_id)}"}],
        "participant": [
            {
                "actor": _practitioner_reference(one.row.practitioner_id, person),
                "required": "required",
                "status": "tentative",
            }
        ],
    }


def bundle(
    kind: str,
    base: str,
    resources: Iterable[Json],
    total: int | None = None,
    links: Mapping[str, str] | None = None,
) -> Json:
    """`base`: of the addresses of what is in it."""
    entries = []
    for one in resources:
        entry: Json = {"resource": one}
        if "id" in one:
            entry = {"fullUrl": f"{base}/{one['resourceType']}/{one['id']}", **entry}
        if kind == "searchset":
            entry["search"] = {"mode": "match"}
        entries.append(entry)
    told: Json = {"resourceType": "Bundle", "type": kind}
    if total is not None:
        told["total"] = total
    if links:
        told["link"] = [{"relation": relation, "url": url} for relation, url in links.items()]
    if entries:
        told["entry"] = entries
    return told


def versioned(resource: Json) -> Json:
    """With the digest of its own content as its version: the same at every gateway."""
    version = blake2b(orjson.dumps(resource), digest_size=12).hexdigest()
    told = {"resourceType": resource.pop("resourceType"), "id": resource.pop("id")}
    return {**told, "meta": {"versionId": version}, **resource}


def version_of(one: AppointmentRecord) -> str:
    """Grows with each change."""
    return str(int(one.updated_at.astimezone(UTC).timestamp() * 1_000_000))


def _at(ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)


def _money(fen: int) -> Json:
    return {"value": fen / 100, "currency": "CNY"}


def _coding(system: str, code: str, display: str | None) -> Json:
    return {"system": system, "code": code, **({"display": display} if display else {})}


def _department(department_id: str, catalog: Catalog) -> Json:
    found = catalog.departments.get(department_id)
    return {"coding": [_coding(names.DEPARTMENT, department_id, None if found is None else found.name)]}


def _number_class(number_class_id: str, catalog: Catalog) -> Json:
    found = catalog.number_classes.get(number_class_id)
    return {"coding": [_coding(names.NUMBER_CLASS, number_class_id, None if found is None else found.name)]}


def _period(period: str) -> Json:
    return {"coding": [_coding(names.PERIOD, period, PERIODS.get(period))]}


def _practitioner_reference(practitioner_id: str, person: Practitioner | None) -> Json:
    told = {"reference": f"Practitioner/{names.fhir_id(practitioner_id)}"}
    return told if person is None else {**told, "display": person.name}
