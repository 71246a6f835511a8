"""What became of an appointment: when, what, by whom and why."""

from aiohttp import web

from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason
from engine.journal.streams import read_stream
from engine.records import appointments as records
from engine.views.history import of_appointment
from web import keys
from web.auditing import noted_delegation
from web.desk.history import line_answer
from web.desk.schedule_bodies import HistoryAnswer
from web.errors import Problem, language_of
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IdPath


@api.route(
    "GET",
    "/api/v1/appointments/{id}/history",
    zh="预约的历史",
    tags=["appointments"],
    errors=[Reason.NO_SUCH_APPOINTMENT, Fault.DATABASE_DOWN],
)
async def read_appointment_history(request: web.Request, *, account_id: bytes, path: IdPath) -> HistoryAnswer:
    """Everything that happened to one number of this account, and to its session while it was held. Staff are
    not named. What came before or after a change is in the history of `replaces` and `successor`."""
    app = request.app
    found = await records.appointment(app[keys.POOL], app[keys.VAULT], path.id.bytes, account_id)
    key = None if found is None else ScheduleKey.of_schedule(found.schedule_id)
    if found is None or key is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    await noted_delegation(request, account_id, "appointment_read", [found.patient_id])
    async with app[keys.POOL].acquire() as connection:
        recorded = await read_stream(connection, key.stream)
    language = language_of(request.headers.get("Accept-Language"))
    lines = of_appointment(recorded, found.id)
    return HistoryAnswer([line_answer(line, language, app[keys.ZONE]) for line in lines], None)
