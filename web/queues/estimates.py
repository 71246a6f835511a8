"""How long a ticket still waits, as far as it can be told, and when who is not here yet must set out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.waiting_time import Estimate as Seconds
from engine.views.forecasting import why_none
from web import keys
from web.faults import Text
from web.queues.copies import Copy

MARGIN_MINUTES: Final = 10
"""Between being at the hospital and being called: to find the room, and to check in."""
OTHER_DAY: Final = "other_day"
NOT_EXPECTED: Final = "not_expected"

WHY_NONE: Final = {
    OTHER_DAY: Text("就诊当天才能预估", "Waiting times are told on the day of the visit"),
    NOT_EXPECTED: Text("该预约目前不在候诊之列", "This appointment is not one that is expected today"),
    "called": Text("已叫号，请前往诊室", "Called: please go to the room"),
    "not_waiting": Text("目前不在排队中", "Not waiting in a queue at the moment"),
    "no_room": Text("诊室尚未开诊或已停诊，暂无法预估", "No room is open that could call this number"),
}
"""By code: why no time is told."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Minutes from `told_at` until the call: sooner than p10 in one case of ten, later than p90 in one."""

    p10_minutes: int
    p50_minutes: int
    p90_minutes: int
    leave_home_at: datetime | None  # None: is here already, or nobody said how far it is
    told_at: datetime


def estimate_of(
    app: web.Application, copy: Copy, ticket_id: bytes, way_minutes: int | None = None
) -> Estimate | None:
    """None where nothing can be told: `why_no_estimate` says why. `way_minutes`: to the hospital; where it is
    not given, what was said at the appointment."""
    forecasts = app.get(keys.FORECASTS)
    told = None if forecasts is None else forecasts.of(copy, ticket_id)
    turn = None if told is None else told.tickets.get(ticket_id)
    if told is None or forecasts is None or turn is None:
        return None
    told_at = datetime.fromtimestamp(told.at / 1000, app[keys.ZONE])
    ticket = copy.room.tickets[ticket_id]
    leave_home_at = None
    if ticket.where == w.Where.MINI_PROGRAM:
        if way_minutes is None:
            way_minutes = forecasts.way_minutes(copy.key, ticket.appointment_id)
        if way_minutes is not None:
            here_at = told_at + timedelta(seconds=turn.estimate.p10_seconds)
            leave_home_at = max(told_at, here_at - timedelta(minutes=way_minutes + MARGIN_MINUTES))
    return Estimate(*minutes_of(turn.estimate), leave_home_at, told_at)


def minutes_of(estimate: Seconds) -> tuple[int, int, int]:
    """P10, P50 and P90 in whole minutes, rounded to the careful side."""
    return (
        int(estimate.p10_seconds // 60),
        round(estimate.p50_seconds / 60),
        ceil(estimate.p90_seconds / 60),
    )


def why_no_estimate(app: web.Application, copy: Copy, ticket_id: bytes) -> str:
    """A code of WHY_NONE, of a ticket without an estimate."""
    forecasts = app.get(keys.FORECASTS)
    if forecasts is not None and copy.key.day != forecasts.today():
        return OTHER_DAY
    return why_none(copy.room, ticket_id)
