"""What the HIS says by itself, as the intake keeps it: plain mappings with times as ISO text, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from typing import Any, Final

from integrations.his.his import (
    Heard,
    MasterHeard,
    Person,
    PersonHeard,
    Registration,
    RegistrationHeard,
    ScheduleHeard,
    Status,
)

REGISTRATION: Final = "his.registration"
SCHEDULE: Final = "his.schedule"
PERSON: Final = "his.person"
MASTER: Final = "his.master"

_INTERFACES: Final = {
    RegistrationHeard: REGISTRATION,
    ScheduleHeard: SCHEDULE,
    PersonHeard: PERSON,
    MasterHeard: MASTER,
}


def interface_of(heard: Heard) -> str:
    return _INTERFACES[type(heard)]


def aggregate_of(heard: Heard) -> str:
    """What must be used in the order in which it came."""
    match heard:
        case RegistrationHeard():
            return heard.registration.booking_id or heard.registration.his_id
        case ScheduleHeard():
            return f"{heard.practitioner}/{heard.day.isoformat()}"
        case PersonHeard():
            return heard.person.his_id or ""
        case MasterHeard():
            return f"{heard.kind}/{heard.code}"


def body_of(heard: Heard) -> dict[str, Any]:
    plain = _plain(asdict(heard))
    assert isinstance(plain, dict)
    plain.pop("message_id")
    return plain


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case datetime() | date():
            return value.isoformat()
        case Status():
            return value.value
        case _:
            return value


def registration_of(body: Mapping[str, Any]) -> Registration:
    told = body["registration"]
    person = told.get("person")
    return Registration(
        told.get("booking_id"),
        told["his_id"],
        told["department"],
        told["practitioner"],
        datetime.fromisoformat(told["starts_at"]),
        told.get("number"),
        Status(told["status"]),
        None if person is None else person_of(person),
    )


def person_of(told: Mapping[str, Any]) -> Person:
    born = told.get("birth_date")
    return Person(
        told.get("id"),
        told.get("his_id"),
        told.get("name") or "",
        told.get("sex"),
        None if born is None else date.fromisoformat(born),
        told.get("id_type") or "",
        told.get("id_number") or "",
        told.get("phone") or "",
    )


def schedule_of(body: Mapping[str, Any], message_id: str = "") -> ScheduleHeard:
    return ScheduleHeard(
        message_id,
        datetime.fromisoformat(body["at"]),
        body["practitioner"],
        body["department"],
        date.fromisoformat(body["day"]),
        body.get("period"),
        body["what"],
        body.get("capacity"),
        body.get("reason") or "",
    )
