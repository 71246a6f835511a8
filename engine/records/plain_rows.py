"""Seals what was written before there was a vault: migration 0019 left it in plain_… columns.

`xinglin serve` calls this before it takes requests. Rows are sealed in batches, each a transaction of its
own; a run that is killed midway goes on where it was, because a plain column that still holds something is
what is left to do. At the end the tables are written anew, so that no page holds the old bytes, and the
columns are dropped.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.ids import derived
from engine.records.conduct import APPEAL_TEXT, DECISION_REASON
from engine.records.no_show_calls import NOTE as CALL_NOTE
from engine.records.no_show_calls import note_row
from engine.records.patients import desk_openid
from engine.records.sealed_people import (
    ID_NUMBER,
    NAME,
    PHONE,
    account_key_of,
    contact_key,
    contact_key_of,
    id_index,
    phone_row,
    record_key,
)
from engine.records.vitals import NOTE as VITALS_NOTE
from engine.vault.columns import CONTACT_KEY, RECORD_KEY
from engine.vault.vault import Vault

log = logging.getLogger(__name__)

BATCH: Final = 1_000
_TABLES: Final = ("patient", "account_patient", "account", "vitals", "penalty", "no_show_call", "amnesty")


async def seal_plain_rows(
    connection: asyncpg.Connection,
    vault: Vault,
    told: Callable[[str], None] = log.warning,
    batch: int = BATCH,
) -> bool:
    """All of them. False: there is nothing of that kind, as in every database that was sealed from its
    start."""
    if not await _is_left(connection):
        return False
    told("people's names, numbers and telephones are sealed: this is done once, before anything is served")
    for what, select, seal in _STEPS:
        done = 0
        async for count in _all(connection, vault, select, seal, batch):
            done += count
            told(f"{done} {what} are sealed")
    # Of whom the desk had begun to register and never did: nobody can look for these by a number any more.
    await connection.execute(
        "update account set openid = 'desk:' || id where openid like 'desk:%' and length(openid) = 37"
    )
    await _forget(connection, told)
    return True


async def _is_left(connection: asyncpg.Connection) -> bool:
    return bool(
        await connection.fetchval(
            "select exists (select from pg_attribute where attrelid = 'patient'::regclass"
            " and attname = 'plain_name' and not attisdropped)"
        )
    )


_Place = tuple[UUID, UUID]
"""Of the last row of a batch; tables whose id is one column leave the second at zero."""
_START: Final[_Place] = (UUID(int=0), UUID(int=0))
_Rows = Sequence[asyncpg.Record]
_Seal = Callable[[asyncpg.Connection, Vault, _Rows], Awaitable[None]]


async def _all(
    connection: asyncpg.Connection, vault: Vault, select: str, seal: _Seal, batch: int
) -> AsyncIterator[int]:
    """How many of each batch. `select` takes the place after which to go on and the batch's size."""
    place = _START
    while True:
        async with connection.transaction():
            rows = await connection.fetch(select, *place, batch)
            await seal(connection, vault, rows)
        if rows:
            yield len(rows)
        if len(rows) < batch:
            return
        place = rows[-1]["one"], rows[-1]["two"]


_PATIENTS: Final = (
    "select id as one, $2::uuid as two, id_type, plain_name, plain_id_number, contact_key from patient"
    " where id > $1 and plain_name is not null order by id limit $3 for update"
)


async def _seal_patients(connection: asyncpg.Connection, vault: Vault, rows: _Rows) -> None:
    sealed, accounts = [], []
    for row in rows:
        id_, kind, number = row["one"].bytes, row["id_type"], row["plain_id_number"]
        record = vault.new_key(RECORD_KEY.field, id_)
        sealed.append(
            (
                row["one"],
                record.wrapped,
                row["contact_key"] or vault.new_key(CONTACT_KEY.field, id_).wrapped,
                vault.seal(record, NAME, id_, row["plain_name"]),
                vault.seal(record, ID_NUMBER, id_, number),
                id_index(vault, kind, number),
            )
        )
        # The desk's account of a person was called by a hash of the number that anybody could make.
        was = f"desk:{derived(b'desk', f'{kind}/{number}'.encode()).hex()}"
        accounts.append((was, desk_openid(vault, kind, number)))
    await connection.executemany(
        "update patient set plain_name = null, plain_id_number = null,"
        " record_key = $2, contact_key = $3, name = $4, id_number = $5, id_index = $6 where id = $1",
        sealed,
    )
    await connection.executemany("update account set openid = $2 where openid = $1", accounts)


_PHONES: Final = (
    "select a.account_id as one, a.patient_id as two, a.plain_phone, p.contact_key"
    "  from account_patient a join patient p on p.id = a.patient_id"
    " where (a.account_id, a.patient_id) > ($1, $2) and a.plain_phone is not null"
    " order by a.account_id, a.patient_id limit $3 for update of a"
)


async def _seal_phones(connection: asyncpg.Connection, vault: Vault, rows: _Rows) -> None:
    sealed = []
    for row in rows:
        account_id, patient_id = row["one"].bytes, row["two"].bytes
        key, place = contact_key(patient_id, row["contact_key"]), phone_row(account_id, patient_id)
        sealed.append((row["one"], row["two"], vault.seal(key, PHONE, place, row["plain_phone"])))
    await connection.executemany(
        "update account_patient set plain_phone = null, phone = $3 where account_id = $1 and patient_id = $2",
        sealed,
    )


_VITALS: Final = (
    "select v.id as one, $2::uuid as two, v.plain_note, p.id as patient_id, p.record_key"
    "  from vitals v join ticket t on t.id = v.ticket_id join patient p on p.id = t.patient_id"
    " where v.id > $1 and v.plain_note <> '' order by v.id limit $3 for update of v"
)


async def _seal_vitals(connection: asyncpg.Connection, vault: Vault, rows: _Rows) -> None:
    sealed = []
    for row in rows:
        key = record_key(row["patient_id"].bytes, row["record_key"])
        sealed.append((row["one"], vault.seal(key, VITALS_NOTE, row["one"].bytes, row["plain_note"])))
    await connection.executemany("update vitals set plain_note = null, note = $2 where id = $1", sealed)


_PENALTIES: Final = (
    "select id as one, $2::uuid as two, subject_kind, subject, plain_appeal_text, plain_decision_reason"
    "  from penalty where id > $1 and num_nonnulls(plain_appeal_text, plain_decision_reason) > 0"
    " order by id limit $3 for update"
)


async def _seal_penalties(connection: asyncpg.Connection, vault: Vault, rows: _Rows) -> None:
    for row in rows:
        id_, key_of = row["one"].bytes, account_key_of if row["subject_kind"] == "account" else contact_key_of
        key = await key_of(connection, vault, row["subject"].bytes)
        text, reason = row["plain_appeal_text"], row["plain_decision_reason"]
        await connection.execute(
            "update penalty set plain_appeal_text = null, plain_decision_reason = null,"
            " appeal_text = $2, decision_reason = $3 where id = $1",
            row["one"],
            None if text is None else vault.seal(key, APPEAL_TEXT, id_, text),
            None if reason is None else vault.seal(key, DECISION_REASON, id_, reason),
        )


_CALLS: Final = (
    "select c.appointment_id as one, $2::uuid as two, c.id, c.at, c.plain_note, p.id as patient_id,"
    "       p.contact_key"
    "  from no_show_call c join appointment a on a.id = c.appointment_id"
    "  join patient p on p.id = a.patient_id"
    " where c.appointment_id >= $1 and c.plain_note <> ''"
    " order by c.appointment_id, c.id limit $3 for update of c"
)


async def _seal_calls(connection: asyncpg.Connection, vault: Vault, rows: _Rows) -> None:
    sealed = []
    for row in rows:
        key = contact_key(row["patient_id"].bytes, row["contact_key"])
        place = note_row(row["one"].bytes, row["at"])
        sealed.append((row["id"], vault.seal(key, CALL_NOTE, place, row["plain_note"])))
    await connection.executemany("update no_show_call set plain_note = null, note = $2 where id = $1", sealed)


_STEPS: Final[tuple[tuple[str, str, _Seal], ...]] = (  # patients first: the others use their keys
    ("patients", _PATIENTS, _seal_patients),
    ("telephones", _PHONES, _seal_phones),
    ("notes of measurements", _VITALS, _seal_vitals),
    ("appeals", _PENALTIES, _seal_penalties),
    ("notes of calls", _CALLS, _seal_calls),
)


async def _forget(connection: asyncpg.Connection, told: Callable[[str], None]) -> None:
    """The old bytes: of pages, of the planner's samples, then the columns. Before that nothing is dropped, so
    that whoever is killed here begins here again."""
    told("the tables are written anew without them")
    for table in _TABLES:
        await connection.execute(f"vacuum full {table}")
    async with connection.transaction():
        await connection.execute(
            "alter table patient drop column plain_name, drop column plain_id_number;"
            "alter table account_patient drop column plain_phone;"
            "alter table vitals drop column plain_note;"
            "alter table vitals validate constraint vitals_say_something;"
            "alter table penalty drop column plain_appeal_text, drop column plain_decision_reason;"
            "alter table no_show_call drop column plain_note"
        )
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await connection.execute("vacuum full pg_catalog.pg_statistic")
    await connection.execute("analyze patient, account, account_patient")
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await connection.execute("checkpoint")  # segments of WAL with the old bytes may be written over
