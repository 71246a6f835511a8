"""How ids are spelled, and how one is derived from another. Ids of people and appointments are 16 bytes."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

_SLOT = re.compile(r"([A-Za-z0-9_.]{1,32})-(\d{4})(\d{2})(\d{2})-([01]\d|2[0-3])(00|30)", re.ASCII)
_SCHEDULE = re.compile(r"([A-Za-z0-9_.]{1,32})-(\d{4})(\d{2})(\d{2})", re.ASCII)

# Of an actor's stream, which is its key: what kind of actor it is.
SCHEDULE_PREFIX: Final = "schedule/"
ROOM_PREFIX: Final = "room/"
BILL_PREFIX: Final = "bill/"


@dataclass(frozen=True, slots=True)
class ScheduleKey:
    """One practitioner's day. Three spellings: the parts, the public id, the actor's key."""

    practitioner_id: str
    day: str  # yyyy-mm-dd

    @property
    def schedule_id(self) -> str:
        return f"{self.practitioner_id}-{self.day.replace('-', '')}"

    @property
    def stream(self) -> str:
        return f"{SCHEDULE_PREFIX}{self.practitioner_id}/{self.day}"

    def slot_id(self, clock: str) -> str:
        """`clock` is hhmm, the slot's start in the hospital's zone."""
        return f"{self.schedule_id}-{clock}"

    @classmethod
    def of_stream(cls, stream: str) -> Self:
        kind, practitioner_id, day = stream.split("/")
        assert f"{kind}/" == SCHEDULE_PREFIX
        return cls(practitioner_id, day)

    @classmethod
    def of_schedule(cls, schedule_id: str) -> Self | None:
        """None when it is not spelled like a schedule id."""
        found = _SCHEDULE.fullmatch(schedule_id)
        if found is None:
            return None
        practitioner_id, year, month, day = found.groups()
        return cls(practitioner_id, f"{year}-{month}-{day}")

    @classmethod
    def of_slot(cls, slot_id: str) -> tuple[Self, str] | None:
        """The schedule and the hhmm of a slot id; None when it is not spelled like one."""
        found = _SLOT.fullmatch(slot_id)
        if found is None:
            return None
        practitioner_id, year, month, day, hour, minute = found.groups()
        return cls(practitioner_id, f"{year}-{month}-{day}"), hour + minute


@dataclass(frozen=True, slots=True)
class RoomKey:
    """One department's day of waiting."""

    department_id: str
    day: str  # yyyy-mm-dd

    @property
    def stream(self) -> str:
        return f"{ROOM_PREFIX}{self.department_id}/{self.day}"

    @classmethod
    def of_stream(cls, stream: str) -> Self:
        kind, department_id, day = stream.split("/")
        assert f"{kind}/" == ROOM_PREFIX
        return cls(department_id, day)


@dataclass(frozen=True, slots=True)
class BillKey:
    """One bill. Of a registration's first bill the id is the appointment's."""

    bill_id: bytes

    @property
    def stream(self) -> str:
        return f"{BILL_PREFIX}{self.bill_id.hex()}"

    @classmethod
    def of_stream(cls, stream: str) -> Self:
        kind, bill_id = stream.split("/")
        assert f"{kind}/" == BILL_PREFIX
        return cls(bytes.fromhex(bill_id))


def ticket_id(source: bytes) -> bytes:
    """Of the ticket that an appointment becomes, or a walk-in's command makes."""
    return derived(b"ticket", source)


def appointment_id(account_id: bytes, idempotency_key: str) -> bytes:
    """The id a retry derives again: 16 bytes of BLAKE2b, marked as UUID version 8 (RFC 9562, 5.8)."""
    return derived(b"appointment", account_id, idempotency_key.encode())


def derived(kind: bytes, *parts: bytes) -> bytes:
    """An id that the same parts make again. `kind` (up to 16 bytes) keeps those of other kinds apart."""
    digest = bytearray(hashlib.blake2b(b"".join(parts), digest_size=16, person=kind).digest())
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return bytes(digest)
