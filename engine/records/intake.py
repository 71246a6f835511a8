"""Messages of other systems, each once: what became of it and, while it waits, the message itself, sealed.

`Kept` rows know reasons and times, and nothing that a message says; `contents` opens one for who works on it.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from engine.domain.ids import derived
from engine.domain.intake import Finding
from engine.vault.columns import INTAKE_KEY
from engine.vault.failed import SealBroken
from engine.vault.vault import DataKey, Vault

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

State = Literal["accepted", "quarantined", "unclaimed", "dropped"]

BODY: Final = "intake_message.body"
LEASE_SECONDS: Final = 60
"""How long a retry is one process' own. It dies: another one takes it afterwards."""
REMEMBERED_DAYS: Final = 30
"""How long the id of what was accepted is known, so that a replay is seen as one."""
UNCLAIMED_DAYS: Final = 400
_COLUMNS: Final = (
    "id, interface, state, first_at, last_at, times, reasons::text as reasons,"
    " retry_at is not null as is_due, settled_at, settled_by, settled_why"
)


@dataclass(frozen=True, slots=True)
class Known:
    """What there was of a message before it came."""

    id: bytes
    state: State
    digest: bytes
    reasons: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Look:
    known: Known | None
    is_behind: bool  # an earlier message of its aggregate is in quarantine
    rules_version: int  # of the hospital's own; 0: it has none


@dataclass(frozen=True, slots=True)
class Contents:
    message_id: str
    body: Mapping[str, Any] | None  # None: it could not be read
    raw: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """One message, as lists show it."""

    id: bytes
    interface: str
    state: State
    first_at: datetime
    last_at: datetime
    times: int
    reasons: tuple[Finding, ...]
    is_due: bool  # it is about to be tried again
    settled_at: datetime | None
    settled_by: str | None
    settled_why: str | None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message on its way in, as rows need it."""

    interface: str
    message_id: str
    digest: bytes
    aggregate: bytes | None
    contents: Contents
    now: datetime


def message_index(vault: Vault, interface: str, message_id: str) -> bytes:
    return vault.index("intake_message.message_index", f"{interface}\0{message_id}")


def aggregate_index(vault: Vault, interface: str, aggregate: str) -> bytes | None:
    return vault.index("intake_message.aggregate", f"{interface}\0{aggregate}") if aggregate else None


def id_of(index: bytes) -> bytes:
    """The same for the same message, so that two processes that take it at once write one row."""
    return derived(b"intake", index)


async def look(executor: Executor, interface: str, index: bytes, aggregate: bytes | None) -> Look:
    """All that is needed before a message is judged, in one round trip."""
    row = await executor.fetchrow(
        "select m.id, m.state, m.digest, m.reasons::text as reasons,"
        "       (select coalesce(max(version), 0) from intake_rules) as rules_version,"
        "       $3::bytea is not null and exists (select from intake_message o where o.interface = $1"
        "          and o.aggregate = $3 and o.state = 'quarantined' and o.message_index <> $2"
        "          and (m.first_at is null or o.first_at < m.first_at)) as is_behind"
        "  from (select 1) one left join intake_message m on m.interface = $1 and m.message_index = $2",
        interface,
        index,
        aggregate,
    )
    known = None
    if row["id"] is not None:
        known = Known(row["id"].bytes, row["state"], row["digest"], findings_of(row["reasons"]))
    return Look(known, row["is_behind"], row["rules_version"])


async def accepted(executor: Executor, index: bytes, incoming: Incoming) -> bytes | None:
    """Notes that it was used. What was kept of it goes; None: another process has noted the same before."""
    row = await executor.fetchrow(
        "insert into intake_message"
        "   (id, interface, message_index, state, digest, aggregate, first_at, last_at)"
        " values ($1, $2, $3, 'accepted', $4, $5, $6, $6)"
        " on conflict (interface, message_index) do update"
        "    set state = 'accepted', digest = excluded.digest, last_at = excluded.last_at,"
        "        times = intake_message.times + 1, reasons = '[]', data_key = null, body = null,"
        "        claim_keys = null, retry_at = null, settled_at = null, settled_by = null, settled_why = null"
        "  where intake_message.state <> 'accepted'"
        " returning id, aggregate",
        UUID(bytes=id_of(index)),
        incoming.interface,
        index,
        incoming.digest,
        incoming.aggregate,
        incoming.now,
    )
    if row is None:
        return None
    await _release(executor, incoming.interface, row["aggregate"], incoming.now)
    return bytes(row["id"].bytes)


async def kept(
    executor: Executor,
    vault: Vault,
    index: bytes,
    incoming: Incoming,
    state: Literal["quarantined", "unclaimed"],
    reasons: Sequence[Finding],
    claim_keys: Sequence[bytes] = (),
) -> bytes:
    """Keeps it, sealed with a key of its own, until somebody mends what is wrong or the patient is known."""
    id_ = id_of(index)
    key = vault.new_key(INTAKE_KEY.field, id_)
    said = incoming.contents
    text = orjson.dumps(
        {"message_id": said.message_id, "body": said.body, "raw": base64.b64encode(said.raw).decode()}
    ).decode()
    await executor.execute(
        "insert into intake_message (id, interface, message_index, state, digest, aggregate, first_at,"
        "   last_at, reasons, data_key, body, claim_keys)"
        " values ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11)"
        " on conflict (interface, message_index) do update"
        "    set state = excluded.state, digest = excluded.digest, last_at = excluded.last_at,"
        "        times = intake_message.times + 1, reasons = excluded.reasons, data_key = excluded.data_key,"
        "        body = excluded.body, claim_keys = excluded.claim_keys, retry_at = null,"
        "        settled_at = null, settled_by = null, settled_why = null"
        "  where intake_message.state <> 'accepted'",
        UUID(bytes=id_),
        incoming.interface,
        index,
        state,
        incoming.digest,
        incoming.aggregate,
        incoming.now,
        orjson.dumps(reasons).decode(),
        key.wrapped,
        vault.seal(key, BODY, id_, text),
        list(claim_keys) or None,
    )
    return id_


@dataclass(frozen=True, slots=True)
class Due:
    """A message that is to be tried again."""

    id: bytes
    interface: str
    digest: bytes
    aggregate: bytes | None
    index: bytes


async def due(executor: Executor, interfaces: Sequence[str], now: datetime) -> Due | None:
    """The next one, which is then the caller's for LEASE_SECONDS."""
    row = await executor.fetchrow(
        "update intake_message set retry_at = $2::timestamptz + $3::interval where id ="
        " (select id from intake_message where retry_at <= $2 and interface = any ($1)"
        "    and state in ('quarantined', 'unclaimed') order by first_at, id limit 1 for update skip locked)"
        " returning id, interface, digest, aggregate, message_index",
        list(interfaces),
        now,
        timedelta(seconds=LEASE_SECONDS),
    )
    if row is None:
        return None
    return Due(row["id"].bytes, row["interface"], row["digest"], row["aggregate"], row["message_index"])


async def recheck_claims(executor: Executor, since: datetime, now: datetime) -> None:
    """Of the latest unclaimed ones: a patient who was added in the very moment in which a message was kept
    has found nothing to claim, and the message nobody."""
    await executor.execute(
        "update intake_message m set retry_at = $2 where m.state = 'unclaimed' and m.first_at > $1"
        "   and m.retry_at is null and (exists (select from patient where id_index = any (m.claim_keys))"
        "     or exists (select from patient_number where number_index = any (m.claim_keys)))",
        since,
        now,
    )


async def not_now(executor: Executor, id_: bytes) -> None:
    """It stays as it is, until it is asked for again."""
    await executor.execute("update intake_message set retry_at = null where id = $1", UUID(bytes=id_))


async def contents(executor: Executor, vault: Vault, id_: bytes) -> Contents | None:
    """None: there is no such one, or nothing is kept of it any more. Raises SealBroken, VaultBehind."""
    row = await executor.fetchrow("select data_key, body from intake_message where id = $1", UUID(bytes=id_))
    if row is None:
        return None
    text = vault.open(DataKey(INTAKE_KEY.field, id_, row["data_key"]), BODY, id_, row["body"])
    if text is None:
        return None
    try:
        said = orjson.loads(text)
        return Contents(said["message_id"], said["body"], base64.b64decode(said["raw"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise SealBroken(f"{BODY} of {UUID(bytes=id_)} is not what this program seals there") from None


async def ask_retry(
    executor: Executor, now: datetime, *, id_: bytes | None = None, interface: str | None = None
) -> int:
    """One, or all of an interface, or all: how many will be tried again. Receivers look every two seconds."""
    told = await executor.execute(
        "update intake_message set retry_at = $1 where state in ('quarantined', 'unclaimed')"
        "   and ($2::uuid is null or id = $2) and ($3::text is null or interface = $3)"
        "   and (state = 'quarantined' or $2::uuid is not null)",
        now,
        None if id_ is None else UUID(bytes=id_),
        interface,
    )
    return int(told.rpartition(" ")[2])


async def drop(executor: Executor, id_: bytes, who: str, why: str, now: datetime) -> str | None:
    """Gives one up: its content goes, what waits behind it is tried. Its interface; None: nothing waits."""
    row = await executor.fetchrow(
        "update intake_message set state = 'dropped', data_key = null, body = null, claim_keys = null,"
        "       retry_at = null, settled_at = $2, settled_by = $3, settled_why = $4"
        " where id = $1 and state in ('quarantined', 'unclaimed') returning interface, aggregate",
        UUID(bytes=id_),
        now,
        who,
        why,
    )
    if row is None:
        return None
    await _release(executor, row["interface"], row["aggregate"], now)
    return str(row["interface"])


async def _release(executor: Executor, interface: str, aggregate: bytes | None, now: datetime) -> None:
    """The next one that waited behind a message which is through."""
    if aggregate is None:
        return
    await executor.execute(
        "update intake_message set retry_at = $3 where id = (select id from intake_message"
        "   where interface = $1 and aggregate = $2 and state = 'quarantined' order by first_at, id limit 1)"
        '  and reasons @> \'[{"rule": "behind"}]\'',
        interface,
        aggregate,
        now,
    )


async def listed(
    executor: Executor, interface: str | None, states: Sequence[State], limit: int, before: datetime | None
) -> list[Kept]:
    """Newest first."""
    rows = await executor.fetch(
        f"select {_COLUMNS} from intake_message where ($1::text is null or interface = $1)"
        "   and state = any ($2) and ($3::timestamptz is null or first_at < $3)"
        " order by first_at desc, id limit $4",
        interface,
        list(states),
        before,
        limit,
    )
    return [_kept(row) for row in rows]


async def one(executor: Executor, id_: bytes) -> Kept | None:
    row = await executor.fetchrow(f"select {_COLUMNS} from intake_message where id = $1", UUID(bytes=id_))
    return None if row is None else _kept(row)


@dataclass(frozen=True, slots=True)
class Waiting:
    quarantined: int
    oldest: datetime | None  # of these


async def waiting(executor: Executor) -> dict[str, Waiting]:
    """By interface; those where nothing is in quarantine are not in it."""
    rows = await executor.fetch(
        "select interface, count(*) as n, min(first_at) as oldest from intake_message"
        " where state = 'quarantined' group by interface"
    )
    return {row["interface"]: Waiting(row["n"], row["oldest"]) for row in rows}


async def is_full(executor: Executor, interface: str, most: int) -> bool:
    """Whether so many of this interface are in quarantine."""
    counted = await executor.fetchval(
        "select count(*) from (select from intake_message where interface = $1 and state = 'quarantined'"
        " limit $2) as found",
        interface,
        most,
    )
    return bool(counted >= most)


async def forget_old(executor: Executor, now: datetime) -> None:
    """Ids after REMEMBERED_DAYS, and what nobody has come for after UNCLAIMED_DAYS."""
    await executor.execute(
        "delete from intake_message where state in ('accepted', 'dropped') and last_at < $1",
        now - timedelta(days=REMEMBERED_DAYS),
    )
    await executor.execute(
        "delete from intake_message where state = 'unclaimed' and first_at < $1",
        now - timedelta(days=UNCLAIMED_DAYS),
    )


# The hospital's own rules.


@dataclass(frozen=True, slots=True)
class RulesRecord:
    version: int
    text: str
    who: str
    at: datetime


async def rules_in_force(executor: Executor) -> RulesRecord | None:
    row = await executor.fetchrow(
        "select version, text, who, at from intake_rules order by version desc limit 1"
    )
    return None if row is None else RulesRecord(*row)


async def store_rules(executor: Executor, text: str, who: str, now: datetime) -> bool:
    """The text is right (engine/records/intake_rules.py). False: it is in force already."""
    last = await rules_in_force(executor)
    if last is not None and last.text == text:
        return False
    await executor.execute("insert into intake_rules (text, who, at) values ($1, $2, $3)", text, who, now)
    return True


def findings_of(text: str) -> tuple[Finding, ...]:
    return tuple(Finding(**each) for each in orjson.loads(text))


def _kept(row: asyncpg.Record) -> Kept:
    return Kept(**{**row, "id": row["id"].bytes, "reasons": findings_of(row["reasons"])})
