"""What is kept of bills that the hospital's own billing made: whose they are, what their lines are called,
what the billing was told. Ids go in and come out as 16 bytes.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from engine.domain.delegation import Rights
from engine.records.identity import IdType
from engine.records.sealed_people import ID_NUMBER, record_key
from engine.vault.vault import DataKey, Vault

NAMES: Final = "hospital_bill.names"
TELL: Final = "hospital_billing"
"""Kind of the errand that tells the billing what was paid and given back; its key is the bill, in hex."""
LOOK: Final = "hospital_look"
"""Kind of the errand that asks it whether a bill still stands; its key is the bill, in hex."""

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection
Kind = Literal["payment", "refund"]
Outcome = Literal["accepted", "refused"]


@dataclass(frozen=True, slots=True)
class Payer:
    """A patient whom an account may act for now, and what the account may do."""

    patient_id: bytes
    id_type: IdType
    id_number: str = field(repr=False)  # "": nobody can read it any more
    rights: Rights
    record: DataKey


@dataclass(frozen=True, slots=True)
class Seen:
    """A bill that was seen at the billing."""

    bill_id: bytes
    number: str
    revision: int
    patient_id: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Told:
    told_id: bytes
    kind: Kind
    fen: int
    outcome: Outcome
    code: str = ""
    receipt: str = ""


async def payer(
    executor: Executor, vault: Vault, account_id: bytes, patient_id: bytes, now: datetime
) -> Payer | None:
    """None where the account has no right that holds now."""
    row = await executor.fetchrow(
        "select p.id_type, p.id_number, p.record_key, a.may_book, a.may_see, a.may_pay"
        "  from account_patient a join patient p on p.id = a.patient_id"
        " where a.account_id = $1 and a.patient_id = $2 and a.revoked_at is null"
        "   and (a.expires_at is null or a.expires_at > $3)",
        UUID(bytes=account_id),
        UUID(bytes=patient_id),
        now,
    )
    if row is None:
        return None
    record = record_key(patient_id, row["record_key"])
    number = vault.open(record, ID_NUMBER, patient_id, row["id_number"]) or ""
    rights = Rights(row["may_book"], row["may_see"], row["may_pay"])
    return Payer(patient_id, IdType(row["id_type"]), number, rights, record)


async def index_of(executor: Executor, patient_id: bytes) -> bytes | None:
    """By which a patient's document is known without opening it; None where there is no such patient."""
    found: bytes | None = await executor.fetchval(
        "select id_index from patient where id = $1", UUID(bytes=patient_id)
    )
    return found


async def note_seen(
    connection: asyncpg.Connection,
    vault: Vault,
    record: DataKey,
    seen: Seen,
    names: Mapping[str, str],
    now: datetime,
) -> Seen:
    """As it was seen first: what this bill is, whoever asks later."""
    sealed = None
    if record.wrapped is not None:
        sealed = vault.seal(record, NAMES, seen.bill_id, orjson.dumps(dict(names)).decode())
    bill_id = UUID(bytes=seen.bill_id)
    await connection.execute(
        "insert into hospital_bill (bill_id, number, revision, patient_id, digest, names, first_seen)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict (bill_id) do nothing",
        bill_id,
        seen.number,
        seen.revision,
        UUID(bytes=seen.patient_id),
        seen.digest,
        sealed,
        now,
    )
    row = await connection.fetchrow(f"{_SEEN} where h.bill_id = $1", bill_id)
    assert row is not None
    return _seen(row)


async def seen(executor: Executor, bill_id: bytes) -> Seen | None:
    row = await executor.fetchrow(f"{_SEEN} where h.bill_id = $1", UUID(bytes=bill_id))
    return None if row is None else _seen(row)


async def unpaid_of(executor: Executor, patient_id: bytes) -> list[Seen]:
    """The patient's bills of the billing that are to be paid, as far as we know."""
    rows = await executor.fetch(
        f"{_SEEN} join bill b on b.id = h.bill_id"
        " where h.patient_id = $1 and b.status in ('open', 'at_hospital') order by h.first_seen, h.bill_id",
        UUID(bytes=patient_id),
    )
    return [_seen(row) for row in rows]


async def names_of(
    executor: Executor, vault: Vault, bill_ids: Collection[bytes]
) -> dict[bytes, dict[str, str]]:
    """Bill -> line -> what it is called. Bills of others, and of who was forgotten, are not in it."""
    rows = await executor.fetch(
        "select h.bill_id, h.names, p.id, p.record_key"
        "  from hospital_bill h join patient p on p.id = h.patient_id"
        " where h.bill_id = any ($1::uuid[])",
        [UUID(bytes=one) for one in bill_ids],
    )
    opened = {
        row["bill_id"].bytes: opened_names(
            vault, row["id"].bytes, row["record_key"], row["bill_id"].bytes, row["names"]
        )
        for row in rows
    }
    return {bill_id: names for bill_id, names in opened.items() if names}


def opened_names(
    vault: Vault, patient_id: bytes, wrapped: bytes | None, bill_id: bytes, sealed: bytes | None
) -> dict[str, str]:
    """Line -> what it is called; empty where nobody can read it any more, or nothing is there."""
    names = vault.open(record_key(patient_id, wrapped), NAMES, bill_id, sealed)
    return {} if names is None else orjson.loads(names)


async def note_asked(
    executor: Executor, refund_id: bytes, bill_id: bytes, asked_as: str, reason: str, now: datetime
) -> None:
    await executor.execute(
        "insert into hospital_asked (refund_id, bill_id, asked_as, reason, asked_at)"
        " values ($1, $2, $3, $4, $5) on conflict (refund_id) do nothing",
        UUID(bytes=refund_id),
        UUID(bytes=bill_id),
        asked_as,
        reason,
        now,
    )


async def asked_as(executor: Executor, bill_id: bytes) -> dict[bytes, tuple[str, str]]:
    """Our refund -> their number of it, and why they asked."""
    rows = await executor.fetch(
        "select refund_id, asked_as, reason from hospital_asked where bill_id = $1", UUID(bytes=bill_id)
    )
    return {row["refund_id"].bytes: (row["asked_as"], row["reason"]) for row in rows}


async def note_told(executor: Executor, bill_id: bytes, told: Told, now: datetime) -> None:
    """Once for all: what was said first stands."""
    await executor.execute(
        "insert into hospital_told (told_id, bill_id, kind, fen, outcome, code, receipt, told_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (told_id) do nothing",
        UUID(bytes=told.told_id),
        UUID(bytes=bill_id),
        told.kind,
        told.fen,
        told.outcome,
        told.code,
        told.receipt,
        now,
    )


async def told_of(executor: Executor, bill_id: bytes) -> dict[bytes, Told]:
    rows = await executor.fetch(
        "select told_id, kind, fen, outcome, code, receipt from hospital_told where bill_id = $1",
        UUID(bytes=bill_id),
    )
    return {row["told_id"].bytes: Told(row["told_id"].bytes, *list(row.values())[1:]) for row in rows}


async def ask_again(executor: Executor, kind: str, bill_ids: Iterable[bytes]) -> None:
    """Puts an errand of these bills, or brings it forward."""
    keys = [one.hex() for one in bill_ids]
    if keys:
        await executor.execute(
            "with put as (insert into errand (kind, key, data)"
            "   select $1, k, '{}'::jsonb from unnest($2::text[]) k"
            "   on conflict (kind, key) do update set due_at = now(), tries = 0 returning 1)"
            " select pg_notify('errand', '') from put limit 1",
            kind,
            keys,
        )


_SEEN: Final = "select h.bill_id, h.number, h.revision, h.patient_id, h.digest from hospital_bill h"


def _seen(row: asyncpg.Record) -> Seen:
    return Seen(row["bill_id"].bytes, row["number"], row["revision"], row["patient_id"].bytes, row["digest"])
