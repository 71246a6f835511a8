"""What only a replay can tell of waiting rooms: the ticket table, and the appointments of those who came,
against the rooms that their events make. See web/audit.py."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
import orjson

from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ScheduleKey, ticket_id
from engine.journal.codec import EVENT_CODES, unpack_event
from engine.journal.rooms import enact_room
from web.audit_replay import Check, word

STREAMS_AT_ONCE: Final = 100  # a department's day may have thousands of events

_NAMES: Final = (
    *("department", "day", "patient", "appointment", "prefix", "number", "status", "queue", "practitioner"),
    *("room", "stage", "stages", "visit", "priority", "emergency", "starts", "arrived", "called", "started"),
    *("finished", "done", "version"),
)
"""Of what engine/journal/rooms.py writes of a ticket, in its order."""

_TICKETS: Final = """
select id, department_id, day, patient_id, appointment_id, prefix, number, status, queue_id,
       practitioner_id, room_id, stage, stages, visit, priority, emergency, starts_at, arrived_at,
       first_called_at, started_at, finished_at, done::text, version
  from ticket"""


@dataclass(slots=True)
class _Replayed:
    """A room, and what its way to here has told others and the screens."""

    room: w.WaitingRoom = field(default_factory=w.WaitingRoom)
    rows: dict[bytes, list[object]] = field(default_factory=dict)
    """ticket -> its row, as it was written last."""
    attendance: dict[bytes, int] = field(default_factory=dict)
    """appointment -> what its day was told last."""
    calls: int = 0
    amiss: list[str] = field(default_factory=list)
    """Of the calls: what is not in the order in which it must have happened."""

    def apply(self, key: RoomKey, event: w.Event) -> None:
        before, sequence = self.room.at, self.room.call_sequence
        more = enact_room(self.room, key, event, event.at).more
        if event.at < before:
            self.amiss.append(f"{type(event).__name__} at {event.at} comes after something at {before}")
        new = [call.sequence for call in self.room.calls if call.sequence > sequence]
        if new != [*range(sequence + 1, self.room.call_sequence + 1)]:
            self.amiss.append(f"after call {sequence} come {new}")
        self.calls += len(new)
        if more is not None:
            self.rows.update((bytes.fromhex(id_), row) for id_, row in more.tickets.items())
            for _, appointment_id, data in more.errands:
                self.attendance[bytes.fromhex(str(appointment_id))] = cast(dict[str, int], data)["status"]


class RoomComparison:
    """Room by room, some hundred at a time."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._replays = Check("rooms replay")
        self._tickets = Check("tickets as replayed")
        self._numbers = Check("ticket numbers unique")
        self._places = Check("nobody in two places")
        self._calls = Check("calls in sequence")
        self._arrivals = Check("who came has arrived")

    async def run(self) -> list[Check]:
        rows = await self._connection.fetch(
            "select distinct stream from event where stream like 'room/%' order by stream"
        )
        keys = [RoomKey.of_stream(row["stream"]) for row in rows]
        for first in range(0, len(keys), STREAMS_AT_ONCE):
            await self._compare(keys[first : first + STREAMS_AT_ONCE])
        await self._table()
        known = [f"{key.department_id}/{key.day}" for key in keys]
        for row in await self._connection.fetch(
            "select id, department_id, day from ticket"
            " where not (department_id || '/' || day::text = any ($1)) order by id",
            known,
        ):
            self._tickets.wrong(f"{row['id']} of {row['department_id']} on {row['day']}: in the table alone")
        return [
            self._replays,
            self._tickets,
            self._numbers,
            self._places,
            self._calls,
            self._arrivals,
        ]

    async def _compare(self, keys: list[RoomKey]) -> None:
        events: dict[str, list[w.Event]] = {key.stream: [] for key in keys}
        unreadable: dict[str, str] = {}
        for row in await self._connection.fetch(
            "select stream, version, type, data from event where stream = any ($1) order by stream, version",
            list(events),
        ):
            self._replays.examined += 1
            try:
                events[row["stream"]].append(cast(w.Event, unpack_event(row["type"], row["data"])))
            except Exception as error:  # damaged bytes may raise anything, and the audit must go on
                unreadable.setdefault(row["stream"], f"event {row['version']}: {error!r}")
        tickets: dict[tuple[str, date], list[asyncpg.Record]] = {}
        for row in await self._connection.fetch(
            f"{_TICKETS} where department_id = any ($1) and day = any ($2::date[])",
            list({key.department_id for key in keys}),
            list({date.fromisoformat(key.day) for key in keys}),
        ):
            tickets.setdefault((row["department_id"], row["day"]), []).append(row)
        attendance: dict[bytes, tuple[int, w.Ticket]] = {}
        for key in keys:
            why = unreadable.get(key.stream)
            replayed = _Replayed()
            try:
                for event in events[key.stream] if why is None else ():
                    replayed.apply(key, event)
                opened = RoomKey(replayed.room.department_id, replayed.room.day)
                if why is None and opened != key:
                    why = "was never opened"
            except Exception as error:  # as above: a journal with a hole may break anything
                why = repr(error)
            if why is not None:
                self._replays.wrong(f"{key.stream}: {why}")
                continue
            found = tickets.get((key.department_id, date.fromisoformat(key.day)), [])
            self._compare_one(key, replayed, found)
            for appointment_id, status in replayed.attendance.items():
                attendance[appointment_id] = status, replayed.room.tickets[ticket_id(appointment_id)]
        await self._compare_arrivals(attendance)

    def _compare_one(self, key: RoomKey, replayed: _Replayed, rows: list[asyncpg.Record]) -> None:
        room = replayed.room
        self._tickets.examined += len(room.tickets)
        found = {row["id"].bytes: _row_of(row) for row in rows}
        for id_ in sorted(found.keys() | replayed.rows.keys()):
            have, want = found.get(id_), replayed.rows.get(id_)
            if have is None:
                self._tickets.wrong(f"{UUID(bytes=id_)} of {key.stream} is in the journal alone")
            elif want is None:
                self._tickets.wrong(f"{UUID(bytes=id_)} of {key.stream} is in the table alone")
            elif have != want:
                pairs = zip(_NAMES, have, want, strict=True)
                said = ", ".join(
                    f"{name} {mine!r} for {true!r}" for name, mine, true in pairs if mine != true
                )
                self._tickets.wrong(f"{UUID(bytes=id_)} of {key.stream}: the table has {said}")
        labels = Counter((ticket.prefix, ticket.number) for ticket in room.tickets.values())
        for (prefix, number), times in labels.items():
            if times > 1:
                self._numbers.wrong(f"{key.stream}: {prefix}{number:03} was given {times} times")
        if error := w.conservation_error(room):
            self._places.wrong(f"{key.stream}: {error} tickets are in no place or in two")
        self._calls.examined += replayed.calls
        for amiss in replayed.amiss:
            self._calls.wrong(f"{key.stream}: {amiss}")

    async def _compare_arrivals(self, attendance: dict[bytes, tuple[int, w.Ticket]]) -> None:
        """What was told of each booked patient is so by now, or an errand is on its way."""
        self._arrivals.examined += len(attendance)
        rows = {
            row["id"].bytes: row
            for row in await self._connection.fetch(
                "select a.id, a.schedule_id, a.status, a.fate,"
                "       exists (select from errand e where e.key = replace(a.id::text, '-', '')"
                "                and e.kind in ('attendance', 'leave_ticket')) as is_told,"
                "       exists (select from appointment b where b.id <> a.id and b.status <= 4"
                "                and (b.slot_id = a.slot_id and b.seat = a.seat"
                "                     or b.patient_id = a.patient_id"
                "                        and b.schedule_id = a.schedule_id)) as is_replaced"
                "  from appointment a where a.id = any ($1::uuid[])",
                [UUID(bytes=id_) for id_ in attendance],
            )
        }
        for id_, (told, ticket) in sorted(attendance.items(), key=lambda one: one[0]):
            row = rows.get(id_)
            if row is None:
                self._arrivals.wrong(f"{ticket.label} is the ticket of {UUID(bytes=id_)}, no appointment")
            elif not row["is_told"] and not await self._is_so(row, told, ticket):
                status = word(row["status"])
                self._arrivals.wrong(f"{ticket.label} was {word(told)}: appointment {row['id']} is {status}")

    async def _is_so(self, row: asyncpg.Record, told: int, ticket: w.Ticket) -> bool:
        match row["status"]:
            case s.Status.FULFILLED:
                return True
            case s.Status.ARRIVED:
                return told == s.Status.ARRIVED
            case s.Status.CANCELLED:
                # Whoever is being seen, or was sent on by then, is not sent home.
                gone = ticket.status in (*w.OVER, w.Status.SERVING) or bool(ticket.standing.done)
                return gone or told == s.Status.FULFILLED
            case s.Status.NOSHOW if row["is_replaced"]:
                return True
            case _ if row["fate"] is not None:
                return True  # its session was called off, and others see to it
            case status:
                heard = await self._heard(row["schedule_id"], row["id"].bytes)
                return told in heard and heard[-1] == status  # taken back by hand, since

    async def _heard(self, schedule_id: str, appointment_id: bytes) -> list[int]:
        """What the day has written of whether the patient came, in order."""
        key = ScheduleKey.of_schedule(schedule_id)
        rows = await self._connection.fetch(
            "select data from event where stream = $1 and type = $2 order by version",
            "" if key is None else key.stream,
            EVENT_CODES[s.AttendanceRecorded],
        )
        events = (unpack_event(EVENT_CODES[s.AttendanceRecorded], row["data"]) for row in rows)
        return [
            event.status
            for event in events
            if isinstance(event, s.AttendanceRecorded) and event.appointment_id == appointment_id
        ]

    # What SQL can tell by itself.

    async def _table(self) -> None:
        self._numbers.examined = await self._connection.fetchval("select count(*) from ticket")
        self._places.examined = self._numbers.examined
        for row in await self._connection.fetch(
            "select department_id, day, prefix, number, count(*) as n from ticket"
            " group by department_id, day, prefix, number having count(*) > 1 order by 1, 2, 3, 4"
        ):
            self._numbers.wrong(
                f"{row['department_id']} on {row['day']}: {row['prefix']}{row['number']:03} is given"
                f" {row['n']} times"
            )
        for row in await self._connection.fetch(
            "select department_id, day, patient_id, count(*) as n from ticket where status < $1"
            " group by department_id, day, patient_id having count(*) > 1 order by 1, 2, 3",
            min(w.OVER),
        ):
            self._places.wrong(
                f"{row['department_id']} on {row['day']}: patient {row['patient_id']} waits {row['n']} times"
            )
        for row in await self._connection.fetch(
            "select department_id, day, room_id, count(*) as n from ticket where status = any ($1)"
            " group by department_id, day, room_id having count(*) > 1 or room_id = '' order by 1, 2, 3",
            [int(status) for status in w.IN_ROOM],
        ):
            self._places.wrong(
                f"{row['department_id']} on {row['day']}: {row['n']} are called to room {row['room_id']!r}"
            )


def _row_of(row: asyncpg.Record) -> list[object]:
    """As engine/journal/rooms.py writes it."""
    appointment = row["appointment_id"]
    values: list[Any] = list(row.values())[5:-2]
    return [
        row["department_id"],
        row["day"].isoformat(),
        row["patient_id"].hex,
        None if appointment is None else appointment.hex,
        *(_ms(value) if isinstance(value, datetime) else value for value in values),
        orjson.loads(row["done"]),
        row["version"],
    ]


def _ms(at: datetime) -> int:
    return round(at.astimezone(UTC).timestamp() * 1000)
