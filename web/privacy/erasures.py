"""Being forgotten: what it would mean, and doing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Literal
from uuid import UUID

import asyncpg
from aiohttp import hdrs, web
from pydantic import Field

from engine.domain.ids import derived
from engine.domain.retention import Datum, Decision, Kept, Obstacle
from engine.records import erasure as records
from engine.records.erasure import Clock, OwnPerson, Plan
from engine.vault.erasures import ErasureFailed
from web import keys
from web.auditing import audited
from web.errors import Problem, language_of
from web.faults import Fault, Language
from web.openapi import api
from web.patient.bodies import Id, IdPath, Request
from web.privacy.words import DATA, FATES, OBSTACLES

DatumWord = Literal[
    "identity",
    "visits",
    "clinical",
    "contact",
    "appeals",
    "calls",
    "notices",
    "delegations",
    "sign_in",
    "wishes",
    "penalties",
    "consents",
    "trail",
]
FateOfDataWord = Literal["erased", "restricted", "unnamed", "kept"]
IdDigits = Annotated[
    str,
    Field(
        pattern=r"^[0-9A-Za-z]{4}$",
        description="本人证件号码后四位 / the last four characters of the person's document",
    ),
]


class ErasureBody(Request):
    confirm: Annotated[Literal["erase"], Field(description="不可恢复 / there is no way back")]
    id_digits: IdDigits


class AccountErasureBody(Request):
    confirm: Annotated[Literal["erase"], Field(description="不可恢复 / there is no way back")]
    id_digits: Annotated[
        IdDigits | None,
        Field(description="账号下有本人时必填，本人一并删除 / needed where oneself is one of its patients"),
    ] = None


@dataclass(frozen=True, slots=True)
class FateOfDataAnswer:
    """一类数据的去向 / what becomes of one kind of data."""

    data: DatumWord
    data_text: str
    fate: FateOfDataWord
    fate_text: str
    until: Annotated[date | None, Field(description="限制保存至 / restricted until")]


@dataclass(frozen=True, slots=True)
class ObstacleAnswer:
    code: Literal[
        "booking_ahead",
        "bill_open",
        "waiting_today",
        "wish_open",
        "appeal_open",
        "penalty_in_force",
    ]
    text: str


@dataclass(frozen=True, slots=True)
class PersonErasureAnswer:
    patient_id: Id
    kept_until: Annotated[
        date | None,
        Field(description="病历依法保存至；null 为不保存 / the record is kept until then; null: not at all"),
    ]
    fates: list[FateOfDataAnswer]
    obstacles: list[ObstacleAnswer]


@dataclass(frozen=True, slots=True)
class LoginErasureAnswer:
    fates: list[FateOfDataAnswer]
    obstacles: list[ObstacleAnswer]


@dataclass(frozen=True, slots=True)
class ErasureAnswer:
    """删除的结果或预览 / what became, or would become, of the data."""

    is_done: bool
    login: Annotated[LoginErasureAnswer | None, Field(description="账号本身 / the account itself")]
    people: Annotated[
        list[PersonErasureAnswer],
        Field(description="本人；预览时还有未成年子女 / oneself; in a preview children under 18 as well"),
    ]


@api.route("GET", "/api/v1/account/erasure", zh="删除预览", tags=["privacy"], errors=[Fault.DATABASE_DOWN])
async def preview_erasure(request: web.Request, *, account_id: bytes) -> ErasureAnswer:
    """What would become of each kind of data if the account, or one of its people, were forgotten now."""
    app = request.app
    clock = _clock(request)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        people = await records.own_people(connection, app[keys.VAULT], account_id, clock)
        ids = [one.patient_id for one in people]
        plan = await records.decided(connection, account_id, ids, clock, with_account=True)
    return _answer(request, plan, is_done=False)


@api.route(
    "POST",
    "/api/v1/account/erasure",
    zh="注销账号并删除本人信息",
    tags=["privacy"],
    errors=[Fault.ERASURE_BLOCKED, Fault.ERASURE_REFUSED, Fault.DATABASE_DOWN],
)
async def erase_account(
    request: web.Request, *, account_id: bytes, idempotency_key: str, body: AccountErasureBody
) -> ErasureAnswer:
    """Forgets the account and oneself; its sessions end with the answer. What the law wants is kept.

    Others whom it acts for stay: have a child forgotten first, if you want to. All or nothing.
    """
    clock = _clock(request)
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        people = await records.own_people(connection, request.app[keys.VAULT], account_id, clock)
        own = [one for one in people if one.is_self]
        named = _named(own, body.id_digits)
        if own and not named:
            raise Problem(Fault.ERASURE_REFUSED)
        plan = await records.decided(connection, account_id, named, clock, with_account=True)
        await _erase(request, connection, plan, idempotency_key, clock, "account_erased")
    return _answer(request, plan, is_done=True)


@api.route(
    "POST",
    "/api/v1/patients/{id}/erasure",
    zh="删除就诊人信息",
    tags=["privacy"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.ERASURE_BLOCKED, Fault.ERASURE_REFUSED, Fault.DATABASE_DOWN],
)
async def erase_patient(
    request: web.Request, *, account_id: bytes, idempotency_key: str, path: IdPath, body: ErasureBody
) -> ErasureAnswer:
    """Forgets a person: oneself, or a child under 18. Nobody can book for them any more until they register
    anew; what the law wants kept of their visits is restricted."""
    app = request.app
    clock = _clock(request)
    patient_id = path.id.bytes
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        asked = derived(b"erasing", account_id, idempotency_key.encode())
        before = await records.was_asked(connection, asked, patient_id)
        if before is not None:
            return _answer(request, Plan(account_id, {patient_id: before}, None), is_done=True)
        people = await records.own_people(connection, app[keys.VAULT], account_id, clock)
        named = _named([one for one in people if one.patient_id == patient_id], body.id_digits)
        if not named:
            if await records.acts_for(connection, account_id, patient_id, clock):
                raise Problem(Fault.ERASURE_REFUSED)
            raise Problem(Fault.NO_SUCH_PATIENT)
        plan = await records.decided(connection, account_id, named, clock, with_account=False)
        await _erase(request, connection, plan, idempotency_key, clock, "patient_erased")
    return _answer(request, plan, is_done=True)


async def _erase(
    request: web.Request, connection: asyncpg.Connection, plan: Plan, key: str, clock: Clock, action: str
) -> None:
    """Raises Problem: erasure_blocked, with what is in the way."""
    app = request.app
    if not plan.is_free:
        raise Problem(Fault.ERASURE_BLOCKED, obstacles=_in_the_way(plan, _language(request)))
    id_ = derived(b"erasing", plan.account_id, key.encode())
    await audited(
        request,
        connection,
        action,
        subjects=list(plan.people),
        object=("account", str(UUID(bytes=plan.account_id))),
        detail={str(UUID(bytes=one)): str(decision.kept_until) for one, decision in plan.people.items()},
    )
    await records.forget(connection, app[keys.VAULT], plan, id_, clock)
    try:
        await records.shred(connection, app[keys.ERASURES], plan, clock)
    except ErasureFailed:
        # Rolled back, so that nobody is told of an erasure that a restore would undo.
        raise Problem(Fault.DATABASE_DOWN) from None


def _named(people: Sequence[OwnPerson], digits: str | None) -> list[bytes]:
    """Those whose document ends so."""
    return [one.patient_id for one in people if digits and one.id_digits and one.id_digits == digits.upper()]


def _clock(request: web.Request) -> Clock:
    return Clock(datetime.now(UTC), request.app[keys.ZONE])


def _language(request: web.Request) -> Language:
    return language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))


def _answer(request: web.Request, plan: Plan, *, is_done: bool) -> ErasureAnswer:
    language = _language(request)
    login = None
    if plan.login is not None:
        login = LoginErasureAnswer(
            _fates(plan.login.fates, language), _obstacles(plan.login.obstacles, language)
        )
    return ErasureAnswer(
        is_done, login, [_person(one, decision, language) for one, decision in plan.people.items()]
    )


def _person(patient_id: bytes, decision: Decision, language: Language) -> PersonErasureAnswer:
    return PersonErasureAnswer(
        str(UUID(bytes=patient_id)),
        decision.kept_until,
        _fates(decision.fates, language),
        _obstacles(decision.obstacles, language),
    )


def _fates(fates: Mapping[Datum, Kept], language: Language) -> list[FateOfDataAnswer]:
    return [
        FateOfDataAnswer(
            datum.value,
            DATA[datum].in_(language),
            kept.fate.value,
            FATES[kept.fate].in_(language),
            kept.until,
        )
        for datum, kept in fates.items()
    ]


def _obstacles(obstacles: Sequence[Obstacle], language: Language) -> list[ObstacleAnswer]:
    return [ObstacleAnswer(one.value, OBSTACLES[one].in_(language)) for one in obstacles]


def _in_the_way(plan: Plan, language: Language) -> list[dict[str, str | None]]:
    """As members of a problem: of people, and (patient_id null) of the account."""
    found = [
        (str(UUID(bytes=patient_id)), obstacle)
        for patient_id, decision in plan.people.items()
        for obstacle in decision.obstacles
    ]
    login: list[tuple[str | None, Obstacle]] = [
        (None, obstacle) for obstacle in (plan.login.obstacles if plan.login is not None else ())
    ]
    return [
        {"code": obstacle.value, "text": OBSTACLES[obstacle].in_(language), "patient_id": patient_id}
        for patient_id, obstacle in [*found, *login]
    ]
