"""What time alone brings for the person's rights: texts that become valid, records that need not be kept."""

import logging
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from actors.rounds import Round
from engine.records import consents, erasure
from engine.records.erasure import Clock
from web import keys

log = logging.getLogger(__name__)

TEXTS_SECONDS: Final = 60.0
RETENTION_SECONDS: Final = 3600.0


def rounds(app: web.Application) -> list[Round]:
    async def texts() -> None:
        async with app[keys.POOL].acquire() as connection:
            if became := await consents.take_effect(connection, datetime.now(UTC)):
                log.info("%s texts of consents are in force from now on", became)

    async def retention() -> None:
        clock = Clock(datetime.now(UTC), app[keys.ZONE])
        async with app[keys.POOL].acquire() as connection:
            if gone := await erasure.expire(connection, app[keys.ERASURES], clock):
                log.info("%s records were kept as long as the law says, and are erased", len(gone))

    return [Round("consents", TEXTS_SECONDS, texts), Round("retention", RETENTION_SECONDS, retention)]
