"""停诊: everybody whose session was called off is looked after, one by one, in the policy's order.

The engine marks each booked number as `affected` and writes an errand for it, in the transaction that calls
the session off. Here each of them comes to exactly one fate:

    moved        another number was booked for it, and the old one given up
    offered      another number is held for the patient, who takes it or leaves it
    waitlisted   it is owed back, and the patient comes first on the waiting list
    refunded     it is owed back

The actor decides each fate once; whoever comes second finds it decided. An offer that is left comes back here
as the errand `change_ended`, and goes on with the fates after it.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from aiohttp import web

from actors.changes import ms
from actors.directory import Outcome
from actors.errands import Handle, TryAgain
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import ScheduleKey, derived
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.policy import Fate
from engine.domain.refusal import Reason, Refusal
from engine.records import appointments as records
from engine.records.appointments import AppointmentRecord
from engine.views.availability import OpenSlot
from web import keys

PLACES_MAX: Final = 40  # other slots that are looked at for one patient
_DAY_MS: Final = 86_400_000


class Rehoming:
    """Handles the errands `rehome` and `change_ended`."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    def handlers(self) -> dict[str, Handle]:
        return {"rehome": self.rehome, "change_ended": self.change_ended}

    async def rehome(self, key: str, data: dict[str, Any]) -> None:
        """`key` is the affected appointment."""
        old = await records.any_appointment(self._app[keys.POOL], self._app[keys.VAULT], bytes.fromhex(key))
        if old is None or old.fate != s.AFFECTED or old.status != s.Status.BOOKED:
            return
        order = self._app[keys.POLICY].policy.suspension.order
        await self._look_after(old, order)

    async def change_ended(self, key: str, data: dict[str, Any]) -> None:
        """An offer was left, or its time is over: what comes after an offer is tried."""
        old = await records.any_appointment(
            self._app[keys.POOL], self._app[keys.VAULT], bytes.fromhex(data["of"])
        )
        if old is None or old.fate != Fate.OFFERED or old.successor != bytes.fromhex(key):
            return
        order = self._app[keys.POLICY].policy.suspension.order
        after = order[order.index(Fate.OFFERED) + 1 :] if Fate.OFFERED in order else ()
        await self._look_after(old, after)

    async def _look_after(self, old: AppointmentRecord, order: tuple[Fate, ...]) -> None:
        """The first fate that can be had; what is owed back can always be."""
        for fate in order:
            match fate:
                case Fate.MOVED:
                    done = await self._move(old)
                case Fate.OFFERED:
                    done = await self._offer(old)
                case Fate.WAITLISTED:
                    done = await self._waitlist(old)
                case Fate.REFUNDED:
                    break
            if done:
                return
        await self._decide(old, Fate.REFUNDED, b"")

    async def _move(self, old: AppointmentRecord) -> bool:
        """Only to the same day: another day nobody can choose for somebody."""
        for slot in self._places(old):
            if slot.row.key.day != _key(old).day:
                continue
            new_id = derived(b"moved", old.id, slot.slot_id.encode())
            outcome = await self._app[keys.CHANGES].change(
                old, slot.row.key, slot.clock, new_id, slot.session.department_id, slot.starts_at, SYSTEM
            )
            if _was_had(outcome):
                return True
        return False

    async def _offer(self, old: AppointmentRecord) -> bool:
        held = await records.held_in_place_of(self._app[keys.POOL], self._app[keys.VAULT], old.id)
        if held is not None:  # by a try before this one
            await self._decide(old, Fate.OFFERED, held.id)
            return True
        seconds = self._app[keys.POLICY].policy.suspension.offer_seconds
        for slot in self._places(old):
            new_id = derived(b"rehomed", old.id, slot.slot_id.encode())
            outcome = await self._app[keys.CHANGES].hold(
                old, slot.row.key, slot.clock, new_id, seconds, SYSTEM
            )
            if _was_had(outcome):
                await self._decide(old, Fate.OFFERED, new_id)
                return True
        return False

    async def _waitlist(self, old: AppointmentRecord) -> bool:
        """First on the waiting list of the same doctor."""
        wish_id = await self._app[keys.WISHES].make_for(old)
        if wish_id is None:
            return False
        await self._decide(old, Fate.WAITLISTED, wish_id)
        return True

    def _places(self, old: AppointmentRecord) -> Iterator[OpenSlot]:
        """Other slots that would do, best first: see Availability.alternatives."""
        days_max = self._app[keys.POLICY].policy.suspension.days_max
        starts_at = ms(old.starts_at)
        for slot in self._app[keys.AVAILABILITY].alternatives(
            old.slot_id, int(time.time() * 1000), PLACES_MAX
        ):
            if abs(slot.starts_at - starts_at) <= days_max * _DAY_MS:
                yield slot

    async def _decide(self, old: AppointmentRecord, fate: Fate, successor: bytes) -> None:
        deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
        command = s.DecideFate(old.id, fate.value, successor)
        outcome = await self._app[keys.DIRECTORY].ask(_key(old).stream, command, deadline)
        if isinstance(outcome, s.Answer):
            return
        if isinstance(outcome, Refusal) and outcome.reason in (Reason.FATE_DECIDED, Reason.NOT_SUSPENDED):
            return
        raise TryAgain(f"{UUID(bytes=old.id)} could not be {fate}: {outcome}")


def _key(of: AppointmentRecord) -> ScheduleKey:
    key = ScheduleKey.of_schedule(of.schedule_id)
    assert key is not None
    return key


def _was_had(outcome: Outcome) -> bool:
    """Whether the place is theirs; False: try the next one. Raises TryAgain while nobody knows."""
    if isinstance(outcome, s.Answer):
        return outcome.status in (s.Status.PENDING, s.Status.BOOKED)
    if isinstance(outcome, Refusal) and outcome.reason not in (Reason.BUSY, Reason.TOO_LATE, Reason.AWAY):
        return False
    raise TryAgain(f"no answer yet: {outcome}")
