"""What lines of the billing's bills are called: clinical text, for whoever may see the patient's visits."""

from collections.abc import Collection

from aiohttp import web

from engine.records import hospital_bills
from web import keys


async def names_of(app: web.Application, bill_ids: Collection[bytes]) -> dict[bytes, dict[str, str]]:
    """Bill -> line -> name. Bills that are not the billing's, and of who was forgotten, are not in it."""
    if not bill_ids:
        return {}
    return await hospital_bills.names_of(app[keys.POOL], app[keys.VAULT], bill_ids)
