"""Whether a person is who the form says: what is known here, else what the register says, else later.

Nobody waits for a register that is away: the person is added unverified, and a round asks again. An account
may ask amiss only so often a day, so that nobody finds out here whose number is whose.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web

from engine.audit.entries import SYSTEM, Entry, write
from engine.records import real_names as records
from engine.records.identity import IN_REGISTER, Person
from engine.records.real_names import GUESSES_A_DAY, Waiting
from integrations.connector import Refused, TryAgain
from integrations.real_name.client import RealNameClient
from integrations.real_name.translate import Finding
from web import keys
from web.auditing import audited
from web.errors import Problem
from web.faults import Fault

log = logging.getLogger(__name__)

UNDER_WAY_MAX: Final = 50
AWAY_SECONDS: Final = 5.0  # after a failure nobody waits for it
AGAIN_SECONDS: Final = 3_600  # an account that has guessed too often may look again then
MISTAKEN_SECONDS: Final = 60.0  # where they do not know us, asking again soon changes nothing
ROUND_SECONDS: Final = 5.0
ROUND_MAX: Final = 100
AGAIN_SECONDS_MIN: Final = 60
AGAIN_SECONDS_MAX: Final = 6 * 3600


class RealNames:
    """The register, with a short memory of its being away."""

    def __init__(self, client: RealNameClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._away_until = 0.0
        self._places = asyncio.Semaphore(UNDER_WAY_MAX)

    async def check(self, person: Person | Waiting) -> Finding | None:
        """None: it cannot say now, or never does for this kind of paper."""
        if person.id_type not in IN_REGISTER or self._clock() < self._away_until or self._places.locked():
            return None
        async with self._places:
            try:
                return await self._client.check(person.name, person.id_type, person.id_number)
            except TryAgain as failure:
                self._away(failure.after or AWAY_SECONDS)
                log.warning("the register of real names is away: %s", failure)
            except Refused as refusal:
                self._away(MISTAKEN_SECONDS)
                log.error("the register of real names does not know us: %s", refusal)
        return None

    @property
    def is_away(self) -> bool:
        return self._clock() < self._away_until

    def _away(self, seconds: float) -> None:
        self._away_until = self._clock() + seconds


async def checked(
    request: web.Request, account_id: bytes, guess_id: bytes, person: Person, now: datetime
) -> records.Verification:
    """What is to be noted of a person who is being added. Raises Problem where name and number do not belong
    together; then nothing is stored but that it was tried.

    The guess is begun here and ends with records.end_guess, in the transaction that adds the person.
    """
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        if not await records.begin_guess(connection, account_id, guess_id, now):
            raise Problem(Fault.TOO_MANY_MISMATCHES, limit=GUESSES_A_DAY, retry_after=AGAIN_SECONDS)
        known = await records.known_as(connection, app[keys.VAULT], person)
        if known is records.Known.ANOTHER:
            await records.note_miss(connection, guess_id)
            raise Problem(Fault.IDENTITY_MISMATCH)
    if known is records.Known.VERIFIED:
        return records.AS_IT_IS
    register = app.get(keys.REAL_NAMES)
    found = None if register is None else await register.check(person)
    if found is Finding.MISMATCH:
        async with app[keys.POOL].acquire() as connection, connection.transaction():
            await records.note_miss(connection, guess_id)
            await audited(request, connection, "real_name_refused", outcome="refused")
        raise Problem(Fault.REAL_NAME_MISMATCH)
    return verification_of(person, found, now)


def verification_of(person: Person | Waiting, found: Finding | None, now: datetime) -> records.Verification:
    if found is Finding.MATCH:
        return records.Verification("verified", now, "register", None)
    if found is Finding.MISMATCH:
        return records.Verification("refused", None, None, None)
    waits = found is None and person.id_type in IN_REGISTER
    return records.Verification("unverified", None, None, now if waits else None)


async def verify_waiting(app: web.Application) -> None:
    """A round: those whom the register could not be asked about. Ends early while it is away."""
    register = app.get(keys.REAL_NAMES)
    if register is None or register.is_away:
        return
    vault = app[keys.VAULT]
    async with app[keys.POOL].acquire() as connection:
        waiting = await records.waiting(connection, vault, datetime.now(UTC), ROUND_MAX)
    for person in waiting:
        found = await register.check(person)
        now = datetime.now(UTC)
        async with app[keys.POOL].acquire() as connection, connection.transaction():
            if found is None:
                pause = min(AGAIN_SECONDS_MIN << min(person.tries, 16), AGAIN_SECONDS_MAX)
                await records.again_at(connection, person.id, now + timedelta(seconds=pause))
            elif await records.settle(connection, person.id, verification_of(person, found, now), now):
                action = "real_name_verified" if found is Finding.MATCH else "real_name_not_verified"
                detail: dict[str, object] = {"register": found.value}
                await write(connection, Entry(action, SYSTEM, subjects=(person.id,), detail=detail))
        if found is None:
            return
