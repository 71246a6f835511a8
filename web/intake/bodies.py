"""What administrators ask and are told about messages that came in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from web.patient.bodies import Id, Request, ZonedTime
from web.patient.conduct_bodies import Prose

StateWord = Literal["accepted", "quarantined", "unclaimed", "dropped"]


class IntakeQuery(Request):
    interface: Annotated[str | None, Field(max_length=64, pattern=r"^[a-z0-9_.]+$")] = None
    state: Annotated[StateWord, Field(description="缺省为隔离中的 / by default those in quarantine")] = (
        "quarantined"
    )
    before: Annotated[
        ZonedTime | None, Field(description="上一页最后一项的 first_at / `first_at` of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class DropBody(Request):
    reason: Annotated[Prose, Field(description="放弃的理由 / why it is given up")]


@dataclass(frozen=True, slots=True)
class FindingAnswer:
    field: Annotated[str, Field(description="报文中的位置 / where in the message")]
    rule: str
    expected: str


@dataclass(frozen=True, slots=True)
class IntakeMessageAnswer:
    """一份报文，不含其内容 / one message, and nothing of what it says."""

    id: Id
    interface: str
    state: StateWord
    first_at: datetime
    last_at: datetime
    times: Annotated[int, Field(description="收到或处理的次数 / how often it came or was tried")]
    findings: list[FindingAnswer]
    retrying: Annotated[bool, Field(description="即将重新处理 / it is about to be tried again")]
    settled_at: datetime | None
    settled_by: str | None
    settled_why: str | None


@dataclass(frozen=True, slots=True)
class IntakeWaitingAnswer:
    interface: str
    quarantined: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class IntakeAnswer:
    messages: list[IntakeMessageAnswer]
    waiting: Annotated[
        list[IntakeWaitingAnswer], Field(description="各接口隔离中的数量 / of every interface")
    ]
    before: Annotated[datetime | None, Field(description="还有下一页时给出 / where there are more")]
