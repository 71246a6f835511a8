"""What administrators ask and are told."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from engine.records.staff import Role
from web.patient.bodies import Id, Request, Word, ZonedTime
from web.patient.conduct_bodies import Prose
from web.records.break_glass import GlassKind

RoleWord = Literal[
    "doctor", "nurse", "desk", "schedule_office", "manager", "partner", "kiosk", "screen", "cashier",
    "pharmacist", "department_head", "system_admin", "security_admin", "audit_admin",
]  # fmt: skip
Campus = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]


class StaffQuery(Request):
    after: Annotated[
        str | None, Field(max_length=64, description="上一页最后的 username / username of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class NewStaffBody(Request):
    """新账号没有岗位，由安全管理员授予 / without a role: the security administrator gives one."""

    username: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._\-]{0,63}$")]
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
    password: Annotated[
        str,
        Field(min_length=1, max_length=256, description="首次登录须更改 / changed at the first sign-in"),
    ]


class RolesBody(Request):
    """此后的全部权限，替换原有的 / all that they may do from now on."""

    roles: Annotated[list[RoleWord], Field(max_length=len(Role))]
    practitioner_id: Annotated[Word | None, Field(description="医生本人 / which doctor this is")] = None
    department_id: Annotated[
        Word | None,
        Field(description="所管科室，缺省为全院 / what they look after; absent: all"),
    ] = None
    campus: Annotated[Campus | None, Field(description="所在院区，缺省为全部 / absent: every campus")] = None


@dataclass(frozen=True, slots=True)
class StaffAnswer:
    id: Id
    username: str
    name: str
    roles: list[RoleWord]
    practitioner_id: str | None
    department_id: str | None
    campus: str | None
    disabled: bool
    locked_until: datetime | None
    has_second_factor: bool
    must_change_password: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StaffListAnswer:
    staff: list[StaffAnswer]
    after: Annotated[str | None, Field(description="还有下一页时给出 / where there are more")]


@dataclass(frozen=True, slots=True)
class StaffSessionAnswer:
    id: Id
    transport: str
    method: str
    device: str
    created_at: datetime
    last_seen_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class StaffSessionsAnswer:
    sessions: list[StaffSessionAnswer]


@dataclass(frozen=True, slots=True)
class RevokedAnswer:
    revoked: Annotated[int, Field(description="已结束的会话数 / sessions that have ended with it")]


class GlassQuery(Request):
    unreviewed: Annotated[bool, Field(description="仅未复核的 / only those not yet reviewed")] = False
    before: Annotated[
        ZonedTime | None, Field(description="上一页最后一项的 at / `at` of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class ReviewBody(Request):
    verdict: Annotated[Literal["justified", "unjustified"], Field(description="是否正当 / was it justified")]
    note: Annotated[Prose, Field(description="复核意见 / what was found")]


@dataclass(frozen=True, slots=True)
class GlassAnswer:
    """一次紧急授权 / one breaking of the glass."""

    id: Id
    staff_id: Id
    username: str
    staff_name: str
    patient_id: Id
    patient_name: Annotated[str, Field(description="已脱敏 / masked")]
    kind: GlassKind
    reason: str
    at: datetime
    expires_at: datetime
    reviewed_by: str | None
    reviewed_at: datetime | None
    verdict: Literal["justified", "unjustified"] | None
    review_note: str | None


@dataclass(frozen=True, slots=True)
class GlassesAnswer:
    broken: list[GlassAnswer]
    unreviewed: Annotated[int, Field(description="全部未复核的数量 / how many wait for a review in all")]
    before: Annotated[datetime | None, Field(description="还有下一页时给出 / where there are more")]


@dataclass(frozen=True, slots=True)
class SettingAnswer:
    name: Annotated[str, Field(description="环境变量 / the environment variable")]
    value: Annotated[str, Field(description="机密以 * 代替 / secrets are masked")]
    description: str


@dataclass(frozen=True, slots=True)
class SettingsAnswer:
    settings: list[SettingAnswer]
