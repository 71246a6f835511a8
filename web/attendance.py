"""Whether patients come: who was asked and did not answer, and who did not come.

Both are rounds that one gateway makes at a time. What they find, the actors decide; whoever cannot be reached
now is found again by the next round.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web

from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX, SLOT_MINUTES
from engine.records.appointments import AppointmentRecord, not_come, unanswered
from web import keys

log = logging.getLogger(__name__)

AT_A_TIME: Final = 200
LOOK_BACK_DAYS: Final = 3
"""How far back absences are marked: longer than a weekend without a server. Whoever turns the rule on does
not punish last year, when perhaps nobody noted who came."""


async def mark_no_shows(app: web.Application) -> None:
    """Where the policy says after how long: booked numbers whose time is over and who never arrived."""
    after = app[keys.POLICY].policy.no_show_after_minutes
    if after is None:
        return
    missing = await not_come(app[keys.POOL], SLOT_MINUTES + after, LOOK_BACK_DAYS, AT_A_TIME)
    await _ask(
        app, [(schedule_id, s.RecordAttendance(id_, s.Status.NOSHOW, SYSTEM)) for id_, schedule_id in missing]
    )


async def release_unconfirmed(app: web.Application) -> None:
    """Where the policy asks whether patients come: numbers of those who were asked and did not say so."""
    policy = app[keys.POLICY].policy
    asking = [terms.attendance.by_minutes for terms in policy.terms.values() if terms.attendance]
    if not asking:
        return
    now = datetime.now(UTC)
    due: list[tuple[str, s.Command]] = []
    for one in await unanswered(app[keys.POOL], max(asking)):
        terms = policy.terms_of(one.department_id, one.number_class_id).attendance
        if (
            terms is not None
            and one.starts_at - timedelta(minutes=terms.by_minutes) <= now
            and one.created_at < one.starts_at - timedelta(minutes=terms.asked_minutes)
        ):
            due.append((one.schedule_id, s.ReleaseUnconfirmed(one.id)))
    await _ask(app, due[:AT_A_TIME])


def attend_by(app: web.Application, found: AppointmentRecord) -> datetime | None:
    """Until when the patient should say that he will come; None where nobody asks, or he has said so."""
    terms = app[keys.POLICY].policy.terms_of(found.department_id, found.number_class_id).attendance
    if terms is None or found.status != s.Status.BOOKED or found.will_come or found.fate is not None:
        return None
    if found.created_at >= found.starts_at - timedelta(minutes=terms.asked_minutes):
        return None
    return found.starts_at - timedelta(minutes=terms.by_minutes)


async def _ask(app: web.Application, asked: list[tuple[str, s.Command]]) -> None:
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    answers = [
        app[keys.DIRECTORY].ask(key.stream, command, deadline)
        for schedule_id, command in asked
        if (key := ScheduleKey.of_schedule(schedule_id)) is not None
    ]
    for outcome in await asyncio.gather(*answers):
        if not isinstance(outcome, s.Answer):
            log.warning("attendance could not be settled yet: %s", outcome)
