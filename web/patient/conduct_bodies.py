"""What is said about rights to book for others, penalties and appeals."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from web.patient.bodies import Id, Request, ZonedTime

OffenceWord = Literal["no_show", "late_cancel", "cancel", "dropped_hold"]
SubjectWord = Literal["patient", "account"]
AppealWord = Literal["none", "open", "upheld", "lifted"]
Prose = Annotated[
    str,
    # Something to read, and nothing that a text column or a log line cannot bear.
    Field(
        min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f]*[^\x00-\x20][^\x00-\x08\x0b-\x1f]*$"
    ),
]


class RenewalBody(Request):
    id_digits: Annotated[
        str,
        Field(
            pattern=r"^[0-9A-Za-z]{4}$",
            description="证件号码后四位 / the last four characters of the document's number",
        ),
    ]


class AppealBody(Request):
    text: Annotated[Prose, Field(description="申诉理由 / why the penalty is not deserved")]


class DecisionBody(Request):
    decision: Annotated[
        Literal["lift", "uphold"],
        Field(description="撤销（不再计入）或维持 / lift it and forget its evidence, or let it stand"),
    ]
    reason: Annotated[Prose, Field(description="处理意见，申请人可见 / shown to whoever appealed")]


class AppealsQuery(Request):
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    after: Annotated[
        ZonedTime | None,
        Field(description="上一页最后一项的 appealed_at / appealed_at of the last one seen"),
    ] = None


@dataclass(frozen=True, slots=True)
class EvidenceAnswer:
    """计入的预约 / an appointment that counted."""

    appointment_id: Id
    practitioner_id: str
    start: datetime


@dataclass(frozen=True, slots=True)
class AppealAnswer:
    text: str
    appealed_at: datetime
    decided_at: datetime | None
    reason: Annotated[str | None, Field(description="处理意见 / of the decision")]


@dataclass(frozen=True, slots=True)
class PenaltyAnswer:
    """处罚 / a block that conduct earned."""

    id: Id
    subject: Annotated[SubjectWord, Field(description="针对就诊人或账号 / whom it blocks")]
    patient_id: Annotated[Id | None, Field(description="针对账号时为 null / null where it blocks an account")]
    patient_name: str | None
    rule: Annotated[str, Field(description="医院规则的名称 / the hospital's name for the rule")]
    offence: OffenceWord
    begins: datetime
    until: datetime
    is_in_force: Annotated[bool, Field(description="现在是否暂停预约 / whether it blocks now")]
    evidence: list[EvidenceAnswer]
    appeal_state: AppealWord
    appeal: AppealAnswer | None
    lifted_at: datetime | None


@dataclass(frozen=True, slots=True)
class PenaltiesAnswer:
    penalties: list[PenaltyAnswer]


@dataclass(frozen=True, slots=True)
class DeskPenaltyAnswer:
    """处罚与申诉，含经办人 / the same, with who decided."""

    penalty: PenaltyAnswer
    account_id: Annotated[Id | None, Field(description="针对账号时 / where it blocks an account")]
    appealed_at: datetime | None
    decided_by: Annotated[str | None, Field(description="经办人用户名 / user name of the staff member")]


@dataclass(frozen=True, slots=True)
class AppealsAnswer:
    appeals: list[DeskPenaltyAnswer]
    after: Annotated[
        datetime | None,
        Field(description="下一页的 after；没有更多则为 null / for the next page; null at the end"),
    ]
