"""The hospital's billing as a gateway knows it: with a short memory of its being away.

A patient who waits for an answer is not made to wait for a billing that has just not answered anybody; and
errands that wait for it leave room for those of others. The two do not stand in each other's way.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Final, TypeVar

from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.hospital_billing.client import HospitalBillingClient
from integrations.hospital_billing.translate import (
    HospitalBill,
    HospitalRow,
    Identity,
    Outstanding,
    Paid,
    Refunded,
    Unfit,
)

log = logging.getLogger(__name__)

QUESTIONS_MAX: Final = 50  # of people who wait, under way at one time
ERRANDS_MAX: Final = 3
AWAY_SECONDS: Final = 5.0  # after a failure nobody waits for it

T = TypeVar("T")


class Gate:
    """Lets so many through, and nobody for a while after it was not answered."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._places = asyncio.Semaphore(most)
        self._clock = clock
        self._away_until = 0.0

    async def through(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises TryAgain at once while it is away or the places are taken; else what `ask` raises."""
        left = self._away_until - self._clock()
        if left > 0:
            raise TryAgain("hospital billing: away a moment ago", left)
        if self._places.locked():
            raise TryAgain("hospital billing: too much under way", 1.0)
        async with self._places:
            try:
                return await ask()
            except (TryAgain, OutcomeUnknown) as failure:
                after = failure.after if isinstance(failure, TryAgain) else None
                self._away_until = self._clock() + (after or AWAY_SECONDS)
                log.warning("the hospital's billing is away: %s", failure)
                raise


class HospitalBilling:
    def __init__(self, client: HospitalBillingClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._questions = Gate(QUESTIONS_MAX, clock)
        self._errands = Gate(ERRANDS_MAX, clock)

    # For people who wait.

    async def outstanding(self, identity: Identity) -> Outstanding:
        """Raises TryAgain, Refused, Unfit."""
        return await self._questions.through(lambda: self._client.outstanding(identity))

    async def bill(self, number: str) -> HospitalBill:
        """Raises TryAgain, Refused, Unfit."""
        return await self._questions.through(lambda: self._client.bill(number))

    # For errands.

    async def look(self, number: str) -> HospitalBill:
        """Raises TryAgain, Refused, Unfit."""
        return await self._errands.through(lambda: self._client.bill(number))

    async def tell_paid(self, paid: Paid) -> str:
        """Their receipt. Raises TryAgain, Refused, OutcomeUnknown."""
        return await self._errands.through(lambda: self._client.tell_paid(paid))

    async def tell_refunded(self, refunded: Refunded) -> str:
        """Likewise."""
        return await self._errands.through(lambda: self._client.tell_refunded(refunded))

    async def look_after(self, number: str) -> HospitalBill:
        """After an answer that was lost a moment ago. Raises TryAgain, Refused, Unfit."""
        return await self._client.bill(number)

    async def statement(self, day: date) -> list[HospitalRow]:
        """What they booked on this day of the hospital's. Raises TryAgain; Refused, also where it does not
        add up."""
        try:
            return await self._client.statement(day)
        except Unfit as wrong:
            raise Refused(f"unfit_{wrong.why}", "hospital billing") from None

    # What they say to us.

    def is_theirs(
        self, method: str, path: str, app_id: str, at: str, nonce: str, signature: str, body: bytes
    ) -> bool:
        """Whether the billing has signed this request, lately."""
        return self._client.is_theirs(method, path, app_id, at, nonce, signature, body)


def is_gone(failure: ConnectorFailed) -> bool:
    """Whether they say that they have no such bill."""
    return isinstance(failure, Refused) and failure.code == "no_such_bill"
