"""Registrations, people and places as FHIR R4 has them: what we write, and what we read of theirs. Pure.

Our ids and their codes are identifiers below one name (HisAt.identifiers):

    …:appointment  …:patient  …:message (the last of ours that changed it)
    …:number (of a Slot or an Appointment)
    …:practitioner  …:department  …:paper:resident_id …
"""

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from integrations.his.his import Booking, Kind, Person, Registration, Status

STATUSES: Final = {
    Status.LOCKED: "pending",
    Status.BOOKED: "booked",
    Status.ARRIVED: "arrived",
    Status.FULFILLED: "fulfilled",
    Status.NO_SHOW: "noshow",
    Status.CANCELLED: "cancelled",
}
OF_STATUS: Final = {word: status for status, word in STATUSES.items()} | {
    "proposed": Status.LOCKED,
    "checked-in": Status.ARRIVED,
    "entered-in-error": Status.CANCELLED,
}
OF_KIND: Final = {
    Kind.BOOKED: Status.BOOKED,
    Kind.RESCHEDULED: Status.BOOKED,
    Kind.CHANGED: Status.BOOKED,
    Kind.CANCELLED: Status.CANCELLED,
    Kind.ARRIVED: Status.ARRIVED,
    Kind.FULFILLED: Status.FULFILLED,
    Kind.NO_SHOW: Status.NO_SHOW,
}
_OUR_ID: Final = re.compile(r"[0-9a-f]{32}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)

Json = dict[str, Any]


class Unfit(Exception):
    """What they say cannot be believed; `why` names an element and never a value."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Words:
    base: str
    zone: ZoneInfo

    def identifier(self, what: str, value: str) -> Json:
        return {"system": f"{self.base}:{what}", "value": value}

    def token(self, what: str, value: str) -> str:
        return f"{self.base}:{what}|{value}"

    def value(self, resource: object, what: str) -> str | None:
        """Of a resource's identifiers, the first below that name."""
        found = resource.get("identifier") if isinstance(resource, dict) else None
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, dict) and one.get("system") == f"{self.base}:{what}":
                value = one.get("value")
                if isinstance(value, str) and _CODE.fullmatch(value):
                    return value
        return None

    # What we write.

    def appointment(
        self, booking: Booking, status: Status, message_id: str, patient: str, practitioner: Json
    ) -> Json:
        """`patient`: Patient/…"""
        return {
            "resourceType": "Appointment",
            "identifier": [
                self.identifier("appointment", booking.id),
                self.identifier("message", message_id),
                self.identifier("number", str(booking.number)),
            ],
            "status": STATUSES[status],
            "serviceType": [{"coding": [{"system": f"{self.base}:department", "code": booking.department}]}],
            "start": booking.starts_at.astimezone(self.zone).isoformat(),
            "end": booking.ends_at.astimezone(self.zone).isoformat(),
            "participant": [
                {"actor": {"reference": patient}, "status": "accepted"},
                {"actor": practitioner, "status": "accepted"},
            ],
        }

    def changed(self, there: Json, status: Status, message_id: str, reason: str = "") -> Json:
        """What is there, of another status. Whatever else they keep in it stays."""
        kept = [
            one
            for one in there.get("identifier") or ()
            if isinstance(one, dict) and one.get("system") != f"{self.base}:message"
        ]
        changed = {
            **there,
            "identifier": [*kept, self.identifier("message", message_id)],
            "status": STATUSES[status],
        }
        if reason and status is Status.CANCELLED:
            changed["cancelationReason"] = {"text": reason}
        return changed

    def patient(self, person: Person) -> Json:
        numbers = [self.identifier("patient", person.id or "")]
        if person.id_number:
            numbers.append(self.identifier(f"paper:{person.id_type}", person.id_number))
        told: Json = {"resourceType": "Patient", "identifier": numbers, "name": [{"text": person.name}]}
        if person.sex:
            told["gender"] = person.sex
        if person.birth_date is not None:
            told["birthDate"] = person.birth_date.isoformat()
        if person.phone:
            told["telecom"] = [{"system": "phone", "value": person.phone}]
        return told

    # What we read.

    def registration(self, told: Json, practitioner: str) -> Registration:
        """`practitioner`: their code, which may stand in another resource. Raises Unfit."""
        booking_id = self.value(told, "appointment")
        status = OF_STATUS.get(told.get("status") if isinstance(told.get("status"), str) else "")  # type: ignore[arg-type]
        if status is None:
            raise Unfit("status")
        his_id = told.get("id")
        if not isinstance(his_id, str) or _CODE.fullmatch(his_id) is None:
            raise Unfit("id")
        number = self.value(told, "number")
        return Registration(
            booking_id if booking_id and _OUR_ID.fullmatch(booking_id) else None,
            his_id,
            self._department(told),
            practitioner,
            self.time(told, "start"),
            int(number) if number and number.isascii() and number.isdigit() else None,
            status,
        )

    def person(self, told: Json, id_type: str, id_number: str) -> Person:
        names = told.get("name")
        name = names[0] if isinstance(names, list) and names else {}
        name = name if isinstance(name, dict) else {}
        text = name.get("text") or (
            str(name.get("family", "")) + "".join(str(one) for one in name.get("given") or ())
        )
        if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
            raise Unfit("name")
        phones = [
            one.get("value")
            for one in told.get("telecom") or ()
            if isinstance(one, dict) and one.get("system") == "phone"
        ]
        phone = phones[0] if phones and isinstance(phones[0], str) else ""
        gender = told.get("gender")
        ours = self.value(told, "patient")
        return Person(
            ours if ours and _OUR_ID.fullmatch(ours) else None,
            str(told["id"]),
            text,
            gender if gender in ("male", "female") else None,
            self._born(told),
            id_type,
            id_number,
            phone,
        )

    def time(self, told: Json, name: str) -> datetime:
        said = told.get(name)
        try:
            at = datetime.fromisoformat(said) if isinstance(said, str) else None
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise Unfit(name)
        return at.astimezone(self.zone)

    def period(self, at: datetime) -> str:
        hour = at.astimezone(self.zone).hour
        return "morning" if hour < 12 else "afternoon" if hour < 17 else "night"

    def _department(self, told: Json) -> str:
        for service in told.get("serviceType") or ():
            for coding in (service.get("coding") or ()) if isinstance(service, dict) else ():
                if isinstance(coding, dict) and coding.get("system") == f"{self.base}:department":
                    code = coding.get("code")
                    if isinstance(code, str) and _CODE.fullmatch(code):
                        return code
        raise Unfit("serviceType")

    def _born(self, told: Json) -> date | None:
        said = told.get("birthDate")
        try:
            return date.fromisoformat(said) if isinstance(said, str) and len(said) == 10 else None
        except ValueError:
            raise Unfit("birthDate") from None


def actor_of(told: Json, type_: str) -> Json:
    """The participant of that type: a Reference, {} where there is none."""
    for one in told.get("participant") or ():
        actor = one.get("actor") if isinstance(one, dict) else None
        if isinstance(actor, dict) and is_a(actor, type_):
            return actor
    return {}


def is_a(reference: Json, type_: str) -> bool:
    return reference.get("type") == type_ or str(reference.get("reference", "")).startswith(f"{type_}/")
