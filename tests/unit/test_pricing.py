"""Prices without a database: codes as people type them, what a bill claims, and a receipt's page."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.payment import Paying, Refunding, Seat
from engine.domain.price_rules import Discount, FreeFollowUp, Kind, Line, PriceRules
from engine.records.bills import BillRow, PaymentRow, RefundRow
from engine.records.coupons import ALPHABET, CODE_CHARS, CouponRow, NewCoupons, code_of, new_code, spelled
from web.bills.pricing import Claim, Priced, _claims, same_code
from web.cashier.receipt_page import Paper, page

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PATIENT, PAID = b"p" * 16, b"v" * 16
CODES = st.text(ALPHABET, min_size=CODE_CHARS, max_size=CODE_CHARS)


@given(CODES)
def test_a_code_is_known_however_it_is_typed(code: str) -> None:
    wide = "".join(chr(ord(sign) + 0xFEE0) for sign in code)
    for typed in (code, spelled(code), code.lower(), f" {spelled(code)} ", code.replace("", " "), wide):
        assert code_of(typed) == code


@given(st.text(max_size=80))
def test_what_is_no_code_is_none(text: str) -> None:
    found = code_of(text)
    assert found is None or (len(found) == CODE_CHARS and set(found) <= set(ALPHABET))


def test_codes_differ_and_have_no_signs_that_are_mistaken() -> None:
    codes = {new_code() for _ in range(1_000)}
    assert len(codes) == 1_000 and not set("01OIL") & set("".join(codes))
    assert len(ALPHABET) == len(set(ALPHABET)) == 31


def test_a_bill_names_a_coupon_by_its_batch_and_last_signs() -> None:
    code = "2345678923456789"
    new = NewCoupons("国庆券", (Kind.REGISTRATION,), NOW, NOW, fen=5)
    row = CouponRow(b"", code[-4:], new, "", NOW, None, None, None)
    assert row.label == "国庆券 6789" and same_code(row.label, spelled(code))
    assert not same_code(row.label, "2345678923456788") and not same_code(row.label, "")


def test_what_is_given_only_so_often_is_claimed() -> None:
    rules = PriceRules(
        (), (FreeFollowUp("三日", 3), FreeFollowUp("七日", 7, 2, "a"), FreeFollowUp("七日", 7, 2, "b"))
    )
    first, free = Discount("1", "first_visit", "首诊", 5), Discount("1", "free_follow_up", "七日", 5)
    coupon = Discount("1", "coupon", "券 6789", 5)
    assert _claims((), rules, PATIENT, None) == _claims((coupon,), rules, PATIENT, PAID) == []
    assert _claims((first, coupon), rules, PATIENT, None) == [Claim("first_visit", PATIENT, 1)]
    assert _claims((free,), rules, PATIENT, PAID) == [Claim("free_follow_up", PAID, 2)]


@given(st.lists(st.integers(1, 1_000), max_size=5))
def test_a_price_is_its_lines_without_its_discounts(offs: list[int]) -> None:
    line = Line("1", Kind.REGISTRATION, "expert", 5_000)
    assert Priced((line,), tuple(Discount("1", "x", "", fen) for fen in offs)).fen == 5_000 - sum(offs)


def paper(**changes: object) -> Paper:
    lines = (Line("1", Kind.REGISTRATION, "expert", 5_000),)
    row = BillRow(
        PAID, PATIENT, PATIENT, "", lines, (), 4_000, None, "", "", None, None, Seat.TAKEN, "settled", "",
        False, True, PAID, 4_000, 0, 0, 0, NOW, NOW, 1,
    )  # fmt: skip
    payment = PaymentRow(
        PAID, PAID, "wechat_pay", "m", 4_000, Paying.PAID, "", "4200001", 4_000, True, NOW, NOW, NOW
    )
    given = {
        "hospital": "市第一医院", "number": "4200001", "row": row, "payment": payment, "refunds": (),
        "patient": "<王>&小明", "visit": ("心内科", "张医生", "2026-11-24 09:00 第 3 号"),
        "items": (("挂号费", "专家号", 1, 5_000), ("优惠券", "<b>国庆券</b> 6789", 1, -1_000)),
        "cashier": "—", "paid_at": NOW, "printed_at": NOW, "printed_by": "李四",
    }  # fmt: skip
    return Paper(**{**given, **changes})  # type: ignore[arg-type]


def test_a_receipt_has_figures_and_capitals_and_shows_nothing_as_markup() -> None:
    said = page(paper())
    for part in (
        "肆拾元整",
        "¥40.00",
        "-10.00",
        "微信支付",
        "&lt;王&gt;&amp;小明",
        "&lt;b&gt;国庆券",
        "不是发票",
    ):
        assert part in said, part
    assert "<b>" not in said and "<script" not in said and "已退款" not in said


@pytest.mark.parametrize(
    ("state", "said"),
    [(Refunding.DONE, "已退款：¥12.34（壹拾贰元叁角肆分）"), (Refunding.SENT, "退款处理中：¥12.34")],
)
def test_what_went_back_stands_on_it(state: Refunding, said: str) -> None:
    refund = RefundRow(PAID, PAID, PAID, 1_234, "desk", state, "", "wechat_pay", "5030", NOW, NOW)
    assert said in page(paper(refunds=(refund,)))


def test_a_drug_bill_has_no_visit_on_its_receipt() -> None:
    assert "科室" not in page(paper(visit=(), items=(("药品费", "D-1", 2, 4_000),)))
