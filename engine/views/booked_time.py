"""How long one booked patient keeps a practitioner, before anybody knows which kind of visit it will be.

Turns of all kinds of visits, as often as they were seen: of this practitioner, else of the department, else
of the hospital. Who was sent to an examination comes back (回诊), and that turn belongs to his booking, too.
Each turn has its pause. All of it as one log-normal time, by its mean and variance.
"""

from dataclasses import dataclass
from math import log
from typing import Final

from engine.domain.service_times import LogNormal, ServiceModel, Tally
from engine.views.forecasting import FIRST, FOLLOW_UP, RETURN

BOOKED: Final = (FIRST, FOLLOW_UP)


@dataclass(frozen=True, slots=True)
class BookedTime:
    time: LogNormal  # seconds
    days_differ: float  # of its logarithm, in common to all of a day; with how little is known
    turns: float  # of this practitioner that speak for it; older ones count less
    learned: bool  # of anybody; False: all of it is assumed


def booked_time(seen: Tally, model: ServiceModel, department_id: str, practitioner_id: str) -> BookedTime:
    """`model` is what was learned of `seen`."""
    own = _turns(seen, department_id, practitioner_id)
    found = own or _turns(seen, department_id) or _turns(seen)
    turns = found or {FIRST: 1.0}
    pause = model.pause(department_id, practitioner_id)
    booked = sum(turns.get(kind, 0.0) for kind in BOOKED)
    mean = square = doubt = 0.0
    for kind in BOOKED:
        share = turns.get(kind, 0.0) / booked
        level = model.level(department_id, practitioner_id, kind)
        time = LogNormal(level.mu, level.variance)
        mean += share * time.mean
        square += share * time.square
        doubt += share * level.doubt
    variance = square - mean**2 + pause.variance
    mean += pause.mean
    level = model.level(department_id, practitioner_id, RETURN)
    again = LogNormal(level.mu, level.variance)
    back = min(1.0, turns.get(RETURN, 0.0) / booked)  # of those booked, who comes back
    once = again.mean + pause.mean
    variance += back * (again.square - again.mean**2 + pause.variance) + back * (1 - back) * once**2
    return BookedTime(
        log_normal(mean + back * once, variance),
        model.days_differ + doubt,
        sum(own.values()),
        bool(found),
    )


def _turns(
    seen: Tally, department_id: str | None = None, practitioner_id: str | None = None
) -> dict[str, float]:
    """By kind; empty where nobody was there who had booked."""
    found: dict[str, float] = {}
    for (department, practitioner, kind, _), sums in seen.services.items():
        if (
            kind in (*BOOKED, RETURN)
            and department_id in (None, department)
            and practitioner_id in (None, practitioner)
        ):
            found[kind] = found.get(kind, 0.0) + sums.n
    return found if any(found.get(kind) for kind in BOOKED) else {}


def log_normal(mean: float, variance: float) -> LogNormal:
    spread = log(1 + variance / mean**2)
    return LogNormal(log(mean) - spread / 2, spread)
