"""The day's end (日结): what came in and went out on a day, by channel, as the ledger has it.

Counted from the postings of that day and nothing else, so it equals the ledger to the fen. A day may be
closed: its figures are kept as they are, and what comes later (a posting that was committed over midnight, a
provider's bill that tells fees) is an adjustment of the day on which it comes. So what all closed days and
their adjustments tell is again the whole ledger.

Days are the hospital's. Fees are as the provider's bill of that day says.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from engine.domain.ledger import of_provider, of_revenue
from engine.records.reconciliation import bounds

ADJUSTED_FOR: Final = timedelta(days=35)
"""So long after its end a closed day is looked at. Refunds come for a year, on days of their own."""
_PROVIDER: Final = of_provider("")
_REVENUE: Final = of_revenue("")


@dataclass(frozen=True, slots=True)
class Channel:
    """A provider, or the desk. Fen."""

    name: str
    payments: int = 0  # how many
    payments_fen: int = 0
    suspense_fen: int = 0  # of these, money that was for nothing that we know
    refunds: int = 0
    refunds_fen: int = 0
    fee_millifen: int = 0  # that they keep, in thousandths of a fen
    has_statement: bool = True  # False: they have not told yet what they keep; the desk keeps nothing

    @property
    def net_fen(self) -> int:
        return self.payments_fen - self.refunds_fen


@dataclass(frozen=True, slots=True)
class Revenue:
    kind: str  # registration, drug, examination …
    earned_fen: int
    given_back_fen: int


@dataclass(frozen=True, slots=True)
class Balances:
    """At the end of the day, of all that was ever posted."""

    patient_fen: int  # paid, and the service is being seen to
    suspense_fen: int
    owed_back_fen: int


@dataclass(frozen=True, slots=True)
class Figures:
    day: date
    channels: tuple[Channel, ...]
    revenue: tuple[Revenue, ...]
    balances: Balances
    open_differences: int = 0  # of that day, whatever channel
    not_compared: tuple[str, ...] = ()  # channels without a complete run of that day

    @property
    def net_fen(self) -> int:
        return sum(one.net_fen for one in self.channels)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What came to a closed day after it was closed. Negative: it became less."""

    of_day: date
    channel: str
    day: date  # on which it came
    at: datetime
    payments: int
    payments_fen: int
    refunds: int
    refunds_fen: int
    fee_millifen: int


@dataclass(frozen=True, slots=True)
class Closed:
    at: datetime
    by: str  # username
    note: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """A day as people see it."""

    figures: Figures  # as they were when it was closed, else as they are
    closed: Closed | None
    came: tuple[Adjustment, ...]  # on this day, of days that were closed before
    later: tuple[Adjustment, ...]  # of this day, on later ones


async def settlement(
    connection: asyncpg.Connection, day: date, zone: ZoneInfo, channels: Iterable[str] = ()
) -> Settlement:
    """`channels` are shown though nothing has happened in them."""
    row = await connection.fetchrow("select *, figures::text as told from closed_day where day = $1", day)
    closed = None if row is None else Closed(row["closed_at"], row["closed_name"], row["note"])
    found = (
        await figures(connection, day, zone, channels) if row is None else _figures(json.loads(row["told"]))
    )
    came = await _adjustments(connection, _CAME, day)
    return Settlement(found, closed, came, await _adjustments(connection, _LATER, day))


async def figures(
    connection: asyncpg.Connection, day: date, zone: ZoneInfo, channels: Iterable[str] = ()
) -> Figures:
    """As the ledger has that day now."""
    begins, ends = bounds(day, zone)
    accounts = await connection.fetch(_ACCOUNTS, begins, ends)
    suspense = {row["account"]: row["fen"] for row in await connection.fetch(_SUSPENSE, begins, ends)}
    fees = await _fees(connection, [day])
    told = {row["channel"] for row in await connection.fetch(_TOLD, day)}
    names = {row["account"].removeprefix(_PROVIDER) for row in accounts if _is(row, _PROVIDER)}
    by_account = {row["account"]: row for row in accounts}
    balances = await connection.fetchrow(_BALANCES, ends)
    return Figures(
        day,
        tuple(
            _channel(
                name,
                by_account.get(of_provider(name)),
                suspense.get(of_provider(name), 0),
                fees.get((day, name), 0),
                name in told or name == AT_THE_DESK,
            )
            for name in sorted(names | set(channels))
        ),
        tuple(
            Revenue(row["account"].removeprefix(_REVENUE), row["given_fen"], row["taken_fen"])
            for row in accounts
            if _is(row, _REVENUE)
        ),
        Balances(balances["patient"], balances["suspense"], balances["owed_back"]),
        await connection.fetchval(_OPEN_DIFFERENCES, day),
        tuple(row["channel"] for row in await connection.fetch(_NOT_COMPARED, day, sorted(channels))),
    )


AT_THE_DESK: Final = "at_hospital"


def _is(row: asyncpg.Record, prefix: str) -> bool:
    return bool(row["account"].startswith(prefix))


def _channel(name: str, row: asyncpg.Record | None, suspense: int, fee: int, has_statement: bool) -> Channel:
    if row is None:
        return Channel(name, fee_millifen=fee, has_statement=has_statement)
    return Channel(
        name,
        row["taken"],
        row["taken_fen"],
        suspense,
        row["given"],
        row["given_fen"],
        fee,
        has_statement,
    )


_ACCOUNTS: Final = """
select account, count(*) filter (where fen > 0)::int as taken,
       coalesce(sum(fen) filter (where fen > 0), 0)::bigint as taken_fen,
       count(*) filter (where fen < 0)::int as given,
       coalesce(-sum(fen) filter (where fen < 0), 0)::bigint as given_fen
  from posting where at >= $1 and at < $2
   and (account like 'provider/%' or account like 'revenue/%') group by account order by account"""
_SUSPENSE: Final = """
select p.account, sum(p.fen)::bigint as fen from posting p
 where p.at >= $1 and p.at < $2 and p.account like 'provider/%' and p.fen > 0
   and exists (select from posting s where s.bill_id = p.bill_id and s.version = p.version
                  and s.account = 'suspense')
 group by p.account"""
_BALANCES: Final = """
with later as (
    select account, sum(fen)::bigint as fen from posting
     where account in ('patient', 'suspense', 'refunds_payable') and at >= $1 group by account
)
select (select coalesce(sum(fen), 0) from bill where status = 'paid')::bigint
       + coalesce((select fen from later where account = 'patient'), 0) as patient,
       coalesce((select fen from later where account = 'suspense'), 0) as suspense,
       (select coalesce(sum(owed_back), 0) from bill where owed_back > 0)::bigint
       + coalesce((select fen from later where account = 'refunds_payable'), 0) as owed_back"""
"""What is there now, without what came after that day: nobody sums up the ledger of years. Suspense is empty
after each transaction: what comes into it is owed back in the same one."""
_TOLD: Final = "select distinct channel from reconciliation where day = $1 and is_complete"
_OPEN_DIFFERENCES: Final = (
    "select count(*)::int from difference where day = $1 and state in ('open', 'waiting')"
)
_NOT_COMPARED: Final = """
select c as channel from unnest($2::text[]) c
 where c <> 'at_hospital' and not exists (select from reconciliation r
                   where r.day = $1 and r.channel = c and r.is_complete)"""


async def _fees(connection: asyncpg.Connection, days: list[date]) -> Mapping[tuple[date, str], int]:
    rows = await connection.fetch(
        "select day, channel, sum(fee_millifen)::bigint as fee from statement_row"
        " where day = any ($1) and currency = 'CNY' group by day, channel",
        days,
    )
    return {(row["day"], row["channel"]): row["fee"] for row in rows}


# Closing.


async def close(
    connection: asyncpg.Connection,
    day: date,
    zone: ZoneInfo,
    channels: Iterable[str],
    staff_id: bytes,
    username: str,
    note: str,
    now: datetime,
) -> bool:
    """Keeps the day as it is. False: it is closed already. Within a transaction of the caller's that sees one
    moment, after `adjust`."""
    found = await figures(connection, day, zone, channels)
    done = await connection.fetchval(
        "insert into closed_day (day, closed_at, closed_by, closed_name, note, figures)"
        " values ($1, $2, $3, $4, $5, $6::jsonb) on conflict (day) do nothing returning true",
        day,
        now,
        UUID(bytes=staff_id),
        username,
        note,
        json.dumps({**asdict(found), "day": day.isoformat()}),
    )
    return bool(done)


async def adjust(connection: asyncpg.Connection, zone: ZoneInfo, now: datetime) -> list[Adjustment]:
    """What came to closed days since they were closed, or since the last look, belongs to today. Within a
    transaction of the caller's: two at a time would count it twice."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('xinglin.adjust'))")
    today = now.astimezone(zone).date()
    rows = await connection.fetch(
        "select day, figures::text as told from closed_day where day >= $1 order by day", today - ADJUSTED_FOR
    )
    kept = {row["day"]: _figures(json.loads(row["told"])) for row in rows}
    if not kept:
        return []
    counted = await _counted(connection, min(kept), max(kept), zone)
    fees = await _fees(connection, list(kept))
    before = await connection.fetch(_ADJUSTED, list(kept))
    told: dict[tuple[date, str], list[int]] = {}
    for day, one in kept.items():
        for channel in one.channels:
            told[day, channel.name] = _numbers(channel)
    for row in before:
        known = told.setdefault((row["of_day"], row["channel"]), [0] * len(_SUMS))
        told[row["of_day"], row["channel"]] = [a + row[name] for a, name in zip(known, _SUMS, strict=True)]
    numbers = {(row["of_day"], row["channel"]): row["n"] for row in before}
    found = []
    for key in sorted(told.keys() | counted.keys() | fees.keys()):
        day, name = key
        if day not in kept or not _is_channel(name):
            continue
        have = [*counted.get(key, [0, 0, 0, 0]), fees.get(key, 0)]
        more = [a - b for a, b in zip(have, told.get(key, [0] * len(_SUMS)), strict=True)]
        if any(more):
            found.append(Adjustment(day, name, today, now, *more))
    await connection.executemany(
        "insert into adjustment (of_day, channel, n, day, at, payments, payments_fen, refunds, refunds_fen,"
        " fee_millifen) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        [
            (
                one.of_day,
                one.channel,
                numbers.get((one.of_day, one.channel), 0) + 1,
                one.day,
                one.at,
                one.payments,
                one.payments_fen,
                one.refunds,
                one.refunds_fen,
                one.fee_millifen,
            )
            for one in found
        ],
    )
    return found


_SUMS: Final = ("payments", "payments_fen", "refunds", "refunds_fen", "fee_millifen")
_ADJUSTED: Final = """
select of_day, channel, max(n) as n, sum(payments)::int as payments,
       sum(payments_fen)::bigint as payments_fen, sum(refunds)::int as refunds,
       sum(refunds_fen)::bigint as refunds_fen, sum(fee_millifen)::bigint as fee_millifen
  from adjustment where of_day = any ($1) group by of_day, channel"""


def _is_channel(name: str) -> bool:
    return name not in ("hospital", "bookings")


def _numbers(one: Channel) -> list[int]:
    return [one.payments, one.payments_fen, one.refunds, one.refunds_fen, one.fee_millifen]


async def _counted(
    connection: asyncpg.Connection, first: date, last: date, zone: ZoneInfo
) -> dict[tuple[date, str], list[int]]:
    rows = await connection.fetch(_COUNTED, bounds(first, zone)[0], bounds(last, zone)[1], str(zone))
    return {
        (row["day"], row["account"].removeprefix(_PROVIDER)): [
            row["taken"],
            row["taken_fen"],
            row["given"],
            row["given_fen"],
        ]
        for row in rows
    }


_COUNTED: Final = """
select (at at time zone $3)::date as day, account, count(*) filter (where fen > 0)::int as taken,
       coalesce(sum(fen) filter (where fen > 0), 0)::bigint as taken_fen,
       count(*) filter (where fen < 0)::int as given,
       coalesce(-sum(fen) filter (where fen < 0), 0)::bigint as given_fen
  from posting where at >= $1 and at < $2 and account like 'provider/%' group by 1, 2"""


_CAME: Final = "select * from adjustment where day = $1 order by at, of_day, channel"
_LATER: Final = "select * from adjustment where of_day = $1 order by at, channel"


async def _adjustments(connection: asyncpg.Connection, select: str, day: date) -> tuple[Adjustment, ...]:
    rows = await connection.fetch(select, day)
    return tuple(
        Adjustment(
            row["of_day"],
            row["channel"],
            row["day"],
            row["at"],
            row["payments"],
            row["payments_fen"],
            row["refunds"],
            row["refunds_fen"],
            row["fee_millifen"],
        )
        for row in rows
    )


def _figures(told: dict[str, Any]) -> Figures:
    return Figures(
        date.fromisoformat(told["day"]),
        tuple(Channel(**one) for one in told["channels"]),
        tuple(Revenue(**one) for one in told["revenue"]),
        Balances(**told["balances"]),
        told["open_differences"],
        tuple(told["not_compared"]),
    )
