"""The signature that tells a receiver that a message is ours, whole, and of now (standard-webhooks).

    webhook-id: 0-1234                      the same for each try: what was seen before may be dropped
    webhook-timestamp: 1764000000           of this try
    webhook-signature: v1,BASE64 [v1,…]     HMAC-SHA256 over id.timestamp.body, one for each secret in force

A secret is told as `whsec_` and base64; the bytes behind it are the key.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
FAR_SECONDS_MAX: Final = 300  # what receivers bear between their clock and ours


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """Raises ValueError where it is not spelled like one."""
    if not secret.startswith(PREFIX):
        raise ValueError("a webhook's secret begins with whsec_")
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a webhook's secret is base64") from None


def signature_of(key: bytes, id_: str, timestamp: int, body: bytes) -> str:
    signed = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"


def headers_of(secrets_in_force: Iterable[str], id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    signatures = [signature_of(key_of(one), id_, timestamp, body) for one in secrets_in_force]
    return {ID: id_, TIMESTAMP: str(timestamp), SIGNATURE: " ".join(signatures)}


def is_ours(secret: str, headers: dict[str, str], body: bytes, now: int) -> bool:
    """What a receiver does: `headers` in small letters."""
    id_, said, signatures = headers.get(ID, ""), headers.get(TIMESTAMP, ""), headers.get(SIGNATURE, "")
    if not (said.isascii() and said.isdigit()) or abs(now - int(said)) > FAR_SECONDS_MAX:
        return False
    expected = signature_of(key_of(secret), id_, int(said), body)
    return any(hmac.compare_digest(one.encode(), expected.encode()) for one in signatures.split(" "))
