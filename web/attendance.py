"""Who did not come: where the hospital's policy says so, a booked number whose time is long over."""

import asyncio
import logging
from typing import Final

from aiohttp import web

from actors.shard import SYSTEM
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX, SLOT_MINUTES
from engine.records.appointments import not_come
from web import keys

log = logging.getLogger(__name__)

AT_A_TIME: Final = 200


async def mark_no_shows(app: web.Application) -> None:
    """One round. Whoever cannot be marked now is found again by the next."""
    after = app[keys.POLICY].policy.no_show_after_minutes
    if after is None:
        return
    missing = await not_come(app[keys.POOL], SLOT_MINUTES + after, AT_A_TIME)
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    directory = app[keys.DIRECTORY]
    answers = [
        directory.ask(key.stream, s.RecordAttendance(id_, s.Status.NOSHOW, SYSTEM), deadline)
        for id_, schedule_id in missing
        if (key := ScheduleKey.of_schedule(schedule_id)) is not None
    ]
    for outcome in await asyncio.gather(*answers):
        if not isinstance(outcome, s.Answer):
            log.warning("a no-show could not be marked yet: %s", outcome)
