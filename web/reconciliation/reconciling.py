"""The errand `reconcile`: one channel's day is compared, healed, compared again and written down.

Its key is `<day>/<channel>`. A channel is a provider that is set up here, `bookings`, or `hospital` where its
billing is connected. A run may be repeated at any time: what it does twice changes nothing, and what it does
not find any more it closes.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final

import asyncpg
from aiohttp import web

from actors.errands import Handle, TryAgain
from engine.database import connect
from engine.domain.reconciliation import (
    Comparison,
    Difference,
    Heal,
    Kind,
    Money,
    Statement,
    StatementRow,
    of_bookings,
    of_hospital,
    of_provider,
)
from engine.records import payment_alarms, settlement
from engine.records import reconciliation as records
from engine.records.payment_alarms import Alarm
from engine.records.reconciliation import ALL, BOOKINGS, HOSPITAL, Run, RunRow, Tried
from integrations.connector import Refused
from integrations.connector import TryAgain as NotNow
from integrations.hospital_billing.translate import HospitalRow, Unfit
from integrations.wechat_pay.translate import BEIJING
from web import keys
from web.reconciliation.healing import ASKS, REPORTED, ask, wake
from web.reconciliation.statements import order_of

log = logging.getLogger(__name__)

HEALED_AT_A_TIME: Final = 8
AGAIN_SECONDS: Final = 3.0  # after something was healed elsewhere: a bill's own errands take that long
BUSY_SECONDS: Final = 5.0
AGAIN_MAX: Final = 6  # runs of one day within an hour
ASKED_FOR: Final = timedelta(days=7)  # after a day a statement that is not there comes no more
MISSING_SECONDS: Final = 1_800.0  # until a statement that is not there is asked for again


@dataclass(frozen=True, slots=True)
class _Sides:
    """What a day looks like from where we are told of it."""

    statement: Statement | None
    why: str = ""  # there is none


class Reconciling:
    """Of one gateway. Handles the errand `reconcile`."""

    def __init__(self, app: web.Application, database_url: str) -> None:
        self._app = app
        self._url = database_url

    def handlers(self) -> dict[str, Handle]:
        return {"reconcile": self.reconcile}

    def zone_of(self, channel: str) -> tzinfo:
        """In which its days begin: both providers' are Beijing's."""
        return self._app[keys.ZONE] if channel in (BOOKINGS, HOSPITAL) else BEIJING

    async def reconcile(self, key: str, data: dict[str, Any]) -> None:
        text, _, channel = key.partition("/")
        day, by = date.fromisoformat(text), str(data.get("by") or "")
        if channel == ALL:
            async with self._app[keys.POOL].acquire() as pooled:
                await records.ask_for(pooled, day, channels_of(self._app), by)
            return
        if channel not in channels_of(self._app) or not is_over(day, self.zone_of(channel)):
            log.warning("the day %s of %s cannot be reconciled: it is not over, or not ours", day, channel)
            return
        connection = await connect(self._url)
        try:
            if not await records.alone(connection, channel, day):
                # The errand was leased anew while somebody heals thousands of payments.
                raise TryAgain("another gateway is at it", BUSY_SECONDS)
            run, tried = await self.run(connection, channel, day, by)
            tries = await records.runs_since(connection, channel, day, datetime.now(UTC) - timedelta(hours=1))
        finally:
            await connection.close()
        is_recent = datetime.now(UTC).date() - day < ASKED_FOR
        if not run.is_complete and is_recent:
            raise TryAgain(run.why, MISSING_SECONDS)
        if run.left_open and tried and tries < AGAIN_MAX:
            raise TryAgain("what was healed is looked at once more", AGAIN_SECONDS)

    async def run(
        self, connection: asyncpg.Connection, channel: str, day: date, by: str
    ) -> tuple[RunRow, bool]:
        """The run, and whether anything was tried. Raises TryAgain where they cannot be asked now."""
        begun_at = datetime.now(UTC)
        sides = await self._told(channel, day)
        compared = await self._compared(connection, channel, day, sides.statement)
        tried = await self._heal(connection, channel, compared.differences)
        found = compared.differences
        if tried:
            compared = await self._compared(connection, channel, day, sides.statement)
        left = {(one.kind, one.subject) for one in compared.differences}
        gone = [one for one in found if not one.explained and (one.kind, one.subject) not in left]
        why = sides.why if _has(compared, Kind.STATEMENT_MISSING) or sides.why != _NONE else ""
        if not compared.agrees:
            why = "what matched and what differs are not the whole"
            log.critical("the comparison of %s of %s is wrong: its sums do not add up", channel, day)
        async with connection.transaction():
            now = datetime.now(UTC)
            had = await records.has_statement(connection, channel, day)
            if channel != BOOKINGS and (sides.statement is not None or not had):
                await records.keep_statement(connection, channel, day, sides.statement, now)
            healed = sum(one.said == REPORTED for one in tried)
            ran = Run(channel, day, begun_at, not why, why, by, healed)
            run = await records.keep_run(connection, ran, compared, tried, gone, now)
            before = day - timedelta(days=1)
            if not had and sides.statement is not None and await records.waits(connection, channel, before):
                # What was paid at midnight may be on this statement.
                await records.ask_for(connection, before, [channel], by)
            # Fees are known now, and whatever was committed over midnight.
            await settlement.adjust(connection, self._app[keys.ZONE], now)
        _say(run, compared)
        return run, bool(tried)

    async def _told(self, channel: str, day: date) -> _Sides:
        """Raises TryAgain."""
        if channel == BOOKINGS:
            return _Sides(Statement(()))
        try:
            if channel == HOSPITAL:
                return _Sides(_of_hospital(await self._app[keys.HOSPITAL_BILLING].statement(day)))
            provider = self._app[keys.PROVIDERS].get(channel)
            assert provider is not None
            statement = await provider.statement(day)
        except NotNow as failed:
            raise TryAgain(str(failed), failed.after) from None
        except (Refused, Unfit) as refused:
            # Also a bill that is another merchant's: nothing of it is believed.
            code = refused.code if isinstance(refused, Refused) else refused.why
            log.error("the statement of %s of %s is refused: %s", day, channel, code)
            await payment_alarms.note(
                self._app[keys.POOL], Alarm(channel, "statement", code), datetime.now(UTC)
            )
            return _Sides(None, f"refused: {code}")
        return _Sides(statement, "" if statement is not None else _NONE)

    async def _compared(
        self, connection: asyncpg.Connection, channel: str, day: date, statement: Statement | None
    ) -> Comparison:
        zone = self.zone_of(channel)
        # One moment: a payment that moves on between two questions is on neither side, or on both.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if channel == BOOKINGS:
                return of_bookings(await records.bookings(connection, day, zone))
            rows = () if statement is None else statement.rows
            payments = await records.payments(connection, channel, day, zone, _named(rows, Money.PAYMENT))
            refunds = await records.refunds(connection, channel, day, zone, _named(rows, Money.REFUND))
            orders = [*(one.order for one in payments), *(one.order for one in refunds)]
            elsewhere = await records.rows_elsewhere(connection, channel, day, orders)
            next_day_known = await records.has_statement(connection, channel, day + timedelta(days=1))
        if channel == HOSPITAL:
            told = statement if statement is not None else Statement(())
            return await asyncio.to_thread(
                of_hospital, day, payments, refunds, told, elsewhere, next_day_known
            )
        return await asyncio.to_thread(
            of_provider, day, payments, refunds, statement, elsewhere, next_day_known
        )

    async def _heal(
        self, connection: asyncpg.Connection, channel: str, differences: Iterable[Difference]
    ) -> list[Tried]:
        """Others' errands are put first, one by one; then providers are asked, some at a time."""
        wanted = [one for one in differences if one.heal is not Heal.NONE]
        asks = [one for one in wanted if one.heal in ASKS]
        done = [
            Tried(one.kind, one.subject, await wake(connection, one))
            for one in wanted
            if one.heal not in ASKS
        ]
        room = asyncio.Semaphore(HEALED_AT_A_TIME)

        async def asked(one: Difference) -> Tried:
            async with room:
                return Tried(one.kind, one.subject, await ask(self._app, channel, one))

        return [*done, *await asyncio.gather(*map(asked, asks))]


_NONE: Final = "there is no statement of that day"


def channels_of(app: web.Application) -> list[str]:
    """What can be reconciled here."""
    hospital = [HOSPITAL] if keys.HOSPITAL_BILLING in app else []
    return [*app[keys.PROVIDERS].names, BOOKINGS, *hospital]


def is_over(day: date, zone: tzinfo) -> bool:
    return day < datetime.now(zone).date()


def _named(rows: Iterable[StatementRow], money: Money) -> set[bytes]:
    """Our orders that a statement names."""
    found = {row.order for row in rows if row.kind == money}
    if money is Money.PAYMENT:
        found |= {row.payment_order for row in rows}
    return found - {b""}


def _has(compared: Comparison, kind: Kind) -> bool:
    return any(one.kind is kind for one in compared.differences)


def _of_hospital(rows: Iterable[HospitalRow]) -> Statement:
    return Statement(
        tuple(
            StatementRow(
                row.kind,
                order_of(row.reference),
                row.receipt,
                row.fen,
                row.at,
                number=row.order,
            )
            for row in rows
        )
    )


def _say(run: RunRow, compared: Comparison) -> None:
    """For whoever reads logs: what is open, by kind."""
    if not run.left_open:
        log.info("%s of %s is reconciled", run.channel, run.day)
        return
    kinds: dict[str, int] = {}
    for one in compared.differences:
        if not one.explained:
            kinds[one.kind] = kinds.get(one.kind, 0) + 1
    told = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    log.warning("%s of %s: %d differences are open: %s", run.channel, run.day, run.left_open, told)
