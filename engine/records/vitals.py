"""What was measured of a patient at the triage desk."""

from dataclasses import astuple, dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

import asyncpg

from engine.domain.ids import derived
from engine.records.request_keys import KeyUse, use_key
from engine.records.sealed_people import record_key
from engine.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Measured:
    """None: was not measured. The table has the ranges; what is outside of them was mistyped."""

    systolic: int | None  # mmHg
    diastolic: int | None  # mmHg
    pulse: int | None  # beats a minute
    temperature: Decimal | None  # °C
    spo2: int | None  # per cent
    height_cm: Decimal | None
    weight_kg: Decimal | None
    note: str


@dataclass(frozen=True, slots=True)
class Vitals:
    id: bytes
    measured: Measured
    by_name: str
    at: datetime


_SELECT: Final = (
    "select v.id, v.systolic, v.diastolic, v.pulse, v.temperature, v.spo2, v.height_cm, v.weight_kg, v.note,"
    " s.name, v.at, p.id as patient_id, p.record_key from vitals v join staff s on s.id = v.by"
    " join ticket t on t.id = v.ticket_id join patient p on p.id = t.patient_id"
)
NOTE: Final = "vitals.note"


async def add_vitals(
    connection: asyncpg.Connection,
    vault: Vault,
    ticket_id: bytes,
    measured: Measured,
    staff_id: bytes,
    key: str,
    now: datetime,
) -> Vitals | None:
    """As it is kept; with the same key once more the first one. None: the key was used for something else."""
    id_ = derived(b"vitals", staff_id, key.encode())
    printed = replace(measured, note=vault.index("request_key.fingerprint", measured.note).hex())
    asked = ("vitals", ticket_id.hex(), *map(str, astuple(printed)))
    async with connection.transaction():
        use = await use_key(connection, staff_id, key, asked, now)
        if use is KeyUse.OTHER:
            return None
        if use is KeyUse.FIRST:
            sealed = None
            if measured.note:
                patient = await connection.fetchrow(
                    "select p.id, p.record_key from ticket t join patient p on p.id = t.patient_id"
                    " where t.id = $1",
                    ticket_id.hex(),
                )
                key_ = record_key(patient["id"].bytes, patient["record_key"])
                sealed = vault.seal(key_, NOTE, id_, measured.note)
            await connection.execute(
                "insert into vitals (id, ticket_id, systolic, diastolic, pulse, temperature, spo2, height_cm,"
                " weight_kg, note, by, at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                id_.hex(),
                ticket_id.hex(),
                *astuple(measured)[:-1],
                sealed,
                staff_id.hex(),
                now,
            )
        row = await connection.fetchrow(f"{_SELECT} where v.id = $1", id_.hex())
    return _vitals(vault, row)


async def vitals_of(pool: asyncpg.Pool, vault: Vault, ticket_id: bytes) -> list[Vitals]:
    """Newest first."""
    rows = await pool.fetch(f"{_SELECT} where v.ticket_id = $1 order by v.at desc, v.id", ticket_id.hex())
    return [_vitals(vault, row) for row in rows]


async def vitals_of_patient(
    connection: asyncpg.Connection, vault: Vault, patient_id: bytes, limit: int
) -> list[Vitals]:
    """Newest first."""
    rows = await connection.fetch(
        f"{_SELECT} where t.patient_id = $1 order by v.at desc, v.id limit $2", patient_id.hex(), limit
    )
    return [_vitals(vault, row) for row in rows]


def _vitals(vault: Vault, row: asyncpg.Record) -> Vitals:
    id_, values = row["id"].bytes, tuple(row)
    note = vault.open(record_key(row["patient_id"].bytes, row["record_key"]), NOTE, id_, row["note"]) or ""
    return Vitals(id_, replace(Measured(*values[1:9]), note=note), row["name"], row["at"])
