"""What any hospital's own system can be asked and told, in neutral words: no form's, no vendor's.

Codes of departments and practitioners are theirs; ids of numbers and people are ours, in hex. Times have a
zone. All methods raise TryAgain, Refused and OutcomeUnknown of integrations/connector.py; those that only
look never raise OutcomeUnknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Literal, Protocol


class Kind(StrEnum):
    """What is told of one number of ours."""

    BOOKED = "booked"
    RESCHEDULED = "rescheduled"  # `before`, another number of ours, is given up for it
    CHANGED = "changed"  # the same number at another time, or booked again after all
    CANCELLED = "cancelled"
    ARRIVED = "arrived"
    FULFILLED = "fulfilled"
    NO_SHOW = "no_show"


class Status(StrEnum):
    """How a registration stands with them."""

    LOCKED = "locked"
    BOOKED = "booked"
    ARRIVED = "arrived"
    FULFILLED = "fulfilled"
    NO_SHOW = "no_show"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Person:
    id: str | None  # our patient's; None: theirs alone
    his_id: str | None  # their patient number
    name: str
    sex: str | None  # male | female
    birth_date: date | None
    id_type: str  # engine/records/identity.py IdType; "" where not known
    id_number: str
    phone: str


@dataclass(frozen=True, slots=True)
class Booking:
    id: str  # our number's
    department: str
    practitioner: str
    schedule: str  # our schedule id
    session: str  # morning | afternoon | night; "" where it is not known
    starts_at: datetime
    ends_at: datetime
    number: int
    fee_fen: int
    channel: str
    person: Person


@dataclass(frozen=True, slots=True)
class Registration:
    booking_id: str | None  # ours, where they know it
    his_id: str
    department: str
    practitioner: str
    starts_at: datetime
    number: int | None
    status: Status
    person: Person | None = None  # only in what is heard


@dataclass(frozen=True, slots=True)
class Locked:
    his_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Department:
    code: str
    name: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Practitioner:
    code: str
    name: str
    title: str
    department: str


@dataclass(frozen=True, slots=True)
class DaySession:
    period: str
    capacity: int
    status: str  # open | suspended


@dataclass(frozen=True, slots=True)
class Day:
    practitioner: str
    department: str
    date: date
    sessions: tuple[DaySession, ...]


# What comes in by itself.


@dataclass(frozen=True, slots=True)
class RegistrationHeard:
    """A registration at their window, or what became of one, ours or theirs."""

    message_id: str
    at: datetime
    registration: Registration


@dataclass(frozen=True, slots=True)
class ScheduleHeard:
    message_id: str
    at: datetime
    practitioner: str
    department: str
    day: date
    period: str | None  # None: the whole day
    what: Literal["opened", "capacity", "suspended", "resumed"]
    capacity: int | None = None  # of the session
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PersonHeard:
    message_id: str
    at: datetime
    person: Person
    merged_from: str | None = None  # their number that is no more: now `person.his_id`


@dataclass(frozen=True, slots=True)
class MasterHeard:
    message_id: str
    at: datetime
    kind: Literal["department", "practitioner"]
    code: str
    name: str
    title: str = ""
    department: str = ""


Heard = RegistrationHeard | ScheduleHeard | PersonHeard | MasterHeard


class His(Protocol):
    async def tell(
        self,
        message_id: str,
        kind: Kind,
        booking: Booking,
        *,
        before: Booking | None = None,
        reason: str = "",
    ) -> str:
        """Their id of it. Idempotent by message_id."""
        ...

    async def find(self, booking_id: str) -> Registration | None:
        """What they have of a number of ours; None: nothing."""
        ...

    async def registrations(self, day: date) -> list[Registration]:
        """All of one day, also those that were cancelled, and places that are locked."""
        ...

    async def lock(self, booking: Booking) -> Locked:
        """A place with them, before ours is promised; again the same one. Refused("slot_full"): none left."""
        ...

    async def unlock(self, booking_id: str) -> None:
        """Gives it back; harmless where there is none."""
        ...

    async def departments(self) -> Sequence[Department]: ...

    async def practitioners(self) -> Sequence[Practitioner]: ...

    async def schedules(self, first: date, last: date) -> Sequence[Day]: ...

    async def patient(self, id_type: str, id_number: str) -> Person | None: ...

    async def close(self) -> None:
        """Its own connections."""
        ...
