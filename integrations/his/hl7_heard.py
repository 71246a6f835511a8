"""What a HIS tells us by HL7 v2, in neutral words. Pure; raises Malformed, Unsupported.

SIU S12 S13 S14 S15 S16 S17 S26     a registration (S12 of a window's, S15 of its end …)
SIU S18 S19 S23 S24                 a session opened, of another size, suspended (停诊), resumed
ADT A04 A05 A08 A28 A31             a person; A04 with our visit number: that one arrived
ADT A40                             two of their numbers are one person
MFN M02, M05                        practitioners, departments
"""

from datetime import datetime, tzinfo
from typing import Final, Literal

from integrations.his import hl7_words as words
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
from integrations.his.hl7_codes import NUMBER, PERIODS
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Message
from integrations.hl7v2.times import time_of

_REGISTRATIONS: Final = ("S12", "S13", "S14", "S15", "S16", "S17", "S26")
_WHAT: Final[dict[str, Literal["opened", "capacity", "suspended", "resumed"]]] = {
    "S18": "opened",
    "S19": "capacity",
    "S23": "suspended",
    "S24": "resumed",
}
_PEOPLE: Final = ("A01", "A04", "A05", "A08", "A28", "A31")


class Unsupported(Malformed):
    """Of a kind that is not taken here."""

    def __init__(self) -> None:
        super().__init__("MSH-9", "kind", "a kind of message that is not taken here")


def heard_of(message: Message, zone: tzinfo) -> list[Heard]:
    """In their order; a message's id names its sender, too."""
    id_ = f"{message.sending[0]}/{message.control_id}"
    said_at = message.header.text(7)
    at = time_of(said_at, zone, "MSH-7") if said_at else datetime.fromtimestamp(0, zone)
    match message.kind:
        case ("SIU", trigger) if trigger in _REGISTRATIONS:
            return [RegistrationHeard(id_, at, words.registration_of(message, zone, trigger, True))]
        case ("SIU", trigger) if trigger in _WHAT:
            return [_schedule(id_, at, message, zone, _WHAT[trigger])]
        case ("ADT", "A40"):
            old = message.first("MRG").text(1)
            return [PersonHeard(id_, at, _person(message), words.checked(old, "MRG-1.1"))]
        case ("ADT", trigger) if trigger in _PEOPLE:
            arrived = _arrival(message, zone) if trigger == "A04" else None
            if arrived is not None:
                return [RegistrationHeard(id_, at, arrived)]
            return [PersonHeard(id_, at, _person(message))]
        case ("MFN", "M02"):
            return _master(id_, at, message, "practitioner")
        case ("MFN", "M05"):
            return _master(id_, at, message, "department")
    raise Unsupported


def _person(message: Message) -> Person:
    pid = message.first("PID")
    person = words.person_of(pid)
    if person.his_id is None:
        raise Malformed("PID-3", "missing", "no patient number of theirs")
    return person


def _arrival(message: Message, zone: tzinfo) -> Registration | None:
    """Of a visit that is one of our numbers."""
    pv1 = message.find("PV1")
    ours = None if pv1 is None else words.our_id(pv1.text(19), pv1.text(19, 4))
    if pv1 is None or ours is None:
        return None
    at = pv1.text(44)
    if not at:
        raise Malformed("PV1-44", "missing")
    place = message.find(NUMBER)
    return Registration(
        ours,
        words.checked(pv1.text(50) or ours, "PV1-50.1"),
        words.department_of(message),
        words.practitioner_of(message),
        time_of(at, zone, "PV1-44"),
        None if place is None else words.whole_number(place.text(1), f"{NUMBER}-1"),
        Status.ARRIVED,
        words.person_of(message.first("PID")),
    )


def _schedule(
    id_: str,
    at: datetime,
    message: Message,
    zone: tzinfo,
    what: Literal["opened", "capacity", "suspended", "resumed"],
) -> ScheduleHeard:
    sch = message.first("SCH")
    start = sch.text(11, 4)
    if not start:
        raise Malformed("SCH-11.4", "missing")
    period = sch.text(8) or None
    if period is not None and period not in PERIODS:
        raise Malformed("SCH-8.1", "code", "a session that is not known")
    place = message.find(NUMBER)
    capacity = None if place is None else words.whole_number(place.text(6), f"{NUMBER}-6")
    if what == "capacity" and capacity is None:
        raise Malformed(f"{NUMBER}-6", "missing")
    return ScheduleHeard(
        id_,
        at,
        words.practitioner_of(message),
        words.department_of(message),
        time_of(start, zone, "SCH-11.4").date(),
        period,
        what,
        capacity,
        words.short(sch.text(6, 2) or sch.text(6), "SCH-6.2"),
    )


def _master(
    id_: str, at: datetime, message: Message, kind: Literal["department", "practitioner"]
) -> list[Heard]:
    heard: list[Heard] = []
    for n, one in enumerate(message.groups("MFE"), 1):
        if one.first("MFE").text(1) == "MDL":
            continue  # what is deleted there keeps its past here
        if kind == "practitioner":
            staff, practice = one.first("STF"), one.find("PRA")
            name = staff.text(3, 1) + staff.text(3, 2)
            code = words.code(staff, 1)
            title = staff.text(18)
            department = staff.text(8) or ("" if practice is None else practice.text(2))
        else:
            place = one.first("LOC")
            code, name, title, department = words.code(place, 1), place.text(2), "", ""
        if not name.strip():
            raise Malformed("STF-3" if kind == "practitioner" else "LOC-2", "missing")
        name = words.short(name.strip(), "MFE")
        heard.append(
            MasterHeard(f"{id_}/{n}", at, kind, code, name, words.short(title, "STF-18"), department)
        )
    if not heard and message.find("MFE") is None:
        raise Malformed("MFE", "missing")
    return heard
