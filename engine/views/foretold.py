"""What patients were foretold on a day that is over, and what came of it.

Nobody has to write down forecasts while the day goes on: they are a function of the waiting room's events and
of what was known that morning, so at night the day is played again and every forecast is made anew, exactly
as it was made then. Kept are those of each call (a turn has just come) and of every five minutes (in the
middle of turns): docs/WAITING_TIME.md says why both.

What came: the next call of that ticket. Whoever left, was put aside, was sent to another queue or was moved
or called by hand meanwhile is not judged: it was not the forecast that was wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.domain import waiting_room as w
from engine.domain.calibration import DISTANCE_MAX, Gathering, Score, score
from engine.domain.queue_order import Rules
from engine.domain.service_times import Visit
from engine.views.forecasting import Known, Turn, tell, visits_of

EVERY_MS: Final = 300_000
QUIET_MS: Final = 6 * 3_600_000
"""After so long without an event nobody is told anything: the room was left as it was."""
KEPT_MAX: Final = 100
"""Forecasts of one ticket that wait for their outcome: the first of a day of eight hours' five minutes."""

_BY_HAND: Final = (
    w.TicketCalled,  # out of turn
    w.TicketLeft,
    w.TicketParked,
    w.TicketTransferred,
    w.TicketMoved,
    w.StepUndone,
)


@dataclass(slots=True)
class Lived:
    """One department's day."""

    visits: list[Visit] = field(default_factory=list)
    gathered: Gathering = field(default_factory=Gathering)
    scores: dict[int, Score] = field(default_factory=dict)
    """By distance: turns ahead at each room, 1 to DISTANCE_MAX."""
    told: int = 0  # forecasts whose outcome is known


def relive(events: Iterable[w.Event], rules: Rules, known: Known) -> Lived:
    """`known`: as it was that morning. The rules are those of today; where they changed since, the order that
    is foretold is not quite the one that was."""
    lived, room = Lived(), w.WaitingRoom()
    waiting: dict[bytes, list[tuple[int, Turn]]] = {}
    tick = 0  # the next of the fixed moments; 0: nobody has come yet
    for event in events:
        at = event.at
        if tick and at - room.at > QUIET_MS:
            tick = at + EVERY_MS
        while 0 < tick <= at:
            _keep(waiting, tell(room, rules, tick, known).tickets, tick)
            tick += EVERY_MS
        if isinstance(event, w.TicketCalled) and not event.out_of_turn:
            _settle(lived, waiting.pop(event.ticket_id, []), at)
        elif isinstance(event, _BY_HAND):
            waiting.pop(event.ticket_id, None)
        w.apply(room, event)
        if isinstance(event, w.TicketCalled):
            _keep(waiting, tell(room, rules, at, known).tickets, at)
        if isinstance(event, w.TicketIssued) and not tick:
            tick = at + EVERY_MS // 2
    lived.visits = visits_of(room)
    return lived


def _keep(waiting: dict[bytes, list[tuple[int, Turn]]], told: Mapping[bytes, Turn], at: int) -> None:
    for ticket_id, turn in told.items():
        kept = waiting.setdefault(ticket_id, [])
        if len(kept) < KEPT_MAX:
            kept.append((at, turn))


def _settle(lived: Lived, kept: Iterable[tuple[int, Turn]], called_at: int) -> None:
    for at, turn in kept:
        waited = (called_at - at) / 1000
        if waited <= 0:
            continue
        forecast, said = turn.forecast, turn.estimate
        lived.gathered.add(forecast.distance, forecast.z(waited))
        distance = min(max(round(forecast.distance), 1), DISTANCE_MAX)
        scored = score(said.p10_seconds, said.p50_seconds, said.p90_seconds, waited)
        lived.scores[distance] = lived.scores.get(distance, Score()) + scored
        lived.told += 1
