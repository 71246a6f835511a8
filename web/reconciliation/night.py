"""Each day is reconciled by itself, once the providers have their bill of it.

WeChat Pay and Alipay both have yesterday's from ten in the morning on. What was missed while nothing ran is
made up for, and a day that something is open of is looked at again once a day.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from aiohttp import web

from engine.records import reconciliation as records
from web import keys
from web.reconciliation.reconciling import Reconciling, channels_of

LOOK_SECONDS: Final = 600.0
READY_HOUR: Final = 10  # of the channel's clock
BACK: Final = timedelta(days=30)  # bills are kept for three months
LOOKED_AT: Final = timedelta(hours=20)


async def ask_nightly(app: web.Application, reconciling: Reconciling) -> None:
    """A round: harmless when done twice."""
    now = datetime.now(UTC)
    async with app[keys.POOL].acquire() as connection:
        for channel in channels_of(app):
            zone = reconciling.zone_of(channel)
            last = latest_day(now.astimezone(zone))
            begun = await records.first_day(connection, zone)
            first = last if begun is None else min(last, max(begun, last - BACK))
            for day in await records.due(connection, channel, first, last, now - LOOKED_AT):
                await records.ask_for(connection, day, [channel], "", only_new=True)


def latest_day(now: datetime) -> date:
    """Whose statement is there, by now. `now` in the channel's zone."""
    return now.date() - timedelta(days=1 if now.hour >= READY_HOUR else 2)
