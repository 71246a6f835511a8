"""What is asked and told about reports of laboratories."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from web.patient.bodies import Id, Request, ZonedTime

ReportStatusWord = Literal["preliminary", "final", "corrected", "cancelled"]
FlagWord = Literal["low", "high", "critical_low", "critical_high", "abnormal", "critical", "normal"]


class ReportsQuery(Request):
    before: Annotated[
        ZonedTime | None, Field(description="上一页最后一项的 issued_at / `issued_at` of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class AttachmentPath(Request):
    id: UUID
    n: Annotated[int, Field(ge=1, le=100)]


class AttachmentQuery(Request):
    version: Annotated[
        int | None, Field(ge=1, description="缺省为最新版本 / absent: of the newest version")
    ] = None


@dataclass(frozen=True, slots=True)
class ObservationAnswer:
    code: str
    name: str
    value: str
    unit: str
    reference: Annotated[str, Field(description="参考范围 / reference range")]
    flag: FlagWord | None
    note: str


@dataclass(frozen=True, slots=True)
class AttachmentAnswer:
    n: int
    media_type: str
    title: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ReportSummaryAnswer:
    id: Id
    number: str
    title: str
    category: str
    status: ReportStatusWord
    issued_at: datetime
    collected_at: datetime | None
    version: int
    abnormal: Annotated[int, Field(description="异常项数 / how many results are outside their range")]


@dataclass(frozen=True, slots=True)
class ReportsAnswer:
    reports: list[ReportSummaryAnswer]
    before: Annotated[datetime | None, Field(description="还有下一页时给出 / where there are more")]


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """与上一版本的差异 / what differs from the version before."""

    code: str
    name: str
    what: Literal["value", "unit", "reference", "flag", "note", "conclusion", "status", "observation"]
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ReportVersionAnswer:
    version: int
    status: ReportStatusWord
    issued_at: datetime
    received_at: datetime
    ordered_at: datetime | None
    collected_at: datetime | None
    title: str
    category: str
    department: str
    doctor: str
    conclusion: str
    observations: list[ObservationAnswer]
    attachments: list[AttachmentAnswer]
    changes: Annotated[
        list[ChangeAnswer], Field(description="更正了什么 / what it changed; empty for the first version")
    ]


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    id: Id
    patient_id: Id
    number: str
    newest: Annotated[int, Field(description="应以此版本为准 / the version that holds")]
    versions: Annotated[list[ReportVersionAnswer], Field(description="新的在前 / newest first")]


@dataclass(frozen=True, slots=True)
class ReceivedAnswer:
    """一份报告的处理结果 / what became of one report."""

    outcome: Annotated[
        Literal["accepted", "duplicate", "unclaimed"],
        Field(
            description="unclaimed：患者尚未建档，建档后自动归入 / kept until such a patient is known here"
        ),
    ]


@dataclass(frozen=True, slots=True)
class ReceivedReportsAnswer:
    reports: list[ReceivedAnswer]
