"""Rows of people for tests that do not come by HTTP."""

from uuid import UUID

import asyncpg

from engine.records.sealed_people import ID_NUMBER, NAME, PHONE, contact_key_of, id_index, phone_row
from engine.vault.columns import RECORD_KEY
from engine.vault.sealing import Profile
from engine.vault.vault import Vault, made_masters

VAULT = Vault(made_masters(), Profile.AES)
"""Of a whole module's tests."""


async def add_person(
    connection: asyncpg.Connection | asyncpg.Pool,
    vault: Vault,
    patient_id: bytes,
    *,
    name: str = "测试者",
    id_type: str = "passport",
    id_number: str = "",
) -> None:
    """A patient whose name and number this vault opens. Without a number it is the id's."""
    number = id_number or patient_id.hex().upper()
    key = vault.new_key(RECORD_KEY.field, patient_id)
    await connection.execute(
        "insert into patient (id, id_type, id_number, id_index, name, record_key, created_at)"
        " values ($1, $2, $3, $4, $5, $6, now())",
        UUID(bytes=patient_id),
        id_type,
        vault.seal(key, ID_NUMBER, patient_id, number),
        id_index(vault, id_type, number),
        vault.seal(key, NAME, patient_id, name),
        key.wrapped,
    )


async def give_name(
    connection: asyncpg.Connection | asyncpg.Pool, vault: Vault, patient_id: bytes, name: str
) -> None:
    """To a patient who was registered without one."""
    key = vault.new_key(RECORD_KEY.field, patient_id)
    await connection.execute(
        "update patient set record_key = $2, name = $3 where id = $1",
        UUID(bytes=patient_id),
        key.wrapped,
        vault.seal(key, NAME, patient_id, name),
    )


async def add_right(
    connection: asyncpg.Connection,
    vault: Vault,
    account_id: bytes,
    patient_id: bytes,
    *,
    relation: str = "self",
    phone: str = "13800138000",
) -> None:
    """The account may book for the patient, for good."""
    key = await contact_key_of(connection, vault, patient_id)
    await connection.execute(
        "insert into account_patient (account_id, patient_id, relation, phone, created_at)"
        " values ($1, $2, $3, $4, now())",
        UUID(bytes=account_id),
        UUID(bytes=patient_id),
        relation,
        vault.seal(key, PHONE, phone_row(account_id, patient_id), phone),
    )
