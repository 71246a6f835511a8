"""What a waiting room and a practitioner's day tell each other of a booked patient.

Both are errands: written in the transaction of what happened, done at least once, harmless when done twice.
"""

import asyncio
import logging
from typing import Any

from aiohttp import web

from actors.directory import Outcome
from actors.errands import Handle, TryAgain
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.by import SYSTEM
from engine.domain.ids import RoomKey, ScheduleKey, derived, ticket_id
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.messages import Command
from engine.domain.refusal import Reason, Refusal
from engine.records import appointments as records
from web import keys

log = logging.getLogger(__name__)

SETTLED = (
    Reason.WRONG_STATE,
    Reason.NO_SUCH_APPOINTMENT,
    Reason.NO_SUCH_TICKET,
    Reason.WRONG_STATUS,
    Reason.SESSION_SUSPENDED,
    Reason.SLOT_FULL,
    Reason.ALREADY_BOOKED,
)
"""Refusals after which there is nothing left to do: it was cancelled, seen or left already; the session was
called off; or it had been given up as a no-show, and somebody else has the seat by now."""


class Attending:
    """Handles the errands `attendance` and `leave_ticket`."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    def handlers(self) -> dict[str, Handle]:
        return {"attendance": self.attendance, "leave_ticket": self.leave_ticket}

    async def attendance(self, key: str, data: dict[str, Any]) -> None:
        """`key` is an appointment whose patient has checked in, or was seen."""
        found = await records.any_appointment(self._app[keys.POOL], self._app[keys.VAULT], bytes.fromhex(key))
        if found is None:
            log.error("a ticket was issued for %s, which is no appointment", key)
            return
        schedule = ScheduleKey.of_schedule(found.schedule_id)
        assert schedule is not None
        status, by = data["status"], data["by"] or SYSTEM
        outcome = await self._tell(schedule.stream, s.RecordAttendance(found.id, status, by))
        if not isinstance(outcome, Refusal):
            return
        if status == s.Status.ARRIVED:
            await self._given_up(found.id, RoomKey(found.department_id, schedule.day))
        elif outcome.detail.get("status") == s.Status.NOSHOW:
            # Given up as absent before anybody heard that he had come: first he came, and then he was seen.
            await self._tell(schedule.stream, s.RecordAttendance(found.id, s.Status.ARRIVED, by))
            await self._tell(schedule.stream, s.RecordAttendance(found.id, status, by))

    async def _given_up(self, appointment_id: bytes, room: RoomKey) -> None:
        """Cancelled between the check-in and our telling of it: whoever cancelled knew of no ticket."""
        found = await records.any_appointment(self._app[keys.POOL], self._app[keys.VAULT], appointment_id)
        if found is not None and found.status == s.Status.CANCELLED:
            await self.leave_ticket(appointment_id.hex(), {"room": room.stream})

    async def leave_ticket(self, key: str, data: dict[str, Any]) -> None:
        """`key` is an appointment that was cancelled after its patient had checked in."""
        appointment_id = bytes.fromhex(key)
        command_id = derived(b"leave", appointment_id)
        command = w.LeaveTicket(command_id, ticket_id(appointment_id), SYSTEM, "cancelled")
        await self._tell(RoomKey.of_stream(data["room"]).stream, command)

    async def _tell(self, stream: str, command: Command) -> Outcome:
        deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
        outcome: Outcome = await self._app[keys.DIRECTORY].ask(stream, command, deadline)
        if isinstance(outcome, Refusal) and outcome.reason not in SETTLED:
            raise TryAgain(f"{type(command).__name__}: {outcome.reason}")
        if not isinstance(outcome, Refusal | s.Answer | w.Told):
            raise TryAgain(f"{type(command).__name__}: the outcome is unknown")
        return outcome
