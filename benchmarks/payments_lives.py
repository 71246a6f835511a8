"""People who book and pay, each a number of his own: in time, late, twice, beside a rival, or not at all."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import aiohttp

from benchmarks.asking import Asking, Said
from benchmarks.payments_providers import ALIPAY, WECHAT_PAY, Sandboxes
from benchmarks.people import Person

KINDS: Final = {
    # How many of a hundred.
    "plain": 68,
    "late": 8,  # pays when his hold has ended
    "late and full": 4,  # and somebody else has the seat by then
    "cancelled": 8,  # after it was booked
    "twice": 6,  # with both providers
    "abandoned": 6,  # never pays
}
WECHAT_SHARE: Final = 0.6
CHECK_SHARE: Final = 0.5  # come back to the client, which asks what became of it
THINKS_SECONDS: Final = (0.05, 1.0)
LATE_SECONDS: Final = (0.5, 2.0)
SETTLED_SECONDS_MAX: Final = 90.0
LOOK_SECONDS: Final = 0.5
EXPECTED: Final = frozenset(
    # What the rules may well say to somebody who did nothing wrong but was hindered, or was late.
    {"hold_expired", "payment_over", "bill_closed", "bill_paid", "already_cancelled", "slot_full"}
    | {"not_booked", "no_such_appointment"}
)


@dataclass(slots=True)
class Life:
    kind: str
    person: Person
    began: float = 0.0
    appointment: str = ""
    paid: list[str] = field(default_factory=list)  # orders
    cancelled: bool = False  # and it was answered so
    rival_has_it: bool = False
    forged: bool = False

    @property
    def patient(self) -> str:
        return self.person.patient_ids[0]


@dataclass(slots=True)
class Living:
    asking: Asking
    there: Sandboxes
    session: aiohttp.ClientSession
    hold_seconds: float
    rng: random.Random
    slots: list[str]
    narrow: list[str]  # of one seat each, for those who meet a rival
    forged_share: float
    lost_answers_share: float
    lives: list[Life] = field(default_factory=list)

    async def live(self, kind: str, person: Person, rival: Person | None) -> None:
        life = Life(kind, person, time.time())
        self.lives.append(life)
        if self.rng.random() < self.lost_answers_share:
            self.there.lose_an_answer()
        slot = self.narrow.pop() if rival is not None else self.rng.choice(self.slots)
        held = await self._ask(
            life, "hold", "POST", "appointments", {"slot_id": slot, "patient_id": life.patient}
        )
        if held.status != 201:
            return
        held_until = time.time() + self.hold_seconds
        life.appointment = held.body["id"]
        provider = WECHAT_PAY if self.rng.random() < WECHAT_SHARE else ALIPAY
        begun = [await self._begin(life, provider)]
        if kind == "twice":
            begun.append(await self._begin(life, ALIPAY if provider == WECHAT_PAY else WECHAT_PAY))
        orders = [(name, order) for name, order in begun if order]
        if not orders:
            return
        if self.rng.random() < self.forged_share or (kind == "abandoned" and self.rng.random() < 0.3):
            life.forged = True
            await self.there.forge(self.session, *orders[0], self.asking.address)
        await asyncio.sleep(self.rng.uniform(*THINKS_SECONDS))
        if kind == "abandoned":
            return
        if kind.startswith("late"):
            if not self.there.paying(*orders[0]):
                return
            await asyncio.sleep(max(0.0, held_until - time.time()) + self.rng.uniform(*LATE_SECONDS))
            if rival is not None:
                life.rival_has_it = await self._taken(rival, slot)
        for one in orders:
            if self.there.pay(*one):
                life.paid.append(one[1])
        if not life.paid:
            return
        if kind == "cancelled":
            await self._cancel(life)
        elif self.rng.random() < CHECK_SHARE:
            await self._check(life, life.paid[0])

    async def _begin(self, life: Life, provider: str) -> tuple[str, str]:
        """The provider and its order; '': it did not begin."""
        said = await self._ask(
            life, "pay", "POST", f"bills/{life.appointment}/payments", {"provider": provider}
        )
        if said.status != 201 or said.body.get("status") != "waiting":
            return provider, ""
        order = str(said.body["payment_id"]).replace("-", "")
        if provider == ALIPAY:
            try:
                async with self.session.get(said.body["pay_page"], allow_redirects=False) as page:
                    if page.status != 302:
                        return provider, ""
            except (aiohttp.ClientError, TimeoutError, OSError):
                return provider, ""
        return provider, order

    async def _taken(self, rival: Person, slot: str) -> bool:
        """Somebody else has the seat for good, as soon as it is given up."""
        body = {"slot_id": slot, "patient_id": rival.patient_ids[0]}
        ends = time.monotonic() + SETTLED_SECONDS_MAX
        while time.monotonic() < ends:
            held = await self._of(rival, "rival", "POST", "appointments", body)
            if held.status == 201:
                path = f"bills/{held.body['id']}/payments"
                said = await self._of(rival, "rival", "POST", path, {"provider": "at_hospital"})
                return said.status == 201
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def _check(self, life: Life, order: str) -> None:
        payment = f"{order[:8]}-{order[8:12]}-{order[12:16]}-{order[16:20]}-{order[20:]}"
        await asyncio.sleep(self.rng.uniform(*THINKS_SECONDS))
        await self._ask(life, "check", "POST", f"bills/{life.appointment}/payments/{payment}/check")

    async def _cancel(self, life: Life) -> None:
        ends = time.monotonic() + SETTLED_SECONDS_MAX
        while time.monotonic() < ends:
            seen = await self._ask(life, "bill", "GET", f"bills/{life.appointment}")
            if seen.status == 200 and seen.body["status"] == "settled":
                number = seen.body["appointment_id"]  # another one, where he had paid late
                said = await self._ask(life, "cancel", "POST", f"appointments/{number}/cancel")
                life.cancelled = said.status == 200
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask(self, life: Life, kind: str, method: str, path: str, body: Any = None) -> Said:
        return await self._of(life.person, kind, method, path, body)

    async def _of(self, person: Person, kind: str, method: str, path: str, body: Any = None) -> Said:
        key = str(uuid4()) if method == "POST" else None
        return await self.asking.ask(kind, person.token, method, f"/api/v1/{path}", body, key)


def drawn(rng: random.Random, payments: int) -> list[str]:
    """Kinds of so many people, in their shares to the head, in any order."""
    whole = sum(KINDS.values())
    kinds = [kind for kind, share in KINDS.items() for _ in range(payments * share // whole)]
    kinds += ["plain"] * (payments - len(kinds))
    rng.shuffle(kinds)
    return kinds
