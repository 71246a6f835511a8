"""The people around one practitioner's day: names, other visits, whose account a number is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from engine.records.sealed_people import name_of
from engine.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class OtherVisit:
    """A number that a patient holds on another day sheet."""

    appointment_id: bytes
    patient_id: bytes
    schedule_id: str
    slot_id: str
    starts_at: datetime


async def patient_names(
    connection: asyncpg.Connection, vault: Vault, patient_ids: Iterable[bytes]
) -> dict[bytes, str]:
    rows = await connection.fetch(
        "select id, record_key, name from patient where id = any ($1::uuid[])", _uuids(patient_ids)
    )
    ids = [row["id"].bytes for row in rows]
    return {
        id_: name_of(vault, id_, row["record_key"], row["name"]) for id_, row in zip(ids, rows, strict=True)
    }


async def staff_names(connection: asyncpg.Connection, staff_ids: Iterable[bytes]) -> dict[bytes, str]:
    """Also of those who are disabled: what they did, they did."""
    rows = await connection.fetch("select id, name from staff where id = any ($1::uuid[])", _uuids(staff_ids))
    return {row["id"].bytes: row["name"] for row in rows}


async def account_for(connection: asyncpg.Connection, patient_id: bytes, now: datetime) -> bytes | None:
    """The account that a number which staff give to a patient belongs to: the patient's own, else the first
    one that may book for them. None: nobody may."""
    found = await connection.fetchval(
        "select account_id from account_patient"
        " where patient_id = $1 and may_book and revoked_at is null"
        "   and (expires_at is null or expires_at > $2)"
        " order by relation <> 'self', created_at, account_id limit 1",
        UUID(bytes=patient_id),
        now,
    )
    return None if found is None else bytes(found.bytes)


async def other_visits(
    connection: asyncpg.Connection,
    patient_ids: Sequence[bytes],
    first: datetime,
    last: datetime,
    but_schedule: str,
) -> list[OtherVisit]:
    """Numbers that these patients hold elsewhere, with a start in [first, last]."""
    rows = await connection.fetch(
        "select id, patient_id, schedule_id, slot_id, starts_at from appointment"
        " where patient_id = any ($1::uuid[]) and starts_at between $2 and $3 and schedule_id <> $4"
        "   and status <= 4 and (status > 1 or hold_until > now()) order by starts_at, id",
        _uuids(patient_ids),
        first,
        last,
        but_schedule,
    )
    return [
        OtherVisit(
            row["id"].bytes, row["patient_id"].bytes, row["schedule_id"], row["slot_id"], row["starts_at"]
        )
        for row in rows
    ]


def _uuids(ids: Iterable[bytes]) -> list[UUID]:
    return [UUID(bytes=one) for one in ids]
