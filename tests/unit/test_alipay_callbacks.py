"""What Alipay tells us: forged, foreign, late and repeated notices; and which of them changes anything."""

from urllib.parse import parse_qsl, urlencode

import alipay as judge
import pytest

from integrations.alipay import callbacks
from integrations.alipay.callbacks import AHEAD_SECONDS_MAX, KEPT_SECONDS, LATE_SECONDS_MAX, notice_of
from integrations.alipay.translate import TradeState, time_text
from integrations.connector import Refused
from tests.support.alipay import (
    APP,
    APP_ID,
    FORGER,
    NOON,
    THEIRS,
    Hospital,
    merchant,
    pem,
    public_pem,
    signed_notice,
)


def refused(raw: bytes, now: float = NOON) -> str:
    with pytest.raises(Refused) as raised:
        notice_of(raw, merchant(), now)
    return raised.value.code


def test_an_honest_notice():
    notice = notice_of(signed_notice(), merchant(), NOON)
    assert (notice.out_trade_no, notice.amount_fen, notice.state) == ("X1", 3580, TradeState.PAID)
    assert notice.paid_at == notice.sent_at == NOON * 1000 and notice.was_paid
    assert notice.refunded_fen == 0 and notice.out_request_no is None


def test_the_judge_believes_what_we_believe():
    sdk = judge.AliPay(APP_ID, None, pem(APP), public_pem(THEIRS.public_key()))
    told = dict(parse_qsl(signed_notice().decode()))
    assert sdk.verify(dict(told), told.pop("sign")) is False  # `sign` is no part of it: the judge agrees
    told = dict(parse_qsl(signed_notice().decode()))
    sign = told.pop("sign")
    assert sdk.verify(dict(told), sign) is True
    assert sdk.verify(dict(told) | {"total_amount": "0.01"}, sign) is False


def test_a_notice_that_the_judge_signs():
    sdk = judge.AliPay(APP_ID, None, pem(THEIRS), public_pem(APP.public_key()))
    told = dict(parse_qsl(signed_notice().decode()))
    told.pop("sign")
    text = "&".join(f"{name}={value}" for name, value in sorted(told.items()) if name != "sign_type")
    notice = notice_of(urlencode(told | {"sign": sdk._sign(text)}).encode(), merchant(), NOON)
    assert notice.amount_fen == 3580


@pytest.mark.parametrize(
    "name", [name for name, _ in parse_qsl(signed_notice().decode()) if name != "sign_type"]
)
def test_one_changed_letter_is_a_forgery(name: str):
    told = dict(parse_qsl(signed_notice().decode()))
    told[name] = ("A" if told[name][:1] != "A" else "B") + told[name][1:]
    assert refused(urlencode(told).encode()) == "signature"
    del told[name]
    assert refused(urlencode(told).encode()) == ("unsigned" if name == "sign" else "signature")


def test_nothing_is_added_to_a_signed_notice():
    assert refused(signed_notice() + b"&refund_fee=1.00") == "signature"
    assert refused(signed_notice() + b"&refund_fee=") == "signature"
    assert refused(signed_notice() + b"&total_amount=0.01") == "malformed"
    assert refused(b"total_amount=0.01&" + signed_notice()) == "malformed"


def test_who_signs_matters():
    assert refused(signed_notice(FORGER)) == "signature"
    assert refused(signed_notice(APP)) == "signature"  # whose public key is easily put in by mistake
    assert refused(signed_notice().replace(b"RSA2", b"RSA")) == "unsigned"
    assert refused(signed_notice(sign_type=None)) == "unsigned"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"app_id": "2021000000000002"}, "another_app"),
        ({"app_id": None}, "another_app"),
        ({"seller_id": "2088000000000009"}, "another_seller"),
        ({"seller_id": None}, "another_seller"),
        ({"trans_currency": "USD"}, "currency"),
        ({"settle_currency": "HKD"}, "currency"),
        ({"total_amount": "35.801"}, "malformed"),
        ({"total_amount": "-35.80"}, "malformed"),
        ({"total_amount": "0.00"}, "malformed"),
        ({"total_amount": None}, "malformed"),
        ({"refund_fee": "35.81"}, "malformed"),
        ({"refund_fee": "-0.01"}, "malformed"),
        ({"trade_status": "PAID"}, "malformed"),
        ({"trade_status": None}, "malformed"),
        ({"notify_id": None}, "malformed"),
        ({"notify_id": "n" * 257}, "malformed"),
        ({"out_trade_no": None}, "malformed"),
        ({"out_trade_no": "X 1'; drop"}, "malformed"),
        ({"trade_no": None}, "malformed"),
        ({"gmt_payment": "yesterday"}, "malformed"),
        ({"notify_time": None}, "malformed"),
    ],
)
def test_signed_and_still_not_ours(changed: dict[str, str | None], code: str):
    assert refused(signed_notice(THEIRS, **changed)) == code


@pytest.mark.parametrize(
    "raw", [b"", b"x", b"a=%FF", b"\xff=1", b"a=1&" * 101 + b"b=1", b"a=" + b"1" * 70_000]
)
def test_what_is_no_form(raw: bytes):
    assert refused(raw) in ("malformed", "unsigned")


def test_clocks_and_old_notices():
    for late in (-AHEAD_SECONDS_MAX, 0, 86_400, LATE_SECONDS_MAX):
        assert notice_of(signed_notice(), merchant(), NOON + late).notice_id == "n1"
    for late in (-AHEAD_SECONDS_MAX - 1, LATE_SECONDS_MAX + 1):
        assert refused(signed_notice(), NOON + late) == "another_time"
    assert KEPT_SECONDS > LATE_SECONDS_MAX + AHEAD_SECONDS_MAX  # forgotten only when no longer taken


def test_a_refund_closes_a_trade_that_was_paid_all_the_same():
    raw = signed_notice(trade_status="TRADE_CLOSED", refund_fee="35.80", out_biz_no="R1")
    notice = notice_of(raw, merchant(), NOON)
    assert notice.was_paid and notice.refunded_fen == 3580 and notice.out_request_no == "R1"
    never = notice_of(signed_notice(trade_status="TRADE_CLOSED", gmt_payment=None), merchant(), NOON)
    assert not never.was_paid
    assert notice_of(signed_notice(trade_status="TRADE_FINISHED"), merchant(), NOON).was_paid


class Desk:
    """One gateway's route, with a clock."""

    def __init__(self) -> None:
        self.now = NOON
        self.hospital = Hospital({"X1": 3580})
        self.seen = callbacks.SeenInMemory(lambda: self.now)

    async def told(self, raw: bytes) -> callbacks.Answer:
        hospital = self.hospital
        return await callbacks.receive(
            raw, merchant(), self.seen, hospital.amount_of, hospital.deal, lambda: self.now
        )


async def test_a_notice_is_dealt_with_once():
    desk = Desk()
    first = await desk.told(signed_notice())
    assert (first.text, first.status, first.refused, first.is_repeated) == ("success", 200, None, False)
    desk.now += 25 * 3_600
    again = await desk.told(signed_notice(notify_time=time_text(int(desk.now * 1000))))
    assert (again.text, again.status, again.is_repeated) == ("success", 200, True)
    assert len(desk.hospital.dealt) == 1


async def test_what_was_not_dealt_with_comes_again():
    desk = Desk()
    desk.hospital.is_down = True
    with pytest.raises(RuntimeError):
        await desk.told(signed_notice())
    desk.hospital.is_down = False
    assert (await desk.told(signed_notice())).text == "success"
    assert len(desk.hospital.dealt) == 2


@pytest.mark.parametrize(
    ("raw", "status", "why"),
    [
        (signed_notice(FORGER), 400, "signature"),
        (signed_notice(app_id="2021000000000002"), 400, "another_app"),
        (signed_notice(total_amount="0.01"), 400, "amount"),
        (signed_notice(total_amount="35.81"), 400, "amount"),
        (signed_notice(out_trade_no="X2"), 404, "unknown_order"),
    ],
)
async def test_what_is_refused_changes_nothing(raw: bytes, status: int, why: str):
    desk = Desk()
    answer = await desk.told(raw)
    assert (answer.text, answer.status, answer.refused) == ("failure", status, why)
    assert desk.hospital.dealt == [] and not await desk.seen.has("n1")


async def test_memory_of_notices_ends():
    desk = Desk()
    await desk.seen.add("n1")
    desk.now += KEPT_SECONDS - 1
    await desk.seen.add("n2")
    assert await desk.seen.has("n1") and await desk.seen.has("n2")
    desk.now += 1
    await desk.seen.add("n3")
    assert not await desk.seen.has("n1") and await desk.seen.has("n2") and len(desk.seen._until) == 2
