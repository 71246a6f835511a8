"""Who does the errands of the hospital's billing. Where none is connected they wait for one."""

from aiohttp import web

from actors.errands import Handle
from engine.records.hospital_bills import LOOK, TELL
from web import keys
from web.hospital_billing.looking import Looking
from web.hospital_billing.telling import Telling


def handlers(app: web.Application) -> dict[str, Handle]:
    if keys.HOSPITAL_BILLING not in app:
        return {}
    return {TELL: Telling(app).tell, LOOK: Looking(app).look}
