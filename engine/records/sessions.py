"""Sessions: who is signed in, where, and until when (docs/SESSIONS.md).

A session is what tokens and cookies belong to. Of refresh tokens only the newest generation buys the next
pair; an older one that is shown again was copied by somebody, and ends the session for both. Whatever revokes
a row tells every gateway with its commit (0020_sessions.sql). Ids go in and come out as 16 bytes, times are
aware.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import asyncpg

from engine.records.staff import Staff, staff_of_id

Kind = Literal["account", "staff"]
Transport = Literal["bearer", "cookie"]

GRACE: Final = timedelta(seconds=10)
"""So long an answer that was lost on its way is given again, to the refresh token that was just replaced."""
KEPT: Final = timedelta(days=30)
"""So long the row of a session that has ended is kept: for its owner's questions, and the auditor's."""
LISTED_MAX: Final = 100
"""What an account may have at one time, so that all can be seen; of the staff the newest are listed."""


@dataclass(frozen=True, slots=True)
class NewSession:
    id: bytes
    kind: Kind
    owner: bytes  # account or staff
    transport: Transport
    method: str  # wechat, password, oidc
    device: str
    secret_hash: bytes | None  # of a cookie
    idle_seconds: int | None  # None: it may rest as long as it likes
    ends_at: datetime
    lives_until: datetime  # when what it gives out now ends by itself


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: bytes
    kind: Kind
    owner: bytes
    transport: Transport
    method: str
    device: str
    generation: int
    rotated_at: datetime
    created_at: datetime
    last_seen_at: datetime
    idle_seconds: int | None
    ends_at: datetime
    revoked_at: datetime | None

    @property
    def rests_until(self) -> datetime:
        """When it ends unless something is done with it."""
        if self.idle_seconds is None:
            return self.ends_at
        return min(self.ends_at, self.last_seen_at + timedelta(seconds=self.idle_seconds))

    def seen(self, at: datetime | None) -> datetime:
        """When it was last used, where `at` may not have been written down yet. What was done after its rest
        does not bring it back."""
        return self.last_seen_at if at is None or at >= self.rests_until else max(at, self.last_seen_at)


class NotRefreshed(StrEnum):
    """Why there is no next pair; web/faults.py has the words."""

    ENDED = "session_ended"
    REUSED = "refresh_reused"  # and the session has ended with it


_COLUMNS: Final = (
    "id, kind, owner, transport, method, device, generation, rotated_at, created_at, last_seen_at,"
    " idle_seconds, ends_at, revoked_at"
)
# Revoked, or past SessionRow.rests_until.
_OVER: Final = (
    "(revoked_at is not null or ends_at <= {now}"
    " or last_seen_at + idle_seconds * interval '1 second' <= {now})"
)


async def start(connection: asyncpg.Connection, new: NewSession, now: datetime) -> None:
    await connection.execute(
        "insert into session (id, kind, owner, transport, method, device, secret_hash, rotated_at,"
        " created_at, last_seen_at, idle_seconds, ends_at, lives_until)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, $10, $11)",
        UUID(bytes=new.id),
        new.kind,
        UUID(bytes=new.owner),
        new.transport,
        new.method,
        new.device,
        new.secret_hash,
        now,
        new.idle_seconds,
        new.ends_at,
        new.lives_until,
    )


async def staff_of_session(connection: asyncpg.Connection, staff_id: bytes) -> Staff | None:
    """Who a session of the staff is about to begin for; until the end of the transaction nobody changes their
    rights. None: they were disabled meanwhile."""
    locked = await connection.fetchval(
        "select true from staff where id = $1 and not disabled for share", UUID(bytes=staff_id)
    )
    return await staff_of_id(connection, staff_id) if locked else None


async def find(connection: asyncpg.Connection | asyncpg.Pool, session_id: bytes) -> SessionRow | None:
    """Ended or not."""
    row = await connection.fetchrow(f"select {_COLUMNS} from session where id = $1", UUID(bytes=session_id))
    return None if row is None else _row(row)


async def rotate(
    connection: asyncpg.Connection,
    session_id: bytes,
    kind: Kind,
    owner: bytes,
    generation: int,
    now: datetime,
    seen_at: datetime | None,
    access: timedelta,
) -> SessionRow | NotRefreshed:
    """The session as it is after a refresh token of this generation was shown; its access token lives for
    `access` at most. `seen_at` is when it was last used, where a gateway knows that better than the row; of
    staff who may rest only so long, a refresh is no use.

    In a transaction, which must be committed whatever this says: reuse ends the session. Of two refreshes at
    one instant one turns the generation, and the other is given what the first one was.
    """
    row = await connection.fetchrow(
        f"select {_COLUMNS} from session where id = $1 and kind = $2 and owner = $3 for update",
        UUID(bytes=session_id),
        kind,
        UUID(bytes=owner),
    )
    if row is None:
        return NotRefreshed.ENDED
    found = _row(row)
    seen = found.seen(seen_at)
    if found.revoked_at is not None or found.ends_at <= now:
        return NotRefreshed.ENDED
    is_newest = generation == found.generation
    is_lost_answer = generation == found.generation - 1 and now - found.rotated_at <= GRACE
    if not is_newest and not is_lost_answer:
        # Also one that is newer than the row: the database was put back to an older copy.
        await revoke(connection, session_id, "reuse", now)
        return NotRefreshed.REUSED if generation < found.generation else NotRefreshed.ENDED
    if found.idle_seconds is not None and seen + timedelta(seconds=found.idle_seconds) <= now:
        return NotRefreshed.ENDED
    turned = await connection.fetchrow(
        "update session set last_seen_at = $5::timestamptz,"
        " lives_until = greatest(lives_until, least($2::timestamptz + $3::interval, ends_at)),"
        " generation = generation + $4, rotated_at = case when $4 = 1 then $2 else rotated_at end"
        f" where id = $1 returning {_COLUMNS}",
        UUID(bytes=session_id),
        now,
        access,
        int(is_newest),
        # A console that refreshes by itself is not somebody who sits before it.
        seen if kind == "staff" and found.idle_seconds is not None else now,
    )
    assert turned is not None
    return _row(turned)


async def of_secret(connection: asyncpg.Connection | asyncpg.Pool, secret_hash: bytes) -> SessionRow | None:
    """The session of a cookie, ended or not."""
    row = await connection.fetchrow(f"select {_COLUMNS} from session where secret_hash = $1", secret_hash)
    return None if row is None else _row(row)


async def note_seen(connection: asyncpg.Connection | asyncpg.Pool, seen: Mapping[bytes, datetime]) -> None:
    """These were used at these times. A session that ended meanwhile by resting stays ended."""
    await connection.execute(
        "update session s set last_seen_at = seen.at"
        " from unnest($1::uuid[], $2::timestamptz[]) as seen(id, at)"
        " where s.id = seen.id and s.revoked_at is null and s.last_seen_at < seen.at"
        " and (s.idle_seconds is null or seen.at < s.last_seen_at + s.idle_seconds * interval '1 second')",
        [UUID(bytes=id_) for id_ in seen],
        list(seen.values()),
    )


async def revoke(
    connection: asyncpg.Connection, session_id: bytes, why: str, now: datetime, owner: bytes | None = None
) -> bool:
    """Whether it had not ended yet. With `owner`, only if it is theirs."""
    done = await connection.fetchval(
        "update session set revoked_at = $2, revoked_why = $3"
        " where id = $1 and revoked_at is null and owner = coalesce($4, owner) returning true",
        UUID(bytes=session_id),
        now,
        why,
        None if owner is None else UUID(bytes=owner),
    )
    return done is True


async def revoke_of_owner(
    connection: asyncpg.Connection, owner: bytes, why: str, now: datetime, keep: bytes | None = None
) -> int:
    """How many sessions of this account or staff member have ended with it; `keep` is left."""
    revoked = await connection.fetch(
        "update session set revoked_at = $2, revoked_why = $3"
        " where owner = $1 and revoked_at is null and id is distinct from $4 returning 1",
        UUID(bytes=owner),
        now,
        why,
        None if keep is None else UUID(bytes=keep),
    )
    return len(revoked)


async def end_oldest(connection: asyncpg.Connection, owner: bytes, now: datetime) -> None:
    """Of more than LISTED_MAX sessions those end that were used longest ago."""
    await connection.execute(
        "update session set revoked_at = $2, revoked_why = 'too_many' where revoked_at is null and id in ("
        " select id from session where owner = $1 and revoked_at is null"
        " order by last_seen_at desc, id offset $3)",
        UUID(bytes=owner),
        now,
        LISTED_MAX,
    )


async def spare(connection: asyncpg.Connection, session_id: bytes) -> None:
    """A change of password later in this transaction leaves this one session as it is."""
    await connection.execute("select set_config('xinglin.spared', $1, true)", session_id.hex())


async def spare_all(connection: asyncpg.Connection) -> None:
    """A new hash of the same password, later in this transaction, signs nobody out."""
    await connection.execute("select set_config('xinglin.spared', 'all', true)")


async def list_of_owner(
    connection: asyncpg.Connection | asyncpg.Pool, owner: bytes, now: datetime
) -> list[SessionRow]:
    """Those that have not ended, the last one used first."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from session where owner = $1 and revoked_at is null"
        f" and not coalesce({_OVER.format(now='$2')}, false) order by last_seen_at desc, id limit $3",
        UUID(bytes=owner),
        now,
        LISTED_MAX,
    )
    return [_row(row) for row in rows]


async def revoked_alive(connection: asyncpg.Connection | asyncpg.Pool, now: datetime) -> dict[bytes, int]:
    """Every revoked session of which something is still about: until when, in seconds since 1970."""
    rows = await connection.fetch(
        "select id, lives_until from session where revoked_at is not null and lives_until > $1", now
    )
    return {row["id"].bytes: _ceil(row["lives_until"]) for row in rows}


async def revoked_since(connection: asyncpg.Connection | asyncpg.Pool, since: datetime) -> dict[bytes, int]:
    """Those that were revoked after `since`, in the same way."""
    rows = await connection.fetch(
        "select id, lives_until from session where revoked_at is not null and revoked_at > $1", since
    )
    return {row["id"].bytes: _ceil(row["lives_until"]) for row in rows}


async def over_of(
    connection: asyncpg.Connection | asyncpg.Pool, session_ids: list[bytes], now: datetime
) -> set[bytes]:
    """Which of these have ended, by resting or by their time. Unknown ones have not."""
    rows = await connection.fetch(
        f"select id from session where id = any($1) and {_OVER.format(now='$2')}",
        [UUID(bytes=id_) for id_ in session_ids],
        now,
    )
    return {row["id"].bytes for row in rows}


async def forget_ended(connection: asyncpg.Connection | asyncpg.Pool, now: datetime) -> None:
    """Rows of sessions that ended KEPT ago."""
    await connection.execute(
        "delete from session where ends_at < $1 or revoked_at < $1"
        " or last_seen_at + idle_seconds * interval '1 second' < $1",
        now - KEPT,
    )


def _row(row: asyncpg.Record) -> SessionRow:
    return SessionRow(
        row["id"].bytes,
        row["kind"],
        row["owner"].bytes,
        row["transport"],
        row["method"],
        row["device"],
        row["generation"],
        row["rotated_at"],
        row["created_at"],
        row["last_seen_at"],
        row["idle_seconds"],
        row["ends_at"],
        row["revoked_at"],
    )


def _ceil(at: datetime) -> int:
    return int(at.timestamp()) + 1
