"""How a console's request becomes a command: whose it is, which key it came with, and what it is told.

Idempotency-Key makes the command's id, and the actor keeps the first answer to every id. So whoever repeats a
request hears what he would have heard at first, and nobody is called twice.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final, cast

import orjson
from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.by import by_staff
from engine.domain.ids import RoomKey
from engine.domain.refusal import Reason
from engine.journal.room_steps import written_by
from engine.records.day_people import patient_names
from web import keys
from web.auth import Staff
from web.desk.schedules import take_key
from web.errors import Problem, language_of
from web.faults import Fault
from web.patient.appointments import OVERLOAD, uuid
from web.patient.bodies import Request
from web.queues import queue_bodies as bodies
from web.queues.asking import ask_room, command_id
from web.queues.place_names import lane_text, room_name
from web.queues.rights import TicketCommand, acting_key, must_act_on_ticket

REFUSED: Final[list[Reason | Fault]] = [
    Fault.NO_SUCH_DEPARTMENT,
    Fault.NOT_TODAY,
    Reason.NO_SUCH_WAITING_ROOM,
    Reason.KEY_REUSED,
    Reason.STALE_VERSION,
    *OVERLOAD,
]
OF_TICKET: Final[list[Reason | Fault]] = [Reason.NO_SUCH_TICKET, Reason.WRONG_STATUS, *REFUSED]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that one of the staff wants done in one waiting room."""

    request: web.Request
    staff: Staff
    idempotency_key: str
    key: RoomKey
    day: date | None  # as it was said

    @property
    def app(self) -> web.Application:
        return self.request.app

    @property
    def command_id(self) -> bytes:
        return command_id(self.staff.id, self.idempotency_key)

    @property
    def by(self) -> str:
        return by_staff(self.staff.id)

    async def ask(self, verb: str, about: str, body: Request, command: w.Command) -> w.Told:
        """Raises Problem: refused, overloaded, unknown, or the key belongs to another request."""
        told = orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS).decode()
        asked = ("queue", verb, self.key.department_id, str(self.day), about, told)
        await take_key(self.app, self.staff, self.idempotency_key, asked)
        return await ask_room(self.app, self.key, command)


def step(
    request: web.Request, staff: Staff, idempotency_key: str, department_id: str, query: bodies.ActingQuery
) -> Step:
    """Raises Problem where there is no such waiting room, or none to act in."""
    key = acting_key(request.app, department_id, query.day)
    return Step(request, staff, idempotency_key, key, query.day)


async def with_ticket(
    asked: Step, path: bodies.QueueTicketPath, verb: str, body: Request, command: TicketCommand
) -> bodies.TicketStepAnswer:
    """One step of one ticket. Raises Problem.

    For a doctor the ticket must be hers at the very version that is acted on: it may just have been called to
    another room. Where she names no version, that is what `bound_to` says, and it is asked once more."""
    ticket_id = path.ticket_id.bytes
    for tries_left in (1, 0):
        bound = await bound_to(asked, command, fresh=not tries_left)
        try:
            told = await asked.ask(verb, ticket_id.hex(), body, bound)
        except Problem as problem:
            if problem.code is Reason.STALE_VERSION and bound is not command and tries_left:
                continue
            raise
        break
    return await ticket_answer(asked, told)


async def bound_to(asked: Step, command: TicketCommand, *, fresh: bool) -> TicketCommand:
    """The command, of the version at which the ticket is theirs. Raises Problem where it is not."""
    version = await must_act_on_ticket(asked.app, asked.staff, asked.key, command, fresh=fresh)
    if version is None or isinstance(command, w.ReturnTicket) or command.expected != -1:
        return command
    return replace(command, expected=version)


async def ticket_answer(asked: Step, told: w.Told) -> bodies.TicketStepAnswer:
    """As it was right after the command."""
    app = asked.app
    async with app[keys.POOL].acquire() as connection:
        names = await patient_names(connection, app[keys.VAULT], [told.patient_id])
        written = await written_by(connection, asked.key, asked.command_id, told.seen)
    why = None
    if written is not None and isinstance(written.event, w.TicketCalled):
        call = written.event
        language = language_of(asked.request.headers.get("Accept-Language"))
        text = lane_text(call.lane, language)
        why = bodies.CalledWhyAnswer(call.lane, text, call.out_of_turn, call.reason or None)
    return bodies.TicketStepAnswer(
        uuid(told.ticket_id),
        told.label,
        uuid(told.patient_id),
        names.get(told.patient_id, ""),
        cast(bodies.TicketStatusWord, w.Status(told.status).name.lower()),
        told.version,
        told.room_id or None,
        room_name(app, told.room_id) if told.room_id else None,
        told.room_version if told.room_id else None,
        why,
        0 if written is None else written.version,
    )


async def board_version(asked: Step, told: w.Told) -> int:
    """From which version on a board shows what was done."""
    async with asked.app[keys.POOL].acquire() as connection:
        written = await written_by(connection, asked.key, asked.command_id, told.seen)
    return 0 if written is None else written.version


def expected(version: int | None) -> int:
    return -1 if version is None else version


def ms_of(at: datetime | None) -> int:
    """0: none was said."""
    return 0 if at is None else int(at.astimezone(UTC).timestamp() * 1000)


def must_know(app: web.Application, practitioner_id: str | None) -> str:
    """The practitioner, or "" where none was named. Raises Problem."""
    if practitioner_id is not None and practitioner_id not in app[keys.AVAILABILITY].catalog.practitioners:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    return practitioner_id or ""
