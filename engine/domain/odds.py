"""The chance of a waiting list: will enough seats come back in time?

Nobody can know; this is what the hospital's own past says. Three steps, each a textbook's:

1. How fast seats come back. The time before the visit is cut into stretches; within one, each taken seat
   comes back at a constant rate (the piecewise exponential model of survival analysis; Friedman 1982). The
   rate is returns per hour that seats were held, drawn towards the hospital's own rate by so many hours of
   it (the mean of a gamma-Poisson posterior; Clayton and Kaldor 1987): what is rare borrows from the rest.
2. One seat. Held now, it comes back before the list closes with 1 - exp(-sum of rate * hours).
3. All seats. Each by itself; at least so many of them: the tail of a Poisson-binomial distribution, counted
   exactly, seat by seat.

Who stands ahead takes what comes first. Somebody may leave the queue, decline, or be served elsewhere: none
of that is counted, so the chance that is shown is rather too small than too big, as far as seats come back
independently of one another.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import Final

STRETCHES: Final = (0.0, 2.0, 6.0, 12.0, 24.0, 48.0, 96.0, 168.0, inf)
"""Hours before the visit; a stretch reaches from one to the next."""
SEATS_MAX: Final = 600
"""Those likeliest to come back; what the others would add is left out."""
PRIOR_HOURS: Final = 2_000.0
"""So many seat hours of the hospital's rate speak for a number class of which nothing is known."""

Rates = tuple[float, ...]
"""Returns an hour of a taken seat, for each stretch."""

ASSUMED: Final[Rates] = (0.0005, 0.001, 0.002, 0.002, 0.0015, 0.001, 0.0006, 0.0004)
"""Before anything was seen: an assumption, about one seat in six within a week. 2,000 hours outweigh it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened in each stretch: hours that seats were held, and how many of these came back."""

    hours: tuple[float, ...]
    returns: tuple[int, ...]


NOTHING_SEEN: Final = Seen((0.0,) * len(ASSUMED), (0,) * len(ASSUMED))


def rates(seen: Seen, towards: Rates) -> Rates:
    return tuple(
        (n + PRIOR_HOURS * rate) / (hours + PRIOR_HOURS)
        for hours, n, rate in zip(seen.hours, seen.returns, towards, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Returns:
    """The rates of one hospital."""

    everywhere: Rates = ASSUMED
    by_class: Mapping[str, Rates] | None = None

    def of(self, number_class_id: str) -> Rates:
        return (self.by_class or {}).get(number_class_id, self.everywhere)


def learn(seen: Mapping[str, Seen]) -> Returns:
    """`seen` by number class."""
    everywhere = rates(_sum(seen.values()), ASSUMED)
    return Returns(everywhere, {each: rates(one, everywhere) for each, one in seen.items()})


def _sum(parts: Collection[Seen]) -> Seen:
    return Seen(
        tuple(sum(one.hours[n] for one in parts) for n in range(len(ASSUMED))),
        tuple(sum(one.returns[n] for one in parts) for n in range(len(ASSUMED))),
    )


def comes_back(rates: Rates, hours_before: float, closes_hours: float) -> float:
    """The chance that a seat, taken now and `hours_before` its visit, is free again before the list closes,
    `closes_hours` before the visit."""
    total = 0.0
    for rate, near, far in zip(rates, STRETCHES, STRETCHES[1:], strict=False):
        total += rate * max(0.0, min(far, hours_before) - max(near, closes_hours))
    return 1.0 - exp(-total)


def at_least(chances: Sequence[float], wanted: int) -> float:
    """The chance that at least `wanted` of these independent things happen."""
    if wanted <= 0:
        return 1.0
    likeliest = sorted(chances, reverse=True)[:SEATS_MAX]
    if wanted > len(likeliest):
        return 0.0
    # so_far[n]: exactly n have happened; `enough`: as many as are wanted, which can never be undone.
    so_far, enough = [1.0] + [0.0] * (wanted - 1), 0.0
    for chance in likeliest:
        enough += so_far[-1] * chance
        for n in range(wanted - 1, 0, -1):
            so_far[n] += (so_far[n - 1] - so_far[n]) * chance
        so_far[0] *= 1.0 - chance
    return min(1.0, enough)


@dataclass(frozen=True, slots=True)
class Place:
    """One practitioner's day, as somebody sees it who waits for it."""

    free: int  # seats that suit and nobody has
    taken: tuple[float, ...]  # of those that suit and somebody has: the chance that each comes back
    ahead: int  # people who stand ahead there


def chance(places: Sequence[Place], people: int, ahead: int) -> float:
    """The chance that `people` are offered seats at one place before it closes.

    `ahead` are the people who stand ahead at any of the places, each counted once. Either of two things is
    enough, so the better one counts: one place gives seats for all who stand ahead there and for these; or
    (for one alone) all places together do, for all who stand ahead anywhere.
    """
    nowhere = 1.0
    for place in places:
        nowhere *= 1.0 - at_least(place.taken, place.ahead + people - place.free)
    together = 0.0
    if people == 1 and len(places) > 1:
        free = sum(place.free for place in places)
        together = at_least([p for place in places for p in place.taken], ahead + 1 - free)
    return min(1.0, max(1.0 - nowhere, together))
