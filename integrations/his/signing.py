"""Both sides sign what they say with one secret: HMAC-SHA256 over all of it. Pure.

    a request   method LF path LF app id LF timestamp LF nonce LF SHA-256 of the body
    an answer   status LF the request's nonce LF timestamp LF SHA-256 of the body

The timestamp is seconds since 1970, the nonce 32 hexadecimal digits that are used once. An answer names the
nonce that it answers, so an old one passes for no new one. The HIS signs what it tells us in the same
way; the path tells the directions apart. It is the scheme of the hospital billing, in a file of its own
because connectors do not lean on one another: either may change when its vendor does.
"""

import hashlib
import hmac
import re
from typing import Final

APP: Final = "X-App-Id"
TIMESTAMP: Final = "X-Timestamp"
NONCE: Final = "X-Nonce"
SIGNATURE: Final = "X-Signature"

NONCE_FORMAT: Final = re.compile(r"[0-9a-f]{32}")
WINDOW_SECONDS: Final = 300
"""What is older, or further ahead, is refused."""


def of_request(secret: bytes, method: str, path: str, app_id: str, at: int, nonce: str, body: bytes) -> str:
    return _signed(secret, method, path, app_id, str(at), nonce, hashlib.sha256(body).hexdigest())


def of_answer(secret: bytes, status: int, nonce: str, at: int, body: bytes) -> str:
    return _signed(secret, str(status), nonce, str(at), hashlib.sha256(body).hexdigest())


def headers_of_request(
    secret: bytes, method: str, path: str, app_id: str, at: int, nonce: str, body: bytes
) -> dict[str, str]:
    return {
        APP: app_id,
        TIMESTAMP: str(at),
        NONCE: nonce,
        SIGNATURE: of_request(secret, method, path, app_id, at, nonce, body),
    }


def is_same(one: str, other: str) -> bool:
    """In a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def is_near(at: str, now: int) -> bool:
    """Whether this is a timestamp, and of these minutes."""
    return at.isascii() and at.isdigit() and len(at) <= 12 and abs(int(at) - now) <= WINDOW_SECONDS


def _signed(secret: bytes, *parts: str) -> str:
    return hmac.digest(secret, "\n".join(parts).encode(errors="replace"), "sha256").hex()
