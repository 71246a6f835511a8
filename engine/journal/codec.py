"""Bytes on the wire and in the journal: msgpack of a type code and the fields in order.

Codes are for ever. Fields are only ever added, at the end and with a default, so that old bytes still read.
"""

from operator import attrgetter
from typing import Any, Final

import msgpack

from engine.domain import schedule
from engine.domain.planning import plan_as_data, plan_from_data
from engine.domain.refusal import Reason, Refusal
from engine.domain.schedule import Answer, Command, Event

EVENT_CODES: Final[dict[type, int]] = {
    schedule.ScheduleOpened: 1,
    schedule.SeatHeld: 2,
    schedule.SeatBooked: 3,
    schedule.SeatReleased: 4,
}
COMMAND_CODES: Final[dict[type, int]] = {
    schedule.HoldSeat: 1,
    schedule.ConfirmAppointment: 2,
    schedule.CancelAppointment: 3,
}

_EVENTS = {code: kind for kind, code in EVENT_CODES.items()}
_COMMANDS = {code: kind for kind, code in COMMAND_CODES.items()}


def _fields_of(kind: type) -> Any:
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


_FIELDS = {kind: _fields_of(kind) for kind in (*EVENT_CODES, *COMMAND_CODES, Answer)}


def pack_event(event: Event) -> bytes:
    if isinstance(event, schedule.ScheduleOpened):
        packed: bytes = msgpack.packb((plan_as_data(event.plan),))
    else:
        packed = msgpack.packb(_FIELDS[type(event)](event))
    return packed


def unpack_event(code: int, data: bytes) -> Event:
    kind = _EVENTS[code]
    fields = msgpack.unpackb(data)
    if kind is schedule.ScheduleOpened:
        return schedule.ScheduleOpened(plan_from_data(fields[0]))
    event: Event = kind(*fields)
    return event


# A batch from a gateway to a shard: [[stream, ms left, command code, fields], …]; what comes back, in order:
# [0, fields of Answer] or [1, reason, detail].

Ask = tuple[str, int, Command]


def pack_asks(asks: list[Ask]) -> bytes:
    packed: bytes = msgpack.packb(
        [
            (stream, ms_left, COMMAND_CODES[type(command)], _FIELDS[type(command)](command))
            for stream, ms_left, command in asks
        ]
    )
    return packed


def unpack_asks(data: bytes) -> list[Ask]:
    return [(stream, ms, _COMMANDS[code](*fields)) for stream, ms, code, fields in msgpack.unpackb(data)]


def pack_replies(replies: list[Answer | Refusal]) -> bytes:
    packed: bytes = msgpack.packb(
        [
            (1, reply.reason, reply.detail) if isinstance(reply, Refusal) else (0, _FIELDS[Answer](reply))
            for reply in replies
        ]
    )
    return packed


def unpack_replies(data: bytes) -> list[Answer | Refusal]:
    return [
        Answer(*rest[0]) if kind == 0 else Refusal(Reason(rest[0]), rest[1])
        for kind, *rest in msgpack.unpackb(data)
    ]
