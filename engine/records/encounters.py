"""What record systems tell of our patients: encounters, diagnoses, medications, allergies, each in its newest
version. What is said is sealed with the person's record key. Ids go in and come out as 16 bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from engine.domain.ids import derived
from engine.domain.intake import Unclaimed, Unfit
from engine.domain.schedule import Status
from engine.records.identity import IdType
from engine.records.patient_numbers import Identity, Number, link, match, numbers_of
from engine.records.sealed_people import ID_NUMBER, NAME, record_key
from engine.vault.vault import Vault

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

CONTENT: Final = "clinical_entry.content"
_ID: Final = "clinical_entry.id"
ENTRIES_MAX: Final = 1_000
"""Of one patient and kind, the newest."""


class Kind(StrEnum):
    ENCOUNTER = "encounter"
    CONDITION = "condition"
    MEDICATION = "medication"
    ALLERGY = "allergy"


class Stored(StrEnum):
    """What became of a version."""

    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    OLDER = "older"  # a newer one is here: it stays


@dataclass(frozen=True, slots=True)
class ClinicalEntry:
    id: bytes
    system: str
    kind: Kind
    patient_id: bytes
    encounter_id: bytes | None
    appointment_id: bytes | None
    version: str
    updated_at: datetime
    begins_at: datetime | None
    content: Mapping[str, Any]
    """status, title, code and what else its kind has: integrations/emr/emr.py."""


def entry_id(vault: Vault, system: str, kind: str, number: str) -> bytes:
    """Keyed: their ids may be made of a patient's number."""
    return derived(b"clinical entry", vault.index(_ID, f"{system}\0{kind}\0{number}"))


async def take_entry(pool: asyncpg.Pool, vault: Vault, body: Mapping[str, Any], now: datetime) -> Stored:
    """Keeps what the intake has let through. A version that is older than the one we have changes nothing.

    Raises Unfit where it is another person's than before, or than numbers and name say; Unclaimed.
    """
    who = body["patient"]
    identity = Identity(
        [Number(one["system"], one["number"]) for one in who["numbers"]],
        [(IdType(one["type"]), one["number"]) for one in who["documents"]],
        who["name"] or "",
    )
    system, kind = body["system"], Kind(body["kind"])
    id_ = entry_id(vault, system, kind, body["id"])
    async with pool.acquire() as connection, connection.transaction():
        found = await match(connection, vault, identity)
        patient_id = found.patient_id
        for one in found.new:
            await link(connection, vault, patient_id, one.system, one.number, f"emr.{kind}", now)
        wrapped = await connection.fetchval(
            "select record_key from patient where id = $1", UUID(bytes=patient_id)
        )
        if wrapped is None:  # forgotten between the two statements
            raise Unclaimed([id_])
        before = await connection.fetchrow(
            "select patient_id, version, updated_at from clinical_entry where id = $1 for update",
            UUID(bytes=id_),
        )
        if before is not None:
            if before["patient_id"].bytes != patient_id:
                raise Unfit("patient.numbers", "another_person", "whose entry it was before")
            stands = _compared(before["version"], before["updated_at"], body)
            if stands is not None:
                return stands
        content = orjson.dumps(body["content"]).decode()
        encounter = body["encounter"]
        await connection.execute(
            _WRITE,
            UUID(bytes=id_),
            system,
            kind.value,
            UUID(bytes=patient_id),
            None if encounter is None else UUID(bytes=entry_id(vault, system, Kind.ENCOUNTER, encounter)),
            await _own_number(connection, body["appointment"], patient_id),
            body["version"],
            datetime.fromisoformat(body["updated_at"]),
            _moment(body["begins_at"]),
            body["is_in_error"],
            vault.seal(record_key(patient_id, wrapped), CONTENT, id_, content),
            now,
        )
    return Stored.NEW if before is None else Stored.CHANGED


def _compared(version: str, updated_at: datetime, body: Mapping[str, Any]) -> Stored | None:
    """What stands against a version; None: nothing."""
    theirs = datetime.fromisoformat(body["updated_at"])
    if theirs < updated_at:
        return Stored.OLDER
    if theirs == updated_at:
        if body["version"] == version:
            return Stored.SAME
        # Of one moment: numbers tell the order, and where there are none, what came last.
        if body["version"].isdecimal() and version.isdecimal() and int(body["version"]) < int(version):
            return Stored.OLDER
    return None


async def _own_number(connection: Executor, said: str | None, patient_id: bytes) -> UUID | None:
    """Our number that it is about, where it is one of this patient's."""
    if said is None:
        return None
    try:
        id_ = UUID(said)
    except ValueError:
        return None
    found: UUID | None = await connection.fetchval(
        "select id from appointment where id = $1 and patient_id = $2", id_, UUID(bytes=patient_id)
    )
    return found


def _moment(said: str | None) -> datetime | None:
    return None if said is None else datetime.fromisoformat(said)


_WRITE: Final = (
    "insert into clinical_entry (id, system, kind, patient_id, encounter_id, appointment_id, version,"
    " updated_at, begins_at, is_in_error, content, taken_at)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
    " on conflict (id) do update set encounter_id = excluded.encounter_id,"
    "   appointment_id = excluded.appointment_id, version = excluded.version,"
    "   updated_at = excluded.updated_at, begins_at = excluded.begins_at,"
    "   is_in_error = excluded.is_in_error, content = excluded.content, taken_at = excluded.taken_at"
    " where clinical_entry.patient_id = excluded.patient_id"
    "   and clinical_entry.updated_at <= excluded.updated_at"
)


async def entries_of(
    connection: Executor, vault: Vault, patient_id: bytes, kind: Kind
) -> list[ClinicalEntry]:
    """Newest first, without what was taken back; nothing of who is forgotten."""
    rows = await connection.fetch(
        "select c.*, p.record_key from clinical_entry c join patient p on p.id = c.patient_id"
        " where c.patient_id = $1 and c.kind = $2 and not c.is_in_error"
        " order by c.begins_at desc nulls last, c.id limit $3",
        UUID(bytes=patient_id),
        kind.value,
        ENTRIES_MAX,
    )
    found = []
    for row in rows:
        content = content_of(vault, row)
        if content is not None:
            found.append(
                ClinicalEntry(
                    row["id"].bytes,
                    row["system"],
                    Kind(row["kind"]),
                    row["patient_id"].bytes,
                    _bytes(row["encounter_id"]),
                    _bytes(row["appointment_id"]),
                    row["version"],
                    row["updated_at"],
                    row["begins_at"],
                    content,
                )
            )
    return found


def content_of(vault: Vault, row: asyncpg.Record) -> dict[str, Any] | None:
    """None: nobody can read it any more."""
    key = record_key(row["patient_id"].bytes, row["record_key"])
    opened = vault.open(key, CONTENT, row["id"].bytes, row["content"])
    return None if opened is None else orjson.loads(opened)


@dataclass(frozen=True, slots=True)
class Visit:
    """One of our visits, with who it was."""

    appointment_id: bytes
    patient_id: bytes
    id_type: str
    id_number: str
    name: str
    birth_date: date | None
    sex: str | None
    schedule_id: str
    department_id: str
    begins_at: datetime  # when they were seen, or were to be
    ends_at: datetime
    his_numbers: tuple[str, ...]


async def visit(connection: Executor, vault: Vault, appointment_id: bytes) -> Visit | None:
    """None: there is no such number, it was not kept after all, or nobody can read any more whose it was."""
    row = await connection.fetchrow(
        "select a.patient_id, a.schedule_id, a.department_id, a.starts_at, p.id_type, p.id_number, p.name,"
        "       p.birth_date, p.sex, p.record_key, t.started_at, t.finished_at"
        "  from appointment a join patient p on p.id = a.patient_id"
        "  left join ticket t on t.appointment_id = a.id"
        " where a.id = $1 and a.status = $2",
        UUID(bytes=appointment_id),
        Status.FULFILLED.value,
    )
    if row is None or row["record_key"] is None or row["name"] is None:
        return None
    patient_id = row["patient_id"].bytes
    key = record_key(patient_id, row["record_key"])
    begins = row["started_at"] or row["starts_at"]
    numbers = await numbers_of(connection, vault, patient_id)
    return Visit(
        appointment_id,
        patient_id,
        row["id_type"],
        vault.open(key, ID_NUMBER, patient_id, row["id_number"]) or "",
        vault.open(key, NAME, patient_id, row["name"]) or "",
        row["birth_date"],
        row["sex"],
        row["schedule_id"],
        row["department_id"],
        begins,
        max(row["finished_at"] or begins, begins),
        tuple(one.number for one in numbers if one.system == "his"),
    )


def _bytes(id_: UUID | None) -> bytes | None:
    return None if id_ is None else id_.bytes
