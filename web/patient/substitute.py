"""替诊: whoever is booked says whether the substitute will do."""

import asyncio
from typing import Annotated

from aiohttp import web
from pydantic import Field

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.refusal import Reason
from web import keys
from web.openapi import api
from web.patient.appointments import OVERLOAD, WORDS, answered, find, uuid
from web.patient.bodies import ChangedAnswer, IdPath, Request


class SubstituteAnswerBody(Request):
    accepted: Annotated[bool, Field(description="同意或不同意 / whether they agree")]


@api.route(
    "POST",
    "/api/v1/appointments/{id}/substitute",
    zh="是否同意替诊",
    tags=["appointments"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.NO_SUBSTITUTE,
        Reason.WRONG_STATE,
        Reason.SLOT_PAST,
        *OVERLOAD,
    ],
)
async def answer_substitute(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: SubstituteAnswerBody
) -> ChangedAnswer:
    """Agrees to the substitute, or declines: the number is then given back, whatever the cut-off says."""
    found = await find(request.app, path.id, account_id)
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    command = s.AnswerSubstitute(found.id, account_id, body.accepted)
    answer = answered(await request.app[keys.DIRECTORY].ask(key.stream, command, deadline))
    return ChangedAnswer(uuid(found.id), WORDS[answer.status], answer.number, found.slot_id)
