"""Asks the register whether a name and a number belong together. Nothing changes over there."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import orjson

from engine.records.identity import IdType
from integrations.connector import Refused, TryAgain
from integrations.real_name import signing
from integrations.real_name.translate import Finding, finding_of, question

PATH: Final = "/v1/identity/check"
SECONDS_MAX: Final = 1.5  # somebody waits for it
ANSWER_BYTES_MAX: Final = 16 * 1024
AFTER_SECONDS_MAX: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Register:
    """Where the register is, and who we are there."""

    address: str  # https://…, no path
    app_id: str
    secret: bytes = field(repr=False)


class RealNameClient:
    """The session is its owner's to close."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        register: Register,
        seconds_max: float = SECONDS_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._register = register
        self._url = f"{register.address.rstrip('/')}{PATH}"
        self._timeout = aiohttp.ClientTimeout(total=seconds_max)
        self._clock = clock

    async def check(self, name: str, id_type: IdType, id_number: str) -> Finding:
        """`id_type` is one that translate.KINDS has. Raises TryAgain where they are away, busy, or somebody
        else answers in their place; Refused where they do not know us."""
        body = orjson.dumps(question(name, id_type, id_number))
        register, nonce, now = self._register, secrets.token_hex(16), int(self._clock())
        headers = {
            "Content-Type": "application/json",
            signing.APP: register.app_id,
            signing.TIMESTAMP: str(now),
            signing.NONCE: nonce,
            signing.SIGNATURE: signing.of_request(
                register.secret, "POST", PATH, register.app_id, now, nonce, body
            ),
        }
        # `from None`, and no words of theirs: what fails ends in logs, and must name nobody.
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                status, told = response.status, response.headers
                raw = await response.content.read(ANSWER_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TryAgain(f"real names: {type(error).__name__}") from None
        if status in (401, 403):
            raise Refused(f"status_{status}")  # a wrong app id or secret, or a clock that is wrong
        if status != 200:
            raise TryAgain(f"real names: status {status}", _seconds(told.get("Retry-After")))
        self._check_signature(
            status, nonce, told.get(signing.TIMESTAMP, ""), raw, told.get(signing.SIGNATURE, "")
        )
        try:
            return finding_of(orjson.loads(raw))
        except orjson.JSONDecodeError:
            raise TryAgain("real names: an answer that is no JSON") from None

    def _check_signature(self, status: int, nonce: str, at: str, raw: bytes, signature: str) -> None:
        if not signing.is_near(at, int(self._clock())):
            raise TryAgain("real names: an answer of another time")
        if not signing.is_same(
            signature, signing.of_answer(self._register.secret, status, nonce, int(at), raw)
        ):
            raise TryAgain("real names: an answer that is not theirs")


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), AFTER_SECONDS_MAX)
