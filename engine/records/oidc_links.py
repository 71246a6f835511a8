"""Which account of the staff is whose at an identity provider. People make links, sign-ins never do."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from engine.records.staff import Staff, staff_of_id


class LinkRefused(Exception):
    """One line that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Link:
    issuer: str
    subject: str
    staff_id: bytes
    username: str
    linked_at: datetime
    linked_by: str


async def staff_of_subject(connection: asyncpg.Connection, issuer: str, subject: str) -> Staff | None:
    """None: nobody is linked, or the account is disabled."""
    found: UUID | None = await connection.fetchval(
        "select staff_id from oidc_link where issuer = $1 and subject = $2", issuer, subject
    )
    return None if found is None else await staff_of_id(connection, found.bytes)


async def link(
    connection: asyncpg.Connection, issuer: str, subject: str, username: str, now: datetime, by: str
) -> bytes:
    """Links an account; gives its id. The same link again changes nothing. Raises LinkRefused."""
    staff_id: UUID | None = await connection.fetchval("select id from staff where username = $1", username)
    if staff_id is None:
        raise LinkRefused(f"nobody has the username {username}")
    made = await connection.fetchval(
        "insert into oidc_link (issuer, subject, staff_id, linked_at, linked_by) values ($1, $2, $3, $4, $5)"
        " on conflict do nothing returning true",
        issuer,
        subject,
        staff_id,
        now,
        by,
    )
    if not made and not await connection.fetchval(
        "select true from oidc_link where issuer = $1 and subject = $2 and staff_id = $3",
        issuer,
        subject,
        staff_id,
    ):
        raise LinkRefused(
            f"{username} or this subject is linked already: `xinglin staff unlink-oidc` the other one first"
        )
    return staff_id.bytes


async def unlink(connection: asyncpg.Connection, issuer: str, username: str) -> bytes | None:
    """Gives the id of the account that was linked; None: it was not."""
    found: UUID | None = await connection.fetchval(
        "delete from oidc_link using staff where staff.id = staff_id and issuer = $1 and username = $2"
        " returning staff_id",
        issuer,
        username,
    )
    return None if found is None else found.bytes


async def links(connection: asyncpg.Connection) -> list[Link]:
    rows = await connection.fetch(
        "select issuer, subject, staff_id, username, linked_at, linked_by"
        " from oidc_link join staff on staff.id = staff_id order by username, issuer"
    )
    return [
        Link(
            row["issuer"],
            row["subject"],
            row["staff_id"].bytes,
            row["username"],
            row["linked_at"],
            row["linked_by"],
        )
        for row in rows
    ]
