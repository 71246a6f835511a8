"""Safe 加号: how many seats beyond the plan a session bears, knowing that some people do not come.

Asked before a template is published, so nobody has booked yet and nothing is promised. For every place of the
session this says the chance that whoever sits there waits longer than so many minutes, and how many seats may
be added, and where, while none of these chances passes the cap.

Reckoned exactly on a grid of `GRID_SECONDS`, without chance: the work that stands before the door is a
distribution; each person adds a consultation to it with the chance of coming, and time takes it away until
nothing is left (Lindley 1952). What is common to all of one day (the practitioner is slow today, or not well
known; rain keeps everybody at home) does not average out: the whole day is reckoned for three paces and three
levels of absence, and the results are weighed (Gauss and Hermite).

Taken for granted: one practitioner; whoever comes is there when the slot begins and is served in the order of
numbers, added seats last; people decide by themselves whether to come. Lateness is not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erfc, exp, inf, log, sqrt
from typing import Final

from engine.domain.service_times import LogNormal

GRID_SECONDS: Final = 120
CELLS: Final = 60 / GRID_SECONDS  # of a minute
TAIL: Final = 1e-9
"""Of a distribution; less than that is added to the last cell."""
PACES: Final = ((-sqrt(3.0), 1 / 6), (0.0, 2 / 3), (sqrt(3.0), 1 / 6))
"""Standard deviations from the usual, and weights: exact for polynomials up to the fifth degree."""
EXTRAS_MAX: Final = 60

Work = list[float]
"""Chance of each whole number of grid cells of work left."""


@dataclass(frozen=True, slots=True)
class Slot:
    start_minute: int  # of the day
    absent: tuple[float, ...]  # for each planned number, the chance of not coming


@dataclass(frozen=True, slots=True)
class Template:
    """A session as it may be published. `service`: one consultation, pause included, at an average pace.
    `days_differ`: variance of what they have in common on one day (`ServiceModel.days_differ` and
    `Level.doubt`). `absences_differ`: the same of the log-odds of not coming (`no_show.absences_differ`)."""

    slots: tuple[Slot, ...]
    end_minute: int
    service: LogNormal
    days_differ: float = 0.0
    absences_differ: float = 0.0
    late_minutes: float = 0.0  # the practitioner begins

    def __post_init__(self) -> None:
        starts = [slot.start_minute for slot in self.slots]
        if not starts or starts != sorted(set(starts)) or self.end_minute <= starts[-1]:
            raise ValueError("slots are at least one, in order, each at its own minute, before the end")


@dataclass(frozen=True, slots=True)
class Limit:
    """Nobody's chance of waiting longer than `wait_minutes` may be above `chance`."""

    wait_minutes: float
    chance: float
    overtime_minutes: float = inf  # expected; no more than that

    def keeps(self, outlook: "Outlook") -> bool:
        return outlook.worst <= self.chance and outlook.overtime_minutes <= self.overtime_minutes


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a session would be like. Minutes are expectations."""

    extras: tuple[int, ...]  # added to each slot
    long_waits: tuple[float, ...]  # of each slot's last place: P(wait > X); the others of the slot wait less
    share: float  # of all who come: those who wait longer
    wait_minutes: float  # mean, of all who come
    seen: float  # people
    idle_minutes: float  # of the practitioner, until the last slot has begun
    overtime_minutes: float  # past the end

    @property
    def added(self) -> int:
        return sum(self.extras)

    @property
    def worst(self) -> float:
        return max(self.long_waits)


def largest(
    template: Template, limit: Limit, extra_absent: float, extras_max: int = EXTRAS_MAX
) -> tuple[int, list[Outlook]]:
    """The most seats that may be added, and the outlook with 0, 1, 2 … of them; the last may break the limit.

    Each seat goes where the limit is kept best: the chances are exact, the placing is one seat after another.
    0 with one outlook that breaks the limit: the plan alone is too full already. `extra_absent`: the chance
    that who is given an added seat does not come.
    """
    days = _days(template, limit.wait_minutes, extra_absent)
    found = [_outlook(template, days, (0,) * len(template.slots), extra_absent)]
    while limit.keeps(found[-1]) and found[-1].added < extras_max:
        before = found[-1].extras
        tried = [
            _outlook(template, days, (*before[:at], before[at] + 1, *before[at + 1 :]), extra_absent)
            for at in range(len(before))
        ]
        found.append(min(tried, key=lambda one: (not limit.keeps(one), round(one.worst, 6), one.share)))
    return max(0, found[-1].added - (not limit.keeps(found[-1]))), found


def outlook(
    template: Template, extras: Sequence[int], wait_minutes: float, extra_absent: float = 0.0
) -> Outlook:
    """With so many seats added to each slot."""
    return _outlook(template, _days(template, wait_minutes, extra_absent), tuple(extras), extra_absent)


def _days(template: Template, wait_minutes: float, extra_absent: float) -> list[tuple[float, "_Day"]]:
    """The day at each pace, and its weight. The mean over all paces is the mean that was learned."""
    found = []
    for slower, weight in _nodes(template.days_differ):
        mu = template.service.mu + slower - template.days_differ / 2
        service = consultation(LogNormal(mu, template.service.variance))
        for rarer, share in _nodes(template.absences_differ):
            slots = tuple(
                replace(
                    slot,
                    absent=tuple(_shifted(absent, rarer, template.absences_differ) for absent in slot.absent),
                )
                for slot in template.slots
            )
            extra = _shifted(extra_absent, rarer, template.absences_differ)
            day = _Day(replace(template, slots=slots), service, wait_minutes, extra)
            found.append((weight * share, day))
    return found


def _nodes(variance: float) -> list[tuple[float, float]]:
    """Where a normal of mean 0 is looked at, and how much each place counts."""
    return [(at * sqrt(variance), weight) for at, weight in PACES] if variance > 0 else [(0.0, 1.0)]


def _shifted(absent: float, by: float, variance: float) -> float:
    """The chance with its log-odds moved, and the mean over all `_nodes` the same as before."""
    if variance <= 0 or not 0 < absent < 1:
        return absent
    odds = absent / (1 - absent)

    def mean(centre: float) -> float:
        return sum(weight * _chance(odds, centre + at) for at, weight in _nodes(variance))

    centre = 0.0
    for _ in range(4):  # Newton's; the slope is nearly that of one logistic
        centre += (absent - mean(centre)) / max(
            1e-9, sum(weight * (p := _chance(odds, centre + at)) * (1 - p) for at, weight in _nodes(variance))
        )
    return _chance(odds, centre + by)


def _chance(odds: float, more: float) -> float:
    moved = odds * exp(more)
    return moved / (1 + moved)


def _outlook(
    template: Template, days: Sequence[tuple[float, "_Day"]], extras: tuple[int, ...], extra_absent: float
) -> Outlook:
    if len(extras) != len(template.slots):
        raise ValueError("extras are one number for each slot")
    long_waits = [0.0] * len(extras)
    longer = waited = idle = overtime = 0.0
    coming = sum(1 - absent for slot in template.slots for absent in slot.absent)
    coming += sum(extras) * (1 - extra_absent)
    for weight, day in days:
        for at in range(len(extras)):
            after = day.after(extras[: at + 1])
            long_waits[at] += weight * after.long_wait
            longer += weight * after.longer
            waited += weight * after.waited
            idle += weight * after.idle
        overtime += weight * day.after(extras).overtime
    return Outlook(
        extras,
        tuple(long_waits),
        longer / coming if coming else 0.0,
        waited / coming if coming else 0.0,
        coming,
        idle,
        overtime,
    )


@dataclass(frozen=True, slots=True)
class _After:
    """One slot, and the work that is left when the next one begins."""

    work: Work
    long_wait: float
    longer: float  # people of this slot who wait longer than the limit, expected
    waited: float  # minutes of all of them
    idle: float = 0.0
    overtime: float = 0.0


class _Day:
    """The session at one pace. What was reckoned for the first slots serves any arrangement of the others."""

    def __init__(self, template: Template, service: Work, wait_minutes: float, extra_absent: float) -> None:
        self._template = template
        self._service = service
        self._limit = wait_minutes * CELLS
        self._extra = extra_absent
        self._known: dict[tuple[int, ...], _After] = {}

    def after(self, extras: tuple[int, ...]) -> _After:
        """The last of the slots that have these extras."""
        known = self._known.get(extras)
        if known is None:
            before = self.after(extras[:-1]).work if len(extras) > 1 else self._first()
            known = self._known[extras] = self._slot(len(extras) - 1, before, extras[-1])
        return known

    def _first(self) -> Work:
        return _split(max(0.0, self._template.late_minutes) * CELLS)

    def _slot(self, at: int, work: Work, extra: int) -> _After:
        slots = self._template.slots
        longest = longer = waited = 0.0
        for absent in (*slots[at].absent, *(self._extra,) * extra):
            chance = _beyond(work, self._limit)
            longest = max(longest, chance)
            longer += (1 - absent) * chance
            waited += (1 - absent) * _mean(work) / CELLS
            work = _add(work, self._service, 1 - absent)
        if at + 1 == len(slots):
            left = (self._template.end_minute - slots[at].start_minute) * CELLS
            overtime = sum(p * (n - left) for n, p in enumerate(work) if n > left) / CELLS
            return _After(work, longest, longer, waited, 0.0, overtime)
        gone = (slots[at + 1].start_minute - slots[at].start_minute) * CELLS
        idle = sum(p * (gone - n) for n, p in enumerate(work) if n < gone) / CELLS
        return _After(_gone(work, gone), longest, longer, waited, idle)


def consultation(time: LogNormal) -> Work:
    """A log-normal time on the grid. Each cell's chance is shared by its two ends so that the mean stays."""
    sigma = sqrt(time.variance)

    def below(seconds: float, moment: int) -> float:
        """Of the distribution (0), or of the mean (1): what lies below so many seconds."""
        if seconds <= 0:
            return 0.0
        at = (log(seconds) - time.mu) / sigma - moment * sigma
        return 0.5 * erfc(-at / sqrt(2)) * (time.mean if moment else 1.0)

    last = max(2, int(exp(time.mu + 4.5 * sigma) / GRID_SECONDS) + 2)
    found = [0.0] * (last + 1)
    for n in range(last):
        low, high = n * GRID_SECONDS, (n + 1) * GRID_SECONDS
        chance = below(high, 0) - below(low, 0)
        upper = (below(high, 1) - below(low, 1)) / GRID_SECONDS - n * chance
        upper = min(max(upper, 0.0), chance)
        found[n] += chance - upper
        found[n + 1] += upper
    found[-1] += max(0.0, 1 - sum(found))
    return found


def _split(cells: float) -> Work:
    whole = int(cells)
    return [*(0.0,) * whole, 1 - (cells - whole), cells - whole]


def _beyond(work: Work, cells: float) -> float:
    """The chance of more than that. A cell stands for half a cell on either side; the first for none."""
    if cells <= 0:
        return 1.0 if cells < 0 else 1 - work[0]
    at = round(cells)
    here = work[at] if 0 < at < len(work) else 0.0
    return min(1.0, sum(work[at + 1 :]) + here * (at + 0.5 - cells))


def _gone(work: Work, cells: float) -> Work:
    """What is left after that time. Half a cell is shared by the two next to it, so that the mean stays."""
    whole = int(cells)
    left = [sum(work[: whole + 1]), *work[whole + 1 :]]
    share = cells - whole
    if share == 0:
        return left
    further = [*left[1:], 0.0]
    further[0] += left[0]
    return [a * (1 - share) + b * share for a, b in zip(left, further, strict=True)]


def _mean(work: Work) -> float:
    return sum(n * p for n, p in enumerate(work))


def _add(work: Work, service: Work, chance: float) -> Work:
    """The work, and with this chance a consultation more."""
    if chance <= 0:
        return work
    width = len(service)
    found = [p * (1 - chance) for p in work] + [0.0] * (width - 1)
    for at, p in enumerate(work):
        if p > 0:
            p *= chance
            found[at : at + width] = [
                old + p * new for old, new in zip(found[at : at + width], service, strict=True)
            ]
    tail = 0.0
    while len(found) > 2 and tail + found[-1] < TAIL:
        tail += found.pop()
    found[-1] += tail
    return found
