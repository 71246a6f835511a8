"""Reads of the ticket table. Only the journal writes it."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import asyncpg

from engine.records.sealed_people import name_of
from engine.vault.vault import Vault

_COLUMNS: Final = (
    "t.id, t.department_id, t.day, t.patient_id, t.appointment_id, t.prefix, t.number, t.status,"
    " t.practitioner_id, t.arrived_at, t.finished_at, t.version, p.record_key, p.name as patient_name"
)
_OVER: Final = 8
"""Statuses from here on: engine/domain/waiting_room.py Status."""


@dataclass(frozen=True, slots=True)
class TicketRecord:
    id: bytes
    department_id: str
    day: date
    patient_id: bytes
    appointment_id: bytes | None  # None: a walk-in
    label: str  # as screens show it
    status: int
    practitioner_id: str
    arrived_at: datetime
    finished_at: datetime | None
    version: int
    patient_name: str

    @property
    def is_over(self) -> bool:
        return self.status >= _OVER


async def ticket(pool: asyncpg.Pool, vault: Vault, ticket_id: bytes) -> TicketRecord | None:
    """Whosever it is: who may see it is for others to say."""
    row = await pool.fetchrow(
        f"select {_COLUMNS} from ticket t join patient p on p.id = t.patient_id where t.id = $1",
        ticket_id.hex(),
    )
    return None if row is None else _record(vault, row)


async def tickets_of_patient(
    pool: asyncpg.Pool, vault: Vault, patient_id: bytes, day: date
) -> list[TicketRecord]:
    """A patient's tickets of one day, in the order in which they were taken."""
    rows = await pool.fetch(
        f"select {_COLUMNS} from ticket t join patient p on p.id = t.patient_id"
        " where t.patient_id = $1 and t.day = $2 order by t.arrived_at",
        patient_id.hex(),
        day,
    )
    return [_record(vault, row) for row in rows]


async def tickets_of_account(
    pool: asyncpg.Pool, vault: Vault, account_id: bytes, first: date, limit: int
) -> list[TicketRecord]:
    """Newest first, from a day on: those of its patients, and those of numbers that it has booked itself.
    None of a patient who does not let the account see visits."""
    rows = await pool.fetch(
        f"select {_COLUMNS} from ticket t join patient p on p.id = t.patient_id where t.day >= $2 and ("
        f" t.patient_id in (select patient_id from account_patient where {_LIVE})"
        "  or t.appointment_id in (select id from appointment"
        "                           where account_id = $1 and starts_at >= $2::date - 1))"
        "   and not exists (select from account_patient h"
        "                    where h.account_id = $1 and h.patient_id = t.patient_id and not h.may_see)"
        " order by t.arrived_at desc limit $3",
        account_id.hex(),
        first,
        limit,
    )
    return [_record(vault, row) for row in rows]


async def is_of_account(pool: asyncpg.Pool, account_id: bytes, found: TicketRecord) -> bool:
    """Whether the account may act for this patient, or has booked this very number; and may see visits."""
    mine = await pool.fetchval(
        f"select (exists (select from account_patient where {_LIVE} and patient_id = $2)"
        "          or exists (select from appointment where id = $3 and account_id = $1))"
        " and not exists (select from account_patient"
        "                  where account_id = $1 and patient_id = $2 and not may_see)",
        account_id.hex(),
        found.patient_id.hex(),
        None if found.appointment_id is None else found.appointment_id.hex(),
    )
    return bool(mine)


_LIVE: Final = "account_id = $1 and revoked_at is null and (expires_at is null or expires_at > now())"


def _record(vault: Vault, row: asyncpg.Record) -> TicketRecord:
    patient_id = row["patient_id"].bytes
    appointment = row["appointment_id"]
    return TicketRecord(
        row["id"].bytes,
        row["department_id"],
        row["day"],
        patient_id,
        None if appointment is None else appointment.bytes,
        f"{row['prefix']}{row['number']:03}",
        row["status"],
        row["practitioner_id"],
        row["arrived_at"],
        row["finished_at"],
        row["version"],
        name_of(vault, patient_id, row["record_key"], row["patient_name"]),
    )
