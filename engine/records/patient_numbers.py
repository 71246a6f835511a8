"""What other systems call our patients: whom a report or a registration is about.

A patient is known by a number that was linked before, or by a document; then the name must be the same. Their
numbers are sealed with the record's key and found by a keyed index, like documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from engine.domain.intake import Unclaimed, Unfit
from engine.records.identity import IdType, is_same_name, normal_id_number, normal_name
from engine.records.sealed_people import NAME, id_index, record_key
from engine.vault.vault import Vault

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

NUMBER: Final = "patient_number.number"
OURS: Final = "xinglin"
"""The system whose numbers are our own patients' ids: an order of ours brought it to them."""


@dataclass(frozen=True, slots=True)
class Number:
    system: str  # 'his', 'lis' or the name of their authority
    number: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a message is about, as far as it says so. Documents are normal or not: nobody has checked them."""

    numbers: Sequence[Number] = ()
    documents: Sequence[tuple[IdType, str]] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    patient_id: bytes
    new: tuple[Number, ...]  # numbers of theirs that nobody has linked yet


def number_index(vault: Vault, system: str, number: str) -> bytes:
    return vault.index(NUMBER, f"{system}\0{number}")


async def patient_by_number(executor: Executor, vault: Vault, system: str, number: str) -> bytes | None:
    """Our patient; None: nobody, or somebody who is forgotten."""
    found = await executor.fetchval(
        "select p.id from patient_number n join patient p on p.id = n.patient_id"
        " where n.system = $1 and n.number_index = $2 and p.record_key is not null",
        system,
        number_index(vault, system, number),
    )
    return None if found is None else bytes(found.bytes)


async def numbers_of(executor: Executor, vault: Vault, patient_id: bytes) -> list[Number]:
    """What they are called elsewhere, by system; nothing of who is forgotten."""
    rows = await executor.fetch(
        "select n.system, n.number_index, n.number, p.record_key from patient_number n"
        "  join patient p on p.id = n.patient_id where p.id = $1 order by n.system, n.linked_at",
        UUID(bytes=patient_id),
    )
    found = []
    for row in rows:
        text = vault.open(
            record_key(patient_id, row["record_key"]), NUMBER, row["number_index"], row["number"]
        )
        if text is not None:
            found.append(Number(row["system"], text))
    return found


async def number_of(executor: Executor, vault: Vault, patient_id: bytes, system: str) -> str | None:
    """What this one calls them; the latest of several, as after a merge over there."""
    row = await executor.fetchrow(
        "select n.number_index, n.number, p.record_key from patient_number n"
        "  join patient p on p.id = n.patient_id where p.id = $1 and n.system = $2"
        " order by n.linked_at desc limit 1",
        UUID(bytes=patient_id),
        system,
    )
    if row is None:
        return None
    return vault.open(record_key(patient_id, row["record_key"]), NUMBER, row["number_index"], row["number"])


async def link(
    executor: Executor,
    vault: Vault,
    patient_id: bytes,
    system: str,
    number: str,
    by: str,
    now: datetime,
) -> bool:
    """From now on this number is this patient's. False: it is another one's, or the patient is forgotten."""
    wrapped = await executor.fetchval("select record_key from patient where id = $1", UUID(bytes=patient_id))
    if wrapped is None:
        return False
    index = number_index(vault, system, number)
    sealed = vault.seal(record_key(patient_id, wrapped), NUMBER, index, number)
    owner = await executor.fetchval(
        "insert into patient_number (system, number_index, patient_id, number, linked_at, linked_by)"
        " values ($1, $2, $3, $4, $5, $6)"
        # A number of somebody who is forgotten may be given to the next one.
        " on conflict (system, number_index) do update"
        "    set patient_id = excluded.patient_id, number = excluded.number, linked_at = excluded.linked_at,"
        "        linked_by = excluded.linked_by"
        "  where not exists (select from patient where id = patient_number.patient_id"
        "                    and record_key is not null)"
        "     or patient_number.patient_id = excluded.patient_id"
        " returning patient_id",
        system,
        index,
        UUID(bytes=patient_id),
        sealed,
        now,
        by,
    )
    return owner is not None


async def match(executor: Executor, vault: Vault, identity: Identity) -> Match:
    """Whom it is about.

    Raises Unfit where numbers and documents are different people's, or the name is another one: it may be the
    wrong patient's. Raises Unclaimed where nobody is known by any of them.
    """
    numbers = [one for one in identity.numbers if one.system and one.number]
    documents = _documents(identity.documents)
    if not numbers and not documents:
        raise Unfit("patient.numbers", "missing")
    number_keys = {number_index(vault, one.system, one.number): one for one in numbers}
    document_keys = [id_index(vault, id_type.value, number) for id_type, number in documents]
    ours = [UUID(one.number) for one in numbers if one.system == OURS and _is_uuid(one.number)]
    rows = await executor.fetch(
        "select p.id, p.name, p.record_key, n.number_index from patient p"
        "  left join patient_number n on n.patient_id = p.id and n.number_index = any ($1)"
        " where p.record_key is not null and (n.number_index is not null or p.id_index = any ($2)"
        "    or p.id = any ($3))",
        list(number_keys),
        document_keys,
        ours,
    )
    found = {row["id"].bytes: row for row in rows}
    if not found:
        raise Unclaimed([*number_keys, *document_keys])
    if len(found) > 1:
        raise Unfit("patient.numbers", "several_people", "numbers of one person")
    patient_id, row = next(iter(found.items()))
    name = vault.open(record_key(patient_id, row["record_key"]), NAME, patient_id, row["name"])
    said = normal_name(identity.name) if identity.name else None
    # Nobody can compare with a name that is put away (engine/records/erasure.py).
    if said is not None and name is not None and not is_same_name(said, name):
        raise Unfit("patient.name", "another_person", "the name that this number has here")
    linked = {each["number_index"] for each in rows}
    new = [one for index, one in number_keys.items() if index not in linked and one.system != OURS]
    return Match(patient_id, tuple(new))


def _documents(documents: Sequence[tuple[IdType, str]]) -> list[tuple[IdType, str]]:
    normal = [(id_type, normal_id_number(id_type, number)) for id_type, number in documents]
    return [(id_type, number) for id_type, number in normal if number is not None]


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
