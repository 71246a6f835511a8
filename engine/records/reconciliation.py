"""Reconciliation's rows: both sides of a day, the statements as fetched, runs, and what they found.

Our side is read from the rows that the journal writes (bill, payment, refund). Days are those of the zone
that is given with them: the provider's, or the hospital's.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from engine.domain import hospital_orders
from engine.domain.payment import AT_HOSPITAL, Paying, Refunding
from engine.domain.reconciliation import (
    WAITING,
    Booking,
    Comparison,
    Difference,
    Payment,
    Refund,
    Sides,
    Statement,
    StatementRow,
    Went,
)
from engine.domain.schedule import Status

ALL: Final = "all"
"""Of an errand: every channel of whoever does it."""
BOOKINGS: Final = "bookings"
HOSPITAL: Final = "hospital"

_WENT: Final = {Refunding.DONE: Went.DONE, Refunding.REFUSED: Went.FAILED}
_STATES_OPEN: Final = ("open", "waiting")
_HOSPITAL_ORDERS: Final = f"{hospital_orders.PREFIX}%"


def bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    begins = datetime(day.year, day.month, day.day, tzinfo=zone)
    after = day + timedelta(days=1)
    return begins, datetime(after.year, after.month, after.day, tzinfo=zone)


# Our side.


async def payments(
    connection: asyncpg.Connection, channel: str, day: date, zone: tzinfo, named: Iterable[bytes] = ()
) -> list[Payment]:
    """Paid with this provider on that day; and those that are named, of whatever day and state.

    HOSPITAL: of bills of the hospital's billing, whoever was paid, as far as the money is the bill's and
    the billing has not refused it: then it goes back."""
    begins, ends = bounds(day, zone)
    rows = await connection.fetch(
        _PAYMENTS_OF_HOSPITAL if channel == HOSPITAL else _PAYMENTS,
        begins,
        ends,
        [UUID(bytes=one) for one in named],
        _HOSPITAL_ORDERS if channel == HOSPITAL else channel,
    )
    return [
        Payment(
            row["id"].bytes,
            row["bill_id"].bytes,
            row["fen"],
            row["received"],
            "" if channel == HOSPITAL else row["transaction_id"],
            row["at"].astimezone(zone),
            Paying(row["state"]).name.lower(),
        )
        for row in rows
    ]


async def refunds(
    connection: asyncpg.Connection, channel: str, day: date, zone: tzinfo, named: Iterable[bytes] = ()
) -> list[Refund]:
    """Done on that day, or asked for on it and not done, of payments with this provider; and the named."""
    begins, ends = bounds(day, zone)
    is_hospital = channel == HOSPITAL
    rows = await connection.fetch(
        _REFUNDS_OF_HOSPITAL if is_hospital else _REFUNDS,
        begins,
        ends,
        [UUID(bytes=one) for one in named],
        _HOSPITAL_ORDERS if is_hospital else channel,
        Refunding.DONE,
    )
    return [
        Refund(
            row["id"].bytes,
            row["payment_id"].bytes,
            row["bill_id"].bytes,
            row["fen"],
            _WENT.get(row["state"], Went.OPEN),
            row["at"].astimezone(zone),
            # The billing is told of a refund whoever gave it.
            row["provider"] == AT_HOSPITAL and channel not in (AT_HOSPITAL, HOSPITAL),
            Refunding(row["state"]).name.lower(),
        )
        for row in rows
    ]


async def bookings(connection: asyncpg.Connection, day: date, zone: tzinfo) -> list[Booking]:
    """Bills with a number that were paid, or of which something was given back, on that day."""
    rows = await connection.fetch(_BOOKINGS, *bounds(day, zone), Refunding.DONE)
    return [
        Booking(
            row["id"].bytes,
            row["appointment_id"].bytes,
            "" if row["number"] is None else Status(row["number"]).name.lower(),
            row["status"],
            row["fen"],
            row["paid"],
            row["refunded"],
            row["owed_back"],
            row["kept"],
        )
        for row in rows
    ]


async def first_day(connection: asyncpg.Connection, zone: tzinfo) -> date | None:
    """On which anybody tried to pay; None: nobody did."""
    at: datetime | None = await connection.fetchval("select min(begun_at) from payment")
    return None if at is None else at.astimezone(zone).date()


_AT: Final = "coalesce(p.paid_at, p.since)"
_PAYMENT: Final = (
    "select p.id, p.bill_id, p.fen, p.state, p.received, p.transaction_id,"
    f" case when p.received > 0 then {_AT} else p.begun_at end as at from payment p"
)
_PAYMENTS: Final = f"""
{_PAYMENT} where p.provider = $4 and p.received > 0 and {_AT} >= $1 and {_AT} < $2
union {_PAYMENT} where p.provider = $4 and p.id = any ($3)"""
_PAYMENTS_OF_HOSPITAL: Final = f"""
{_PAYMENT} join bill b on b.id = p.bill_id
 where p.received > 0 and p.is_matched and b.order_no like $4 and {_AT} >= $1 and {_AT} < $2
   and not exists (select from hospital_told t where t.told_id = p.id and t.outcome = 'refused')
union {_PAYMENT} join bill b on b.id = p.bill_id where b.order_no like $4 and p.id = any ($3)"""
_REFUND: Final = (
    "select r.id, r.payment_id, r.bill_id, r.fen, r.state, r.provider,"
    " case when r.state = $5 then r.since else r.begun_at end as at"
    " from refund r join payment p on p.id = r.payment_id"
)
_REFUNDS: Final = f"""
{_REFUND} where p.provider = $4 and r.state = $5 and r.since >= $1 and r.since < $2
union {_REFUND} where p.provider = $4 and r.state < $5 and r.begun_at >= $1 and r.begun_at < $2
union {_REFUND} where p.provider = $4 and r.id = any ($3)"""
_REFUNDS_OF_HOSPITAL: Final = f"""
{_REFUND} join bill b on b.id = r.bill_id
 where r.state = $5 and p.is_matched and b.order_no like $4 and r.since >= $1 and r.since < $2
   and not exists (select from hospital_told t where t.told_id = p.id and t.outcome = 'refused')
union {_REFUND} join bill b on b.id = r.bill_id where b.order_no like $4 and r.id = any ($3)"""
_BOOKINGS: Final = f"""
select b.id, b.appointment_id, a.status as number, b.status, b.fen, b.paid, b.refunded, b.owed_back, b.kept
  from bill b left join appointment a on a.id = b.appointment_id
 where b.appointment_id is not null and b.id in (
       select p.bill_id from payment p where p.received > 0 and {_AT} >= $1 and {_AT} < $2
       union select r.bill_id from refund r where r.state = $3 and r.since >= $1 and r.since < $2)
 order by b.id"""


# Statements.


async def keep_statement(
    connection: asyncpg.Connection, channel: str, day: date, found: Statement | None, now: datetime
) -> None:
    """In place of what was fetched before. Within a transaction of the caller's."""
    await connection.execute("delete from statement_row where channel = $1 and day = $2", channel, day)
    await connection.execute(
        "insert into statement (channel, day, is_there, fetched_at) values ($1, $2, $3, $4)"
        " on conflict (channel, day) do update set is_there = $3, fetched_at = $4",
        channel,
        day,
        found is not None,
        now,
    )
    if found is None:
        return
    await connection.copy_records_to_table(
        "statement_row",
        columns=_ROW_COLUMNS,
        records=[
            (
                channel,
                day,
                n,
                str(row.kind),
                UUID(bytes=row.order) if row.order else None,
                row.number[:_CHARACTERS_MAX],
                row.reference[:_CHARACTERS_MAX],
                row.fen,
                row.at,
                UUID(bytes=row.payment_order) if row.payment_order else None,
                row.fee_millifen,
                row.currency,
                str(row.state),
            )
            for n, row in enumerate(found.rows)
        ],
    )


_CHARACTERS_MAX: Final = 64
_ROW_COLUMNS: Final = (
    *("channel", "day", "n", "kind", "order_id", "number", "reference", "fen", "at", "payment_id"),
    *("fee_millifen", "currency", "state"),
)


async def has_statement(connection: asyncpg.Connection, channel: str, day: date) -> bool:
    return bool(
        await connection.fetchval(
            "select exists (select from statement where channel = $1 and day = $2 and is_there)", channel, day
        )
    )


async def rows_elsewhere(
    connection: asyncpg.Connection, channel: str, but: date, orders: Sequence[bytes]
) -> list[StatementRow]:
    """What statements of other days say of these orders."""
    rows = await connection.fetch(
        "select * from statement_row where channel = $1 and day <> $2 and order_id = any ($3)"
        " order by day, n",
        channel,
        but,
        [UUID(bytes=one) for one in orders],
    )
    return [
        StatementRow(
            row["kind"],
            row["order_id"].bytes,
            row["reference"],
            row["fen"],
            row["at"],
            b"" if row["payment_id"] is None else row["payment_id"].bytes,
            row["fee_millifen"],
            row["currency"],
            row["state"],
            row["number"],
        )
        for row in rows
    ]


# Runs, and what they found.


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison of one channel's day."""

    channel: str
    day: date
    begun_at: datetime
    is_complete: bool
    why: str  # it is not complete
    asked_by: str  # username; "": the nightly round
    healed: int


@dataclass(frozen=True, slots=True)
class RunRow:
    id: int
    channel: str
    day: date
    begun_at: datetime
    ended_at: datetime
    is_complete: bool
    why: str
    asked_by: str
    sums: dict[str, dict[str, list[int]]]
    """payments, refunds -> matched, ours, theirs -> number, fen."""
    healed: int
    left_open: int


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    id: bytes
    channel: str
    day: date
    kind: str
    subject: str
    money: str
    ours: int
    theirs: int
    heal: str
    tried: int
    said: str
    bill_id: bytes | None
    order_id: bytes | None
    evidence: dict[str, Any]
    state: str  # open, waiting, explained, healed, gone, settled
    found_at: datetime
    closed_at: datetime | None
    settled_name: str
    settled_why: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A difference that was to be healed, and what came of it."""

    kind: str
    subject: str
    said: str


async def alone(connection: asyncpg.Connection, channel: str, day: date) -> bool:
    """Until the connection is closed, nobody else compares this day."""
    return bool(
        await connection.fetchval("select pg_try_advisory_lock(hashtext($1))", f"reconciling {channel} {day}")
    )


async def keep_run(
    connection: asyncpg.Connection,
    run: Run,
    compared: Comparison,
    tried: Sequence[Tried],
    healed: Sequence[Difference],
    now: datetime,
) -> RunRow:
    """The run, its differences, and the end of those that it does not find any more. Within a transaction.

    `healed`: what it had found at first, and what was gone after something was tried. What a person has
    settled stays so while its amounts are what they were."""
    channel, day = run.channel, run.day
    # Two runs of one day go one after the other.
    await connection.execute("select pg_advisory_xact_lock(hashtext($1))", f"reconcile {channel} {day}")
    sums = {"payments": _sums(compared.payments), "refunds": _sums(compared.refunds)}
    run_id: int = await connection.fetchval(
        "insert into reconciliation (channel, day, begun_at, ended_at, is_complete, why, asked_by, sums,"
        " healed, left_open) values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, 0) returning id",
        channel,
        day,
        run.begun_at,
        now,
        run.is_complete,
        run.why,
        run.asked_by,
        json.dumps(sums),
        run.healed,
    )
    known = {
        (row["kind"], row["subject"]): row
        for row in await connection.fetch(
            "select kind, subject, ours, theirs, state from difference where channel = $1 and day = $2",
            channel,
            day,
        )
    }
    await connection.executemany(
        _PUT_DIFFERENCE,
        [
            _difference_values(
                channel, day, one, _state(one, known.get((one.kind, one.subject))), run_id, now
            )
            for one in compared.differences
        ]
        + [_difference_values(channel, day, one, "healed", run_id, now) for one in healed],
    )
    await connection.execute(
        "update difference set tried = tried + 1, said = x.said"
        "  from unnest($3::text[], $4::text[], $5::text[]) as x (kind, subject, said)"
        " where channel = $1 and day = $2 and difference.kind = x.kind and difference.subject = x.subject",
        channel,
        day,
        [one.kind for one in tried],
        [one.subject for one in tried],
        [one.said[:500] for one in tried],
    )
    await connection.execute(
        "update difference set state = case when tried > 0 then 'healed' else 'gone' end, closed_at = $4,"
        " closed_by = $3 where channel = $1 and day = $2 and seen_by < $3 and state in ('open', 'waiting')",
        channel,
        day,
        run_id,
        now,
    )
    row = await connection.fetchrow(
        "update reconciliation set left_open = (select count(*) from difference d where d.channel = $2"
        " and d.day = $3 and d.state in ('open', 'waiting')) where id = $1 returning *, sums::text as told",
        run_id,
        channel,
        day,
    )
    return _run(row)


def _sums(sides: Sides) -> dict[str, list[int]]:
    return {
        name: [side.count, side.fen]
        for name, side in (("matched", sides.matched), ("ours", sides.ours), ("theirs", sides.theirs))
    }


def _state(one: Difference, known: asyncpg.Record | None) -> str:
    if one.explained:
        return "explained"
    if (
        known is not None
        and known["state"] == "settled"
        and (known["ours"], known["theirs"]) == (one.ours, one.theirs)
    ):
        return "settled"
    return "waiting" if one.kind in WAITING else "open"


def _difference_values(
    channel: str, day: date, one: Difference, state: str, run_id: int, now: datetime
) -> tuple[object, ...]:
    return (
        channel,
        day,
        str(one.kind),
        one.subject,
        str(one.money),
        one.ours,
        one.theirs,
        str(one.heal),
        UUID(bytes=one.bill_id) if one.bill_id else None,
        UUID(bytes=one.order) if one.order else None,
        orjson.dumps(one.evidence).decode(),
        state,
        now,
        run_id,
        None if state in _STATES_OPEN else now,
        None if state in _STATES_OPEN else run_id,
    )


_PUT_DIFFERENCE: Final = """
insert into difference as d (channel, day, kind, subject, money, ours, theirs, heal, bill_id, order_id,
                             evidence, state, found_at, found_by, seen_by, closed_at, closed_by)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, $12, $13, $14, $14, $15, $16)
on conflict (channel, day, kind, subject) do update
   set ours = excluded.ours, theirs = excluded.theirs, heal = excluded.heal, bill_id = excluded.bill_id,
       order_id = excluded.order_id, evidence = excluded.evidence, state = excluded.state,
       seen_by = excluded.seen_by,
       closed_at = case when excluded.closed_at is null then null
                        else coalesce(d.closed_at, excluded.closed_at) end,
       closed_by = case when excluded.closed_at is null then null
                        else coalesce(d.closed_by, excluded.closed_by) end"""


async def runs(
    connection: asyncpg.Connection, day: date | None, channel: str | None, before: int | None, limit: int
) -> list[RunRow]:
    """The newest first."""
    rows = await connection.fetch(
        "select *, sums::text as told from reconciliation"
        " where ($1::date is null or day = $1) and ($2::text is null or channel = $2)"
        " and ($3::bigint is null or id < $3) order by id desc limit $4",
        day,
        channel,
        before,
        limit,
    )
    return [_run(row) for row in rows]


async def latest(connection: asyncpg.Connection, day: date) -> list[RunRow]:
    """The last run of each channel of that day."""
    rows = await connection.fetch(
        "select distinct on (channel) *, sums::text as told from reconciliation where day = $1"
        " order by channel, id desc",
        day,
    )
    return [_run(row) for row in rows]


async def runs_since(connection: asyncpg.Connection, channel: str, day: date, since: datetime) -> int:
    """How often it was tried lately."""
    n: int = await connection.fetchval(
        "select count(*) from reconciliation where channel = $1 and day = $2 and ended_at > $3",
        channel,
        day,
        since,
    )
    return n


async def due(
    connection: asyncpg.Connection, channel: str, first: date, last: date, seen_before: datetime
) -> list[date]:
    """Days of a channel that have no complete run; and those with differences that are open, where the last
    look is from before `seen_before`."""
    rows = await connection.fetch(_DUE, channel, first, last, seen_before)
    return [row["day"] for row in rows]


_DUE: Final = """
select g.day::date as day from generate_series($2::date, $3::date, interval '1 day') as g (day)
 where not exists (select from reconciliation r
                    where r.channel = $1 and r.day = g.day::date and r.is_complete)
union
select d.day from difference d
 where d.channel = $1 and d.state in ('open', 'waiting') and d.day <= $3
   and not exists (select from reconciliation r
                    where r.channel = $1 and r.day = d.day and r.ended_at >= $4)
order by day"""


async def differences(
    connection: asyncpg.Connection,
    only_open: bool,
    day: date | None,
    channel: str | None,
    kind: str | None,
    before: tuple[date, bytes] | None,
    limit: int,
) -> list[DifferenceRow]:
    """The latest days first."""
    rows = await connection.fetch(
        "select *, evidence::text as told from difference"
        " where ($1 or state in ('open', 'waiting')) and ($2::date is null or day = $2)"
        " and ($3::text is null or channel = $3) and ($4::text is null or kind = $4)"
        " and ($5::date is null or (day, id) < ($5, $6::uuid)) order by day desc, id desc limit $7",
        not only_open,
        day,
        channel,
        kind,
        None if before is None else before[0],
        None if before is None else UUID(bytes=before[1]),
        limit,
    )
    return [_difference(row) for row in rows]


async def difference(connection: asyncpg.Connection, id_: bytes, lock: bool = False) -> DifferenceRow | None:
    row = await connection.fetchrow(
        f"select *, evidence::text as told from difference where id = $1{' for update' if lock else ''}",
        UUID(bytes=id_),
    )
    return None if row is None else _difference(row)


async def settle(
    connection: asyncpg.Connection, id_: bytes, staff_id: bytes, username: str, why: str, now: datetime
) -> None:
    """A person has seen to it."""
    await connection.execute(
        "update difference set state = 'settled', closed_at = $5, settled_by = $2, settled_name = $3,"
        " settled_why = $4 where id = $1",
        UUID(bytes=id_),
        UUID(bytes=staff_id),
        username,
        why,
        now,
    )


async def open_by_kind(connection: asyncpg.Connection | asyncpg.Pool) -> dict[str, int]:
    rows = await connection.fetch(
        "select kind, count(*)::int as n from difference where state in ('open', 'waiting') group by kind"
    )
    return {row["kind"]: row["n"] for row in rows}


async def last_complete(connection: asyncpg.Connection | asyncpg.Pool) -> dict[str, datetime]:
    rows = await connection.fetch(
        "select channel, max(ended_at) as at from reconciliation where is_complete group by channel"
    )
    return {row["channel"]: row["at"] for row in rows}


async def waits(connection: asyncpg.Connection, channel: str, day: date) -> bool:
    """Whether a difference of that day is not closed."""
    return bool(
        await connection.fetchval(
            "select exists (select from difference where channel = $1 and day = $2"
            " and state in ('open', 'waiting'))",
            channel,
            day,
        )
    )


async def ask_for(
    connection: asyncpg.Connection, day: date, channels: Iterable[str], by: str, only_new: bool = False
) -> None:
    """Puts the errands: any gateway does them, at once. `only_new`: one that waits already goes on to."""
    await connection.executemany(
        "insert into errand (kind, key, data) values ('reconcile', $1, jsonb_build_object('by', $2::text))"
        " on conflict (kind, key) do "
        + ("nothing" if only_new else "update set data = excluded.data, due_at = now(), tries = 0"),
        [(f"{day}/{channel}", by) for channel in channels],
    )
    await connection.execute("select pg_notify('errand', '')")


@dataclass(frozen=True, slots=True)
class Asked:
    """An errand that is not done yet."""

    channel: str
    is_put_off: bool  # for longer than anybody is at it
    trouble: str  # of its last try; "": there was none


async def asked(connection: asyncpg.Connection, day: date) -> list[Asked]:
    rows = await connection.fetch(
        "select key, due_at > now() + interval '31 s' as put_off, coalesce(trouble, '') as trouble"
        "  from errand where kind = 'reconcile' and starts_with(key, $1) order by key",
        f"{day}/",
    )
    return [Asked(row["key"].partition("/")[2], row["put_off"], row["trouble"]) for row in rows]


async def wake(connection: asyncpg.Connection, kind: str, bill_id: bytes) -> None:
    """A bill's own errand, now."""
    await connection.execute(
        "insert into errand (kind, key, data) values ($1, $2, '{}')"
        " on conflict (kind, key) do update set due_at = now(), tries = 0",
        kind,
        bill_id.hex(),
    )
    await connection.execute("select pg_notify('errand', '')")


def _run(row: asyncpg.Record) -> RunRow:
    return RunRow(
        row["id"],
        row["channel"],
        row["day"],
        row["begun_at"],
        row["ended_at"],
        row["is_complete"],
        row["why"],
        row["asked_by"],
        json.loads(row["told"]),
        row["healed"],
        row["left_open"],
    )


def _difference(row: asyncpg.Record) -> DifferenceRow:
    return DifferenceRow(
        row["id"].bytes,
        row["channel"],
        row["day"],
        row["kind"],
        row["subject"],
        row["money"],
        row["ours"],
        row["theirs"],
        row["heal"],
        row["tried"],
        row["said"],
        None if row["bill_id"] is None else row["bill_id"].bytes,
        None if row["order_id"] is None else row["order_id"].bytes,
        json.loads(row["told"]),
        row["state"],
        row["found_at"],
        row["closed_at"],
        row["settled_name"],
        row["settled_why"],
    )
