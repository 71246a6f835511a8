"""Everybody's keys in the sandbox: real RSA, made new each time, or read from a file that somebody kept."""

import secrets
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from integrations.wechat_pay import signing
from integrations.wechat_pay.signing import Merchant, PlatformKey

_PUBLIC_KEY_ID: Final = "PUB_KEY_ID_0000000000000024101100397200000006"
_TIMES: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Keys:
    """Everybody's: the merchant's, the platform's with certificate and without, and a forger's."""

    mch_id: str
    app_id: str
    merchant: rsa.RSAPrivateKey = field(repr=False)
    merchant_serial: str
    platform: rsa.RSAPrivateKey = field(repr=False)
    certificate: bytes  # PEM, of `platform`
    public: rsa.RSAPrivateKey = field(repr=False)  # the platform's too, which PUB_KEY_ID_… names
    forger: rsa.RSAPrivateKey = field(repr=False)
    api_v3_key: bytes = field(repr=False)
    public_id: str = _PUBLIC_KEY_ID

    @classmethod
    def made(cls, now: float, mch_id: str = "1900000109", app_id: str = "wxd678efh567hg6787") -> "Keys":
        merchant, platform, public, forger = (rsa.generate_private_key(65537, 2048) for _ in range(4))
        at = datetime.fromtimestamp(now, UTC)
        return cls(
            mch_id,
            app_id,
            merchant,
            format(x509.random_serial_number(), "X"),
            platform,
            certificate(platform, at - timedelta(days=1), at + _TIMES),
            public,
            forger,
            secrets.token_hex(16).encode(),
        )

    def dumped(self) -> bytes:
        """For a file that every process of a demo reads. Of play money, but keys: for its owner's eyes."""
        out = {
            name: _pem(value) if isinstance(value, rsa.RSAPrivateKey) else value
            for name, value in ((one.name, getattr(self, one.name)) for one in fields(self))
        }
        texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in out.items()}
        return orjson.dumps(texts)

    @classmethod
    def loaded(cls, content: bytes) -> "Keys":
        said: dict[str, Any] = orjson.loads(content)
        for name in ("merchant", "platform", "public", "forger"):
            said[name] = load_pem_private_key(said[name].encode(), None)
        for name in ("certificate", "api_v3_key"):
            said[name] = said[name].encode()
        return cls(**said)

    def merchant_there(self) -> Merchant:
        """Who the client is."""
        return Merchant(self.mch_id, self.app_id, self.merchant_serial, self.merchant, self.api_v3_key)

    def platform_certificate(self) -> PlatformKey:
        return signing.of_certificate(self.certificate)

    def platform_public_key(self) -> PlatformKey:
        return signing.of_public_key(self.public_id, self.public_pem())

    def public_pem(self) -> bytes:
        return self.public.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def merchant_pem(self) -> bytes:
        return _pem(self.merchant)


def certificate(key: rsa.RSAPrivateKey, begins: datetime, ends: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
