"""WeChat Pay's wire: what is asked, what is believed, and which failure is which. Against our own sandbox;
that this speaks as the real one does is test_wechat_pay_judge.py's."""

import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.wechat_pay import signing
from integrations.wechat_pay.bill import Kind
from integrations.wechat_pay.callbacks import Callbacks, MemoryReplays, Notice, answer_of
from integrations.wechat_pay.client import WeChatPay
from integrations.wechat_pay.sandbox import RETRY_SECONDS, Fault, Sandbox
from integrations.wechat_pay.sandbox_keys import Keys, certificate
from integrations.wechat_pay.signing import PlatformKeys
from integrations.wechat_pay.translate import (
    Order,
    PaymentState,
    Refund,
    RefundOrder,
    RefundState,
    Transaction,
)

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC).timestamp()  # 16:00 in Beijing
NUMBER = "R20261123000001"
PATIENCE_SECONDS = 30.0


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@functools.cache
def keys() -> Keys:
    """Made once: primes take a while. Good for the clock of these tests and for the real one."""
    made = Keys.made(START)
    long = certificate(made.platform, datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC))
    return replace(made, certificate=long)


@dataclass(slots=True)
class House:
    """A hospital, WeChat Pay, and what the one heard from the other."""

    sandbox: Sandbox
    address: str
    notify_url: str
    session: ClientSession
    clock: Clock
    pay: WeChatPay
    callbacks: Callbacks
    notices: list[Notice] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    is_away: bool = False

    def client(self, **changes: Any) -> WeChatPay:
        how: dict[str, Any] = {
            "merchant": self.sandbox.keys.merchant_there(),
            "keys": PlatformKeys([self.sandbox.keys.platform_public_key()]),
            "seconds_max": PATIENCE_SECONDS,
            "clock": self.clock,
            **changes,
        }
        return WeChatPay(self.session, how.pop("address", self.address), **how)

    def order(self, number: str = NUMBER, total_fen: int = 5_000) -> Order:
        ends = datetime.fromtimestamp(self.clock.now, UTC) + timedelta(minutes=30)
        return Order(number, "门诊挂号费", total_fen, "oHkLxtx0vUqe", ends, self.notify_url)

    def refund(self, number: str = f"{NUMBER}-1", refund_fen: int = 5_000) -> RefundOrder:
        return RefundOrder(number, NUMBER, refund_fen, 5_000, "退号", self.notify_url)

    async def paid(self, number: str = NUMBER) -> None:
        await self.pay.prepay(self.order(number))
        self.sandbox.pay(number)

    async def heard(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.messages.append((dict(request.headers), body))
        if self.is_away:
            return web.Response(status=502)
        try:
            self.notices.append(await self.callbacks.read(request.headers, body))
        except ConnectorFailed as failed:
            self.refused.append(failed.code if isinstance(failed, Refused) else type(failed).__name__)
            status, answer = answer_of(failed)
        else:
            status, answer = answer_of(None)
        return web.Response(status=status, body=answer)


@asynccontextmanager
async def house(*, sends_callbacks: bool = False) -> AsyncIterator[House]:
    clock = Clock()
    sandbox = Sandbox(keys(), clock, sends_callbacks=sends_callbacks)
    there = PlatformKeys([sandbox.keys.platform_public_key(), sandbox.keys.platform_certificate()])
    callbacks = Callbacks(sandbox.keys.merchant_there(), there, MemoryReplays(clock), clock)
    hospital = web.Application()
    async with TestServer(sandbox.app()) as server, ClientSession() as session:
        address = str(server.make_url("")).rstrip("/")
        made = House(sandbox, address, "", session, clock, None, callbacks)  # type: ignore[arg-type]
        made.pay = made.client()
        hospital.router.add_post("/notified", made.heard)
        async with TestServer(hospital) as listening:
            made.notify_url = str(listening.make_url("/notified"))
            yield made


@pytest.fixture
async def there() -> AsyncIterator[House]:
    async with house() as made:
        yield made


# What is asked and answered.


async def test_a_payment_from_order_to_refund(there: House) -> None:
    prepay_id = await there.pay.prepay(there.order())
    parameters = there.pay.payment_parameters(prepay_id)
    assert set(parameters) == {"timeStamp", "nonceStr", "package", "signType", "paySign"}
    order = there.sandbox.orders[NUMBER]
    assert there.sandbox.would_open(order, parameters)
    assert not there.sandbox.would_open(order, {**parameters, "package": "prepay_id=another"})
    found = await there.pay.query(NUMBER)
    assert (found.state, found.transaction_id, found.paid_at) == (PaymentState.NOTPAY, None, None)

    there.sandbox.pay(NUMBER)
    found = await there.pay.query(NUMBER)
    assert (found.state, found.total_fen, found.currency) == (PaymentState.SUCCESS, 5_000, "CNY")
    assert found.paid_at == datetime.fromtimestamp(START, UTC)
    assert found.transaction_id is not None
    assert await there.pay.query_transaction(found.transaction_id) == found

    there.sandbox.refund_seconds = 60
    asked = await there.pay.refund(there.refund(refund_fen=2_000))
    assert (asked.state, asked.refund_fen, asked.total_fen) == (RefundState.PROCESSING, 2_000, 5_000)
    assert asked.transaction_id == found.transaction_id
    there.clock.now += 60
    done = await there.pay.query_refund(f"{NUMBER}-1")
    assert (done.state, done.refund_id) == (RefundState.SUCCESS, asked.refund_id)
    assert done.done_at == datetime.fromtimestamp(START + 60, UTC)
    assert (await there.pay.query(NUMBER)).state is PaymentState.REFUND


async def test_what_is_asked_twice_is_one(there: House) -> None:
    first = await there.pay.prepay(there.order())
    assert await there.pay.prepay(there.order()) == first
    with pytest.raises(Refused, match="OUT_TRADE_NO_USED"):
        await there.pay.prepay(there.order(total_fen=1))
    there.sandbox.pay(NUMBER)
    with pytest.raises(Refused, match="ORDER_PAID"):
        await there.pay.prepay(there.order())
    one = await there.pay.refund(there.refund())
    two = await there.pay.refund(there.refund())
    assert one.refund_id == two.refund_id
    assert there.sandbox.orders[NUMBER].refunded == 5_000


async def test_no_more_is_given_back_than_was_paid(there: House) -> None:
    await there.paid()
    for part in (5_001, 0, -1):
        with pytest.raises(Refused, match="PARAM_ERROR"):
            await there.pay.refund(there.refund(refund_fen=part))
    assert "refund" not in there.sandbox.asked  # it never left
    await there.pay.refund(there.refund("r1", 3_000))
    with pytest.raises(Refused, match="INVALID_REQUEST"):  # 6,000 of 5,000
        await there.pay.refund(there.refund("r2", 3_000))
    with pytest.raises(Refused, match="INVALID_REQUEST"):  # the same number, another amount
        await there.pay.refund(there.refund("r1", 2_000))
    await there.pay.refund(there.refund("r2", 2_000))


async def test_closing(there: House) -> None:
    await there.pay.prepay(there.order())
    await there.pay.close(NUMBER)
    await there.pay.close(NUMBER)  # it is closed already
    assert (await there.pay.query(NUMBER)).state is PaymentState.CLOSED
    with pytest.raises(Refused, match="ORDER_CLOSED"):
        await there.pay.prepay(there.order())
    await there.paid("R20261123000002")
    with pytest.raises(Refused, match="ORDER_PAID"):  # they spell it ORDERPAID here
        await there.pay.close("R20261123000002")


async def test_what_they_do_not_have(there: House) -> None:
    with pytest.raises(Refused, match="ORDER_NOT_EXIST"):
        await there.pay.query(NUMBER)
    with pytest.raises(Refused, match="ORDER_NOT_EXIST"):
        await there.pay.query_transaction("4200000000")
    with pytest.raises(Refused, match="ORDER_NOT_EXIST"):
        await there.pay.close(NUMBER)
    with pytest.raises(Refused, match="RESOURCE_NOT_EXISTS"):
        await there.pay.query_refund("r1")
    with pytest.raises(Refused, match="RESOURCE_NOT_EXISTS"):
        await there.pay.refund(there.refund())


@pytest.mark.parametrize(
    "change",
    [
        {"total_fen": 0},
        {"total_fen": -1},
        {"out_trade_no": "short"},
        {"out_trade_no": "../../close"},
        {"out_trade_no": "R2026112300001?x"},
        {"description": ""},
        {"description": "费" * 128},
        {"openid": ""},
        {"notify_url": "https://h.example/notified?x=1"},
        {"notify_url": "ftp://h.example/"},
        {"expires_at": datetime(2026, 11, 23)},  # noqa: DTZ001
    ],
)
async def test_an_order_that_is_none_never_leaves(there: House, change: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="PARAM_ERROR"):
        await there.pay.prepay(replace(there.order(), **change))
    assert there.sandbox.asked == []


# Which failure is which.

Call = Callable[[House], Awaitable[object]]
MOVES: list[tuple[str, Call]] = [
    ("prepay", lambda there: there.pay.prepay(there.order("R20261123000009"))),
    ("refund", lambda there: there.pay.refund(there.refund(refund_fen=4_999))),
    ("close", lambda there: there.pay.close("R20261123000008")),
]
QUESTIONS: list[tuple[str, Call]] = [
    ("query", lambda there: there.pay.query(NUMBER)),
    ("query_refund", lambda there: there.pay.query_refund("r0")),
    ("bill", lambda there: there.pay.bill(date(2026, 11, 22))),
]
LOST = [
    Fault.CUT,
    Fault.APPLIED_THEN_CUT,
    Fault.SYSTEM_ERROR,
    Fault.APPLIED_SYSTEM_ERROR,
    Fault.UNSIGNED,
    Fault.FORGED,
    Fault.OLD,
    Fault.CHANGED,
]


async def prepared(there: House) -> None:
    """One order that is paid and partly given back, one that is not; and a day has passed."""
    there.clock.now -= 86_400
    await there.paid()
    await there.pay.refund(there.refund("r0", 1))
    await there.pay.prepay(there.order("R20261123000008"))
    there.clock.now += 86_400


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize(("operation", "call"), [(m[0], m[1]) for m in MOVES])
async def test_what_moves_and_was_not_heard_of(
    there: House, operation: str, call: Call, fault: Fault
) -> None:
    await prepared(there)
    there.sandbox.fail(operation, fault)
    with pytest.raises(OutcomeUnknown):
        await call(there)
    await call(there)  # the very same again is safe, whatever became of the first


@pytest.mark.parametrize("fault", [fault for fault in LOST if fault is not Fault.APPLIED_THEN_CUT])
@pytest.mark.parametrize(("operation", "call"), [(q[0], q[1]) for q in QUESTIONS])
async def test_a_question_that_was_not_answered(
    there: House, operation: str, call: Call, fault: Fault
) -> None:
    await prepared(there)
    there.sandbox.fail(operation, fault)
    with pytest.raises(TryAgain):
        await call(there)
    await call(there)


@pytest.mark.parametrize(("operation", "call"), [(m[0], m[1]) for m in (*MOVES, *QUESTIONS)])
async def test_too_often(there: House, operation: str, call: Call) -> None:
    await prepared(there)
    there.sandbox.fail(operation, Fault.FREQUENCY_LIMIT)
    with pytest.raises(TryAgain) as caught:
        await call(there)
    assert caught.value.after == 7.0


@pytest.mark.parametrize(
    "fault", [Fault.CUT, Fault.APPLIED_THEN_CUT, Fault.APPLIED_SYSTEM_ERROR, Fault.FORGED]
)
async def test_a_refund_of_unknown_outcome_is_done_once(there: House, fault: Fault) -> None:
    await there.paid()
    there.sandbox.fail("refund", fault)
    with pytest.raises(OutcomeUnknown):
        await there.pay.refund(there.refund())
    if fault is Fault.CUT:
        with pytest.raises(Refused, match="RESOURCE_NOT_EXISTS"):
            await there.pay.query_refund(f"{NUMBER}-1")
        await there.pay.refund(there.refund())
    found = await there.pay.query_refund(f"{NUMBER}-1")
    assert (found.state, found.refund_fen) == (RefundState.SUCCESS, 5_000)
    await there.pay.refund(there.refund())
    assert [entry.refund is not None for entry in there.sandbox.ledger] == [False, True]


async def test_a_hospital_whose_account_is_empty(there: House) -> None:
    await there.paid()
    there.sandbox.fail("refund", Fault.NOT_ENOUGH)
    with pytest.raises(Refused) as caught:
        await there.pay.refund(there.refund())
    assert caught.value.code == "NOT_ENOUGH"
    assert (await there.pay.refund(there.refund())).refund_fen == 5_000


async def test_nobody_listens_there(there: House) -> None:
    """The request cannot have got there: nothing moves by it."""
    pay = there.client(address="http://127.0.0.1:1")
    with pytest.raises(TryAgain):
        await pay.prepay(there.order())
    with pytest.raises(TryAgain):
        await pay.refund(there.refund())


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.APPLIED_THEN_TIMEOUT])
async def test_they_do_not_answer(there: House, fault: Fault) -> None:
    await there.paid()
    there.sandbox.fail("refund", fault)
    with pytest.raises(OutcomeUnknown, match="TimeoutError"):
        await there.client(seconds_max=0.2).refund(there.refund())


async def test_messages_name_nobody(there: House) -> None:
    await prepared(there)
    for fault in LOST:
        there.sandbox.fail("prepay", fault)
        with pytest.raises(OutcomeUnknown) as caught:
            await there.pay.prepay(there.order("R20261123000009"))
        assert "oHkLxtx0vUqe" not in repr(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__
    merchant = there.sandbox.keys.merchant_there()
    assert there.sandbox.keys.api_v3_key.decode() not in repr((merchant, there.sandbox.keys, there.order()))
    assert "oHkLxtx0vUqe" not in repr(there.order())


# Who is believed.


@pytest.mark.parametrize("apart", [-301, 301])
async def test_a_clock_that_is_off(there: House, apart: int) -> None:
    theirs = there.clock.now
    off = there.client(clock=lambda: theirs + apart)
    with pytest.raises(TryAgain, match=f"said {-apart} s from now; is the clock right"):
        await off.query(NUMBER)
    with pytest.raises(OutcomeUnknown, match="is the clock right"):
        await off.prepay(there.order())
    assert there.sandbox.orders == {}
    assert await there.client(clock=lambda: theirs + (299 if apart > 0 else -299)).prepay(there.order())


async def test_somebody_whom_they_do_not_know(there: House) -> None:
    other = replace(there.sandbox.keys.merchant_there(), key=there.sandbox.keys.forger)
    with pytest.raises(Refused, match="SIGN_ERROR"):
        await there.client(merchant=other).prepay(there.order())
    other = replace(there.sandbox.keys.merchant_there(), serial="1234")
    with pytest.raises(Refused, match="SIGN_ERROR"):
        await there.client(merchant=other).prepay(there.order())
    with pytest.raises(TryAgain, match="SIGN_ERROR"):
        await there.client(merchant=other).query(NUMBER)
    assert there.sandbox.orders == {}


async def test_an_answer_about_another_is_not_believed(there: House) -> None:
    """Signed by them, and now: but somebody on the line gives us the answer to another question."""
    await there.paid()
    await there.paid("R20261123000002")
    await there.pay.refund(there.refund("r1", 1))
    sandbox, other = there.sandbox, "R20261123000002"
    sandbox.orders[NUMBER], sandbox.orders[other] = sandbox.orders[other], sandbox.orders[NUMBER]
    with pytest.raises(TryAgain, match="another order"):
        await there.pay.query(NUMBER)
    sandbox.refunds["r2"] = sandbox.refunds["r1"]
    with pytest.raises(TryAgain, match="another refund"):
        await there.pay.query_refund("r2")
    sandbox.refunds["r1"].asked["amount"]["refund"] = 2
    sandbox.refunds["r3"] = sandbox.refunds["r1"]
    sandbox.refunds["r3"].asked["out_refund_no"] = "r1"
    sandbox.orders[NUMBER], sandbox.orders[other] = sandbox.orders[other], sandbox.orders[NUMBER]
    with pytest.raises(OutcomeUnknown, match="another refund"):
        await there.pay.refund(there.refund("r3", 2))


@pytest.mark.parametrize(("name", "code"), [("mch_id", "another_merchant"), ("app_id", "another_app")])
async def test_an_order_of_another_merchant(there: House, name: str, code: str) -> None:
    await there.paid()
    there.sandbox.orders[NUMBER].asked[{"mch_id": "mchid", "app_id": "appid"}[name]] = "another"
    with pytest.raises(Refused) as caught:
        await there.pay.query(NUMBER)
    assert caught.value.code == code


async def test_certificates(there: House) -> None:
    known = PlatformKeys([])
    pay = there.client(keys=known)
    with pytest.raises(TryAgain, match="unknown_key"):
        await pay.query(NUMBER)
    await pay.renew_certificates()
    assert known.last_end == datetime(2090, 1, 1, tzinfo=UTC)
    assert known.asked_for is None  # so that they sign with the certificate's key
    with pytest.raises(Refused, match="ORDER_NOT_EXIST"):
        await pay.query(NUMBER)


@pytest.mark.parametrize("how", ["forged", "ended", "not_yet", "other_key"])
async def test_certificates_that_are_not_believed(there: House, how: str) -> None:
    sandbox, now = there.sandbox, datetime.fromtimestamp(START, UTC)
    day = timedelta(days=1)
    if how == "forged":
        sandbox.fail("certificates", Fault.FORGED)
    elif how == "ended":
        sandbox.keys = replace(
            sandbox.keys, certificate=certificate(sandbox.keys.platform, now - 2 * day, now - day)
        )
    elif how == "not_yet":
        sandbox.keys = replace(
            sandbox.keys, certificate=certificate(sandbox.keys.platform, now + day, now + 2 * day)
        )
    known = PlatformKeys([])
    merchant = sandbox.keys.merchant_there()
    if how == "other_key":
        merchant = replace(merchant, api_v3_key=b"0" * 32)
    with pytest.raises(TryAgain, match="certificates"):
        await there.client(keys=known, merchant=merchant).renew_certificates()
    with pytest.raises(Refused, match="unknown_key"):
        known.named(sandbox.keys.platform_certificate().serial, START)


async def test_a_certificate_ends(there: House) -> None:
    now = datetime.fromtimestamp(START, UTC)
    ending = certificate(there.sandbox.keys.platform, now - timedelta(days=1), now + timedelta(hours=1))
    there.sandbox.keys = replace(there.sandbox.keys, certificate=ending)
    pay = there.client(keys=PlatformKeys([there.sandbox.keys.platform_certificate()]))
    assert await pay.prepay(there.order())
    there.clock.now += 3_601
    with pytest.raises(TryAgain, match="key_expired"):
        await pay.query(NUMBER)
    with pytest.raises(OutcomeUnknown, match="key_expired"):
        await pay.prepay(there.order())


# Callbacks, sent by the sandbox.


async def test_callbacks_of_a_payment_and_a_refund(there: House) -> None:
    await there.paid()
    assert await there.sandbox.deliver() == 1
    paid = there.notices[0].about
    assert isinstance(paid, Transaction)
    assert paid == await there.pay.query(NUMBER)
    await there.pay.refund(there.refund())
    assert await there.sandbox.deliver() == 1
    refund = there.notices[1].about
    assert isinstance(refund, Refund)
    assert refund == replace(await there.pay.query_refund(f"{NUMBER}-1"), currency=None)
    assert there.sandbox.answers == [("TRANSACTION.SUCCESS", 204), ("REFUND.SUCCESS", 204)]
    assert await there.sandbox.deliver() == 0


@pytest.mark.parametrize("ends", ["ABNORMAL", "CLOSED"])
async def test_a_refund_that_did_not_arrive(there: House, ends: str) -> None:
    await there.paid()
    there.sandbox.refund_ends = ends
    await there.pay.refund(there.refund())
    await there.sandbox.deliver()
    about = there.notices[-1].about
    assert isinstance(about, Refund)
    assert (about.state, about.done_at) == (RefundState(ends), None)
    assert (await there.pay.query_refund(f"{NUMBER}-1")).state == ends


async def test_they_call_until_they_are_answered(there: House) -> None:
    await there.paid()
    there.is_away = True
    for seconds in RETRY_SECONDS:
        assert await there.sandbox.deliver() == 1
        assert await there.sandbox.deliver() == 0
        there.clock.now += seconds
    there.is_away = False
    assert await there.sandbox.deliver() == 1  # a day later, signed anew
    assert [type(notice.about) for notice in there.notices] == [Transaction]
    ids = {orjson.loads(body)["id"] for _, body in there.messages}
    assert len(ids) == 1 and len(there.messages) == len(RETRY_SECONDS) + 1
    there.clock.now += 86_400
    assert await there.sandbox.deliver() == 0


async def test_callbacks_come_often_late_and_in_any_order(there: House) -> None:
    how = there.sandbox.callbacks
    how.copies, how.held, how.shuffled = 5, True, random.Random(3)
    await there.paid()
    await there.paid("R20261123000002")
    await there.pay.refund(there.refund())
    there.clock.now += 86_400
    assert await there.sandbox.deliver() == 0
    how.held = False
    assert await there.sandbox.deliver() == 15
    assert len(there.notices) == 15 and len({notice.id for notice in there.notices}) == 3
    kinds = [type(notice.about) for notice in there.notices]
    assert Refund in kinds[: kinds.index(Transaction) + 10]
    assert kinds != sorted(kinds, key=str)


async def test_lost_callbacks_leave_the_query(there: House) -> None:
    there.sandbox.callbacks.lost = 1
    await there.paid()
    assert await there.sandbox.deliver() == 0
    assert (await there.pay.query(NUMBER)).state is PaymentState.SUCCESS


async def test_forged_callbacks_and_probes(there: House) -> None:
    there.sandbox.callbacks.forged, there.sandbox.callbacks.probes = 2, 2
    await there.paid()
    assert await there.sandbox.deliver() == 5
    assert there.refused == ["wrong_signature"] * 4
    assert len(there.notices) == 1
    assert sorted(status for _, status in there.sandbox.answers) == [204, 401, 401, 401, 401]


async def test_another_amount_is_told_as_it_is(there: House) -> None:
    """Whoever books it compares: it is theirs, but not what was asked for."""
    await there.pay.prepay(there.order())
    there.sandbox.pay(NUMBER, total_fen=1)
    await there.sandbox.deliver()
    about = there.notices[0].about
    assert isinstance(about, Transaction) and about.total_fen == 1


async def test_the_sandbox_calls_by_itself() -> None:
    async with house(sends_callbacks=True) as there:
        await there.paid()
        while not there.notices:
            await there.sandbox.told.wait()
        assert isinstance(there.notices[0].about, Transaction)


# Bills.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
async def test_the_bill_of_a_day(there: House, encoding: str) -> None:
    there.sandbox.bill_encoding = encoding
    await there.paid()
    await there.paid("R20261123000002")
    await there.pay.refund(there.refund(refund_fen=1_999))
    there.clock.now += 86_400
    await there.paid("R20261124000001")
    bill = await there.pay.bill(date(2026, 11, 23))
    assert [(row.kind, row.out_trade_no, row.total_fen, row.refund_fen) for row in bill.rows] == [
        (Kind.PAYMENT, NUMBER, 5_000, 0),
        (Kind.PAYMENT, "R20261123000002", 5_000, 0),
        (Kind.REFUND, NUMBER, 0, 1_999),
    ]
    assert (bill.total_fen, bill.refund_fen) == (10_000, 1_999)
    assert bill.fee_millifen == 60_000 - 11_994
    last = bill.rows[-1]
    assert (last.out_refund_no, last.refund_state, last.currency) == (f"{NUMBER}-1", "SUCCESS", "CNY")
    assert last.at == datetime.fromtimestamp(START, UTC)
    for day in (date(2026, 11, 22), date(2026, 11, 24)):
        with pytest.raises(Refused, match="NO_STATEMENT_EXIST"):
            await there.pay.bill(day)


async def test_a_bill_that_was_changed_on_the_way(there: House) -> None:
    await there.paid()
    there.clock.now += 86_400
    there.sandbox.bill_is_changed = True
    with pytest.raises(TryAgain, match="changed on the way"):
        await there.pay.bill(date(2026, 11, 23))
    there.sandbox.bill_is_changed = False
    for fault in (Fault.CUT, Fault.SYSTEM_ERROR):
        there.sandbox.fail("download", fault)
        with pytest.raises(TryAgain):
            await there.pay.bill(date(2026, 11, 23))


async def test_a_bill_of_another_merchant(there: House) -> None:
    await there.paid()
    there.clock.now += 86_400
    there.sandbox.orders[NUMBER].asked["mchid"] = "another"
    with pytest.raises(Refused, match="another_merchant"):
        await there.pay.bill(date(2026, 11, 23))


async def test_a_bill_is_fetched_from_them_alone(there: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await there.paid()
    there.clock.now += 86_400

    async def elsewhere(target: str) -> dict[str, str]:
        del target
        return {
            "hash_type": "SHA1",
            "hash_value": "0" * 40,
            "download_url": "http://169.254.169.254/v3/x?a=b",
        }

    monkeypatch.setattr(there.pay, "_ask", elsewhere)
    with pytest.raises(TryAgain, match="elsewhere"):
        await there.pay.bill(date(2026, 11, 23))
    assert "download" not in there.sandbox.asked


# The page's side.


async def test_anybody_may_pay_and_break_things(there: House) -> None:
    prepay_id = await there.pay.prepay(there.order())
    url = f"{there.address}/sandbox"

    async def post(path: str, body: dict[str, Any]) -> int:
        async with there.session.post(f"{url}{path}", json=body) as response:
            return response.status

    parameters = there.pay.payment_parameters(prepay_id)
    wrong = {"parameters": {**parameters, "paySign": "AAAA"}}
    assert await post(f"/orders/{NUMBER}/pay", wrong) == 400
    assert await post(f"/orders/{NUMBER}/pay", {"parameters": parameters}) == 200
    assert await post(f"/orders/{NUMBER}/pay", {}) == 409
    assert await post("/orders/unknown/pay", {}) == 404
    assert await post("/callbacks", {"copies": 2}) == 200
    assert await post("/callbacks", {"shuffled": 2}) == 400
    assert await post("/fail", {"operation": "refund", "faults": ["not_enough"]}) == 200
    with pytest.raises(Refused, match="NOT_ENOUGH"):
        await there.pay.refund(there.refund())
    async with there.session.get(f"{url}/orders") as response:
        assert (await response.json())["orders"][0]["state"] == "SUCCESS"


def test_keys_are_kept_in_a_file() -> None:
    loaded = Keys.loaded(keys().dumped())
    assert loaded.dumped() == keys().dumped()
    text = b"x"
    signature = signing.signed(loaded.platform, text)
    assert signing.is_signed(keys().platform_certificate().key, text, signature)
