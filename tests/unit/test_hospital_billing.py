"""The hospital billing's wire: what is asked and told, what is believed, and which failure is which."""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from engine.domain.hospital_orders import PREFIX, bill_id_of, order_of, parts_of
from engine.domain.price_rules import Kind
from engine.records.identity import IdType
from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.hospital_billing import client as wire
from integrations.hospital_billing import signing
from integrations.hospital_billing.client import Billing, HospitalBillingClient
from integrations.hospital_billing.sandbox import RETRY_SECONDS, Fault, Sandbox
from integrations.hospital_billing.translate import (
    Asks,
    Identity,
    Paid,
    Refunded,
    Status,
    Unfit,
    asked_of,
)

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC).timestamp()
TODAY = date(2026, 11, 23)
SECRET = b"secret"
NUMBER = "11010519491231002X"
ME = Identity(IdType.RESIDENT_ID, NUMBER)
PATIENCE_SECONDS = 30.0
RETRY_AFTER = 7
ITEMS: list[dict[str, Any]] = [
    {"line": "1", "kind": "drug", "code": "D0101", "name": "阿莫西林胶囊", "quantity": 2, "fen": 2_560},
    {"line": "2", "kind": "examination", "code": "E0201", "name": "血常规", "quantity": 1, "fen": 2_500},
]


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class House:
    sandbox: Sandbox
    clock: Clock
    session: ClientSession
    address: str
    billing: HospitalBillingClient

    def client(self, **changes: Any) -> HospitalBillingClient:
        us = Billing(
            changes.get("address", self.address),
            changes.get("app_id", "hospital"),
            changes.get("secret", SECRET),
        )
        seconds = changes.get("seconds", PATIENCE_SECONDS)
        return HospitalBillingClient(self.session, us, seconds, changes.get("clock", self.clock))

    def paid(self, number: str, fen: int = 5_060) -> Paid:
        at = int(self.clock() * 1000)
        return Paid(number, 1, b"\x01" * 16, fen, "wechat_pay", "4200001", at)


@asynccontextmanager
async def opened() -> AsyncIterator[House]:
    clock = Clock()
    sandbox = Sandbox("hospital", SECRET, clock)
    async with TestServer(sandbox.app()) as server, ClientSession() as session:
        address = str(server.make_url("")).rstrip("/")
        billing = HospitalBillingClient(
            session, Billing(address, "hospital", SECRET), PATIENCE_SECONDS, clock
        )
        yield House(sandbox, clock, session, address, billing)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with opened() as house:
        yield house


def charge(house: House) -> str:
    return house.sandbox.charge("01", NUMBER, copy.deepcopy(ITEMS))


# Orders.


def test_an_order_names_number_and_revision() -> None:
    order = order_of("CF-1.2_x", 3)
    assert order == f"{PREFIX}CF-1.2_x/3" and parts_of(order) == ("CF-1.2_x", 3)
    assert parts_of("0" * 32) is None
    assert bill_id_of("CF1", 1) == bill_id_of("CF1", 1)
    assert len({bill_id_of("CF1", 1), bill_id_of("CF1", 2), bill_id_of("CF2", 1), bill_id_of("CF", 11)}) == 4


# What is asked, and what comes.


async def test_what_somebody_owes(house: House) -> None:
    number = charge(house)
    house.sandbox.charge("01", "another", copy.deepcopy(ITEMS))
    found = await house.billing.outstanding(ME)
    assert not found.unfit
    [bill] = found.bills
    assert (bill.number, bill.revision, bill.status, bill.fen) == (number, 1, Status.OUTSTANDING, 5_060)
    assert bill.id == bill_id_of(number, 1) and bill.order == order_of(number, 1)
    assert [(one.kind, one.item, one.fen, one.quantity) for one in bill.lines] == [
        (Kind.DRUG, "D0101", 2_560, 2),
        (Kind.EXAMINATION, "E0201", 2_500, 1),
    ]
    assert await house.billing.bill(number) == bill
    # Nobody's number, and nothing clinical, comes out where it would end in a log.
    assert NUMBER not in repr(bill) and "阿莫西林" not in repr(bill)


async def test_nobody_who_owes_nothing(house: House) -> None:
    found = await house.billing.outstanding(ME)
    assert (found.bills, found.unfit) == ((), ())
    with pytest.raises(Refused) as caught:
        await house.billing.bill("CF404")
    assert caught.value.code == "no_such_bill"


async def test_paid_and_refunded_once_however_often_they_are_told(house: House) -> None:
    number = charge(house)
    paid = house.paid(number)
    receipt = await house.billing.tell_paid(paid)
    assert await house.billing.tell_paid(paid) == receipt
    refunded = Refunded(
        number, 1, b"\x02" * 16, paid.id, 2_560, (("1", 2_560),), "not_dispensed", "R1", "TF-1"
    )
    back = await house.billing.tell_refunded(refunded)
    assert await house.billing.tell_refunded(refunded) == back != receipt
    bill = await house.billing.bill(number)
    assert bill.status is Status.PAID
    assert [(one.id, one.fen, one.receipt) for one in bill.payments] == [(paid.id, 5_060, receipt)]
    assert [(one.id, one.fen, one.receipt) for one in bill.refunds] == [(refunded.id, 2_560, back)]
    rows = await house.billing.statement(TODAY)
    assert [(row.kind, row.order, row.reference, row.fen, row.receipt) for row in rows] == [
        ("payment", order_of(number, 1), paid.id.hex(), 5_060, receipt),
        ("refund", order_of(number, 1), refunded.id.hex(), 2_560, back),
    ]
    assert await house.billing.statement(date(2026, 11, 22)) == []


@pytest.mark.parametrize(
    ("before", "code"),
    [
        (lambda sandbox, number: sandbox.pay_at_window(number), "paid_elsewhere"),
        (lambda sandbox, number: sandbox.withdraw(number), "withdrawn"),
        (lambda sandbox, number: sandbox.change(number), "changed"),
        (lambda sandbox, number: None, "amount"),
    ],
)
async def test_a_payment_that_is_not_accepted(
    house: House, before: Callable[[Sandbox, str], None], code: str
) -> None:
    number = charge(house)
    before(house.sandbox, number)
    with pytest.raises(Refused) as caught:
        await house.billing.tell_paid(house.paid(number, 5_059 if code == "amount" else 5_060))
    assert caught.value.code == code
    assert house.sandbox.ledger == []


async def test_a_refund_beyond_the_payment(house: House) -> None:
    number = charge(house)
    paid = house.paid(number)
    await house.billing.tell_paid(paid)
    too_much = Refunded(number, 1, b"\x03" * 16, paid.id, 5_061, (("1", 5_061),), "other", "R")
    with pytest.raises(Refused, match="amount"):
        await house.billing.tell_refunded(too_much)
    with pytest.raises(Refused, match="no_such_payment"):
        await house.billing.tell_refunded(replace(too_much, fen=1, payment_id=b"\x09" * 16))


# Failures.

Ask = Callable[[House, str], Awaitable[object]]


async def _outstanding(house: House, number: str) -> object:
    return await house.billing.outstanding(ME)


async def _bill(house: House, number: str) -> object:
    return await house.billing.bill(number)


async def _payment(house: House, number: str) -> object:
    return await house.billing.tell_paid(house.paid(number))


async def _statement(house: House, number: str) -> object:
    return await house.billing.statement(TODAY)


@pytest.mark.parametrize(
    "fault", [Fault.CUT, Fault.APPLIED_THEN_CUT, Fault.ERROR, Fault.FORGED, Fault.OLD, Fault.REDIRECT]
)
@pytest.mark.parametrize(
    ("operation", "ask", "failure"),
    [
        ("outstanding", _outstanding, TryAgain),
        ("bill", _bill, TryAgain),
        ("statement", _statement, TryAgain),
        ("payment", _payment, OutcomeUnknown),
    ],
)
async def test_which_failure_is_which(
    house: House, fault: Fault, operation: str, ask: Ask, failure: type[ConnectorFailed]
) -> None:
    number = charge(house)
    # What is asked of a broken line may be asked again by the HTTP client: then that is cut, too.
    house.sandbox.fail(operation, fault, fault)
    with pytest.raises(failure) as caught:
        await ask(house, number)
    assert NUMBER not in repr(caught.value)


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.APPLIED_THEN_TIMEOUT])
async def test_nothing_comes_back(house: House, fault: Fault) -> None:
    number = charge(house)
    hasty = house.client(seconds=0.2)
    house.sandbox.fail("payment", fault)
    with pytest.raises(OutcomeUnknown):
        await hasty.tell_paid(house.paid(number))
    # Asked, they tell whether they have it; told again, it is one payment.
    have = [one.id for one in (await house.billing.bill(number)).payments]
    assert have == ([house.paid(number).id] if fault is Fault.APPLIED_THEN_TIMEOUT else [])
    await house.billing.tell_paid(house.paid(number))
    assert len(house.sandbox.ledger) == 1


async def test_busy_and_out_of_reach(house: House) -> None:
    number = charge(house)
    house.sandbox.fail("payment", Fault.BUSY)
    with pytest.raises(TryAgain) as caught:
        await house.billing.tell_paid(house.paid(number))
    assert caught.value.after == RETRY_AFTER
    with pytest.raises(TryAgain):
        await house.client(address="http://127.0.0.1:1").tell_paid(house.paid(number))


@pytest.mark.parametrize(
    "change", [{"secret": b"wrong"}, {"app_id": "another"}, {"clock": lambda: START + 900}]
)
async def test_who_is_not_known_there(house: House, change: dict[str, Any]) -> None:
    number = charge(house)
    with pytest.raises(ConnectorFailed):
        await house.client(**change).outstanding(ME)
    with pytest.raises(ConnectorFailed):
        await house.client(**change).tell_paid(house.paid(number))
    assert house.sandbox.ledger == []


async def test_a_request_is_good_once(house: House) -> None:
    body = orjson.dumps({"version": 1, "patient": {"kind": "01", "number": NUMBER}})
    headers = signing.headers_of_request(
        SECRET, "POST", wire.OUTSTANDING_PATH, "hospital", int(START), "a" * 32, body
    )
    statuses = []
    for _ in range(2):
        async with house.session.post(
            f"{house.address}{wire.OUTSTANDING_PATH}", data=body, headers=headers
        ) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 401]


async def test_an_answer_that_is_too_large(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    number = charge(house)
    monkeypatch.setattr(wire, "ANSWER_BYTES_MAX", 10)
    house.sandbox.spoil = lambda answer: {**answer, "padding": "x" * (2 << 20)}
    with pytest.raises(TryAgain, match="too large"):
        await house.billing.outstanding(ME)
    with pytest.raises(OutcomeUnknown, match="too large"):
        await house.billing.tell_paid(house.paid(number))


@pytest.mark.parametrize("number", ["..", ".", "a/b", "a?b", "", "x" * 65, "中"])
async def test_a_number_that_would_be_another_address(house: House, number: str) -> None:
    with pytest.raises(Refused, match="bad_number"):
        await house.billing.bill(number)
    assert house.sandbox.asked == []


# Reading.


def _with(bill: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**bill, **changes}


def _items(bill: dict[str, Any], **changes: Any) -> dict[str, Any]:
    first, *rest = bill["items"]
    return {**bill, "items": [{**first, **changes}, *rest]}


BAD = {
    "currency": lambda bill: _with(bill, currency="USD"),
    "sum": lambda bill: _with(bill, fen=5_061),
    "negative": lambda bill: _items(bill, fen=-1),
    "quantity": lambda bill: _items(bill, quantity=0),
    "kind": lambda bill: _items(bill, kind="registration"),
    "code": lambda bill: _items(bill, code="D 1"),
    "name": lambda bill: _items(bill, name="a\nb"),
    "line": lambda bill: _items(bill, line=""),
    "fen": lambda bill: _items(bill, fen=25.6),
    "items": lambda bill: _items(bill, line="2"),
    "of_somebody_else": lambda bill: _with(bill, patient={"kind": "01", "number": "another"}),
    "patient": lambda bill: _with(bill, patient={"kind": "02", "number": NUMBER}),
    "revision": lambda bill: _with(bill, revision=0),
    "status": lambda bill: _with(bill, status="lost"),
    "not_outstanding": lambda bill: _with(bill, status="withdrawn"),
    "time": lambda bill: _with(bill, pay_by="2026-11-23T08:00:00"),
    "payment": lambda bill: _with(bill, payments=[{"payment": "1", "fen": 1, "receipt": "r"}]),
    "order": lambda bill: _with(bill, order="../1"),
}


@pytest.mark.parametrize("why", BAD)
async def test_a_bill_that_does_not_fit_is_refused_and_the_others_stand(house: House, why: str) -> None:
    charge(house)
    good = house.sandbox.charge("01", NUMBER, copy.deepcopy(ITEMS))

    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        first, *rest = answer["bills"]
        return {**answer, "bills": [BAD[why](first), *rest]}

    house.sandbox.spoil = spoil
    found = await house.billing.outstanding(ME)
    assert [bill.number for bill in found.bills] == [good]
    assert [wrong.why for wrong in found.unfit] == [why]


async def test_two_bills_of_one_number_are_both_refused(house: House) -> None:
    charge(house)
    house.sandbox.spoil = lambda answer: {**answer, "bills": answer["bills"] * 2}
    found = await house.billing.outstanding(ME)
    assert found.bills == () and [wrong.why for wrong in found.unfit] == ["twice"]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"version": 2}, "version"), ({"version": True}, "version"), ({"bills": {}}, "bills")],
)
async def test_an_answer_of_another_version_or_shape(house: House, change: dict[str, Any], why: str) -> None:
    number = charge(house)
    house.sandbox.spoil = lambda answer: {**answer, **change}
    with pytest.raises(Unfit) as caught:
        await house.billing.outstanding(ME)
    assert caught.value.why == why
    if why == "version":
        with pytest.raises(OutcomeUnknown):
            await house.billing.tell_paid(house.paid(number))


async def test_an_answer_about_something_else(house: House) -> None:
    number = charge(house)
    house.sandbox.spoil = lambda answer: {**answer, "bill": {**answer["bill"], "order": "CF-2"}}
    with pytest.raises(Unfit, match="another_bill"):
        await house.billing.bill(number)
    house.sandbox.spoil = lambda answer: {**answer, "payment": "f" * 32}
    with pytest.raises(OutcomeUnknown, match="another_payment"):
        await house.billing.tell_paid(house.paid(number))
    house.sandbox.spoil = lambda answer: {**answer, "day": "2026-11-22"}
    with pytest.raises(Unfit, match="another_day"):
        await house.billing.statement(TODAY)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"payments": {"count": 1, "fen": 5_061}}, "total"),
        ({"refunds": {"count": 1, "fen": 0}}, "total"),
        ({"payments": {"count": 1, "fen": -1}}, "negative"),
        ({"rows": []}, "total"),
    ],
)
async def test_a_day_that_is_not_what_it_says_in_total(
    house: House, change: dict[str, Any], why: str
) -> None:
    await house.billing.tell_paid(house.paid(charge(house)))
    house.sandbox.spoil = lambda answer: {**answer, **change}
    with pytest.raises(Unfit) as caught:
        await house.billing.statement(TODAY)
    assert caught.value.why == why


# What they ask of us.

CALL: dict[str, Any] = {
    "version": 1,
    "event": "refund",
    "order": "CF-1",
    "revision": 1,
    "refund": "TF-1",
    "currency": "CNY",
    "fen": 3_000,
    "lines": [{"line": "1", "fen": 1_000}, {"line": "2", "fen": 2_000}],
    "reason": "not_dispensed",
}


def test_what_they_ask() -> None:
    asked = asked_of(CALL)
    assert (asked.what, asked.number, asked.refund) == (Asks.REFUND, "CF-1", "TF-1")
    assert asked.lines == (("1", 1_000), ("2", 2_000)) and asked.bill_id == bill_id_of("CF-1", 1)
    look = asked_of({"version": 1, "event": "look", "order": "CF-1", "revision": 2})
    assert (look.what, look.bill_id) == (Asks.LOOK, bill_id_of("CF-1", 2))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "version"),
        ({"event": "pay"}, "event"),
        ({"order": ".."}, "order"),
        ({"revision": "1"}, "revision"),
        ({"refund": ""}, "refund"),
        ({"refund": "a b"}, "refund"),
        ({"currency": "HKD"}, "currency"),
        ({"fen": 3_001}, "sum"),
        ({"fen": 0, "lines": []}, "lines"),
        ({"lines": [{"line": "1", "fen": 1_500}] * 2}, "lines"),
        ({"lines": [{"line": "1", "fen": -3_000}]}, "negative"),
        ({"reason": "患者过敏"}, "reason"),
        ({"reason": ["other"]}, "reason"),
    ],
)
def test_a_call_that_does_not_fit(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Unfit) as caught:
        asked_of({**CALL, **change})
    assert caught.value.why == why


async def test_their_signature(house: House) -> None:
    house.sandbox.callback_url = "http://127.0.0.1:1/api/v1/callbacks/hospital_billing"
    headers, body = house.sandbox.signed(CALL)
    path = "/api/v1/callbacks/hospital_billing"

    def is_theirs(
        changed: tuple[str, str] = ("", ""), method: str = "POST", path: str = path, body: bytes = body
    ) -> bool:
        told = {**headers, changed[0]: changed[1]}
        return house.billing.is_theirs(
            method,
            path,
            told[signing.APP],
            told[signing.TIMESTAMP],
            told[signing.NONCE],
            told[signing.SIGNATURE],
            body,
        )

    assert is_theirs()
    assert not is_theirs(body=body.replace(b"1000", b"9000"))
    assert not is_theirs(path=path + "/")
    assert not is_theirs(method="PUT")
    assert not is_theirs((signing.NONCE, "b" * 32))
    assert not is_theirs((signing.NONCE, "B" * 32))
    assert not is_theirs((signing.APP, "another"))
    assert not is_theirs((signing.SIGNATURE, "é\udcff"))
    assert not is_theirs((signing.TIMESTAMP, "x"))
    house.clock.now += signing.WINDOW_SECONDS + 1
    assert not is_theirs()


async def test_callbacks_come_until_they_are_taken(house: House) -> None:
    statuses = [500, 200]
    heard: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        heard.append(await request.read())
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/cb", take)
    async with TestServer(app) as us:
        house.sandbox.callback_url = str(us.make_url("/cb"))
        number = charge(house)
        house.sandbox.withdraw(number)
        assert await house.sandbox.deliver() == 1
        assert await house.sandbox.deliver() == 0
        house.clock.now += RETRY_SECONDS[0]
        assert await house.sandbox.deliver() == 1
        house.clock.now += 86_400
        assert await house.sandbox.deliver() == 0
    assert [orjson.loads(body)["order"] for body in heard] == [number, number]
    assert house.sandbox.answers == [500, 200]
