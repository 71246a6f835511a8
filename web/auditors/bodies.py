"""The auditor's contract. Texts are Chinese / English."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from web.patient.bodies import Id, Request, ZonedTime

ActionWord = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{2,47}$")]
Username = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._\-]{0,63}$")]


class WantedQuery(Request):
    by: Annotated[Username | None, Field(description="工作人员用户名 / user name of staff")] = None
    by_id: Annotated[UUID | None, Field(description="工作人员或账号 / id of staff or of an account")] = None
    patient: Annotated[UUID | None, Field(description="就诊人 / whose data")] = None
    action: Annotated[ActionWord | None, Field(description="如 vitals_read / such as vitals_read")] = None
    object_kind: Annotated[str | None, Field(pattern=r"^[a-z_]{1,48}$")] = None
    object_id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    outcome: Literal["done", "refused", "failed"] | None = None
    since: Annotated[ZonedTime | None, Field(description="不早于 / not before")] = None
    until: Annotated[ZonedTime | None, Field(description="早于 / before")] = None


class EntriesQuery(WantedQuery):
    before: Annotated[
        int | None, Field(ge=1, le=2**63 - 1, description="上一页最后一条的 id / id of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class ExportQuery(WantedQuery):
    format: Literal["csv", "jsonl"] = "csv"


class AffectedQuery(Request):
    by_id: Annotated[UUID, Field(description="工作人员或账号 / id of staff or of an account")]
    since: ZonedTime
    until: ZonedTime


@dataclass(frozen=True, slots=True)
class EntryAnswer:
    """一条审计记录 / one line of the audit."""

    id: int
    at: datetime
    action: str
    by_kind: str
    by_id: Id | None
    by_name: str | None
    subjects: list[Id]
    object_kind: str | None
    object_id: str | None
    outcome: str
    reason: str | None
    request_id: str | None
    address: str | None
    gateway: str | None
    detail: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class EntriesAnswer:
    entries: list[EntryAnswer]
    next: int | None
    """下一页的 before / `before` of the next page."""


@dataclass(frozen=True, slots=True)
class ChainAnswer:
    """审计链的进度 / how far the chain has come."""

    block: int
    hash: str
    key: str
    at: datetime | None
    waiting_entries: int
    waiting_events: int


@dataclass(frozen=True, slots=True)
class AffectedPerson:
    patient_id: Id
    times: int
    first_at: datetime
    last_at: datetime
    actions: list[str]


@dataclass(frozen=True, slots=True)
class BreachAnswer:
    people: list[AffectedPerson]
