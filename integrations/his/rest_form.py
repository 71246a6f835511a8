"""The HIS by signed JSON over HTTP: for vendors with neither HL7 v2 nor FHIR. docs/HL7.md has the wire.

    a question that brings no answer to believe        TryAgain
    telling, locking, unlocking, unless nothing can
      have got there (no connection) or they are busy  OutcomeUnknown: told again under the same id, it is
                                                       done once
    a signed 4xx                                       Refused, with their word
    a signed answer that does not fit                  TryAgain of a question, else OutcomeUnknown

An answer that is not signed by them, now and for this request, is never believed. No redirect is followed.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.his import rest_words as words
from integrations.his import signing
from integrations.his.his import (
    Booking,
    Day,
    Department,
    Kind,
    Locked,
    Person,
    Practitioner,
    Registration,
)
from integrations.his.his_at import HisAt

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
PAGES_MAX: Final = 100
AFTER_SECONDS_MAX: Final = 3_600.0
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

T = TypeVar("T")
_Unknown = type[TryAgain] | type[OutcomeUnknown]


class RestHis:
    """A connector of his.py's protocol. The session is its owner's to close."""

    def __init__(
        self, at: HisAt, session: aiohttp.ClientSession, clock: Callable[[], float] = time.time
    ) -> None:
        self._at = at
        self._address = at.address.rstrip("/")
        self._session = session
        self._clock = clock

    async def tell(
        self,
        message_id: str,
        kind: Kind,
        booking: Booking,
        *,
        before: Booking | None = None,
        reason: str = "",
    ) -> str:
        path = f"/v1/registrations/{_checked(booking.id)}/events"
        said = words.told_body(message_id, kind, booking, before, reason)
        answer = await self._exchange("POST", path, said, OutcomeUnknown)
        return _read(lambda: words.his_id_of(answer, message_id), OutcomeUnknown)

    async def find(self, booking_id: str) -> Registration | None:
        try:
            answer = await self._exchange("GET", f"/v1/registrations/{_checked(booking_id)}", None, TryAgain)
        except Refused as refused:
            if refused.code == "unknown_booking":
                return None
            raise
        found = _read(lambda: words.registration_of(words.versioned(answer).get("registration")), TryAgain)
        if found.booking_id != booking_id:
            raise TryAgain("HIS: an answer about another booking")
        return found

    async def registrations(self, day: date) -> list[Registration]:
        rows: list[Registration] = []
        cursor = ""
        for _ in range(PAGES_MAX):
            path = f"/v1/days/{day.isoformat()}/registrations" + (
                f"?from={quote(cursor, safe='')}" if cursor else ""
            )
            answer = await self._exchange("GET", path, None, TryAgain)
            page, cursor = _page(answer, day)
            rows += page
            if not cursor:
                break
        else:
            raise TryAgain("HIS: a day without end")
        if len({row.his_id for row in rows}) < len(rows):
            raise TryAgain("HIS: a row twice")
        return rows

    async def lock(self, booking: Booking) -> Locked:
        said = {"version": words.VERSION, "booking": words.booking_body(booking)}
        answer = await self._exchange("POST", f"/v1/locks/{_checked(booking.id)}", said, OutcomeUnknown)
        return _read(lambda: words.locked_of(answer, booking.id), OutcomeUnknown)

    async def unlock(self, booking_id: str) -> None:
        said = {"version": words.VERSION}
        await self._exchange("POST", f"/v1/locks/{_checked(booking_id)}/release", said, OutcomeUnknown)

    async def departments(self) -> Sequence[Department]:
        answer = await self._exchange("GET", "/v1/departments", None, TryAgain)
        return _read(lambda: words.departments_of(answer), TryAgain)

    async def practitioners(self) -> Sequence[Practitioner]:
        answer = await self._exchange("GET", "/v1/practitioners", None, TryAgain)
        return _read(lambda: words.practitioners_of(answer), TryAgain)

    async def schedules(self, first: date, last: date) -> Sequence[Day]:
        path = f"/v1/schedules/{first.isoformat()}/{last.isoformat()}"
        answer = await self._exchange("GET", path, None, TryAgain)
        return _read(lambda: words.days_of(answer), TryAgain)

    async def patient(self, id_type: str, id_number: str) -> Person | None:
        # In a body and not in an address, though it changes nothing: addresses end in logs.
        said = {"version": words.VERSION, "id_type": id_type, "id_number": id_number}
        answer = await self._exchange("POST", "/v1/patients/find", said, TryAgain)
        return _read(lambda: words.patient_of(answer), TryAgain)

    async def close(self) -> None:
        """Nothing is its own."""

    def is_theirs(
        self, method: str, path: str, app_id: str, at: str, nonce: str, signature: str, body: bytes
    ) -> bool:
        """Whether the HIS has signed this request to us, within these minutes."""
        if signing.NONCE_FORMAT.fullmatch(nonce) is None or not signing.is_near(at, int(self._clock())):
            return False
        expected = signing.of_request(self._at.secret, method, path, self._at.app_id, int(at), nonce, body)
        return app_id == self._at.app_id and signing.is_same(signature, expected)

    async def _exchange(
        self, method: str, path: str, said: Mapping[str, object] | None, unknown: _Unknown
    ) -> Any:
        """Their answer, parsed. `unknown` is raised where nobody can tell what came of it."""
        body = b"" if said is None else orjson.dumps(said)
        nonce = secrets.token_hex(16)
        try:
            status, headers, raw = await self._send(method, path, body, nonce)
        except OutcomeUnknown as error:
            raise unknown(str(error)) from None
        after = _seconds(headers.get("Retry-After"))
        if status == 429:
            raise TryAgain("HIS: busy", after)
        at = headers.get(signing.TIMESTAMP, "")
        if not signing.is_near(at, int(self._clock())):
            raise unknown(f"HIS: status {status}, of another time")
        expected = signing.of_answer(self._at.secret, status, nonce, int(at), raw)
        if not signing.is_same(headers.get(signing.SIGNATURE, ""), expected):
            raise unknown(f"HIS: status {status}, not theirs")
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise unknown(f"HIS: status {status}, no JSON") from None
        if status == 200:
            return answer
        code = words.code_of(answer)
        if 400 <= status < 500 and code:
            if code == "not_done" or (status == 401 and unknown is TryAgain):
                raise TryAgain(f"HIS: {code}", after)
            raise Refused(code, "HIS")
        raise unknown(f"HIS: status {status}")

    async def _send(self, method: str, path: str, body: bytes, nonce: str) -> tuple[int, Any, bytes]:
        """Raises TryAgain where the request cannot have got there, else OutcomeUnknown."""
        us = self._at
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **signing.headers_of_request(us.secret, method, path, us.app_id, int(self._clock()), nonce, body),
        }
        if body:
            headers["Content-Type"] = "application/json"
        # `from None`, and no words of theirs: what fails ends in logs, and must name nobody.
        try:
            async with self._session.request(
                method,
                URL(f"{self._address}{path}", encoded=True),  # as it was signed
                data=body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=us.seconds_max),
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await _whole(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryAgain(f"HIS: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"HIS: {type(error).__name__}") from None


def _checked(id_: str) -> str:
    """It becomes a part of an address."""
    if _ID.fullmatch(id_) is None or not id_.strip("."):
        raise Refused("bad_id", "HIS")
    return id_


def _read(read: Callable[[], T], unknown: _Unknown) -> T:
    try:
        return read()
    except words.Unfit as error:
        raise unknown(f"HIS: an answer that does not fit: {error.why}") from None


def _page(answer: object, day: date) -> tuple[list[Registration], str]:
    return _read(lambda: words.page_of(answer, day), TryAgain)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    pieces, have = [], 0
    async for piece in response.content.iter_chunked(1 << 16):
        have += len(piece)
        if have > ANSWER_BYTES_MAX:
            raise OutcomeUnknown("HIS: an answer that is too large")
        pieces.append(piece)
    return b"".join(pieces)


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), AFTER_SECONDS_MAX)
