"""Hospitals without check-in: booked numbers wait by themselves from the moment when one could check in.

A round that one gateway makes at a time. The command's id is derived from the number, so it is done once.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.by import SYSTEM
from engine.domain.ids import derived
from engine.records.arrivals import unattended
from web import keys
from web.errors import Problem
from web.queues.check_in import Arriving, check_in

log = logging.getLogger(__name__)

ARRIVALS_SECONDS: Final = 10.0  # between two rounds
AT_A_TIME: Final = 200
MISSED_MINUTES_MAX: Final = 60  # after a halt of the whole system: older ones ask at the desk
EARLY_MINUTES_MAX: Final = 24 * 60  # where the rules let people come at any time


async def wait_by_themselves(app: web.Application) -> None:
    """Every booked number of today whose time is near, where nobody has to check in."""
    policy = app[keys.POLICY].policy
    departments = {
        department_id: rules.early_minutes
        for department_id in app[keys.AVAILABILITY].catalog.departments
        if not (rules := policy.waiting_of(department_id).rules).signs_in
    }
    if not departments:
        return
    now = datetime.now(UTC)
    for department_id, early in departments.items():
        midnight = now.astimezone(app[keys.ZONE]).replace(hour=0, minute=0, second=0) + timedelta(days=1)
        until = min(now + timedelta(minutes=EARLY_MINUTES_MAX if early is None else early), midnight)
        first = now - timedelta(minutes=MISSED_MINUTES_MAX)
        left = await unattended(app[keys.POOL], app[keys.VAULT], department_id, first, until, AT_A_TIME)
        for booked in left:
            arriving = Arriving(derived(b"arrive", booked.id), w.Where.NOBODY, 0, SYSTEM)
            try:
                await check_in(app, booked, arriving)
            except Problem as problem:
                # The next round finds it again: unless it was cancelled meanwhile, or its session is over.
                log.info("appointment %s does not wait by itself: %s", booked.id.hex(), problem.code)
