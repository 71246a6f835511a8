"""Wishes (候补) as rows: what somebody waits for, where, and what became of it.

The actors decide who is offered what; the journal writes that into `status` and `appointment_id`. This module
writes the rest: a wish is made, its places are settled, it ends. What has to be asked of actors is an errand
in the same transaction, so that nothing is lost when whoever asks dies. Ids are 16 bytes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason, Refusal

JOIN: Final = "join_wish"  # key: wish/schedule
ENDED: Final = "wish_ended"  # key: wish; also written by the journal
MATCH: Final = "match_wishes"  # key: schedule; written by the journal
JOIN_LATER_SECONDS: Final = 5.0  # whoever made the wish asks the actors himself, and is quicker
LISTED_MAX: Final = 50
OPEN: Final = ("waiting", "offered")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. Days and times are of the hospital's clock; empty or None: any."""

    department_id: str
    first_day: date
    last_day: date
    practitioner_ids: tuple[str, ...] = ()
    title: str | None = None
    periods: tuple[str, ...] = ()
    not_before: str | None = None  # hhmm: the slot begins then or later
    not_after: str | None = None  # hhmm: the slot begins then or earlier
    replaces: bytes = b""  # the booked appointment that it would be given up for
    before: int | None = None  # ms: when that one begins; the slot must begin earlier
    asked_until: int | None = None  # ms, as it was asked for

    def as_data(self) -> dict[str, Any]:
        return {
            "department": self.department_id,
            "from": self.first_day.isoformat(),
            "to": self.last_day.isoformat(),
            "practitioners": list(self.practitioner_ids),
            "title": self.title,
            "periods": list(self.periods),
            "not_before": self.not_before,
            "not_after": self.not_after,
            "instead_of": self.replaces.hex() or None,
            "before": self.before,
            "until": self.asked_until,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Wanted":
        return cls(
            data["department"],
            date.fromisoformat(data["from"]),
            date.fromisoformat(data["to"]),
            tuple(data["practitioners"]),
            data["title"],
            tuple(data["periods"]),
            data["not_before"],
            data["not_after"],
            bytes.fromhex(data["instead_of"] or ""),
            data["before"],
            data["until"],
        )


Places = dict[str, list[str]]
"""schedule -> clocks that would do; []: any of the day."""


@dataclass(frozen=True, slots=True)
class NewWish:
    id: bytes
    account_id: bytes
    patient_ids: tuple[bytes, ...]
    wanted: Wanted
    places: Places
    until: int  # ms
    made_at: int  # ms: the place in the queue, the same at every actor
    priority: int = 0
    """1 where the hospital called a session off. Nobody gives himself one."""


@dataclass(frozen=True, slots=True)
class WishRecord:
    id: bytes
    account_id: bytes
    patient_ids: tuple[bytes, ...]
    wanted: Wanted
    places: Places
    passed_over: frozenset[str]
    priority: int
    status: str  # waiting | offered | met | ended
    reason: str | None
    refusal: Refusal | None
    until: int  # ms
    made_at: int  # ms

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


_WISH: Final = (
    "select id, account_id, patient_ids, wanted::text, schedules::text, passed_over, priority, status,"
    " reason, refusal::text, until, created_at from wish"
)


async def wish(connection: asyncpg.Connection | asyncpg.Pool, wish_id: bytes) -> WishRecord | None:
    row = await connection.fetchrow(f"{_WISH} where id = $1", UUID(bytes=wish_id))
    return None if row is None else _record(row)


async def wishes_of(pool: asyncpg.Pool, account_id: bytes) -> list[WishRecord]:
    """Newest first. Those that nobody ever put on a list are not told of."""
    rows = await pool.fetch(
        f"{_WISH} where account_id = $1 and refusal is null order by created_at desc, id limit $2",
        UUID(bytes=account_id),
        LISTED_MAX,
    )
    return [_record(row) for row in rows]


async def open_wishes(
    pool: asyncpg.Pool, department_ids: Collection[str] | None = None, last_by: date | None = None
) -> list[WishRecord]:
    """All that wait, or those for these departments, or whose last day is that or earlier; the
    longest-waiting first."""
    rows = await pool.fetch(
        f"{_WISH} where status in ('waiting', 'offered')"
        " and ($1::text[] is null or department_id = any ($1))"
        " and ($2::text is null or wanted ->> 'to' <= $2) order by created_at",
        None if department_ids is None else list(department_ids),
        None if last_by is None else last_by.isoformat(),
    )
    return [_record(row) for row in rows]


def _record(row: asyncpg.Record) -> WishRecord:
    refusal = None
    if row["refusal"] is not None:
        told = orjson.loads(row["refusal"])
        refusal = Refusal(Reason(told["reason"]), told["detail"])
    return WishRecord(
        row["id"].bytes,
        row["account_id"].bytes,
        tuple(each.bytes for each in row["patient_ids"]),
        Wanted.from_data(orjson.loads(row["wanted"])),
        orjson.loads(row["schedules"]),
        frozenset(row["passed_over"]),
        row["priority"],
        row["status"],
        row["reason"],
        refusal,
        _ms(row["until"]),
        _ms(row["created_at"]),
    )


async def add_wish(connection: asyncpg.Connection, wish: NewWish, join_at_once: bool = False) -> bool:
    """Inside the caller's transaction; False when it is there already. Each place becomes an errand: at once
    where nobody else will ask its actor, else a moment later."""
    added = await connection.fetchval(
        "insert into wish (id, account_id, patient_ids, department_id, schedules, wanted, priority, replaces,"
        "                  status, until, created_at, updated_at)"
        " values ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7, $8, 'waiting', to_timestamp($9::bigint / 1000.0),"
        "         to_timestamp($10::bigint / 1000.0), now())"
        " on conflict (id) do nothing returning true",
        UUID(bytes=wish.id),
        UUID(bytes=wish.account_id),
        [UUID(bytes=each) for each in wish.patient_ids],
        wish.wanted.department_id,
        orjson.dumps(wish.places).decode(),
        orjson.dumps(wish.wanted.as_data()).decode(),
        wish.priority,
        UUID(bytes=wish.wanted.replaces) if wish.wanted.replaces else None,
        wish.until,
        wish.made_at,
    )
    if added:
        await _will_join(connection, wish.id, wish.places, 0.0 if join_at_once else JOIN_LATER_SECONDS)
    return bool(added)


async def lock_account(connection: asyncpg.Connection, account_id: bytes) -> int:
    """How many open wishes the account has; nobody makes another one for it before the transaction ends."""
    account = UUID(bytes=account_id)
    await connection.execute("select from account where id = $1 for update", account)
    return int(
        await connection.fetchval(
            "select count(*) from wish where account_id = $1 and status in ('waiting', 'offered')", account
        )
    )


async def add_places(pool: asyncpg.Pool, wish_id: bytes, places: Places) -> None:
    """More places for a wish that is open still; errands put it on their lists."""
    async with pool.acquire() as connection, connection.transaction():
        added = await connection.fetchval(
            "update wish set schedules = schedules || $2::jsonb, updated_at = now()"
            " where id = $1 and status in ('waiting', 'offered') returning true",
            UUID(bytes=wish_id),
            orjson.dumps(places).decode(),
        )
        if added:
            await _will_join(connection, wish_id, places, 0.0)


async def _will_join(
    connection: asyncpg.Connection, wish_id: bytes, schedule_ids: Collection[str], seconds: float
) -> None:
    await connection.execute(
        "insert into errand (kind, key, data, due_at)"
        " select $1, k, '{}', now() + make_interval(secs => $3) from unnest($2::text[]) k"
        " on conflict (kind, key) do nothing",
        JOIN,
        [f"{wish_id.hex()}/{schedule_id}" for schedule_id in schedule_ids],
        seconds,
    )
    if not seconds:
        await connection.execute("select pg_notify('errand', '')")


async def settle_places(
    pool: asyncpg.Pool, wish_id: bytes, joined: Collection[str], refused: Collection[str]
) -> WishRecord | None:
    """What the actors said; gives the wish as it is now. One that has ended meanwhile is called off again."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(
            "update wish set schedules = schedules - $2::text[], passed_over = passed_over || $2::text[]"
            " where id = $1 returning status, reason",
            UUID(bytes=wish_id),
            list(refused),
        )
        await connection.execute(
            "delete from errand where kind = $1 and key = any ($2)",
            JOIN,
            [f"{wish_id.hex()}/{schedule_id}" for schedule_id in (*joined, *refused)],
        )
        if row is not None and joined and row["status"] not in OPEN:
            await _call_off(connection, [UUID(bytes=wish_id)], row["reason"] or row["status"])
        return await wish(connection, wish_id)


async def end_wish(pool: asyncpg.Pool, wish_id: bytes, reason: str, refusal: Refusal | None = None) -> bool:
    """In a transaction of its own: see `end`."""
    async with pool.acquire() as connection, connection.transaction():
        return await end(connection, wish_id, reason, refusal)


async def end(
    connection: asyncpg.Connection, wish_id: bytes, reason: str, refusal: Refusal | None = None
) -> bool:
    """Whoever is first says why; an errand takes it off every list. False when it had ended already. Inside
    the caller's transaction."""
    told = None
    if refusal is not None:
        told = orjson.dumps({"reason": refusal.reason, "detail": refusal.detail}).decode()
    ended = await connection.fetchval(
        "update wish set status = 'ended', reason = $2, refusal = $3::jsonb, updated_at = now()"
        " where id = $1 and status in ('waiting', 'offered') returning id",
        UUID(bytes=wish_id),
        reason,
        told,
    )
    if ended is not None:
        await _call_off(connection, [ended], reason)
    return ended is not None


async def note_reason(pool: asyncpg.Pool, wish_id: bytes, reason: str) -> None:
    """Why its actor ended it: the journal says only that it did."""
    await pool.execute(
        "update wish set status = case when status = 'met' then 'met' else 'ended' end,"
        "                reason = coalesce(reason, $2), updated_at = now()"
        " where id = $1 and (reason is null or status in ('waiting', 'offered'))",
        UUID(bytes=wish_id),
        reason,
    )


async def forget_joins(pool: asyncpg.Pool, wish_id: bytes) -> None:
    await pool.execute("delete from errand where kind = $1 and key like $2", JOIN, f"{wish_id.hex()}/%")


async def _call_off(connection: asyncpg.Connection, ids: Sequence[UUID], reason: str) -> None:
    await connection.execute(
        "insert into errand (kind, key, data)"
        " select $1, replace(i::text, '-', ''), jsonb_build_object('reason', $3::text)"
        "   from unnest($2::uuid[]) i"
        " on conflict (kind, key) do update set data = excluded.data, due_at = now(), tries = 0",
        ENDED,
        list(ids),
        reason,
    )
    await connection.execute("select pg_notify('errand', '')")


# What ends by itself.

_MET: Final = """
select w.id from wish w
 where w.status in ('waiting', 'offered') and w.replaces is null
   and not exists (
       select from unnest(w.patient_ids) p (id)
        where not exists (
            select from appointment a
             where a.patient_id = p.id and a.starts_at > w.created_at - interval '1 day'
               and a.status in (2, 3, 4) and a.created_at > w.created_at and a.wish_id is distinct from w.id
               and a.department_id in (select d.id from department d
                                        where w.department_id in (d.id, d.parent_id))
               and right(a.schedule_id, 8) between replace(w.wanted ->> 'from', '-', '')
                                               and replace(w.wanted ->> 'to', '-', '')))"""
_GIVEN_UP: Final = """
select w.id, case when a.reason = 'changed' then 'met' else 'closed' end as reason
  from wish w join appointment a on a.id = w.replaces
 where w.status in ('waiting', 'offered') and a.status <> 2
   and not exists (select from appointment n where n.id = a.successor and n.wish_id = w.id)"""
_PENALISED: Final = """
select w.id from wish w
 where w.status in ('waiting', 'offered')
   and exists (select from penalty x
                where x.subject = any (w.patient_ids || w.account_id) and x.lifted_at is null
                  and x.ends > now() and x.created_at > w.created_at)"""
_NOT_THEIRS: Final = """
select w.id from wish w
 where w.status in ('waiting', 'offered')
   and exists (select from unnest(w.patient_ids) p (id)
                where not exists (select from account_patient a
                                   where a.account_id = w.account_id and a.patient_id = p.id
                                     and a.may_book and a.revoked_at is null
                                     and (a.expires_at is null or a.expires_at > now())))"""
_OVER: Final = "select id from wish where status = 'waiting' and until <= now()"

_ENDS: Final = (
    ("met", _MET),
    ("penalty", _PENALISED),
    ("delegation_ended", _NOT_THEIRS),
    ("closed", _OVER),
)


async def end_what_is_over(pool: asyncpg.Pool) -> dict[bytes, str]:
    """Wishes that were met elsewhere, whose patients may no longer book or be booked for, or whose time is
    over: ended, with the errands that take them off the lists. Gives why each has."""
    async with pool.acquire() as connection, connection.transaction():
        found: dict[UUID, str] = {}
        for reason, statement in _ENDS:
            for row in await connection.fetch(statement):
                found.setdefault(row["id"], reason)
        for row in await connection.fetch(_GIVEN_UP):
            found.setdefault(row["id"], row["reason"])
        ended: dict[bytes, str] = {}
        for reason in sorted(set(found.values())):
            rows = await connection.fetch(
                "update wish set status = case when $2 = 'met' then 'met' else 'ended' end, reason = $2,"
                "                updated_at = now()"
                " where id = any ($1) and status in ('waiting', 'offered') returning id",
                [each for each, why in found.items() if why == reason],
                reason,
            )
            if rows:
                await _call_off(connection, [row["id"] for row in rows], reason)
            ended |= {row["id"].bytes: reason for row in rows}
    return ended


# What is known of those who wait.


@dataclass(frozen=True, slots=True)
class Member:
    patient_id: bytes
    birth_date: date | None
    sex: str | None
    visits: list[tuple[str, str, int]] = field(default_factory=list)
    """(department, yyyymmdd, start in ms) of the numbers that this patient has ahead."""
    is_verified: bool = True


async def members(
    pool: asyncpg.Pool, patient_ids: Sequence[bytes], replaces: bytes = b""
) -> dict[bytes, Member]:
    """Their numbers too, but for the one that would be given up."""
    ids = [UUID(bytes=each) for each in patient_ids]
    people = await pool.fetch(
        "select id, birth_date, sex, verification from patient where id = any ($1)", ids
    )
    found = {
        row["id"].bytes: Member(
            row["id"].bytes, row["birth_date"], row["sex"], is_verified=row["verification"] == "verified"
        )
        for row in people
    }
    for row in await pool.fetch(
        "select patient_id, department_id, right(schedule_id, 8) as day, starts_at from appointment"
        " where patient_id = any ($1) and starts_at > now() - interval '1 day'"
        "   and status <= 3 and (status > 1 or hold_until > now()) and id is distinct from $2",
        ids,
        UUID(bytes=replaces) if replaces else None,
    ):
        mine = found.get(row["patient_id"].bytes)
        if mine is not None:
            mine.visits.append((row["department_id"], row["day"], _ms(row["starts_at"])))
    return found


@dataclass(frozen=True, slots=True)
class Offered:
    appointment_id: bytes
    account_id: bytes
    patient_id: bytes
    schedule_id: str
    slot_id: str
    starts_at: datetime
    hold_until: datetime
    status: int

    @property
    def key(self) -> ScheduleKey:
        key = ScheduleKey.of_schedule(self.schedule_id)
        assert key is not None
        return key


async def offered(pool: asyncpg.Pool, wish_ids: Sequence[bytes]) -> dict[bytes, list[Offered]]:
    """Numbers that these wishes have now, held or booked."""
    found: dict[bytes, list[Offered]] = {}
    for row in await pool.fetch(
        "select wish_id, id, account_id, patient_id, schedule_id, slot_id, starts_at, hold_until, status"
        "  from appointment where wish_id = any ($1) and status <= 4 order by starts_at, seat",
        [UUID(bytes=each) for each in wish_ids],
    ):
        found.setdefault(row["wish_id"].bytes, []).append(
            Offered(
                row["id"].bytes,
                row["account_id"].bytes,
                row["patient_id"].bytes,
                row["schedule_id"],
                row["slot_id"],
                row["starts_at"],
                row["hold_until"],
                row["status"],
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody on the lists of these days."""

    wish_id: bytes
    people: int
    places: Places
    order: tuple[int, int, bytes]  # as engine.domain.waitlist.queue sorts


async def waiting_at(pool: asyncpg.Pool, schedule_ids: Collection[str]) -> list[Waiting]:
    """First in line first."""
    rows = await pool.fetch(
        "select id, cardinality(patient_ids) as people, schedules::text, priority, created_at from wish"
        " where status in ('waiting', 'offered') and schedules ?| $1::text[]",
        list(schedule_ids),
    )
    found = [
        Waiting(
            row["id"].bytes,
            row["people"],
            orjson.loads(row["schedules"]),
            (-row["priority"], _ms(row["created_at"]), row["id"].bytes),
        )
        for row in rows
    ]
    return sorted(found, key=lambda each: each.order)


async def could_be_published(
    pool: asyncpg.Pool, wanted: Wanted, department_ids: Collection[str], days: Sequence[date]
) -> bool:
    """Whether the weeks as they are bring a session that would do on one of these days, not yet published."""
    if not days:
        return False
    return bool(
        await pool.fetchval(
            "select exists (select from session_template t join practitioner p on p.id = t.practitioner_id,"
            "               unnest($5::date[]) d"
            "  left join holiday h on h.day = d"
            " where t.weekday = coalesce(h.works_as, extract(isodow from d))"
            "   and (h.day is null or h.works_as is not null or t.number_class_id = 'emergency')"
            "   and t.department_id = any ($1)"
            "   and (cardinality($2::text[]) = 0 or t.practitioner_id = any ($2))"
            "   and ($3::text is null or p.title = $3)"
            "   and (cardinality($4::text[]) = 0 or t.period = any ($4))"
            "   and ($6::time is null or t.ends > $6) and ($7::time is null or t.starts <= $7)"
            "   and not exists (select from session_override o where o.practitioner_id = t.practitioner_id"
            "                      and o.day = d and o.period = t.period and o.closed))",
            list(department_ids),
            list(wanted.practitioner_ids),
            wanted.title,
            list(wanted.periods),
            list(days),
            None if wanted.not_before is None else _time(wanted.not_before),
            None if wanted.not_after is None else _time(wanted.not_after),
        )
    )


def _time(hhmm: str) -> time:
    return time(int(hhmm[:2]), int(hhmm[2:]))


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
