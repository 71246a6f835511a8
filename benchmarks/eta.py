"""How good are the waiting times? On real consultations, judged on days that were not learned from.

    make bench-eta          # or: python -m benchmarks.eta [--file FILE]

The data: consultations of one physician in Guangzhou, 2018 and 2019 (HanguData, Data 2023, 8(3):47,
CC BY-NC-SA 4.0), outside the repository. 2018 is learned from; every day of 2019 is foretold with what was
known that morning and what that day had shown so far, and learned from at night. More: docs/WAITING_TIME.md.
"""

import argparse
import csv
import gzip
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy

from engine.domain import calibration as calibrating
from engine.domain import service_times
from engine.domain.calibration import UNCORRECTED, Calibration, Correction, Gathering, Score, score
from engine.domain.service_times import NO_PACE, NOTHING_SEEN, ServiceModel, Visit, learn, tally
from engine.domain.waiting_time import Room, Waiting, estimates, forecasts

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "hangu_service_times.csv.gz"
RESULTS: Final = Path(__file__).parent / "results"
DEPARTMENT: Final = "oncology"
DOCTOR: Final = "hangu"
DISTANCES: Final = tuple(range(1, 16))
SHOWN: Final = (1, 2, 3, 5, 7, 10, 15)
REQUIRED: Final = (1, 3, 5, 10)
JUDGED_YEAR: Final = 2019
EMA_ALPHA: Final = 0.3
OUTLIER: Final = 3.0  # a turn longer or shorter than the average by this factor is left out of it
EVERY_SECONDS: Final = 300  # the other moments that are judged


@dataclass(frozen=True, slots=True)
class Day:
    number: int  # in the order of time
    year: int
    sessions: tuple["Session", ...]


@dataclass(frozen=True, slots=True)
class Session:
    starts: tuple[float, ...]  # seconds of the day
    services: tuple[float, ...]
    kinds: tuple[str, ...]

    def visit(self, n: int) -> Visit:
        last = n + 1 == len(self.starts)
        pause = 0.0 if last else self.starts[n + 1] - self.starts[n] - self.services[n]
        return Visit(
            DEPARTMENT, DOCTOR, self.kinds[n], self.services[n], pause, self.starts[n] - self.starts[0]
        )


def read(file: Path) -> list[Day]:
    with gzip.open(file, "rt", encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    sessions: dict[int, list[dict[str, str]]] = {}
    for row in rows:
        sessions.setdefault(int(row["Session"]), []).append(row)
    days: list[list[int]] = []
    for number, first in ((n, sessions[n][0]) for n in sorted(sessions)):
        before = days[-1][-1] if days else None
        same = before is not None and before == number - 1 and first["AM_PM"] == "afternoon"
        if same and sessions[number - 1][0]["DayOfWeek"] == first["DayOfWeek"]:
            days[-1].append(number)
        else:
            days.append([number])
    year, month, found = 2018, "January", []
    for n, numbers in enumerate(days):
        here = sessions[numbers[0]][0]["Month"]
        year += here == "January" and month == "December"
        month = here
        found.append(Day(n, year, tuple(_session(sessions[number]) for number in numbers)))
    return found


def _session(rows: Sequence[dict[str, str]]) -> Session:
    return Session(
        tuple(_seconds(row["StartTime"]) for row in rows),
        tuple(float(row["ServTime"]) for row in rows),
        tuple("first" if row["Visit.No"] == "1" else "return" for row in rows),
    )


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3_600.0 + int(minutes) * 60 + int(seconds)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a session at which every ticket is told its time. `running`: who is served, or was last."""

    kind: str  # "start": somebody's turn has just come | "clock": one of every five minutes
    at: float
    running: int
    serving: bool
    elapsed: float


def moments(session: Session) -> Iterator[Moment]:
    clock = session.starts[0] + EVERY_SECONDS / 2
    for n, (start, following) in enumerate(pairwise(session.starts)):
        yield Moment("start", start, n, True, 0.0)
        while clock < following:
            over = start + session.services[n]
            serving = clock < over
            yield Moment("clock", clock, n, serving, clock - (start if serving else over))
            clock += EVERY_SECONDS


@dataclass(frozen=True, slots=True)
class Told:
    """What one method said to one ticket, and what came of it; seconds."""

    moment: str
    year: int
    day: int
    session: int  # of the day; 0 where nobody asks
    at: float  # seconds of the day
    distance: int
    p10: float | None
    p50: float
    p90: float | None
    waited: float


@dataclass(frozen=True, slots=True)
class Variant:
    """Our own method, or part of it, to see what each part is worth."""

    name: str
    course: bool = True
    pace: bool = True
    corrected: bool = True
    frozen: bool = False  # nothing is learned after 2018


OURS: Final = Variant("xinglin")
VARIANTS: Final = (
    OURS,
    Variant("learned in 2018 only", frozen=True),
    Variant("without correction", corrected=False),
    Variant("without course", course=False),
    Variant("without pace", pace=False),
)


def foretell(days: Sequence[Day], variant: Variant = OURS) -> Iterator[Told]:
    """Day by day: with what the days before have taught, and this one so far."""
    seen, model = NOTHING_SEEN, ServiceModel()
    calibration, correction = Calibration(), UNCORRECTED
    for day in days:
        gathered = Gathering()
        for number, session in enumerate(day.sessions):
            for told, z in _foretell(day, number, session, model, correction, variant.pace):
                gathered.add(told.distance, z)
                yield told
        if variant.frozen and day.year > days[0].year:
            continue
        visits = [session.visit(n) for session in day.sessions for n in range(len(session.starts))]
        seen = seen.faded(service_times.KEPT) + tally(visits, model)
        model = learn(seen)
        if not variant.course:
            model = replace(model, courses={})
        if variant.corrected:
            calibration = calibration.faded(calibrating.KEPT) + gathered.calibration()
            correction = calibration.correction()


def _foretell(
    day: Day, number: int, session: Session, model: ServiceModel, correction: Correction, paced: bool
) -> Iterator[tuple[Told, float]]:
    pace, over = NO_PACE, 0
    for moment in moments(session):
        while paced and over < moment.running + (not moment.serving):
            pace = model.after(pace, session.visit(over))
            over += 1
        room = Room(
            DEPARTMENT,
            DOCTOR,
            moment.at - session.starts[0],
            session.kinds[moment.running] if moment.serving else None,
            moment.elapsed,
            not moment.serving,
            pace,
        )
        after = moment.running + 1
        queue = [Waiting(kind) for kind in session.kinds[after:]]
        foreseen = forecasts(model, [room], queue)
        for n, (forecast, said) in enumerate(
            zip(foreseen, estimates(foreseen, queue, correction), strict=True)
        ):
            distance = n + moment.serving
            if forecast is None or said is None or not 1 <= distance <= DISTANCES[-1]:
                continue
            waited = session.starts[after + n] - moment.at
            told = Told(
                moment.kind,
                day.year,
                day.number,
                number,
                moment.at,
                distance,
                said.p10_seconds,
                said.p50_seconds,
                said.p90_seconds,
                waited,
            )
            yield told, forecast.z(waited)


# The baselines. Each knows what ours knows at that moment, and uses less of it. None says a P90.


def average_per_desk(days: Sequence[Day]) -> Iterator[Told]:
    """People ahead times the average of all days before, by the number of desks (ZMS `QueueList`)."""
    turns: list[float] = []
    for day in days:
        average = sum(turns) / len(turns) if turns else service_times.ASSUMED_SECONDS
        for session in day.sessions:
            for moment, distance, waited in _tickets(session):
                yield _point(day, moment, distance, distance * average, waited)
            turns += [following - start for start, following in pairwise(session.starts)]


def moving_average(days: Sequence[Day]) -> Iterator[Told]:
    """People ahead times an exponential moving average of the last turns, without outliers (QueueDoc)."""
    average = service_times.ASSUMED_SECONDS
    for day in days:
        for session in day.sessions:
            over = 0
            for moment, distance, waited in _tickets(session):
                while over < moment.running:
                    turn = session.starts[over + 1] - session.starts[over]
                    if average / OUTLIER < turn < average * OUTLIER:
                        average += EMA_ALPHA * (turn - average)
                    over += 1
                yield _point(day, moment, distance, distance * average, waited)


def sum_of_kind_means(days: Sequence[Day]) -> Iterator[Told]:
    """The mean time of each kind of visit, over all days before, added up over those ahead."""
    times: dict[str, list[float]] = {}
    for day in days:
        means = {kind: sum(seen) / len(seen) for kind, seen in times.items()}
        for session in day.sessions:
            for moment, distance, waited in _tickets(session):
                first = moment.running + (not moment.serving)
                ahead = session.kinds[first : first + distance]
                total = sum(means.get(kind, service_times.ASSUMED_SECONDS) for kind in ahead)
                yield _point(day, moment, distance, total, waited)
            for kind, seconds in zip(session.kinds, session.services, strict=True):
                times.setdefault(kind, []).append(seconds)


def _tickets(session: Session) -> Iterator[tuple[Moment, int, float]]:
    for moment in moments(session):
        first = moment.running + (not moment.serving)
        for distance in DISTANCES:
            if first + distance < len(session.starts):
                yield moment, distance, session.starts[first + distance] - moment.at


def _point(day: Day, moment: Moment, distance: int, p50: float, waited: float) -> Told:
    return Told(moment.kind, day.year, day.number, 0, moment.at, distance, None, p50, None, waited)


# Several rooms: nobody has published that, so it is put together from the same real consultations.


def pooled(days: Sequence[Day], rooms: int, ours: bool = True) -> Iterator[Told]:
    """The people of `rooms` successive half days in one queue, served by as many rooms. `distance`: place in
    the queue. The average of `average_per_desk` speaks where not `ours`."""
    sessions = [(day, session) for day in days for session in day.sessions]
    seen, model = NOTHING_SEEN, ServiceModel()
    calibration, correction = Calibration(), UNCORRECTED
    turns: list[float] = []
    for at in range(0, len(sessions) - rooms + 1, rooms):
        group = sessions[at : at + rooms]
        day, gathered = group[-1][0], Gathering()
        average = sum(turns) / len(turns) if turns else service_times.ASSUMED_SECONDS
        people = [
            session.visit(n)
            for n in range(max(len(session.starts) for _, session in group))
            for _, session in group
            if n < len(session.starts)
        ]
        starts, served_by = _serve_all(people, rooms)
        for now in range(rooms - 1, len(people) - 1):  # a turn has just come; all rooms are busy
            queue = people[now + 1 :]
            if not ours:
                for n in range(min(len(queue), DISTANCES[-1])):
                    waited = starts[now + 1 + n] - starts[now]
                    told = (n + 1) * average / rooms
                    yield Told("start", day.year, at, 0, starts[now], n + 1, None, told, None, waited)
                continue
            open_rooms = [_room(model, people, starts, served_by, now, room) for room in range(rooms)]
            waiting = [Waiting(person.kind) for person in queue[: DISTANCES[-1]]]
            foreseen = forecasts(model, open_rooms, waiting)
            for n, (forecast, said) in enumerate(
                zip(foreseen, estimates(foreseen, waiting, correction), strict=True)
            ):
                if forecast is None or said is None:
                    continue
                waited = starts[now + 1 + n] - starts[now]
                gathered.add(forecast.distance, forecast.z(waited))
                p10, p50, p90 = said.p10_seconds, said.p50_seconds, said.p90_seconds
                yield Told("start", day.year, at, 0, starts[now], n + 1, p10, p50, p90, waited)
        visits = [session.visit(n) for _, session in group for n in range(len(session.starts))]
        turns += [visit.service_seconds + visit.pause_seconds for visit in visits]
        seen = seen.faded(service_times.KEPT) + tally(visits, model)
        model = learn(seen)
        calibration = calibration.faded(calibrating.KEPT) + gathered.calibration()
        correction = calibration.correction()


def _serve_all(people: Sequence[Visit], rooms: int) -> tuple[list[float], list[int]]:
    """When each one's turn comes and in which room, if whoever is next takes the first room that is free."""
    free, starts, served_by = [0.0] * rooms, [], []
    for person in people:
        room = min(range(rooms), key=free.__getitem__)
        starts.append(free[room])
        served_by.append(room)
        free[room] += person.service_seconds + person.pause_seconds
    return starts, served_by


def _room(
    model: ServiceModel,
    people: Sequence[Visit],
    starts: Sequence[float],
    served_by: Sequence[int],
    now: int,
    room: int,
) -> Room:
    theirs = [n for n in range(now + 1) if served_by[n] == room]
    pace = NO_PACE
    for n in theirs[:-1]:
        pace = model.after(pace, replace(people[n], since_open_seconds=starts[n]))
    last = theirs[-1]
    elapsed = starts[now] - starts[last]
    serving = elapsed < people[last].service_seconds
    return Room(
        DEPARTMENT,
        DOCTOR,
        starts[now],
        people[last].kind if serving else None,
        elapsed if serving else elapsed - people[last].service_seconds,
        not serving,
        pace,
    )


# Judging.


@dataclass(frozen=True, slots=True)
class Judged:
    """One method at one distance, on the days of 2019. Minutes; the interval is of the coverage (95 %)."""

    method: str
    moment: str
    distance: int
    n: int
    mae: float
    bias: float
    pinball_p50: float
    coverage_p10: float | None
    coverage_p50: float
    pinball_p90: float | None
    coverage_p90: float | None
    interval: tuple[float, float] | None


def judge(method: str, told: Sequence[Told], moment: str) -> list[Judged]:
    found = []
    for distance in DISTANCES:
        here = [t for t in told if t.distance == distance and t.moment == moment and t.year == JUDGED_YEAR]
        if not here:
            continue
        total = Score()
        by_day: dict[int, list[int]] = {}
        for one in here:
            low, high = (one.p50 if said is None else said for said in (one.p10, one.p90))
            scored = score(low, one.p50, high, one.waited)
            total += scored
            counted = by_day.setdefault(one.day, [0, 0])
            counted[0] += scored.below_p90
            counted[1] += 1
        says = here[0].p90 is not None
        found.append(
            Judged(
                method,
                moment,
                distance,
                total.n,
                total.absolute_error / total.n / 60,
                total.error / total.n / 60,
                total.pinball_p50 / total.n / 60,
                total.below_p10 / total.n if says else None,
                total.below_p50 / total.n,
                total.pinball_p90 / total.n / 60 if says else None,
                total.below_p90 / total.n if says else None,
                _interval(list(by_day.values())) if says else None,
            )
        )
    return found


def _interval(days: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Whole days are drawn again (Efron's bootstrap), for the waits of one day hang together."""
    counted = numpy.array(days)
    drawn = numpy.random.default_rng(2019).integers(0, len(counted), (2_000, len(counted)))
    below, n = counted[drawn, 0].sum(axis=1), counted[drawn, 1].sum(axis=1)
    low, high = numpy.quantile(below / n, (0.025, 0.975))
    return float(low), float(high)


def cost_ms(tickets: int = 200, rooms: int = 4, rounds: int = 50) -> float:
    """What it costs to tell so many tickets their times, once; the median."""
    model = ServiceModel()
    open_rooms = [Room(DEPARTMENT, f"d{n}", 3_600.0, "first", 60.0 * n) for n in range(rooms)]
    queue = [
        Waiting("first" if n % 3 else "return", f"d{n % rooms}" if n % 5 == 0 else None)
        for n in range(tickets)
    ]
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        estimates(forecasts(model, open_rooms, queue), queue, UNCORRECTED)
        times.append((time.perf_counter() - began) * 1_000)
    return float(numpy.median(times))


def show(title: str, judged: Sequence[Judged]) -> None:
    print(f"\n{title}")
    print(f"{'':26}" + "".join(f"{distance:>13}" for distance in SHOWN))
    methods = list(dict.fromkeys(one.method for one in judged))
    rows: list[tuple[str, Callable[[Judged], str]]] = [
        ("n", lambda one: f"{one.n}"),
        ("MAE of P50, min", lambda one: f"{one.mae:.2f}"),
        ("bias of P50, min", lambda one: f"{one.bias:+.2f}"),
        ("P10 covers, %", lambda one: "" if one.coverage_p10 is None else f"{100 * one.coverage_p10:.1f}"),
        ("P50 covers, %", lambda one: f"{100 * one.coverage_p50:.1f}"),
        ("P90 covers, %", lambda one: "" if one.coverage_p90 is None else f"{100 * one.coverage_p90:.1f}"),
        (
            "  95 % interval",
            lambda one: (
                "" if one.interval is None else "{:.1f}-{:.1f}".format(*(100 * e for e in one.interval))
            ),
        ),
        ("pinball P50, min", lambda one: f"{one.pinball_p50:.2f}"),
        ("pinball P90, min", lambda one: "" if one.pinball_p90 is None else f"{one.pinball_p90:.2f}"),
    ]
    for method in methods:
        mine = {one.distance: one for one in judged if one.method == method}
        print(method)
        for label, cell in rows:
            cells = [cell(mine[distance]) if distance in mine else "" for distance in SHOWN]
            if any(cells):
                print(f"  {label:24}" + "".join(f"{text:>13}" for text in cells))


def draw(judged: Sequence[Judged], told: Sequence[Told], where: str, file: Path) -> None:
    """Coverage and error by distance, and how often each level of the forecast came true."""
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot

    colours = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7")
    with pyplot.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure, ((error, covered), (bias, waits)) = pyplot.subplots(
            2, 2, figsize=(12, 9), layout="constrained"
        )
        figure.suptitle(f"Xinglin · waiting times foretold, days of {JUDGED_YEAR}\n{where}", fontsize=12)
        at_starts = [one for one in judged if one.moment == "start"]
        for colour, method in zip(colours, dict.fromkeys(one.method for one in at_starts), strict=False):
            mine = [one for one in at_starts if one.method == method]
            x = [one.distance for one in mine]
            error.plot(x, [one.mae for one in mine], "o-", color=colour, label=method, markersize=4)
            bias.plot(x, [one.bias for one in mine], "o-", color=colour, label=method, markersize=4)
        error.set(title="Mean absolute error of P50", ylabel="minutes", ylim=(0, None))
        bias.set(title="Bias of P50 (above 0: told too long)", ylabel="minutes")
        bias.axhline(0, color="black", linewidth=0.8)
        error.legend()
        covered.axhspan(88, 92, color="#009E73", alpha=0.15, label="wanted")
        for moment, label, shift in (
            ("start", "when a turn comes", -0.1),
            ("clock", "every five minutes", 0.1),
        ):
            mine = [one for one in judged if one.moment == moment and one.coverage_p90 is not None]
            x90 = [one.distance + shift for one in mine]
            y90 = [100 * (one.coverage_p90 or 0) for one in mine]
            spread = [one.interval or (0.0, 0.0) for one in mine]
            covered.errorbar(
                x90,
                y90,
                [
                    [y - 100 * low for y, (low, _) in zip(y90, spread, strict=True)],
                    [100 * high - y for y, (_, high) in zip(y90, spread, strict=True)],
                ],
                fmt="o",
                markersize=4,
                capsize=2,
                label=label,
            )
        covered.set(title="P90 covers (95 % interval by days)", ylabel="%", ylim=(80, 100))
        covered.legend(loc="lower left")
        sample = [t for t in told if t.year == JUDGED_YEAR and t.moment == "start" and t.distance in REQUIRED]
        for colour, distance in zip(colours, REQUIRED, strict=False):
            here = [t for t in sample if t.distance == distance]
            waits.plot(
                [t.p50 / 60 for t in here],
                [t.waited / 60 for t in here],
                ".",
                color=colour,
                markersize=2.5,
                alpha=0.5,
                label=f"{distance} ahead",
            )
        longest = max(t.waited for t in sample) / 60
        waits.plot([0, longest], [0, longest], color="black", linewidth=0.8)
        waits.set(title="Told (P50) and waited", xlabel="P50, minutes", ylabel="waited, minutes")
        waits.set(xlim=(0, 200), ylim=(0, longest))
        waits.legend(markerscale=4)
        for axes in (error, covered, bias):
            axes.set_xlabel("people ahead, who is being served among them")
        figure.savefig(file, dpi=110)
        pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=DATA)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.file.exists():
        print(
            f"The data set is not here ({options.file.name}); docs/WAITING_TIME.md says where it comes from."
        )
        return 1
    days = read(options.file)
    learned = [day for day in days if day.year != JUDGED_YEAR]
    people = sum(len(session.starts) for day in days for session in day.sessions)
    print(f"{people} consultations on {len(days)} days: {len(learned)} to learn from, the rest foretold")

    ours = list(foretell(days))
    baselines = {
        "average per open desk": list(average_per_desk(days)),
        "moving average 0.3": list(moving_average(days)),
        "sum of kind means": list(sum_of_kind_means(days)),
    }
    everything: list[Judged] = []
    for moment, title in (
        ("start", "Told when a turn comes (people ahead, who is now being served among them)"),
        ("clock", "Told every five minutes, in the middle of consultations and pauses"),
    ):
        judged = judge("xinglin", ours, moment)
        for name, told in baselines.items():
            judged += judge(name, told, moment)
        show(title, judged)
        everything += judged
    parts: list[Judged] = []
    for variant in VARIANTS:
        parts += judge(variant.name, ours if variant is OURS else list(foretell(days, variant)), "start")
    show("What each part is worth (told when a turn comes)", parts)
    rooms: dict[int, list[Judged]] = {}
    for n in (2, 3, 5):
        rooms[n] = judge("xinglin", list(pooled(days, n)), "start")
        rooms[n] += judge("average per open desk", list(pooled(days, n, ours=False)), "start")
        show(f"{n} rooms for one queue, put together from real half days (place in the queue)", rooms[n])

    milliseconds = cost_ms()
    print(f"\n200 tickets in 4 rooms told their times in {milliseconds:.2f} ms")
    missed = [
        f"{one.moment} {one.distance}: {100 * one.coverage_p90:.1f} %"
        for one in everything
        if one.coverage_p90 is not None and not 0.88 <= one.coverage_p90 <= 0.92
    ]
    print("P90 covers 88 to 92 % at every distance" if not missed else f"P90 outside 88 to 92 %: {missed}")

    options.results.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}"
    where = f"{machine} · {datetime.now(UTC):%Y-%m-%d}"
    draw(everything, ours, where, options.results / "eta.png")
    (options.results / "eta.json").write_text(
        json.dumps(
            {
                "machine": machine,
                "consultations": people,
                "days_learned": len(learned),
                "days_judged": len(days) - len(learned),
                "rows": [asdict(one) for one in everything],
                "parts": [asdict(one) for one in parts],
                "rooms": {str(n): [asdict(one) for one in judged] for n, judged in rooms.items()},
                "ms_for_200_tickets": milliseconds,
            },
            indent=1,
        )
        + "\n"
    )
    print(f"{options.results / 'eta.png'}\n{options.results / 'eta.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
