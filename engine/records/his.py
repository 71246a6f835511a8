"""What the HIS is believed to have of our numbers, beside the numbers themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from engine.domain.his_rules import Believed, Ours, Phase
from engine.domain.policy import Channel

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

CHAIN_MAX: Final = 64
"""Numbers that one patient changed from one to the next, and are looked at together."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One number, and what they have of it."""

    ours: Ours
    believed: Believed | None
    his_id: str | None
    department_id: str
    account_id: bytes
    reason: str
    noted_at: datetime | None
    """When something was last believed anew"""


_KEPT: Final = (
    "a.id, a.status, a.slot_id, a.starts_at, a.number, a.channel, a.department_id, a.account_id,"
    " coalesce(a.reason, '') as reason,"
    " exists (select from his_truth t where t.department_id = a.department_id) as asks_first,"
    " r.phase, r.his_id, r.slot_id as their_slot, r.starts_at as their_start, r.number as their_number,"
    " r.updated_at as noted_at"
)


async def roots(connection: asyncpg.Connection, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """The first number of each one's chain: itself, where nothing was changed for it."""
    rows = await connection.fetch(
        "with recursive up (start, id, replaces, depth) as ("
        "  select id, id, replaces, 0 from appointment where id = any ($1)"
        "  union all select up.start, a.id, a.replaces, up.depth + 1"
        "    from up join appointment a on a.id = up.replaces where up.depth < $2)"
        " select start, id from up u where not exists"
        "  (select from up v where v.start = u.start and v.depth > u.depth)",
        [UUID(bytes=one) for one in ids],
        CHAIN_MAX,
    )
    return {row["start"].bytes: row["id"].bytes for row in rows}


async def chain(executor: Executor, root: bytes) -> list[Kept]:
    """From the first to the newest."""
    rows = await executor.fetch(
        "with recursive down (id, successor, depth) as ("
        "  select id, successor, 0 from appointment where id = $1"
        "  union all select a.id, a.successor, down.depth + 1"
        "    from down join appointment a on a.id = down.successor where down.depth < $2)"
        f" select {_KEPT} from down join appointment a on a.id = down.id"
        "   left join his_registration r on r.appointment_id = a.id order by down.depth",
        UUID(bytes=root),
        CHAIN_MAX,
    )
    return [_kept(row) for row in rows]


async def numbers_of(executor: Executor, first: datetime, until: datetime) -> list[Kept]:
    """All that were ever given for this time, but those that nobody over there need know of."""
    rows = await executor.fetch(
        f"select {_KEPT} from appointment a left join his_registration r on r.appointment_id = a.id"
        " where a.starts_at >= $1 and a.starts_at < $2 and (a.status in (2, 3, 4, 6) or r.phase is not null)",
        first,
        until,
    )
    return [_kept(row) for row in rows]


async def by_his_id(executor: Executor, his_id: str) -> Kept | None:
    """The number that their registration is; None: not known, or it could not be taken in."""
    row = await executor.fetchrow(
        f"select {_KEPT} from his_registration r join appointment a on a.id = r.appointment_id"
        " where r.his_id = $1 order by r.phase = 'gone', r.updated_at desc limit 1",
        his_id,
    )
    return None if row is None else _kept(row)


async def by_id(executor: Executor, appointment_id: bytes) -> Kept | None:
    row = await executor.fetchrow(
        f"select {_KEPT} from appointment a left join his_registration r on r.appointment_id = a.id"
        " where a.id = $1",
        UUID(bytes=appointment_id),
    )
    return None if row is None else _kept(row)


async def mark_due(connection: asyncpg.Connection, ids: Sequence[bytes]) -> None:
    """They are to be told of these, whatever becomes of it. What they registered themselves they know."""
    await connection.execute(
        "insert into his_registration (appointment_id, phase, department_id)"
        " select id, 'due', department_id from appointment where id = any ($1) and channel <> $2"
        " on conflict do nothing",
        [UUID(bytes=one) for one in ids],
        int(Channel.HIS),
    )


async def told(connection: asyncpg.Connection, ids: Sequence[bytes]) -> set[bytes]:
    """Those that they know of, or may know of."""
    rows = await connection.fetch(
        "select appointment_id from his_registration where appointment_id = any ($1)",
        [UUID(bytes=one) for one in ids],
    )
    return {row["appointment_id"].bytes for row in rows}


async def told_of_days(connection: asyncpg.Connection, schedule_ids: Sequence[str]) -> dict[str, list[bytes]]:
    """The numbers of these days that they have now."""
    rows = await connection.fetch(
        "select a.id, a.schedule_id from appointment a join his_registration r on r.appointment_id = a.id"
        " where a.schedule_id = any ($1) and r.phase <> 'gone' order by a.id",
        list(schedule_ids),
    )
    found: dict[str, list[bytes]] = {}
    for row in rows:
        found.setdefault(row["schedule_id"], []).append(row["id"].bytes)
    return found


async def asked_first(connection: asyncpg.Connection, ids: Sequence[bytes]) -> list[bytes]:
    """Those of departments whose numbers the HIS owns."""
    rows = await connection.fetch(
        "select id from appointment where id = any ($1)"
        " and department_id in (select department_id from his_truth)",
        [UUID(bytes=one) for one in ids],
    )
    return [row["id"].bytes for row in rows]


async def begin_asking(executor: Executor, appointment_id: bytes, department_id: str) -> Believed:
    """Before a place is asked for. What was known already stays and is given."""
    row = await executor.fetchrow(
        "insert into his_registration as r (appointment_id, phase, department_id) values ($1, 'asking', $2)"
        " on conflict (appointment_id) do update set phase ="
        "   case when r.phase = 'due' then 'asking' else r.phase end"
        " returning phase, slot_id, starts_at, number",
        UUID(bytes=appointment_id),
        department_id,
    )
    assert row is not None
    return Believed(Phase(row["phase"]), row["slot_id"], _ms(row["starts_at"]), row["number"])


@dataclass(frozen=True, slots=True)
class Note:
    """What is believed from now on."""

    phase: Phase
    his_id: str | None = None  # None: as it was
    slot_id: str | None = None
    starts_at: int | None = None
    number: int | None = None
    origin: str = "ours"


async def note(executor: Executor, appointment_id: bytes, department_id: str, new: Note) -> None:
    await executor.execute(
        "insert into his_registration as r"
        "  (appointment_id, phase, origin, department_id, his_id, slot_id, starts_at, number)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (appointment_id) do update set"
        "  phase = excluded.phase, his_id = coalesce(excluded.his_id, r.his_id),"
        "  slot_id = coalesce(excluded.slot_id, r.slot_id),"
        "  starts_at = coalesce(excluded.starts_at, r.starts_at),"
        "  number = coalesce(excluded.number, r.number), updated_at = now()",
        UUID(bytes=appointment_id),
        new.phase.value,
        new.origin,
        department_id,
        new.his_id,
        new.slot_id,
        None if new.starts_at is None else datetime.fromtimestamp(new.starts_at / 1000, UTC),
        new.number,
    )


async def no_place(executor: Executor, appointment_id: bytes) -> None:
    """They have none for it, unless somebody was given one meanwhile."""
    await executor.execute(
        "update his_registration set phase = 'gone', updated_at = now()"
        " where appointment_id = $1 and phase in ('due', 'asking')",
        UUID(bytes=appointment_id),
    )


async def forget(executor: Executor, appointment_id: bytes) -> None:
    """Their registration could not be taken in: there is no number of ours that it could be."""
    await executor.execute(
        "delete from his_registration r where appointment_id = $1"
        " and not exists (select from appointment a where a.id = r.appointment_id)",
        UUID(bytes=appointment_id),
    )


async def their_numbers(executor: Executor, ids: Sequence[bytes]) -> dict[bytes, int]:
    """Which number to show, of departments whose numbers are theirs."""
    rows = await executor.fetch(
        "select appointment_id, number from his_registration"
        " where appointment_id = any ($1) and number is not null and phase <> 'gone'"
        "   and department_id in (select department_id from his_truth)",
        [UUID(bytes=one) for one in ids],
    )
    return {row["appointment_id"].bytes: row["number"] for row in rows}


# Whose numbers count, department by department.


async def truth(executor: Executor) -> frozenset[str]:
    """The departments of which the HIS owns the numbers."""
    return frozenset(
        row["department_id"] for row in await executor.fetch("select department_id from his_truth")
    )


async def set_truth(connection: asyncpg.Connection, department_id: str, is_theirs: bool) -> None:
    if is_theirs:
        await connection.execute(
            "insert into his_truth (department_id) values ($1) on conflict do nothing", department_id
        )
    else:
        await connection.execute("delete from his_truth where department_id = $1", department_id)


# Days to compare.


@dataclass(frozen=True, slots=True)
class Asked:
    day: date
    trouble: str | None


async def ask_for(executor: Executor, day: date, by: str, *, only_new: bool = False) -> None:
    """At once, also where it was put off; `only_new` leaves what waits as it is."""
    await executor.execute(
        "insert into his_asked as a (day, asked_by) values ($1, $2)"
        " on conflict (day) do update set due_at = now(), trouble = null where not $3",
        day,
        by,
        only_new,
    )


async def has_numbers(executor: Executor, day: date, zone: str) -> bool:
    """Whether they know, or should know, of a number of that day."""
    found: bool = await executor.fetchval(
        "select exists (select from his_registration where phase <> 'gone'"
        "   and starts_at >= $1::date::timestamp at time zone $2"
        "   and starts_at < ($1::date + 1)::timestamp at time zone $2)",
        day,
        zone,
    )
    return found


async def due_day(executor: Executor) -> date | None:
    found: date | None = await executor.fetchval(
        "select day from his_asked where due_at <= now() order by asked_at, day limit 1"
    )
    return found


async def asked(executor: Executor, day: date) -> Asked | None:
    row = await executor.fetchrow("select day, trouble from his_asked where day = $1", day)
    return None if row is None else Asked(*row)


async def put_off(executor: Executor, day: date, seconds: float, trouble: str) -> None:
    await executor.execute(
        "update his_asked set due_at = now() + make_interval(secs => $2), trouble = $3 where day = $1",
        day,
        seconds,
        trouble[:200],
    )


async def done(executor: Executor, day: date) -> None:
    await executor.execute("delete from his_asked where day = $1", day)


def _kept(row: asyncpg.Record) -> Kept:
    starts_at = _ms(row["starts_at"])
    assert starts_at is not None
    ours = Ours(
        row["id"].bytes,
        row["status"],
        row["slot_id"],
        starts_at,
        row["number"],
        row["channel"],
        row["asks_first"],
    )
    believed = None
    if row["phase"] is not None:
        believed = Believed(
            Phase(row["phase"]), row["their_slot"], _ms(row["their_start"]), row["their_number"]
        )
    return Kept(
        ours,
        believed,
        row["his_id"],
        row["department_id"],
        row["account_id"].bytes,
        row["reason"],
        row["noted_at"],
    )


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
