"""How many seats beyond the plan (加号) a week's sessions bear, before the week is published.

Chances of not coming are what the latest weeks have shown for like sessions; how long a consultation takes is
given, or what is believed of this practitioner. Who is given an added seat is taken to come, unless the
question says otherwise: added seats then are rather too few than too many.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from math import inf
from typing import Annotated, Final, Literal

import asyncpg
from aiohttp import web
from pydantic import Field

from engine.domain.calendar import SessionTemplate
from engine.domain.limits import SLOT_MINUTES
from engine.domain.no_show_night import Rates, Share
from engine.domain.overbooking import Limit, Outlook, Slot, Template
from engine.domain.service_times import DAYS_DIFFER, NOTHING_SEEN, LogNormal, ServiceModel, learn
from engine.records import service_times
from engine.views.booked_time import BookedTime, booked_time, log_normal
from engine.views.what_if import Asked, Foreseen, pack_asked, unpack_foreseen
from web import keys
from web.auth import Staff
from web.desk.day import must_manage
from web.desk.templates import SESSIONS_MAX, TemplateBody, templates_of
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.own_process import child_environment
from web.patient.bodies import Period, Request, WordPath

SECONDS_MAX: Final = 45.0  # a week of five sessions takes about ten on one free core
AT_A_TIME: Final = 1  # of one gateway; whoever comes second is told to come again
SEATS_MAX: Final = 200  # of a session: beyond that nobody reckons in time
_running: Final = asyncio.Semaphore(AT_A_TIME)


class ServiceBody(Request):
    """一次就诊的时长 / how long a consultation takes, with the pause after it."""

    minutes: Annotated[float, Field(gt=0, le=240, description="平均分钟 / mean")]
    minutes_sd: Annotated[float, Field(gt=0, le=240, description="标准差，分钟 / standard deviation")]


class WhatIfBody(Request):
    templates: Annotated[
        list[TemplateBody],
        Field(min_length=1, max_length=SESSIONS_MAX, description="同修改出诊模板 / as for changing the week"),
    ]
    wait_minutes: Annotated[
        float, Field(gt=0, le=480, description="等候上限 X，分钟 / the wait that is too long")
    ] = 45.0
    chance_max: Annotated[
        float, Field(gt=0, lt=1, description="任何号等候超过 X 的概率上限 / of no seat may it be above")
    ] = 0.15
    overtime_minutes_max: Annotated[
        float | None, Field(ge=0, le=480, description="预计超时上限，分钟 / expected overtime, at most")
    ] = None
    extra_absent: Annotated[
        float,
        Field(ge=0, le=0.9, description="加号患者的爽约概率 / of who is given an added seat: not coming"),
    ] = 0.0
    extras_max: Annotated[int, Field(ge=1, le=20, description="最多算到几个 / look no further")] = 12
    service: Annotated[
        ServiceBody | None, Field(description="默认为该医生的就诊时长 / by default this practitioner's")
    ] = None


@dataclass(frozen=True, slots=True)
class ExtraSeatsAnswer:
    """加若干号之后 / with so many added."""

    added: int
    by_slot: Annotated[list[int], Field(description="各时段所加 / added to each slot, in order")]
    long_wait: Annotated[
        float, Field(description="最不利的号等候超过 X 的概率 / P(wait > X) of the worst seat")
    ]
    long_waits: Annotated[list[float], Field(description="各时段最后一号 / of each slot's last seat")]
    share: Annotated[
        float, Field(description="来者中等候超过 X 的比例 / of all who come, those who wait longer")
    ]
    wait_minutes: Annotated[float, Field(description="平均等候 / mean wait")]
    seen: Annotated[float, Field(description="预计就诊人数 / people seen, expected")]
    idle_minutes: float
    overtime_minutes: Annotated[float, Field(description="预计超时 / past the end, expected")]
    keeps: Annotated[bool, Field(description="是否在上限之内 / within the limits")]


@dataclass(frozen=True, slots=True)
class AbsenceAnswer:
    start: str
    chance: Annotated[float, Field(description="该时段爽约概率 / of not coming")]
    visits: Annotated[int, Field(description="所依据的就诊数 / visits that it is of")]
    group: Annotated[
        Literal["session", "practitioner", "department", "hospital", "assumed"],
        Field(description="有数据的最小范围 / the smallest group that has any"),
    ]


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    minutes: float
    minutes_sd: float
    source: Annotated[
        Literal["given", "learned", "assumed"],
        Field(description="请求所给、学得、假定 / given with the question, learned, or assumed"),
    ]
    turns: Annotated[
        int, Field(description="该医生本人的就诊次数 / turns of this very practitioner that speak for it")
    ]


@dataclass(frozen=True, slots=True)
class SessionWhatIfAnswer:
    weekday: int
    period: Period
    seats: Annotated[int, Field(description="计划号数 / seats of the plan")]
    most: Annotated[
        int | None, Field(description="可安全加号数；null 为无法计算 / may be added; null: not reckoned")
    ]
    why: Annotated[
        Literal["too_large", "too_long", "too_full"] | None,
        Field(
            description="too_large：号太多，未计算；too_long：时间不够，未算到；too_full：计划本身已超上限 /"
            " too many seats to reckon; there was no time left for it; the plan alone is past the limit"
        ),
    ]
    curve: list[ExtraSeatsAnswer]
    absences: list[AbsenceAnswer]
    service: ServiceAnswer


@dataclass(frozen=True, slots=True)
class WhatIfAnswer:
    source: Annotated[
        Literal["model", "share", "assumed"],
        Field(description="爽约概率的来源：模型、比例、假定 / the model's chances, plain shares, or assumed"),
    ]
    absences_differ: Annotated[
        float, Field(description="同一半天共有的波动 / variance of log-odds that people of one session share")
    ]
    wait_minutes: float
    chance_max: float
    sessions: list[SessionWhatIfAnswer]


@api.route(
    "POST",
    "/api/v1/desk/practitioners/{id}/templates/what-if",
    zh="出诊模板的安全加号测算",
    tags=["desk"],
    errors=[
        Fault.NO_SUCH_PRACTITIONER,
        Fault.INVALID_WEEK,
        Fault.WHAT_IF_BUSY,
        Fault.DATABASE_DOWN,
    ],
)
async def what_if_seats_were_added(
    request: web.Request, *, staff: Staff, path: WordPath, body: WhatIfBody
) -> WhatIfAnswer:
    """How many seats may be added to each session of a week as it is to be, and what each one more would do.

    Nothing is written. It takes seconds: of two that are asked at once the second is told to come again."""
    app = request.app
    if path.id not in app[keys.AVAILABILITY].catalog.practitioners:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)
    templates = templates_of(app, path.id, body.templates)
    must_manage(app, staff, path.id, {template.department_id for template in templates})
    night = (await app[keys.NIGHTS].latest()).night
    times = app[keys.BOOKED_TIMES]
    await times.read(datetime.now(UTC).astimezone(app[keys.ZONE]).date())
    service = [_service(body.service, times.of(one.department_id, path.id)) for one in templates]
    absences = [_absences(night.rates, one) for one in templates]
    limit = Limit(
        body.wait_minutes,
        body.chance_max,
        inf if body.overtime_minutes_max is None else body.overtime_minutes_max,
    )
    fitting = [n for n, one in enumerate(templates) if _seats(one) <= SEATS_MAX]
    asked = Asked(
        tuple(_template(templates[n], absences[n], service[n], night.absences_differ) for n in fitting),
        limit,
        body.extra_absent,
        body.extras_max,
    )
    found = dict(zip(fitting, await _reckoned(asked), strict=False))
    source: Literal["model", "share", "assumed"] = "share" if night.model is None else "model"
    return WhatIfAnswer(
        "assumed" if not night.rows else source,
        night.absences_differ,
        body.wait_minutes,
        body.chance_max,
        [_answer(one, found.get(n), limit, absences[n], service[n]) for n, one in enumerate(templates)],
    )


@dataclass(frozen=True, slots=True)
class _Service:
    time: LogNormal
    days_differ: float
    source: Literal["given", "learned", "assumed"]
    turns: int


class BookedTimes:
    """How long booked patients take, as the last night has learned it; read again after a later one."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._day: date | None = None
        self._seen, self._model = NOTHING_SEEN, ServiceModel()

    async def read(self, before: date) -> None:
        day = await service_times.last_day(self._pool, before)
        if day is not None and day != self._day:
            seen = (await service_times.latest(self._pool, before)).seen
            # A quarter of a second for 300 practitioners: others have their turn between.
            self._model = await asyncio.to_thread(learn, seen)
            self._seen, self._day = seen, day

    def of(self, department_id: str, practitioner_id: str) -> BookedTime:
        return booked_time(self._seen, self._model, department_id, practitioner_id)


def _service(given: ServiceBody | None, known: BookedTime) -> _Service:
    if given is not None:
        time = log_normal(given.minutes * 60, (given.minutes_sd * 60) ** 2)
        return _Service(time, DAYS_DIFFER, "given", 0)
    return _Service(
        known.time, known.days_differ, "learned" if known.learned else "assumed", round(known.turns)
    )


def _starts(one: SessionTemplate) -> list[int]:
    """Minutes of the day at which its slots begin."""
    return list(range(_minute(one.starts), _minute(one.ends) - SLOT_MINUTES + 1, SLOT_MINUTES))


def _minute(at: time) -> int:
    return at.hour * 60 + at.minute


def _seats(one: SessionTemplate) -> int:
    return one.capacity * len(_starts(one))


def _absences(rates: Rates, one: SessionTemplate) -> list[Share]:
    return [
        rates.share(one.department_id, one.practitioner_id, one.weekday - 1, minute // 60)
        for minute in _starts(one)
    ]


def _template(one: SessionTemplate, absences: list[Share], service: _Service, differ: float) -> Template:
    return Template(
        tuple(
            Slot(minute, (share.chance,) * one.capacity)
            for minute, share in zip(_starts(one), absences, strict=True)
        ),
        _minute(one.ends),
        service.time,
        service.days_differ,
        differ,
    )


async def _reckoned(asked: Asked) -> list[Foreseen]:
    """Of the first sessions as many as the time was enough for. Raises Problem when somebody else's question
    is being reckoned."""
    found: list[Foreseen] = []
    if not asked.sessions:
        return found
    if _running.locked():
        raise Problem(Fault.WHAT_IF_BUSY)
    async with _running:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "engine.views.what_if",
            env=child_environment({}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(SECONDS_MAX):
                process.stdin.write(pack_asked(asked))
                process.stdin.close()
                while line := await process.stdout.readline():
                    found.append(unpack_foreseen(line))
                await process.wait()
        except TimeoutError:
            return found
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    if process.returncode:
        raise RuntimeError(f"the what-if ended with {process.returncode}")  # it has said why in the log
    return found


def _answer(
    one: SessionTemplate, found: Foreseen | None, limit: Limit, absences: list[Share], service: _Service
) -> SessionWhatIfAnswer:
    why: Literal["too_large", "too_long", "too_full"] | None = None
    if found is None:
        why = "too_large" if _seats(one) > SEATS_MAX else "too_long"
    elif not limit.keeps(found.curve[0]):
        why = "too_full"
    spread = service.time.square - service.time.mean**2
    return SessionWhatIfAnswer(
        one.weekday,
        one.period,  # type: ignore[arg-type]  # the template's words are the contract's
        _seats(one),
        None if found is None else found.most,
        why,
        [] if found is None else [_outlook(look, limit) for look in found.curve],
        [
            AbsenceAnswer(
                f"{minute // 60:02}:{minute % 60:02}",
                round(share.chance, 4),
                share.rows,
                share.group,  # type: ignore[arg-type]
            )
            for minute, share in zip(_starts(one), absences, strict=True)
        ],
        ServiceAnswer(
            round(service.time.mean / 60, 2), round(spread**0.5 / 60, 2), service.source, service.turns
        ),
    )


def _outlook(look: Outlook, limit: Limit) -> ExtraSeatsAnswer:
    return ExtraSeatsAnswer(
        look.added,
        list(look.extras),
        round(look.worst, 4),
        [round(one, 4) for one in look.long_waits],
        round(look.share, 4),
        round(look.wait_minutes, 1),
        round(look.seen, 2),
        round(look.idle_minutes, 1),
        round(look.overtime_minutes, 1),
        limit.keeps(look),
    )
