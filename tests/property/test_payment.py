"""Bills among providers, schedules and people that fail: what must hold after every event, and at the end.

`World` has the truth: orders at the providers, seats of one slot, cash. The bill learns of it by callbacks
(one to five times, in any order, some lost, some forged), by queries and by the schedule. Then it is healed:
nobody does anything new, every errand is run until none is left.
"""

import copy
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import ledger
from engine.domain import payment as p
from engine.domain.payment import Do, Errand, Found, Paying, Refunding, Seat, Via
from engine.domain.price_rules import Discount, Kind, Line
from engine.domain.refund_rules import Cause, RefundRules, RefundTerms
from engine.domain.refusal import Reason, Refusal

START = 1_800_000_000_000
MINUTE = 60_000
BILL = b"bill".ljust(16, b".")
FIRST = b"appointment".ljust(16, b".")
OURS = {"wechat_pay": "1900000109", "alipay": "2088000000000001"}
"""Our merchant numbers there."""
TERMS = p.MoneyTerms(
    refunds=RefundRules(
        {("", ""): RefundTerms(((24 * 60, 100), (60, 50), (0, 25))), ("strict", ""): RefundTerms((), 0)}
    ),
)


def opened(rng: random.Random, seat: bool = True, free: bool = False) -> p.OpenBill:
    lines = [Line("1", Kind.REGISTRATION, "expert", rng.randint(1, 9_999))]
    if rng.random() < 0.4:
        lines.append(Line("2", Kind.DRUG, "d7", rng.randint(0, 333), 3))
    discounts = [Discount("1", "coupon", "c1", lines[0].fen // 3)] if lines[0].fen >= 3 else []
    if free:
        discounts = [Discount(line.line_id, "free_follow_up", "f", line.fen) for line in lines if line.fen]
    return p.OpenBill(
        b"open".ljust(16, b"."),
        BILL,
        b"a" * 16,
        b"p" * 16,
        "order-1",
        tuple(lines),
        tuple(discounts),
        appointment_id=FIRST if seat else b"",
        starts_at=START + 26 * 60 * MINUTE if seat else 0,
        pay_by=START + 15 * MINUTE,
        department_id=rng.choice(["0304", "strict"]),
    )


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = START
        self.bill = p.Bill()
        self.journal: list[p.Event] = []
        self.ids = 0
        self.orders: dict[bytes, dict[str, int | str]] = {}  # at the providers
        self.paid_back: dict[bytes, str] = {}  # refund -> processing | done | refused, at the providers
        self.till = 0  # cash at the desk
        self.seats: dict[bytes, str] = {}  # held | booked | gone
        self.gone: dict[bytes, tuple[str, int]] = {}  # why and when
        self.free = self.rng.choice([0, 0, 1, 2])
        self.inbox: list[p.Command] = []
        self.zombies: list[tuple[Errand, int]] = []  # somebody works on these since then
        self.said: list[p.Command] = []
        self.staff_gave = 0
        has_seat = self.rng.random() < 0.85
        if has_seat:
            self.seats[FIRST] = "held"
        self.run(opened(self.rng, has_seat, self.rng.random() < 0.05))
        assert self.bill.opened is not None
        self.terms_of_refund = self.bill.opened.refund_tiers

    def new(self) -> bytes:
        self.ids += 1
        return b"id" + self.ids.to_bytes(14, "big")

    # What must hold of every command.

    def run(self, command: p.Command) -> list[p.Event] | Refusal:
        outcome = p.decide(self.bill, command, self.now, TERMS)
        if isinstance(outcome, Refusal):
            return outcome
        for event in outcome:
            assert sum(fen for _, fen in p.postings(event)) == 0
            p.apply(self.bill, event)
            self.journal.append(event)
            assert ledger.imbalance(self.bill.balances) == 0
        assert p.ledger_error(self.bill) == 0
        assert p.decide(self.bill, command, self.now + 1, TERMS) == [], "said again it does something again"
        if outcome:
            self.said.append(command)
        return outcome

    def later(self, command: p.Command) -> None:
        """Told at least once; nobody knows when, and how often."""
        self.inbox += [command] * self.rng.choice([1, 1, 1, 2, 5])

    def callback(self, command: p.Command) -> None:
        if self.rng.random() >= 0.2:
            self.later(command)

    # What people and others do.

    def step(self) -> None:
        kinds = {
            self.start: 5,
            self.patient_pays: 6,
            self.hold_ends: 2,
            self.somebody_books: 1,
            self.somebody_cancels: 1,
            self.seat_given_up: 1,
            self.time_goes: 3,
            self.deliver: 8,
            self.work: 8,
            self.zombie: 1,
            self.forge: 1,
            self.desk: 1,
            self.staff_refund: 1,
            self.repeat: 1,
            self.restart: 1,
        }
        self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def start(self) -> None:
        provider = self.rng.choice([*OURS])
        self.run(p.StartPayment(self.new(), self.new(), provider, OURS[provider]))

    def patient_pays(self) -> None:
        """Also on a page that he left open."""
        can = [one for one, order in self.orders.items() if order["state"] == "open"]
        if can:
            attempt_id = self.rng.choice(can)
            order = self.orders[attempt_id]
            order["state"] = "paid"
            order["txn"] = f"t{attempt_id.hex()}"
            if self.rng.random() < 0.05:
                order["fen"] = int(order["fen"]) + self.rng.choice([-1, 1, 500])
                if int(order["fen"]) <= 0:
                    order["fen"] = 1_000
            self.callback(self.report(attempt_id, Via.CALLBACK))

    def report(self, attempt_id: bytes, via: Via) -> p.PaymentReported:
        order = self.orders[attempt_id]
        provider = str(order["provider"])
        return p.PaymentReported(
            self.new(),
            attempt_id,
            provider,
            OURS[provider],
            str(order["txn"]),
            int(order["fen"]),
            "CNY",
            via,
            self.now,
        )

    def hold_ends(self) -> None:
        """The schedule's sweeper, some time after the hold has ended."""
        opened = self.bill.opened
        assert opened is not None
        if self.seats.get(FIRST) == "held" and self.now >= opened.pay_by:
            self.seat_goes(FIRST, Cause.EXPIRED)

    def seat_goes(self, appointment_id: bytes, cause: str) -> None:
        was, self.seats[appointment_id] = self.seats[appointment_id], "gone"
        self.gone[appointment_id] = cause, self.now
        self.free += 1
        if was != "held" or self.rng.random() < 0.8:  # else: as if before the bill was opened
            self.later(p.SeatGone(self.new(), appointment_id, cause, self.now))

    def somebody_books(self) -> None:
        self.free = max(0, self.free - 1)

    def somebody_cancels(self) -> None:
        self.free += 1

    def seat_given_up(self) -> None:
        can = [one for one, state in self.seats.items() if state in ("held", "booked")]
        if can and self.rng.random() < 0.3:
            booked = [Cause.CANCELLED, Cause.EXCUSED, Cause.SUSPENDED, Cause.NO_SHOW]
            one = self.rng.choice(can)
            self.seat_goes(one, self.rng.choice(booked if self.seats[one] == "booked" else booked[:3]))

    def time_goes(self) -> None:
        self.now += self.rng.choice([1, MINUTE, 10 * MINUTE, 10 * 60 * MINUTE])

    def deliver(self) -> None:
        if self.inbox:
            self.run(self.inbox.pop(self.rng.randrange(len(self.inbox))))

    def work(self) -> None:
        found = p.errands(self.bill)
        if found:
            errand = self.rng.choice(found)
            if self.rng.random() < 0.1:
                self.zombies.append((errand, self.now))
            self.do(errand, self.rng.choice(["", "", "", "busy", "lost", "unheard"]))

    def zombie(self) -> None:
        """A worker that was thought dead does what was to be done long ago."""
        if self.zombies:
            errand, since = self.zombies.pop(self.rng.randrange(len(self.zombies)))
            if errand.do == Do.SEND_REFUND and self.now >= since + p.BY_HAND_AFTER_MS:
                return  # its connector's deadline has passed
            if errand.do in (Do.BOOK_SEAT, Do.RETAKE_SEAT, Do.SEND_REFUND, Do.CLOSE_PAYMENT, Do.ASK_PREPAY):
                self.do(errand, "")

    def forge(self) -> None:
        """Signed by somebody, but not about our money."""
        before = copy.deepcopy(self.bill)
        refunds = list(self.bill.refunds)
        attempts = [one for one in self.bill.attempts if one in self.orders]
        if attempts:
            attempt_id = self.rng.choice(attempts)
            provider = str(self.orders[attempt_id]["provider"])
            fen = self.bill.attempts[attempt_id].fen
            good = p.PaymentReported(
                self.new(),
                attempt_id,
                provider,
                OURS[provider],
                "forged",
                fen,
                "CNY",
                Via.CALLBACK,
            )
            for bad in (
                replace(good, merchant_id="1900000999"),
                replace(good, currency="USD"),
                replace(good, fen=fen + 1),
                replace(good, fen=-fen),
                replace(good, provider="alipay" if provider == "wechat_pay" else "wechat_pay"),
                replace(good, attempt_id=self.new()),
            ):
                assert isinstance(self.run(bad), Refusal)
        for refund_id in refunds:
            refund = self.bill.refunds[refund_id]
            provider = self.bill.attempts[refund.attempt_id].provider
            told = p.RefundReported(self.new(), refund_id, provider, "forged", refund.fen + 1, "CNY")
            assert isinstance(self.run(told), Refusal)
        assert self.bill == before

    def desk(self) -> None:
        opened = self.bill.opened
        assert opened is not None
        if self.rng.random() < 0.3:
            self.run(p.PayAtHospital(self.new(), self.rng.randint(0, 2)))
        elif self.rng.random() < 0.3:
            fen = opened.fen + self.rng.choice([0, 0, 1])
            took = self.run(p.TakeAtDesk(self.new(), self.new(), f"r{self.ids}", fen, "desk"))
            if took and not isinstance(took, Refusal):
                self.till += fen
        elif not self.bill.appointment_id:
            self.run(p.CloseBill(self.new(), "withdrawn", "desk"))

    def staff_refund(self) -> None:
        left = {line: fen for line, fen in p.left_of(self.bill).items() if fen}
        if left and self.rng.random() < 0.3:
            line, fen = self.rng.choice(sorted(left.items()))
            fen = self.rng.choice([1, fen, fen + 1])
            gave = self.run(p.RequestRefund(self.new(), self.new(), ((line, fen),), "not_dispensed", "desk"))
            if fen > left[line]:
                assert isinstance(gave, Refusal)
            if not isinstance(gave, Refusal):
                self.staff_gave += fen

    def repeat(self) -> None:
        """Any old command, once more."""
        if self.said:
            before = copy.deepcopy(self.bill)
            assert self.run(self.rng.choice(self.said)) == []
            assert self.bill == before

    def restart(self) -> None:
        assert p.replay(self.journal) == self.bill

    # The errands, as connectors and schedules answer them. "busy": not done; "lost": done, and the answer is
    # lost; "unheard": not done, but nobody knows.

    def do(self, errand: Errand, fault: str) -> None:
        if fault == "busy":
            return
        subject, lost = errand.subject, fault in ("lost", "unheard")
        done = fault != "unheard"
        match errand.do:
            case Do.ASK_PREPAY:
                attempt = self.bill.attempts[subject]
                if done and subject not in self.orders:
                    order = {"provider": attempt.provider, "fen": attempt.fen, "state": "open", "txn": ""}
                    self.orders[subject] = order
                if lost:
                    self.run(p.PaymentOutcomeLost(self.new(), subject))
                elif self.orders[subject]["state"] == "open":
                    self.run(p.PrepayAnswered(self.new(), subject, "prepay"))
                else:
                    self.run(p.PrepayRefused(self.new(), subject, "ORDERPAID"))
            case Do.QUERY_PAYMENT | Do.CLOSE_PAYMENT:
                order = self.orders.setdefault(subject, {"provider": "", "state": "none"})
                if order["state"] == "none":
                    del self.orders[subject]
                if errand.do == Do.CLOSE_PAYMENT:
                    if done and order["state"] == "open":
                        order["state"] = "closed"
                    if lost:
                        self.run(p.PaymentOutcomeLost(self.new(), subject))
                        return
                if lost:
                    return
                if order["state"] == "paid":
                    self.run(self.report(subject, Via.QUERY))
                elif errand.do == Do.CLOSE_PAYMENT:
                    self.run(p.PaymentFound(self.new(), subject, Found.CLOSED))
                else:
                    self.run(p.PaymentFound(self.new(), subject, str(order["state"])))
            case Do.LOOK_AT_SEAT:
                if self.now < errand.due:
                    return
                if self.rng.random() < 0.5:  # the sweeper was there
                    self.hold_ends()
                match self.seats[subject]:
                    case "booked":
                        self.run(p.SeatTaken(self.new(), subject))
                    case "gone":
                        cause, at = self.gone[subject]
                        self.run(p.SeatGone(self.new(), subject, cause, at))
            case Do.BOOK_SEAT:
                if self.seats[subject] in ("held", "booked"):
                    if done:
                        self.seats[subject] = "booked"
                    if not lost:
                        self.run(p.SeatTaken(self.new(), subject))
                elif subject in self.gone and not lost:
                    cause, at = self.gone[subject]
                    self.run(p.SeatGone(self.new(), subject, cause, at))
            case Do.RETAKE_SEAT:
                again = errand.successor
                if self.seats.get(again) != "booked":
                    if self.seats.get(again) == "gone" or not self.free:
                        if not lost:
                            self.run(p.SeatGone(self.new(), subject, Cause.FULL, self.now))
                        return
                    if done:
                        self.seats[again] = "booked"
                        self.free -= 1
                if not lost or errand not in p.errands(self.bill):
                    self.run(p.SeatTakenAgain(self.new(), subject))
            case Do.RELEASE_SEAT:
                if done and self.seats.get(subject) in ("held", "booked"):
                    self.seats[subject] = "gone"
                    self.free += 1
                if not lost:
                    self.run(p.SeatGone(self.new(), subject, Cause.CANCELLED, self.now))
            case Do.SEND_REFUND | Do.QUERY_REFUND:
                self.refund(errand, fault)
            case Do.REFUND_BY_HAND:
                refund = self.bill.refunds[subject]
                in_cash = self.bill.attempts[refund.attempt_id].provider == p.AT_HOSPITAL
                if not in_cash and self.rng.random() < 0.3:
                    self.paid_back.pop(subject, None)
                    self.run(p.RetryRefund(self.new(), subject, "desk"))
                    return
                gave = self.run(p.RefundAtDesk(self.new(), subject, f"r{self.ids}", "desk"))
                if gave and not isinstance(gave, Refusal):
                    self.till -= refund.fen
            case Do.CLOSE_BILL:
                if self.now >= errand.due:
                    self.run(p.CloseBill(self.new(), Cause.EXPIRED))
            case _:
                raise AssertionError(errand)

    def refund(self, errand: Errand, fault: str) -> None:
        subject = errand.subject
        refund = self.bill.refunds[subject]
        sends = errand.do == Do.SEND_REFUND
        provider = self.bill.attempts[refund.attempt_id].provider
        if sends and not fault and self.rng.random() < 0.1:
            # It has it already, or has no money to give.
            self.run(p.RefundRefused(self.new(), subject, "NOT_NOW", False))
            return
        if sends and fault != "unheard" and subject not in self.paid_back:
            self.paid_back[subject] = self.rng.choice(["processing", "done", "done", "done", "refused"])
            if self.paid_back[subject] == "done" and self.rng.random() < 0.5:
                self.callback(
                    p.RefundReported(self.new(), subject, provider, subject.hex(), refund.fen, "CNY")
                )
        if fault:
            if sends:
                self.run(p.RefundOutcomeLost(self.new(), subject))
            return
        match self.paid_back.get(subject):
            case "processing":
                if not sends:
                    self.paid_back[subject] = "done"
                self.run(p.RefundAccepted(self.new(), subject))
            case "done":
                self.run(p.RefundReported(self.new(), subject, provider, subject.hex(), refund.fen, "CNY"))
            case "refused":
                self.run(p.RefundRefused(self.new(), subject, "ACCOUNT_CLOSED", True))
            case None:
                self.run(p.RefundFound(self.new(), subject, Found.NONE))
            case other:
                raise AssertionError(other)

    # The end.

    def heal(self) -> None:
        while self.zombies:
            self.zombie()
        for _ in range(60):
            while self.inbox:
                self.deliver()
            waits = [
                errand
                for errand in p.errands(self.bill)
                if not (errand.do == Do.QUERY_PAYMENT and self.is_left_alone(errand.subject))
            ]
            if not waits:
                return
            self.now = max(self.now, *(errand.due for errand in waits))
            for errand in waits:
                if errand in p.errands(self.bill):
                    self.do(errand, "")
        raise AssertionError(f"never at rest: {p.errands(self.bill)}")

    def is_left_alone(self, attempt_id: bytes) -> bool:
        """The patient was sent to pay, and has not."""
        asked = self.bill.attempts[attempt_id].state is Paying.ASKED
        return asked and self.orders.get(attempt_id, {}).get("state") == "open"

    def check_end(self) -> None:
        bill = self.bill
        assert bill.opened is not None
        balances = bill.balances
        assert all(balances.get(one, 0) == 0 for one in ledger.TRANSIENT), balances
        kept_outside = Counter[str]()
        for order in self.orders.values():
            if order["state"] == "paid":
                kept_outside[str(order["provider"])] += int(order["fen"])
        for refund_id, state in self.paid_back.items():
            refund = bill.refunds[refund_id]
            if state == "done":
                kept_outside[bill.attempts[refund.attempt_id].provider] -= refund.fen
        kept_outside[p.AT_HOSPITAL] = self.till
        for provider in (*OURS, p.AT_HOSPITAL):
            assert balances.get(ledger.of_provider(provider), 0) == kept_outside[provider], provider
        for attempt_id, order in self.orders.items():
            paid = order["state"] == "paid"
            assert (bill.attempts[attempt_id].state is Paying.PAID) == paid
            if paid and not bill.attempts[attempt_id].is_matched:
                assert bill.refunds[p.own_refund_id(attempt_id)].fen == order["fen"]
        assert all(refund.state is Refunding.DONE for refund in bill.refunds.values())
        told = p.told(bill)
        booked = [one for one, state in self.seats.items() if state == "booked"]
        if booked:
            assert booked == [bill.appointment_id] and bill.seat is Seat.TAKEN
            assert told.status in ("settled", "at_hospital", "partly_refunded", "refunded")
            assert told.refunded == self.staff_gave, "seat and refund"
            assert told.paid == told.fen or bill.is_deferred
        elif bill.appointment_id and told.paid:
            by_rule = bill.is_settled and bill.closed in (Cause.CANCELLED, Cause.NO_SHOW)
            assert by_rule or told.refunded == told.paid, "neither seat nor refund"
            assert told.refunded + told.kept == told.paid
        elif told.paid:
            assert told.status == "settled" or told.refunded == self.staff_gave
        assert -sum(fen for one, fen in balances.items() if one.startswith("revenue/")) == (
            told.paid - told.refunded
        )
        assert p.replay(self.journal) == bill


SEEDS = 200
RUNS = 10


@pytest.mark.parametrize("part", range(RUNS))
def test_every_paid_fen_ends_as_service_or_refund(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        world = World(seed)
        try:
            for _ in range(world.rng.choice([5, 20, 40, 80])):
                world.step()
            world.heal()
            world.check_end()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def test_the_worlds_meet_what_they_are_for() -> None:
    """A world in which nothing happens proves nothing."""
    met = Counter[str]()
    for seed in range(400):
        world = World(seed)
        for _ in range(60):
            world.step()
        world.heal()
        for event in world.journal:
            met[type(event).__name__] += 1
            if isinstance(event, p.PaymentReceived):
                met[f"{event.is_matched} {event.why}"] += 1
            if isinstance(event, p.SeatLost):
                met[event.cause] += 1
            if isinstance(event, p.SeatChanged):
                met["taken again"] += 1
    wanted = {
        *(kind.__name__ for kind in p.Event.__args__),
        *("True ", "True late", "False late", "False double", "False amount", "taken again"),
        *(Cause.FULL, Cause.CANCELLED, Cause.EXCUSED, Cause.SUSPENDED, Cause.NO_SHOW),
    }
    assert wanted - met.keys() == set()


# Any command at all, in any order: nothing raises, nothing is doubled.

IDS = st.sampled_from([FIRST, p.retaken_id(FIRST), *(bytes([n]) * 16 for n in range(1, 5))])
WORDS = st.sampled_from([*OURS, p.AT_HOSPITAL, *Found, *Cause, *Via, "", "1900000109", "CNY", "1"])
FEN = st.sampled_from([0, -1, 1, 100, 5_000, START, START + 20 * MINUTE])
TYPES: dict[object, st.SearchStrategy[object]] = {
    bytes: IDS,
    str: WORDS,
    int: FEN,
    bool: st.booleans(),
    tuple[tuple[str, int], ...]: st.lists(st.tuples(st.sampled_from(["1", "2"]), FEN), max_size=2).map(tuple),
}
KINDS = [kind for kind in p.Command.__args__ if kind is not p.OpenBill]
COMMANDS = st.one_of(
    *(st.builds(kind, **{name: TYPES[hint] for name, hint in kind.__annotations__.items()}) for kind in KINDS)
)
OPEN = p.OpenBill(
    b"open".ljust(16, b"."),
    BILL,
    b"a" * 16,
    b"p" * 16,
    "order-1",
    (Line("1", Kind.REGISTRATION, "expert", 5_000),),
    appointment_id=FIRST,
    starts_at=START + 60 * MINUTE,
    pay_by=START + 15 * MINUTE,
)


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(st.tuples(COMMANDS, st.integers(0, 90)), max_size=30))
def test_any_commands_in_any_order(is_open: bool, commands: list[tuple[p.Command, int]]) -> None:
    bill = p.Bill()
    journal: list[p.Event] = []
    for command, minutes in [(OPEN, 0), *commands] if is_open else commands:
        now = START + minutes * MINUTE
        before = copy.deepcopy(bill)
        outcome = p.decide(bill, command, now, TERMS)
        assert bill == before, "decide changed the state"
        if isinstance(outcome, Refusal):
            continue
        for event in outcome:
            p.apply(bill, event)
            journal.append(event)
        assert p.ledger_error(bill) == 0
        if outcome:
            assert p.decide(bill, command, now, TERMS) == []
            other = replace(command, by="somebody else")
            assert p.decide(bill, other, now, TERMS) == Refusal(Reason.KEY_REUSED)
        p.errands(bill)
    assert p.replay(journal) == bill
