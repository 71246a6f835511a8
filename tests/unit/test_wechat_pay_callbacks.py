"""Callbacks of WeChat Pay: what is refused, and that nothing refused leaves a trace."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.wechat_pay import signing
from integrations.wechat_pay.callbacks import (
    BODY_BYTES_MAX,
    KEPT_SECONDS,
    Callbacks,
    MemoryReplays,
    Notice,
    answer_of,
)
from integrations.wechat_pay.sandbox_keys import Keys, certificate
from integrations.wechat_pay.signing import PlatformKeys
from integrations.wechat_pay.translate import Refund, RefundState, Transaction
from tests.unit.test_wechat_pay import START, Clock, keys

Message = tuple[CIMultiDict[str], bytes]

PAID: dict[str, Any] = {
    "appid": keys().app_id,
    "mchid": keys().mch_id,
    "out_trade_no": "R20261123000001",
    "transaction_id": "4200000000000000000000000001",
    "trade_state": "SUCCESS",
    "trade_type": "JSAPI",
    "success_time": "2026-11-23T16:00:00+08:00",
    "payer": {"openid": "oHkLxtx0vUqe"},
    "amount": {"total": 5_000, "payer_total": 5_000, "currency": "CNY", "payer_currency": "CNY"},
}
GIVEN_BACK: dict[str, Any] = {
    "mchid": keys().mch_id,
    "out_trade_no": "R20261123000001",
    "transaction_id": "4200000000000000000000000001",
    "out_refund_no": "R20261123000001-1",
    "refund_id": "5030000000000000000000000001",
    "refund_status": "SUCCESS",
    "success_time": "2026-11-23T16:00:00+08:00",
    "user_received_account": "支付用户零钱",
    "amount": {"total": 5_000, "refund": 2_000, "payer_total": 5_000, "payer_refund": 2_000},
}


def envelope(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    kind = changes.pop("kind", "transaction")
    key = changes.pop("api_v3_key", keys().api_v3_key)
    resource = signing.encrypted(key, "0123456789ab", kind, orjson.dumps(content))
    return {
        "id": "n1",
        "create_time": "2026-11-23T16:00:00+08:00",
        "resource_type": "encrypt-resource",
        "event_type": "TRANSACTION.SUCCESS",
        "resource": {**resource, "original_type": kind},
        **changes,
    }


def message(
    said: object, at: float = START, serial: str | None = None, key: Any = None, nonce: str = "abc"
) -> Message:
    """As they would send it; `said` may be bytes."""
    body = said if isinstance(said, bytes) else orjson.dumps(said)
    signature = signing.signed(key or keys().public, signing.text_of_answer(str(int(at)), nonce, body))
    headers = {
        signing.TIMESTAMP: str(int(at)),
        signing.NONCE: nonce,
        signing.SERIAL: serial or keys().public_id,
        signing.SIGNATURE: signature,
        signing.SIGNATURE_TYPE: signing.SCHEME,
    }
    return CIMultiDict(headers), body


class Desk:
    def __init__(self, known: PlatformKeys | None = None, there: Keys | None = None) -> None:
        self.clock = Clock()
        self.replays = MemoryReplays(self.clock, 3)
        trusted = known or PlatformKeys([keys().platform_public_key(), keys().platform_certificate()])
        self.callbacks = Callbacks((there or keys()).merchant_there(), trusted, self.replays, self.clock)

    async def read(self, sent: Message) -> Notice:
        return await self.callbacks.read(*sent)

    async def code(self, sent: Message) -> str:
        with pytest.raises(Refused) as caught:
            await self.read(sent)
        assert "oHkLxtx0vUqe" not in repr(caught.value)
        return caught.value.code


async def test_a_payment_and_a_refund() -> None:
    desk = Desk()
    paid = (await desk.read(message(envelope(PAID)))).about
    assert isinstance(paid, Transaction)
    assert (paid.out_trade_no, paid.total_fen, paid.currency) == ("R20261123000001", 5_000, "CNY")
    assert paid.paid_at == datetime(2026, 11, 23, 8, tzinfo=UTC)
    given = await desk.read(
        message(envelope(GIVEN_BACK, kind="refund", event_type="REFUND.SUCCESS", id="n2"))
    )
    assert given.id == "n2"
    assert isinstance(given.about, Refund)
    assert (given.about.refund_fen, given.about.state) == (2_000, RefundState.SUCCESS)


async def test_both_kinds_of_key() -> None:
    desk = Desk()
    serial = keys().platform_certificate().serial
    for name in (serial, serial.lower(), f"0{serial}"):
        await desk.read(message(envelope(PAID), serial=name, key=keys().platform, nonce=name))
    # Each key by its own name only.
    assert await desk.code(message(envelope(PAID), serial=serial)) == "wrong_signature"
    assert await desk.code(message(envelope(PAID), key=keys().platform)) == "wrong_signature"
    assert await desk.code(message(envelope(PAID), serial="1234ABCD")) == "unknown_key"
    assert await desk.code(message(envelope(PAID), serial="PUB_KEY_ID_1")) == "unknown_key"


@pytest.mark.parametrize("name", [signing.TIMESTAMP, signing.NONCE, signing.SERIAL, signing.SIGNATURE])
async def test_no_header_may_be_missing_or_changed(name: str) -> None:
    headers, body = message(envelope(PAID))
    for value in (None, ""):
        less = headers.copy()
        del less[name]
        if value is not None:
            less[name] = value
        assert await Desk().code((less, body)) == "headers_missing"
    changed = headers.copy()
    changed[name] = str(int(START) + 1) if name == signing.TIMESTAMP else f"{headers[name]}x"
    assert await Desk().code((changed, body)) in ("wrong_signature", "unknown_key")


async def test_the_raw_body_is_what_is_signed() -> None:
    headers, body = message(envelope(PAID))
    written_anew = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    for other in (body + b"\n", b" " + body, written_anew, b""):
        assert await Desk().code((headers, other)) == "wrong_signature"


@pytest.mark.parametrize(
    "change",
    [lambda s: f"WECHATPAY/SIGNTEST/{s}", lambda s: "", lambda s: s[:-4], lambda s: f"{s}\n", str.lower],
)
async def test_signatures_that_are_none(change: Callable[[str], str]) -> None:
    headers, body = message(envelope(PAID))
    headers[signing.SIGNATURE] = change(headers[signing.SIGNATURE])
    assert await Desk().code((headers, body)) in ("wrong_signature", "headers_missing")
    headers, body = message(envelope(PAID))
    headers[signing.SIGNATURE_TYPE] = "WECHATPAY2-SM2-WITH-SM3"
    assert await Desk().code((headers, body)) == "wrong_signature"


async def test_five_minutes() -> None:
    for apart in (-300, 0, 300):
        await Desk().read(message(envelope(PAID), at=START + apart))
    for apart in (-301, 301, -86_400):
        assert await Desk().code(message(envelope(PAID), at=START + apart)) == "wrong_time"
    for at in ("-1", "1e9", "１７６３８８４８００", "", "9" * 13):
        headers, body = message(envelope(PAID))
        headers[signing.TIMESTAMP] = at
        assert await Desk().code((headers, body)) in ("wrong_time", "headers_missing")


async def test_a_certificate_outside_its_time() -> None:
    now = datetime.fromtimestamp(START, UTC)
    day, hour = timedelta(days=1), timedelta(hours=1)
    for begins, ends in ((now - day, now - hour), (now + hour, now + day)):
        known = signing.of_certificate(certificate(keys().platform, begins, ends))
        desk = Desk(PlatformKeys([known]))
        sent = message(envelope(PAID), serial=known.serial, key=keys().platform)
        assert await desk.code(sent) == "key_expired"


async def test_another_merchant_or_app() -> None:
    assert await Desk().code(message(envelope({**PAID, "mchid": "1900000110"}))) == "another_merchant"
    assert await Desk().code(message(envelope({**PAID, "appid": "wx0"}))) == "another_app"
    back = envelope({**GIVEN_BACK, "mchid": "1900000110"}, kind="refund", event_type="REFUND.SUCCESS")
    assert await Desk().code(message(back)) == "another_merchant"
    # Encrypted with another merchant's APIv3 key: we cannot even read whose it is.
    assert await Desk().code(message(envelope(PAID, api_v3_key=b"0" * 32))) == "not_decrypted"
    other = replace(keys(), api_v3_key=b"0" * 32)
    assert await Desk(there=other).code(message(envelope(PAID))) == "not_decrypted"


def resource(**changes: Any) -> dict[str, Any]:
    whole = envelope(PAID)
    return {**whole, "resource": {**whole["resource"], **changes}}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"not json", "bad_body"),
        (b"[]", "bad_body"),
        (b"{}", "bad_body"),
        (envelope(PAID, resource_type="plain"), "bad_body"),
        (envelope(PAID, resource="x"), "bad_body"),
        (envelope(PAID, id=None), "bad_body"),
        (envelope(PAID, event_type="TRANSACTION.PAYSCORE"), "unknown_event"),
        (envelope(PAID, event_type=None), "unknown_event"),
        (envelope(PAID, event_type="REFUND.SUCCESS"), "unknown_event"),
        (envelope(PAID, kind="refund"), "unknown_event"),
        (resource(algorithm="none"), "not_decrypted"),
        (resource(ciphertext="!"), "not_decrypted"),
        (resource(nonce="short"), "not_decrypted"),
        (resource(associated_data="refund"), "not_decrypted"),
        (envelope({**PAID, "trade_state": "NOTPAY"}), "bad_body"),
        (envelope({**PAID, "trade_state": "PAID"}), "bad_body"),
        (envelope({**PAID, "amount": {"total": "5000", "currency": "CNY"}}), "bad_body"),
        (envelope({**PAID, "amount": {"total": 50.0, "currency": "CNY"}}), "bad_body"),
        (envelope({**PAID, "amount": {"total": -5_000, "currency": "CNY"}}), "bad_body"),
        (envelope({**PAID, "amount": {"total": True, "currency": "CNY"}}), "bad_body"),
        (envelope({**PAID, "amount": None}), "bad_body"),
        (envelope({**PAID, "transaction_id": ""}), "bad_body"),
        (envelope({**PAID, "success_time": "2026-11-23T16:00:00"}), "bad_body"),
        (envelope({**PAID, "success_time": "yesterday"}), "bad_body"),
        (envelope(GIVEN_BACK, kind="refund", event_type="REFUND.CLOSED"), "bad_body"),
        (envelope({**GIVEN_BACK, "refund_id": 1}, kind="refund", event_type="REFUND.SUCCESS"), "bad_body"),
    ],
)
async def test_what_does_not_hold_together(said: object, code: str) -> None:
    assert await Desk().code(message(said)) == code


async def test_too_large_is_not_even_looked_at() -> None:
    assert await Desk().code((CIMultiDict(), b" " * (BODY_BYTES_MAX + 1))) == "too_large"


async def test_another_currency_is_told_as_it_is() -> None:
    found = await Desk().read(message(envelope({**PAID, "amount": {"total": 5_000, "currency": "USD"}})))
    assert isinstance(found.about, Transaction) and found.about.currency == "USD"


async def test_played_back() -> None:
    desk = Desk()
    sent = message(envelope(PAID))
    notice = await desk.read(sent)
    assert await desk.code(sent) == "replayed"
    # Neither other names of the same key, nor another spelling of the headers, make it another message.
    lower = CIMultiDict({name.lower(): value for name, value in sent[0].items()})
    assert await desk.code((lower, sent[1])) == "replayed"
    # A repetition of theirs is another one, with the same id.
    again = await desk.read(message(envelope(PAID), nonce="def"))
    assert (again.id, again.key == notice.key) == (notice.id, False)
    # Whoever could not book it lets it in again.
    await desk.callbacks.forget(notice)
    assert await desk.read(sent) == notice


async def test_played_back_as_long_as_its_time_is_good() -> None:
    """From five minutes ahead of us: it is kept until it cannot be good any more."""
    desk = Desk()
    sent = message(envelope(PAID), at=START + 300)
    await desk.read(sent)
    desk.clock.now += KEPT_SECONDS - 1
    assert await desk.code(sent) == "replayed"
    desk.clock.now += 2
    assert await desk.code(sent) == "wrong_time"


async def test_what_is_refused_is_not_kept() -> None:
    desk = Desk()
    headers, body = message(envelope(PAID))
    for _ in range(5):  # more than the store holds
        assert await desk.code((headers, body + b" ")) == "wrong_signature"
        assert await desk.code(message(envelope(PAID, event_type="x"))) == "unknown_event"
    await desk.read((headers, body))


async def test_a_full_store_says_so_and_empties_itself() -> None:
    desk = Desk()
    for nonce in ("a", "b", "c"):
        await desk.read(message(envelope(PAID), nonce=nonce))
    with pytest.raises(TryAgain):
        await desk.read(message(envelope(PAID), nonce="d"))
    desk.clock.now += KEPT_SECONDS
    await desk.read(message(envelope(PAID), at=desk.clock.now, nonce="d"))


def test_what_they_are_answered() -> None:
    assert answer_of(None) == (204, b"")
    assert [
        answer_of(Refused(code))[0] for code in ("wrong_signature", "wrong_time", "bad_body", "replayed")
    ] == [
        401,
        401,
        400,
        400,
    ]
    for failed in (TryAgain("x"), OutcomeUnknown("x")):
        assert answer_of(failed)[0] == 503
    stranger: tuple[ConnectorFailed, ...] = (Refused("another_merchant"), TryAgain("x"))
    for each in stranger:
        assert orjson.loads(answer_of(each)[1])["code"] == "FAIL"
        assert b"merchant" not in answer_of(each)[1]
