"""One payment, one refund, one number at a time; and the sheets of a day."""

import base64
import csv
import hashlib
import io
from dataclasses import replace
from datetime import UTC, date, datetime, time

import pytest

from engine.domain.reconciliation import (
    Booking,
    Difference,
    Heal,
    Kind,
    Money,
    Payment,
    Refund,
    Statement,
    StatementRow,
    Sum,
    Went,
    of_bookings,
    of_provider,
)
from engine.records.settlement import (
    Adjustment,
    Balances,
    Channel,
    Closed,
    Figures,
    Revenue,
    Settlement,
)
from integrations.alipay.bill import Bill as AlipayBill
from integrations.alipay.bill import Kind as AlipayKind
from integrations.alipay.bill import Row as AlipayRow
from integrations.wechat_pay.bill import Bill as WeChatBill
from integrations.wechat_pay.bill import BillRow
from integrations.wechat_pay.bill import Kind as WeChatKind
from web.reconciliation import sheets, words
from web.reconciliation.statements import of_alipay, of_wechat_pay

DAY = date(2026, 11, 20)
NOON = datetime.combine(DAY, time(12), UTC)
PAID, BACK, BILL = b"p" * 16, b"r" * 16, b"b" * 16
PAYMENT = Payment(PAID, BILL, 5_000, 5_000, "T", NOON, "paid")
REFUND = Refund(BACK, PAID, BILL, 700, Went.DONE, NOON, state="done")
PAID_ROW = StatementRow("payment", PAID, "T", 5_000, NOON, fee_millifen=30_000)
BACK_ROW = StatementRow("refund", BACK, "R", 700, NOON, PAID)


def one(*rows: StatementRow, payment: Payment = PAYMENT, refund: Refund | None = None) -> list[Difference]:
    found = of_provider(DAY, [payment], [] if refund is None else [refund], Statement(rows), (), True)
    assert found.agrees
    return list(found.differences)


def test_evidence_has_all_sides() -> None:
    [found] = one(replace(PAID_ROW, fen=4_999))
    assert (found.kind, found.ours, found.theirs) == (Kind.AMOUNT_DIFFERS, 5_000, 4_999)
    assert found.evidence == {
        "here": {
            "order": PAID.hex(),
            "fen": 5_000,
            "moved": 5_000,
            "at": "2026-11-20T12:00:00+00:00",
            "state": "paid",
            "reference": "T",
        },
        "there": [
            {
                "order": PAID.hex(),
                "reference": "T",
                "fen": 4_999,
                "currency": "CNY",
                "at": "2026-11-20T12:00:00+00:00",
                "state": "done",
            }
        ],
    }


def test_of_two_rows_the_one_that_we_believed_is_meant_whichever_comes_first() -> None:
    other = replace(PAID_ROW, reference="another", at=NOON.replace(hour=1))
    for rows in ((other, PAID_ROW), (PAID_ROW, other)):
        [found] = one(*rows)
        assert (found.kind, found.subject) == (Kind.PAID_TWICE, f"{PAID.hex()}/another")


def test_a_second_row_on_the_next_day_is_the_second_payment_of_that_day() -> None:
    tomorrow = date(2026, 11, 21)
    again = replace(PAID_ROW, reference="another", at=NOON.replace(day=21))
    found = of_provider(tomorrow, [PAYMENT], [], Statement((again,)), [PAID_ROW], True)
    assert [(one.kind, one.ours, one.theirs) for one in found.differences] == [(Kind.PAID_TWICE, 0, 5_000)]
    assert found.agrees


def test_ours_may_be_on_the_next_days_statement_while_another_payment_is_on_todays() -> None:
    other, ours = replace(PAID_ROW, reference="another"), replace(PAID_ROW, at=NOON.replace(day=21))
    found = of_provider(DAY, [PAYMENT], [], Statement((other,)), [ours], True)
    assert {(one.kind, one.ours, one.theirs, one.explained) for one in found.differences} == {
        (Kind.PAID_TWICE, 0, 5_000, False),
        (Kind.WRONG_DAY, 5_000, 0, True),
    }
    assert found.agrees


def test_a_refund_that_both_know_is_under_way_waits() -> None:
    [found] = one(
        PAID_ROW, replace(BACK_ROW, state=Went.OPEN), refund=replace(REFUND, went=Went.OPEN, state="sent")
    )
    assert (found.kind, found.heal) == (Kind.REFUND_UNDER_WAY, Heal.RESEND_REFUND)


def test_given_back_past_us_at_their_own_pages() -> None:
    [found] = one(PAID_ROW, replace(BACK_ROW, order=b"", number="20261120-1"))
    assert (found.kind, found.heal, found.bill_id) == (Kind.REFUND_UNKNOWN_HERE, Heal.NONE, BILL)


def test_doubts_of_a_statement_are_differences_without_money() -> None:
    found = of_provider(
        DAY, [PAYMENT], [], Statement((PAID_ROW,), ("two rows, their total three",)), (), True
    )
    assert [(one.kind, one.ours, one.theirs) for one in found.differences] == [
        (Kind.STATEMENT_DOUBTFUL, 0, 0)
    ]
    assert found.payments.matched == Sum(1, 5_000)


BOOKING = Booking(BILL, b"a" * 16, "booked", "settled", 5_000, 5_000, 0, 0, 0)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({}, None),
        ({"number": "arrived"}, None),
        ({"number": "noshow"}, None),  # what goes back then, the rules say
        ({"number": "noshow", "kept": 5_000, "status": "settled"}, None),
        ({"number": "cancelled"}, Kind.MONEY_WITHOUT_BOOKING),
        ({"number": ""}, Kind.MONEY_WITHOUT_BOOKING),
        ({"number": "cancelled", "refunded": 5_000, "status": "refunded"}, None),
        ({"number": "cancelled", "owed_back": 5_000, "status": "refunding"}, None),
        ({"number": "cancelled", "refunded": 2_500, "kept": 2_500, "status": "partly_refunded"}, None),
        ({"number": "cancelled", "refunded": 2_500, "kept": 2_499}, Kind.MONEY_WITHOUT_BOOKING),
        ({"number": "pending", "status": "paid"}, Kind.MONEY_WITHOUT_BOOKING),
        ({"number": "booked", "status": "paid"}, Kind.MONEY_WITHOUT_BOOKING),  # the bill has not heard of it
        ({"number": "booked", "status": "closed", "paid": 0}, Kind.BOOKED_WITHOUT_MONEY),
        ({"number": "fulfilled", "status": "refunded", "refunded": 5_000}, Kind.BOOKED_WITHOUT_MONEY),
        ({"number": "booked", "status": "at_hospital", "paid": 0}, None),
        ({"number": "booked", "status": "open", "paid": 0}, None),  # at the desk, to be paid there
        ({"number": "booked", "status": "closed", "paid": 0, "fen": 0}, None),
    ],
)
def test_a_bill_beside_its_number(changed: dict[str, object], kind: Kind | None) -> None:
    found = of_bookings([replace(BOOKING, **changed)])  # type: ignore[arg-type]
    assert [one.kind for one in found.differences] == ([] if kind is None else [kind])
    assert all(one.heal is Heal.ATTEND for one in found.differences)
    assert found.agrees


# The providers' words.


def test_every_row_of_a_bill_is_understood() -> None:
    row = BillRow(
        NOON, "app", "mch", "T", PAID.hex(), "openid", WeChatKind.PAYMENT, "CNY", 5_000, 4_950, None, None,
        0, 0, None, 29_700,
    )  # fmt: skip
    back = replace(
        row, kind=WeChatKind.REFUND, total_fen=0, refund_id="R", out_refund_no=BACK.hex(), refund_fen=700,
        refund_state="PROCESSING", fee_millifen=-4_200,
    )  # fmt: skip
    revoked = replace(back, kind=WeChatKind.REVOKED, out_refund_no="", refund_id="", refund_state=None)
    failed = replace(back, refund_state="CHANGE", out_refund_no="shop-1", out_trade_no="SHOP")
    found = of_wechat_pay(WeChatBill((row, back, revoked, failed), 0, 0, 0)).rows
    assert found[0] == StatementRow(
        "payment", PAID, "T", 5_000, NOON, fee_millifen=29_700, number=PAID.hex()
    )  # what the hospital asked for, vouchers or not
    assert found[1] == StatementRow(
        "refund", BACK, "R", 700, NOON, PAID, -4_200, "CNY", Went.OPEN, BACK.hex()
    )
    assert (found[2].order, found[2].payment_order, found[2].reference) == (b"", PAID, "T")
    assert (found[3].order, found[3].payment_order, found[3].state) == (b"", b"", Went.FAILED)

    paid = AlipayRow(AlipayKind.PAID, "2026", PAID.hex(), None, 5_000, 5_000, 30, 1_795_000_000_000)
    given = AlipayRow(AlipayKind.REFUNDED, "2026", PAID.hex(), BACK.hex(), 700, 700, -4, 1_795_000_000_000)
    theirs = of_alipay(AlipayBill("2088", (paid, given), 2, ("a doubt",)))
    assert [(row.kind, row.order, row.fen, row.fee_millifen) for row in theirs.rows] == [
        ("payment", PAID, 5_000, 30_000),
        ("refund", BACK, 700, -4_000),
    ]
    assert theirs.rows[1].payment_order == PAID
    assert theirs.doubts == ("a doubt", "rows that are neither a payment nor a refund: 2")


def test_every_difference_has_words() -> None:
    assert set(words.KINDS) == set(Kind)
    assert all(text.zh and text.en for text in words.KINDS.values())


# The sheets.

SETTLEMENT = Settlement(
    Figures(
        DAY,
        (
            Channel("wechat_pay", 2, 10_000, 5_000, 1, 1_200, 52_805),
            Channel("=cmd|'/c calc'!A1<i>", 0, 0, 0, 1, 5, 0, False),
        ),
        (Revenue("registration", 5_000, 6_200),),
        Balances(0, 0, 5_000),
        2,
        ("alipay",),
    ),
    Closed(NOON, "<b>shen", "=1+1"),
    (),
    (Adjustment(DAY, "alipay", date(2026, 11, 22), NOON, -1, -5_000, 0, 0, -30_000),),
)


def test_no_cell_of_the_sheet_is_a_formula() -> None:
    text = sheets.as_csv(SETTLEMENT)
    assert text.startswith("\ufeff")
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    assert {len(row) for row in rows} == {11}
    for cell in (cell for row in rows for cell in row):
        is_amount = cell.lstrip("-").replace(".", "", 1).isdigit()
        assert is_amount or not cell.startswith(("=", "+", "-", "@")), cell
    assert "'=cmd|'/c calc'!A1" in text
    assert [
        "2026-11-20",
        "合计",
        "",
        "2",
        "100.00",
        "50.00",
        "2",
        "12.05",
        "87.95",
        "未出账",  # one of them has not told
        "2026-11-20",
    ] in rows
    assert [
        "2026-11-22",
        "关账后调整",
        "支付宝",
        "-1",
        "-50.00",
        "",
        "0",
        "0.00",
        "-50.00",
        "-0.30000",
        "2026-11-20",
    ] in rows


def test_the_page_escapes_what_people_wrote() -> None:
    page = sheets.as_page(SETTLEMENT, "<script>", NOON, UTC)
    assert not any(tag in page for tag in ("<script>", "<b>shen", "<i>"))
    assert "有 2 笔对账差异尚未处理；尚未完成对账：支付宝" in page
    assert "-12.00" in page  # more was given back than earned
    assert sheets.grouped(-123_456_789) == "-1,234,567.89"
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in sheets.POLICY  # else no browser would apply it


@pytest.mark.parametrize(
    ("millifen", "fen", "yuan"),
    [(0, "0.000", "0.00000"), (52_805, "52.805", "0.52805"), (-1, "-0.001", "-0.00001")],
)
def test_fees_keep_the_parts_of_a_fen(millifen: int, fen: str, yuan: str) -> None:
    assert (sheets.fee_fen(millifen), sheets.fee_text(millifen)) == (fen, yuan)


def test_refunds_are_refunds() -> None:
    assert {one.money for one in one(PAID_ROW, refund=replace(REFUND, at=NOON.replace(hour=1)))} == {
        Money.REFUND
    }
