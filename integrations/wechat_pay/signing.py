"""How both sides of WeChat Pay v3 sign, and what is encrypted: pure, the time is an argument.

    a request        METHOD LF path?query LF timestamp LF nonce LF body LF       by the merchant's key
    an answer and
    a callback       timestamp LF nonce LF body LF                               by the platform's
    wx.requestPayment   app id LF timestamp LF nonce LF prepay_id=… LF           by the merchant's

RSA with SHA-256, PKCS #1 v1.5. `body` is the bytes on the wire, never JSON written anew. The platform signs
with the key of a certificate (its serial number names it, and it ends) or with its public key (PUB_KEY_ID_…,
without end).

Whatever cannot be believed raises Refused: headers_missing, wrong_time, unknown_key, key_expired,
wrong_signature, not_decrypted.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from integrations.connector import Refused

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
TIMESTAMP: Final = "Wechatpay-Timestamp"
NONCE: Final = "Wechatpay-Nonce"
SERIAL: Final = "Wechatpay-Serial"
SIGNATURE: Final = "Wechatpay-Signature"
SIGNATURE_TYPE: Final = "Wechatpay-Signature-Type"

WINDOW_SECONDS: Final = 300
"""What is older, or further ahead, is refused."""
KEY_BITS_MIN: Final = 2048
API_V3_KEY_BYTES: Final = 32
AEAD: Final = "AEAD_AES_256_GCM"
NONCE_BYTES: Final = 12

_PUBLIC_KEY_ID: Final = re.compile(r"PUB_KEY_ID_[0-9A-Za-z]{1,64}")


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who we are over there."""

    mch_id: str
    app_id: str
    serial: str  # of the certificate that belongs to `key`
    key: RSAPrivateKey = field(repr=False)
    api_v3_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.api_v3_key) != API_V3_KEY_BYTES:
            raise ValueError(f"the APIv3 key has {API_V3_KEY_BYTES} bytes")
        if self.key.key_size < KEY_BITS_MIN:
            raise ValueError("the merchant's key is too short")


def merchant_of(mch_id: str, app_id: str, serial: str, key_pem: bytes, api_v3_key: bytes) -> Merchant:
    """Raises ValueError where the key is none."""
    key = load_pem_private_key(key_pem, None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the merchant's key is no RSA key")
    return Merchant(mch_id, app_id, serial, key, api_v3_key)


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """A key that WeChat Pay signs with."""

    serial: str  # of its certificate, or PUB_KEY_ID_…
    key: RSAPublicKey = field(repr=False)
    begins: datetime | None = None  # a public key without certificate has no times
    ends: datetime | None = None

    def is_good(self, now: float) -> bool:
        at = datetime.fromtimestamp(now, UTC)
        return (self.begins is None or self.begins <= at) and (self.ends is None or at <= self.ends)


def of_certificate(pem: bytes) -> PlatformKey:
    """Raises ValueError where it is no RSA certificate."""
    certificate = x509.load_pem_x509_certificate(pem)
    return PlatformKey(
        format(certificate.serial_number, "X"),
        _rsa(certificate.public_key()),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def of_public_key(key_id: str, pem: bytes) -> PlatformKey:
    if _PUBLIC_KEY_ID.fullmatch(key_id) is None:
        raise ValueError("the id of a public key starts with PUB_KEY_ID_")
    return PlatformKey(key_id, _rsa(load_pem_public_key(pem)))


def _rsa(key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS_MIN:
        raise ValueError("the platform's key is no RSA key, or too short")
    return key


class PlatformKeys:
    """The keys that are believed. In certificate mode there are two while one takes over from the other."""

    def __init__(self, keys: Iterable[PlatformKey]) -> None:
        self._keys: dict[str, PlatformKey] = {}
        self.add(keys)

    def add(self, keys: Iterable[PlatformKey]) -> None:
        self._keys.update((_normal(key.serial), key) for key in keys)

    def named(self, serial: str, now: float) -> RSAPublicKey:
        found = self._keys.get(_normal(serial))
        if found is None:
            raise Refused("unknown_key", "wechat pay: signed with a key that is not known")
        if not found.is_good(now):
            raise Refused("key_expired", "wechat pay: signed with a certificate outside its time")
        return found.key

    @property
    def asked_for(self) -> str | None:
        """What to name in a request, so that the answer is signed with the public key."""
        return next((key.serial for key in self._keys.values() if key.ends is None), None)

    @property
    def last_end(self) -> datetime | None:
        """When the last certificate ends, for an alarm before it; None in public-key mode, or without any."""
        if self.asked_for is not None:
            return None
        return max((key.ends for key in self._keys.values() if key.ends is not None), default=None)


def _normal(serial: str) -> str:
    return serial if serial.startswith("PUB_KEY_ID_") else serial.upper().lstrip("0")


def signed(key: RSAPrivateKey, text: bytes) -> str:
    return base64.b64encode(key.sign(text, PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, text: bytes, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), text, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def text_of_request(method: str, target: str, at: str, nonce: str, body: bytes) -> bytes:
    """`target` is path and query as they are sent."""
    return b"%s\n%s\n" % (f"{method}\n{target}\n{at}\n{nonce}".encode(), body)


def text_of_answer(at: str, nonce: str, body: bytes) -> bytes:
    return b"%s\n%s\n" % (f"{at}\n{nonce}".encode(), body)


def authorization(merchant: Merchant, method: str, target: str, at: int, nonce: str, body: bytes) -> str:
    signature = signed(merchant.key, text_of_request(method, target, str(at), nonce, body))
    return (
        f'{SCHEME} mchid="{merchant.mch_id}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{at}",serial_no="{merchant.serial}"'
    )


def payment_parameters(merchant: Merchant, prepay_id: str, at: int, nonce: str) -> dict[str, str]:
    """What wx.requestPayment takes, all of it."""
    package = f"prepay_id={prepay_id}"
    text = f"{merchant.app_id}\n{at}\n{nonce}\n{package}\n".encode()
    return {
        "timeStamp": str(at),
        "nonceStr": nonce,
        "package": package,
        "signType": "RSA",
        "paySign": signed(merchant.key, text),
    }


def check(keys: PlatformKeys, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """That the platform said these bytes, in these minutes. `headers` finds names in any case (aiohttp's do).

    Returns what tells this message from all others; the same one again has the same. Raises Refused.
    """
    at, nonce = headers.get(TIMESTAMP, ""), headers.get(NONCE, "")
    serial, signature = headers.get(SERIAL, ""), headers.get(SIGNATURE, "")
    if not (at and nonce and serial and signature):
        raise Refused("headers_missing", "wechat pay: not signed")
    if headers.get(SIGNATURE_TYPE, SCHEME) != SCHEME:
        raise Refused("wrong_signature", "wechat pay: signed in another way")
    if not (at.isascii() and at.isdigit() and len(at) <= 12):
        raise Refused("wrong_time", "wechat pay: a timestamp that is none")
    apart = int(at) - int(now)
    if abs(apart) > WINDOW_SECONDS:
        # Either somebody plays back what was said before, or one of the clocks is off.
        raise Refused("wrong_time", f"wechat pay: said {apart} s from now; is the clock right?")
    text = text_of_answer(at, nonce, body)
    if not is_signed(keys.named(serial, now), text, signature):
        raise Refused("wrong_signature", "wechat pay: the signature is not theirs")
    return hashlib.sha256(b"%s\n%s" % (_normal(serial).encode(), text)).hexdigest()


def decrypted(api_v3_key: bytes, resource: Mapping[str, object]) -> bytes:
    """What a callback or the list of certificates holds. Raises Refused."""
    ciphertext, nonce = resource.get("ciphertext"), resource.get("nonce")
    more = resource.get("associated_data") or ""
    if resource.get("algorithm") != AEAD or not (
        isinstance(ciphertext, str) and isinstance(nonce, str) and isinstance(more, str)
    ):
        raise Refused("not_decrypted", "wechat pay: encrypted in another way")
    if len(nonce.encode()) != NONCE_BYTES:
        raise Refused("not_decrypted", "wechat pay: a nonce of another length")
    try:
        return AESGCM(api_v3_key).decrypt(
            nonce.encode(), base64.b64decode(ciphertext, validate=True), more.encode()
        )
    except (InvalidTag, binascii.Error, ValueError):
        raise Refused("not_decrypted", "wechat pay: not encrypted with our APIv3 key") from None


def encrypted(api_v3_key: bytes, nonce: str, more: str, content: bytes) -> dict[str, str]:
    """The other way round; the sandbox's."""
    sealed = AESGCM(api_v3_key).encrypt(nonce.encode(), content, more.encode())
    return {
        "algorithm": AEAD,
        "ciphertext": base64.b64encode(sealed).decode(),
        "nonce": nonce,
        "associated_data": more,
    }
