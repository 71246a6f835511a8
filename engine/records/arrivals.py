"""What a gateway must know of a booked number when its patient has come: reads, nothing else."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import asyncpg

from engine.records.sealed_people import id_index, name_of
from engine.vault.vault import Vault

_COLUMNS: Final = (
    "a.id, a.schedule_id, a.slot_id, a.number, a.patient_id, a.account_id, a.status, a.fate, a.starts_at,"
    " a.department_id, a.visit, p.record_key, p.name as patient_name"
)
_FROM: Final = "from appointment a join patient p on p.id = a.patient_id"


@dataclass(frozen=True, slots=True)
class Booked:
    """An appointment as check-in looks at it."""

    id: bytes
    schedule_id: str
    slot_id: str
    number: int
    patient_id: bytes
    account_id: bytes
    status: int  # engine/domain/schedule.py Status
    fate: str | None  # once its session was called off
    starts_at: datetime
    department_id: str
    visit: int  # 0 first, 1 follow-up
    patient_name: str


async def booked(pool: asyncpg.Pool, vault: Vault, appointment_id: bytes) -> Booked | None:
    """Whosever it is."""
    row = await pool.fetchrow(f"select {_COLUMNS} {_FROM} where a.id = $1", appointment_id.hex())
    return None if row is None else _booked(vault, row)


async def booked_between(
    pool: asyncpg.Pool, vault: Vault, patient_id: bytes, first: datetime, until: datetime
) -> list[Booked]:
    """All numbers of a patient whose time is in [first, until), whatever became of them, by time."""
    rows = await pool.fetch(
        f"select {_COLUMNS} {_FROM} where a.patient_id = $1 and a.starts_at >= $2 and a.starts_at < $3"
        " order by a.starts_at, a.created_at",
        patient_id.hex(),
        first,
        until,
    )
    return [_booked(vault, row) for row in rows]


async def unattended(
    pool: asyncpg.Pool, vault: Vault, department_id: str, first: datetime, until: datetime, limit: int
) -> list[Booked]:
    """Booked numbers of a department whose time is in [first, until] and that have no ticket, by time."""
    rows = await pool.fetch(
        f"select {_COLUMNS} {_FROM} where a.status = 2 and a.fate is null and a.department_id = $1"
        " and a.starts_at between $2 and $3"
        " and not exists (select from ticket t where t.appointment_id = a.id)"
        " order by a.starts_at, a.number limit $4",
        department_id,
        first,
        until,
        limit,
    )
    return [_booked(vault, row) for row in rows]


@dataclass(frozen=True, slots=True)
class KnownPatient:
    id: bytes
    name: str
    birth_date: date | None
    sex: str | None


async def patient_of_document(
    pool: asyncpg.Pool, vault: Vault, id_type: str, id_number: str
) -> KnownPatient | None:
    """`id_number` is normal: see engine/records/identity.py. None: nobody was ever added with it."""
    row = await pool.fetchrow(f"{_KNOWN} and id_index = $1", id_index(vault, id_type, id_number))
    return None if row is None else _known(vault, row)


async def patient_of_id(pool: asyncpg.Pool, vault: Vault, patient_id: bytes) -> KnownPatient | None:
    row = await pool.fetchrow(f"{_KNOWN} and id = $1", patient_id.hex())
    return None if row is None else _known(vault, row)


# Who was forgotten but for the record has to register anew: engine/records/erasure.py.
_KNOWN: Final = (
    "select id, record_key, name, birth_date, sex from patient p"
    " where not exists (select from kept_identity k where k.patient_id = p.id)"
)


def _known(vault: Vault, row: asyncpg.Record) -> KnownPatient:
    id_ = row["id"].bytes
    return KnownPatient(
        id_, name_of(vault, id_, row["record_key"], row["name"]), row["birth_date"], row["sex"]
    )


async def may_act_for(pool: asyncpg.Pool, account_id: bytes, patient_id: bytes) -> bool:
    """Whether the account has a right to book for this patient that neither ended nor was taken back."""
    found = await pool.fetchval(
        "select exists (select from account_patient where account_id = $1 and patient_id = $2"
        " and may_book and revoked_at is null and (expires_at is null or expires_at > now()))",
        account_id.hex(),
        patient_id.hex(),
    )
    return bool(found)


def _booked(vault: Vault, row: asyncpg.Record) -> Booked:
    patient_id = row["patient_id"].bytes
    return Booked(
        row["id"].bytes,
        row["schedule_id"],
        row["slot_id"],
        row["number"],
        patient_id,
        row["account_id"].bytes,
        row["status"],
        row["fate"],
        row["starts_at"],
        row["department_id"],
        row["visit"],
        name_of(vault, patient_id, row["record_key"], row["patient_name"]),
    )
