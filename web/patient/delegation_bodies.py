"""What is said about accounts and about rights to act for others."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from web.patient.bodies import Id, IsoDate, Relation, Request, RightsAnswer, VerificationWord

ConsentWord = Literal["own", "approved", "attested", "guardian", "desk"]


class PhoneBody(Request):
    code: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            description="getPhoneNumber 所得，一次有效 / of getPhoneNumber, good for one use",
        ),
    ]


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """账号 / the account that is signed in."""

    id: Id
    created_at: datetime
    phone: Annotated[str | None, Field(description="已绑定的手机号，已脱敏 / bound, masked; null: none")]
    phone_bound_at: datetime | None
    phone_is_shared: Annotated[
        bool, Field(description="该手机号还绑定了其他账号 / other accounts are bound to it as well")
    ]


class RightsBody(Request):
    """What the person allows. What is left out is allowed, until as long as the hospital lets it last."""

    book: bool = True
    see_visits: bool = True
    pay: bool = True
    until: Annotated[
        IsoDate | None, Field(description="最后一天，含；不填为本院最长期限 / last day, inclusive")
    ] = None


@dataclass(frozen=True, slots=True)
class AskerAnswer:
    """代办人 / who acts, or would like to."""

    name: Annotated[str | None, Field(description="本人姓名，已脱敏 / their own name, masked; null: unknown")]
    phone: Annotated[str | None, Field(description="已脱敏 / masked")]


@dataclass(frozen=True, slots=True)
class AskedAnswer:
    """等待本人同意的申请 / a request that the person has not answered yet."""

    request_id: Id
    name: Annotated[str, Field(description="就诊人姓名，已脱敏 / whom it is about, masked")]
    relation: Relation
    asked_at: datetime
    ends_at: Annotated[datetime, Field(description="逾期未答复则作废 / without an answer it is over then")]
    asker: Annotated[AskerAnswer | None, Field(description="null 为本账号 / null: this account")]


@dataclass(frozen=True, slots=True)
class DelegationAnswer:
    """他人代我办理的权限 / what somebody may do for me."""

    id: Id
    patient_id: Id
    name: Annotated[str, Field(description="被代办人姓名，已脱敏 / whom it is about, masked")]
    relation: Relation
    rights: RightsAnswer
    consent: Annotated[
        ConsentWord,
        Field(
            description="依据：本人、本人同意、代办人声明、监护人声明、窗口核验"
            " / oneself, approved, attested by who acts, by a guardian, or papers seen at a desk"
        ),
    ]
    given_at: datetime
    expires_at: datetime | None
    asker: AskerAnswer


@dataclass(frozen=True, slots=True)
class DelegationsAnswer:
    given: Annotated[list[DelegationAnswer], Field(description="我给出的 / what others may do for me")]
    asked_of_me: Annotated[list[AskedAnswer], Field(description="等我答复的 / waiting for my answer")]
    asked_by_me: Annotated[list[AskedAnswer], Field(description="我提出的 / waiting for somebody's answer")]


@dataclass(frozen=True, slots=True)
class DecidedAnswer:
    id: Id
    status: Literal["approved", "rejected", "withdrawn", "changed", "revoked"]
    expires_at: datetime | None


class VerificationBody(Request):
    """窗口核验证件 / what a clerk found."""

    outcome: Annotated[
        Literal["verified", "refused"], Field(description="证件与登记一致，或不一致 / papers fit, or do not")
    ]
    document: Annotated[
        Literal["resident_id", "passport", "permit", "other"],
        Field(description="所查看的证件 / the papers that were looked at"),
    ]


class DeskApprovalBody(Request):
    ends_others: Annotated[
        bool,
        Field(
            description="同时终止其他账号对该证件的“本人”关系 / other accounts that say `self` of this person"
            " do so no more: their papers are here"
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class VerificationAnswer:
    """实名核验 / whether a real name is verified."""

    patient_id: Id
    name: Annotated[str, Field(description="已脱敏 / masked")]
    id_type: str
    id_number: Annotated[str, Field(description="已脱敏 / masked")]
    state: VerificationWord
    verified_at: datetime | None
    verified_by: Annotated[str | None, Field(description="register 或职工用户名 / or a user name")]
    requests: Annotated[list[AskedAnswer], Field(description="等待本人同意的申请 / open requests about them")]
