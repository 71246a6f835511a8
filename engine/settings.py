"""Everything an operator may set: environment variables XINGLIN_*, shown by `xinglin settings`."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.domain.limits import (
    ADMITTED_MAX,
    HOLD_SECONDS_DEFAULT,
    HOLD_SECONDS_MAX,
    PAYMENTS_MAX,
    REQUESTS_MAX,
)
from engine.logs import LogFormat
from engine.services import Service, services_of

PORT_MAX = 65535


_MERCHANTS = (
    (
        "WeChat Pay",
        ("wechat_pay_mch_id", "wechat_pay_serial", "wechat_pay_key_file", "wechat_pay_api_v3_key"),
        ("wechat_app_id", "public_address"),
    ),
    (
        "Alipay",
        ("alipay_app_id", "alipay_seller_id", "alipay_key_file", "alipay_public_key_file"),
        ("public_address",),
    ),
    (
        "the hospital's billing",
        ("hospital_billing_address", "hospital_billing_app_id", "hospital_billing_secret"),
        (),
    ),
)
"""What belongs together: a provider's own settings, and those of others that it needs besides."""


def _half_the_cores() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


class Settings(BaseSettings):
    """Read once, in web/main.py; everything below gets values, not settings."""

    model_config = SettingsConfigDict(env_prefix="XINGLIN_", frozen=True)

    host: str = Field("127.0.0.1", description="address the gateways listen on")
    port: int = Field(8080, ge=1, le=PORT_MAX, description="port the gateways share")
    only: str = Field("", description="services to start, between commas; empty: all (docs/SERVICES.md)")
    home: Path = Field(Path(".xinglin"), description="data of the embedded PostgreSQL, keys and logs")
    gateways: int = Field(default_factory=_half_the_cores, ge=1, description="HTTP processes")
    shards: int = Field(default_factory=_half_the_cores, ge=1, description="actor processes")
    standbys: int = Field(1, ge=0, description="warm processes that take a killed shard over at once")
    database_url: SecretStr | None = Field(None, description="an outside PostgreSQL instead of the embedded")
    ray_address: str | None = Field(None, description="a running Ray cluster ('auto'), else one is started")
    demo: bool = Field(False, description="load the demo hospital and accept sandbox sign-in")
    demo_systems: str = Field(
        "his,lis,pacs,emr", description="with demo: hospital systems played by sandboxes; empty: none"
    )
    publish_days: int = Field(14, ge=1, le=366, description="days ahead that schedules are published")
    hold_seconds: int = Field(HOLD_SECONDS_DEFAULT, ge=1, le=HOLD_SECONDS_MAX, description="unpaid hold")
    active_appointments_max: int = Field(10, ge=1, description="pending and booked numbers of a patient")
    day_appointments_max: int = Field(5, ge=1, description="numbers of a patient on one day, everywhere")
    account_holds_max: int = Field(5, ge=1, description="unpaid numbers of an account at one time")
    stream_connections_max: int = Field(12_000, ge=1, description="WebSocket connections of one gateway")
    admitted_max: int = Field(ADMITTED_MAX, ge=1, description="bookings under way at one gateway")
    requests_max: int = Field(
        REQUESTS_MAX, ge=1, description="patients' requests under way at one gateway, besides bookings"
    )
    payments_max: int = Field(PAYMENTS_MAX, ge=1, description="payments being begun at one gateway")
    access_token_seconds: int = Field(1800, ge=1, description="life of an access token")
    refresh_token_seconds: int = Field(
        30 * 86400, ge=1, description="patients who do not come back for so long sign in again"
    )
    account_session_seconds_max: int = Field(
        180 * 86400, ge=1, description="so do all patients after so long"
    )
    staff_idle_seconds_max: int = Field(1800, ge=1, description="a console without a request is signed out")
    staff_session_seconds_max: int = Field(12 * 3600, ge=1, description="staff sign in again after so long")
    device_session_seconds_max: int = Field(30 * 86400, ge=1, description="kiosks and screens after so long")
    staff_second_factor: Literal["required", "optional"] | None = Field(
        None, description="of staff at sign-in; unset: required, but optional with demo"
    )
    password_chars_min: int = Field(8, ge=8, le=64, description="of staff passwords")
    password_kinds_min: int = Field(
        0, ge=0, le=4, description="of small letters, capitals, digits, other signs in a password; 等保: 3"
    )
    password_days_max: int = Field(0, ge=0, description="life of a staff password; 0: no end; 等保: 90")
    password_not_again: int = Field(0, ge=0, le=12, description="old passwords that may not return; 等保: 5")
    password_list: Path | None = Field(
        None, description="file of passwords that are refused, one a line, beside those that come along"
    )
    relation_days: int = Field(30, ge=0, description="after a visit, its doctor reads the record for so long")
    wechat_app_id: str = Field("", description="mini-program appid; empty: only the sandbox signs in")
    wechat_app_secret: SecretStr = Field(SecretStr(""), description="mini-program secret")
    wechat_address: str = Field("https://api.weixin.qq.com", description="where jscode2session is asked")
    real_name_address: str = Field(
        "", description="the register of real names, https://…; empty: nobody is asked about (docs/PEOPLE.md)"
    )
    real_name_app_id: str = Field("", description="who we are there")
    real_name_secret: SecretStr = Field(SecretStr(""), description="what both sides sign with")
    public_address: str = Field(
        "", description="our own address as payment providers reach it, https://…: they call back there"
    )
    wechat_pay_address: str = Field("https://api.mch.weixin.qq.com", description="of WeChat Pay's API v3")
    wechat_pay_mch_id: str = Field("", description="merchant number at WeChat Pay; empty: it is not set up")
    wechat_pay_serial: str = Field("", description="serial number of the merchant's certificate there")
    wechat_pay_key_file: Path | None = Field(
        None, description="its private key (PEM), readable to nobody else"
    )
    wechat_pay_api_v3_key: SecretStr = Field(SecretStr(""), description="APIv3 key, 32 characters")
    wechat_pay_public_key_id: str = Field(
        "", description="PUB_KEY_ID_… of WeChat Pay's public key; empty: its certificates are fetched"
    )
    wechat_pay_public_key_file: Path | None = Field(None, description="that public key (PEM)")
    alipay_address: str = Field("https://openapi.alipay.com/gateway.do", description="Alipay's gateway")
    alipay_app_id: str = Field("", description="app at Alipay; empty: it is not set up")
    alipay_seller_id: str = Field("", description="the account that the money goes to, 2088…")
    alipay_key_file: Path | None = Field(
        None, description="the app's private key (PEM, or its base64 alone), readable to nobody else"
    )
    alipay_public_key_file: Path | None = Field(None, description="Alipay's public key, not the app's")
    hospital_billing_address: str = Field(
        "", description="the hospital's own billing, https://…; empty: none (docs/HOSPITAL_BILLING.md)"
    )
    hospital_billing_app_id: str = Field("", description="who we are there")
    hospital_billing_secret: SecretStr = Field(SecretStr(""), description="what both sides sign with")
    his_file: Path | None = Field(None, description="JSON: where the HIS is, how it speaks (docs/HIS.md)")
    lis_mllp_port: int = Field(
        0, ge=0, le=PORT_MAX, description="where laboratories deliver by HL7 v2; 0: nowhere (docs/RESULTS.md)"
    )
    lis_mllp_host: str = Field("127.0.0.1", description="address to listen on for them")
    lis_peers: str = Field(
        "", description="addresses or CIDRs they come from, between commas; empty: this machine alone"
    )
    lis_charset: Literal["utf-8", "gb18030"] = Field(
        "utf-8", description="of their messages, where MSH-18 names none"
    )
    pacs_address: str = Field(
        "", description="the picture archive's DICOMweb, https://…/dicom-web; empty: none (docs/IMAGING.md)"
    )
    pacs_username: str = Field("", description="who we are there; empty: nobody in particular")
    pacs_password: SecretStr = Field(SecretStr(""), description="the same")
    pacs_form: Literal["qido", "orthanc"] = Field("qido", description="how we hear of new studies there")
    pacs_changes_address: str = Field("", description="Orthanc's own REST interface, with form orthanc")
    pacs_patient_system: str = Field("his", description="whose numbers its patients have; xinglin: our ids")
    pacs_zone: str = Field("Asia/Shanghai", description="zone of its dates where they do not say")
    emr_address: str = Field(
        "", description="the record system's FHIR R4 server, https://…; empty: none (docs/EMR.md)"
    )
    emr_token: SecretStr = Field(SecretStr(""), description="bearer token there")
    emr_username: str = Field("", description="where it wants a name and a password instead")
    emr_password: SecretStr = Field(SecretStr(""), description="the same")
    emr_told: bool = Field(True, description="it is told of our finished visits")
    emr_asked: bool = Field(True, description="it is asked for what is new")
    webhooks: bool = Field(False, description="deliver webhooks, in a process of their own (docs/EVENTS.md)")
    webhook_networks: str = Field(
        "", description="CIDRs of this network that webhooks may reach all the same, between commas"
    )
    broker_url: SecretStr = Field(
        SecretStr(""), description="RabbitMQ that events are published to, amqps://…; empty: none"
    )
    broker_exchange: str = Field(
        "xinglin.events", pattern=r"^[A-Za-z0-9_.\-]{1,127}$", description="the topic exchange there"
    )
    broker_mandatory: bool = Field(
        False, description="an event that no queue takes is held back until one does"
    )
    broker_ca_file: Path | None = Field(None, description="CA (PEM) of the broker's certificate")
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
    partner_requests_per_second: float = Field(200, ge=0, description="of one partner; 0: no limit")
    partner_requests_burst: int = Field(3_000, ge=1, description="the same, at once")
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
    vault_key: str = Field(
        "", description="key of the vault: file:PATH, env:NAME or pkcs11:…; empty: vault.key in the home"
    )
    vault_profile: Literal["aes", "sm4"] = Field(
        "aes", description="what is sealed from now on is sealed with"
    )
    backup_to: str = Field("", description="second place: a directory, or s3://bucket/prefix?endpoint=…")
    backup_key_file: Path | None = Field(None, description="keys of backups: `xinglin backup key FILE`")
    backup_keep: int = Field(7, ge=1, description="base backups that are kept, with their WAL")
    backup_hour: int = Field(3, ge=0, le=23, description="hour at which the nightly base backup begins")
    backup_s3_access_key: str = Field("", description="of the object store")
    backup_s3_secret_key: SecretStr = Field(SecretStr(""), description="of the object store")
    app_database_url: SecretStr | None = Field(
        None, description="the outside PostgreSQL as xinglin_app, for gateways and shards (docs/AUDIT.md)"
    )
    audit_key: SecretStr = Field(
        SecretStr(""), description="signs the audit's chain, 64 hex digits; empty: the home's audit.key"
    )
    oidc_issuer: str = Field("", description="of the staff's identity provider (OpenID Connect); empty: none")
    oidc_client_id: str = Field("", description="as the provider knows us")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="the same")
    oidc_address: str = Field("", description="our own address as browsers know it, https://…")
    oidc_scopes: str = Field("openid profile", description="what is asked of the provider")
    oidc_hosts: str = Field(
        "", description="host[:port] of its endpoints, besides the issuer's, between commas"
    )
    oidc_factor_amr: str = Field(
        "", description="words of its amr that count as a second factor, as mfa,otp,hwk; empty: none"
    )
    oidc_factor_acr: str = Field("", description="its acr that count as one; they are asked for, too")
    oidc_then: str = Field("/docs", pattern=r"^/[^/\\]|^/$", description="page after signing in, of our own")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: LogFormat = Field("text", description="of stderr: text or json; files are always json")
    access_log: Literal["off", "errors", "writes", "all"] = Field(
        "writes", description="requests that get a line in the access log"
    )

    @model_validator(mode="after")
    def _come_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise PydanticCustomError(
                "tls_files", "--tls-cert and --tls-key are given together or not at all"
            )
        if self.oidc_issuer and not (self.oidc_client_id and self.oidc_address):
            raise PydanticCustomError(
                "oidc", "with an identity provider, XINGLIN_OIDC_CLIENT_ID and _ADDRESS are needed, too"
            )
        for provider, own, besides in _MERCHANTS:
            missing = [name for name in (*own, *besides) if not self._is_given(name)]
            if missing and any(self._is_given(name) for name in own):
                raise PydanticCustomError(
                    "merchant",
                    "{provider} is set up by halves: {missing} is missing",
                    {
                        "provider": provider,
                        "missing": ", ".join(f"XINGLIN_{name.upper()}" for name in missing),
                    },
                )
        if bool(self.wechat_pay_public_key_id) != (self.wechat_pay_public_key_file is not None):
            raise PydanticCustomError(
                "merchant", "XINGLIN_WECHAT_PAY_PUBLIC_KEY_ID and _FILE are given together or not at all"
            )
        if self.port_each and self.port + self.gateways - 1 > PORT_MAX:
            raise PydanticCustomError("port_each", "with a port each, the last gateway's would be too high")
        return self

    def _is_given(self, name: str) -> bool:
        value = getattr(self, name)
        return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)

    @property
    def second_factor_required(self) -> bool:
        if self.staff_second_factor is None:
            return not self.demo
        return self.staff_second_factor == "required"

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key, where the gateways speak TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return self.tls_cert, self.tls_key

    @property
    def services(self) -> frozenset[Service]:
        """What is to be started."""
        return services_of(self.only)

    @field_validator("only")
    @classmethod
    def _are_services(cls, named: str) -> str:
        try:
            services_of(named)
        except ValueError as wrong:
            raise PydanticCustomError("only", "{why}", {"why": str(wrong)}) from None
        return named

    @field_validator("real_name_address")
    @classmethod
    def _is_private(cls, address: str) -> str:
        """Names and numbers leave the house encrypted, or do not leave this machine."""
        loopback = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
        if address and not address.startswith(("https://", *loopback)):
            raise PydanticCustomError("real_name_address", "the register is asked over https:// alone")
        return address

    @field_validator("public_address", "wechat_pay_address", "alipay_address", "hospital_billing_address")
    @classmethod
    def _is_no_plain_http(cls, address: str) -> str:
        """Money is spoken of encrypted, or on this machine alone."""
        loopback = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
        if address and not address.startswith(("https://", *loopback)):
            raise PydanticCustomError("merchant", "payments are spoken of over https:// alone")
        return address

    @field_validator("broker_url")
    @classmethod
    def _is_no_plain_amqp(cls, url: SecretStr) -> SecretStr:
        said = url.get_secret_value()
        loopback = re.match(r"amqp://([^@/]*@)?(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)", said)
        if said and not said.startswith("amqps://") and loopback is None:
            raise PydanticCustomError("broker_url", "events leave this machine over amqps:// alone")
        return url

    @field_validator("webhook_networks", "lis_peers")
    @classmethod
    def _are_cidrs(cls, networks: str) -> str:
        try:
            for one in networks.split(","):
                if one.strip():
                    ip_network(one.strip())
        except ValueError:
            raise PydanticCustomError("networks", "must be CIDRs between commas") from None
        return networks

    @field_validator("pacs_address", "pacs_changes_address", "emr_address")
    @classmethod
    def _is_no_plain_record(cls, address: str) -> str:
        """Patients' records are asked for encrypted, or on this machine alone."""
        loopback = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
        if address and not address.startswith(("https://", *loopback)):
            raise PydanticCustomError("record_address", "records are asked for over https:// alone")
        return address

    @field_validator("pacs_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise PydanticCustomError("zone", "there is no such time zone") from None
        return name

    @field_validator("oidc_issuer", "oidc_address")
    @classmethod
    def _is_encrypted(cls, address: str) -> str:
        loopback = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
        if address and not address.startswith(("https://", *loopback)):
            raise PydanticCustomError("oidc_address", "identity is asked and told over https:// alone")
        return address

    @field_validator("password_list")
    @classmethod
    def _can_be_read(cls, file: Path | None) -> Path | None:
        if file is not None and not os.access(file, os.R_OK):
            raise ValueError(f"{file} cannot be read")
        return file

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, listed: str) -> str:
        for part in listed.split(","):
            if part.strip():
                ip_network(part.strip())  # raises ValueError that names it
        return listed
