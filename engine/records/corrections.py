"""Putting right what is wrong in somebody's data (PIPL 46), at a desk, with the document in hand.

The number of the document says who it is and is never changed: whoever has another number is somebody else.
What was there before stays, sealed with the person's own key, so that a record can be read as it was.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

import asyncpg

from engine.domain.ids import derived
from engine.records.identity import Person
from engine.records.request_keys import KeyUse, use_key
from engine.records.sealed_people import NAME, id_index, record_key
from engine.vault.vault import Vault

NAME_BEFORE: Final = "correction.name"
REASON: Final = "correction.reason"


@dataclass(frozen=True, slots=True)
class Corrected:
    patient_id: bytes
    changed: tuple[str, ...]  # of name, birth_date, sex
    is_new: bool  # False: a retry, which changed nothing


class NotCorrected(Exception):
    """Nothing was changed. `code` is of web/faults.py."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


async def correct(
    connection: asyncpg.Connection,
    vault: Vault,
    patient_id: bytes,
    right: Person,
    document: str,
    reason: str,
    staff_id: bytes,
    key: str,
    now: datetime,
) -> Corrected:
    """Writes what the document says, within the caller's transaction. `document`: the kind that was shown.

    Raises NotCorrected: no_such_patient, correction_refused (the document is another person's, the data is
    erased, or nothing differs), key_reused.
    """
    patient = UUID(bytes=patient_id)
    row = await connection.fetchrow(
        "select id_index, record_key, name, birth_date, sex from patient where id = $1 for update", patient
    )
    if row is None:
        raise NotCorrected("no_such_patient")
    if row["id_index"] != id_index(vault, right.id_type, right.id_number) or row["name"] is None:
        raise NotCorrected("correction_refused")
    id_ = derived(b"correction", staff_id, key.encode())
    said = vault.index(
        "request_key.fingerprint", f"{right.name}/{right.birth_date}/{right.sex}/{reason}"
    ).hex()
    use = await use_key(connection, staff_id, key, ("correction", patient_id.hex(), said), now)
    if use is KeyUse.OTHER:
        raise NotCorrected("key_reused")
    if use is KeyUse.AGAIN:
        done = await connection.fetchval("select changed from correction where id = $1", UUID(bytes=id_))
        return Corrected(patient_id, tuple(done or ()), False)
    own = record_key(patient_id, row["record_key"])
    before = vault.open(own, NAME, patient_id, row["name"])
    was: dict[str, str | date | None] = {"name": before, "birth_date": row["birth_date"], "sex": row["sex"]}
    told = {"name": right.name, "birth_date": right.birth_date, "sex": right.sex}
    # What a document does not say is no correction.
    changed = tuple(field for field, value in told.items() if value is not None and value != was[field])
    if not changed:
        raise NotCorrected("correction_refused")
    await connection.execute(
        "insert into correction (id, patient_id, name, birth_date, sex, changed, document, reason, by, at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        UUID(bytes=id_),
        patient,
        vault.seal(own, NAME_BEFORE, id_, before or "") if "name" in changed else None,
        row["birth_date"] if "birth_date" in changed else None,
        row["sex"] if "sex" in changed else None,
        list(changed),
        document,
        vault.seal(own, REASON, id_, reason),
        UUID(bytes=staff_id),
        now,
    )
    await connection.execute(
        "update patient set name = $2, birth_date = coalesce($3, birth_date), sex = coalesce($4, sex)"
        " where id = $1",
        patient,
        vault.seal(own, NAME, patient_id, right.name),
        right.birth_date,
        right.sex,
    )
    return Corrected(patient_id, changed, True)
