"""Examinations with pictures, as the archive told of them. What is said in words is sealed with the person's
record key; the pictures stay in the archive. Ids go in and come out as 16 bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from engine.domain.ids import derived
from engine.domain.intake import Unclaimed, Unfit
from engine.records.patient_numbers import Identity, Number, link, match
from engine.records.sealed_people import record_key
from engine.vault.vault import Vault

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

FACTS: Final = "imaging_study.facts"
STUDIES_MAX: Final = 500
"""Of one patient, the newest: more than anybody had."""
INTERFACE: Final = "pacs.study"


@dataclass(frozen=True, slots=True)
class ImagingStudy:
    id: bytes
    uid: str
    patient_id: bytes
    day: date | None
    started_at: datetime | None
    modalities: tuple[str, ...]
    series: int
    instances: int
    description: str
    accession: str
    patient_number: str
    """As the archive calls the patient: what must stand in each object of it."""
    noted_at: datetime


def study_id(uid: str) -> bytes:
    return derived(b"imaging study", uid.encode())


async def take_study(pool: asyncpg.Pool, vault: Vault, body: Mapping[str, Any], now: datetime) -> bytes:
    """Keeps what the intake has let through; whose it is. Again, it is the newest word that stands.

    Raises Unfit where it is another person's than before, or than the number says; Unclaimed.
    """
    who = body["patient"]
    identity = Identity(
        [Number(one["system"], one["number"]) for one in who["numbers"]], (), who["name"] or ""
    )
    async with pool.acquire() as connection, connection.transaction():
        found = await match(connection, vault, identity)
        patient_id = found.patient_id
        for one in found.new:
            await link(connection, vault, patient_id, one.system, one.number, INTERFACE, now)
        wrapped = await connection.fetchval(
            "select record_key from patient where id = $1", UUID(bytes=patient_id)
        )
        if wrapped is None:  # forgotten between the two statements
            raise Unclaimed([study_id(body["uid"])])
        id_ = study_id(body["uid"])
        facts = {
            "description": body["description"] or "",
            "accession": body["accession"] or "",
            "patient_number": who["numbers"][0]["number"],
        }
        sealed = vault.seal(record_key(patient_id, wrapped), FACTS, id_, orjson.dumps(facts).decode())
        owner = await connection.fetchval(
            "insert into imaging_study (id, study_uid, patient_id, day, started_at, modalities, series,"
            " instances, facts, noted_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            " on conflict (id) do update set day = excluded.day, started_at = excluded.started_at,"
            "   modalities = excluded.modalities, series = excluded.series, instances = excluded.instances,"
            "   facts = excluded.facts, noted_at = excluded.noted_at"
            " where imaging_study.patient_id = excluded.patient_id returning patient_id",
            UUID(bytes=id_),
            body["uid"],
            UUID(bytes=patient_id),
            None if body["day"] is None else date.fromisoformat(body["day"]),
            None if body["started_at"] is None else datetime.fromisoformat(body["started_at"]),
            list(body["modalities"]),
            body["series"],
            body["instances"],
            sealed,
            now,
        )
        if owner is None:
            raise Unfit("patient.numbers", "another_person", "whose study it was before")
    return patient_id


async def studies_of(connection: Executor, vault: Vault, patient_id: bytes) -> list[ImagingStudy]:
    """Newest first; nothing of who is forgotten."""
    rows = await connection.fetch(
        f"{_SELECT} where i.patient_id = $1"
        " order by i.day desc nulls last, i.started_at desc nulls last, i.id limit $2",
        UUID(bytes=patient_id),
        STUDIES_MAX,
    )
    return [one for one in (_study(vault, row) for row in rows) if one is not None]


async def study(connection: Executor, vault: Vault, id_: bytes) -> ImagingStudy | None:
    row = await connection.fetchrow(f"{_SELECT} where i.id = $1", UUID(bytes=id_))
    return None if row is None else _study(vault, row)


async def position_of(executor: Executor, feed: str) -> str:
    """ "" where it was never read."""
    found = await executor.fetchval("select position from feed_position where feed = $1", feed)
    return found or ""


async def note_position(executor: Executor, feed: str, position: str, now: datetime) -> None:
    await executor.execute(
        "insert into feed_position (feed, position, at) values ($1, $2, $3)"
        " on conflict (feed) do update set position = excluded.position, at = excluded.at",
        feed,
        position,
        now,
    )


_SELECT: Final = "select i.*, p.record_key from imaging_study i join patient p on p.id = i.patient_id"


def facts_of(vault: Vault, row: asyncpg.Record) -> dict[str, str] | None:
    """What is said in words; None: nobody can read it any more."""
    key = record_key(row["patient_id"].bytes, row["record_key"])
    opened = vault.open(key, FACTS, row["id"].bytes, row["facts"])
    return None if opened is None else orjson.loads(opened)


def _study(vault: Vault, row: asyncpg.Record) -> ImagingStudy | None:
    facts = facts_of(vault, row)
    if facts is None:
        return None
    return ImagingStudy(
        row["id"].bytes,
        row["study_uid"],
        row["patient_id"].bytes,
        row["day"],
        row["started_at"],
        tuple(row["modalities"]),
        row["series"],
        row["instances"],
        facts["description"],
        facts["accession"],
        facts["patient_number"],
        row["noted_at"],
    )
