"""People who are there already when a bench begins: signed in, with a patient each. Not what is measured."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg

from web.auth import Tokens

TOKEN_SECONDS: Final = 6 * 3600


@dataclass(frozen=True, slots=True)
class Person:
    token: str
    patient_ids: tuple[str, ...]


async def add_people(
    connection: asyncpg.Connection, secret: bytes, number: int, patients: int = 1
) -> list[Person]:
    """New accounts with so many patients each. Their document is a passport that says neither age nor sex, so
    every department is open to them."""
    now = datetime.now(UTC)
    made = [(_new(), [_new() for _ in range(patients)]) for _ in range(number)]
    await connection.copy_records_to_table(
        "account",
        columns=["id", "openid", "created_at"],
        records=[(account, f"bench-{account}", now) for account, _ in made],
    )
    await connection.copy_records_to_table(
        "patient",
        columns=["id", "id_type", "created_at"],  # nameless: no page of a bench shows whole names
        records=[(patient, "passport", now) for _, family in made for patient in family],
    )
    await connection.copy_records_to_table(
        "account_patient",
        columns=["account_id", "patient_id", "relation", "created_at"],
        records=[(account, patient, "self", now) for account, family in made for patient in family],
    )
    await connection.execute("analyze account, patient, account_patient")
    tokens = Tokens(secret, TOKEN_SECONDS, TOKEN_SECONDS)
    return [
        Person(tokens.issue(account.bytes).access_token, tuple(map(str, family))) for account, family in made
    ]


def _new() -> UUID:
    return UUID(int=secrets.randbits(128))
