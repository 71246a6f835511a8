"""What the sandbox's hospital knows: registrations, a ledger of what it was told, its faults. No wire.

It is written against docs/HL7.md and not with the connectors' code, so that a misunderstanding shows.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any, Final

CAPACITY: Final = 40  # of a session that nobody said anything about
PERIODS: Final = ("morning", "afternoon", "night")

Json = dict[str, Any]


class NotDone(Exception):
    """A refusal: a status of HTTP's and a word."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Fault(StrEnum):
    TIMEOUT = "timeout"  # nothing is done, and nothing comes back
    APPLIED_THEN_TIMEOUT = "applied_then_timeout"
    CUT = "cut"  # nothing is done, and the line breaks
    APPLIED_THEN_CUT = "applied_then_cut"
    ERROR = "error"  # nothing is done, and it says so
    BUSY = "busy"
    FORGED = "forged"  # done; REST: signed with another secret; HL7: an answer to another message
    WRONG_CHARSET = "wrong_charset"  # done; HL7: the answer's bytes are not what it declares
    GARBAGE = "garbage"  # done; what comes back cannot be read


@dataclass(slots=True)
class Faults:
    """Those that were asked for, by operation, and by chance. `seed`: the same chance again."""

    fail_share: float = 0.0
    applied_then_timeout_share: float = 0.0
    slow_seconds: float = 0.0
    is_away: bool = False
    seed: int = 7
    _asked: dict[str, deque[Fault]] = field(default_factory=dict)
    _chance: random.Random | None = None

    def ask(self, operation: str, *faults: Fault) -> None:
        self._asked.setdefault(operation, deque()).extend(faults)

    def next(self, operation: str) -> Fault | None:
        asked = self._asked.get(operation)
        if asked:
            return asked.popleft()
        if self.is_away:
            return Fault.CUT
        if self._chance is None:
            self._chance = random.Random(self.seed)  # nosec B311  # which requests fail in a test
        drawn = self._chance.random()
        if drawn < self.fail_share:
            return Fault.ERROR
        if drawn < self.fail_share + self.applied_then_timeout_share:
            return Fault.APPLIED_THEN_TIMEOUT
        return None


@dataclass(slots=True)
class Registered:
    his_id: str
    booking: str | None
    department: str
    practitioner: str
    starts_at: datetime
    number: int | None
    status: str
    person: Json
    is_window: bool = False

    def told(self) -> Json:
        return {
            "booking": self.booking,
            "his_id": self.his_id,
            "department": self.department,
            "practitioner": self.practitioner,
            "starts_at": self.starts_at.isoformat(),
            "number": self.number,
            "status": self.status,
        }


@dataclass(slots=True)
class Hospital:
    """Plain: tests look at it. `ledger`: each message that was applied, once, in the order of applying."""

    zone: tzinfo
    clock: Callable[[], float]
    departments: list[Json] = field(default_factory=list)  # code, name
    practitioners: list[Json] = field(default_factory=list)  # code, name, title, department
    registrations: dict[str, Registered] = field(default_factory=dict)  # by his_id
    ledger: list[Json] = field(default_factory=list)
    repeats: int = 0  # messages that had been applied before
    people: dict[str, Json] = field(default_factory=dict)  # by their number
    sessions: dict[tuple[str, str, str], Json] = field(default_factory=dict)  # practitioner, day, period
    faults: Faults = field(default_factory=Faults)
    _given: int = 0  # ids of registrations
    _bookings: dict[str, str] = field(default_factory=dict)  # ours -> his_id
    _messages: dict[str, str] = field(default_factory=dict)  # id -> his_id
    _days: dict[str, list[str]] = field(default_factory=dict)  # day -> his_ids ever in it
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), self.zone)

    # What it is told.

    def apply(self, message: str, event: str, booking: Json, before: str | None, reason: str = "") -> str:
        """Once each message. `booking`: id, department, practitioner, starts_at, number, person."""
        if (known := self._messages.get(message)) is not None:
            self.repeats += 1
            return known
        done = self._applied(event, booking, before)
        self._messages[message] = done.his_id
        self.ledger.append(
            {
                "message": message,
                "event": event,
                "booking": booking["id"],
                "before": before,
                "his_id": done.his_id,
                "starts_at": booking["starts_at"].isoformat(),
                "number": booking["number"],
                "reason": reason,
                "at": self.now().isoformat(),
            }
        )
        return done.his_id

    def _applied(self, event: str, booking: Json, before: str | None) -> Registered:
        there = self.by_booking(booking["id"])
        match event:
            case "booked":
                return self._put(there, booking)
            case "rescheduled":
                old = self.by_booking(before or "")
                if old is None:
                    raise NotDone(409, "unknown_booking")
                if old is there:
                    return self._put(there, booking)
                if old.status != "cancelled":
                    old.status = "cancelled"
                return self._put(there, booking)
        if there is None:
            raise NotDone(409, "unknown_booking")
        match event:
            case "changed":
                return self._put(there, booking)
            case "cancelled":
                there.status = "cancelled"
            case "arrived" | "fulfilled" | "no_show":
                if there.status == "cancelled":
                    raise NotDone(409, "cancelled")
                there.status = event
            case _:
                raise NotDone(400, "event")
        return there

    def _put(self, there: Registered | None, booking: Json, status: str = "booked") -> Registered:
        if there is None:
            there = self._new(booking, status)
        there.department, there.practitioner = booking["department"], booking["practitioner"]
        there.starts_at, there.status = booking["starts_at"], status
        if booking["number"] is not None:
            there.number = booking["number"]
        there.person = booking["person"] or there.person
        self._filed(there)
        return there

    def _new(self, booking: Json, status: str) -> Registered:
        self._given += 1
        his_id = f"GH{self._given:08}"
        new = Registered(
            his_id,
            booking["id"],
            booking["department"],
            booking["practitioner"],
            booking["starts_at"],
            booking["number"],
            status,
            booking["person"],
        )
        self.registrations[his_id] = new
        if new.booking is not None:
            self._bookings[new.booking] = his_id
        return new

    def _filed(self, one: Registered) -> None:
        of_day = self._days.setdefault(one.starts_at.astimezone(self.zone).date().isoformat(), [])
        if one.his_id not in of_day:
            of_day.append(one.his_id)

    # Places, where the hospital's numbers count.

    def lock(self, booking: Json) -> Registered:
        """The same place again for the same booking."""
        there = self.by_booking(booking["id"])
        if there is not None and there.status != "cancelled":
            return there
        self._must_have_room(booking)
        number = self._next_number(booking)
        locked = self._put(there, {**booking, "number": number}, "locked")
        self.ledger.append({"event": "locked", "booking": booking["id"], "his_id": locked.his_id})
        return locked

    def unlock(self, booking_id: str) -> None:
        there = self.by_booking(booking_id)
        if there is not None and there.status == "locked":
            there.status = "cancelled"
            self.ledger.append({"event": "unlocked", "booking": booking_id, "his_id": there.his_id})

    def _must_have_room(self, booking: Json) -> None:
        starts_at: datetime = booking["starts_at"]
        day, period = self._session_of(starts_at)
        session = self.session(booking["practitioner"], day, period)
        if session["status"] != "open":
            raise NotDone(409, "suspended")
        taken = sum(
            one.status != "cancelled"
            and one.practitioner == booking["practitioner"]
            and self._session_of(one.starts_at) == (day, period)
            for one in self.of_day(day)
        )
        if taken >= session["capacity"]:
            raise NotDone(409, "slot_full")

    def _session_of(self, at: datetime) -> tuple[str, str]:
        local = at.astimezone(self.zone)
        period = "morning" if local.hour < 12 else "afternoon" if local.hour < 17 else "night"
        return local.date().isoformat(), period

    def _next_number(self, booking: Json) -> int:
        day, _ = self._session_of(booking["starts_at"])
        key = (booking["practitioner"], day)
        used = {one.number for one in self.of_day(day) if one.practitioner == key[0]}
        number = self._numbers.get(key, 0) + 1
        while number in used:
            number += 1
        self._numbers[key] = number
        return number

    def session(self, practitioner: str, day: str, period: str) -> Json:
        return self.sessions.setdefault(
            (practitioner, day, period), {"period": period, "capacity": CAPACITY, "status": "open"}
        )

    # What it is asked.

    def by_booking(self, booking_id: str) -> Registered | None:
        his_id = self._bookings.get(booking_id)
        return None if his_id is None else self.registrations[his_id]

    def of_day(self, day: str) -> list[Registered]:
        found = [self.registrations[his_id] for his_id in self._days.get(day, ())]
        return [one for one in found if one.starts_at.astimezone(self.zone).date().isoformat() == day]

    def days(self, first: date, last: date) -> list[Json]:
        told = []
        for practitioner in self.practitioners:
            for n in range((last - first).days + 1):
                day = (first + timedelta(days=n)).isoformat()
                known = [
                    self.sessions[practitioner["code"], day, period]
                    for period in PERIODS
                    if (practitioner["code"], day, period) in self.sessions
                ]
                if known:
                    told.append(
                        {
                            "practitioner": practitioner["code"],
                            "department": practitioner["department"],
                            "date": day,
                            "sessions": known,
                        }
                    )
        return told

    def patient(self, id_type: str, id_number: str) -> Json | None:
        for number, person in self.people.items():
            if (person.get("id_type"), person.get("id_number")) == (id_type, id_number):
                return {**person, "id": None, "his_id": number}
        return None

    # What happens there by itself; sandbox_notices.py says it to us.

    def at_window(self, department: str, practitioner: str, starts_at: datetime, person: Json) -> Registered:
        booking: Json = {
            "id": None,
            "department": department,
            "practitioner": practitioner,
            "starts_at": starts_at,
            "number": None,
            "person": {**person, "id": None, "his_id": self.admit(person)},
        }
        booking["number"] = self._next_number(booking)
        new = self._put(None, booking)
        new.is_window = True
        return new

    def forget(self, his_id: str) -> None:
        gone = self.registrations.pop(his_id)
        if gone.booking is not None:
            del self._bookings[gone.booking]
        for of_day in self._days.values():
            if his_id in of_day:
                of_day.remove(his_id)

    def admit(self, person: Json) -> str:
        """Their number of somebody, an old one where there is one."""
        known = self.patient(person.get("id_type", ""), person.get("id_number", ""))
        if known is not None and person.get("id_number"):
            return str(known["his_id"])
        number = f"BL{len(self.people) + 1:07}"
        self.people[number] = {key: value for key, value in person.items() if key not in ("id", "his_id")}
        return number
