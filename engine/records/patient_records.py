"""What the hospital keeps about one patient, for those who treat them: who it is, visits, tickets, vitals."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

import asyncpg

from engine.records.sealed_people import ID_NUMBER, name_of, record_key
from engine.records.vitals import Vitals, vitals_of_patient
from engine.vault.vault import Vault

LISTED_MAX: Final = 200
"""Visits and tickets, the newest first."""


@dataclass(frozen=True, slots=True)
class Identity:
    id: bytes
    name: str
    id_type: str
    id_number: str
    birth_date: date | None
    sex: str | None


@dataclass(frozen=True, slots=True)
class Visit:
    appointment_id: bytes
    department_id: str
    practitioner_id: str
    starts_at: datetime
    status: int  # engine/domain/schedule.py Status


@dataclass(frozen=True, slots=True)
class TicketLine:
    id: bytes
    department_id: str
    day: date
    number: str
    status: int  # engine/domain/waiting_room.py Status
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class PatientRecord:
    identity: Identity
    visits: list[Visit]
    tickets: list[TicketLine]
    vitals: list[Vitals]
    missed: int


async def record_of(
    connection: asyncpg.Connection, vault: Vault, patient_id: bytes, *, with_vitals: bool
) -> PatientRecord | None:
    """None: there is no such patient."""
    id_ = UUID(bytes=patient_id)
    who = await connection.fetchrow(
        "select id_type, id_number, birth_date, sex, record_key, name from patient where id = $1", id_
    )
    if who is None:
        return None
    key = record_key(patient_id, who["record_key"])
    visits = await connection.fetch(
        "select id, department_id, schedule_id, starts_at, status from appointment"
        " where patient_id = $1 and status between 2 and 6 order by starts_at desc limit $2",
        id_,
        LISTED_MAX,
    )
    tickets = await connection.fetch(
        "select id, department_id, day, prefix, number, status, finished_at from ticket"
        " where patient_id = $1 order by arrived_at desc limit $2",
        id_,
        LISTED_MAX,
    )
    missed = await connection.fetchval(
        "select count(*) from appointment where patient_id = $1 and status = 6", id_
    )
    return PatientRecord(
        Identity(
            patient_id,
            name_of(vault, patient_id, who["record_key"], who["name"]),
            who["id_type"],
            vault.open(key, ID_NUMBER, patient_id, who["id_number"]) or "",
            who["birth_date"],
            who["sex"],
        ),
        [
            Visit(
                row["id"].bytes,
                row["department_id"],
                row["schedule_id"].rpartition("-")[0],
                row["starts_at"],
                row["status"],
            )
            for row in visits
        ],
        [
            TicketLine(
                row["id"].bytes,
                row["department_id"],
                row["day"],
                f"{row['prefix']}{row['number']:03}",
                row["status"],
                row["finished_at"],
            )
            for row in tickets
        ],
        await vitals_of_patient(connection, vault, patient_id, LISTED_MAX) if with_vitals else [],
        missed,
    )
