"""改签: a booked number is given up for another one, on any day of any doctor: never both, never none.

Three commands to two actors. The new number is held (`replaces`); the old one is left for it; the new one is
booked. The second is the point of no return: its transaction writes a claim, and whoever would give the
change up must be the first to write that claim. So any of the three may be asked again by anybody, and when
nobody does, the actor of the new number finds out by itself what became of the change.
"""

import asyncio
from datetime import datetime

from actors.directory import Directory, Outcome
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Reason, Refusal
from engine.records.appointments import AppointmentRecord

HOLD_SECONDS = 60  # between the first step and the last


class Changes:
    """Takes the steps. What it gives speaks of the new number; after Unknown ask again with the same ids."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def change(
        self,
        old: AppointmentRecord,
        to: ScheduleKey,
        clock: str,
        new_id: bytes,
        to_department: str,
        to_starts_at: int,
        by: str = "",
        channel: int | None = None,
    ) -> Outcome:
        """All three steps. `channel`: None: the one through which the old number was booked."""
        held = await self.hold(old, to, clock, new_id, HOLD_SECONDS, by, channel)
        if not isinstance(held, s.Answer) or held.status == s.Status.BOOKED:
            return held
        if held.status != s.Status.PENDING:
            return Refusal(Reason.CHANGE_GIVEN_UP)
        return await self.accept(old, to, new_id, to_department, to_starts_at, by)

    async def hold(
        self,
        old: AppointmentRecord,
        to: ScheduleKey,
        clock: str,
        new_id: bytes,
        seconds: int,
        by: str = "",
        channel: int | None = None,
    ) -> Outcome:
        """The first step. By itself it is an offer: nothing is given up yet."""
        return await self._ask(
            to,
            s.HoldSeat(
                new_id,
                clock,
                old.patient_id,
                old.account_id,
                seconds,
                old.channel if channel is None else channel,
                by=by,
                replaces=old.id,
                changes=old.changes + 1,
            ),
        )

    async def accept(
        self,
        old: AppointmentRecord,
        to: ScheduleKey,
        new_id: bytes,
        to_department: str,
        to_starts_at: int,
        by: str = "",
    ) -> Outcome:
        """The second and the third step, for a number that is held."""
        here = ScheduleKey.of_schedule(old.schedule_id)
        assert here is not None
        left = await self._ask(
            here,
            s.LeaveFor(old.id, new_id, old.account_id, to_department, here.day == to.day, to_starts_at, by),
        )
        if isinstance(left, Refusal):
            if left.reason not in (Reason.BUSY, Reason.TOO_LATE, Reason.AWAY):
                await self._ask(to, s.CancelAppointment(new_id, old.account_id, SYSTEM))
            return left
        if not isinstance(left, s.Answer):
            return left
        return await self._ask(to, s.SettleChange(new_id, False))

    async def _ask(self, key: ScheduleKey, command: s.Command) -> Outcome:
        deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
        return await self._directory.ask(key.stream, command, deadline)


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
