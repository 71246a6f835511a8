"""The JSON form's words, both ways, checked strictly. Pure. docs/HL7.md has them in a table.

What they say raises Unfit where it cannot be believed; `why` names a field and never a value.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final, Literal

from integrations.his.his import (
    Booking,
    Day,
    DaySession,
    Department,
    Heard,
    Kind,
    Locked,
    MasterHeard,
    Person,
    PersonHeard,
    Practitioner,
    Registration,
    RegistrationHeard,
    ScheduleHeard,
    Status,
)

VERSION: Final = 1
PERIODS: Final = ("morning", "afternoon", "night")
TEXT_CHARS_MAX: Final = 200
NUMBER_MAX: Final = 100_000
ROWS_MAX: Final = 5_000  # of a page
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_OUR_ID: Final = re.compile(r"[0-9a-f]{32}")


class Unfit(Exception):
    """What somebody said cannot be believed."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


# What we say.


def told_body(
    message_id: str, kind: Kind, booking: Booking, before: Booking | None, reason: str
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "message": message_id,
        "event": kind.value,
        "booking": booking_body(booking),
        "before": None if before is None else booking_body(before),
        "reason": reason,
    }


def booking_body(booking: Booking) -> dict[str, Any]:
    return {
        "id": booking.id,
        "department": booking.department,
        "practitioner": booking.practitioner,
        "schedule": booking.schedule,
        "session": booking.session,
        "starts_at": booking.starts_at.isoformat(),
        "ends_at": booking.ends_at.isoformat(),
        "number": booking.number,
        "fee_fen": booking.fee_fen,
        "channel": booking.channel,
        "person": person_body(booking.person),
    }


def person_body(person: Person) -> dict[str, Any]:
    born = person.birth_date
    return {
        "id": person.id,
        "his_id": person.his_id,
        "name": person.name,
        "sex": person.sex,
        "birth_date": None if born is None else born.isoformat(),
        "id_type": person.id_type,
        "id_number": person.id_number,
        "phone": person.phone,
    }


# What they say.


def his_id_of(answer: object, message_id: str) -> str:
    told = versioned(answer)
    if told.get("message") != message_id:
        raise Unfit("another_message")
    return _code(told, "his_id")


def locked_of(answer: object, booking_id: str) -> Locked:
    told = versioned(answer)
    if told.get("booking") != booking_id:
        raise Unfit("another_booking")
    return Locked(_code(told, "his_id"), _int(told, "number", 1))


def registration_of(told: object, with_person: bool = False) -> Registration:
    one = _object(told)
    booking_id = one.get("booking")
    if booking_id is not None and (not isinstance(booking_id, str) or _OUR_ID.fullmatch(booking_id) is None):
        raise Unfit("booking")
    person = one.get("person") if with_person else None
    return Registration(
        booking_id,
        _code(one, "his_id"),
        _code(one, "department"),
        _code(one, "practitioner"),
        _time(one, "starts_at"),
        None if one.get("number") is None else _int(one, "number", 0),
        _status(one),
        None if person is None else person_of(person),
    )


def page_of(answer: object, day: date) -> tuple[list[Registration], str]:
    """A part of a day, and where the next one begins; "" at its end."""
    told = versioned(answer)
    if told.get("day") != day.isoformat():
        raise Unfit("another_day")
    return [registration_of(one) for one in _list(told, "rows")], _text(told, "next")


def departments_of(answer: object) -> list[Department]:
    return [
        Department(_code(one, "code"), _name(one), _code(one, "parent") if one.get("parent") else None)
        for one in map(_object, _list(versioned(answer), "departments"))
    ]


def practitioners_of(answer: object) -> list[Practitioner]:
    return [
        Practitioner(_code(one, "code"), _name(one), _text(one, "title"), _code(one, "department"))
        for one in map(_object, _list(versioned(answer), "practitioners"))
    ]


def days_of(answer: object) -> list[Day]:
    return [
        Day(
            _code(one, "practitioner"),
            _code(one, "department"),
            _day(one, "date"),
            tuple(_session(each) for each in _list(one, "sessions")),
        )
        for one in map(_object, _list(versioned(answer), "days"))
    ]


def patient_of(answer: object) -> Person | None:
    told = versioned(answer).get("patient")
    return None if told is None else person_of(told)


def person_of(told: object) -> Person:
    one = _object(told)
    our_id, his_id, sex = one.get("id"), one.get("his_id"), one.get("sex")
    if our_id is not None and (not isinstance(our_id, str) or _OUR_ID.fullmatch(our_id) is None):
        raise Unfit("person.id")
    if sex not in (None, "male", "female"):
        raise Unfit("person.sex")
    return Person(
        our_id,
        None if his_id is None else _code(one, "his_id"),
        _text(one, "name"),
        sex,
        None if one.get("birth_date") is None else _day(one, "birth_date"),
        _text(one, "id_type"),
        _text(one, "id_number"),
        _text(one, "phone"),
    )


def heard_of(body: object) -> Heard:
    """A notice of theirs: {"version", "message", "at", "event", ...}. Raises Unfit."""
    told = versioned(body)
    message_id, at = _code(told, "message"), _time(told, "at")
    match told.get("event"):
        case "registration":
            return RegistrationHeard(message_id, at, registration_of(told.get("registration"), True))
        case "schedule":
            what = told.get("what")
            if what not in ("opened", "capacity", "suspended", "resumed"):
                raise Unfit("what")
            chosen: Literal["opened", "capacity", "suspended", "resumed"] = what
            period = told.get("period")
            if period is not None and period not in PERIODS:
                raise Unfit("period")
            return ScheduleHeard(
                message_id,
                at,
                _code(told, "practitioner"),
                _code(told, "department"),
                _day(told, "day"),
                period,
                chosen,
                None if told.get("capacity") is None else _int(told, "capacity", 0),
                _text(told, "reason"),
            )
        case "person":
            merged = told.get("merged_from")
            return PersonHeard(
                message_id,
                at,
                person_of(told.get("person")),
                None if merged is None else _code(told, "merged_from"),
            )
        case "department":
            return MasterHeard(message_id, at, "department", _code(told, "code"), _name(told))
        case "practitioner":
            return MasterHeard(
                message_id,
                at,
                "practitioner",
                _code(told, "code"),
                _name(told),
                _text(told, "title"),
                _text(told, "department"),
            )
    raise Unfit("event")


def code_of(answer: object) -> str:
    """Their word for a refusal; "" where there is none."""
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def versioned(told: object) -> dict[str, Any]:
    whole = _object(told)
    version = whole.get("version")
    if version != VERSION or isinstance(version, bool):
        raise Unfit("version")
    return whole


def _session(told: object) -> DaySession:
    one = _object(told)
    period, status = one.get("period"), one.get("status")
    if period not in PERIODS or status not in ("open", "suspended"):
        raise Unfit("sessions")
    return DaySession(str(period), _int(one, "capacity", 0), str(status))


def _status(told: dict[str, Any]) -> Status:
    try:
        return Status(_text(told, "status"))
    except ValueError:
        raise Unfit("status") from None


def _object(told: object) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise Unfit("shape")
    return told


def _list(told: dict[str, Any], name: str) -> Sequence[object]:
    found = told.get(name)
    if not isinstance(found, list) or len(found) > ROWS_MAX:
        raise Unfit(name)
    return found


def _int(told: dict[str, Any], name: str, least: int) -> int:
    found = told.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= NUMBER_MAX:
        raise Unfit(name)
    return found


def _text(told: dict[str, Any], name: str) -> str:
    found = told.get(name, "")
    if not isinstance(found, str) or len(found) > TEXT_CHARS_MAX or (found and not found.isprintable()):
        raise Unfit(name)
    return found


def _name(told: dict[str, Any]) -> str:
    found = _text(told, "name").strip()
    if not found:
        raise Unfit("name")
    return found


def _code(told: dict[str, Any], name: str) -> str:
    found = told.get(name)
    if not isinstance(found, str) or _CODE.fullmatch(found) is None:
        raise Unfit(name)
    return found


def _time(told: dict[str, Any], name: str) -> datetime:
    try:
        at = datetime.fromisoformat(_text(told, name))
    except ValueError:
        raise Unfit(name) from None
    if at.tzinfo is None:
        raise Unfit(name)
    return at


def _day(told: dict[str, Any], name: str) -> date:
    try:
        return date.fromisoformat(_text(told, name))
    except ValueError:
        raise Unfit(name) from None
