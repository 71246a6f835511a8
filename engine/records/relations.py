"""What ties a patient to a practitioner or a department: numbers and tickets of late, without names."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import asyncpg
import orjson

_BOOKED: Final = (2, 3, 4, 6)
"""engine/domain/schedule.py Status: booked, arrived, fulfilled, no-show. What was cancelled ties nobody."""
_OVER: Final = 8
"""Tickets' statuses from here on: engine/domain/waiting_room.py Status."""


@dataclass(frozen=True, slots=True)
class NumberTie:
    schedule_id: str
    slot_id: str
    department_id: str
    starts_at: datetime


@dataclass(frozen=True, slots=True)
class TicketTie:
    id: bytes
    department_id: str
    day: date
    practitioners: frozenset[str]  # who alone might call it, and who has seen the patient
    is_over: bool


async def numbers_between(
    pool: asyncpg.Pool, patient_id: bytes, since: datetime, until: datetime
) -> list[NumberTie]:
    rows = await pool.fetch(
        "select schedule_id, slot_id, department_id, starts_at from appointment"
        " where patient_id = $1 and starts_at >= $2 and starts_at < $3 and status = any ($4)",
        patient_id.hex(),
        since,
        until,
        _BOOKED,
    )
    return [NumberTie(*row) for row in rows]


async def tickets_since(pool: asyncpg.Pool, patient_id: bytes, first: date) -> list[TicketTie]:
    rows = await pool.fetch(
        "select id, department_id, day, practitioner_id, done, status from ticket"
        " where patient_id = $1 and day >= $2",
        patient_id.hex(),
        first,
    )
    return [
        TicketTie(
            row["id"].bytes,
            row["department_id"],
            row["day"],
            # Stages that are over: kind, queue, room, practitioner, called, started, finished.
            frozenset((row["practitioner_id"], *(stage[3] for stage in orjson.loads(row["done"])))) - {""},
            row["status"] >= _OVER,
        )
        for row in rows
    ]
