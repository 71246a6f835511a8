"""Of a demo: whoever was seen by a doctor here is ordered an examination at the sandbox of the laboratory.

A real hospital's doctors order in its HIS; nothing of this runs beside a real laboratory.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Final

import aiohttp

from engine.database import AWAY
from web.sync.app import SyncApp

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
LATEST: Final = timedelta(hours=12)
ORDERS_MAX: Final = 20  # in one look
TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)

_SEEN: Final = """
select t.id, t.patient_id, p.sex, p.birth_date from ticket t join patient p on p.id = t.patient_id
 where t.finished_at > $1 and p.record_key is not null order by t.finished_at desc limit $2"""


async def order_of_seen(app: SyncApp, sandbox: str) -> None:
    """For as long as it is awaited. The laboratory takes an order once, whatever we forget."""
    ordered: set[str] = set()
    while True:
        try:
            for row in await app.pool.fetch(_SEEN, app.now() - LATEST, ORDERS_MAX):
                order = row["id"].hex
                if order in ordered:
                    continue
                said = {
                    "order": order,
                    "patient": row["patient_id"].hex,
                    "sex": row["sex"],
                    "birth_date": row["birth_date"] and row["birth_date"].isoformat(),
                }
                async with app.client.post(f"{sandbox}/sandbox/orders", json=said, timeout=TIMEOUT) as answer:
                    if answer.status < 300:
                        ordered.add(order)
        except (aiohttp.ClientError, *AWAY):
            log.info("the sandbox of the laboratory takes no orders at the moment")
        await asyncio.sleep(LOOK_SECONDS)
