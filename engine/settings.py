"""Everything an operator may set: environment variables XINGLIN_*, shown by `xinglin settings`."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.domain.limits import ADMITTED_MAX, HOLD_SECONDS_DEFAULT, HOLD_SECONDS_MAX


def _half_the_cores() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


class Settings(BaseSettings):
    """Read once, in web/main.py; everything below gets values, not settings."""

    model_config = SettingsConfigDict(env_prefix="XINGLIN_", frozen=True)

    host: str = Field("127.0.0.1", description="address the gateways listen on")
    port: int = Field(8080, ge=1, le=65535, description="port the gateways share")
    home: Path = Field(Path(".xinglin"), description="data of the embedded PostgreSQL, keys and logs")
    gateways: int = Field(default_factory=_half_the_cores, ge=1, description="HTTP processes")
    shards: int = Field(default_factory=_half_the_cores, ge=1, description="actor processes")
    standbys: int = Field(1, ge=0, description="warm processes that take a killed shard over at once")
    database_url: SecretStr | None = Field(None, description="an outside PostgreSQL instead of the embedded")
    ray_address: str | None = Field(None, description="a running Ray cluster ('auto'), else one is started")
    demo: bool = Field(False, description="load the demo hospital and accept sandbox sign-in")
    publish_days: int = Field(14, ge=1, le=366, description="days ahead that schedules are published")
    hold_seconds: int = Field(HOLD_SECONDS_DEFAULT, ge=1, le=HOLD_SECONDS_MAX, description="unpaid hold")
    active_appointments_max: int = Field(10, ge=1, description="pending and booked numbers of a patient")
    day_appointments_max: int = Field(5, ge=1, description="numbers of a patient on one day, everywhere")
    account_holds_max: int = Field(5, ge=1, description="unpaid numbers of an account at one time")
    admitted_max: int = Field(ADMITTED_MAX, ge=1, description="bookings under way at one gateway")
    access_token_seconds: int = Field(1800, ge=1, description="life of an access token")
    refresh_token_seconds: int = Field(30 * 86400, ge=1, description="life of a refresh token")
    wechat_app_id: str = Field("", description="mini-program appid; empty: only the sandbox signs in")
    wechat_app_secret: SecretStr = Field(SecretStr(""), description="mini-program secret")
    wechat_address: str = Field("https://api.weixin.qq.com", description="where jscode2session is asked")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
