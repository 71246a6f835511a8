"""Reconciliation with the HIS on the API. Texts are Chinese / English."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.domain.his_rules import Differs
from web.patient.bodies import IsoDate, Request
from web.patient.conduct_bodies import Prose
from web.reconciliation.bodies import Day

DifferenceWord = Literal["open", "healed", "settled"]


class HisReconcileBody(Request):
    date: Annotated[Day, Field(description="就诊日期 / the day of the visits")]


class HisRunsQuery(Request):
    date: IsoDate | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class HisDifferencesQuery(Request):
    state: Annotated[
        Literal["open", "all"], Field(description="open：仅未处理 / only what is not closed")
    ] = "open"
    date: IsoDate | None = None
    before: Annotated[
        int | None, Field(ge=1, le=2**63 - 1, description="上一页的 next / `next` of before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class HisDifferencePath(Request):
    id: Annotated[int, Field(ge=1, le=2**63 - 1)]


class HisSettleBody(Request):
    reason: Annotated[Prose, Field(description="如何处理的 / what was done about it")]


@dataclass(frozen=True, slots=True)
class HisAskedAnswer:
    date: date


@dataclass(frozen=True, slots=True)
class HisRunAnswer:
    date: date
    began_at: datetime
    ended_at: datetime
    ours: int
    theirs: int
    matched: int
    healed: int
    left_open: int


@dataclass(frozen=True, slots=True)
class HisRunsAnswer:
    runs: list[HisRunAnswer]


@dataclass(frozen=True, slots=True)
class HisDifferenceAnswer:
    id: int
    date: date
    kind: Differs
    subject: Annotated[
        str, Field(description="本院预约编号，或 his: 加对方编号 / our id, or his: and theirs")
    ]
    state: DifferenceWord
    evidence: dict[str, Any]
    found_at: datetime
    last_at: datetime
    times: int
    ended_at: datetime | None
    ended_by: str | None
    ended_why: str | None


@dataclass(frozen=True, slots=True)
class HisDifferencesAnswer:
    differences: list[HisDifferenceAnswer]
    next: int | None
