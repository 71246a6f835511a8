"""What the account agrees to: the texts, where it stands, agreeing, and taking it back as easily."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import asyncpg
from aiohttp import hdrs, web
from pydantic import Field

from engine.domain.consents import ConsentKind
from engine.domain.refusal import Reason
from engine.records import consents as records
from engine.records.consents import ConsentVersion, NotSaid, Stand
from web import keys
from web.auditing import audited
from web.errors import Problem, language_of
from web.faults import Fault, Language
from web.openapi import api
from web.patient.bodies import Id, Request
from web.privacy.words import ENDS, STAYS

KindWord = Literal["privacy_policy", "health_data", "guardian", "messages", "research", "cross_border"]
LanguageWord = Literal["zh", "en"]
HowWord = Literal["app", "desk", "kiosk", "law"]
VersionWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")]


class AgreementBody(Request):
    kind: KindWord
    version: Annotated[VersionWord, Field(description="所展示的版本 / the version that was shown")]
    patient_id: Annotated[
        UUID | None,
        Field(
            description="只针对一位就诊人；监护人同意书必填 / for one patient alone; a guardian's always is"
        ),
    ] = None
    language: Annotated[
        LanguageWord | None, Field(description="所展示的语言；默认按 Accept-Language / that it was shown in")
    ] = None


class KindPath(Request):
    kind: KindWord


class WithdrawalQuery(Request):
    patient_id: Annotated[
        UUID | None, Field(description="只撤回针对该就诊人的同意 / what was given for this patient alone")
    ] = None


@dataclass(frozen=True, slots=True)
class ConsentTextAnswer:
    """现行告知书 / a text in force."""

    kind: KindWord
    version: str
    valid_from: datetime
    language: LanguageWord
    title: str
    text: str
    sha256: Annotated[str, Field(description="标题、换行、正文的 SHA-256 / of title, line feed, text")]
    is_required: Annotated[
        bool, Field(description="添加就诊人和预约的前提 / nobody is added or booked for without it")
    ]
    state: Annotated[
        Literal["none", "given", "older", "again", "withdrawn"],
        Field(
            description="未表示、已同意、同意的是旧版（仍有效）、需重新同意、已撤回 / nothing said, agreed,"
            " agreed to an older version, which counts, has to agree anew, withdrawn"
        ),
    ]


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """最近一次表示 / what was said last."""

    kind: KindWord
    patient_id: Annotated[Id | None, Field(description="null：针对全部就诊人 / null: for all patients")]
    act: Literal["given", "withdrawn"]
    version: str
    language: LanguageWord
    at: datetime
    how: HowWord
    counts: Annotated[bool, Field(description="现在是否有效 / whether it counts now")]


@dataclass(frozen=True, slots=True)
class ConsentsAnswer:
    texts: list[ConsentTextAnswer]
    given: list[GivenAnswer]


@dataclass(frozen=True, slots=True)
class WithdrawnAnswer:
    kind: KindWord
    patient_id: Id | None
    at: datetime
    ends: Annotated[str, Field(description="即时终止的事项 / what it ends, at once")]
    stays: Annotated[str, Field(description="不受影响的事项 / what it does not end")]


@api.route("GET", "/api/v1/consents", zh="告知书与我的同意", tags=["privacy"], errors=[Fault.DATABASE_DOWN])
async def read_consents(request: web.Request, *, account_id: bytes) -> ConsentsAnswer:
    """The texts in force, in the language asked for, and what this account has said of each."""
    now = datetime.now(UTC)
    async with request.app[keys.POOL].acquire() as connection:
        return await _answer(request, connection, account_id, now)


@api.route(
    "POST",
    "/api/v1/consents",
    zh="同意",
    status=201,
    tags=["privacy"],
    errors=[
        Fault.NO_SUCH_CONSENT,
        Fault.NO_SUCH_PATIENT,
        Fault.CONSENT_OUTDATED,
        Fault.CONSENT_OF_WHOM,
        Fault.DATABASE_DOWN,
    ],
)
async def give_consent(request: web.Request, *, account_id: bytes, body: AgreementBody) -> ConsentsAnswer:
    """Agrees to the version in force, for all patients of the account or for one. Again changes nothing."""
    now = datetime.now(UTC)
    kind = ConsentKind(body.kind)
    patient_id = None if body.patient_id is None else body.patient_id.bytes
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        try:
            is_new = await records.give(
                connection,
                account_id,
                patient_id,
                kind,
                body.version,
                body.language or _language(request),
                now,
            )
        except NotSaid as refused:
            raise await _problem(connection, refused, kind, now) from None
        if is_new:
            await audited(
                request,
                connection,
                "consent_given",
                subjects=() if patient_id is None else (patient_id,),
                object=("consent", kind.value),
                detail={"version": body.version},
            )
        return await _answer(request, connection, account_id, now)


@api.route(
    "DELETE",
    "/api/v1/consents/{kind}",
    zh="撤回同意",
    tags=["privacy"],
    errors=[Fault.NO_SUCH_CONSENT, Fault.DATABASE_DOWN],
)
async def withdraw_consent(
    request: web.Request, *, account_id: bytes, path: KindPath, query: WithdrawalQuery
) -> WithdrawnAnswer:
    """Takes a consent back at once, and says what that ends and what it does not."""
    now = datetime.now(UTC)
    kind = ConsentKind(path.kind)
    patient_id = None if query.patient_id is None else query.patient_id.bytes
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if not await records.withdraw(connection, account_id, patient_id, kind, now):
            raise Problem(Fault.NO_SUCH_CONSENT)
        await audited(
            request,
            connection,
            "consent_withdrawn",
            subjects=() if patient_id is None else (patient_id,),
            object=("consent", kind.value),
        )
    language = _language(request)
    return WithdrawnAnswer(
        path.kind,
        None if query.patient_id is None else str(query.patient_id),
        now.astimezone(request.app[keys.ZONE]),
        ENDS[kind].in_(language),
        STAYS.in_(language),
    )


async def check_consents(request: web.Request, connection: asyncpg.Connection, account_id: bytes) -> None:
    """Before somebody is added. Raises Problem: consent_needed, naming what the hospital asks for."""
    required = request.app[keys.POLICY].policy.consents_required
    if required and (lacking := await records.missing_of(connection, account_id, required)):
        raise Problem(Reason.CONSENT_NEEDED, consents=[kind.value for kind in lacking])


async def _answer(
    request: web.Request, connection: asyncpg.Connection, account_id: bytes, now: datetime
) -> ConsentsAnswer:
    texts = await records.in_force(connection, now)
    stands = await records.stands_of(connection, account_id, now)
    zone = request.app[keys.ZONE]
    required = request.app[keys.POLICY].policy.consents_required
    language = _language(request)
    return ConsentsAnswer(
        [_text(one, stands, required, language, now) for one in texts.values()],
        [
            GivenAnswer(
                one.said.kind.value,
                None if one.said.patient_id is None else str(UUID(bytes=one.said.patient_id)),
                one.said.act,
                one.said.version,
                "en" if one.said.language == "en" else "zh",
                one.said.at.astimezone(zone),
                one.said.how,
                one.counts,
            )
            for one in stands
        ],
    )


def _text(
    one: ConsentVersion,
    stands: Collection[Stand],
    required: Collection[ConsentKind],
    language: Language,
    now: datetime,
) -> ConsentTextAnswer:
    shown, words = one.in_(language)
    # What is said for all counts; a guardian's is never for all, so the one said last tells.
    of_kind = [
        stand
        for stand in stands
        if stand.said.kind is one.kind and (stand.said.patient_id is None or one.kind is ConsentKind.GUARDIAN)
    ]
    return ConsentTextAnswer(
        one.kind.value,
        one.version,
        one.valid_from,
        "en" if shown == "en" else "zh",
        words.title,
        words.text,
        words.sha256.hex(),
        one.kind in required,
        _state(one, of_kind[-1] if of_kind else None),
    )


def _state(
    one: ConsentVersion, stand: Stand | None
) -> Literal["none", "given", "older", "again", "withdrawn"]:
    if stand is None:
        return "none"
    if stand.said.act == "withdrawn":
        return "withdrawn"
    if not stand.counts:
        return "again"
    return "given" if stand.said.version == one.version else "older"


def _language(request: web.Request) -> Language:
    return language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))


async def _problem(
    connection: asyncpg.Connection, refused: NotSaid, kind: ConsentKind, now: datetime
) -> Problem:
    newest = None
    if refused.code == Fault.CONSENT_OUTDATED:
        newest = (await records.in_force(connection, now))[kind].version
    return Problem(Fault(refused.code), newest=newest)
