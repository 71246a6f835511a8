"""How much money is on its way back, and how many outcomes nobody knows: counted by one gateway of all."""

from typing import Final

from aiohttp import web

from web import keys

MONEY_SECONDS: Final = 30.0


async def count_money(app: web.Application) -> None:
    row = await app[keys.POOL].fetchrow(_OPEN)
    metrics = app[keys.METRICS]
    metrics.money_open.labels("owed_back").set(row["owed_back"])
    metrics.money_open.labels("suspense").set(row["suspense"])
    metrics.payments_unknown.set(row["unknown"])


# 3 is UNKNOWN and 5 DONE (engine/domain/payment.py). What lies in suspense is being given back from the
# moment it came.
_OPEN: Final = """
select coalesce(sum(r.fen), 0)::bigint as owed_back,
       coalesce(sum(r.fen) filter (where not p.is_matched), 0)::bigint as suspense,
       count(*) filter (where r.state = 3) + (select count(*) from payment where state = 3) as unknown
  from refund r join payment p on p.id = r.payment_id where r.state < 5"""
