"""WeChat Pay's bill of a day: every line is read, every sum is right, or nothing is believed."""

from datetime import UTC, datetime

import pytest

from integrations.connector import Refused
from integrations.wechat_pay.bill import HEADER, Kind, parsed

PAYMENT = (
    "`2026-11-23 16:00:00,`wxd678efh567hg6787,`1900000109,`0,`,`4200000925202101284997714292,"
    "`R20261123000001,`oHkLxtx0vUqe,`JSAPI,`SUCCESS,`OTHERS,`CNY,`49.50,`0.50,`0,`0,`0.00,`0.00,`,`,"
    "`挂号费,专家,`,`0.29700,`0.60%,`50.00,`0.00,`"
)
REFUND = (
    "`2026-11-23 23:59:59,`wxd678efh567hg6787,`1900000109,`0,`,`4200000925202101284997714292,"
    "`R20261123000001,`oHkLxtx0vUqe,`JSAPI,`REFUND,`OTHERS,`CNY,`0.00,`0.00,`50300000001,`R20261123000001-1,`19.80,"
    "`0.20,`ORIGINAL,`PROCESSING,`挂号费,专家,`,`-0.11880,`0.60%,`0.00,`20.00,`"
)
SUMMARY = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
SUMS = "`2,`49.50,`19.80,`0.20,`0.17820,`50.00,`20.00"


def bill(*lines: str, end: str = "\r\n") -> bytes:
    return "".join(f"{line}{end}" for line in lines).encode()


WHOLE = bill(",".join(HEADER), PAYMENT, REFUND, SUMMARY, SUMS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_bill(encoding: str, end: str) -> None:
    content = WHOLE.decode().replace("\r\n", end).encode(encoding)
    found = parsed(content)
    payment, refund = found.rows
    assert (payment.kind, payment.total_fen, payment.settled_fen) == (Kind.PAYMENT, 5_000, 4_950)
    assert (payment.refund_id, payment.out_refund_no, payment.refund_fen) == (None, None, 0)
    assert payment.at == datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert payment.fee_millifen == 29_700
    assert (refund.kind, refund.total_fen, refund.refund_fen) == (Kind.REFUND, 0, 2_000)
    assert (refund.refund_id, refund.out_refund_no) == ("50300000001", "R20261123000001-1")
    assert (refund.refund_settled_fen, refund.refund_state) == (1_980, "PROCESSING")
    assert (found.total_fen, found.refund_fen, found.fee_millifen) == (5_000, 2_000, 17_820)
    assert "oHkLxtx0vUqe" not in repr(found)


def test_columns_may_be_added_and_moved() -> None:
    """By their names: a bill with one more in front of the others reads the same."""
    lines = WHOLE.decode().splitlines()
    lines[0] = f"交易时间,新列,{lines[0].removeprefix('交易时间,')}"
    for n in (1, 2):
        at, _, rest = lines[n].partition(",")
        lines[n] = f"{at},`x,{rest}"
    assert parsed(bill(*lines)) == parsed(WHOLE)


def test_a_day_on_which_nothing_happened() -> None:
    nothing = parsed(bill(",".join(HEADER), SUMMARY, "`0,`0.00,`0.00,`0.00,`0.00000,`0.00,`0.00"))
    assert (nothing.rows, nothing.total_fen, nothing.refund_fen) == ((), 0, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`2,`49.50", "`3,`49.50"),  # a line is missing
        ("`49.50,`0.50", "`49.51,`0.50"),
        (",`50.00,`0.00,`\r\n", ",`50.01,`0.00,`\r\n"),
        (",`0.00,`20.00,`\r\n", ",`0.00,`19.99,`\r\n"),
        ("`0.17820", "`0.17821"),
        ("`19.80,`0.20,`ORIGINAL", "`19.79,`0.21,`ORIGINAL"),
        ("`SUCCESS,", "`PAID,"),
        ("`2026-11-23 16:00:00", "`2026-11-32 16:00:00"),
        ("`50.00,`0.00,`\r\n", "`5e1,`0.00,`\r\n"),
        ("`50.00,`0.00,`\r\n", "`50.00\r\n"),
        ("订单金额", "订货金额"),
        (SUMMARY, "总交易单数"),
        ("交易时间", "<html>"),
        ("商户号,特约商户号", "商户号,商户号"),
    ],
)
def test_a_bill_that_does_not_hold_together(old: str, new: str) -> None:
    text = WHOLE.decode()
    assert old in text
    with pytest.raises(Refused) as caught:
        parsed(text.replace(old, new).encode())
    assert caught.value.code == "bad_bill"


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"a\n", b"\n\n\n\n", b'{"code":"FAIL"}' * 3])
def test_what_is_no_bill(content: bytes) -> None:
    with pytest.raises(Refused, match="bad_bill"):
        parsed(content)


def test_half_a_bill_is_none() -> None:
    lines = WHOLE.decode().splitlines()
    for n in range(len(lines)):
        with pytest.raises(Refused, match="bad_bill"):
            parsed(bill(*lines[:n]))
