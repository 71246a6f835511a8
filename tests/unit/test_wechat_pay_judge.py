"""Somebody else's client (wechatpayv3) against our sandbox, and our signatures against its own: without it,
client and sandbox could agree on something that the real WeChat Pay never heard of."""

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from wechatpayv3 import WeChatPay as Judge  # type: ignore[import-untyped]
from wechatpayv3 import WeChatPayType
from wechatpayv3.utils import build_authorization  # type: ignore[import-untyped]

from integrations.wechat_pay import signing
from integrations.wechat_pay.bill import parsed
from integrations.wechat_pay.sandbox import Fault, Sandbox
from integrations.wechat_pay.translate import BEIJING
from tests.unit.test_wechat_pay import NUMBER, Clock, keys

NOTIFIED = "https://hospital.example/notified"


@pytest.fixture
async def sandbox() -> AsyncIterator[tuple[Sandbox, str, Clock]]:
    """The judge looks at the real clock; a bill needs another day."""
    clock = Clock(time.time())
    there = Sandbox(keys(), clock)
    async with TestServer(there.app()) as server:
        yield there, str(server.make_url("")).rstrip("/"), clock


def judge(address: str, mode: str, place: Path) -> Any:
    how: dict[str, Any] = {}
    if mode == "public_key":
        how = {"public_key": keys().public_pem().decode(), "public_key_id": keys().public_id}
    else:
        # One that it has already, so that it does not ask the real address before we can tell it ours.
        (place / "one.pem").write_bytes(keys().certificate)
        how = {"cert_dir": str(place)}
    made = Judge(
        WeChatPayType.MINIPROG,
        keys().mch_id,
        keys().merchant_pem().decode(),
        keys().merchant_serial,
        keys().app_id,
        keys().api_v3_key.decode(),
        NOTIFIED,
        timeout=10,
        **how,
    )
    made._core._gate_way = address
    return made


async def asked(call: Callable[..., tuple[int, Any]], *args: Any, **more: Any) -> tuple[int, Any]:
    """It waits, so it does so in a thread."""
    status, told = await asyncio.to_thread(call, *args, **more)
    return status, json.loads(told) if told and isinstance(told, str) else told


async def heard(pay: Any, message: tuple[dict[str, str], bytes]) -> Any:
    headers, body = message
    return await asyncio.to_thread(pay.callback, headers, body)


@pytest.mark.parametrize("mode", ["public_key", "certificate"])
async def test_the_judge_talks_to_our_sandbox(
    sandbox: tuple[Sandbox, str, Clock], mode: str, tmp_path: Path
) -> None:
    there, address, clock = sandbox
    pay = judge(address, mode, tmp_path)
    if mode == "certificate":
        pay._core._cert_dir = None
        await asyncio.to_thread(pay._core._update_certificates)  # /v3/certificates, decrypted by the judge
        serials = [format(one.serial_number, "X") for one in pay._core._certificates]
        assert serials == [keys().platform_certificate().serial]
    order = {"description": "门诊挂号费", "out_trade_no": NUMBER, "payer": {"openid": "oHkLxtx0vUqe"}}
    status, told = await asked(pay.pay, amount={"total": 5_000, "currency": "CNY"}, **order)
    assert (status, told) == (200, {"prepay_id": there.orders[NUMBER].prepay_id})
    status, told = await asked(pay.query, out_trade_no=NUMBER)
    assert (status, told["trade_state"], told["amount"]["total"]) == (200, "NOTPAY", 5_000)
    there.pay(NUMBER)
    status, told = await asked(pay.query, out_trade_no=NUMBER)
    assert (status, told["trade_state"]) == (200, "SUCCESS")
    assert (await asked(pay.query, transaction_id=told["transaction_id"]))[1] == told
    status, refused = await asked(pay.close, NUMBER)
    assert (status, refused["code"]) == (400, "ORDERPAID")

    amount = {"refund": 2_000, "total": 5_000, "currency": "CNY"}
    first = await asked(pay.refund, "r1", amount, out_trade_no=NUMBER)
    assert first[0] == 200 and first[1]["amount"]["refund"] == 2_000
    second = await asked(pay.refund, "r1", amount, out_trade_no=NUMBER)
    assert second[1]["refund_id"] == first[1]["refund_id"]
    status, told = await asked(pay.query_refund, "r1")
    assert (status, told["status"]) == (200, "SUCCESS")
    status, refused = await asked(pay.refund, "r2", {**amount, "refund": 3_001}, out_trade_no=NUMBER)
    assert (status, refused["code"]) == (400, "INVALID_REQUEST")
    assert (await asked(pay.query, out_trade_no="R20261123000404"))[0] == 404

    status, _ = await asked(pay.pay, amount={"total": 1}, **{**order, "out_trade_no": "R20261123000002"})
    assert status == 200
    assert (await asked(pay.close, "R20261123000002"))[0] == 204

    # The bill. Our clock has to go on by a day, and the judge's does not: it is asked the day before.
    day = datetime.fromtimestamp(clock.now, BEIJING).date() - timedelta(days=1)
    for n, entry in enumerate(there.ledger):
        there.ledger[n] = type(entry)(entry.at - timedelta(days=1), entry.order, entry.refund)
    status, told = await asked(pay.trade_bill, day.isoformat())
    assert (status, told["hash_type"]) == (200, "SHA1")
    status, content = await asked(pay.download_bill, told["download_url"])
    assert status == 200
    assert parsed(gzip.decompress(content)).refund_fen == 2_000


@pytest.mark.parametrize("mode", ["public_key", "certificate"])
async def test_the_judge_reads_our_callbacks(
    sandbox: tuple[Sandbox, str, Clock], mode: str, tmp_path: Path
) -> None:
    there, address, _ = sandbox
    pay = judge(address, mode, tmp_path)
    there.callbacks.by_public_key = mode == "public_key"
    there.callbacks.forged, there.callbacks.probes = 1, 1
    order = {"description": "门诊挂号费", "out_trade_no": NUMBER, "payer": {"openid": "oHkLxtx0vUqe"}}
    await asked(pay.pay, amount={"total": 5_000, "currency": "CNY"}, **order)
    there.pay(NUMBER)
    amount = {"refund": 2_000, "total": 5_000, "currency": "CNY"}
    await asked(pay.refund, "r1", amount, out_trade_no=NUMBER)
    there._settle()
    forged, probe, paid, _, _, refund = (there.message(callback) for callback in there.waiting)
    told = await heard(pay, paid)
    assert (told["event_type"], told["resource"]["amount"]["total"]) == ("TRANSACTION.SUCCESS", 5_000)
    assert told["resource"]["mchid"] == keys().mch_id
    told = await heard(pay, refund)
    assert (told["event_type"], told["resource"]["amount"]["refund"]) == ("REFUND.SUCCESS", 2_000)
    assert await heard(pay, forged) is None
    assert await heard(pay, probe) is None
    assert await heard(pay, (paid[0], paid[1] + b" ")) is None


@pytest.mark.parametrize("fault", [Fault.FORGED, Fault.CHANGED])
async def test_the_judge_does_not_believe_a_forger(
    sandbox: tuple[Sandbox, str, Clock], fault: Fault, tmp_path: Path
) -> None:
    """That what our sandbox forges is wrong in the eyes of others, too."""
    there, address, _ = sandbox
    there.fail("certificates", fault)
    there.fail("prepay", fault)
    pay = judge(address, "public_key", tmp_path)
    order = {"description": "门诊挂号费", "out_trade_no": NUMBER, "payer": {"openid": "oHkLxtx0vUqe"}}
    with pytest.raises(Exception, match="failed to verify the signature"):
        await asked(pay.pay, amount={"total": 5_000, "currency": "CNY"}, **order)


@pytest.mark.parametrize(
    ("method", "target", "data"),
    [
        ("GET", f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid=1900000109", None),
        ("POST", "/v3/pay/transactions/jsapi", {"description": "挂号费", "amount": {"total": 1}}),
    ],
)
def test_our_signatures_are_the_judges(method: str, target: str, data: dict[str, Any] | None) -> None:
    """The same text and key give the same signature, so whole headers are compared."""
    merchant = keys().merchant_there()
    theirs = build_authorization(
        target, method, merchant.mch_id, merchant.serial, merchant.key, data=data, nonce_str="N0NCE"
    )
    at = re.search(r'timestamp="(\d+)"', theirs)
    assert at is not None
    body = json.dumps(data).encode() if data else b""
    assert signing.authorization(merchant, method, target, int(at[1]), "N0NCE", body) == theirs


def test_our_payment_parameters_are_the_judges(tmp_path: Path) -> None:
    pay = judge("http://127.0.0.1:1", "public_key", tmp_path)
    ours = signing.payment_parameters(keys().merchant_there(), "wx2026", 1_795_000_000, "N0NCE")
    text = [keys().app_id, ours["timeStamp"], ours["nonceStr"], ours["package"]]
    assert (ours["package"], ours["signType"]) == ("prepay_id=wx2026", "RSA")
    assert ours["paySign"] == pay.sign(text)


def test_the_certificate_is_good_for_the_judge() -> None:
    known = keys().platform_certificate()
    assert known.is_good(datetime.now(UTC).timestamp())
