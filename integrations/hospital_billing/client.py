"""Asks the hospital's billing what somebody owes, and tells it what was paid and given back.

    billing = HospitalBillingClient(session, Billing("https://his.example", "xinglin", secret))
    await billing.outstanding(identity)     # Outstanding
    await billing.bill(number)              # HospitalBill; Refused no_such_bill
    await billing.tell_paid(paid)           # their receipt
    await billing.tell_refunded(refunded)   # their receipt
    await billing.statement(day)            # list[HospitalRow]

Which failure is which. An answer that is not signed by them, or not now, is never believed:

    a question that brings no answer to believe         TryAgain
    tell_paid, tell_refunded, unless nothing can have
      got there (no connection) or they are busy (429)  OutcomeUnknown: `bill` tells whether they have it
    a signed 4xx                                        Refused, with their word; but TryAgain: not_yet, and
                                                        401 of a question, which may be our HTTP client's
                                                        repetition, its nonce used up
    a signed answer that is of another version or
      does not add up                                   Unfit, of a question; else OutcomeUnknown

What was told may be told again: they know it by our payment's or refund's id. One host, the one that was
configured: no redirect is followed and no address of theirs is used.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, TypeVar

import aiohttp
import orjson
from yarl import URL

from engine.domain.hospital_orders import NUMBER_FORMAT
from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.hospital_billing import signing
from integrations.hospital_billing.translate import (
    HospitalBill,
    HospitalRow,
    Identity,
    Outstanding,
    Paid,
    Refunded,
    Unfit,
    bill_of,
    code_of,
    outstanding_of,
    paid_body,
    question,
    receipt_of,
    refunded_body,
    rows_of,
)

OUTSTANDING_PATH: Final = "/v1/bills/outstanding"
ASK_SECONDS_MAX: Final = 1.5  # somebody waits for it
TELL_SECONDS_MAX: Final = 5.0
STATEMENT_SECONDS_MAX: Final = 60.0
ANSWER_BYTES_MAX: Final = 1024 * 1024
STATEMENT_BYTES_MAX: Final = 64 * 1024 * 1024
STATEMENT_ROWS_MAX: Final = 200_000
AFTER_SECONDS_MAX: Final = 3_600.0

T = TypeVar("T")
_Unknown = type[TryAgain] | type[OutcomeUnknown]


@dataclass(frozen=True, slots=True)
class Billing:
    """Where the billing is, and who we are there."""

    address: str  # https://…, no path
    app_id: str
    secret: bytes = field(repr=False)


class HospitalBillingClient:
    """The session is its owner's to close."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        billing: Billing,
        seconds_max: float | None = None,  # of everything, for tests
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._billing = billing
        self._address = billing.address.rstrip("/")
        self._seconds_max = seconds_max
        self._clock = clock

    async def outstanding(self, identity: Identity) -> Outstanding:
        """Raises TryAgain, Refused, Unfit."""
        answer = await self._exchange("POST", OUTSTANDING_PATH, question(identity), TryAgain, ASK_SECONDS_MAX)
        return outstanding_of(answer, identity)

    async def bill(self, number: str) -> HospitalBill:
        """Raises TryAgain, Refused, Unfit."""
        path = f"/v1/bills/{_checked(number)}"
        return bill_of(await self._exchange("GET", path, None, TryAgain, ASK_SECONDS_MAX), number)

    async def tell_paid(self, paid: Paid) -> str:
        """Raises all three. Refused paid_elsewhere, withdrawn or changed: it is not accepted, for good."""
        path = f"/v1/bills/{_checked(paid.number)}/payments"
        answer = await self._exchange("POST", path, paid_body(paid), OutcomeUnknown, TELL_SECONDS_MAX)
        return _believed(lambda: receipt_of(answer, "payment", paid.id))

    async def tell_refunded(self, refunded: Refunded) -> str:
        """Raises all three."""
        path = f"/v1/bills/{_checked(refunded.number)}/refunds"
        answer = await self._exchange("POST", path, refunded_body(refunded), OutcomeUnknown, TELL_SECONDS_MAX)
        return _believed(lambda: receipt_of(answer, "refund", refunded.id))

    async def statement(self, day: date) -> list[HospitalRow]:
        """A day of the hospital's. Raises TryAgain, also where it is not closed yet; Refused; Unfit."""
        answer = await self._exchange(
            "GET",
            f"/v1/statements/{day.isoformat()}",
            None,
            TryAgain,
            STATEMENT_SECONDS_MAX,
            STATEMENT_BYTES_MAX,
        )
        return rows_of(answer, day, STATEMENT_ROWS_MAX)

    def is_theirs(
        self, method: str, path: str, app_id: str, at: str, nonce: str, signature: str, body: bytes
    ) -> bool:
        """Whether the billing has signed this request to us, within these minutes."""
        us = self._billing
        if signing.NONCE_FORMAT.fullmatch(nonce) is None or not signing.is_near(at, int(self._clock())):
            return False
        expected = signing.of_request(us.secret, method, path, us.app_id, int(at), nonce, body)
        return app_id == us.app_id and signing.is_same(signature, expected)

    async def _exchange(
        self,
        method: str,
        path: str,
        said: Mapping[str, object] | None,
        unknown: _Unknown,
        seconds_max: float,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> Any:
        """Their answer, parsed. `unknown` is raised where nobody can tell what came of it."""
        body = b"" if said is None else orjson.dumps(said)
        nonce = secrets.token_hex(16)
        try:
            status, headers, raw = await self._send(method, path, body, nonce, seconds_max, bytes_max)
        except OutcomeUnknown as error:
            raise unknown(str(error)) from None
        after = _seconds(headers.get("Retry-After"))
        if status == 429:
            raise TryAgain("hospital billing: busy", after)
        wrong = self._wrong(status, nonce, headers, raw)
        if wrong:
            raise _plus(unknown(f"hospital billing: status {status}, {wrong}"), after)
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise unknown(f"hospital billing: status {status}, no JSON") from None
        if status == 200:
            return answer
        code = code_of(answer)
        if 400 <= status < 500 and code:
            if code == "not_yet" or (status == 401 and unknown is TryAgain):
                raise TryAgain(f"hospital billing: {code}", after)
            raise Refused(code, "hospital billing")
        raise _plus(unknown(f"hospital billing: status {status}"), after)

    async def _send(
        self, method: str, path: str, body: bytes, nonce: str, seconds_max: float, bytes_max: int
    ) -> tuple[int, Any, bytes]:
        """Raises TryAgain where the request cannot have got there, else OutcomeUnknown."""
        us = self._billing
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **signing.headers_of_request(us.secret, method, path, us.app_id, int(self._clock()), nonce, body),
        }
        if body:
            headers["Content-Type"] = "application/json"
        total = seconds_max if self._seconds_max is None else self._seconds_max
        # `from None`, and no words of theirs: what fails ends in logs, and must name nobody.
        try:
            async with self._session.request(
                method,
                URL(f"{self._address}{path}", encoded=True),  # as it was signed
                data=body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=total),
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await _whole(response, bytes_max)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryAgain(f"hospital billing: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"hospital billing: {type(error).__name__}") from None

    def _wrong(self, status: int, nonce: str, headers: Any, raw: bytes) -> str:
        """Why this is not their answer to us, now; "" where it is."""
        at = headers.get(signing.TIMESTAMP, "")
        if not signing.is_near(at, int(self._clock())):
            return "of another time"
        expected = signing.of_answer(self._billing.secret, status, nonce, int(at), raw)
        return "" if signing.is_same(headers.get(signing.SIGNATURE, ""), expected) else "not theirs"


def _checked(number: str) -> str:
    """It becomes a part of an address."""
    if NUMBER_FORMAT.fullmatch(number) is None or not number.strip("."):
        raise Refused("bad_number", "hospital billing")
    return number


def _believed(read: Callable[[], T]) -> T:
    """Of an answer to what we told them."""
    try:
        return read()
    except Unfit as error:
        raise OutcomeUnknown(f"hospital billing: an answer that does not fit: {error.why}") from None


def _plus(failed: ConnectorFailed, after: float | None) -> ConnectorFailed:
    if isinstance(failed, TryAgain):
        failed.after = after
    return failed


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces, have = [], 0
    async for piece in response.content.iter_chunked(1 << 16):
        have += len(piece)
        if have > limit:
            raise OutcomeUnknown("hospital billing: an answer that is too large")
        pieces.append(piece)
    return b"".join(pieces)


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), AFTER_SECONDS_MAX)
