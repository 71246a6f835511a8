"""Registrations, people and places as HL7 v2 has them: what we write, and what we read of theirs. Pure.

Reading raises Malformed, with where. docs/HL7.md has the fields in a table.
"""

import re
from datetime import datetime, tzinfo
from typing import Final

from integrations.his.his import Booking, Kind, Person, Registration, Status
from integrations.his.hl7_codes import (
    FILLER,
    NUMBER,
    OF_KIND,
    OF_PAPER,
    OF_SEX,
    OF_TRIGGER,
    OURS,
    PAPERS,
    SEX,
    STATUSES,
    THEIR_NUMBER,
)
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Message, One, Row, Segment
from integrations.hl7v2.times import date_of, day, stamp, time_of

NUMBER_MAX: Final = 100_000
NAME_CHARS_MAX: Final = 200
_CODE: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)
_OUR_ID: Final = re.compile(r"[0-9a-f]{32}")
_DIGITS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


# What we write.


def schedule_rows(kind: Kind, booking: Booking, before: Booking | None, reason: str) -> list[Row]:
    """SCH to the resources, of a SIU."""
    sch, *rest = _appointment(booking, OF_KIND[kind])
    values = dict(sch[1])
    values[6] = (kind.value, reason) if reason else (kind.value,)
    if before is not None and before.id != booking.id:
        values[23] = (before.id, OURS)
    action = {Kind.BOOKED: "A", Kind.CANCELLED: "D"}.get(kind, "U")
    return [("SCH", values), *person_rows(booking.person), *visit_rows(booking), *_resources(booking, action)]


def _appointment(booking: Booking, status: Status) -> list[Row]:
    return [
        (
            "SCH",
            {
                1: (booking.id, OURS),
                5: (booking.schedule,),
                6: (Kind.BOOKED.value,),
                7: ("ROUTINE",),
                8: (booking.session,),
                9: str(_minutes(booking)),
                10: ("min",),
                11: ("", "", "", stamp(booking.starts_at), stamp(booking.ends_at)),
                16: ("1", OURS),
                20: (booking.channel, OURS),
                25: (FILLER[status],),
            },
        )
    ]


def _resources(booking: Booking, action: str) -> list[Row]:
    start = stamp(booking.starts_at)
    minutes = str(_minutes(booking))
    return [
        ("RGS", {1: "1", 2: action}),
        ("AIS", {1: "1", 2: action, 3: (booking.department,), 4: start, 7: minutes, 8: ("min",)}),
        ("AIL", {1: "1", 2: action, 3: (booking.department,), 6: start, 9: minutes, 10: ("min",)}),
        (
            "AIP",
            {
                1: "1",
                2: action,
                3: (booking.practitioner,),
                4: ("D",),
                6: start,
                9: minutes,
                10: ("min",),
            },
        ),
        place_row(booking),
    ]


def place_row(booking: Booking) -> Row:
    return (
        NUMBER,
        {
            1: str(booking.number),
            2: booking.session,
            3: str(booking.fee_fen),
            4: booking.channel,
            5: booking.schedule,
        },
    )


def person_rows(person: Person) -> list[Row]:
    numbers: list[One] = []
    if person.id:
        numbers.append((person.id, "", "", OURS, "PI"))
    if person.his_id:
        numbers.append((person.his_id, "", "", "HIS", "MR"))
    if person.id_number:
        numbers.append((person.id_number, "", "", "", PAPERS.get(person.id_type, "")))
    born = person.birth_date
    return [
        (
            "PID",
            {
                1: "1",
                3: numbers,
                5: ((person.name,), "", "", "", "", "", "L"),
                7: "" if born is None else day(born),
                8: SEX.get(person.sex or "", "U"),
                13: (person.phone, "PRN", "CP") if person.phone else "",
            },
        )
    ]


def visit_rows(booking: Booking) -> list[Row]:
    return [
        (
            "PV1",
            {
                1: "1",
                2: "O",
                3: (booking.department,),
                7: (booking.practitioner,),
                19: (booking.id, "", "", OURS, "VN"),
            },
        )
    ]


def arrival_rows(booking: Booking, at: datetime) -> list[Row]:
    """ADT^A04."""
    pv1 = visit_rows(booking)[0]
    values = {**pv1[1], 44: stamp(at)}
    return [
        ("EVN", {1: "A04", 2: stamp(at)}),
        *person_rows(booking.person),
        ("PV1", values),
        place_row(booking),
    ]


def request_rows(booking: Booking) -> list[Row]:
    """SRM^S01 asks for a place."""
    arq: Row = (
        "ARQ",
        {
            1: (booking.id, OURS),
            5: (booking.schedule,),
            7: ("ROUTINE",),
            8: (booking.session,),
            9: str(_minutes(booking)),
            10: ("min",),
            11: (stamp(booking.starts_at), stamp(booking.ends_at)),
            15: ("1", OURS),
            19: (booking.channel, OURS),
        },
    )
    return [arq, *person_rows(booking.person), *visit_rows(booking), *_resources(booking, "A")]


def release_rows(booking_id: str) -> list[Row]:
    """SRM^S04 gives it back: the id alone counts."""
    return [
        ("ARQ", {1: (booking_id, OURS), 7: ("ROUTINE",), 15: ("1", OURS), 19: ("1", OURS)}),
        ("RGS", {1: "1", 2: "D"}),
    ]


def _minutes(booking: Booking) -> int:
    return max(1, round((booking.ends_at - booking.starts_at).total_seconds() / 60))


# What we read.


def registration_of(
    group: Message, zone: tzinfo, trigger: str = "", with_person: bool = False
) -> Registration:
    """Of one SCH and what belongs to it. `trigger`: says what SCH-25 does not."""
    sch = group.first("SCH")
    pid = group.find("PID") if with_person else None
    return Registration(
        our_id(sch.text(1), sch.text(1, 2)),
        code(sch, 2),
        department_of(group),
        practitioner_of(group),
        _start(group, zone),
        _number(group),
        _status(sch, trigger),
        None if pid is None else person_of(pid),
    )


def our_id(text: str, authority: str) -> str | None:
    """None: an id of somebody else's."""
    return text if authority in (OURS, "") and _OUR_ID.fullmatch(text) else None


def department_of(group: Message) -> str:
    return _first_code(group, (("AIL", 3), ("PV1", 3), ("AIS", 3)))


def practitioner_of(group: Message) -> str:
    return _first_code(group, (("AIP", 3), ("PV1", 7)))


def person_of(pid: Segment) -> Person:
    ours, theirs, id_type, id_number = None, None, "", ""
    for n in range(1, pid.count(3) + 1):
        number, kind = pid.text(3, 1, repetition=n), pid.text(3, 5, repetition=n)
        authority = pid.text(3, 4, repetition=n)
        if authority == OURS:
            ours = our_id(number, authority)
        elif kind in OF_PAPER:
            id_type, id_number = OF_PAPER[kind], short(number, "PID-3.1")
        elif kind in THEIR_NUMBER and theirs is None and number:
            theirs = checked(number, "PID-3.1")
    name = (pid.text(5, 1) + pid.text(5, 2)).strip()
    born = pid.text(7)
    return Person(
        ours,
        theirs,
        short(name, "PID-5"),
        OF_SEX.get(pid.text(8)),
        date_of(born, "PID-7") if born else None,
        id_type,
        id_number,
        short(pid.text(13, 1) or pid.text(13, 12), "PID-13"),
    )


def code(segment: Segment, field: int, component: int = 1) -> str:
    return checked(segment.text(field, component), f"{segment.name}-{field}.{component}")


def checked(text: str, where: str) -> str:
    if not text:
        raise Malformed(where, "missing")
    if _CODE.fullmatch(text) is None:
        raise Malformed(where, "code", "what is no code")
    return text


def short(text: str, where: str) -> str:
    if len(text) > NAME_CHARS_MAX or (text and not text.isprintable()):
        raise Malformed(where, "text", "a text that is too long or has control characters")
    return text


def whole_number(text: str, where: str) -> int | None:
    if not text:
        return None
    if _DIGITS.fullmatch(text) is None or int(text) > NUMBER_MAX:
        raise Malformed(where, "number")
    return int(text)


def _first_code(group: Message, places: tuple[tuple[str, int], ...]) -> str:
    for name, field in places:
        segment = group.find(name)
        if segment is not None and segment.text(field):
            return code(segment, field)
    raise Malformed("-".join(map(str, places[0])), "missing")


def _start(group: Message, zone: tzinfo) -> datetime:
    for name, field, component in (("SCH", 11, 4), ("TQ1", 7, 1), ("AIP", 6, 1), ("AIS", 4, 1)):
        segment = group.find(name)
        text = "" if segment is None else segment.text(field, component)
        if text:
            where = f"{name}-{field}.{component}"
            if len(text) < 12:
                raise Malformed(where, "time", "a time without its minutes")
            return time_of(text, zone, where)
    raise Malformed("SCH-11.4", "missing")


def _number(group: Message) -> int | None:
    place = group.find(NUMBER)
    return None if place is None else whole_number(place.text(1), f"{NUMBER}-1")


def _status(sch: Segment, trigger: str) -> Status:
    said = sch.text(25).upper()
    if not said and trigger in OF_TRIGGER:
        return OF_TRIGGER[trigger]
    if said not in STATUSES:
        raise Malformed("SCH-25.1", "code", "a status that is not known")
    if trigger in ("S15", "S16", "S17"):
        return Status.CANCELLED
    return STATUSES[said]
