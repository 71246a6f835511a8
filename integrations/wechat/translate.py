"""What WeChat's answers say, in our words. Pure; an answer that does not hold together is TryAgain."""

from dataclasses import dataclass, field
from typing import Any, Final

from engine.records.identity import normal_phone
from integrations.connector import TryAgain

TOKEN_SECONDS_MAX: Final = 7_200  # theirs never live longer


@dataclass(frozen=True, slots=True)
class WeChatPerson:
    openid: str  # of this mini-program
    unionid: str | None  # of the hospital's other apps as well, where they belong together over there


@dataclass(frozen=True, slots=True)
class AccessToken:
    value: str = field(repr=False)
    seconds: int  # that it is good for


def person_of(answer: dict[str, Any]) -> WeChatPerson:
    """session_key is dropped here: nothing we do needs it, and it decrypts the person's data."""
    openid = answer.get("openid")
    if not isinstance(openid, str) or not openid:
        raise TryAgain("wechat: an answer without openid")
    unionid = answer.get("unionid")
    return WeChatPerson(openid, unionid if isinstance(unionid, str) and unionid else None)


def token_of(answer: dict[str, Any]) -> AccessToken:
    value, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(value, str) or not value or type(seconds) is not int or seconds <= 0:
        raise TryAgain("wechat: an answer without access token")
    return AccessToken(value, min(seconds, TOKEN_SECONDS_MAX))


def phone_of(answer: dict[str, Any], app_id: str) -> str:
    """A normal phone number. The watermark names the app that it was given to, which must be ours."""
    info = answer.get("phone_info")
    if not isinstance(info, dict):
        raise TryAgain("wechat: an answer without phone")
    watermark = info.get("watermark")
    if not isinstance(watermark, dict) or watermark.get("appid") != app_id:
        raise TryAgain("wechat: a phone that was given to another app")
    pure, country = info.get("purePhoneNumber"), info.get("countryCode")
    phone = normal_phone(f"+{country}{pure}") if isinstance(pure, str) else None
    if phone is None:
        raise TryAgain("wechat: a phone that is none")
    return phone
