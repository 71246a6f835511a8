"""A bill, step by step: prices, paying, the race with the seat, refunds, and what is refused."""

from dataclasses import replace

import pytest

from engine.domain import ledger
from engine.domain import payment as p
from engine.domain.limits import BILL_COMMANDS_REMEMBERED, BILL_FEN_MAX, BILL_PAYMENTS_MAX
from engine.domain.payment import Do, Found, Paying, Refunding, Via
from engine.domain.price_rules import (
    Coupon,
    Discount,
    FirstVisitDiscount,
    FreeFollowUp,
    Kind,
    Line,
    PriceRules,
    Rejected,
    Visitor,
    price,
)
from engine.domain.refund_rules import Cause, RefundRules, RefundTerms, cause_of, part, percent_back
from engine.domain.refusal import Reason, Refusal

NOW = 1_800_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SEAT = b"seat".ljust(16, b".")
WECHAT, ALIPAY = "wechat_pay", "alipay"
OURS = {WECHAT: "m1", ALIPAY: "m2"}
"""Our merchant numbers there."""
TERMS = p.MoneyTerms(
    refunds=RefundRules({("", ""): RefundTerms(((24 * 60, 100), (60, 50)), 10)}),
)
REGISTRATION = Line("1", Kind.REGISTRATION, "expert", 5_001)
DRUG = Line("2", Kind.DRUG, "d7", 1_200, 3)


class Desk:
    """Runs commands on one bill, like a shard, and gives each an id."""

    def __init__(self, lines: tuple[Line, ...] = (REGISTRATION,), has_seat: bool = True) -> None:
        self.bill = p.Bill()
        self.now = NOW
        self.ids = 0
        self.terms = TERMS
        self.outcome: list[p.Event] | Refusal = []
        self.open = p.OpenBill(
            self.new(),
            b"b" * 16,
            b"a" * 16,
            b"p" * 16,
            "order-1",
            lines,
            appointment_id=SEAT if has_seat else b"",
            starts_at=NOW + 2 * DAY if has_seat else 0,
            pay_by=NOW + 15 * MINUTE,
        )

    def new(self) -> bytes:
        self.ids += 1
        return self.ids.to_bytes(16, "big")

    def run(self, command: p.Command) -> list[p.Event] | Refusal:
        self.outcome = p.decide(self.bill, command, self.now, self.terms)
        if not isinstance(self.outcome, Refusal):
            for event in self.outcome:
                p.apply(self.bill, event)
        assert p.ledger_error(self.bill) == 0
        return self.outcome

    def reason(self, command: p.Command) -> Reason:
        outcome = self.run(command)
        assert isinstance(outcome, Refusal), outcome
        return outcome.reason

    def opened(self) -> "Desk":
        self.run(self.open)
        return self

    def start(self, provider: str = WECHAT) -> bytes:
        attempt_id = self.new()
        self.run(p.StartPayment(self.new(), attempt_id, provider, OURS.get(provider, "")))
        assert not isinstance(self.outcome, Refusal), self.outcome
        self.run(p.PrepayAnswered(self.new(), attempt_id, "prepay"))
        return attempt_id

    def report(self, attempt_id: bytes, via: str = Via.CALLBACK) -> p.PaymentReported:
        attempt = self.bill.attempts[attempt_id]
        transaction = f"t{attempt_id.hex()}"
        return p.PaymentReported(
            self.new(),
            attempt_id,
            attempt.provider,
            attempt.merchant_id,
            transaction,
            attempt.fen,
            "CNY",
            via,
        )

    def pay(self, provider: str = WECHAT) -> bytes:
        attempt_id = self.start(provider)
        self.run(self.report(attempt_id))
        return attempt_id

    def gone(self, cause: str, seat: bytes = SEAT, at: int = 0) -> list[p.Event] | Refusal:
        return self.run(p.SeatGone(self.new(), seat, cause, at or self.now))

    def taken(self, seat: bytes = SEAT) -> list[p.Event] | Refusal:
        return self.run(p.SeatTaken(self.new(), seat))

    def refunded(self, refund_id: bytes) -> list[p.Event] | Refusal:
        refund = self.bill.refunds[refund_id]
        provider = self.bill.attempts[refund.attempt_id].provider
        return self.run(p.RefundReported(self.new(), refund_id, provider, "w1", refund.fen, "CNY"))

    @property
    def errands(self) -> list[p.Errand]:
        """Without the look at a seat that is held: it is there as long as nobody has paid."""
        return [errand for errand in p.errands(self.bill) if errand.do != Do.LOOK_AT_SEAT]

    @property
    def to_do(self) -> list[str]:
        return [str(errand.do) for errand in self.errands]

    @property
    def status(self) -> str:
        return p.told(self.bill).status


def settled(lines: tuple[Line, ...] = (REGISTRATION,)) -> Desk:
    desk = Desk(lines).opened()
    desk.pay()
    desk.taken()
    assert desk.status == "settled"
    return desk


# The common way.


def test_hold_pay_booked() -> None:
    desk = Desk((REGISTRATION, DRUG)).opened()
    assert (desk.status, desk.to_do) == ("open", [])
    attempt_id = desk.new()
    desk.run(p.StartPayment(desk.new(), attempt_id, WECHAT, OURS[WECHAT]))
    assert desk.to_do == [Do.ASK_PREPAY]
    desk.run(p.PrepayAnswered(desk.new(), attempt_id, "prepay"))
    desk.run(desk.report(attempt_id))
    assert (desk.status, desk.to_do) == ("paid", [Do.BOOK_SEAT])
    assert desk.bill.balances == {"provider/wechat_pay": 6_201, "patient": -6_201}
    desk.taken()
    assert (desk.status, desk.to_do) == ("settled", [])
    assert desk.bill.balances == {
        "provider/wechat_pay": 6_201,
        "patient": 0,
        "revenue/registration": -5_001,
        "revenue/drug": -1_200,
    }


def test_drugs_need_no_seat() -> None:
    desk = Desk((DRUG,), has_seat=False).opened()
    desk.pay(ALIPAY)
    assert (desk.status, desk.to_do) == ("settled", [])


def test_what_costs_nothing_is_settled_with_its_seat() -> None:
    desk = Desk()
    desk.open = replace(desk.open, discounts=(Discount("1", "free_follow_up", "复诊免费", 5_001),))
    desk.opened()
    assert desk.to_do == [Do.BOOK_SEAT]
    assert desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.BILL_PAID
    desk.taken()
    assert (desk.status, desk.bill.balances) == ("settled", {})


def test_a_bill_is_opened_once() -> None:
    desk = Desk().opened()
    assert desk.run(desk.open) == []
    assert desk.run(replace(desk.open, command_id=desk.new())) == []
    assert desk.reason(replace(desk.open, order="order-2")) is Reason.KEY_REUSED


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"lines": ()}, "lines"),
        ({"lines": (REGISTRATION, REGISTRATION)}, "line_twice"),
        ({"lines": (replace(REGISTRATION, fen=-1),)}, "negative"),
        ({"lines": (replace(REGISTRATION, quantity=0),)}, "negative"),
        ({"lines": (replace(REGISTRATION, fen=BILL_FEN_MAX + 1),)}, "too_much"),
        ({"discounts": (Discount("1", "coupon", "c", 5_002),)}, "discount"),
        ({"discounts": (Discount("1", "coupon", "c", 5_000), Discount("1", "coupon", "d", 2))}, "discount"),
        ({"discounts": (Discount("1", "coupon", "c", -1),)}, "discount"),
        ({"discounts": (Discount("9", "coupon", "c", 1),)}, "discount"),
    ],
)
def test_figures_that_cannot_be(changed: dict[str, object], why: str) -> None:
    desk = Desk()
    assert desk.run(replace(desk.open, **changed)) == Refusal(Reason.BILL_UNFIT, {"why": why})  # type: ignore[arg-type]
    assert desk.bill == p.Bill()


def test_only_cny_and_only_known_bills() -> None:
    desk = Desk()
    assert desk.reason(replace(desk.open, currency="USD")) is Reason.CURRENCY_MISMATCH
    assert desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.BILL_UNKNOWN


# Who may begin to pay.


def test_one_payment_at_a_time_with_one_provider() -> None:
    desk = Desk().opened()
    first = desk.start()
    assert desk.run(p.StartPayment(desk.new(), first, WECHAT, OURS[WECHAT])) == []
    assert desk.reason(p.StartPayment(desk.new(), first, ALIPAY, OURS[ALIPAY])) is Reason.KEY_REUSED
    refused = desk.run(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT]))
    assert refused == Refusal(Reason.PAYMENT_UNDER_WAY, {"attempt_id": first.hex()})
    desk.run(p.PaymentOutcomeLost(desk.new(), first))
    assert (
        desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.PAYMENT_UNDER_WAY
    )
    desk.start(ALIPAY)  # he may change his mind


@pytest.mark.parametrize("provider", ["paypal", p.AT_HOSPITAL, ""])
def test_providers_that_are_not_offered(provider: str) -> None:
    desk = Desk().opened()
    assert (
        desk.reason(p.StartPayment(desk.new(), desk.new(), provider, OURS.get(provider, "")))
        is Reason.PROVIDER_OFF
    )


def test_nobody_begins_to_pay_what_is_paid_or_over() -> None:
    desk = Desk().opened()
    desk.now = NOW + 15 * MINUTE  # the very instant, whether or not the schedule has told
    assert desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.HOLD_EXPIRED
    assert desk.reason(p.TakeAtDesk(desk.new(), desk.new(), "r1", 5_001, "desk")) is Reason.HOLD_EXPIRED
    desk.gone(Cause.EXPIRED)
    assert desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.HOLD_EXPIRED
    assert settled().reason(p.StartPayment(b"x" * 16, b"y" * 16, WECHAT, OURS[WECHAT])) is Reason.BILL_PAID
    desk = Desk((DRUG,), has_seat=False).opened()
    assert desk.to_do == [Do.CLOSE_BILL]
    desk.run(p.CloseBill(desk.new(), "withdrawn", "desk"))
    assert desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.BILL_CLOSED


def test_attempts_have_a_bound() -> None:
    desk = Desk().opened()
    for _ in range(BILL_PAYMENTS_MAX):
        attempt_id = desk.start()
        desk.run(p.PaymentFound(desk.new(), attempt_id, Found.CLOSED))
    assert (
        desk.reason(p.StartPayment(desk.new(), desk.new(), WECHAT, OURS[WECHAT])) is Reason.TOO_MANY_PAYMENTS
    )


# Unknown outcomes.


def test_an_unknown_prepay_is_resolved_by_query_before_anything_is_repeated() -> None:
    desk = Desk().opened()
    attempt_id = desk.new()
    desk.run(p.StartPayment(desk.new(), attempt_id, WECHAT, OURS[WECHAT]))
    desk.run(p.PaymentOutcomeLost(desk.new(), attempt_id))
    assert desk.to_do == [Do.QUERY_PAYMENT]
    desk.run(p.PaymentFound(desk.new(), attempt_id, Found.NONE))
    assert desk.bill.attempts[attempt_id].state is Paying.FAILED
    assert desk.to_do == []
    desk.start()


def test_a_refused_prepay_may_have_been_heard_before() -> None:
    desk = Desk().opened()
    attempt_id = desk.new()
    desk.run(p.StartPayment(desk.new(), attempt_id, WECHAT, OURS[WECHAT]))
    desk.run(p.PrepayRefused(desk.new(), attempt_id, "ORDERPAID"))  # said whoever asked again after a crash
    assert desk.to_do == [Do.QUERY_PAYMENT]
    desk.run(desk.report(attempt_id, Via.QUERY))
    assert desk.status == "paid"


def test_a_refused_prepay_that_nobody_heard_has_failed() -> None:
    desk = Desk().opened()
    attempt_id = desk.new()
    desk.run(p.StartPayment(desk.new(), attempt_id, WECHAT, OURS[WECHAT]))
    desk.run(p.PrepayRefused(desk.new(), attempt_id, "PARAM_ERROR"))
    desk.run(p.PaymentFound(desk.new(), attempt_id, Found.NONE))
    assert desk.bill.attempts[attempt_id].state is Paying.FAILED
    assert desk.bill.attempts[attempt_id].code == "PARAM_ERROR"


def test_a_payment_is_believed_whatever_was_thought_of_it() -> None:
    for earlier in (
        lambda desk, one: p.PaymentFound(desk.new(), one, Found.CLOSED),
        lambda desk, one: p.PaymentOutcomeLost(desk.new(), one),
    ):
        desk = Desk().opened()
        attempt_id = desk.start()
        desk.run(earlier(desk, attempt_id))
        desk.run(desk.report(attempt_id))
        assert desk.status == "paid"


def test_what_was_said_before_the_payment_changes_nothing_after_it() -> None:
    desk = Desk().opened()
    attempt_id = desk.pay()
    for late in (
        p.PrepayAnswered(desk.new(), attempt_id, "other"),
        p.PrepayRefused(desk.new(), attempt_id, "X"),
        p.PaymentOutcomeLost(desk.new(), attempt_id),
        p.PaymentFound(desk.new(), attempt_id, Found.CLOSED),
        p.PaymentFound(desk.new(), attempt_id, Found.NONE),
    ):
        assert desk.run(late) == []


def test_a_payment_sent_off_is_asked_after() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    assert desk.errands == [p.Errand(Do.QUERY_PAYMENT, attempt_id, NOW + p.POLL_MS)]


# Reports that are not ours.


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"merchant_id": "m9"}, Reason.FOREIGN_MERCHANT),
        ({"provider": ALIPAY}, Reason.FOREIGN_MERCHANT),
        ({"provider": p.AT_HOSPITAL, "merchant_id": ""}, Reason.FOREIGN_MERCHANT),
        ({"currency": "USD"}, Reason.CURRENCY_MISMATCH),
        ({"fen": 5_000}, Reason.AMOUNT_MISMATCH),
        ({"fen": 0, "via": Via.QUERY}, Reason.AMOUNT_MISMATCH),
        ({"fen": -5_001, "via": Via.QUERY}, Reason.AMOUNT_MISMATCH),
        ({"transaction_id": ""}, Reason.PAYMENT_CONTRADICTS),
        ({"attempt_id": b"?" * 16}, Reason.NO_SUCH_PAYMENT),
    ],
)
def test_bad_reports_change_nothing(changed: dict[str, object], reason: Reason) -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    before = p.told(desk.bill)
    assert desk.reason(replace(desk.report(attempt_id), **changed)) is reason  # type: ignore[arg-type]
    assert p.told(desk.bill) == before
    assert desk.bill.attempts[attempt_id].state is Paying.ASKED


def test_one_order_has_one_transaction() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    told = desk.report(attempt_id)
    desk.run(told)
    for again in (told, replace(told, command_id=desk.new(), via=Via.QUERY)):
        assert desk.run(again) == []
    other = replace(told, command_id=desk.new(), transaction_id="t2")
    assert desk.reason(other) is Reason.PAYMENT_CONTRADICTS
    assert desk.reason(replace(told, command_id=desk.new(), fen=1)) is Reason.PAYMENT_CONTRADICTS
    assert desk.reason(replace(told, fen=1)) is Reason.KEY_REUSED


def test_another_amount_that_a_query_confirms_goes_back() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    desk.run(replace(desk.report(attempt_id, Via.QUERY), fen=1))
    refund_id = p.own_refund_id(attempt_id)
    assert desk.bill.refunds[refund_id].fen == 1
    assert (desk.status, desk.to_do) == ("open", [Do.SEND_REFUND])
    desk.refunded(refund_id)
    assert set(desk.bill.balances.values()) == {0}
    desk.pay()
    assert desk.status == "paid"


def test_paid_twice_goes_back_once() -> None:
    desk = Desk().opened()
    first, second = desk.start(WECHAT), desk.start(ALIPAY)
    desk.run(desk.report(second))
    desk.taken()
    assert desk.to_do == [Do.CLOSE_PAYMENT]  # of the first
    desk.run(desk.report(first))
    assert (desk.status, desk.to_do) == ("settled", [Do.SEND_REFUND])
    assert desk.bill.balances["suspense"] == 0
    desk.refunded(p.own_refund_id(first))
    assert desk.bill.balances["provider/wechat_pay"] == 0
    assert desk.bill.balances["provider/alipay"] == 5_001
    assert desk.to_do == []


# Payment and expiry racing.


@pytest.mark.parametrize("payment_first", [True, False])
def test_a_late_payment_takes_the_seat_again(payment_first: bool) -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    desk.now = NOW + 16 * MINUTE
    if payment_first:
        desk.run(desk.report(attempt_id))
        desk.gone(Cause.EXPIRED)
    else:
        desk.gone(Cause.EXPIRED)
        assert (desk.status, desk.to_do) == ("closed", [Do.CLOSE_PAYMENT])
        desk.run(desk.report(attempt_id))
    again = p.retaken_id(SEAT)
    assert p.errands(desk.bill) == [p.Errand(Do.RETAKE_SEAT, SEAT, 0, again)]
    desk.run(p.SeatTakenAgain(desk.new(), SEAT))
    assert (desk.status, desk.to_do, desk.bill.appointment_id) == ("settled", [], again)
    assert desk.gone(Cause.EXPIRED) == []  # told again, of a seat that is not ours any more
    assert desk.status == "settled"


def test_a_late_payment_without_a_seat_goes_back_in_full() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    desk.gone(Cause.EXPIRED)
    desk.run(desk.report(attempt_id))
    desk.gone(Cause.FULL)
    assert (desk.status, desk.to_do) == ("refunding", [Do.RELEASE_SEAT, Do.SEND_REFUND])
    desk.refunded(p.own_refund_id(attempt_id))
    desk.gone(Cause.CANCELLED, p.retaken_id(SEAT))
    assert (desk.status, desk.to_do) == ("refunded", [])
    assert desk.gone(Cause.CANCELLED, p.retaken_id(SEAT)) == []


def test_a_seat_taken_again_for_a_bill_that_gave_up_is_released() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    desk.gone(Cause.EXPIRED)
    desk.run(desk.report(attempt_id))
    desk.gone(Cause.CANCELLED)
    again = p.retaken_id(SEAT)
    desk.gone(Cause.CANCELLED, again)
    desk.run(p.SeatTakenAgain(desk.new(), SEAT))  # whoever was thought dead
    assert desk.status == "refunding"
    assert p.Errand(Do.RELEASE_SEAT, again, 0) in p.errands(desk.bill)


def test_a_seat_booked_after_it_was_given_up_is_released() -> None:
    desk = Desk().opened()
    desk.pay()
    desk.gone(Cause.CANCELLED)
    desk.taken()  # reports in the other order, or somebody confirmed it all the same
    assert desk.to_do == [Do.RELEASE_SEAT, Do.SEND_REFUND]
    assert desk.taken() == []
    desk.gone(Cause.CANCELLED)
    assert desk.to_do == [Do.SEND_REFUND]


def test_a_payment_after_a_cancel_goes_back() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    desk.gone(Cause.CANCELLED)
    desk.run(desk.report(attempt_id))
    assert desk.to_do == [Do.SEND_REFUND]
    assert desk.bill.refunds[p.own_refund_id(attempt_id)].cause == "late"


def test_seats_of_others_and_what_cannot_be() -> None:
    desk = settled()
    assert desk.reason(p.SeatTaken(desk.new(), b"?" * 16)) is Reason.NO_SUCH_APPOINTMENT
    assert desk.reason(p.SeatTakenAgain(desk.new(), b"?" * 16)) is Reason.NO_SUCH_APPOINTMENT
    assert desk.reason(p.SeatGone(desk.new(), b"?" * 16, Cause.CANCELLED, NOW)) is Reason.NO_SUCH_APPOINTMENT
    assert desk.reason(p.SeatMoved(desk.new(), b"?" * 16, b"s" * 16, NOW)) is Reason.NO_SUCH_APPOINTMENT
    for cause in (Cause.EXPIRED, Cause.FULL, "changed"):
        assert desk.reason(p.SeatGone(desk.new(), SEAT, cause, NOW)) is Reason.WRONG_BILL_STATE
    drugs = Desk((DRUG,), has_seat=False).opened()
    assert drugs.reason(p.SeatTaken(drugs.new(), b"")) is Reason.NO_SUCH_APPOINTMENT


def test_the_bill_goes_with_the_seat() -> None:
    desk = settled()
    to = b"to".ljust(16, b".")
    desk.run(p.SeatMoved(desk.new(), SEAT, to, NOW + HOUR))
    assert desk.run(p.SeatMoved(desk.new(), SEAT, to, NOW + HOUR)) == []
    assert desk.gone(Cause.SUSPENDED) == []  # of the old one
    desk.gone(Cause.CANCELLED, to, NOW)
    assert desk.bill.refunds[p.own_refund_id(desk.bill.paid_by)].fen == 2_501  # an hour before, not two days


# At the hospital.


def test_pay_at_hospital() -> None:
    desk = Desk().opened()
    desk.run(p.PayAtHospital(desk.new(), 0))
    assert (desk.status, desk.to_do) == ("at_hospital", [Do.BOOK_SEAT])
    desk.taken()
    desk.now = NOW + DAY
    assert desk.reason(p.TakeAtDesk(desk.new(), desk.new(), "r1", 5_000, "desk")) is Reason.AMOUNT_MISMATCH
    attempt_id = desk.new()
    take = p.TakeAtDesk(desk.new(), attempt_id, "r1", 5_001, "desk")
    desk.run(take)
    assert (desk.status, desk.to_do) == ("settled", [])
    assert desk.run(replace(take, command_id=desk.new())) == []
    assert desk.reason(replace(take, command_id=desk.new(), receipt="r2")) is Reason.KEY_REUSED
    desk.gone(Cause.SUSPENDED)
    assert desk.to_do == [Do.REFUND_BY_HAND]
    desk.run(p.RefundAtDesk(desk.new(), p.own_refund_id(attempt_id), "r9", "desk"))
    assert (desk.status, set(desk.bill.balances.values())) == ("refunded", {0})


@pytest.mark.parametrize(
    ("allowed", "elsewhere", "why"),
    [(None, 0, "off"), (p.AtHospital(fen_max=5_000), 0, "amount"), (p.AtHospital(unpaid_max=2), 2, "unpaid")],
)
def test_pay_at_hospital_has_limits(allowed: p.AtHospital | None, elsewhere: int, why: str) -> None:
    desk = Desk().opened()
    desk.terms = replace(TERMS, at_hospital=allowed)
    refused = desk.run(p.PayAtHospital(desk.new(), elsewhere))
    assert isinstance(refused, Refusal) and refused.detail["why"] == why


def test_who_does_not_come_and_has_not_paid_owes_nothing() -> None:
    desk = Desk().opened()
    desk.run(p.PayAtHospital(desk.new(), 0))
    desk.taken()
    desk.gone(Cause.NO_SHOW)
    assert (desk.status, desk.to_do) == ("closed", [])


def test_without_limits_everybody_may_pay_at_the_hospital() -> None:
    desk = Desk((replace(REGISTRATION, fen=BILL_FEN_MAX),)).opened()
    desk.run(p.PayAtHospital(desk.new(), 10_000))
    assert desk.status == "at_hospital"


def test_a_seat_that_is_held_is_looked_at_when_its_time_is_over() -> None:
    """Its hold may have ended before the bill was opened: the schedule told nobody."""
    desk = Desk().opened()
    due = NOW + 15 * MINUTE + p.LOOK_AFTER_MS
    assert p.errands(desk.bill) == [p.Errand(Do.LOOK_AT_SEAT, SEAT, due)]
    paid = Desk().opened()
    paid.pay()
    assert Do.LOOK_AT_SEAT not in [errand.do for errand in p.errands(paid.bill)]
    desk.gone(Cause.EXPIRED)
    assert p.errands(desk.bill) == []


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("expired", Cause.EXPIRED),
        ("cancelled", Cause.CANCELLED),
        ("unconfirmed", Cause.EXCUSED),
        ("excused", Cause.EXCUSED),
        ("suspended", Cause.SUSPENDED),
        ("substitute_declined", Cause.SUSPENDED),
    ],
)
def test_every_reason_of_a_schedule_is_a_cause(reason: str, cause: Cause) -> None:
    assert cause_of(reason) is cause


def test_an_answer_says_how_the_bill_stands() -> None:
    desk = settled()
    told = p.reply_to(desk.bill, desk.open)
    assert told == p.Answer(b"b" * 16, "settled", 5_001, 5_001, 0, 0, SEAT, 0)
    desk.gone(Cause.SUSPENDED)
    assert p.reply_to(desk.bill, desk.open) == replace(told, status="refunding", owed_back=5_001)


# Refunds.


@pytest.mark.parametrize(
    ("cause", "before", "back"),
    [
        (Cause.CANCELLED, 24 * HOUR, 5_001),
        (Cause.CANCELLED, 24 * HOUR - 1, 2_501),  # half a fen goes to the patient
        (Cause.CANCELLED, HOUR, 2_501),
        (Cause.CANCELLED, HOUR - 1, 0),
        (Cause.EXCUSED, 0, 5_001),
        (Cause.SUSPENDED, -HOUR, 5_001),
        (Cause.NO_SHOW, -HOUR, 501),
    ],
)
def test_what_goes_back_when_a_seat_is_given_up(cause: str, before: int, back: int) -> None:
    desk = settled()
    desk.terms = replace(TERMS, refunds=RefundRules())  # of today; those of the bill's day hold
    desk.now = NOW + 9 * DAY  # however late we hear of it
    desk.gone(cause, at=NOW + 2 * DAY - before)
    told = p.told(desk.bill)
    assert (told.owed_back, told.kept) == (back, 5_001 - back)
    if back:
        desk.refunded(p.own_refund_id(desk.bill.paid_by))
    assert desk.status == {0: "closed", 5_001: "refunded"}.get(back, "partly_refunded")
    assert desk.bill.balances["provider/wechat_pay"] == 5_001 - back


def test_rules_by_department_and_class() -> None:
    all_, ward, expert, both = (RefundTerms(((0, n),)) for n in (1, 2, 3, 4))
    rules = RefundRules({("", ""): all_, ("d", ""): ward, ("", "e"): expert, ("d", "e"): both})
    assert [rules.terms_of(*key) for key in (("d", "e"), ("d", "x"), ("x", "e"), ("x", "x"))] == [
        both,
        ward,
        expert,
        all_,
    ]
    assert RefundRules().terms_of("d", "e") == RefundTerms()
    assert percent_back(RefundTerms(), Cause.CANCELLED, 0, NOW) == 100
    assert [part(fen, 50) for fen in (0, 1, 2, 3)] == [0, 1, 1, 2]


def test_staff_refund_lines_never_more_than_was_paid() -> None:
    desk = settled((REGISTRATION, DRUG))
    refund_id = desk.new()
    ask = p.RequestRefund(desk.new(), refund_id, (("2", 1_000),), "not_dispensed", "desk")
    desk.run(ask)
    assert desk.run(replace(ask, command_id=desk.new())) == []
    assert desk.reason(replace(ask, command_id=desk.new(), lines=(("2", 1),))) is Reason.KEY_REUSED
    too_much = replace(ask, command_id=desk.new(), refund_id=desk.new(), lines=(("2", 201),))
    assert desk.run(too_much) == Refusal(Reason.REFUND_TOO_LARGE, {"limit": 200})
    for lines in ((), (("2", 0),), (("2", -1),), (("1", 1), ("1", 1))):
        assert desk.reason(replace(too_much, lines=lines)) is Reason.BILL_UNFIT
    assert desk.reason(replace(too_much, lines=(("9", 1),))) is Reason.REFUND_TOO_LARGE
    desk.refunded(refund_id)
    assert (desk.status, desk.bill.balances["revenue/drug"]) == ("partly_refunded", -200)
    desk.gone(Cause.SUSPENDED)  # the rest
    assert desk.bill.refunds[p.own_refund_id(desk.bill.paid_by)].fen == 5_201
    assert desk.reason(too_much) is Reason.REFUND_TOO_LARGE
    unpaid = Desk().opened()
    assert unpaid.reason(too_much) is Reason.WRONG_BILL_STATE


def test_an_unknown_refund_is_never_paid_by_hand() -> None:
    desk = settled()
    desk.gone(Cause.SUSPENDED)
    refund_id = p.own_refund_id(desk.bill.paid_by)
    by_hand = p.RefundAtDesk(desk.new(), refund_id, "r1", "desk")
    assert desk.reason(by_hand) is Reason.REFUND_UNSETTLED
    desk.run(p.RefundOutcomeLost(desk.new(), refund_id))
    assert (desk.to_do, desk.reason(by_hand)) == ([Do.QUERY_REFUND], Reason.REFUND_UNSETTLED)
    desk.run(p.RefundFound(desk.new(), refund_id, Found.NONE))
    assert desk.to_do == [Do.SEND_REFUND]
    desk.run(p.RefundAccepted(desk.new(), refund_id))
    assert (desk.to_do, desk.reason(by_hand)) == ([Do.QUERY_REFUND], Reason.REFUND_UNSETTLED)
    desk.run(p.RefundRefused(desk.new(), refund_id, "ACCOUNT_CLOSED", True))
    assert (desk.to_do, desk.reason(by_hand)) == ([Do.REFUND_BY_HAND], Reason.REFUND_UNSETTLED)
    desk.now += p.BY_HAND_AFTER_MS  # nobody sends it any more
    desk.run(by_hand)
    assert (desk.status, desk.bill.balances["provider/at_hospital"]) == ("refunded", -5_001)
    assert desk.refunded(refund_id) == Refusal(Reason.REFUND_CONTRADICTS)


def test_a_refund_whose_sending_was_refused_is_asked_after_before_the_desk_pays() -> None:
    desk = settled()
    desk.gone(Cause.SUSPENDED)
    refund_id = p.own_refund_id(desk.bill.paid_by)
    refused = p.RefundRefused(desk.new(), refund_id, "NOT_ENOUGH", False)
    desk.run(refused)
    assert desk.run(replace(refused, command_id=desk.new())) == []
    assert desk.to_do == [Do.QUERY_REFUND]
    by_hand = p.RefundAtDesk(desk.new(), refund_id, "r1", "desk")
    assert desk.reason(by_hand) is Reason.REFUND_UNSETTLED
    desk.run(p.RefundFound(desk.new(), refund_id, Found.NONE))
    assert desk.to_do == [Do.REFUND_BY_HAND]
    assert desk.bill.refunds[refund_id].code == "NOT_ENOUGH"
    desk.now += p.BY_HAND_AFTER_MS
    desk.run(by_hand)
    assert desk.status == "refunded"


def test_refunds_that_are_not_ours() -> None:
    desk = settled()
    desk.gone(Cause.SUSPENDED)
    refund_id = p.own_refund_id(desk.bill.paid_by)
    told = p.RefundReported(desk.new(), refund_id, WECHAT, "w1", 5_001, "CNY")
    assert desk.reason(replace(told, fen=5_002)) is Reason.AMOUNT_MISMATCH
    assert desk.reason(replace(told, currency="USD")) is Reason.CURRENCY_MISMATCH
    assert desk.reason(replace(told, provider=ALIPAY)) is Reason.FOREIGN_MERCHANT
    assert desk.reason(replace(told, refund_id=b"?" * 16)) is Reason.NO_SUCH_REFUND
    assert desk.bill.refunds[refund_id].state is Refunding.REQUESTED
    desk.run(told)
    assert desk.run(replace(told, command_id=desk.new())) == []
    contradicts = replace(told, command_id=desk.new(), reference="w2")
    assert desk.reason(contradicts) is Reason.REFUND_CONTRADICTS
    assert desk.reason(p.RefundRefused(desk.new(), refund_id, "X", True)) is Reason.REFUND_CONTRADICTS


def test_a_refused_refund_is_sent_again_under_its_number() -> None:
    desk = settled()
    desk.gone(Cause.SUSPENDED)
    refund_id = p.own_refund_id(desk.bill.paid_by)
    desk.run(p.RefundRefused(desk.new(), refund_id, "NOT_ENOUGH", True))
    retry = p.RetryRefund(desk.new(), refund_id, "desk")
    desk.run(retry)
    assert desk.to_do == [Do.SEND_REFUND]
    desk.run(p.RefundRefused(desk.new(), refund_id, "NOT_ENOUGH", True))
    assert desk.run(retry) == []  # heard twice: once was enough
    assert desk.to_do == [Do.REFUND_BY_HAND]


# Prices.

RULES = PriceRules(
    (FirstVisitDiscount("初诊优惠", 30),), (FreeFollowUp("三日内复诊免费", 3, department_id="0304"),)
)
SEEN = Visitor(False, "0304", "d1", NOW - 2 * DAY, "d1")


def prices(
    visitor: Visitor, coupon: Coupon | None = None, rules: PriceRules = RULES
) -> list[tuple[str, str, int]]:
    found, _ = price((REGISTRATION, DRUG), visitor, rules, NOW, coupon)
    return [(one.rule, one.line_id, one.fen) for one in found]


def test_price_rules_explain_themselves() -> None:
    found, rejected = price((REGISTRATION, DRUG), SEEN, RULES, NOW)
    assert found == (Discount("1", "free_follow_up", "三日内复诊免费", 5_001, 100, NOW + DAY),)
    assert rejected is None
    assert prices(Visitor(is_first_visit=True)) == [("first_visit", "1", 1_501)]
    assert prices(Visitor()) == []


@pytest.mark.parametrize(
    "visitor",
    [
        replace(SEEN, paid_visit_at=NOW - 3 * DAY),
        replace(SEEN, paid_visit_at=NOW + 1),
        replace(SEEN, department_id="0305"),
        replace(SEEN, free_visits=1),
        replace(SEEN, paid_visit_at=0),
    ],
)
def test_a_follow_up_that_is_not_free(visitor: Visitor) -> None:
    assert prices(visitor) == []


def test_a_free_follow_up_with_the_same_practitioner() -> None:
    rules = PriceRules((), (FreeFollowUp("复诊", 3, same_practitioner=True),))
    assert prices(SEEN, rules=rules) == [("free_follow_up", "1", 5_001)]
    assert prices(replace(SEEN, practitioner_id="d2"), rules=rules) == []


def test_coupons() -> None:
    both = (Kind.REGISTRATION, Kind.DRUG)
    ten = Coupon("c1", NOW, NOW + 1, percent=10, kinds=both)
    assert prices(Visitor(), ten) == [("coupon", "1", 501), ("coupon", "2", 120)]
    fixed = Coupon("c2", NOW, NOW + 1, fen=5_500, kinds=both)
    assert prices(Visitor(), fixed) == [("coupon", "1", 5_001), ("coupon", "2", 499)]
    first = Visitor(is_first_visit=True)
    assert prices(first, replace(fixed, fen=9_999)) == [
        ("first_visit", "1", 1_501),
        ("coupon", "1", 3_500),
        ("coupon", "2", 1_200),
    ]
    for bad, why in (
        (replace(ten, begins_at=NOW + 1), "not_yet"),
        (replace(ten, ends_at=NOW), "over"),
        (replace(ten, at_least=6_202), "below"),
        (replace(ten, kinds=(Kind.EXAMINATION,)), "other_kind"),
    ):
        assert price((REGISTRATION, DRUG), Visitor(), RULES, NOW, bad) == ((), Rejected(bad.code, why))


# Smaller things.


def test_postings_of_a_part() -> None:
    assert ledger.earned((("drug", 0),)) == ()
    assert sum(fen for _, fen in ledger.owed_back((("revenue/drug", 3), ("patient", 4)))) == 0


def test_ledger_error_sees_a_fen() -> None:
    desk = settled()
    desk.bill.balances["patient"] += 1
    assert p.ledger_error(desk.bill) == 2
    desk.bill.balances["patient"] -= 1
    desk.bill.attempts[desk.bill.paid_by].received -= 1
    assert p.ledger_error(desk.bill) > 0


def test_a_command_says_the_same_after_its_journey() -> None:
    plain = p.PaymentFound(b"c" * 16, b"a" * 16, "open")
    assert p.digest_of(plain) == p.digest_of(replace(plain, found=Found.OPEN))
    assert p.digest_of(plain) != p.digest_of(replace(plain, by="x"))
    assert p.digest_of(plain) != p.digest_of(p.PaymentFound(b"c" * 16, b"a" * 16, "op", "en"))


def test_time_never_goes_back_and_few_commands_are_remembered() -> None:
    desk = Desk().opened()
    attempt_id = desk.start()
    desk.now = NOW - HOUR
    for _ in range(BILL_COMMANDS_REMEMBERED):
        desk.run(p.PaymentOutcomeLost(desk.new(), attempt_id))
        desk.run(p.PaymentFound(desk.new(), attempt_id, Found.OPEN))
    assert desk.bill.at == NOW
    assert len(desk.bill.commands) == BILL_COMMANDS_REMEMBERED
