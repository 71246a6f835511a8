"""How long until it is somebody's turn: P10, P50 and P90 for every ticket of a queue, in one pass.

What stands ahead is a sum: what is left of the consultations that run (the partial moments of a log-normal,
given how long they have run), then everybody's who goes before. Means and variances of the parts add up
(`service_times` has them); what all consultations of one practitioner share (how fast he is today, how well
he is known) adds up as a standard deviation instead, for it does not average out. The sum is taken to be
log-normal with that mean and variance (Fenton 1960), and `calibration` puts right what that leaves wrong.

Several rooms for one queue: people go to the room that is free first. Its expected time is the least of
several uncertain ones (Clark 1961), which is earlier than the least of the expected ones; the others are then
later by as much, so that no work is lost. The work still to do is done by all of them at once, so its
variance counts by the square of their number (the renewal central limit theorem; Cox 1962).

Who comes later and yet goes before: a queue with such arrivals, at so many a second, lasts 1 / (1 - load)
times as long (the delay busy period; Conway, Maxwell and Miller 1967).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, exp, expm1, log, log1p, pi, sqrt
from typing import Final

from engine.domain.calibration import Correction
from engine.domain.service_times import NO_PACE, PACE_KEPT, Level, LogNormal, Pace, ServiceModel, stretch

SHORTEST_SECONDS: Final = 1.0
LOAD_MAX: Final = 0.8
"""Of a room's time, spent on those who go before; more than that cannot last."""


@dataclass(frozen=True, slots=True)
class Room:
    """A practitioner who is seeing people, or soon will. Closed rooms are not given."""

    department_id: str
    practitioner_id: str
    since_open_seconds: float  # below 0: begins only in so many seconds
    serving: str | None = None  # the kind of visit that runs
    elapsed_seconds: float = 0.0  # of that; or, where nobody is served, of the pause
    paused: bool = False  # people wait, and nobody is called
    pace: Pace = NO_PACE


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who waits or is expected, in the order of being called."""

    kind: str
    practitioner_id: str | None = None  # None: whoever is free first
    chance: float = 1.0  # of coming at all
    due_seconds: float = 0.0  # until then not here: overtaken by who is
    rooms: tuple[int, ...] | None = None  # of those given, only these; None: any, or the practitioner's


@dataclass(frozen=True, slots=True)
class Arrivals:
    """People not known yet who will go before everybody: priority classes, back from examination."""

    per_second: float = 0.0
    kind: str = ""


ROOT_HALF: Final = sqrt(0.5)
DENSITY: Final = 1 / sqrt(2 * pi)
SIGMA_MIN: Final = 0.01  # nothing is known to the second
NO_ARRIVALS: Final = Arrivals()


@dataclass(frozen=True, slots=True)
class Forecast:
    """A log-normal waiting time. `distance`: turns until then, of each room that may serve."""

    distance: float
    mu: float
    sigma: float

    def z(self, waited_seconds: float) -> float:
        """What came of it, for `calibration.Gathering`."""
        return (log(max(waited_seconds, SHORTEST_SECONDS)) - self.mu) / self.sigma


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds from now. Nine in ten wait longer than P10: who must not be late goes by that."""

    p10_seconds: float
    p50_seconds: float
    p90_seconds: float


def forecasts(
    model: ServiceModel,
    rooms: Sequence[Room],
    queue: Sequence[Waiting],
    arrivals: Arrivals = NO_ARRIVALS,
) -> list[Forecast | None]:
    """For each of the queue, who stands behind all before it; None where no room may serve.

    What is asked "now" for the last place of a queue is the forecast of one more `Waiting` at its end.
    """
    lanes = [_Lane(model, room) for room in rooms]
    by_practitioner: dict[str, list[_Lane]] = {}
    for lane in lanes:
        by_practitioner.setdefault(lane.practitioner_id, []).append(lane)
    found: list[Forecast | None] = []
    expected: list[Waiting] = []  # not here yet

    def allowed_to(person: Waiting) -> list[_Lane]:
        if person.rooms is not None:
            return [lanes[n] for n in person.rooms]
        who = person.practitioner_id
        return lanes if who is None else by_practitioner.get(who, [])

    for person in queue:
        allowed = allowed_to(person)
        if not allowed:
            found.append(None)
            continue
        turn = _turn(allowed)
        while expected and expected[0].due_seconds <= turn.mean:
            early = expected.pop(0)
            theirs = allowed_to(early)
            _serve(theirs, early, _turn(theirs))
            turn = _turn(allowed)
        found.append(_forecast(turn, len(lanes), arrivals, person.due_seconds))
        if person.due_seconds > turn.mean:
            expected.append(person)
            expected.sort(key=lambda one: one.due_seconds)
        else:
            _serve(allowed, person, turn)
    return found


class _Lane:
    """A room, and the work that stands before its door."""

    __slots__ = (
        "_course",
        "_model",
        "_pause",
        "_room",
        "_slower",
        "_times",
        "_unsure",
        "ahead",
        "drift",
        "free",
        "practitioner_id",
        "shared",
        "spread",
        "variance",
    )

    def __init__(self, model: ServiceModel, room: Room) -> None:
        self._model = model
        self._room = room
        self._course = model.course(room.department_id, room.practitioner_id)
        self._pause = model.pause(room.department_id, room.practitioner_id)
        self._times: dict[str, tuple[tuple[float, float, float], ...]] = {}
        self._slower = room.pace.slower
        self._unsure = sqrt(room.pace.doubt * model.days_differ)
        self.practitioner_id = room.practitioner_id
        self.free = max(0.0, -room.since_open_seconds)  # seconds from now, expected
        self.variance = 0.0  # of that: what averages out
        self.spread = 0.0  # of the last consultation alone
        self.shared = 0.0  # of that: a standard deviation that does not, for the level is in doubt
        self.drift = 0.0  # the same, for today's pace is
        self.ahead = 0.0  # turns
        if room.serving is not None:
            at = room.since_open_seconds - room.elapsed_seconds
            left, variance = self._running(room.serving, at).left(room.elapsed_seconds)
            self.free += left + self._pause.mean
            self.variance, self.spread = variance + self._pause.variance, variance
            self.ahead = 1.0
        elif room.paused:
            self.free, self.variance = self._pause.time.left(room.elapsed_seconds)
            self.spread = self.variance

    def _level(self, kind: str) -> Level:
        return self._model.level(self._room.department_id, self.practitioner_id, kind)

    def _running(self, kind: str, since_open_seconds: float) -> LogNormal:
        """The time of the consultation that runs."""
        level = self._level(kind)
        doubt = level.doubt + self._room.pace.doubt * self._model.days_differ
        return LogNormal(
            level.mu + self._course[stretch(since_open_seconds)] + self._slower, level.variance + doubt
        )

    def _turns(self, kind: str) -> tuple[tuple[float, float, float], ...]:
        """Of a consultation in each stretch, at the usual pace: mean, own variance, shared deviation."""
        turns = self._times.get(kind)
        if turns is None:
            level = self._level(kind)
            uncertain = (level.variance + level.doubt + self._model.days_differ) / 2
            own, shared = expm1(level.variance), sqrt(expm1(level.doubt))
            means = [exp(level.mu + quicker + uncertain) for quicker in self._course]
            turns = self._times[kind] = tuple((mean, mean * mean * own, mean * shared) for mean in means)
        return turns

    def take(self, person: Waiting, at: float) -> None:
        """Serve this one, from `at` seconds from now."""
        mean, variance, shared = self._turns(person.kind)[stretch(self._room.since_open_seconds + at)]
        chance = person.chance
        kept = PACE_KEPT if chance == 1 else PACE_KEPT**chance
        self._slower *= kept
        self._unsure *= kept
        factor = exp(self._slower)
        mean, shared, drift = mean * factor, shared * factor, mean * factor * self._unsure
        variance *= factor * factor
        mean += self._pause.mean
        by_chance = (1 - chance) * mean * mean
        work = chance * (variance + by_chance)
        self.free = (1 - chance) * self.free + chance * (at + mean)
        self.spread = (1 - chance) * self.spread + work
        self.variance += work + chance * self._pause.variance
        self.shared += chance * shared
        self.drift += chance * drift
        self.ahead += chance

    def load(self, arrivals: Arrivals) -> tuple[float, float]:
        """What so many arrivals would take of this room's time, and the same of the squares."""
        mean, variance, _ = self._turns(arrivals.kind)[stretch(self._room.since_open_seconds)]
        mean, variance = mean + self._pause.mean, variance + self._pause.variance
        return arrivals.per_second * mean, arrivals.per_second * (variance + mean * mean)


@dataclass(slots=True)
class _Turn:
    """When the next one is served who may go to some lanes, and which one probably does it."""

    mean: float
    lane: _Lane
    near: Sequence[_Lane]  # those that may be the first as well


def _turn(lanes: Sequence[_Lane]) -> _Turn:
    first = lanes[0]
    if len(lanes) == 1:
        return _Turn(first.free, first, lanes)
    for lane in lanes:
        if lane.free < first.free:
            first = lane
    soon, spread = first.free, first.spread
    near = [lane for lane in lanes if (lane.free - soon) ** 2 <= 4 * (lane.spread + spread)]
    mu, variance = _logarithm(first)
    for lane in near:
        if lane is not first:
            mu, variance = _least(mu, variance, *_logarithm(lane))
    return _Turn(min(soon, exp(mu + variance / 2)), first, near)


def _logarithm(lane: _Lane) -> tuple[float, float]:
    """Mean and variance of the logarithm of when a lane is free."""
    free = lane.free if lane.free > SHORTEST_SECONDS else SHORTEST_SECONDS
    variance = log1p(lane.spread / (free * free))
    return log(free) - variance / 2, variance


def _least(mean: float, variance: float, other: float, its_variance: float) -> tuple[float, float]:
    """Mean and variance of the lesser of two independent normals (Clark 1961)."""
    both = variance + its_variance
    if both == 0:
        return min(mean, other), 0.0
    apart = sqrt(both)
    at = (other - mean) / apart
    below = 0.5 + 0.5 * erf(at * ROOT_HALF)
    bend = apart * exp(-0.5 * at * at) * DENSITY
    least = other + (mean - other) * below - bend
    square = mean * mean + variance
    its_square = other * other + its_variance
    square = its_square + (square - its_square) * below - (mean + other) * bend
    return least, max(0.0, square - least * least)


def _serve(lanes: Sequence[_Lane], person: Waiting, turn: _Turn) -> None:
    early = (turn.lane.free - turn.mean) * person.chance
    if early > 0:
        for lane in turn.near:
            if lane is not turn.lane:
                lane.free += early / (len(turn.near) - 1)
    turn.lane.take(person, turn.mean)


def _forecast(turn: _Turn, rooms: int, arrivals: Arrivals, due_seconds: float) -> Forecast:
    n = len(turn.near)
    mean = turn.mean
    variance = distance = 0.0
    for lane in turn.near:
        variance += lane.variance + lane.shared**2 + lane.drift**2
        distance += lane.ahead
    variance, distance = variance / n**2, distance / n
    if arrivals.per_second > 0:
        load, squares = (
            sum(parts) / n for parts in zip(*(lane.load(arrivals) for lane in turn.near), strict=True)
        )
        load, squares = load / rooms, squares / rooms / n
        idle = 1 - min(LOAD_MAX, load)
        variance = variance / idle**2 + squares * mean / idle**3
        mean /= idle
    mean = max(mean, due_seconds, SHORTEST_SECONDS)
    spread = log1p(variance / mean**2)
    sigma = max(sqrt(spread), SIGMA_MIN)
    return Forecast(max(1.0, distance), log(mean) - sigma**2 / 2, sigma)


def estimates(
    told: Sequence[Forecast | None], queue: Sequence[Waiting], correction: Correction
) -> list[Estimate | None]:
    """What to tell each of the queue, given their forecasts.

    People compare: of two who are here and wait for the same, the later one is never told less.
    """
    before: dict[str | tuple[int, ...] | None, Estimate] = {}
    found: list[Estimate | None] = []
    for forecast, person in zip(told, queue, strict=True):
        if forecast is None:
            found.append(None)
            continue
        lower, middle, upper = correction.at(forecast.distance)
        one = Estimate(
            exp(forecast.mu + lower * forecast.sigma),
            exp(forecast.mu + middle * forecast.sigma),
            exp(forecast.mu + upper * forecast.sigma),
        )
        if person.due_seconds <= 0:
            whom = person.practitioner_id if person.rooms is None else person.rooms
            last = before.get(whom)
            if last is not None:
                one = Estimate(
                    max(one.p10_seconds, last.p10_seconds),
                    max(one.p50_seconds, last.p50_seconds),
                    max(one.p90_seconds, last.p90_seconds),
                )
            before[whom] = one
        found.append(one)
    return found
