"""A practitioner's week at the desk: templates, and the dates that are not as the week has them.

What is written here is published at once for days on which nothing happened yet. Opened days keep their plan;
the answer names them and what would have to be asked of them. With ?preview=true nothing is written.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import Field

from engine.domain.calendar import SessionOverride, SessionTemplate
from engine.domain.ids import derived
from engine.domain.limits import NUMBER_MAX, SLOT_CAPACITY_MAX
from engine.domain.refusal import Reason
from engine.records import change_requests, weeks
from engine.records.change_requests import NewRequest
from engine.records.hospital_rules import FEE_FEN_MAX
from engine.records.request_keys import KeyUse, use_key
from engine.records.weeks import FollowedDay, Week, WeekChange, WeekChanged
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.desk.day import must_manage
from web.desk.schedule_bodies import Clock, Note, PendingAnswer
from web.desk.schedules import pending, role_needed
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IsoDate, Period, Request, Word, WordPath

SESSIONS_MAX: Final = 21  # three a day
WORD: Final = "change_template"

_WRITING: Final[list[Reason | Fault]] = [
    Fault.NO_SUCH_PRACTITIONER,
    Fault.INVALID_WEEK,
    Reason.STALE_REVISION,
    Reason.IN_THE_PAST,
    Reason.KEY_REUSED,
    Fault.DATABASE_DOWN,
]


class PreviewQuery(Request):
    preview: Annotated[bool, Field(description="只看影响，不保存 / only say what it would do")] = False


class OverridePath(Request):
    id: Word
    day: IsoDate
    period: Period


class TemplateBody(Request):
    weekday: Annotated[int, Field(ge=1, le=7, description="1 为周一 / Monday is 1")]
    period: Period
    starts: Clock
    ends: Clock
    capacity: Annotated[int, Field(ge=1, le=SLOT_CAPACITY_MAX, description="每半小时号数 / seats a slot")]
    number_class_id: Word
    department_id: Annotated[Word | None, Field(description="默认为医生所在科室 / by default the own")] = None
    room_id: Word | None = None
    fee: Annotated[
        int | None, Field(ge=0, le=FEE_FEN_MAX, description="分；默认为号别的费用 / fen; else the class's")
    ] = None


class WeekBody(Request):
    revision: Annotated[str, Field(max_length=64, description="所依据的版本 / that was looked at")]
    note: Note = ""
    templates: Annotated[
        list[TemplateBody], Field(max_length=SESSIONS_MAX, description="全部模板 / the whole week")
    ]


class OverrideBody(Request):
    """全部留空表示恢复为模板 / nothing given: as in the week again."""

    revision: Annotated[str, Field(max_length=64, description="所依据的版本 / that was looked at")]
    note: Note = ""
    closed: bool = False
    starts: Clock | None = None
    ends: Clock | None = None
    capacity: Annotated[int | None, Field(ge=1, le=SLOT_CAPACITY_MAX)] = None


@dataclass(frozen=True, slots=True)
class TemplateAnswer:
    weekday: int
    period: Period
    starts: str
    ends: str
    capacity: int
    number_class_id: str
    department_id: str
    room_id: str | None
    fee: Annotated[int | None, Field(description="null 为号别的费用 / null: the class's")]


@dataclass(frozen=True, slots=True)
class OverrideAnswer:
    day: date
    period: Period
    closed: bool
    starts: str | None
    ends: str | None
    capacity: int | None


@dataclass(frozen=True, slots=True)
class NeededAnswer:
    """该日已有人操作，须另行变更 / what would have to be asked of an opened day."""

    command: str
    period: Period


@dataclass(frozen=True, slots=True)
class RoomConflictAnswer:
    period: Period
    room_id: str
    schedule_id: Annotated[str, Field(description="同时使用该诊室的排班 / who has the room at that time")]


@dataclass(frozen=True, slots=True)
class FollowedAnswer:
    day: date
    schedule_id: str
    effect: Annotated[
        Literal["added", "rewritten", "withdrawn", "kept"],
        Field(description="kept：已有人操作，保持不变 / kept: opened, and stays as it is"),
    ]
    booked: Annotated[int, Field(description="已约人数 / numbers that are held")]
    needed: list[NeededAnswer]
    conflicts: list[RoomConflictAnswer]


@dataclass(frozen=True, slots=True)
class WeekAnswer:
    practitioner_id: str
    revision: str
    changed_by: str | None
    templates: list[TemplateAnswer]
    overrides: list[OverrideAnswer]


@dataclass(frozen=True, slots=True)
class WeekChangeAnswer:
    status: Literal["preview", "done"]
    week: Annotated[WeekAnswer, Field(description="变更后 / after the change")]
    days: Annotated[list[FollowedAnswer], Field(description="受影响的日期 / dates that it touches")]


@dataclass(frozen=True, slots=True)
class WeekChangedAnswer:
    """一次修改 / one change of a week."""

    at: datetime
    by_name: str
    note: str
    kind: Literal["templates", "override"]
    day: Annotated[date | None, Field(description="单日调整的日期 / of an override")]
    period: Period | None
    before: Annotated[Any, Field(description="修改前 / as it was")]
    after: Annotated[Any, Field(description="修改后 / as it became")]


@dataclass(frozen=True, slots=True)
class WeekHistoryAnswer:
    changes: list[WeekChangedAnswer]
    before: Annotated[
        int | None,
        Field(description="下一页的 before；没有更多则为 null / for the next page; null at the end"),
    ]


class WeekHistoryQuery(Request):
    before: Annotated[
        int | None, Field(ge=1, le=NUMBER_MAX, description="上一页的 before / as the last page gave it")
    ] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


@api.route(
    "GET",
    "/api/v1/desk/practitioners/{id}/templates/history",
    zh="出诊模板的修改历史",
    tags=["desk"],
    errors=[Fault.NO_SUCH_PRACTITIONER, Fault.DATABASE_DOWN],
)
async def read_week_history(
    request: web.Request, *, staff: Staff, path: WordPath, query: WeekHistoryQuery
) -> WeekHistoryAnswer:
    """Who changed a practitioner's week, or one date of it, when and why; latest first."""
    app = request.app
    _practitioner(app, path.id)
    async with app[keys.POOL].acquire() as connection:
        found = await weeks.week_changes(connection, path.id, query.before, query.limit + 1)
    page = found[: query.limit]
    return WeekHistoryAnswer(
        [
            WeekChangedAnswer(
                one.at.astimezone(app[keys.ZONE]),
                one.by_name,
                one.note,
                one.kind,  # type: ignore[arg-type]  # the table's words are the contract's
                one.day,
                one.period,  # type: ignore[arg-type]
                one.before,
                one.after,
            )
            for one in page
        ],
        page[-1].id if len(found) > query.limit else None,
    )


@api.route(
    "GET",
    "/api/v1/desk/practitioners/{id}/templates",
    zh="出诊模板",
    tags=["desk"],
    errors=[Fault.NO_SUCH_PRACTITIONER, Fault.DATABASE_DOWN],
)
async def read_week(request: web.Request, *, staff: Staff, path: WordPath) -> WeekAnswer:
    """A practitioner's week, and the dates from today on that are not as the week has them."""
    app = request.app
    _practitioner(app, path.id)
    async with app[keys.POOL].acquire() as connection:
        return _answer(await weeks.load_week(connection, path.id, _today(app)))


@api.route(
    "PUT",
    "/api/v1/desk/practitioners/{id}/templates",
    zh="修改出诊模板",
    tags=["desk"],
    accepted=PendingAnswer,
    errors=_WRITING,
)
async def replace_week(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: WordPath,
    query: PreviewQuery,
    body: WeekBody,
) -> WeekChangeAnswer:
    """The whole week as it is to be. Days on which nothing happened yet follow at once."""
    return await _put(request, staff, idempotency_key, path.id, _named(body, {}), query.preview)


@api.route(
    "PUT",
    "/api/v1/desk/practitioners/{id}/overrides/{day}/{period}",
    zh="调整某日的出诊",
    tags=["desk"],
    accepted=PendingAnswer,
    errors=_WRITING,
)
async def put_override(
    request: web.Request,
    *,
    staff: Staff,
    idempotency_key: str,
    path: OverridePath,
    query: PreviewQuery,
    body: OverrideBody,
) -> WeekChangeAnswer:
    """One session of one date: closed, at other hours, or with other seats; with nothing given, as in the
    week again. A day that is opened already keeps its plan: change it live."""
    place = {"day": path.day.isoformat(), "period": path.period}
    return await _put(request, staff, idempotency_key, path.id, _named(body, place), query.preview)


async def _put(
    request: web.Request, staff: Staff, key: str, practitioner_id: str, asked: dict[str, Any], preview: bool
) -> WeekChangeAnswer:
    """Does it, previews it, or stores it for whoever must agree (and then answers 202 by itself)."""
    app = request.app
    change = _change_of(app, practitioner_id, asked, staff.id)
    departments = _departments(app, practitioner_id, change)
    if preview:
        async with app[keys.POOL].acquire() as connection:
            week = await weeks.load_week(connection, practitioner_id, _today(app))
        must_manage(app, staff, practitioner_id, departments | _departments_of(week))
        return _preview(app, week, change, "preview")
    role = role_needed(app, staff, WORD)
    if role is None:
        return await _write(request, practitioner_id, change, key, staff, departments)
    command_id = derived(b"command", staff.id, key.encode())
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        if (
            await use_key(connection, staff.id, key, (practitioner_id, repr(asked)), change.now)
            is KeyUse.OTHER
        ):
            raise Problem(Reason.KEY_REUSED)
        found = await change_requests.request_of(connection, command_id)
        if found is None:
            week = await weeks.load_week(connection, practitioner_id, _today(app))
            departments |= _departments_of(week)
            must_manage(app, staff, practitioner_id, departments)
            _preview(app, week, change, "preview")  # what cannot be is refused at once
            new = NewRequest(
                command_id,
                WORD,
                role,
                practitioner_id,
                practitioner_id,
                tuple(sorted(departments)),
                asked,
                change.revision,
                change.note,
                staff.id,
            )
            found = await change_requests.ask(connection, new, change.now)
            await audited(
                request,
                connection,
                "change_requested",
                object=("practitioner", practitioner_id),
                reason=change.note,
                detail={"command": WORD, "request": command_id},
            )
    return pending(found)  # type: ignore[return-value]  # a response of its own, as `accepted` declares


async def carry_out(request: web.Request, new: NewRequest) -> None:
    """What was asked for and is agreed to. Doing it again changes nothing. Raises Problem."""
    change = _change_of(request.app, new.target, new.body, new.asked_by)
    await _write(request, new.target, change, f"approved/{new.id.hex()}", new.asked_by)


async def _write(
    request: web.Request,
    practitioner_id: str,
    change: WeekChange,
    key: str,
    who: Staff | bytes,
    departments: set[str] | None = None,
) -> WeekChangeAnswer:
    """`who`: who asks, or, where that was looked at before, their id."""
    app = request.app
    today, days = _today(app), app[keys.SETTINGS].publish_days
    asked = (practitioner_id, change.revision, change.note, repr(change.templates), repr(change.override))
    owner = who if isinstance(who, bytes) else who.id
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        use = await use_key(connection, owner, key, asked, change.now)
        if use is KeyUse.OTHER:
            raise Problem(Reason.KEY_REUSED)
        await weeks.lock_week(connection)
        week = await weeks.load_week(connection, practitioner_id, today)
        if isinstance(who, Staff):
            must_manage(app, who, practitioner_id, (departments or set()) | _departments_of(week))
        if use is KeyUse.AGAIN:
            return WeekChangeAnswer("done", _answer(week), _followed(app, week))
        answer = _preview(app, week, change, "done")
        try:
            await weeks.write_week(connection, week, change, today, days)
        except WeekChanged as changed:
            raise _stale(changed.week) from None
        await audited(
            request,
            connection,
            "week_changed",
            object=("practitioner", practitioner_id),
            reason=change.note,
            detail={"asked_by": owner, "from_revision": change.revision},
        )
    return answer


def _preview(
    app: web.Application, week: Week, change: WeekChange, status: Literal["preview", "done"]
) -> WeekChangeAnswer:
    """What the change makes of the week and of its dates. Raises Problem for what cannot be."""
    if week.revision != change.revision:
        raise _stale(week)
    after = change.on(week)
    if change.override is not None and (change.override.day, change.override.period) in after.overrides:
        wrong = weeks.wrong_override(after, change.override)
        if wrong:
            raise Problem(Fault.INVALID_WEEK, errors=[Entry(["body"], code) for _, code in wrong])
    return WeekChangeAnswer(status, _answer(after), _followed(app, after))


def _stale(week: Week) -> Problem:
    return Problem(Reason.STALE_REVISION, revision=week.revision, by=week.changed_by)


def _named(body: WeekBody | OverrideBody, place: dict[str, str]) -> dict[str, Any]:
    return {**place, **body.model_dump(mode="json")}


def _change_of(
    app: web.Application, practitioner_id: str, asked: dict[str, Any], staff_id: bytes
) -> WeekChange:
    """Raises Problem for what names something unknown, or cannot be in any week."""
    _practitioner(app, practitioner_id)
    now = datetime.now(UTC)
    if "templates" in asked:
        week = WeekBody.model_validate(asked)
        templates = templates_of(app, practitioner_id, week.templates)
        return WeekChange(week.revision, week.note, staff_id, now, templates=templates)
    day, period = date.fromisoformat(asked["day"]), asked["period"]
    if day < _today(app):
        raise Problem(Reason.IN_THE_PAST)
    body = OverrideBody.model_validate({k: v for k, v in asked.items() if k not in ("day", "period")})
    override = SessionOverride(
        practitioner_id, day, period, body.closed, _time(body.starts), _time(body.ends), body.capacity
    )
    return WeekChange(body.revision, body.note, staff_id, now, override=override)


def templates_of(
    app: web.Application, practitioner_id: str, bodies: list[TemplateBody]
) -> tuple[SessionTemplate, ...]:
    """Raises Problem for what names something unknown, or cannot be one week."""
    catalog = app[keys.AVAILABILITY].catalog
    above = {d.parent_id for d in catalog.departments.values()}
    own = catalog.practitioners[practitioner_id].department_id
    found, errors = [], list[Entry]()
    for n, one in enumerate(bodies):
        department_id = one.department_id or own
        at: list[str | int] = ["body", "templates", n]
        if department_id not in catalog.departments:
            errors.append(Entry([*at, "department_id"], Fault.NO_SUCH_DEPARTMENT))
        elif department_id in above:
            errors.append(Entry([*at, "department_id"], "department_above"))
        if one.number_class_id not in catalog.number_classes:
            words = {"number_class": one.number_class_id}
            errors.append(Entry([*at, "number_class_id"], Fault.NO_SUCH_NUMBER_CLASS, words))
        if one.room_id is not None and one.room_id not in catalog.rooms:
            errors.append(Entry([*at, "room_id"], Fault.NO_SUCH_ROOM, {"room": one.room_id}))
        found.append(
            SessionTemplate(
                practitioner_id,
                one.weekday,
                one.period,
                time.fromisoformat(one.starts),
                time.fromisoformat(one.ends),
                one.capacity,
                one.number_class_id,
                department_id,
                one.room_id,
                one.fee,
            )
        )
    errors += [Entry(["body", "templates", n], code) for n, code in weeks.wrong_templates(found)]
    if errors:
        raise Problem(Fault.INVALID_WEEK, errors=errors)
    return tuple(found)


def _departments(app: web.Application, practitioner_id: str, change: WeekChange) -> set[str]:
    """Whose seats it makes; a week that is emptied is the practitioner's own department's."""
    made = {template.department_id for template in change.templates or ()}
    return made or {app[keys.AVAILABILITY].catalog.practitioners[practitioner_id].department_id}


def _departments_of(week: Week) -> set[str]:
    return {template.department_id for template in week.templates}


def _practitioner(app: web.Application, practitioner_id: str) -> None:
    if practitioner_id not in app[keys.AVAILABILITY].catalog.practitioners:
        raise Problem(Fault.NO_SUCH_PRACTITIONER)


def _followed(app: web.Application, week: Week) -> list[FollowedAnswer]:
    found = weeks.follow(week, _today(app), app[keys.SETTINGS].publish_days)
    return [
        FollowedAnswer(
            one.day,
            one.schedule_id,
            one.effect,  # type: ignore[arg-type]  # the records' words are the contract's
            one.booked,
            [NeededAnswer(x.command, x.period) for x in one.needed],  # type: ignore[arg-type]
            _rooms_taken(app, one),
        )
        for one in found
    ]


def _rooms_taken(app: web.Application, followed: FollowedDay) -> list[RoomConflictAnswer]:
    """Said, and no reason to refuse: the other one may be about to change, too."""
    wanted = [session for session in followed.plan or () if session.room_id is not None]
    found = []
    rows = app[keys.AVAILABILITY].schedules(first=followed.day, last=followed.day) if wanted else ()
    for row in rows:
        for other in row.sessions if row.id != followed.schedule_id else ():
            starts = {row.midnight_utc + start for _, start, _ in other.slots}
            found += [
                RoomConflictAnswer(session.period, session.room_id or "", row.id)  # type: ignore[arg-type]
                for session in wanted
                if session.room_id == other.room_id
                and other.status != "suspended"
                and any(slot.starts_at in starts for slot in session.slots)
            ]
    return found


def _answer(week: Week) -> WeekAnswer:
    return WeekAnswer(
        week.practitioner_id,
        week.revision,
        week.changed_by,
        [
            TemplateAnswer(
                t.weekday,
                t.period,  # type: ignore[arg-type]
                f"{t.starts:%H:%M}",
                f"{t.ends:%H:%M}",
                t.capacity,
                t.number_class_id,
                t.department_id,
                t.room_id,
                t.fee_fen,
            )
            for t in week.templates
        ],
        [
            OverrideAnswer(
                o.day,
                o.period,  # type: ignore[arg-type]
                o.closed,
                None if o.starts is None else f"{o.starts:%H:%M}",
                None if o.ends is None else f"{o.ends:%H:%M}",
                o.capacity,
            )
            for o in sorted(week.overrides.values(), key=lambda o: (o.day, o.period))
        ],
    )


def _time(spelled: str | None) -> time | None:
    return None if spelled is None else time.fromisoformat(spelled)


def _today(app: web.Application) -> date:
    return datetime.now(app[keys.ZONE]).date()
