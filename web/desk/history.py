"""Who changed a day, when and why, with everything that happened to its numbers."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Final, Literal
from uuid import UUID

from aiohttp import web

from engine.domain.by import staff_id_of
from engine.domain.refusal import Reason
from engine.records.change_requests import RequestStatus, requests
from engine.records.day_people import staff_names
from engine.views.history import SELF, WORDS, Line, history
from web import keys
from web.auditing import noted_reading
from web.auth import Staff
from web.desk.commands import session_command_id
from web.desk.day import must_manage, read_day
from web.desk.schedule_bodies import HistoryAnswer, HistoryLineAnswer, HistoryQuery
from web.desk.schedules import time_of
from web.errors import language_of
from web.faults import Fault, Language
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.bodies import WordPath

_IDS: Final = ("successor", "replaces")  # details that name another appointment
_REQUESTS_MAX: Final = 1_000  # approved changes of one day whose approver is named


@api.route(
    "GET",
    "/api/v1/desk/schedules/{id}/history",
    zh="排班变更历史",
    tags=["desk"],
    errors=[Reason.NO_SUCH_SCHEDULE, Fault.DATABASE_DOWN],
)
async def read_schedule_history(
    request: web.Request, *, staff: Staff, path: WordPath, query: HistoryQuery
) -> HistoryAnswer:
    """Every change of the day and of its numbers, in the order in which it happened: who, when and why."""
    app = request.app
    day = await read_day(app, path.id)
    must_manage(app, staff, day.practitioner.id, day.departments)
    lines = [line for line in history(day.recorded) if line.version > query.after]
    page = lines[: query.limit]
    told_of = (day.state.appointments.get(line.appointment_id or b"") for line in page)
    await noted_reading(
        request,
        "schedule_history_read",
        [one.patient_id for one in told_of if one is not None],
        object=("schedule", path.id),
    )
    async with app[keys.POOL].acquire() as connection:
        names = await staff_names(connection, staff_of(page))
        approved = await requests(connection, [RequestStatus.APPROVED], None, _REQUESTS_MAX, path.id)
    approvers: dict[bytes, str | None] = {}
    for one in approved:
        approvers[one.new.id] = one.decided_by_name
        for period in day.sessions:  # of a suspension, each session has a command of its own
            approvers[session_command_id(one.new.id, period)] = one.decided_by_name
    language = language_of(request.headers.get("Accept-Language"))
    zone = app[keys.ZONE]
    return HistoryAnswer(
        [line_answer(line, language, zone, names, approvers) for line in page],
        page[-1].version if len(lines) > query.limit else None,
    )


def staff_of(lines: Sequence[Line]) -> set[bytes]:
    return {staff_id for line in lines if (staff_id := staff_id_of(line.by)) is not None}


def line_answer(
    line: Line,
    language: Language,
    zone: tzinfo,
    names: dict[bytes, str] | None = None,
    approvers: dict[bytes, str | None] | None = None,
) -> HistoryLineAnswer:
    """Without `names`: for patients, who learn that it was staff, and not which of them."""
    by: Literal["self", "staff", "system"] = "system"
    name = None
    if line.by == SELF:
        by = "self"
    elif (staff_id := staff_id_of(line.by)) is not None:
        by = "staff"
        name = (names or {}).get(staff_id)
    details = {name: str(UUID(told)) if name in _IDS else told for name, told in line.details.items()}
    chinese, english = WORDS[line.what]
    text = (chinese if language == "zh" else english).format_map(_Details(line.details)).strip()
    return HistoryLineAnswer(
        time_of(line.at, zone),
        line.what,
        text,
        by,
        name,
        line.reason or None,
        line.note or None,
        (approvers or {}).get(line.command_id) if line.command_id else None,
        None if line.appointment_id is None else uuid(line.appointment_id),
        details,
    )


class _Details(dict[str, str]):
    """A detail that an old event does not have is left out of the words."""

    def __missing__(self, name: str) -> str:
        return ""
