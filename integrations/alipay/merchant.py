"""Who we are at Alipay, and the two keys: ours to sign with, theirs to check with."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

GATEWAY: Final = "https://openapi.alipay.com/gateway.do"


@dataclass(frozen=True, slots=True)
class Merchant:
    """Raises ValueError where the gateway would be spoken to in the clear, but for one on this machine."""

    app_id: str
    seller_id: str  # 2088…: whose account the money goes to
    private_key: RSAPrivateKey = field(repr=False)  # the app's
    alipay_key: RSAPublicKey = field(repr=False)  # Alipay's public key, not the app's: mixed up easily
    notify_url: str  # where they tell us of payments
    gateway: str = GATEWAY

    def __post_init__(self) -> None:
        if not is_safe(self.gateway):
            raise ValueError("alipay: the gateway must be https")


def is_safe(address: str) -> bool:
    """https, or this machine itself."""
    parts = urlsplit(address)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    )
