"""What sessions would be like with seats added (加号), reckoned in a process of its own.

A session takes seconds of one core (engine/domain/overbooking.py), and a gateway has none to spare. It starts
`python -m engine.views.what_if`, writes the question into its standard input and reads a line of JSON for
each session as soon as that is reckoned: who has waited long enough keeps what there is.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import orjson

from engine.domain.overbooking import Limit, Outlook, Slot, Template, largest
from engine.domain.service_times import LogNormal

NICE: Final = 10  # bookings go first


@dataclass(frozen=True, slots=True)
class Asked:
    sessions: tuple[Template, ...]
    limit: Limit
    extra_absent: float
    extras_max: int


@dataclass(frozen=True, slots=True)
class Foreseen:
    most: int
    """seats that may be added"""
    curve: tuple[Outlook, ...]
    """with 0, 1, 2 … added; the last one may break the limit"""


def foresee(asked: Asked) -> Iterator[Foreseen]:
    """Session by session. Those that are alike are reckoned once."""
    known: dict[Template, Foreseen] = {}
    for session in asked.sessions:
        if session not in known:
            most, curve = largest(session, asked.limit, asked.extra_absent, asked.extras_max)
            known[session] = Foreseen(most, tuple(curve))
        yield known[session]


def pack_asked(asked: Asked) -> bytes:
    limit = asked.limit
    return orjson.dumps(
        {
            "sessions": [_plain(session) for session in asked.sessions],
            "wait_minutes": limit.wait_minutes,
            "chance": limit.chance,
            "overtime_minutes": None if limit.overtime_minutes == inf else limit.overtime_minutes,
            "extra_absent": asked.extra_absent,
            "extras_max": asked.extras_max,
        }
    )


def unpack_asked(packed: bytes) -> Asked:
    plain = orjson.loads(packed)
    overtime = plain["overtime_minutes"]
    return Asked(
        tuple(_template(session) for session in plain["sessions"]),
        Limit(plain["wait_minutes"], plain["chance"], inf if overtime is None else overtime),
        plain["extra_absent"],
        plain["extras_max"],
    )


def pack_foreseen(found: Foreseen) -> bytes:
    """One line."""
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)


def unpack_foreseen(line: bytes) -> Foreseen:
    plain = orjson.loads(line)
    return Foreseen(
        plain["most"],
        tuple(
            Outlook(
                tuple(look["extras"]),
                tuple(look["long_waits"]),
                look["share"],
                look["wait_minutes"],
                look["seen"],
                look["idle_minutes"],
                look["overtime_minutes"],
            )
            for look in plain["curve"]
        ),
    )


def _plain(session: Template) -> dict[str, Any]:
    return {
        "slots": [[slot.start_minute, list(slot.absent)] for slot in session.slots],
        "end_minute": session.end_minute,
        "service": [session.service.mu, session.service.variance],
        "days_differ": session.days_differ,
        "absences_differ": session.absences_differ,
        "late_minutes": session.late_minutes,
    }


def _template(plain: dict[str, Any]) -> Template:
    return Template(
        tuple(Slot(start, tuple(absent)) for start, absent in plain["slots"]),
        plain["end_minute"],
        LogNormal(*plain["service"]),
        plain["days_differ"],
        plain["absences_differ"],
        plain["late_minutes"],
    )


def main() -> None:
    os.nice(NICE)
    for found in foresee(unpack_asked(sys.stdin.buffer.read())):
        sys.stdout.buffer.write(pack_foreseen(found))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
