"""Whom to ring before the day: those whose call is worth most, and what came of ringing them.

The worth of a call is the seats that are used and would not have been, expected: of those who would not come
some are reached, of these some come after all and some give their number back, and a number that is given
back is taken by somebody else with some chance. The shares are assumed (engine.domain.no_show.Answer).
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import Field

from engine.domain import schedule as s
from engine.domain.by import by_staff
from engine.domain.ids import ScheduleKey
from engine.domain.limits import ANSWER_MS_MAX
from engine.domain.no_show import Callee, calling_list
from engine.domain.no_show_night import Night
from engine.domain.refusal import Reason
from engine.records import appointments, no_show_models
from engine.records import no_show_calls as records
from engine.records.identity import masked_phone
from engine.records.no_show_calls import Ahead, Call, Outcome
from engine.records.no_show_models import Told
from web import keys
from web.auditing import audited
from web.auth import Staff, may_manage
from web.desk.schedules import masked, now_ms
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import OVERLOAD, WORDS, answered, uuid
from web.patient.bodies import Id, IdPath, IsoDate, Request, StatusWord, Word
from web.patient.pages import CHANNEL
from web.rights.matrix import MATRIX

"""These see names and telephone numbers in full; the others have them masked."""
REFILL_WANTED: Final = 1.0
"""The chance that a number given back is taken: somebody waits for one …"""
REFILL_FULL: Final = 0.5
"""… nobody waits, but all others of the day are taken (assumed) …"""
REFILL_FREE: Final = 0.0
"""… there are free ones anyhow."""
SAID_SO: Final = "电话确认不来 / said so on the telephone."
SCALE: Final = 1_000_000_000

OutcomeWord = Literal["will_come", "will_not_come", "not_reached"]


class CallingListQuery(Request):
    department: Annotated[Word, Field(description="科室；一级科室含其下级 / with those below it")]
    day: Annotated[IsoDate, Field(description="就诊日期 / of the visits")]
    after: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]{1,18}\.[0-9a-f]{32}$", description="上一页的 after / as the last page gave it"
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class CallBody(Request):
    outcome: Annotated[
        OutcomeWord,
        Field(description="会来、不来（退号）、未接通 / comes; does not, and gives it back; not reached"),
    ]
    note: Annotated[str, Field(max_length=500, description="备注 / what was said")] = ""


@dataclass(frozen=True, slots=True)
class LearnedAnswer:
    """概率的来源 / where the chances come from."""

    source: Annotated[
        Literal["model", "share"],
        Field(description="model：模型；share：同类就诊的爽约比例 / or the plain share of like visits"),
    ]
    why: Annotated[
        Literal["too_few", "not_judged", "no_better"] | None,
        Field(description="未用模型的原因 / why no model is used"),
    ]
    learned_at: datetime | None
    visits: Annotated[int, Field(description="学习所用就诊数 / visits that were learned from")]
    auc: Annotated[
        float | None, Field(description="最近一周的 AUC / on the latest week, not seen in learning")
    ]


@dataclass(frozen=True, slots=True)
class ReasonAnswer:
    fact: str
    value: str
    points: Annotated[
        float, Field(description="对数几率；正数为更可能爽约 / log-odds; above 0: less likely to come")
    ]


@dataclass(frozen=True, slots=True)
class FactsAnswer:
    lead_days: Annotated[int, Field(description="提前几天预约 / booked so many days before")]
    earlier: Annotated[int, Field(description="以往就诊数 / earlier visits whose outcome is known")]
    earlier_missed: Annotated[int, Field(description="其中爽约 / of these missed")]
    last_missed: Annotated[bool | None, Field(description="上次是否爽约 / whether the last one was missed")]
    days_since_last: int | None
    others_that_day: Annotated[int, Field(description="同日其他预约 / other numbers on that day")]


@dataclass(frozen=True, slots=True)
class CallAnswer:
    at: datetime
    outcome: OutcomeWord
    note: str
    by_name: str


@dataclass(frozen=True, slots=True)
class CalleeAnswer:
    appointment_id: Id
    schedule_id: str
    slot_id: str
    starts_at: datetime
    number: int
    practitioner_name: str | None
    department_id: str
    chance: Annotated[float, Field(description="爽约概率 / of not coming")]
    refill: Annotated[float, Field(description="退号后被约走的概率 / that somebody else takes the number")]
    like: Annotated[
        int | None,
        Field(description="所依据的同类就诊数（未用模型时）/ without a model: visits that the share is of"),
    ]
    facts: FactsAnswer
    reasons: Annotated[list[ReasonAnswer], Field(description="主要依据 / what speaks loudest")]
    calls: Annotated[list[CallAnswer], Field(description="已拨打，最近在前 / calls so far, latest first")]


@dataclass(frozen=True, slots=True)
class ToRingAnswer:
    """一位患者，一通电话 / one patient, one call."""

    patient_id: Id
    patient_name: Annotated[str, Field(description="无拨打权限者已脱敏 / masked for roles that do not ring")]
    phone: Annotated[
        str | None, Field(description="无拨打权限者已脱敏；null 为无 / masked likewise; null: none is known")
    ]
    gain: Annotated[
        float, Field(description="预计多用的号数 / seats used that would not have been, expected")
    ]
    numbers: list[CalleeAnswer]


@dataclass(frozen=True, slots=True)
class CallingListAnswer:
    department_id: str
    day: date
    learned: LearnedAnswer
    people: Annotated[list[ToRingAnswer], Field(description="按收益从高到低 / those worth most first")]
    total: Annotated[int, Field(description="名单总人数 / people on the whole list")]
    left_out: Annotated[
        int, Field(description="过多而未列入的号数 / numbers that were too many to be listed")
    ]
    after: Annotated[
        str | None,
        Field(description="下一页的 after；没有更多则为 null / for the next page; null at the end"),
    ]


@dataclass(frozen=True, slots=True)
class CalledAnswer:
    appointment_id: Id
    outcome: OutcomeWord
    status: Annotated[StatusWord, Field(description="之后的预约状态 / of the number, afterwards")]
    will_come: bool


@dataclass(frozen=True, slots=True)
class _Told:
    """A number, its chance, and what giving it back would be worth."""

    ahead: Ahead
    told: Told
    refill: float


@api.route(
    "GET",
    "/api/v1/desk/calling-list",
    zh="电话确认名单",
    tags=["desk"],
    errors=[Fault.NO_SUCH_DEPARTMENT, Reason.IN_THE_PAST, Fault.DATABASE_DOWN],
)
async def read_calling_list(
    request: web.Request, *, staff: Staff, query: CallingListQuery
) -> CallingListAnswer:
    """Whom to ring about a day of a department, the calls worth most first; who has confirmed is left out.

    Names and telephone numbers are whole for roles that ring, masked for the office; every page that is read
    is noted."""
    app = request.app
    now = datetime.now(UTC)
    zone = app[keys.ZONE]
    catalog = app[keys.AVAILABILITY].catalog
    if query.department not in catalog.departments:
        raise Problem(Fault.NO_SUCH_DEPARTMENT)
    if not may_manage(staff, query.department, "", catalog.departments):
        raise Problem(Fault.FORBIDDEN)
    if query.day < now.astimezone(zone).date():
        raise Problem(Reason.IN_THE_PAST)
    departments = app[keys.AVAILABILITY].departments_below(query.department)
    first = datetime.combine(query.day, time.min, zone)
    end = datetime.combine(query.day + timedelta(1), time.min, zone)
    pool = app[keys.POOL]
    found, counted = await records.ahead(pool, app[keys.VAULT], departments, first, end, now)
    learned = await app[keys.NIGHTS].latest()
    told = await _told(app, learned.night, found, departments, query.day, now)
    of = {one.ahead.appointment_id.hex(): one for one in told}
    people = sorted(
        (-round(call.gain * SCALE), call.patient_id, call.appointment_ids)
        for call in calling_list(
            [
                Callee(
                    one.ahead.appointment_id.hex(), one.ahead.patient_id.hex(), one.told.chance, one.refill
                )
                for one in told
            ],
            len(told),
        )
    )
    rest = [one for one in people if query.after is None or one[:2] > _place(query.after)]
    page = rest[: query.limit]
    in_full = MATRIX["read_calling_list"].seen_by_any(staff.roles) == "phones"
    patients = [bytes.fromhex(patient_id) for _, patient_id, _ in page]
    listed = [bytes.fromhex(one) for _, _, ids in page for one in ids]
    calls = await records.calls_about(pool, app[keys.VAULT], listed)
    if page:
        async with pool.acquire() as connection, connection.transaction():
            await records.note_look(connection, staff.id, query.department, query.day, patients, in_full, now)
            await audited(
                request,
                connection,
                "calling_list_read",
                subjects=patients,
                object=("department", query.department),
                detail={"day": query.day.isoformat(), "in_full": in_full},
            )
    judged = learned.night.judged
    return CallingListAnswer(
        query.department,
        query.day,
        LearnedAnswer(
            "share" if learned.night.model is None else "model",
            learned.night.why,  # type: ignore[arg-type]  # the table's words are the contract's
            None if learned.learned_at is None else learned.learned_at.astimezone(zone),
            learned.night.rows,
            None if judged is None else judged.auc,
        ),
        [_to_ring(app, gain, [of[one] for one in ids], calls, in_full) for gain, _, ids in page],
        len(people),
        counted - len(found),
        f"{-page[-1][0]}.{page[-1][1]}" if len(rest) > query.limit else None,
    )


@api.route(
    "POST",
    "/api/v1/desk/appointments/{id}/calls",
    zh="登记电话确认结果",
    tags=["desk"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.WRONG_STATE,
        Reason.SLOT_PAST,
        Reason.SESSION_SUSPENDED,
        Reason.KEY_REUSED,
        *OVERLOAD,
    ],
)
async def note_call(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: CallBody
) -> CalledAnswer:
    """What came of ringing somebody about a number ahead. Who will come has confirmed; who will not gives the
    number back with that. The call is noted even where the number can no longer be changed."""
    app = request.app
    found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], path.id.bytes)
    if found is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    key = ScheduleKey.of_schedule(found.schedule_id)
    assert key is not None
    if not may_manage(
        staff, found.department_id, key.practitioner_id, app[keys.AVAILABILITY].catalog.departments
    ):
        raise Problem(Fault.FORBIDDEN)
    now = datetime.now(UTC)
    outcome = Outcome(body.outcome)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        noted = await records.note_call(
            connection, app[keys.VAULT], found.id, outcome, body.note, staff.id, idempotency_key, now
        )
        if not noted:
            raise Problem(Reason.KEY_REUSED)
        await audited(
            request,
            connection,
            "call_noted",
            subjects=(found.patient_id,),
            object=("appointment", uuid(found.id)),
            detail={"outcome": outcome.value},
        )
    deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
    status, will_come = found.status, found.will_come
    match outcome:
        case Outcome.WILL_COME:
            confirm = s.ConfirmAttendance(found.id, found.account_id)
            status = answered(await app[keys.DIRECTORY].ask(key.stream, confirm, deadline)).status
            will_come = True
        case Outcome.WILL_NOT_COME:
            # What the patient said besides stays with the call, sealed: the journal is for everybody's eyes.
            cancel = s.CancelAppointment(found.id, found.account_id, by_staff(staff.id), SAID_SO)
            status = answered(await app[keys.DIRECTORY].ask(key.stream, cancel, deadline)).status
        case Outcome.NOT_REACHED:
            pass
    return CalledAnswer(uuid(found.id), outcome.value, WORDS[status], will_come)


async def _told(
    app: web.Application,
    night: Night,
    found: Sequence[Ahead],
    departments: Collection[str],
    day: date,
    now: datetime,
) -> list[_Told]:
    pool = app[keys.POOL]
    patients = {one.appointment_id: one.patient_id for one in found}
    told = await no_show_models.chances(pool, night, patients, app[keys.ZONE], now)
    wanted = await records.waiting_at(pool, departments)
    left = _left(app, departments, day)

    def refill(schedule_id: str) -> float:
        if wanted.get(schedule_id):
            return REFILL_WANTED
        return REFILL_FREE if left.get(schedule_id) else REFILL_FULL

    return [
        _Told(one, told[one.appointment_id], refill(one.schedule_id))
        for one in found
        if one.appointment_id in told
    ]


def _left(app: web.Application, departments: Collection[str], day: date) -> dict[str, int]:
    """Schedule -> seats that patients could take now."""
    availability, now = app[keys.AVAILABILITY], now_ms()
    return {
        row.id: sum(slot.remaining for slot in availability.slots(row, CHANNEL, now))
        for department_id in departments
        for row in availability.schedules(department_id=department_id, first=day, last=day)
    }


def _place(after: str) -> tuple[int, str]:
    gain, _, patient_id = after.partition(".")
    return -int(gain), patient_id


def _to_ring(
    app: web.Application, gain: int, told: Sequence[_Told], calls: Mapping[bytes, list[Call]], in_full: bool
) -> ToRingAnswer:
    first = told[0].ahead
    name, phone = first.patient_name, first.phone
    if not in_full:
        name, phone = masked(name), None if phone is None else masked_phone(phone)
    return ToRingAnswer(
        uuid(first.patient_id),
        name,
        phone,
        -gain / SCALE,
        [_callee(app, one, calls.get(one.ahead.appointment_id, ())) for one in told],
    )


def _callee(app: web.Application, told: _Told, calls: Sequence[Call]) -> CalleeAnswer:
    one, basis, zone = told.ahead, told.told, app[keys.ZONE]
    facts = basis.facts
    practitioner = app[keys.AVAILABILITY].catalog.practitioners.get(one.schedule_id.rpartition("-")[0])
    return CalleeAnswer(
        uuid(one.appointment_id),
        one.schedule_id,
        one.slot_id,
        one.starts_at.astimezone(zone),
        one.number,
        None if practitioner is None else practitioner.name,
        one.department_id,
        round(basis.chance, 4),
        told.refill,
        None if basis.share is None else basis.share.rows,
        FactsAnswer(
            facts.lead_days,
            facts.ahead + facts.same_day,
            facts.ahead_missed + facts.same_day_missed,
            facts.last_missed,
            facts.days_since,
            facts.others_that_day,
        ),
        [ReasonAnswer(fact, value, round(points, 3)) for fact, value, points in basis.reasons],
        [CallAnswer(call.at.astimezone(zone), call.outcome.value, call.note, call.by_name) for call in calls],
    )
