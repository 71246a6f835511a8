"""How good the waiting times were that patients were told, as the staff see it (docs/WAITING_TIME.md)."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field

from engine.domain.calibration import Score
from engine.records import service_times as records
from web import keys
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IsoDate, Request, Word

DAYS_DEFAULT: Final = 28
DAYS_MAX: Final = 366


class CalibrationQuery(Request):
    from_: Annotated[
        IsoDate | None, Field(alias="from", description="默认四周前 / four weeks ago by default")
    ] = None
    to: Annotated[IsoDate | None, Field(description="默认今天 / today by default")] = None
    department: Annotated[
        Word | None, Field(description="科室；一级科室含其下级，默认全院 / with those below; all by default")
    ] = None


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """一组预估与实际叫号时间的比较 / estimates against when they were called."""

    n: Annotated[int, Field(description="预估次数 / estimates that were judged")]
    coverage_p10: Annotated[float, Field(description="叫号早于 P10 的比例，应为 0.1 / wanted: 0.1")]
    coverage_p50: Annotated[float, Field(description="应为 0.5 / wanted: 0.5")]
    coverage_p90: Annotated[float, Field(description="应为 0.9（0.88 至 0.92）/ wanted: 0.88 to 0.92")]
    mean_absolute_error_minutes: Annotated[float, Field(description="P50 的平均误差 / of P50")]
    bias_minutes: Annotated[
        float, Field(description="P50 平均多报（正）或少报（负）/ above 0: P50 was too long")
    ]


@dataclass(frozen=True, slots=True)
class DayScoreAnswer:
    day: Annotated[str, Field(json_schema_extra={"format": "date"})]
    score: ScoreAnswer


@dataclass(frozen=True, slots=True)
class DistanceScoreAnswer:
    ahead: Annotated[
        int,
        Field(
            description="每个诊室前面还有几位（含就诊中的）/ turns ahead at each room, the one that runs too"
        ),
    ]
    score: ScoreAnswer


@dataclass(frozen=True, slots=True)
class CalibrationAnswer:
    learned_until: Annotated[
        str | None,
        Field(json_schema_extra={"format": "date"}, description="已学到哪一天 / the last day that is in it"),
    ]
    all: Annotated[ScoreAnswer | None, Field(description="null：这段时间没有 / nothing was judged")]
    by_day: list[DayScoreAnswer]
    by_distance: list[DistanceScoreAnswer]


@api.route(
    "GET",
    "/api/v1/desk/waiting-times/calibration",
    zh="候诊时间预估的准确度",
    tags=["desk"],
    errors=[Fault.DATABASE_DOWN],
)
async def read_calibration(request: web.Request, *, query: CalibrationQuery) -> CalibrationAnswer:
    """By day and by distance: how often P10, P50 and P90 held, and by how much P50 was wrong. A day is judged
    in the night after it, with what was known on its morning."""
    app = request.app
    today = datetime.now(app[keys.ZONE]).date()
    last = query.to or today
    first = query.from_ or last - timedelta(days=DAYS_DEFAULT)
    if not first <= last <= first + timedelta(days=DAYS_MAX):
        raise Problem(Fault.INVALID_QUERY, errors=[Entry(["query", "from"], "out_of_range")])
    departments = None
    if query.department is not None:
        departments = sorted(app[keys.AVAILABILITY].departments_below(query.department))
    found = await records.report(app[keys.POOL], first, last, departments)
    until = await records.last_day(app[keys.POOL], today + timedelta(days=1))
    days: dict[date, Score] = {}
    distances: dict[int, Score] = {}
    for one in found:
        days[one.day] = days.get(one.day, Score()) + one.score
        distances[one.distance] = distances.get(one.distance, Score()) + one.score
    return CalibrationAnswer(
        None if until is None else until.isoformat(),
        _score(sum(days.values(), Score())) if days else None,
        [DayScoreAnswer(day.isoformat(), _score(score)) for day, score in sorted(days.items())],
        [DistanceScoreAnswer(ahead, _score(score)) for ahead, score in sorted(distances.items())],
    )


def _score(score: Score) -> ScoreAnswer:
    n = max(1, score.n)
    return ScoreAnswer(
        score.n,
        round(score.below_p10 / n, 4),
        round(score.below_p50 / n, 4),
        round(score.below_p90 / n, 4),
        round(score.absolute_error / n / 60, 2),
        round(score.error / n / 60, 2),
    )
