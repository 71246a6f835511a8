"""What requests of signing in and of one's own keys say, and what they are answered."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from web.passwords import PASSWORD_CHARS_MAX
from web.patient.bodies import Request, SessionAnswer
from web.sessions.starting import CookieAnswer
from web.sign_in.recovery_codes import CHARS_MAX

PasswordText = Annotated[str, Field(min_length=1, max_length=PASSWORD_CHARS_MAX)]
Otp = Annotated[
    str | None,
    Field(
        max_length=CHARS_MAX,
        description="绑定身份验证器后必填，或填恢复码 / with a second factor: its code or a recovery code",
    ),
]
StepToken = Annotated[str, Field(min_length=16, max_length=128)]
Code = Annotated[str, Field(min_length=6, max_length=16, description="六位动态码 / six digits")]


class ProofBody(Request):
    """本人确认 / that it is you."""

    password: PasswordText
    otp: Otp = None


class CodeBody(Request):
    """身份验证器所显示 / as the authenticator shows it."""

    code: Code


class OwnPasswordBody(Request):
    """修改密码 / the password in force, and the new one."""

    password: PasswordText
    new_password: PasswordText


class StepBody(Request):
    """登录未完成时所得 / from the answer second_factor_needed."""

    step_token: StepToken


class StepCodeBody(Request):
    """from the answer second_factor_needed, with the first code."""

    step_token: StepToken
    code: Code
    transport: Literal["bearer", "cookie"] = "bearer"


class StepPasswordBody(Request):
    """from the answer password_change_needed."""

    step_token: StepToken
    new_password: PasswordText


@dataclass(frozen=True, slots=True)
class SecondFactorAnswer:
    confirmed_at: datetime | None
    """None: 未绑定 / there is none."""
    recovery_codes_left: int
    required: bool


@dataclass(frozen=True, slots=True)
class EnrolmentAnswer:
    """只显示一次，须在 expires_in 秒内确认 / shown this once; confirm it within expires_in seconds."""

    secret: str
    uri: str
    """otpauth://, 可生成二维码 / for a QR code."""
    expires_in: int


@dataclass(frozen=True, slots=True)
class RecoveryCodesAnswer:
    """只显示一次，请抄下 / shown this once: write them down. 每个限用一次 / each is good once."""

    recovery_codes: list[str]


@dataclass(frozen=True, slots=True)
class EnrolledAnswer:
    """恢复码只显示一次 / the recovery codes are shown this once."""

    recovery_codes: list[str]
    session: SessionAnswer | CookieAnswer | None
    """None: 请重新登录 / sign in again."""
