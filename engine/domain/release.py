"""Release (放号) and pools (号源池): which seats of a session open to whom, and when.

Pure. `release` turns the terms of a session's department and class into its shares: every seat belongs to one
pool and one opening, and each such pair that has seats is a `Share` with its stages. Percents are kept to the
seat: no pool has a whole seat more or fewer than its percent of the session says, and a pool's openings
divide its seats likewise; where halves must fall, who comes first in the policy comes first. Seats of a share
are spread evenly over the session's slots.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from engine.domain.planning import Session, Share, Stage
from engine.domain.policy import EVERYBODY, Channel, Moment, Opening, Pool, Terms

REST: Final = Pool("", 0, EVERYBODY)
"""What no pool keeps: everybody's, under the empty name."""

ALWAYS: Final = 0
"""ms: the stage of a share that is open as soon as it is published."""


def release(session: Session, terms: Terms, day: date, zone: ZoneInfo) -> Session:
    """The session of `day` with shares and runs as `terms` have them; without both where all is open to all.

    Shares are in the order of the seats: the pools as listed and then the rest, each by its openings, so that
    who has a pool of his own takes its seats first when he is given the lowest that is open to him.
    """
    if not terms.openings and not terms.pools:
        return replace(session, shares=(), slots=tuple(replace(slot, runs=()) for slot in session.slots))
    capacities = tuple(slot.capacity for slot in session.slots)
    parts, runs = _divide(capacities, terms.pools, terms.openings)
    return replace(
        session,
        shares=tuple(Share(pool.name, _stages(pool, opening, day, zone)) for pool, opening in parts),
        slots=tuple(replace(slot, runs=own) for slot, own in zip(session.slots, runs, strict=True)),
    )


def instant(moment: Moment, day: date, zone: ZoneInfo) -> int:
    """When the moment before a visit on `day` is, in ms since the epoch.

    A wall-clock time that daylight saving leaves out that day counts from the first instant after the gap;
    one that comes twice, the first time.
    """
    return _instant(day - timedelta(moment.days_before), moment.minute, zone)


def apportion(seats: int, percents: Sequence[int]) -> list[int]:
    """Largest remainder: each its percent of `seats` rounded up or down, all of them together `seats`.

    The percents make 100. Of equal remainders the earlier wins.
    """
    found = [seats * percent // 100 for percent in percents]
    order = sorted(range(len(percents)), key=lambda n: -(seats * percents[n] % 100))  # stable
    for n in order[: seats - sum(found)]:
        found[n] += 1
    return found


Part = tuple[Pool, Opening | None]
Runs = tuple[tuple[int, int], ...]


@lru_cache(maxsize=4096)  # equal weeks divide alike
def _divide(
    capacities: tuple[int, ...], pools: tuple[Pool, ...], openings: tuple[Opening, ...]
) -> tuple[tuple[Part, ...], tuple[Runs, ...]]:
    """The parts that have seats, and the runs of each slot."""
    seats = sum(capacities)
    rest = 100 - sum(pool.percent for pool in pools)
    owners = (*pools, REST)
    counts = apportion(seats, [*(pool.percent for pool in pools), rest])
    parts: list[Part] = []
    sizes: list[int] = []
    for pool, count in zip(owners, counts, strict=True):
        split = apportion(count, [opening.percent for opening in openings]) if openings else [count]
        for opening, size in zip(openings or (None,), split, strict=True):
            if size:
                parts.append((pool, opening))
                sizes.append(size)
    # The k-th of a part's n seats belongs at (2k + 1) / 2n of the session: as whole numbers, over 2 * seats.
    ideal = sorted(
        ((2 * k + 1) * seats // size, part) for part, size in enumerate(sizes) for k in range(size)
    )
    order = iter([part for _, part in ideal])
    runs = []
    for capacity in capacities:
        mine = sorted(next(order) for _ in range(capacity))
        runs.append(tuple((part, mine.count(part)) for part in dict.fromkeys(mine)))
    return tuple(parts), tuple(runs)


def _stages(pool: Pool, opening: Opening | None, day: date, zone: ZoneInfo) -> tuple[Stage, ...]:
    """Closed, then the pool's channels, then each flow's; a flow before the opening counts at the opening."""
    opens = ALWAYS if opening is None else instant(opening.at, day, zone)
    found: dict[int, Channel] = {opens: pool.channels}
    for flow in pool.flows:  # by time
        found[max(opens, instant(flow.at, day, zone))] = flow.channels
    stages: list[Stage] = []
    for at, channels in found.items():
        if not stages or stages[-1].channels != channels:
            stages.append(Stage(at, int(channels)))
    return tuple(stages)


@lru_cache(maxsize=4096)
def _instant(day: date, minute: int, zone: ZoneInfo) -> int:
    local = datetime.combine(day, time(minute // 60, minute % 60), zone)
    late = local.astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        # In a gap: fold=1 reads it with the offset from after the gap, so as an instant before it. The
        # clock jumps somewhere between the two.
        early = local.replace(fold=1).astimezone(UTC)
        before = early.astimezone(zone).utcoffset()
        while late - early > timedelta(seconds=1):
            middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
            if middle.astimezone(zone).utcoffset() == before:
                early = middle
            else:
                late = middle
    return (late - _EPOCH) // timedelta(milliseconds=1)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
