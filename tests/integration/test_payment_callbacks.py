"""What is said in a provider's name and is not so: refused, recorded, and nothing was changed."""

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import pytest

from engine.records import callbacks_seen
from integrations.wechat_pay import signing
from integrations.wechat_pay.sandbox_keys import Keys
from tests.support import alipay as alipay_keys
from tests.support.till import FEE, Payer, Till, till_at, until, wechat_keys

WECHAT = "/api/v1/callbacks/wechat_pay"
ALIPAY = "/api/v1/callbacks/alipay"


@pytest.fixture
async def till(database: str) -> AsyncIterator[Till]:
    async with till_at(database) as one:
        yield one


def message(
    order: str, keys: Keys | None = None, at: float = 0.0, serial: str = "", key: Any = None, **changed: Any
) -> tuple[dict[str, str], bytes]:
    """As WeChat Pay says that `order` was paid; signed by its public key, unless by another."""
    keys = keys or wechat_keys()
    content = {
        "mchid": keys.mch_id,
        "appid": keys.app_id,
        "out_trade_no": order,
        "transaction_id": "4200000000000000000000000001",
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "success_time": "2026-10-03T10:00:00+08:00",
        "payer": {"openid": "somebody"},
        "amount": {"total": FEE, "payer_total": FEE, "currency": "CNY", "payer_currency": "CNY"},
        **changed,
    }
    sealed = signing.encrypted(keys.api_v3_key, "123456789012", "transaction", orjson.dumps(content))
    body = orjson.dumps(
        {
            "id": "n1",
            "create_time": "2026-10-03T10:00:00+08:00",
            "resource_type": "encrypt-resource",
            "event_type": "TRANSACTION.SUCCESS",
            "resource": {**sealed, "original_type": "transaction"},
        }
    )
    now, nonce = str(int(at or time.time())), secrets.token_hex(16)
    text = signing.text_of_answer(now, nonce, body)
    return {
        signing.TIMESTAMP: now,
        signing.NONCE: nonce,
        signing.SERIAL: serial or keys.public_id,
        signing.SIGNATURE: signing.signed(key or keys.public, text),
        "Content-Type": "application/json",
    }, body


async def say(till: Till, said: tuple[dict[str, str], bytes], path: str = WECHAT) -> int:
    headers, body = said
    async with till.http.post(path, data=body, headers=headers) as answer:
        return answer.status


async def begun(till: Till) -> tuple[Payer, str, str]:
    payer = await till.payer()
    number = await payer.hold()
    return payer, number, till.order(await payer.pay(number))


async def unchanged(till: Till, payer: Payer, number: str) -> None:
    bill = await till.replayed(number)
    assert not bill.paid_by and not bill.refunds and not bill.balances
    assert (await payer.number(number))["status"] == "pending"


def amount(total: int, currency: str = "CNY") -> dict[str, Any]:
    return {"total": total, "payer_total": total, "currency": currency, "payer_currency": currency}


LIES: list[tuple[dict[str, Any], int, str]] = [
    ({"key": wechat_keys().forger}, 401, "wrong_signature"),
    ({"serial": "PUB_KEY_ID_9"}, 401, "unknown_key"),
    ({"at": -3600.0}, 401, "wrong_time"),
    ({"at": 3600.0}, 401, "wrong_time"),
    ({"mchid": "1900000001"}, 400, "another_merchant"),
    ({"appid": "wx0000000000000000"}, 400, "another_app"),
    ({"amount": amount(1)}, 400, "amount_mismatch"),
    ({"amount": amount(FEE + 1)}, 400, "amount_mismatch"),
    ({"amount": amount(FEE, "USD")}, 400, "currency_mismatch"),
    ({"trade_state": "NOTPAY"}, 400, "bad_body"),
]


async def test_a_lie_changes_nothing(till: Till) -> None:
    payer, number, order = await begun(till)
    counted: Counter[str] = Counter()
    for lie, status, why in LIES:
        told = dict(lie)
        if "at" in told:
            told["at"] = time.time() + told["at"]
        for _ in range(2):
            assert await say(till, message(order, **told)) == status, why
        counted[why] += 2
        assert ("wechat_pay", "callback", why) in await till.alarms()
    # The same within the hour is counted, and makes no more rows.
    rows = await till.pool.fetch(
        "select why, sum(times)::int as n, count(*) as rows from payment_alarm group by 1"
    )
    assert {row["why"]: row["n"] for row in rows} == counted
    assert all(row["rows"] <= 2 for row in rows)  # unless the hour has changed
    await unchanged(till, payer, number)
    till.wechat.pay(order)  # the true one is still believed
    await payer.status(number, "settled")


async def test_orders_of_nobody_and_bytes_of_nothing(till: Till) -> None:
    payer, number, order = await begun(till)
    assert await say(till, message("0" * 32)) == 400
    assert await say(till, message("not-one-of-ours")) == 400
    assert await say(till, ({}, b"")) == 401
    assert await say(till, ({}, b"\xff" * 2000)) == 401
    assert await say(till, ({"Content-Type": "application/x-www-form-urlencoded"}, b""), ALIPAY) in (400, 401)
    assert {why for _, _, why in await till.alarms()} >= {"unknown_order", "headers_missing"}
    await unchanged(till, payer, number)


async def test_the_same_bytes_again_are_somebody_s_who_plays_them_back(till: Till) -> None:
    payer, number, order = await begun(till)
    said = message(order)
    assert await say(till, said) == 204
    assert await say(till, said) == 400
    assert await till.alarms() == [("wechat_pay", "callback", "replayed")]
    await payer.status(number, "settled")
    # A repetition of theirs is signed anew, and does nothing more.
    assert await say(till, message(order, at=time.time() - 5)) == 204
    bill = await till.replayed(number)
    assert len(bill.attempts) == 1 and not bill.refunds
    # The money of this test is a fiction of the callback alone: the sandbox must have it, too.
    till.wechat.callbacks.lost = 1
    till.wechat.pay(order)


async def test_an_amount_that_is_really_another_goes_back(till: Till) -> None:
    payer, number, order = await begun(till)
    till.wechat.pay(order, total_fen=FEE + 100)
    await till.deliver()
    assert ("wechat_pay", "callback", "amount_mismatch") in await till.alarms()

    async def is_back() -> bool:
        await till.deliver()
        return till.wechat.orders[order].refunded == FEE + 100

    await until(is_back, "the wrong amount to go back")
    assert (await payer.number(number))["status"] == "pending"


async def test_alipay_s_lies(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    payment = await payer.pay(number, "alipay")
    order = till.order(payment)
    now = datetime.now(alipay_keys.BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    true = {
        "out_trade_no": order, "total_amount": "50.00", "notify_time": now, "gmt_payment": now,
    }  # fmt: skip
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    lies = [
        ("signature", 401, {}, alipay_keys.FORGER),
        ("another_app", 400, {"app_id": "2021000000000009"}, alipay_keys.THEIRS),
        ("another_seller", 400, {"seller_id": "2088000000000009"}, alipay_keys.THEIRS),
        ("amount", 400, {"total_amount": "0.01"}, alipay_keys.THEIRS),
        ("currency", 400, {"trans_currency": "USD"}, alipay_keys.THEIRS),
        ("another_time", 400, {"notify_time": "2020-01-01 10:00:00"}, alipay_keys.THEIRS),
        ("unknown_order", 400, {"out_trade_no": "0" * 32}, alipay_keys.THEIRS),
    ]
    for why, status, changed, key in lies:
        body = alipay_keys.signed_notice(key, **{**true, **changed, "notify_id": why})
        assert await say(till, (form, body), ALIPAY) == status, why
        assert ("alipay", "callback", why) in await till.alarms()
    await unchanged(till, payer, number)
    async with till.http.get(payment["pay_page"], allow_redirects=False):
        pass
    assert till.alipay.pay(order)
    await payer.status(number, "settled")


async def test_a_certificate_outside_its_time_is_nobody_s(database: str) -> None:
    """Certificate mode: the platform's are fetched; one that has ended signs nothing."""
    old = Keys.made(time.time() - 400 * 86_400)
    merchant = replace(old, merchant=wechat_keys().merchant)
    keys = signing.PlatformKeys([merchant.platform_certificate()])
    headers, body = message(
        "0" * 32, merchant, serial=merchant.platform_certificate().serial, key=merchant.platform
    )
    with pytest.raises(Exception, match="outside its time"):
        signing.check(keys, headers, body, time.time())


async def test_where_nobody_could_commit_it_in_time_it_comes_again(till: Till) -> None:
    payer, number, order = await begun(till)
    said = message(order)
    async with till.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("select from shard for update")  # no shard can commit
            assert await say(till, said) == 503
        kept = await connection.fetchval("select count(*) from callback_seen")
    assert kept == 0  # the very same message may come again
    assert await say(till, said) == 204
    await payer.status(number, "settled")
    till.wechat.callbacks.lost = 1
    till.wechat.pay(order)  # for the books of the sandbox


async def test_two_gateways_read_a_message_once(till: Till) -> None:
    now = datetime.now(UTC)
    first = [await callbacks_seen.is_first(till.pool, "wechat_pay", "k", now, 600) for _ in range(2)]
    assert first == [True, False]
    await callbacks_seen.forget(till.pool, "wechat_pay", "k")
    assert await callbacks_seen.is_first(till.pool, "wechat_pay", "k", now, 600)


async def test_callbacks_need_no_sign_in_and_answer_nothing_else(till: Till) -> None:
    async with aiohttp.ClientSession(till.one.address) as http, http.get(WECHAT) as answer:
        assert answer.status == 405
