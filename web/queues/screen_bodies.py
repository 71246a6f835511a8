"""What call screens show and say, and what of a ticket is pushed to its patient. Plain data, but for calls:
these are kept as bytes, made once for everybody who looks.

A call's `sequence` says its day as well as its place in that day, so that it only ever grows, and a screen
that was off for a night does not take today's calls for yesterday's: 2026-11-24 and 17 give 2026112400017.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, Final
from uuid import UUID

import orjson

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ScheduleKey
from engine.domain.queue_order import Across, Band, Rank, Rules
from engine.domain.waiting_terms import ScreenTerms
from engine.records.catalog import Catalog
from engine.views.availability import Availability
from web.queues.estimates import Estimate
from web.queues.topic_state import Sections

NEXT_MAX: Final = 5  # numbers a screen may go on showing by itself
LAST_MAX: Final = 10  # calls in a whole state
_DAY_FACTOR: Final = 100_000  # more calls than a department's day has
_DOOR_ZH: Final = "请 {number} {name} 到 {room} 门口候诊"
_DOOR_EN: Final = "{number} {name}, please wait outside {room}"

Shown = dict[str, Any]
Names = Mapping[bytes, str]
"""Patient -> name, of those that are known."""


def sequence_of(day: str, n: int) -> int:
    """`day` is yyyy-mm-dd."""
    return int(day.replace("-", "")) * _DAY_FACTOR + n


def is_of_day(sequence: int, day: str) -> bool:
    return sequence // _DAY_FACTOR == int(day.replace("-", ""))


def compact(told: Shown) -> bytes:
    """As JSON, in no more memory than it needs: what orjson returns keeps 4 KiB."""
    return bytes(memoryview(orjson.dumps(told)))


class Drawing:
    """How things of one department's day are shown."""

    def __init__(
        self, key: RoomKey, availability: Availability, terms: ScreenTerms, zone: tzinfo, names: Names
    ) -> None:
        self._key = key
        self._catalog: Catalog = availability.catalog
        self._availability = availability
        self._terms = terms
        self._zone = zone
        self._names = names

    def call(self, room: w.WaitingRoom, call: w.Call) -> bytes:
        """A name that could not be read in time is not waited for: the number is called."""
        name = self._names.get(call.patient_id, "")
        place = self._room_name(call.room_id)
        zh: str | None = None
        en: str | None = None
        if call.kind == "door":
            words = ScreenTerms(self._terms.masks_names, self._terms.shows, _DOOR_ZH, _DOOR_EN)
            zh, en = words.words("", call.label, name, place)
        elif call.kind != "withdrawn":
            zh, en = self._terms.words(self._number_class(room, call), call.label, name, place)
        return compact(
            {
                "sequence": sequence_of(self._key.day, call.sequence),
                "kind": call.kind,
                **self._shown(call.label, name),
                "room_id": call.room_id,
                "room": place,
                "queue_id": call.queue_id,
                "text_zh": zh,
                "text_en": en,
                "repeats": self._terms.repeats,
                "at": self._time(call.at),
            }
        )

    def rooms(
        self,
        room: w.WaitingRoom,
        lines: Mapping[str, Sequence[Rank]],
        rules: Rules,
        only: str | None = None,
    ) -> Sections:
        """Who is where, and who would be next: `only` at one room, else at all of them."""
        places = [place for place in room.rooms.values() if only is None or place.room_id == only]
        return {
            "rooms": {place.room_id: self._room(room, place) for place in places},
            "next": {
                place.room_id: [self._shown_ticket(one) for one in upcoming(room, place, lines, rules)]
                for place in places
            },
        }

    def _room(self, room: w.WaitingRoom, place: w.Room) -> Shown:
        inside = room.tickets.get(place.ticket_id)
        practitioner = self._catalog.practitioners.get(place.practitioner_id)
        now: Shown | None = None
        if inside is not None:
            at = self._time(inside.standing.called_at)
            now = {**self._shown_ticket(inside), "status": inside.status.name.lower(), "at": at}
        door = [] if place.status == w.CLOSED else w.at_door(room, place.room_id)
        return {
            "room": self._room_name(place.room_id),
            "status": place.status,
            "practitioner_id": place.practitioner_id or None,
            "practitioner_name": None if practitioner is None else practitioner.name,
            "now": now,
            "door": [self._shown_ticket(ticket) for ticket in door],
            "alarm": bool(place.alarm_since),
        }

    def ticket(self, ticket: w.Ticket, position: w.Position, estimate: Estimate | None) -> Shown:
        """Members have the names and meanings of GET /api/v1/tickets/{id}."""
        s = ticket.standing
        practitioner = self._catalog.practitioners.get(ticket.practitioner_id)
        is_in_line = position.position > 0
        return {
            "id": str(UUID(bytes=ticket.ticket_id)),
            "number": ticket.label,
            "status": ticket.status.name.lower(),
            "department_id": self._key.department_id,
            "day": self._key.day,
            "queue_id": ticket.queue_id or None,
            "practitioner_id": ticket.practitioner_id or None,
            "practitioner_name": None if practitioner is None else practitioner.name,
            "room": {"id": s.room_id, "name": self._room_name(s.room_id)} if s.room_id else None,
            "stage": position.stage,
            "stages": position.stages,
            "position": position.position if is_in_line else None,
            "ahead": position.ahead if is_in_line else None,
            "calls": s.calls,
            "called_at": self._moment(s.called_at),
            "started_at": self._moment(s.started_at),
            "rests_until": self._moment(s.rests_until),
            "passes": s.passes,
            "version": ticket.version,
            "estimate": None if estimate is None else self._estimate(estimate),
        }

    def _estimate(self, estimate: Estimate) -> Shown:
        leave = estimate.leave_home_at
        return {
            "p10_minutes": estimate.p10_minutes,
            "p50_minutes": estimate.p50_minutes,
            "p90_minutes": estimate.p90_minutes,
            "leave_home_at": None if leave is None else leave.astimezone(self._zone),
            "told_at": estimate.told_at.astimezone(self._zone),
        }

    def _shown(self, label: str, name: str) -> Shown:
        terms = self._terms
        return {
            "number": terms.shown_number(label) or None,
            "name": (terms.shown_name(name) or None) if name else None,
        }

    def _shown_ticket(self, ticket: w.Ticket) -> Shown:
        return self._shown(ticket.label, self._names.get(ticket.patient_id, ""))

    def _room_name(self, room_id: str) -> str:
        found = self._catalog.rooms.get(room_id)
        return room_id if found is None else found.name

    def _number_class(self, room: w.WaitingRoom, call: w.Call) -> str:
        """Of the session in which the patient is seen; "" where there is none."""
        ticket, place = room.tickets.get(call.ticket_id), room.rooms.get(call.room_id)
        who = place.practitioner_id if place is not None else ""
        if ticket is not None and ticket.practitioner_id:
            who = ticket.practitioner_id
        row = self._availability.schedule(ScheduleKey(who, self._key.day).schedule_id) if who else None
        if row is None:
            return ""
        sessions = [s for s in row.sessions if s.department_id == self._key.department_id and s.slots]
        begun = [s for s in sessions if row.midnight_utc + min(start for _, start, _ in s.slots) <= call.at]
        chosen = begun[-1:] or sessions[:1]
        return chosen[0].number_class_id if chosen else ""

    def _time(self, at: int) -> datetime:
        return datetime.fromtimestamp(at // 1000, self._zone)

    def _moment(self, at: int) -> datetime | None:
        return self._time(at) if at else None


def upcoming(
    room: w.WaitingRoom, place: w.Room, lines: Mapping[str, Sequence[Rank]], rules: Rules
) -> list[w.Ticket]:
    """Whom this room would call next, one after the other, if nothing else happened: what a screen without a
    network may go on showing. The first one is who is called; how lanes and queues take turns after that
    depends on calls elsewhere. Nobody where it is not open."""
    if place.status != w.OPEN:
        return []
    left = [
        deque(islice((rank for rank in lines.get(queue_id, ()) if _may_come(room, place, rank)), NEXT_MAX))
        for queue_id in place.queues
    ]
    found: list[w.Ticket] = []
    while len(found) < NEXT_MAX and any(left):
        queue = min((n for n in range(len(left)) if left[n]), key=lambda n: _turn(left[n][0], n, rules))
        found.append(room.tickets[left[queue].popleft().ticket_id])
    return found


def _turn(rank: Rank, queue: int, rules: Rules) -> tuple[int, ...]:
    """As waiting_room.next_for chooses between the heads of a room's queues."""
    match rank.band:
        case Band.EMERGENCY:
            return rank.band, rank.place.emergency, *rank.seniority
        case Band.DOOR:
            return rank.band, rank.place.door
        case Band.LINE if rules.across is Across.LISTED:
            return rank.band, queue, *rank.seniority
        case _:
            return rank.band, 0, *rank.seniority


def _may_come(room: w.WaitingRoom, place: w.Room, rank: Rank) -> bool:
    ticket = room.tickets[rank.ticket_id]
    if rank.band is Band.RESTS or ticket.practitioner_id not in ("", place.practitioner_id):
        return False
    return ticket.status is w.Status.WAITING or ticket.standing.room_id == place.room_id


def patients_shown(room: w.WaitingRoom, calls: Iterable[w.Call]) -> set[bytes]:
    """Whose names a screen may need: everybody who is not through, and who was called."""
    wanted = {ticket.patient_id for ticket in room.tickets.values() if ticket.status not in w.OVER}
    wanted.update(call.patient_id for call in calls)
    return wanted
