"""RSA2 and Alipay's words, held against somebody else's SDK (python-alipay-sdk): keys, answers, amounts."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import alipay as judge
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from integrations.alipay import signing
from integrations.alipay.merchant import GATEWAY, Merchant, is_safe
from integrations.alipay.translate import (
    BalanceShort,
    Order,
    Refund,
    Refunded,
    failure_of,
    fen_of,
    moment_of,
    refund_done,
    time_text,
    yuan_of,
)
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from tests.support.alipay import APP, APP_ID, FORGER, SELLER_ID, THEIRS, client_of, pem, public_pem

QUERY = "alipay.trade.query"
NODE = "alipay_trade_query_response"


def sdk(private: rsa.RSAPrivateKey = APP, public: rsa.RSAPublicKey | None = None) -> Any:
    return judge.AliPay(
        APP_ID,
        None,
        pem(private),
        public_pem(public or THEIRS.public_key()),
    )


def told(node: object, key: rsa.RSAPrivateKey = THEIRS, name: str = NODE) -> bytes:
    text = json.dumps(node, ensure_ascii=False)
    return f'{{"{name}":{text},"sign":"{signing.sign(key, text)}"}}'.encode()


def test_our_signatures_are_the_judges():
    parameters = {"b": "挂号费", "a": '{"x":1}', "sign_type": "RSA2", "c": "1+1=2&d"}
    text = signing.of_request(parameters)
    mine = signing.sign(APP, text)
    assert sdk(APP, APP.public_key())._verify(text, mine)
    assert dict(parse_qsl(sdk().sign_data(dict(parameters))))["sign"] == mine
    assert not sdk(APP, FORGER.public_key())._verify(text, mine)


def test_the_judges_signatures_are_believed():
    text = "a=1&b=挂号费"
    assert signing.is_signed(APP.public_key(), text, sdk()._sign(text))
    assert not signing.is_signed(APP.public_key(), text + " ", sdk()._sign(text))
    assert not signing.is_signed(APP.public_key(), text, "not base64 !")
    assert not signing.is_signed(APP.public_key(), text, "")


def test_empty_parameters_are_signed_in_notices_alone():
    assert signing.of_request({"b": "1", "a": "", "sign": "x", "sign_type": "RSA2"}) == "b=1&sign_type=RSA2"
    assert signing.of_notice({"b": "1", "a": "", "sign": "x", "sign_type": "RSA2"}) == "a=&b=1"


def _der(key: rsa.RSAPrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_keys_come_as_pem_or_as_base64_alone(form: serialization.PrivateFormat):
    bare = base64.b64encode(_der(APP, form)).decode()
    assert signing.private_key(bare).private_numbers() == APP.private_numbers()
    assert signing.private_key(pem(APP)).private_numbers() == APP.private_numbers()
    public = public_pem(THEIRS.public_key())
    assert signing.public_key(public).public_numbers() == THEIRS.public_key().public_numbers()


def test_what_is_no_key_is_refused_without_being_quoted():
    small = rsa.generate_private_key(65537, 1024)
    other = ec.generate_private_key(ec.SECP256R1())
    for text in ("", "secret-words", pem(small), pem(other), public_pem(APP.public_key())):
        with pytest.raises(ValueError, match="private key") as raised:
            signing.private_key(text)
        assert "secret" not in str(raised.value) and raised.value.__cause__ is None
    for text in ("", public_pem(small.public_key()), public_pem(other.public_key()), pem(APP)):
        with pytest.raises(ValueError, match="public key"):
            signing.public_key(text)


def test_an_answer_is_believed_by_its_own_text():
    # Spaces, braces in strings, an escaped quote: the bytes are what is signed, not what they mean.
    text = '{ "code" : "10000", "subject":"a}b\\"{, \\u6302", "n":{"x":[1, {}]} }'
    raw = f'{{"{NODE}":{text},"sign":"{signing.sign(THEIRS, text)}"}}'
    assert signing.believed(raw.encode(), QUERY, THEIRS.public_key())["subject"] == 'a}b"{, 挂'
    other_way = f' {{ "sign" : "{signing.sign(THEIRS, text)}" , "{NODE}" : {text} }}\n'
    assert signing.believed(other_way.encode(), QUERY, THEIRS.public_key())["code"] == "10000"
    with pytest.raises(signing.NotBelieved):
        signing.believed(raw.replace(", {}", ",{}").encode(), QUERY, THEIRS.public_key())


def test_slashes_quoted_after_signing_are_looked_past():
    text = '{"code":"10000","url":"http://a/b"}'
    raw = f'{{"{NODE}":{text.replace("/", chr(92) + "/")},"sign":"{signing.sign(THEIRS, text)}"}}'
    assert signing.believed(raw.encode(), QUERY, THEIRS.public_key())["url"] == "http://a/b"


NODE_10000 = {"code": "10000"}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"[1]", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b'{"a":' * 12_000, "no JSON"),
        (b'{"sign":"x"}', "something else"),
        (told(NODE_10000, name="alipay_trade_close_response"), "something else"),
        (f'{{"{NODE}":{{"code":"10000"}}}}'.encode(), "unsigned: 10000"),
        (f'{{"{NODE}":{{"code":"10000"}},"sign":null}}'.encode(), "unsigned"),
        (f'{{"{NODE}":{{"code":"10000"}},"sign":"QUJD"}}'.encode(), "another"),
        (told(NODE_10000, FORGER), "another: 10000"),
        (told(NODE_10000, APP), "another"),
        (told("10000"), "another"),
        (told(NODE_10000) + b"{}", "no JSON"),
        (told(NODE_10000)[:-1] + b',"sign":"x"}', "no JSON"),
        (told(NODE_10000)[:-1] + f',"{NODE}":{{"code":"9"}}}}'.encode(), "no JSON"),
        (told({"code": "a b 林医生"}, FORGER), r"another: \? None"),
        (told(NODE_10000).replace(b'"10000"}', b'"10000"}x'), "no JSON"),
    ],
)
def test_what_is_not_signed_is_not_believed(raw: bytes, why: str):
    with pytest.raises(signing.NotBelieved, match=why):
        signing.believed(raw, QUERY, THEIRS.public_key())


def test_an_error_that_is_signed_is_believed():
    node = {"code": "40002", "sub_code": "isv.invalid-app-id"}
    assert signing.believed(told(node, name="error_response"), QUERY, THEIRS.public_key()) == node


@pytest.mark.parametrize(
    ("text", "fen"), [("20.00", 2000), ("0.01", 1), ("-0.5", -50), ("7", 700), ("100000000.00", 10**10)]
)
def test_amounts_are_fen(text: str, fen: int):
    assert fen_of(text) == fen
    assert fen_of(yuan_of(fen)) == fen


@pytest.mark.parametrize(
    "text", ["", "1.234", "1e3", "¥1", " 1", "1,000.00", "٣", "+1", ".5", "1.", 1, 1.0, None]
)
def test_what_is_no_amount(text: object):
    with pytest.raises(ValueError):
        fen_of(text)


def test_times_are_beijings():
    assert moment_of("2026-10-03 08:00:30") == moment_of("2026-10-03 08:00:30.123") == 1_790_985_630_000
    assert time_text(1_790_985_630_999) == "2026-10-03 08:00:30"
    for text in ("", "2026-10-03", "2026-13-03 08:00:30", None, 7):
        with pytest.raises(ValueError):
            moment_of(text)


@pytest.mark.parametrize(
    ("number", "amount", "subject"),
    [("", 1, "x"), ("a b", 1, "x"), ("挂", 1, "x"), ("x" * 65, 1, "x"), ("x", 0, "x"), ("x", -1, "x")]
    + [("x", 10**10 + 1, "x"), ("x", 1, ""), ("x", 1, "x" * 129), ("x", 1, 'a"b'), ("x", 1, "a,b")],
)
def test_orders_that_they_would_not_take(number: str, amount: int, subject: str):
    with pytest.raises(ValueError):
        Order(number, amount, subject, 0)


def test_refunds_that_they_would_not_take():
    for trade, request, amount in (
        ("", "r", 1),
        ("t", "", 1),
        ("t", "r r", 1),
        ("t", "r", 0),
        ("t", "r", -1),
    ):
        with pytest.raises(ValueError):
            Refund(trade, request, amount)


MOVES, READS = OutcomeUnknown, TryAgain
NO_RIGHT = "isv.insufficient-isv-permissions"


@pytest.mark.parametrize(
    ("code", "sub_code", "changing", "reading"),
    [
        ("20000", "isp.unknow-error", MOVES, READS),
        ("20000", None, MOVES, READS),
        ("20000", "aop.unknow-error", MOVES, READS),
        ("40004", "ACQ.SYSTEM_ERROR", MOVES, READS),
        ("40004", "AQC.SYSTEM_ERROR", MOVES, READS),
        ("40004", None, MOVES, READS),
        ("40004", "林 医生", MOVES, READS),
        ("10003", None, MOVES, READS),
        ("12345", "isv.what", MOVES, READS),
        (None, None, MOVES, READS),
        (10000, None, MOVES, READS),
        ("40005", "isv.app-call-limited", TryAgain, TryAgain),
        ("40005", None, TryAgain, TryAgain),
        ("40002", "isv.app-call-limited", TryAgain, TryAgain),
        ("40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH", BalanceShort, BalanceShort),
        ("40004", "ACQ.TRADE_NOT_EXIST", "not_exist", "not_exist"),
        ("40004", "ACQ.TRADE_HAS_SUCCESS", "paid", "paid"),
        ("40004", "ACQ.TRADE_HAS_CLOSE", "closed", "closed"),
        ("40004", "ACQ.TRADE_STATUS_ERROR", "wrong_state", "wrong_state"),
        ("40004", "ACQ.DISCORDANT_REPEAT_REQUEST", "another_request", "another_request"),
        ("40004", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "amount", "amount"),
        ("40004", "ACQ.SOMETHING_NEW", "ACQ.SOMETHING_NEW", "ACQ.SOMETHING_NEW"),
        ("40004", "isp.bill_not_exist", "no_bill", "no_bill"),
        ("40002", "isv.invalid-signature", "our_signature", "our_signature"),
        ("40001", None, "40001", "40001"),
        ("40006", "isv.insufficient-isv-permissions", NO_RIGHT, NO_RIGHT),
    ],
)
def test_which_failure_is_which(code: object, sub_code: object, changing: object, reading: object):
    node = {"code": code, "sub_code": sub_code, "sub_msg": "张三 13800000001"}
    for changes, expected in ((True, changing), (False, reading)):
        failure = failure_of(node, changes)
        if isinstance(expected, str):
            assert isinstance(failure, Refused) and failure.code == expected
        else:
            assert type(failure) is expected
        assert "张三" not in str(failure) and "林" not in str(failure)
    assert failure_of({"code": "10000"}, True) is None


def test_a_refund_is_done_when_they_say_so_in_as_many_words():
    done = {"out_trade_no": "X1", "out_request_no": "R1", "refund_amount": "5.80"}
    assert refund_done(done | {"refund_status": "REFUND_SUCCESS"}) == Refunded("X1", "R1", 580)
    assert refund_done(done) is None
    for state in ("REFUND_PROCESSING", "REFUND_FAIL", ""):
        with pytest.raises(ValueError):
            refund_done(done | {"refund_status": state})
    with pytest.raises(ValueError):
        refund_done({"refund_status": "REFUND_SUCCESS"})


def test_a_gateway_is_never_spoken_to_in_the_clear():
    assert is_safe(GATEWAY) and is_safe("http://127.0.0.1:1/gateway.do") and is_safe("http://[::1]/")
    for address in (
        "http://openapi.alipay.com/gateway.do",
        "ftp://127.0.0.1",
        "http://127.0.0.1.evil.cn",
        "",
    ):
        with pytest.raises(ValueError, match="https"):
            Merchant(APP_ID, SELLER_ID, APP, THEIRS.public_key(), "https://h/n", address)


def test_keys_do_not_show():
    shown = repr(Merchant(APP_ID, SELLER_ID, APP, THEIRS.public_key(), "https://h/n"))
    assert "key" not in shown.lower()


async def test_the_address_of_a_page_is_signed_as_the_judge_signs_it():
    order = Order("X1", 3580, "挂号费 + 诊查", moment_of("2026-10-03 08:15:00"))
    async with aiohttp.ClientSession() as session:
        client = client_of(session, GATEWAY, lambda: 1_790_985_630.0)
        address = client.pay_page(order, "https://h/back?a=1&b=2", "https://h/quit")
    given = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    sign = given.pop("sign")
    assert dict(parse_qsl(sdk().sign_data(dict(given))))["sign"] == sign
    assert given["timestamp"] == "2026-10-03 08:00:30" and given["return_url"] == "https://h/back?a=1&b=2"
    content = json.loads(given["biz_content"])
    assert content["total_amount"] == "35.80" and content["time_expire"] == "2026-10-03 08:15:00"
