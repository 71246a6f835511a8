"""Everything an operator may set: environment variables XINGLIN_*, shown by `xinglin settings`."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.domain.limits import ADMITTED_MAX, HOLD_SECONDS_DEFAULT, HOLD_SECONDS_MAX

PORT_MAX = 65535


def _half_the_cores() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


class Settings(BaseSettings):
    """Read once, in web/main.py; everything below gets values, not settings."""

    model_config = SettingsConfigDict(env_prefix="XINGLIN_", frozen=True)

    host: str = Field("127.0.0.1", description="address the gateways listen on")
    port: int = Field(8080, ge=1, le=PORT_MAX, description="port the gateways share")
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
    stream_connections_max: int = Field(12_000, ge=1, description="WebSocket connections of one gateway")
    admitted_max: int = Field(ADMITTED_MAX, ge=1, description="bookings under way at one gateway")
    access_token_seconds: int = Field(1800, ge=1, description="life of an access token")
    refresh_token_seconds: int = Field(30 * 86400, ge=1, description="life of a refresh token")
    wechat_app_id: str = Field("", description="mini-program appid; empty: only the sandbox signs in")
    wechat_app_secret: SecretStr = Field(SecretStr(""), description="mini-program secret")
    wechat_address: str = Field("https://api.weixin.qq.com", description="where jscode2session is asked")
    origins: str = Field("", description="other sites whose pages may connect, as https://a,https://b")
    trusted_proxies: str = Field(
        "127.0.0.1,::1", description="addresses or CIDRs whose X-Forwarded-For is believed, between commas"
    )
    # Each gateway counts by itself. Generous, because a whole hospital, or thousands of telephones of one
    # mobile carrier, may ask from one address.
    address_requests_per_second: float = Field(1_000, ge=0, description="of one client address; 0: no limit")
    address_requests_burst: int = Field(10_000, ge=1, description="the same, at once")
    address_sign_ins_per_second: float = Field(50, ge=0, description="sign-ins of one address; 0: no limit")
    address_sign_ins_burst: int = Field(2_000, ge=1, description="the same, at once")
    device_requests_per_second: float = Field(20, ge=0, description="of one X-Device-Id; 0: no limit")
    device_requests_burst: int = Field(300, ge=1, description="the same, at once")
    account_requests_per_second: float = Field(20, ge=0, description="of one patient account; 0: no limit")
    account_requests_burst: int = Field(300, ge=1, description="the same, at once")
    staff_requests_per_second: float = Field(200, ge=0, description="of one of the staff; 0: no limit")
    staff_requests_burst: int = Field(3_000, ge=1, description="the same, at once")
    head_seconds_max: float = Field(
        10, gt=0, description="for a connection's first, and any begun, request head"
    )
    body_seconds_max: float = Field(15, gt=0, description="for a request's body")
    idle_seconds_max: float = Field(75, gt=0, description="of a connection between two requests")
    port_each: bool = Field(False, description="gateways listen on port, port+1, ... instead of sharing one")
    tls_cert: Path | None = Field(
        None, description="certificate chain (PEM): the gateways speak TLS themselves"
    )
    tls_key: Path | None = Field(None, description="its private key (PEM), readable to nobody else")
    backup_to: str = Field("", description="second place: a directory, or s3://bucket/prefix?endpoint=…")
    backup_key_file: Path | None = Field(None, description="keys of backups: `xinglin backup key FILE`")
    backup_keep: int = Field(7, ge=1, description="base backups that are kept, with their WAL")
    backup_hour: int = Field(3, ge=0, le=23, description="hour at which the nightly base backup begins")
    backup_s3_access_key: str = Field("", description="of the object store")
    backup_s3_secret_key: SecretStr = Field(SecretStr(""), description="of the object store")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")

    @model_validator(mode="after")
    def _come_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise PydanticCustomError(
                "tls_files", "--tls-cert and --tls-key are given together or not at all"
            )
        if self.port_each and self.port + self.gateways - 1 > PORT_MAX:
            raise PydanticCustomError("port_each", "with a port each, the last gateway's would be too high")
        return self

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key, where the gateways speak TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return self.tls_cert, self.tls_key

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, listed: str) -> str:
        for part in listed.split(","):
            if part.strip():
                ip_network(part.strip())  # raises ValueError that names it
        return listed
