"""Both connectors behind one face, over their sandboxes' wires; and what is said of wrong settings."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from engine.domain.payment import Found
from engine.settings import Settings
from integrations.alipay.sandbox import Sandbox as Alipay
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.wechat_pay.sandbox import Fault
from integrations.wechat_pay.sandbox import Sandbox as WeChatPay
from tests.support import alipay as alipay_keys
from tests.support.till import merchants_there, wechat_keys
from web.bills.circuit import FAILURES_MIN, Circuit
from web.bills.merchants import MerchantFailed, Payments, merchants_of
from web.bills.providers import Asked, GiveBack, GivenBack, NotGivenBack, Paid, Provider, wired
from web.payments_beside import own_address

ATTEMPT, REFUND = bytes(range(16)), bytes(range(16, 32))
FEE = 5_000


class There:
    """Both sandboxes, and our side of them."""

    def __init__(
        self, wechat: WeChatPay, alipay: Alipay, found: dict[str, Provider], payments: Payments
    ) -> None:
        self.payments = payments
        self.wechat = wechat
        self.alipay = alipay
        self.found = found

    def pay(self, provider: str) -> None:
        if provider == "wechat_pay":
            self.wechat.pay(ATTEMPT.hex())
        else:
            assert self.alipay.pay(ATTEMPT.hex())


@pytest.fixture
async def there() -> AsyncIterator[There]:
    wechat = WeChatPay(wechat_keys(), time.time)
    alipay = Alipay(
        alipay_keys.APP_ID, alipay_keys.SELLER_ID, alipay_keys.THEIRS, alipay_keys.APP.public_key(), time.time
    )
    async with (
        TestServer(wechat.app()) as one,
        TestServer(alipay.app()) as other,
        ClientSession() as session,
    ):
        payments = merchants_there("http://127.0.0.1:1", one.port or 0, other.port or 0)
        providers = wired(session, payments).providers
        yield There(wechat, alipay, {provider.name: provider for provider in providers}, payments)


def asked(openid: str | None = "o1") -> Asked:
    return Asked(
        ATTEMPT, FEE, "挂号费", openid, datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=15)
    )


async def opened(there: There, provider: str) -> None:
    """As far as the payer gets before he pays."""
    order = asked()
    prepay = await there.found[provider].prepay(order)
    page = there.found[provider].client(order, prepay).get("pay_page")
    if page is not None:
        async with ClientSession() as browser, browser.get(page, allow_redirects=False) as answer:
            assert answer.status == 302


@pytest.mark.parametrize("name", ["wechat_pay", "alipay"])
async def test_a_payment_s_life(there: There, name: str) -> None:
    provider = there.found[name]
    assert await provider.query(ATTEMPT) is Found.NONE
    assert await provider.close(ATTEMPT) is Found.NONE
    assert await provider.query_refund(ATTEMPT, REFUND) is Found.NONE
    await opened(there, name)
    assert await provider.query(ATTEMPT) is Found.OPEN
    there.pay(name)
    paid = await provider.query(ATTEMPT)
    assert isinstance(paid, Paid) and (paid.fen, paid.currency) == (FEE, "CNY") and paid.paid_at
    with pytest.raises(Refused):
        await provider.close(ATTEMPT)
    back = GiveBack(REFUND, ATTEMPT, 1_000, FEE, "退款")
    for _ in range(2):  # the same refund is done once
        assert isinstance(await provider.refund(back), GivenBack | Found)
    told = await provider.query_refund(ATTEMPT, REFUND)
    assert isinstance(told, GivenBack) and (told.fen, told.currency) == (1_000, "CNY")
    assert await provider.query_refund(ATTEMPT, REFUND) == told  # the same reference each time
    with pytest.raises(Refused):
        await provider.refund(replace(back, refund_id=ATTEMPT, fen=FEE))  # above what is left


@pytest.mark.parametrize("name", ["wechat_pay", "alipay"])
async def test_an_order_is_closed(there: There, name: str) -> None:
    await opened(there, name)
    assert await there.found[name].close(ATTEMPT) is Found.CLOSED
    assert await there.found[name].query(ATTEMPT) is Found.CLOSED


async def test_without_a_public_key_their_certificates_are_fetched(there: There) -> None:
    async with ClientSession() as session:
        known = there.payments.wechat_pay
        assert known is not None
        ours = replace(known, public_key_id="", public_key_pem=b"")
        one = wired(session, replace(there.payments, wechat_pay=ours))
        provider = one.providers.get("wechat_pay")
        assert provider is not None
        with pytest.raises(OutcomeUnknown):  # nobody's word is believed yet
            await provider.prepay(asked())
        renewing = asyncio.create_task(one.renew())
        assert one.wechat_keys is not None
        while one.wechat_keys.last_end is None:
            await asyncio.sleep(0.01)
        assert await provider.query(ATTEMPT) is Found.OPEN
        assert await provider.prepay(asked())
        renewing.cancel()


async def test_who_is_not_of_wechat_does_not_pay_with_it(there: There) -> None:
    with pytest.raises(Refused):
        await there.found["wechat_pay"].prepay(asked(None))
    assert not there.wechat.orders


@pytest.mark.parametrize("end", ["ABNORMAL", "CLOSED"])
async def test_a_refund_that_does_not_arrive(there: There, end: str) -> None:
    await opened(there, "wechat_pay")
    there.pay("wechat_pay")
    there.wechat.refund_ends = end
    provider = there.found["wechat_pay"]
    await provider.refund(GiveBack(REFUND, ATTEMPT, FEE, FEE, "退款"))
    assert await provider.query_refund(ATTEMPT, REFUND) == NotGivenBack(end)


async def test_what_moves_may_have_been_done(there: There) -> None:
    there.wechat.fail("prepay", Fault.APPLIED_THEN_CUT)
    with pytest.raises(OutcomeUnknown):
        await there.found["wechat_pay"].prepay(asked())
    assert await there.found["wechat_pay"].query(ATTEMPT) is Found.OPEN


async def test_who_fails_again_and_again_is_left_alone() -> None:
    now = [0.0]
    circuit = Circuit("x", lambda: now[0])
    tries = 0
    is_well = False

    async def ask() -> int:
        nonlocal tries
        tries += 1
        if is_well:
            return 7
        raise OutcomeUnknown("x")

    for _ in range(FAILURES_MIN):
        with pytest.raises(OutcomeUnknown):
            await circuit.through(ask)
    with pytest.raises(TryAgain) as left:
        await circuit.through(ask)
    assert tries == FAILURES_MIN and left.value.after == 1.0
    now[0] += 1.0
    with pytest.raises(OutcomeUnknown):  # one asks again
        await circuit.through(ask)
    with pytest.raises(TryAgain) as left:
        await circuit.through(ask)
    assert (tries, left.value.after) == (FAILURES_MIN + 1, 2.0)
    is_well = True
    now[0] += 2.0
    assert [await circuit.through(ask) for _ in range(3)] == [7, 7, 7]


async def test_a_refusal_is_an_answer() -> None:
    circuit = Circuit("x", lambda: 0.0)

    async def ask() -> int:
        raise Refused("no")

    for _ in range(3 * FAILURES_MIN):
        with pytest.raises(Refused):
            await circuit.through(ask)


# Settings.


def settings(folder: Path, **changed: object) -> Settings:
    """Both providers set up."""
    keys = wechat_keys()
    files = {
        "wechat.pem": keys.merchant_pem(),
        "platform.pem": keys.public_pem(),
        "alipay.pem": alipay_keys.pem(alipay_keys.APP).encode(),
        "theirs.pem": alipay_keys.public_pem(alipay_keys.THEIRS.public_key()).encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    whole: dict[str, object] = {
        "public_address": "https://hospital.example",
        "wechat_app_id": keys.app_id,
        "wechat_pay_mch_id": keys.mch_id,
        "wechat_pay_serial": keys.merchant_serial,
        "wechat_pay_key_file": folder / "wechat.pem",
        "wechat_pay_api_v3_key": keys.api_v3_key.decode(),
        "wechat_pay_public_key_id": keys.public_id,
        "wechat_pay_public_key_file": folder / "platform.pem",
        "alipay_app_id": alipay_keys.APP_ID,
        "alipay_seller_id": alipay_keys.SELLER_ID,
        "alipay_key_file": folder / "alipay.pem",
        "alipay_public_key_file": folder / "theirs.pem",
    }
    return Settings(**{**whole, **changed})  # type: ignore[arg-type]


def test_a_hospital_s_merchants(tmp_path: Path) -> None:
    found = merchants_of(settings(tmp_path))
    assert found.wechat_pay is not None and found.alipay is not None
    assert found.notify_url("alipay") == "https://hospital.example/api/v1/callbacks/alipay"
    assert "PRIVATE" not in repr(found) and wechat_keys().api_v3_key.decode() not in repr(found)
    assert merchants_of(Settings()).wechat_pay is None


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("wechat_pay_serial", "WeChat Pay is set up by halves: XINGLIN_WECHAT_PAY_SERIAL"),
        ("wechat_pay_mch_id", "XINGLIN_WECHAT_PAY_MCH_ID"),
        ("wechat_app_id", "XINGLIN_WECHAT_APP_ID"),
        ("wechat_pay_api_v3_key", "XINGLIN_WECHAT_PAY_API_V3_KEY"),
        ("wechat_pay_public_key_id", "together or not at all"),
        ("alipay_seller_id", "Alipay is set up by halves: XINGLIN_ALIPAY_SELLER_ID"),
        ("public_address", "XINGLIN_PUBLIC_ADDRESS"),
    ],
)
def test_half_a_merchant_is_said_at_the_start(tmp_path: Path, missing: str, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        settings(tmp_path, **{missing: ""})


@pytest.mark.parametrize("name", ["public_address", "wechat_pay_address", "alipay_address"])
def test_money_is_not_spoken_of_in_the_clear(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="https:// alone"):
        settings(tmp_path, **{name: "http://hospital.example"})


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    given = settings(tmp_path)
    (tmp_path / "wechat.pem").chmod(0o644)
    with pytest.raises(MerchantFailed, match="chmod 600"):
        merchants_of(given)
    (tmp_path / "wechat.pem").unlink()
    with pytest.raises(MerchantFailed, match="wechat_pay_key_file"):
        merchants_of(given)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    given = settings(tmp_path)
    (tmp_path / "alipay.pem").write_text("nothing of a key")
    with pytest.raises(MerchantFailed, match="private key is none"):
        merchants_of(given)
    with pytest.raises(MerchantFailed, match="32 bytes"):
        merchants_of(settings(tmp_path, wechat_pay_api_v3_key="short"))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_where_the_sandboxes_call_back(host: str, address: str) -> None:
    assert own_address(Settings(host=host)) == address
