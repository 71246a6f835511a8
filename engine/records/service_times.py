"""What the nights have learned of waiting times, and how good the forecasts of each day were.

A day is learned once and after all days before it: `keep` writes the whole of it or nothing. Whoever asks for
what was known on a day gets what the days before it have taught, and nothing of that day or a later one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import asyncpg
import orjson

from engine.domain.calibration import Calibration, Score
from engine.domain.service_times import NOTHING_SEEN, Tally, tally_of_plain

DAYS_KEPT: Final = 8
"""Of the model and its calibrations; what is older has been overtaken. Reports stay."""
CATCH_UP_MAX: Final = 60
"""Days without learning that one night makes up for; the next one goes on."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known after a day."""

    day: date | None = None  # None: nothing was ever learned
    seen: Tally = NOTHING_SEEN
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """By department."""


@dataclass(frozen=True, slots=True)
class Night:
    """A day that was learned from, as lists show it."""

    day: date
    learned_at: datetime
    visits: int
    told: int


@dataclass(frozen=True, slots=True)
class Reported:
    day: date
    department_id: str
    distance: int
    score: Score


async def latest(executor: asyncpg.Pool | asyncpg.Connection, before: date) -> Learned:
    """What was known in the morning of that day."""
    row = await executor.fetchrow(
        "select day, data::text from service_time_model where day < $1 order by day desc limit 1", before
    )
    if row is None:
        return Learned()
    rows = await executor.fetch(
        "select department_id, data::text from waiting_time_calibration where day = $1", row["day"]
    )
    calibrations = {one["department_id"]: _calibration(orjson.loads(one["data"])) for one in rows}
    return Learned(row["day"], tally_of_plain(orjson.loads(row["data"])), calibrations)


async def last_day(executor: asyncpg.Pool | asyncpg.Connection, before: date) -> date | None:
    """Of `latest`, without reading all of it."""
    found: date | None = await executor.fetchval(
        "select max(day) from service_time_model where day < $1", before
    )
    return found


async def days_to_learn(executor: asyncpg.Pool | asyncpg.Connection, before: date) -> list[date]:
    """Days with patients that nobody has learned from yet, the first one first, and at most CATCH_UP_MAX."""
    rows = await executor.fetch(
        "select distinct day from ticket"
        " where day > coalesce((select max(day) from service_time_model), '-infinity') and day < $1"
        " order by day limit $2",
        before,
        CATCH_UP_MAX,
    )
    return [row["day"] for row in rows]


async def departments_of(executor: asyncpg.Pool | asyncpg.Connection, day: date) -> list[str]:
    """Those that had patients in their waiting room."""
    rows = await executor.fetch("select distinct department_id from ticket where day = $1 order by 1", day)
    return [row["department_id"] for row in rows]


async def keep(
    connection: asyncpg.Connection,
    learned: Learned,
    learned_at: datetime,
    visits: int,
    told: int,
    scores: Mapping[str, Mapping[int, Score]],
) -> bool:
    """`scores`: of this day, by department and distance. False: the day was learned before, and all stays."""
    assert learned.day is not None
    async with connection.transaction():
        done = await connection.fetchval(
            "insert into service_time_model (day, learned_at, visits, told, data)"
            " select $1, $2, $3, $4, $5::jsonb"
            "  where $1 > coalesce((select max(day) from service_time_model), '-infinity')"
            " on conflict do nothing returning true",
            learned.day,
            learned_at,
            visits,
            told,
            orjson.dumps(learned.seen.plain()).decode(),
        )
        if not done:
            return False
        await connection.executemany(
            "insert into waiting_time_calibration (day, department_id, data) values ($1, $2, $3::jsonb)",
            [
                (learned.day, department_id, orjson.dumps(_plain(calibration)).decode())
                for department_id, calibration in learned.calibrations.items()
            ],
        )
        await connection.executemany(
            "insert into waiting_time_report values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            [
                (
                    learned.day, department_id, distance, score.n, score.below_p10, score.below_p50,
                    score.below_p90, score.error, score.absolute_error, score.pinball_p50, score.pinball_p90,
                )
                for department_id, by_distance in scores.items()
                for distance, score in by_distance.items()
            ],
        )  # fmt: skip
        await connection.execute(
            "delete from service_time_model where day <="
            " (select day from service_time_model order by day desc offset $1 limit 1)",
            DAYS_KEPT,
        )
    return True


async def report(
    executor: asyncpg.Pool | asyncpg.Connection,
    first: date,
    last: date,
    departments: Sequence[str] | None = None,
) -> list[Reported]:
    """Of the days from `first` to `last`, both in it; None: of all departments."""
    rows = await executor.fetch(
        "select day, department_id, distance, n, below_p10, below_p50, below_p90, error, absolute_error,"
        "       pinball_p50, pinball_p90 from waiting_time_report"
        " where day between $1 and $2 and ($3::text[] is null or department_id = any ($3))"
        " order by day, department_id, distance",
        first,
        last,
        departments,
    )
    return [Reported(row[0], row[1], row[2], Score(*row[3:])) for row in map(tuple, rows)]


async def nights(executor: asyncpg.Pool | asyncpg.Connection) -> list[Night]:
    """Latest first."""
    rows = await executor.fetch(
        "select day, learned_at, visits, told from service_time_model order by day desc"
    )
    return [Night(*row) for row in rows]


# Most bins are empty at a distance that few have seen: a bin is kept where something is in it.


def _plain(calibration: Calibration) -> list[list[list[float]]]:
    return [
        [[n, round(count, 6)] for n, count in enumerate(counts) if count > 1e-6]
        for counts in calibration.plain()
    ]


def _calibration(plain: Sequence[Sequence[Sequence[Any]]]) -> Calibration:
    counts = [list(knot) for knot in Calibration().plain()]
    for knot, bins in zip(counts, plain, strict=True):
        for n, count in bins:
            knot[int(n)] = float(count)
    return Calibration(tuple(map(tuple, counts)))
