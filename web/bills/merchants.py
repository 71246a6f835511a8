"""Which providers take this hospital's money, and who we are there: read from the settings, at the start.

Keys lie in files that nobody else may read. What is missing or wrong is said before anything starts.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.settings import Settings
from integrations.alipay import signing as alipay_signing
from integrations.alipay.merchant import Merchant as AlipayThere
from integrations.wechat_pay.signing import Merchant as WeChatThere
from integrations.wechat_pay.signing import PlatformKey, PlatformKeys, merchant_of, of_public_key

CALLBACKS: Final = "/api/v1/callbacks"


class MerchantFailed(Exception):
    """One line that says which setting is wrong, and how."""


@dataclass(frozen=True, slots=True)
class WeChatPayMerchant:
    address: str
    mch_id: str
    app_id: str
    serial: str
    key_pem: bytes = field(repr=False)
    api_v3_key: bytes = field(repr=False)
    public_key_id: str = ""  # "": certificate mode, the platform's certificates are fetched
    public_key_pem: bytes = b""

    def there(self) -> WeChatThere:
        return merchant_of(self.mch_id, self.app_id, self.serial, self.key_pem, self.api_v3_key)

    def platform_keys(self) -> PlatformKeys:
        found: list[PlatformKey] = []
        if self.public_key_id:
            found.append(of_public_key(self.public_key_id, self.public_key_pem))
        return PlatformKeys(found)


@dataclass(frozen=True, slots=True)
class AlipayMerchant:
    gateway: str
    app_id: str
    seller_id: str
    key: str = field(repr=False)  # the app's private key
    alipay_key: str = field(repr=False)  # Alipay's public key

    def there(self, notify_url: str) -> AlipayThere:
        return AlipayThere(
            self.app_id,
            self.seller_id,
            alipay_signing.private_key(self.key),
            alipay_signing.public_key(self.alipay_key),
            notify_url,
            self.gateway,
        )


@dataclass(frozen=True, slots=True)
class Payments:
    """All that a gateway needs to take money. It goes from process to process."""

    address: str = ""  # ours, as the providers reach it
    wechat_pay: WeChatPayMerchant | None = None
    alipay: AlipayMerchant | None = None
    pay_page: str = ""  # of the sandboxes; "": none

    def notify_url(self, provider: str) -> str:
        return f"{self.address}{CALLBACKS}/{provider}"


def merchants_of(settings: Settings) -> Payments:
    """Raises MerchantFailed."""
    found = Payments(settings.public_address.rstrip("/"), _wechat_pay(settings), _alipay(settings))
    try:
        if found.wechat_pay is not None:
            found.wechat_pay.there()
            found.wechat_pay.platform_keys()
        if found.alipay is not None:
            found.alipay.there(found.notify_url("alipay"))
    except ValueError as error:
        raise MerchantFailed(f"payments cannot start: {error}") from None
    return found


def _wechat_pay(settings: Settings) -> WeChatPayMerchant | None:
    if not settings.wechat_pay_mch_id:
        return None
    assert settings.wechat_pay_key_file is not None  # engine/settings.py sees to it
    public = settings.wechat_pay_public_key_file
    return WeChatPayMerchant(
        settings.wechat_pay_address.rstrip("/"),
        settings.wechat_pay_mch_id,
        settings.wechat_app_id,
        settings.wechat_pay_serial,
        _secret(settings.wechat_pay_key_file, "wechat_pay_key_file"),
        settings.wechat_pay_api_v3_key.get_secret_value().encode(),
        settings.wechat_pay_public_key_id,
        b"" if public is None else _read(public, "wechat_pay_public_key_file"),
    )


def _alipay(settings: Settings) -> AlipayMerchant | None:
    if not settings.alipay_app_id:
        return None
    assert settings.alipay_key_file is not None and settings.alipay_public_key_file is not None
    return AlipayMerchant(
        settings.alipay_address,
        settings.alipay_app_id,
        settings.alipay_seller_id,
        _text(_secret(settings.alipay_key_file, "alipay_key_file"), "alipay_key_file"),
        _text(_read(settings.alipay_public_key_file, "alipay_public_key_file"), "alipay_public_key_file"),
    )


def _secret(file: Path, name: str) -> bytes:
    """Of a file that its owner alone may read."""
    content = _read(file, name)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise MerchantFailed(f"{name}: {file} is open to others (mode {mode:o}): chmod 600 it")
    return content


def _read(file: Path, name: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise MerchantFailed(f"{name}: {file} cannot be read: {error.strerror}") from None


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise MerchantFailed(f"{name} is no key: neither PEM nor its base64") from None
