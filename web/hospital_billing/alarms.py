"""What the billing, or somebody in its name, said that was not believed: kept for the cashier, and logged."""

import logging
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from engine.records import payment_alarms
from engine.records.payment_alarms import Alarm
from integrations.hospital_billing.translate import Unfit
from web import keys

log = logging.getLogger(__name__)

PROVIDER: Final = "hospital_billing"


async def alarm(app: web.Application, what: str, why: str, bill_id: bytes | None = None) -> None:
    """`what`: query or callback. `why` is a word of ours, never one of theirs."""
    log.warning("the hospital's billing: %s refused, %s", what, why)
    await payment_alarms.note(app[keys.POOL], Alarm(PROVIDER, what, why, bill_id=bill_id), datetime.now(UTC))


async def unfit(app: web.Application, wrong: Unfit, bill_id: bytes | None = None) -> None:
    """Of an answer."""
    await alarm(app, "query", wrong.why, bill_id)
