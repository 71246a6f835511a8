"""A person's sealed columns and the keys that open them, for whichever records function meets a person.

Queries select `p.record_key, p.name` beside the patient's id; what comes out of here is text again.
"""

from uuid import UUID

import asyncpg

from engine.domain.masking import ERASED_NAME
from engine.vault.columns import ACCOUNT_KEY, CONTACT_KEY, RECORD_KEY
from engine.vault.vault import DataKey, Vault

NAME = "patient.name"
ID_NUMBER = "patient.id_number"
PHONE = "account_patient.phone"
ACCOUNT_PHONE = "account.phone"


def record_key(patient_id: bytes, wrapped: bytes | None) -> DataKey:
    return DataKey(RECORD_KEY.field, patient_id, wrapped)


def contact_key(patient_id: bytes, wrapped: bytes | None) -> DataKey:
    return DataKey(CONTACT_KEY.field, patient_id, wrapped)


def account_key(account_id: bytes, wrapped: bytes | None) -> DataKey:
    return DataKey(ACCOUNT_KEY.field, account_id, wrapped)


def id_index(vault: Vault, id_type: str, id_number: str) -> bytes:
    """By which a document is found; `id_number` is normal (engine/records/identity.py)."""
    return vault.index(ID_NUMBER, f"{id_type}/{id_number}")


def name_of(vault: Vault, patient_id: bytes, wrapped: bytes | None, sealed: bytes | None) -> str:
    """ERASED_NAME where nobody can read it any more."""
    name = vault.open(record_key(patient_id, wrapped), NAME, patient_id, sealed)
    return ERASED_NAME if name is None else name


def phone_row(account_id: bytes, patient_id: bytes) -> bytes:
    """What stands for the id of a row of account_patient."""
    return account_id + patient_id


def phone_of(
    vault: Vault, account_id: bytes, patient_id: bytes, wrapped: bytes | None, sealed: bytes | None
) -> str | None:
    """None where there is none, or nobody can read it any more."""
    return vault.open(contact_key(patient_id, wrapped), PHONE, phone_row(account_id, patient_id), sealed)


async def contact_key_of(connection: asyncpg.Connection, vault: Vault, patient_id: bytes) -> DataKey:
    """To seal with: made where there is none, so call it within the transaction that seals."""
    wrapped = await connection.fetchval(
        "select contact_key from patient where id = $1 for update", UUID(bytes=patient_id)
    )
    if wrapped is not None:
        return contact_key(patient_id, wrapped)
    made = vault.new_key(CONTACT_KEY.field, patient_id)
    await connection.execute(
        "update patient set contact_key = $2 where id = $1", UUID(bytes=patient_id), made.wrapped
    )
    return made


async def account_key_of(connection: asyncpg.Connection, vault: Vault, account_id: bytes) -> DataKey:
    """To seal with: made where there is none, so call it within the transaction that seals."""
    wrapped = await connection.fetchval(
        "select contact_key from account where id = $1 for update", UUID(bytes=account_id)
    )
    if wrapped is not None:
        return account_key(account_id, wrapped)
    made = vault.new_key(ACCOUNT_KEY.field, account_id)
    await connection.execute(
        "update account set contact_key = $2 where id = $1", UUID(bytes=account_id), made.wrapped
    )
    return made
