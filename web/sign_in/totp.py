"""Codes of a second factor (RFC 6238): six digits of thirty seconds, by the server's clock alone.

A code of the step before or after is taken as well, for telephones whose clock is a little off. Each counts
once: the step of the last one is kept, and nothing of it or before it counts again.
"""

import hmac
import re
from datetime import datetime
from typing import Final

import pyotp

STEP_SECONDS: Final = 30
SKEW_STEPS: Final = 1
ISSUER: Final = "Xinglin"
_CODE: Final = re.compile(r"[0-9]{6}")


def new_secret() -> str:
    """160 random bits in base32, as every authenticator takes them."""
    return pyotp.random_base32()


def uri_of(secret: str, username: str) -> str:
    """What an authenticator reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=ISSUER)


def step_of(secret: str, code: str, now: datetime, last_step: int) -> int | None:
    """The step that this code is of. None: it is wrong, of another time, or used."""
    if not _CODE.fullmatch(code):
        return None
    at = int(now.timestamp()) // STEP_SECONDS
    totp = pyotp.TOTP(secret)
    found = None
    for step in range(at - SKEW_STEPS, at + SKEW_STEPS + 1):
        if hmac.compare_digest(totp.at(step * STEP_SECONDS), code) and step > last_step:
            found = step
    return found


def code_of(secret: str, now: datetime) -> str:
    """As the telephone shows it."""
    return pyotp.TOTP(secret).at(int(now.timestamp()))
