"""Consulting rooms and queues: who calls where, from which queues; pauses, leaving, emergency button."""

from collections.abc import Sequence
from typing import Final, cast

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.refusal import Reason
from engine.domain.room_plan import GENERAL
from web import keys
from web.auth import Staff
from web.desk.schedules import now_ms
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import Request
from web.queues import queue_bodies as bodies
from web.queues.rights import duties, must_act_in_room, must_run, runs, works_in
from web.queues.steps import REFUSED, Step, board_version, expected, ms_of, must_know, step

_OF_ROOM: Final[list[Reason | Fault]] = [Reason.ROOM_NOT_OPEN, *REFUSED]


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/rooms/{room_id}/open",
    zh="开诊或恢复",
    tags=["queues"],
    errors=[
        Fault.NO_SUCH_ROOM,
        Fault.NO_SUCH_PRACTITIONER,
        Reason.NO_SUCH_QUEUE,
        Reason.ROOM_IN_USE,
        Reason.PRACTITIONER_ELSEWHERE,
        *REFUSED,
    ],
)
async def open_room(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueRoomPath,
    query: bodies.ActingQuery,
    body: bodies.OpenRoomBody,
) -> bodies.RoomStepAnswer:
    """Somebody begins or goes on to see people here. One room may call from several queues, and several rooms
    from one. A room that was paused goes on with its queues."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    rooms = asked.app[keys.AVAILABILITY].catalog.rooms
    if rooms and path.room_id not in rooms:
        raise Problem(Fault.NO_SUCH_ROOM, room=path.room_id)
    room = (await asked.app[keys.ROOMS].look(asked.key)).room
    who = _who_opens(asked, body, room.rooms.get(path.room_id))
    queues = body.queues if body.queues is not None else _usual_queues(room, path.room_id, who)
    _must_share(asked, room, who, queues)
    command = w.OpenRoom(
        asked.command_id, path.room_id, tuple(queues), who, asked.by, expected(body.expected_version)
    )
    return await _told(asked, path.room_id, "open", body, command, w.OPEN)


def _who_opens(asked: Step, body: bodies.OpenRoomBody, place: w.Room | None) -> str:
    """The practitioner, or "" for a desk. Raises Problem."""
    app, staff, key = asked.app, asked.staff, asked.key
    given = must_know(app, body.practitioner_id)
    if runs(staff, key.department_id, app[keys.AVAILABILITY].catalog.departments):
        if body.practitioner_id is None and place is not None and place.status != w.CLOSED:
            return place.practitioner_id
        return given or staff.practitioner_id or ""
    if not works_in(app, staff, key) or given not in ("", staff.practitioner_id):
        raise Problem(Fault.FORBIDDEN)
    return staff.practitioner_id or ""


def _usual_queues(room: w.WaitingRoom, room_id: str, who: str) -> Sequence[str]:
    """As before, where the same one goes on; else the practitioner's own queue, then the general one."""
    place = room.rooms.get(room_id)
    if place is not None and place.status != w.CLOSED and place.practitioner_id == who:
        return place.queues
    own = [queue.queue_id for queue in room.queues.values() if who and queue.practitioner_id == who]
    return [*own, GENERAL]


def _must_share(asked: Step, room: w.WaitingRoom, who: str, queues: Sequence[str]) -> None:
    """A doctor takes nobody else's patients by herself; whoever runs the waiting room may arrange that."""
    if runs(asked.staff, asked.key.department_id, asked.app[keys.AVAILABILITY].catalog.departments):
        return
    for queue_id in queues:
        queue = room.queues.get(queue_id)
        if queue is not None and queue.practitioner_id not in ("", who):
            raise Problem(Fault.FORBIDDEN)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/rooms/{room_id}/pause",
    zh="暂停叫号",
    tags=["queues"],
    errors=_OF_ROOM,
)
async def pause_room(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueRoomPath,
    query: bodies.ActingQuery,
    body: bodies.PauseRoomBody,
) -> bodies.RoomStepAnswer:
    """Calls nobody until it is opened again. Who waits goes on waiting."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    await must_act_in_room(asked.app, staff, asked.key, path.room_id, asked.command_id)
    version = expected(body.expected_version)
    command = w.PauseRoom(asked.command_id, path.room_id, asked.by, body.reason, version)
    return await _told(asked, path.room_id, "pause", body, command, w.PAUSED)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/rooms/{room_id}/close",
    zh="结束出诊",
    tags=["queues"],
    errors=[
        Reason.NO_SUCH_QUEUE,
        Reason.ROOM_BUSY,
        Reason.PEOPLE_WAIT,
        Fault.NO_SUCH_PRACTITIONER,
        *_OF_ROOM,
    ],
)
async def close_room(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueRoomPath,
    query: bodies.ActingQuery,
    body: bodies.CloseRoomBody,
) -> bodies.RoomStepAnswer:
    """The practitioner leaves. Who waits for nobody else goes where it is said, or by the department's rule:
    to anybody who serves the queue, or keeps waiting; or `people_wait`, and somebody says."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    await must_act_in_room(asked.app, staff, asked.key, path.room_id, asked.command_id)
    until = ms_of(body.until)
    if body.until is None:
        place = (await asked.app[keys.ROOMS].look(asked.key)).room.rooms.get(path.room_id)
        until = 0 if place is None else session_end(asked.app, asked.key, place.practitioner_id, now_ms())
    command = w.CloseRoom(
        asked.command_id,
        path.room_id,
        asked.by,
        body.reason,
        expected(body.expected_version),
        body.to_queue or "",
        must_know(asked.app, body.to_practitioner),
        body.keeps,
        until,
    )
    return await _told(asked, path.room_id, "close", body, command, w.CLOSED)


def session_end(app: web.Application, key: RoomKey, practitioner_id: str, now: int) -> int:
    """When the session ends (ms) that this practitioner began last, or will begin first. 0: there is none."""
    mine = duties(app, key, practitioner_id)
    begun = [duty for duty in mine if duty.starts_at <= now]
    return next((duty.ends_at for duty in [*reversed(begun), *mine]), 0)


@api.route(
    "POST",
    "/api/v1/queues/{department_id}/rooms/{room_id}/alarm",
    zh="紧急求助",
    tags=["queues"],
    errors=_OF_ROOM,
)
async def sound_alarm(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueueRoomPath,
    query: bodies.ActingQuery,
    body: bodies.AlarmBody,
) -> bodies.RoomStepAnswer:
    """The emergency button of a room, and its end. Whoever works in this department may press it anywhere."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    if not works_in(asked.app, staff, asked.key):
        must_run(asked.app, staff, asked.key)
    command = w.SoundAlarm(asked.command_id, path.room_id, asked.by, body.on, body.note)
    told = await asked.ask("alarm", path.room_id, body, command)
    seen_from = await board_version(asked, told)
    return bodies.RoomStepAnswer(told.room_id, None, body.on, told.room_version, seen_from)


async def _told(
    asked: Step, room_id: str, verb: str, body: Request, command: w.OfRoom, status: str
) -> bodies.RoomStepAnswer:
    told = await asked.ask(verb, room_id, body, command)
    word, seen_from = cast(bodies.RoomStatusWord, status), await board_version(asked, told)
    return bodies.RoomStepAnswer(told.room_id, word, None, told.room_version, seen_from)


@api.route(
    "PUT",
    "/api/v1/queues/{department_id}/queues/{queue_id}",
    zh="设置队列和号段",
    tags=["queues"],
    errors=[Reason.NUMBERS_OVERLAP, Reason.TOO_LARGE, Fault.NO_SUCH_PRACTITIONER, *REFUSED],
)
async def set_queue(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: bodies.QueuePath,
    query: bodies.ActingQuery,
    body: bodies.QueueBody,
) -> bodies.QueueSetAnswer:
    """A queue of this day, or other numbers or another practitioner for one that there is. Numbers that were
    given out stay as they are."""
    asked = step(request, staff, idempotency_key, path.department_id, query)
    must_run(asked.app, staff, asked.key)
    practitioner_id = must_know(asked.app, body.practitioner_id)
    command = w.SetQueue(
        asked.command_id,
        path.queue_id,
        body.kind,
        body.prefix,
        body.first,
        body.last,
        practitioner_id,
        asked.by,
    )
    told = await asked.ask("set-queue", path.queue_id, body, command)
    return bodies.QueueSetAnswer(
        path.queue_id,
        body.kind,
        body.prefix,
        body.first,
        body.last,
        practitioner_id or None,
        await board_version(asked, told),
    )
