"""Who of the staff a password proves, and the one step that may be missing then."""

import secrets

from aiohttp import web

from engine.records import sign_ins
from engine.records.sign_ins import STEP, Step
from engine.records.staff import Staff
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.patient.bodies import PasswordGrant
from web.sign_in.password_rules import is_due
from web.sign_in.proof import proved
from web.sign_in.rules import is_device, rules_in

_TOKEN_BYTES = 32


async def staff_of_password(request: web.Request, body: PasswordGrant) -> Staff:
    """Whoever has shown everything that they must show.

    Raises Problem: sign_in_refused, otp_needed, sign_in_unavailable, unsupported_grant; with a token for the
    step that is missing, password_change_needed and second_factor_needed.
    """
    who = await proved(request, body.username, body.password, body.otp)
    rules = rules_in(request.app)
    if not is_device(who.staff):
        now = request.app[keys.TOKENS].now()
        if who.must_change_password or is_due(rules.passwords, who.password_set_at, now):
            raise await _step(request, who.staff, Step.PASSWORD, Fault.PASSWORD_CHANGE_NEEDED)
        if rules.is_factor_required and not who.has_factor:
            raise await _step(request, who.staff, Step.SECOND_FACTOR, Fault.SECOND_FACTOR_NEEDED)
    return who.staff


async def _step(request: web.Request, staff: Staff, step: Step, fault: Fault) -> Problem:
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    async with request.app[keys.POOL].acquire() as conn:
        now = request.app[keys.TOKENS].now()
        await sign_ins.allow_step(conn, staff.id, step, token.encode(), now)
    return Problem(fault, step_token=token, expires_in=int(STEP.total_seconds()))
