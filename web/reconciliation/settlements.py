"""The day's end (日结), as JSON, as CSV and as a page to be printed; and the closing of a day."""

from datetime import UTC, date, datetime

import asyncpg
from aiohttp import web

from engine.records import settlement as records
from engine.records.reconciliation import BOOKINGS, HOSPITAL
from engine.records.settlement import AT_THE_DESK, Adjustment, Settlement
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.reconciliation import sheets
from web.reconciliation.bodies import (
    AdjustmentAnswer,
    ChannelAnswer,
    CloseBody,
    DayPath,
    RevenueAnswer,
    SettlementAnswer,
)
from web.reconciliation.reconciling import channels_of, is_over


@api.route(
    "GET",
    "/api/v1/cashier/settlements/{date}.csv",
    zh="日结单（CSV）",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def export_settlement(request: web.Request, *, path: DayPath) -> web.StreamResponse:
    """The day's end for a spreadsheet: UTF-8 with its mark, amounts in yuan."""
    found = await _settlement(request.app, path.date)
    return web.Response(
        body=sheets.as_csv(found).encode(),
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="settlement-{path.date}.csv"',
            "Cache-Control": "no-store",
        },
    )


@api.route(
    "GET",
    "/api/v1/cashier/settlements/{date}/page",
    zh="日结单（打印）",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def print_settlement(request: web.Request, *, path: DayPath) -> web.StreamResponse:
    """The day's end as one page of A4."""
    app = request.app
    found = await _settlement(app, path.date)
    hospital = app[keys.AVAILABILITY].catalog.hospital.name
    page = sheets.as_page(found, hospital, datetime.now(UTC), app[keys.ZONE])
    return web.Response(
        body=page.encode(),
        headers={
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": sheets.POLICY,
            "Cache-Control": "no-store",
        },
    )


@api.route(
    "GET",
    "/api/v1/cashier/settlements/{date}",
    zh="日结",
    tags=["cashier"],
    errors=[Fault.DATABASE_DOWN],
)
async def read_settlement(request: web.Request, *, path: DayPath) -> SettlementAnswer:
    """What came in and went out on a day, by channel: as the ledger has it, to the fen."""
    return _answer(request.app, await _settlement(request.app, path.date))


@api.route(
    "POST",
    "/api/v1/cashier/settlements/{date}/close",
    zh="关账",
    tags=["cashier"],
    errors=[Fault.DAY_NOT_OVER, Fault.DAY_CLOSED, Fault.DATABASE_DOWN],
)
async def close_settlement(
    request: web.Request, *, staff: Staff, path: DayPath, body: CloseBody
) -> SettlementAnswer:
    """Keeps the day's figures as they are. What comes later is an adjustment of the day on which it comes."""
    app = request.app
    zone, now = app[keys.ZONE], datetime.now(UTC)
    if not is_over(path.date, zone):
        raise Problem(Fault.DAY_NOT_OVER)
    async with app[keys.POOL].acquire() as connection:
        async with connection.transaction():
            await records.adjust(connection, zone, now)
        try:
            # One moment: the sums of a day fit each other.
            async with connection.transaction(isolation="repeatable_read"):
                done = await records.close(
                    connection,
                    path.date,
                    zone,
                    _channels(app),
                    staff.id,
                    staff.username,
                    body.note or "",
                    now,
                )
                if not done:
                    raise Problem(Fault.DAY_CLOSED)
                found = await records.settlement(connection, path.date, zone)
                await audited(
                    request,
                    connection,
                    "day_closed",
                    object=("day", path.date.isoformat()),
                    reason=body.note,
                    detail={"net_fen": found.figures.net_fen, "open": found.figures.open_differences},
                )
        except asyncpg.SerializationError:  # by somebody else, this very moment
            raise Problem(Fault.DAY_CLOSED) from None
    return _answer(app, found)


async def _settlement(app: web.Application, day: date) -> Settlement:
    # One moment, so that the sums of a day that is not closed fit each other.
    snapshot = {"isolation": "repeatable_read", "readonly": True}
    async with app[keys.POOL].acquire() as connection, connection.transaction(**snapshot):
        return await records.settlement(connection, day, app[keys.ZONE], _channels(app))


def _channels(app: web.Application) -> list[str]:
    """Where money may be, whether any came or not."""
    return [AT_THE_DESK, *(one for one in channels_of(app) if one not in (BOOKINGS, HOSPITAL))]


def _answer(app: web.Application, one: Settlement) -> SettlementAnswer:
    zone, figures = app[keys.ZONE], one.figures
    return SettlementAnswer(
        figures.day,
        None if one.closed is None else one.closed.at.astimezone(zone),
        None if one.closed is None else one.closed.by,
        None if one.closed is None else one.closed.note or None,
        [
            ChannelAnswer(
                channel.name,
                channel.payments,
                channel.payments_fen,
                channel.suspense_fen,
                channel.refunds,
                channel.refunds_fen,
                channel.net_fen,
                sheets.fee_fen(channel.fee_millifen) if channel.has_statement else None,
            )
            for channel in figures.channels
        ],
        [
            RevenueAnswer(
                kind.kind, kind.earned_fen, kind.given_back_fen, kind.earned_fen - kind.given_back_fen
            )
            for kind in figures.revenue
        ],
        figures.net_fen,
        figures.balances.patient_fen,
        figures.balances.suspense_fen,
        figures.balances.owed_back_fen,
        figures.open_differences,
        list(figures.not_compared),
        [_adjustment(app, more) for more in one.came],
        [_adjustment(app, more) for more in one.later],
    )


def _adjustment(app: web.Application, one: Adjustment) -> AdjustmentAnswer:
    return AdjustmentAnswer(
        one.of_day,
        one.channel,
        one.day,
        one.at.astimezone(app[keys.ZONE]),
        one.payments,
        one.payments_fen,
        one.refunds,
        one.refunds_fen,
        one.payments_fen - one.refunds_fen,
        sheets.fee_fen(one.fee_millifen),
    )
