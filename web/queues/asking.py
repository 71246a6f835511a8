"""Commands to waiting rooms: sent, answered, and seen by whoever looks next."""

import asyncio
from datetime import datetime

from aiohttp import web

from actors.directory import Unknown
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, derived
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Refusal
from web import keys
from web.errors import Problem, refused
from web.faults import Fault


def command_id(who: bytes, idempotency_key: str) -> bytes:
    """The id a retry derives again. `who` is an account or one of the staff."""
    return derived(b"room", who, idempotency_key.encode())


async def ask_room(app: web.Application, key: RoomKey, command: w.Command) -> w.Told:
    """Raises Problem for whatever is not an answer: refused, overloaded, or unknown."""
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    outcome = await app[keys.DIRECTORY].ask(key.stream, command, deadline)
    if isinstance(outcome, Refusal):
        raise refused(outcome)
    if isinstance(outcome, Unknown):
        raise Problem(Fault.OUTCOME_UNKNOWN)
    assert isinstance(outcome, w.Told)
    app[keys.ROOMS].expect(key, outcome.seen)
    return outcome


def today(app: web.Application) -> str:
    """The hospital's day, as waiting rooms are named by it."""
    return datetime.now(app[keys.ZONE]).date().isoformat()
