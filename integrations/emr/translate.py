"""FHIR R4 resources into bodies for the intake, and our visits into FHIR. Pure, but for the import of the
models, which takes most of a second and a core: call `read` in a thread. Problems name places, never values.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

import orjson

from integrations.emr.emr import (
    APPOINTMENT_SYSTEM,
    HIS_SYSTEM,
    OURS,
    PATIENT_SYSTEM,
    Kind,
    Person,
    Read,
    Unreadable,
    Visit,
)

ENTRIES_MAX: Final = 500  # of one bundle
NUMBERS_MAX: Final = 20
TEXT_CHARS_MAX: Final = 4_000
BUNDLES: Final = ("transaction", "batch", "collection", "searchset", "message", "document")

_KINDS: Final[Mapping[str, Kind]] = {
    "Encounter": "encounter",
    "Condition": "condition",
    "MedicationRequest": "medication",
    "MedicationStatement": "medication",
    "AllergyIntolerance": "allergy",
}
RESOURCES: Final = tuple(_KINDS)
_DOCUMENTS: Final = {"NNCHN": "resident_id", "NI": "resident_id", "PPN": "passport"}
"""HL7 table 0203: whose identifier says that it is a document."""
_DOCUMENT_CODES: Final = {"resident_id": "NNCHN", "passport": "PPN"}
_SETTINGS: Final = {
    "AMB": "outpatient",
    "EMER": "emergency",
    "IMP": "inpatient",
    "VR": "online",
    "HH": "home",
}
_SETTING_OTHER: Final = "other"
_Json = Mapping[str, Any]


def read(document: Any, sender: str, zone: tzinfo) -> list[Read]:
    """All that it has of ours: a resource, or a bundle of them. What cannot be read is in the list, too.

    `sender` is whose record it is; `zone` is of days without a time. Raises Unreadable.
    """
    if not isinstance(document, Mapping):
        raise Unreadable("not_an_object")
    if document.get("resourceType") != "Bundle":
        resources = [("", document)]
    else:
        if document.get("type") not in BUNDLES:
            raise Unreadable("bundle_type", "Bundle.type")
        entries = document.get("entry", [])
        if not isinstance(entries, list):
            raise Unreadable("shape", "Bundle.entry")
        if len(entries) > ENTRIES_MAX:
            raise Unreadable("too_many", "Bundle.entry")
        resources = []
        for n, entry in enumerate(entries):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("resource"), Mapping):
                raise Unreadable("shape", f"Bundle.entry[{n}].resource")
            url = entry.get("fullUrl")
            resources.append((url if isinstance(url, str) else "", entry["resource"]))
    patients = _patients(resources)
    found = []
    for n, (_, resource) in enumerate(resources):
        if resource.get("resourceType") == "Patient" and len(resources) > 1:
            continue  # it says whose the others are
        where = f"entry[{n}]" if document.get("resourceType") == "Bundle" else ""
        found.append(_read(resource, where, patients, sender, zone))
    return found


def _patients(resources: Iterable[tuple[str, _Json]]) -> dict[str, _Json]:
    """By what others may call them."""
    found: dict[str, _Json] = {}
    for url, resource in resources:
        if resource.get("resourceType") == "Patient":
            if url:
                found[url] = resource
            if isinstance(resource.get("id"), str):
                found[f"Patient/{resource['id']}"] = resource
    return found


def _read(resource: _Json, where: str, patients: Mapping[str, _Json], sender: str, zone: tzinfo) -> Read:
    type_ = resource.get("resourceType")
    raw = orjson.dumps(resource)
    number = resource.get("id")
    where = where or (f"{type_}/{number}" if isinstance(type_, str) and isinstance(number, str) else "")
    kind = _KINDS.get(type_) if isinstance(type_, str) else None
    message_id = f"{sender}/{type_}/{number}/{hashlib.sha256(raw).hexdigest()[:32]}"
    if kind is None or not isinstance(type_, str):
        return Read(where, None, message_id, None, "resource_type", "resourceType", raw)
    if not isinstance(number, str) or not number:
        return Read(where, kind, message_id, None, "missing", f"{type_}.id", raw)
    try:
        _must_be_fhir(type_, resource)
        body = _body(type_, kind, resource, patients, sender, zone)
    except Unreadable as error:
        return Read(where, kind, message_id, None, error.why, error.place, raw)
    return Read(where, kind, message_id, body, raw=raw)


def _must_be_fhir(type_: str, resource: _Json) -> None:
    """By somebody else's models of R4B, which are strict about what there is and of what shape."""
    from fhir.resources.R4B import get_fhir_model_class
    from pydantic import ValidationError

    try:
        get_fhir_model_class(type_).model_validate(dict(resource))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])[:200]
        raise Unreadable("not_fhir", f"{type_}.{place}" if place.isprintable() else type_) from None
    except (RecursionError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise Unreadable("not_fhir", type_) from None


def _body(
    type_: str, kind: Kind, resource: _Json, patients: Mapping[str, _Json], sender: str, zone: tzinfo
) -> dict[str, Any]:
    meta = resource.get("meta") or {}
    updated = meta.get("lastUpdated") or resource.get("recordedDate") or resource.get("authoredOn")
    begins, ends = _span(type_, resource)
    return {
        "system": sender,
        # Two kinds of resources are medications here, and may have the same id.
        "kind": kind,
        "id": f"{type_}/{resource['id']}",
        "version": str(meta.get("versionId") or ""),
        "updated_at": _moment(updated, zone),
        "is_in_error": _is_in_error(resource),
        "begins_at": _moment(begins, zone),
        "encounter": _encounter(resource),
        "appointment": _appointment(resource),
        "patient": _whose(type_, resource, patients, sender),
        "content": {**_CONTENTS[type_](resource), **({"ends_at": _moment(ends, zone)} if ends else {})},
    }


def _is_in_error(resource: _Json) -> bool:
    return resource.get("status") == "entered-in-error" or _code(resource.get("verificationStatus")) == (
        "entered-in-error"
    )


def _span(type_: str, resource: _Json) -> tuple[Any, Any]:
    match type_:
        case "Encounter":
            period = resource.get("period") or {}
            return period.get("start"), period.get("end")
        case "Condition" | "AllergyIntolerance":
            return resource.get("onsetDateTime") or resource.get("recordedDate"), None
        case "MedicationRequest":
            return resource.get("authoredOn"), None
        case _:
            period = resource.get("effectivePeriod") or {}
            return resource.get("effectiveDateTime") or period.get("start"), period.get("end")


def _encounter(resource: _Json) -> str | None:
    reference = resource.get("encounter") or resource.get("context") or {}
    named = reference.get("reference")
    if not isinstance(named, str):
        return None
    id_ = re.search(r"(?:^|/)Encounter/([A-Za-z0-9.\-]{1,64})(?:/_history/.*)?$", named)
    return f"Encounter/{id_[1]}" if id_ else None


def _appointment(resource: _Json) -> str | None:
    for one in resource.get("identifier") or ():
        if one.get("system") == APPOINTMENT_SYSTEM and isinstance(one.get("value"), str):
            return str(one["value"])[:64]
    for one in resource.get("appointment") or ():
        identifier = one.get("identifier") or {}
        if identifier.get("system") == APPOINTMENT_SYSTEM and isinstance(identifier.get("value"), str):
            return str(identifier["value"])[:64]
    return None


def _whose(type_: str, resource: _Json, patients: Mapping[str, _Json], sender: str) -> dict[str, Any]:
    field = "patient" if type_ == "AllergyIntolerance" else "subject"
    reference = resource.get(field) or {}
    named = reference.get("reference") or ""
    person: _Json | None = patients.get(named)
    if named.startswith("#"):
        contained = [one for one in resource.get("contained") or () if one.get("id") == named[1:]]
        person = contained[0] if contained and contained[0].get("resourceType") == "Patient" else None
    if person is not None and named:
        try:
            _must_be_fhir("Patient", person)
        except Unreadable as error:
            raise Unreadable(error.why, f"{type_}.{field}: {error.place}") from None
    identifiers = [*((person or {}).get("identifier") or ()), reference.get("identifier") or {}]
    numbers, documents = [], []
    at = re.search(r"(?:^|/)Patient/([A-Za-z0-9.\-]{1,64})$", named)
    if at:
        numbers.append({"system": sender, "number": at[1]})
    for one in identifiers[:NUMBERS_MAX]:
        value, system = one.get("value"), one.get("system")
        if not isinstance(value, str) or not value:
            continue
        document = _DOCUMENTS.get(_code(one.get("type")))
        if document is not None:
            documents.append({"type": document, "number": value})
        elif system == PATIENT_SYSTEM:
            numbers.append({"system": OURS, "number": value})
        elif system == HIS_SYSTEM:
            numbers.append({"system": "his", "number": value})
        elif isinstance(system, str) and system and system != OURS:
            numbers.append({"system": system, "number": value})
    if not numbers and not documents:
        raise Unreadable("missing", f"{type_}.{field}")
    return {"numbers": numbers, "documents": documents, "name": _name(person)}


def _name(person: _Json | None) -> str | None:
    for one in (person or {}).get("name") or ():
        if isinstance(one.get("text"), str) and one["text"]:
            return str(one["text"])
        family, given = one.get("family") or "", one.get("given") or []
        if family or given:
            whole = [family, *given]
            return ("" if all(not part.isascii() for part in whole if part) else " ").join(
                filter(None, whole)
            )
    return None


def _of_encounter(resource: _Json) -> dict[str, Any]:
    klass = (resource.get("class") or resource.get("class_fhir") or {}).get("code")
    return {
        "status": resource.get("status"),
        "setting": _SETTINGS.get(str(klass), _SETTING_OTHER),
        "title": _title(next(iter(resource.get("type") or ()), None)),
        "department": _clipped((resource.get("serviceProvider") or {}).get("display")),
        "practitioner": next(
            (
                _clipped((one.get("individual") or {}).get("display"))
                for one in resource.get("participant") or ()
                if (one.get("individual") or {}).get("display")
            ),
            None,
        ),
        "reason": _title(next(iter(resource.get("reasonCode") or ()), None)),
    }


def _of_condition(resource: _Json) -> dict[str, Any]:
    return {
        "status": _code(resource.get("clinicalStatus")) or "active",
        "certainty": _code(resource.get("verificationStatus")) or None,
        **_coded(resource.get("code")),
        "note": _notes(resource),
    }


def _of_medication(resource: _Json) -> dict[str, Any]:
    request = resource.get("dispenseRequest") or {}
    dosages = resource.get("dosageInstruction") or resource.get("dosage") or ()
    coded = _coded(resource.get("medicationCodeableConcept"))
    if coded["title"] is None:
        coded["title"] = _clipped((resource.get("medicationReference") or {}).get("display"))
    return {
        "status": resource.get("status"),
        "intent": resource.get("intent") or "statement",
        **coded,
        "dosage": _joined(one.get("text") for one in dosages),
        "days": _quantity(request.get("expectedSupplyDuration")),
        "quantity": _quantity(request.get("quantity")),
        "note": _notes(resource),
    }


def _of_allergy(resource: _Json) -> dict[str, Any]:
    reactions = [
        _title(manifestation)
        for reaction in resource.get("reaction") or ()
        for manifestation in reaction.get("manifestation") or ()
    ]
    return {
        "status": _code(resource.get("clinicalStatus")) or "active",
        "certainty": _code(resource.get("verificationStatus")) or None,
        **_coded(resource.get("code")),
        "categories": list(resource.get("category") or ())[:10],
        "criticality": resource.get("criticality"),
        "reactions": [one for one in reactions if one][:20],
        "note": _notes(resource),
    }


_CONTENTS: Final[Mapping[str, Callable[[_Json], dict[str, Any]]]] = {
    "Encounter": _of_encounter,
    "Condition": _of_condition,
    "MedicationRequest": _of_medication,
    "MedicationStatement": _of_medication,
    "AllergyIntolerance": _of_allergy,
}


def _coded(concept: Any) -> dict[str, Any]:
    first: _Json = next(iter((concept or {}).get("coding") or ()), {})
    return {
        "title": _title(concept),
        "code": _clipped(first.get("code")),
        "code_system": _clipped(first.get("system")),
    }


def _title(concept: Any) -> str | None:
    """In their words, else what the code is called."""
    if not isinstance(concept, Mapping):
        return None
    if concept.get("text"):
        return _clipped(concept["text"])
    for one in concept.get("coding") or ():
        if one.get("display"):
            return _clipped(one["display"])
    return None


def _code(concept: Any) -> str:
    for one in (concept or {}).get("coding") or ():
        if one.get("code"):
            return str(one["code"])
    return ""


def _notes(resource: _Json) -> str | None:
    return _joined(one.get("text") for one in resource.get("note") or ())


def _joined(texts: Iterable[Any]) -> str | None:
    return _clipped("\n".join(str(text) for text in texts if text)) or None


def _quantity(quantity: Any) -> str | None:
    if not isinstance(quantity, Mapping) or quantity.get("value") is None:
        return None
    return _clipped(f"{quantity['value']} {quantity.get('unit') or quantity.get('code') or ''}".strip())


def _clipped(text: Any) -> str | None:
    return None if text is None else str(text)[:TEXT_CHARS_MAX]


def _moment(said: Any, zone: tzinfo) -> str | None:
    """FHIR's dateTime: a year, a month, a day, or a moment with its offset."""
    if said is None:
        return None
    text = str(said)
    if re.fullmatch(r"[0-9]{4}", text):
        text += "-01-01"
    elif re.fullmatch(r"[0-9]{4}-[0-9]{2}", text):
        text += "-01"
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).isoformat()
    except (ValueError, OverflowError):
        raise Unreadable("time") from None


# Ours to them.


def patient_of(person: Person) -> dict[str, Any]:
    """As the record system is told of somebody whom it does not know yet."""
    identifiers: list[dict[str, Any]] = [{"system": PATIENT_SYSTEM, "value": person.id}]
    identifiers += [{"system": HIS_SYSTEM, "value": number} for number in person.his_numbers]
    code = _DOCUMENT_CODES.get(person.id_type)
    if code is not None and person.id_number:
        table = "http://terminology.hl7.org/CodeSystem/v2-0203"
        identifiers.append({"type": {"coding": [{"system": table, "code": code}]}, "value": person.id_number})
    found: dict[str, Any] = {
        "resourceType": "Patient",
        "identifier": identifiers,
        "name": [{"use": "official", "text": person.name}],
    }
    if person.sex in ("male", "female"):
        found["gender"] = person.sex
    if person.birth_date is not None:
        found["birthDate"] = person.birth_date.isoformat()
    return found


def encounter_of(visit: Visit, patient_reference: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "identifier": [{"system": APPOINTMENT_SYSTEM, "value": visit.id}],
        "status": "finished",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "AMB",
            "display": "ambulatory",
        },
        "type": [{"text": "门诊 / outpatient visit"}],
        "subject": {"reference": patient_reference},
        "participant": [
            {"individual": _named("urn:xinglin:practitioner", visit.practitioner_id, visit.practitioner)}
        ],
        "period": {"start": visit.starts_at.isoformat(), "end": visit.ends_at.isoformat()},
        "serviceProvider": _named("urn:xinglin:department", visit.department_id, visit.department),
    }


def _named(system: str, id_: str, name: str) -> dict[str, Any]:
    """FHIR knows no empty texts: what is not known is left out."""
    found: dict[str, Any] = {"identifier": {"system": system, "value": id_ or "unknown"}}
    return {**found, "display": name} if name else found
