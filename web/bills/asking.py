"""Commands to bills: for somebody who waits for the answer, and for errands, which come again."""

import asyncio
from typing import Final

from aiohttp import web

from actors.directory import Outcome
from actors.errands import TryAgain
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Reason, Refusal
from engine.journal.streams import read_bill
from web import keys
from web.errors import Problem, refused
from web.faults import Fault

_NOT_NOW: Final = (Reason.BUSY, Reason.TOO_LATE, Reason.AWAY)


async def ask_bill(
    app: web.Application, bill_id: bytes, command: p.Command, seconds: float = ANSWER_MS_MAX / 1000
) -> p.Answer:
    """Raises Problem for whatever is not an answer."""
    outcome = await _asked(app, bill_id, command, seconds)
    if isinstance(outcome, Refusal):
        raise refused(outcome)
    if not isinstance(outcome, p.Answer):
        raise Problem(Fault.OUTCOME_UNKNOWN)
    return outcome


async def tell_bill(
    app: web.Application, bill_id: bytes, command: p.Command, seconds: float = ANSWER_MS_MAX / 1000
) -> p.Answer | Refusal:
    """For whoever comes again: raises TryAgain while nobody can say what became of it."""
    outcome = await _asked(app, bill_id, command, seconds)
    if isinstance(outcome, Refusal) and outcome.reason not in _NOT_NOW:
        return outcome
    if not isinstance(outcome, p.Answer):
        raise TryAgain(f"{type(command).__name__}: {outcome}")
    return outcome


async def bill_now(app: web.Application, bill_id: bytes) -> p.Bill:
    """Replayed from what is committed."""
    async with app[keys.POOL].acquire() as connection:
        return await read_bill(connection, BillKey(bill_id))


async def _asked(app: web.Application, bill_id: bytes, command: p.Command, seconds: float) -> Outcome:
    deadline = asyncio.get_running_loop().time() + seconds
    return await app[keys.DIRECTORY].ask(BillKey(bill_id).stream, command, deadline)
