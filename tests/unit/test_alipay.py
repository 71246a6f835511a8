"""Our client, our sandbox and somebody else's SDK in turn: what each failure means, and no fen is lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import alipay as judge
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from alipay.exceptions import AliPayException, AliPayValidationError

from integrations.alipay import signing
from integrations.alipay.bill import Kind
from integrations.alipay.callbacks import notice_of
from integrations.alipay.client import CLOSE, CREATE, QUERY, REFUND, REFUND_QUERY, AlipayClient
from integrations.alipay.sandbox import AGAIN_SECONDS, Trouble
from integrations.alipay.translate import BalanceShort, Refund, Refunded, TradeState
from integrations.alipay.wire import _never_in_the_clear
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from tests.support.alipay import (
    APP,
    APP_ID,
    BUYER,
    FORGER,
    NOON,
    THEIRS,
    World,
    client_of,
    merchant,
    order,
    pem,
    public_pem,
    world_of,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_of() as world:
        yield world


async def paid(world: World, number: str, fen: int = 3580) -> None:
    world.hospital.orders[number] = fen
    await world.client.create(order(number, fen), BUYER)
    assert world.sandbox.pay(number)


def sdk(world: World, private: Any = APP, public: Any = None) -> Any:
    found = judge.AliPay(
        APP_ID, world.merchant.notify_url, pem(private), public_pem((public or THEIRS).public_key())
    )
    found._gateway = world.gateway
    return found


# Somebody else's SDK against our sandbox


async def test_the_judge_pays_and_refunds_at_our_sandbox(world: World):
    their = sdk(world)
    made = await asyncio.to_thread(their.api_alipay_trade_create, "挂号费", "J1", "35.80", buyer_id=BUYER)
    assert made["code"] == "10000" and made["out_trade_no"] == "J1"
    asked = await asyncio.to_thread(their.api_alipay_trade_query, "J1")
    assert (asked["trade_status"], asked["total_amount"]) == ("WAIT_BUYER_PAY", "35.80")
    world.sandbox.pay("J1")
    refund = {"refund_amount": "5.80", "out_trade_no": "J1", "out_request_no": "R1"}
    first = await asyncio.to_thread(lambda: their.api_alipay_trade_refund(**refund))
    again = await asyncio.to_thread(lambda: their.api_alipay_trade_refund(**refund))
    assert (first["fund_change"], again["fund_change"]) == ("Y", "N")
    assert first["refund_fee"] == again["refund_fee"] == "5.80"
    found = await asyncio.to_thread(their.api_alipay_trade_fastpay_refund_query, "R1", None, "J1")
    assert found["refund_amount"] == "5.80" and found["refund_status"] == "REFUND_SUCCESS"
    over = await asyncio.to_thread(
        lambda: their.api_alipay_trade_refund("30.01", out_trade_no="J1", out_request_no="R2")
    )
    assert over["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    other = await asyncio.to_thread(
        lambda: their.api_alipay_trade_refund("5.81", out_trade_no="J1", out_request_no="R1")
    )
    assert other["sub_code"] == "ACQ.DISCORDANT_REPEAT_REQUEST"
    none = await asyncio.to_thread(their.api_alipay_trade_query, "J2")
    assert (none["code"], none["sub_code"]) == ("40004", "ACQ.TRADE_NOT_EXIST")
    assert world.sandbox.account == 3000


async def test_the_judge_believes_our_sandbox_as_far_as_we_do(world: World):
    their = sdk(world)
    world.sandbox.fail("forged", "unsigned")
    with pytest.raises(AliPayValidationError):
        await asyncio.to_thread(their.api_alipay_trade_query, "J1")
    with pytest.raises(AliPayException):
        await asyncio.to_thread(their.api_alipay_trade_query, "J1")
    wrong = await asyncio.to_thread(sdk(world, FORGER).api_alipay_trade_query, "J1")
    assert wrong["sub_code"] == "isv.invalid-signature"


async def test_the_judge_believes_our_sandboxs_notices(world: World):
    caught: list[bytes] = []

    async def catch(request: web.Request) -> web.Response:
        caught.append(await request.read())
        return web.Response(text="success")

    app = web.Application()
    app.router.add_post("/n", catch)
    async with TestServer(app) as server:
        their = sdk(world)
        their._app_notify_url = f"http://127.0.0.1:{server.port}/n"
        await asyncio.to_thread(their.api_alipay_trade_create, "挂号 费", "J1", "35.80", buyer_id=BUYER)
        world.sandbox.pay("J1", Trouble(copies=2, is_forged=True))
        world.sandbox._tell(world.sandbox.trades["J1"], "", Trouble())
        await world.deliver()
    verdicts = []
    for raw in caught:
        told = dict(parse_qsl(raw.decode(), keep_blank_values=True))
        sign = told.pop("sign")
        verdicts.append(sdk(world).verify(told, sign))
    assert verdicts == [False, False, True]
    assert notice_of(caught[2], merchant(), NOON).amount_fen == 3580


# Our client against our sandbox


async def test_create_pay_refund(world: World):
    client = world.client
    assert await client.query("X1") is None
    trade_no = await client.create(order("X1"), BUYER)
    assert await client.create(order("X1"), BUYER) == trade_no
    waiting = await client.query("X1")
    assert waiting is not None and waiting.state is TradeState.WAITING and not waiting.was_paid
    world.sandbox.pay("X1")
    found = await client.query("X1")
    assert found is not None and found.state is TradeState.PAID and found.was_paid
    assert (found.trade_no, found.amount_fen, found.paid_at) == (trade_no, 3580, NOON * 1000)
    part = Refund("X1", "R1", 580, "停诊")
    assert await client.refund_of("X1", "R1") is None
    assert await client.refund(part) == await client.refund(part) == Refunded("X1", "R1", 580)
    assert await client.refund_of("X1", "R1") == Refunded("X1", "R1", 580)
    assert await client.refund(Refund("X1", "R2", 3000)) == Refunded("X1", "R2", 3000)
    closed = await client.query("X1")
    assert closed is not None and closed.state is TradeState.CLOSED and closed.was_paid
    assert world.sandbox.account == 0


async def test_what_they_refuse(world: World):
    client = world.client

    async def code(asking: Any) -> str:
        with pytest.raises(Refused) as raised:
            await asking
        return raised.value.code

    await paid(world, "X1")
    assert await code(client.create(order("X1"), BUYER)) == "paid"
    assert await code(client.close("X1")) == "wrong_state"
    assert await code(client.refund(Refund("X1", "R1", 3581))) == "amount"
    await client.refund(Refund("X1", "R1", 1000))
    assert await code(client.refund(Refund("X1", "R1", 1001))) == "another_request"
    assert await code(client.refund(Refund("X1", "R2", 2581))) == "amount"
    assert await code(client.refund(Refund("X9", "R1", 1))) == "not_exist"
    assert await code(client.close("X9")) == "not_exist"
    await client.create(order("X2"), BUYER)
    assert await code(client.create(order("X2", 3581), BUYER)) == "another_request"
    assert await code(client.create(order("X2"), "2088000000000007")) == "another_buyer"
    assert await code(client.refund(Refund("X2", "R1", 1))) == "wrong_state"
    await client.close("X2")
    assert await code(client.create(order("X2"), BUYER)) == "closed"
    assert not world.sandbox.pay("X2")
    assert world.sandbox.account == 2580


async def test_who_pays_too_late_cannot(world: World):
    await world.client.create(order("X1", minutes=15), BUYER)
    world.later(15 * 60)
    assert not world.sandbox.pay("X1")
    found = await world.client.query("X1")
    assert found is not None and found.state is TradeState.CLOSED and not found.was_paid


NOT_DONE = ["lost", "busy", "away"]
DONE = ["done_lost", "done_busy", "unsigned", "forged"]


@pytest.mark.parametrize("fault", NOT_DONE + DONE)
async def test_an_unknown_creation_is_settled_by_asking(world: World, fault: str):
    world.sandbox.fail(fault, method=CREATE)
    with pytest.raises(OutcomeUnknown):
        await world.client.create(order("X1"), BUYER)
    assert (await world.client.query("X1") is not None) is (fault in DONE)
    assert await world.client.create(order("X1"), BUYER)
    assert len(world.sandbox.trades) == 1


@pytest.mark.parametrize("fault", NOT_DONE + DONE)
async def test_an_unknown_close_is_settled_by_asking(world: World, fault: str):
    await world.client.create(order("X1"), BUYER)
    world.sandbox.fail(fault, method=CLOSE)
    with pytest.raises(OutcomeUnknown):
        await world.client.close("X1")
    found = await world.client.query("X1")
    assert found is not None and (found.state is TradeState.CLOSED) is (fault in DONE)


@pytest.mark.parametrize("fault", NOT_DONE + DONE)
async def test_an_unknown_refund_is_settled_by_asking(world: World, fault: str):
    await paid(world, "X1")
    world.sandbox.fail(fault, method=REFUND)
    refund = Refund("X1", "R1", 580)
    with pytest.raises(OutcomeUnknown):
        await world.client.refund(refund)
    assert (await world.client.refund_of("X1", "R1") is not None) is (fault in DONE)
    assert await world.client.refund(refund) == Refunded("X1", "R1", 580)
    assert world.sandbox.account == 3000


@pytest.mark.parametrize("fault", NOT_DONE + DONE + ["often"])
async def test_a_question_may_be_asked_again(world: World, fault: str):
    await paid(world, "X1")
    world.sandbox.fail(fault, fault)
    with pytest.raises(TryAgain):
        await world.client.query("X1")
    with pytest.raises(TryAgain):
        await world.client.refund_of("X1", "R1")
    assert await world.client.query("X1") is not None


async def test_nobody_answers(world: World):
    hasty = AlipayClient(world.session, world.merchant, 0.2, lambda: NOON)
    await paid(world, "X1")
    world.sandbox.fail("slow", "done_slow", method=REFUND)
    world.sandbox.fail("slow", method=QUERY)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await hasty.refund(Refund("X1", "R1", 580))
    with pytest.raises(TryAgain):
        await hasty.query("X1")
    assert await world.client.refund(Refund("X1", "R1", 580)) == Refunded("X1", "R1", 580)
    assert world.sandbox.account == 3000


async def test_where_nobody_listens_nothing_was_done():
    async with aiohttp.ClientSession() as session:
        nobody = client_of(session, f"http://127.0.0.1:{unused_port()}/gateway.do", lambda: NOON)
        for asking in (
            nobody.create(order("X1"), BUYER),
            nobody.refund(Refund("X1", "R1", 1)),
            nobody.query("X1"),
        ):
            with pytest.raises(TryAgain):
                await asking


async def test_limits_and_an_empty_account_are_for_later(world: World):
    await paid(world, "X1")
    world.sandbox.fail("often", "balance", method=REFUND)
    with pytest.raises(TryAgain) as raised:
        await world.client.refund(Refund("X1", "R1", 580))
    assert not isinstance(raised.value, BalanceShort)
    with pytest.raises(BalanceShort) as short:
        await world.client.refund(Refund("X1", "R1", 580))
    assert short.value.after
    assert await world.client.refund(Refund("X1", "R1", 580)) == Refunded("X1", "R1", 580)


async def test_a_refund_said_to_have_moved_nothing_is_looked_up(world: World):
    await paid(world, "X1")
    refund = Refund("X1", "R1", 580)
    await world.client.refund(refund)
    before = len(world.sandbox.asked)
    await world.client.refund(refund)
    assert world.sandbox.asked[before:] == [REFUND, REFUND_QUERY]
    world.sandbox.fail("lost", method=REFUND_QUERY)
    with pytest.raises(OutcomeUnknown):
        await world.client.refund(refund)


async def test_a_refund_of_another_amount_by_the_same_number(world: World, monkeypatch: pytest.MonkeyPatch):
    await paid(world, "X1")
    await world.client.refund(Refund("X1", "R1", 580))
    # As one that answers 10000 without looking at the amount again.
    taken = {"code": "10000", "out_trade_no": "X1", "fund_change": "N"}
    monkeypatch.setitem(world.sandbox._methods, REFUND, lambda *_: taken)
    with pytest.raises(Refused, match="another_request"):
        await world.client.refund(Refund("X1", "R1", 581))


async def test_an_old_answer_passes_for_no_new_one(world: World):
    await paid(world, "X1")
    await world.client.query("X1")
    world.sandbox.fail("stale", method=QUERY)
    with pytest.raises(TryAgain):
        await world.client.query("X2")
    await paid(world, "X2")
    await world.client.refund(Refund("X1", "R1", 1))
    world.sandbox.fail("stale", method=REFUND)
    with pytest.raises(OutcomeUnknown):
        await world.client.refund(Refund("X2", "R1", 1))
    await world.client.refund_of("X1", "R1")
    world.sandbox.fail("stale", method=REFUND_QUERY)
    with pytest.raises(TryAgain):
        await world.client.refund_of("X1", "R2")


async def test_wrong_keys_and_another_app(world: World):
    who = merchant(world.gateway)
    wrong = type(who)(who.app_id, who.seller_id, FORGER, who.alipay_key, who.notify_url, who.gateway)
    with pytest.raises(Refused, match="our_signature"):
        await AlipayClient(world.session, wrong).create(order("X1"), BUYER)
    other = type(who)("2021000000000009", who.seller_id, APP, who.alipay_key, who.notify_url, who.gateway)
    with pytest.raises(TryAgain, match=r"unsigned: 40002 isv\.invalid-app-id"):
        await AlipayClient(world.session, other).query("X1")
    deaf = type(who)(who.app_id, who.seller_id, APP, APP.public_key(), who.notify_url, who.gateway)
    with pytest.raises(OutcomeUnknown, match="not theirs"):
        await AlipayClient(world.session, deaf).create(order("X1"), BUYER)


async def test_a_redirection_leads_nowhere(world: World):
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": world.gateway})

    app = web.Application()
    app.router.add_route("*", "/gateway.do", elsewhere)
    async with TestServer(app) as server:
        client = client_of(world.session, f"http://127.0.0.1:{server.port}/gateway.do", lambda: NOON)
        with pytest.raises(OutcomeUnknown, match="status 307"):
            await client.create(order("X1"), BUYER)
    assert asked == ["/gateway.do"] and world.sandbox.asked == []


@pytest.mark.parametrize(
    "node",
    [
        {"code": "10000"},
        {"code": "10000", "out_trade_no": "X1"},
        {
            "code": "10000",
            "out_trade_no": "X1",
            "trade_no": "T1",
            "trade_status": "NEW",
            "total_amount": "1.00",
        },
        {"code": "10000", "out_trade_no": "X1", "trade_no": "T1", "trade_status": "TRADE_SUCCESS"},
        {"code": "10000", "out_trade_no": "X1", "trade_no": "T1", "trade_status": [], "total_amount": 1.0},
        {"code": "10000", "out_request_no": "R1", "refund_status": "REFUND_PROCESSING"},
    ],
)
async def test_answers_that_do_not_hold_together(
    world: World, monkeypatch: pytest.MonkeyPatch, node: dict[str, Any]
):
    for method in (QUERY, CREATE, CLOSE, REFUND, REFUND_QUERY):
        monkeypatch.setitem(
            world.sandbox._methods, method, lambda *_: {**node, "out_trade_no": node.get("t")}
        )
    with pytest.raises(TryAgain):
        await world.client.query("X1")
    with pytest.raises(OutcomeUnknown):
        await world.client.create(order("X1"), BUYER)
    with pytest.raises(OutcomeUnknown):
        await world.client.close("X1")
    with pytest.raises(OutcomeUnknown):
        await world.client.refund(Refund("X1", "R1", 1))
    for method in (QUERY, CREATE):
        monkeypatch.setitem(world.sandbox._methods, method, lambda *_: node)
    with pytest.raises(TryAgain):
        await world.client.query("X1")


# The page


async def test_somebody_pays_on_the_page(world: World):
    world.hospital.orders["X1"] = 3580
    address = world.client.pay_page(order("X1"), "https://h.example/back", "https://h.example/")
    with pytest.raises(Refused, match="not_exist"):
        await world.client.close("X1")
    async with world.session.get(address) as response:
        page, trade_no = await response.text(), response.url.query["trade_no"]
    assert "¥35.80" in page and "挂号费" in page
    cashier = f"{world.gateway.removesuffix('/gateway.do')}/cashier"
    async with world.session.post(
        cashier, data={"trade_no": trade_no, "do": "pay"}, allow_redirects=False
    ) as response:
        assert response.headers["Location"] == "https://h.example/back"
    assert await world.deliver() == 1 and world.hospital.paid == {"X1"}
    async with world.session.get(address.replace("35.80", "00.01")) as response:
        assert "isv.invalid-signature" in await response.text()


# Notices


async def test_a_payment_and_its_refund_are_told(world: World):
    await paid(world, "X1")
    assert await world.deliver() == 1
    await world.client.refund(Refund("X1", "R1", 580))
    await world.client.refund(Refund("X1", "R2", 3000))
    assert await world.deliver() == 2
    told = [(n.state, n.refunded_fen, n.out_request_no) for n in world.hospital.dealt]
    assert told == [
        (TradeState.PAID, 0, None),
        (TradeState.PAID, 580, "R1"),
        (TradeState.CLOSED, 3580, "R2"),
    ]


async def test_a_lost_or_late_notice_comes_in_the_end(world: World):
    world.hospital.orders |= {"X1": 3580, "X2": 3580}
    for number, trouble in (("X1", Trouble(is_lost=True)), ("X2", Trouble(late_seconds=86_000))):
        await world.client.create(order(number), BUYER)
        world.sandbox.pay(number, trouble)
    assert await world.deliver() == 0
    world.later(AGAIN_SECONDS[0])
    assert await world.deliver() == 1 and world.hospital.paid == {"X1"}
    world.later(86_000)
    assert await world.deliver() == 1 and world.hospital.paid == {"X1", "X2"}


async def test_who_dies_midway_is_told_again(world: World):
    await paid(world, "X1")
    world.hospital.is_down = True
    assert await world.deliver() == 0 and len(world.hospital.dealt) == 1
    world.hospital.is_down = False
    world.later(AGAIN_SECONDS[0])
    assert await world.deliver() == 1 and world.sandbox.due == []


async def test_they_give_up_in_the_end_and_a_question_settles_it(world: World):
    await world.client.create(order("X1"), BUYER)
    world.sandbox.pay("X1")  # an order that this hospital does not know
    for seconds in (0, *AGAIN_SECONDS):
        world.later(seconds)
        assert await world.deliver() == 0
    assert world.sandbox.due == [] and len(world.hospital.answers) == 8
    assert {answer.refused for answer in world.hospital.answers} == {"unknown_order"}
    found = await world.client.query("X1")
    assert found is not None and found.was_paid


async def test_payments_in_a_storm(world: World):
    """Copies, shuffled, lost, late, forged, of a wrong amount; refunds with lost answers: the books agree."""
    chance = Random(6)
    for n in range(60):
        number = f"S{n}"
        world.hospital.orders[number] = 100 + n
        await world.client.create(order(number, 100 + n), BUYER)
        world.sandbox.pay(
            number,
            Trouble(
                copies=chance.randint(1, 5),
                late_seconds=chance.choice((0, 0, 3_600)),
                is_lost=chance.random() < 0.1,
                is_forged=chance.random() < 0.1,
                amount_fen=1 if chance.random() < 0.1 else None,
            ),
        )
    given_back = 0
    for n in range(0, 60, 4):
        world.sandbox.fail(chance.choice(("done_lost", "lost", "done_busy")), method=REFUND)
        refund = Refund(f"S{n}", "R", 50)
        with pytest.raises(OutcomeUnknown):
            await world.client.refund(refund)
        if await world.client.refund_of(refund.out_trade_no, "R") is None:
            await world.client.refund(refund)
        given_back += 50
    for seconds in (0, *AGAIN_SECONDS):
        world.later(seconds)
        await world.deliver(chance)
    refused = {answer.refused for answer in world.hospital.answers}
    assert refused == {None, "signature", "amount"}
    for number in world.hospital.orders.keys() - world.hospital.paid:  # whose notices were all bad
        found = await world.client.query(number)
        assert found is not None and found.was_paid
    assert len(world.hospital.paid) > 45
    assert len({n.notice_id for n in world.hospital.dealt}) == len(world.hospital.dealt)
    assert world.sandbox.account == sum(range(100, 160)) - given_back


# The bill


async def test_the_days_bill_is_the_ledger(world: World):
    assert await world.client.bill(date(2026, 10, 2)) is None
    await paid(world, "X1")
    await paid(world, "X2", 100)
    await world.client.refund(Refund("X1", "R1", 580))
    with pytest.raises(Refused):
        await world.client.bill(date(2026, 10, 3))  # not yet over
    world.later(86_400)
    await world.client.create(order("X3", minutes=2_000), BUYER)
    assert world.sandbox.pay("X3")
    bill = await world.client.bill(date(2026, 10, 3))
    assert bill is not None and not bill.doubts
    found = [(row.kind, row.out_trade_no, row.out_request_no, row.amount_fen) for row in bill.rows]
    assert found == [
        (Kind.PAID, "X1", None, 3580),
        (Kind.PAID, "X2", None, 100),
        (Kind.REFUNDED, "X1", "R1", 580),
    ]


async def test_bills_that_do_not_come(world: World, monkeypatch: pytest.MonkeyPatch):
    await paid(world, "X1")
    world.later(86_400)
    day = date(2026, 10, 3)
    for content, words in ((b"<html>", "no zip"), (b"", "no zip")):
        monkeypatch.setattr(world.sandbox, "bill", lambda _day, content=content: content or b"?")
        with pytest.raises(TryAgain, match=words):
            await world.client.bill(day)
    monkeypatch.undo()
    monkeypatch.setattr(world.sandbox, "_seller_id", "2088000000000009")
    with pytest.raises(TryAgain, match="another account"):
        await world.client.bill(day)
    monkeypatch.setattr("integrations.alipay.sandbox.BILL_LIVES_SECONDS", -1)
    with pytest.raises(TryAgain, match="status 403") as raised:
        await world.client.bill(day)
    assert "token" not in str(raised.value)
    for address in ("https://127.0.0.1:1/b", "file:///etc/passwd", "", 7, None):
        monkeypatch.setattr(
            world.sandbox,
            "_bill_address",
            lambda *_, address=address: {"code": "10000", "bill_download_url": address},
        )
        with pytest.raises(TryAgain):
            await world.client.bill(day)


def test_a_bills_address_is_https():
    their = "http://dwbillcenter.alipay.com/downloadBillFile.resource?a=%2B&b=1"
    assert str(_never_in_the_clear(their)) == their.replace("http:", "https:")
    assert str(_never_in_the_clear("http://127.0.0.1:81/b?a=%2B")) == "http://127.0.0.1:81/b?a=%2B"
    for address in ("ftp://h/b", "//h/b", "/b", "", "http:///b"):
        with pytest.raises(ValueError):
            _never_in_the_clear(address)


async def test_what_leaves_us_names_nobody_and_is_signed(world: World):
    caught: list[dict[str, str]] = []

    async def catch(request: web.Request) -> web.Response:
        caught.append(dict(request.query) | {k: str(v) for k, v in (await request.post()).items()})
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/gateway.do", catch)
    async with TestServer(app) as server:
        client = client_of(world.session, f"http://127.0.0.1:{server.port}/gateway.do", lambda: NOON)
        for asking in (
            client.create(order("X1"), BUYER),
            client.refund(Refund("X1", "R1", 1, "停诊 + 退号")),
        ):
            with pytest.raises(OutcomeUnknown, match="status 500"):
                await asking
    their = sdk(world, APP, APP)
    for told in caught:
        sign = told["sign"]
        assert their._verify(signing.of_request(told), sign)
        del told["sign"]
        assert dict(parse_qsl(sdk(world).sign_data(dict(told))))["sign"] == sign
        assert told["sign_type"] == "RSA2" and told["timestamp"] == "2026-10-03 12:00:00"
