"""A small hospital's billing in memory, for demo and tests: it speaks the wire and can be told to fail.

    sandbox = Sandbox("xinglin", secret, clock, callback_url)
    sandbox.charge("01", "110105…")                       # a bill more for that patient; its number
    sandbox.fail("payment", Fault.APPLIED_THEN_TIMEOUT)   # the next payment is booked, and nothing comes back
    sandbox.spoil = lambda answer: …                      # what it says, before it is signed
    sandbox.pay_at_window(number), sandbox.withdraw(number), sandbox.change(number)
    sandbox.take_back(number, {"1": 500}, "not_dispensed")   # asks us to give back, with a callback
    await sandbox.deliver()                               # sends the callbacks that are due by `clock`

With `charges_everybody` whoever is asked about for the first time owes two bills (sandbox_catalog.py). With
`sends_callbacks` it delivers by itself as time goes by.

Over HTTP, for people and demos (nothing of it is a hospital's, and nothing is signed):

    GET  /sandbox/bills                          what there is, without the patients
    POST /sandbox/bills/{number}/window          paid there; likewise /withdraw, /change
    POST /sandbox/bills/{number}/refund          {"lines": {"1": 500}, "reason": "not_dispensed"}
    POST /sandbox/fail                           {"operation": "payment", "faults": ["cut"]}

Operations: outstanding, bill, payment, refund, statement.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from integrations.hospital_billing import signing
from integrations.hospital_billing.client import OUTSTANDING_PATH
from integrations.hospital_billing.sandbox_catalog import items_of, number_of
from integrations.hospital_billing.translate import VERSION

CURRENCY: Final = "CNY"
RETRY_SECONDS: Final = (5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0)
"""After each callback that was not answered with 2xx."""
CALLBACK_SECONDS_MAX: Final = 5.0
NONCES_MAX: Final = 100_000
BILLS_EACH: Final = 2  # in a demo

Answer = web.Response
Handler = Callable[[web.Request, Any], Awaitable[Answer]]
Json = dict[str, Any]


class Fault(StrEnum):
    TIMEOUT = "timeout"  # nothing is done, and nothing comes back
    APPLIED_THEN_TIMEOUT = "applied_then_timeout"
    CUT = "cut"  # nothing is done, and the line breaks
    APPLIED_THEN_CUT = "applied_then_cut"
    ERROR = "error"  # 500, nothing is done
    APPLIED_ERROR = "applied_error"  # 500, and it is done
    BUSY = "busy"  # 429
    FORGED = "forged"  # it is done; the answer is signed with another secret
    OLD = "old"  # it is done; the answer's time is an hour ago
    REDIRECT = "redirect"  # to somewhere else


@dataclass(slots=True)
class _Bill:
    number: str
    patient: dict[str, str]
    items: list[Json]
    revision: int = 1
    status: str = "outstanding"
    pay_by: str | None = None
    payments: list[Json] = field(default_factory=list)
    refunds: list[Json] = field(default_factory=list)

    @property
    def fen(self) -> int:
        return sum(one["fen"] for one in self.items)

    def told(self) -> Json:
        return {
            "order": self.number,
            "revision": self.revision,
            "status": self.status,
            "patient": self.patient,
            "currency": CURRENCY,
            "fen": self.fen,
            "items": self.items,
            "pay_by": self.pay_by,
            "payments": [{k: one[k] for k in ("payment", "fen", "receipt")} for one in self.payments],
            "refunds": [{k: one[k] for k in ("refund", "fen", "receipt")} for one in self.refunds],
        }


@dataclass(slots=True)
class _Callback:
    content: Json
    due: float
    tries: int = 0


class NotDone(Exception):
    """A refusal on the wire: status and their word for it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(slots=True)
class Sandbox:
    """Bills and the ledger are plain: tests look at them."""

    app_id: str
    secret: bytes = field(repr=False)
    clock: Callable[[], float]
    callback_url: str = ""
    charges_everybody: bool = False
    sends_callbacks: bool = False
    zone: tzinfo = UTC  # the hospital's, in which its days begin
    bills: dict[str, _Bill] = field(default_factory=dict)
    ledger: list[Json] = field(default_factory=list)  # what we told it, once each
    asked: list[str] = field(default_factory=list)  # operations, in their order
    waiting: list[_Callback] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # statuses that callbacks were answered with
    copies: int = 1  # of each callback
    spoil: Callable[[Json], Json] | None = None
    _known: set[tuple[str, str]] = field(default_factory=set)
    _faults: dict[str, deque[Fault]] = field(default_factory=dict)
    _nonces: dict[str, None] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application()
        add = app.router.add_route
        for method, path, operation, handler in (
            ("POST", OUTSTANDING_PATH, "outstanding", self._outstanding),
            ("GET", "/v1/bills/{number}", "bill", self._bill),
            ("POST", "/v1/bills/{number}/payments", "payment", self._payment),
            ("POST", "/v1/bills/{number}/refunds", "refund", self._refund),
            ("GET", "/v1/statements/{day}", "statement", self._statement),
        ):
            add(method, path, self._guarded(operation, handler))
        add("GET", "/sandbox/bills", self._page_bills)
        add("POST", "/sandbox/bills/{number}/{what}", self._page_move)
        add("POST", "/sandbox/fail", self._page_fail)
        app.on_shutdown.append(self._end)
        if self.sends_callbacks:
            app.cleanup_ctx.append(self._sending)
        return app

    # What a test does.

    def fail(self, operation: str, *faults: Fault) -> None:
        """The next requests of this operation, one after another."""
        self._faults.setdefault(operation, deque()).extend(faults)

    def charge(self, kind: str, number: str, items: list[Json] | None = None) -> str:
        """A bill more for whoever has this paper; its number."""
        which = sum(bill.patient == {"kind": kind, "number": number} for bill in self.bills.values()) + 1
        bill_number = number_of(kind, number, which)
        content = items_of(bill_number, 1) if items is None else items
        self.bills[bill_number] = _Bill(bill_number, {"kind": kind, "number": number}, content)
        return bill_number

    def pay_at_window(self, number: str) -> None:
        bill = self.bills[number]
        if bill.status != "outstanding":
            raise ValueError(f"the bill is {bill.status}")
        bill.status = "paid"
        self._call({"event": "look", "order": number, "revision": bill.revision})

    def withdraw(self, number: str) -> None:
        bill = self.bills[number]
        bill.status = "withdrawn"
        self._call({"event": "look", "order": number, "revision": bill.revision})

    def change(self, number: str, items: list[Json] | None = None) -> None:
        """Another prescription under the same number."""
        bill = self.bills[number]
        if bill.status == "paid":
            raise ValueError("it is paid")
        self._call({"event": "look", "order": number, "revision": bill.revision})
        bill.revision += 1
        bill.status = "outstanding"
        bill.items = items_of(number, bill.revision) if items is None else items

    def take_back(self, number: str, lines: dict[str, int], reason: str = "not_dispensed") -> str:
        """It wants the patient to have so much back; its own number of that."""
        bill = self.bills[number]
        refund = f"TF-{secrets.token_hex(6).upper()}"
        self._call(
            {
                "event": "refund",
                "order": number,
                "revision": bill.revision,
                "refund": refund,
                "currency": CURRENCY,
                "fen": sum(lines.values()),
                "lines": [{"line": line, "fen": fen} for line, fen in lines.items()],
                "reason": reason,
            }
        )
        return refund

    async def deliver(self) -> int:
        """Sends the callbacks that are due; how many."""
        now = self.clock()
        due = [callback for callback in self.waiting if callback.due <= now]
        if not due or not self.callback_url:
            return 0
        self.waiting = [callback for callback in self.waiting if callback.due > now]
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=CALLBACK_SECONDS_MAX)
        ) as session:
            for callback in due:
                await self._send(session, callback)
        return len(due)

    def signed(self, content: Json, secret: bytes | None = None) -> tuple[dict[str, str], bytes]:
        """A callback's headers and body, signed now."""
        body = orjson.dumps({"version": VERSION, **content})
        path = "/" + self.callback_url.partition("://")[2].partition("/")[2]
        headers = signing.headers_of_request(
            self.secret if secret is None else secret,
            "POST",
            path,
            self.app_id,
            int(self.clock()),
            secrets.token_hex(16),
            body,
        )
        return {**headers, "Content-Type": "application/json"}, body

    # The wire.

    def _guarded(self, operation: str, handler: Handler) -> Callable[[web.Request], Awaitable[Answer]]:
        async def handle(request: web.Request) -> Answer:
            self.asked.append(operation)
            body = await request.read()
            faults = self._faults.get(operation)
            fault = faults.popleft() if faults else None
            nonce = request.headers.get(signing.NONCE, "")
            if not self._is_theirs(request, body, nonce):
                return self._answer(401, nonce, {"code": "signature"})
            match fault:
                case Fault.TIMEOUT:
                    return await self._silence()
                case Fault.CUT:
                    return _cut(request)
                case Fault.ERROR:
                    return self._answer(500, nonce, {"code": "error"})
                case Fault.REDIRECT:
                    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
                case Fault.BUSY:
                    busy = self._answer(429, nonce, {"code": "busy"})
                    busy.headers["Retry-After"] = "7"
                    return busy
            try:
                content = orjson.loads(body) if body else None
                if content is not None and content.get("version") != VERSION:
                    raise NotDone(400, "version")
                answer = await handler(request, content)
            except NotDone as refused:
                return self._answer(refused.status, nonce, {"code": refused.code})
            match fault:
                case Fault.APPLIED_THEN_TIMEOUT:
                    return await self._silence()
                case Fault.APPLIED_THEN_CUT:
                    return _cut(request)
                case Fault.APPLIED_ERROR:
                    return self._answer(500, nonce, {"code": "error"})
                case Fault.FORGED:
                    return self._answer(200, nonce, answer, b"another")
                case Fault.OLD:
                    return self._answer(200, nonce, answer, at=self.clock() - 3600)
            return self._answer(200, nonce, answer)

        return handle

    def _answer(
        self, status: int, nonce: str, content: Any, secret: bytes | None = None, at: float | None = None
    ) -> Answer:
        said = {"version": VERSION, **content}
        body = orjson.dumps(said if self.spoil is None else self.spoil(said))
        now = int(self.clock() if at is None else at)
        by = self.secret if secret is None else secret
        headers = {
            signing.TIMESTAMP: str(now),
            signing.SIGNATURE: signing.of_answer(by, status, nonce, now, body),
        }
        return web.Response(status=status, body=body, headers=headers, content_type="application/json")

    def _is_theirs(self, request: web.Request, body: bytes, nonce: str) -> bool:
        at, app_id = request.headers.get(signing.TIMESTAMP, ""), request.headers.get(signing.APP, "")
        if not signing.is_near(at, int(self.clock())) or signing.NONCE_FORMAT.fullmatch(nonce) is None:
            return False
        expected = signing.of_request(
            self.secret, request.method, request.raw_path, app_id, int(at), nonce, body
        )
        if app_id != self.app_id or nonce in self._nonces:
            return False
        if not signing.is_same(request.headers.get(signing.SIGNATURE, ""), expected):
            return False
        if len(self._nonces) >= NONCES_MAX:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = None
        return True

    async def _silence(self) -> Answer:
        await self._ended.wait()
        return web.Response(status=500)

    async def _end(self, _app: web.Application) -> None:
        self._ended.set()

    async def _outstanding(self, _request: web.Request, body: Json) -> Any:
        patient = body["patient"]
        person = patient["kind"], patient["number"]
        if self.charges_everybody and person not in self._known:
            for _ in range(BILLS_EACH):
                self.charge(*person)
        self._known.add(person)
        mine = [bill for bill in self.bills.values() if bill.patient == patient]
        return {"bills": [bill.told() for bill in mine if bill.status == "outstanding"]}

    async def _bill(self, request: web.Request, _body: None) -> Any:
        return {"bill": self._found(request).told()}

    async def _payment(self, request: web.Request, body: Json) -> Any:
        bill = self._found(request)
        known = next((one for one in bill.payments if one["payment"] == body["payment"]), None)
        if known is not None:
            if known["fen"] != body["fen"]:
                raise NotDone(409, "contradicts")
            return {"order": bill.number, "payment": body["payment"], "receipt": known["receipt"]}
        if bill.status == "withdrawn":
            raise NotDone(409, "withdrawn")
        if bill.status == "paid":
            raise NotDone(409, "paid_elsewhere")
        if body["revision"] != bill.revision:
            raise NotDone(409, "changed")
        if (body["fen"], body["currency"]) != (bill.fen, CURRENCY):
            raise NotDone(422, "amount")
        bill.status = "paid"
        receipt = self._booked("payment", bill, body["payment"], body)
        bill.payments.append({**body, "receipt": receipt})
        return {"order": bill.number, "payment": body["payment"], "receipt": receipt}

    async def _refund(self, request: web.Request, body: Json) -> Any:
        bill = self._found(request)
        known = next((one for one in bill.refunds if one["refund"] == body["refund"]), None)
        if known is None:
            paid = next((one for one in bill.payments if one["payment"] == body["payment"]), None)
            if paid is None:
                raise NotDone(409, "no_such_payment")
            back = sum(one["fen"] for one in bill.refunds)
            if body["fen"] + back > paid["fen"] or body["currency"] != CURRENCY:
                raise NotDone(422, "amount")
            receipt = self._booked("refund", bill, body["refund"], body)
            known = {**body, "receipt": receipt}
            bill.refunds.append(known)
        return {"order": bill.number, "refund": body["refund"], "receipt": known["receipt"]}

    async def _statement(self, request: web.Request, _body: None) -> Any:
        day = request.match_info["day"]
        rows = [one for one in self.ledger if one["at"][:10] == day]

        def total(kind: str) -> Json:
            fens = [one["fen"] for one in rows if one["kind"] == kind]
            return {"count": len(fens), "fen": sum(fens)}

        return {"day": day, "rows": rows, "payments": total("payment"), "refunds": total("refund")}

    def _found(self, request: web.Request) -> _Bill:
        bill = self.bills.get(request.match_info["number"])
        if bill is None:
            raise NotDone(404, "no_such_bill")
        return bill

    def _booked(self, kind: str, bill: _Bill, id_: str, told: Json) -> str:
        receipt = f"SJ{len(self.ledger) + 1:08}"
        self.ledger.append(
            {
                "kind": kind,
                "order": bill.number,
                "revision": told["revision"],
                "id": id_,
                "fen": told["fen"],
                "currency": CURRENCY,
                "receipt": receipt,
                "at": datetime.fromtimestamp(self.clock(), self.zone).isoformat(),
            }
        )
        return receipt

    # Callbacks.

    def _call(self, content: Json) -> None:
        self.waiting += [_Callback(content, self.clock()) for _ in range(self.copies)]
        self._changed.set()

    async def _send(self, session: aiohttp.ClientSession, callback: _Callback) -> None:
        headers, body = self.signed(callback.content)
        try:
            async with session.post(
                self.callback_url,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=False,  # to this machine, whose certificate speaks of another name
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        self.answers.append(status)
        if not 200 <= status < 300 and callback.tries < len(RETRY_SECONDS):
            callback.due = self.clock() + RETRY_SECONDS[callback.tries]
            callback.tries += 1
            self.waiting.append(callback)

    async def _sending(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._send_for_ever())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _send_for_ever(self) -> None:
        while True:
            self._changed.clear()
            await self.deliver()
            pause = min((callback.due for callback in self.waiting), default=None)
            seconds = None if pause is None else max(0.05, pause - self.clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)

    # For people.

    async def _page_bills(self, _request: web.Request) -> Answer:
        told = [bill.told() for bill in self.bills.values()]
        for one in told:
            del one["patient"]
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    async def _page_move(self, request: web.Request) -> Answer:
        number, what = request.match_info["number"], request.match_info["what"]
        if number not in self.bills:
            return web.Response(status=404)
        told: Json = {}
        try:
            match what:
                case "window":
                    self.pay_at_window(number)
                case "withdraw":
                    self.withdraw(number)
                case "change":
                    self.change(number)
                case "refund":
                    asked = orjson.loads(await request.read())
                    reason = asked.get("reason", "not_dispensed")
                    told = {"refund": self.take_back(number, asked["lines"], reason)}
                case _:
                    return web.Response(status=404)
        except ValueError as error:
            return web.Response(status=409, text=str(error))
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    async def _page_fail(self, request: web.Request) -> Answer:
        asked = orjson.loads(await request.read())
        self.fail(asked["operation"], *(Fault(one) for one in asked["faults"]))
        return web.Response(status=204)


def _cut(request: web.Request) -> Answer:
    """The line breaks before an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
