"""A day in which both sides say the same, then broken on purpose: exactly those differences, to the fen."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import ids
from engine.domain.reconciliation import (
    Comparison,
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
    of_hospital,
    of_provider,
)

DAY = date(2026, 11, 20)
NEXT = DAY + timedelta(days=1)


@dataclass
class World:
    """Both sides of a day, and what was broken."""

    random: Random
    payments: dict[bytes, Payment]
    refunds: dict[bytes, Refund]
    rows: dict[bytes, list[StatementRow]]
    elsewhere: list[StatementRow]
    broken: Counter[tuple[Kind, Heal, bool]]

    @classmethod
    def whole(cls, random: Random, n: int) -> "World":
        world = cls(random, {}, {}, {}, [], Counter())
        for number in range(n):
            world.pay(number)
            if random.random() < 0.4:
                world.give_back(number)
        return world

    def at(self, day: date = DAY, late: bool = False) -> datetime:
        clock = time(23, 59, 59) if late else time(self.random.randrange(23), self.random.randrange(60))
        return datetime.combine(day, clock, UTC)

    def pay(self, number: int) -> None:
        order, at, fen = ids.derived(b"attempt", bytes([number])), self.at(), self.random.randrange(1, 50_000)
        self.payments[order] = Payment(order, ids.derived(b"bill", order), fen, fen, f"T{number}", at, "paid")
        self.rows[order] = [StatementRow("payment", order, f"T{number}", fen, at, fee_millifen=fen * 6)]

    def give_back(self, number: int) -> None:
        order = ids.derived(b"attempt", bytes([number]))
        payment = self.payments[order]
        refund, at, fen = ids.derived(b"back", order), self.at(), self.random.randrange(1, payment.fen + 1)
        self.refunds[refund] = Refund(refund, order, payment.bill_id, fen, Went.DONE, at, state="done")
        self.rows[refund] = [StatementRow("refund", refund, f"R{number}", fen, at, order)]

    def compared(self, next_day_known: bool = True) -> Comparison:
        rows = [row for rows in self.rows.values() for row in rows]
        self.random.shuffle(rows)
        return of_provider(
            DAY,
            list(self.payments.values()),
            list(self.refunds.values()),
            Statement(tuple(rows)),
            self.elsewhere,
            next_day_known,
        )

    def expect(self, kind: Kind, heal: Heal = Heal.NONE, explained: bool = False) -> None:
        self.broken[kind, heal, explained] += 1

    # Each breaks one payment or refund in one way.

    def lose_the_callback(self, order: bytes) -> None:
        self.payments[order] = replace(self.payments[order], moved=0, reference="", state="asked")
        self.expect(Kind.PAID_UNKNOWN_HERE, Heal.QUERY_AND_REPORT)

    def lose_the_row(self, order: bytes) -> None:
        del self.rows[order]
        is_payment = order in self.payments
        self.expect(Kind.PAID_HERE_UNKNOWN_THERE if is_payment else Kind.REFUND_MISSING_THERE)

    def change_the_amount(self, order: bytes) -> None:
        (row,) = self.rows[order]
        self.rows[order] = [replace(row, fen=row.fen + self.random.randrange(1, 99))]
        self.expect(Kind.AMOUNT_DIFFERS)

    def change_the_reference(self, order: bytes) -> None:
        (row,) = self.rows[order]
        self.rows[order] = [replace(row, reference=f"{row.reference}x")]
        self.expect(Kind.REFERENCE_DIFFERS)

    def repeat(self, order: bytes) -> None:
        (row,) = self.rows[order]
        for n in range(self.random.randrange(1, 4)):
            self.rows[order].append(replace(row, reference=self.random.choice((row.reference, f"again {n}"))))
            self.expect(Kind.PAID_TWICE if order in self.payments else Kind.REFUNDED_TWICE)

    def forget(self, order: bytes) -> None:
        """A row of somebody else's order."""
        (row,) = self.rows.pop(order)
        self.rows[order] = [replace(row, order=self.random.choice((b"", order)), number=order.hex())]
        if order in self.payments:
            del self.payments[order]
            self.expect(Kind.FOREIGN_ROW)
        elif self.refunds.pop(order).payment_order in self.payments:
            self.expect(Kind.REFUND_UNKNOWN_HERE)
        else:
            self.expect(Kind.FOREIGN_ROW)

    def pay_in_dollars(self, order: bytes) -> None:
        (row,) = self.rows[order]
        self.rows[order] = [replace(row, currency="USD")]
        self.expect(Kind.OTHER_CURRENCY)
        is_payment = order in self.payments
        self.expect(Kind.PAID_HERE_UNKNOWN_THERE if is_payment else Kind.REFUND_MISSING_THERE)

    def cross_midnight(self, order: bytes) -> None:
        """Ours is of this day, theirs of the next one."""
        self._own(order, at=self.at(late=True))
        (row,) = self.rows.pop(order)
        self.elsewhere.append(replace(row, at=self.at(NEXT)))
        self.expect(Kind.WRONG_DAY, explained=True)

    def come_from_yesterday(self, order: bytes) -> None:
        self._own(order, at=self.at(DAY - timedelta(days=1), late=True))
        self.expect(Kind.WRONG_DAY, explained=True)

    def time_out_after_it_was_done(self, order: bytes) -> None:
        self.refunds[order] = replace(self.refunds[order], went=Went.OPEN, state="unknown")
        self.expect(Kind.REFUND_UNKNOWN_HERE, Heal.REPORT_REFUND)

    def never_arrive(self, order: bytes) -> None:
        self.refunds[order] = replace(self.refunds[order], went=Went.OPEN, state="unknown")
        del self.rows[order]
        self.expect(Kind.REFUND_MISSING_THERE, Heal.RESEND_REFUND)

    def be_under_way(self, order: bytes) -> None:
        self.refunds[order] = replace(self.refunds[order], went=Went.OPEN, state="sent")
        (row,) = self.rows[order]
        self.rows[order] = [replace(row, state=Went.OPEN)]
        self.expect(Kind.REFUND_UNDER_WAY, Heal.RESEND_REFUND)

    def fail_there(self, order: bytes) -> None:
        (row,) = self.rows[order]
        self.rows[order] = [replace(row, state=Went.FAILED)]
        self.expect(Kind.REFUND_MISSING_THERE)

    def fail_on_both_sides(self, order: bytes) -> None:
        (row,) = self.rows[order]
        self.rows[order] = [replace(row, state=Went.FAILED)]
        self.refunds[order] = replace(self.refunds[order], went=Went.FAILED, state="refused")

    def be_paid_in_cash_as_well(self, order: bytes) -> None:
        self.refunds[order] = replace(self.refunds[order], by_desk=True)
        self.expect(Kind.REFUNDED_TWICE)

    def be_paid_in_cash_instead(self, order: bytes) -> None:
        self.refunds[order] = replace(self.refunds[order], by_desk=True)
        del self.rows[order]

    def _own(self, order: bytes, at: datetime) -> None:
        if order in self.payments:
            self.payments[order] = replace(self.payments[order], at=at)
        else:
            self.refunds[order] = replace(self.refunds[order], at=at)


OF_BOTH = (
    World.lose_the_row,
    World.change_the_amount,
    World.repeat,
    World.pay_in_dollars,
    World.cross_midnight,
    World.come_from_yesterday,
)
OF_PAYMENTS = (*OF_BOTH, World.lose_the_callback, World.change_the_reference)
OF_REFUNDS = (
    *OF_BOTH,
    World.forget,
    World.time_out_after_it_was_done,
    World.never_arrive,
    World.be_under_way,
    World.fail_there,
    World.fail_on_both_sides,
    World.be_paid_in_cash_as_well,
    World.be_paid_in_cash_instead,
)


def told(differences: tuple[Difference, ...]) -> Counter[tuple[Kind, Heal, bool]]:
    return Counter((one.kind, one.heal, one.explained) for one in differences)


def check(world: World, found: Comparison) -> None:
    """The sums, counted here from the sides themselves."""
    rows = [row for rows in world.rows.values() for row in rows if row.currency == "CNY"]
    theirs = {
        money: sum(row.fen for row in rows if row.kind == money and row.state != Went.FAILED)
        for money in Money
    }
    ours = {
        Money.PAYMENT: sum(one.moved for one in world.payments.values() if one.at.date() == DAY),
        Money.REFUND: sum(
            one.fen
            for one in world.refunds.values()
            if one.at.date() == DAY and one.went == Went.DONE and not one.by_desk
        ),
    }
    for money, sides in ((Money.PAYMENT, found.payments), (Money.REFUND, found.refunds)):
        mine = [one for one in found.differences if one.money is money]
        assert ours[money] == sides.matched.fen + sum(one.ours for one in mine)
        assert theirs[money] == sides.matched.fen + sum(one.theirs for one in mine)
        assert (sides.ours.fen, sides.theirs.fen) == (ours[money], theirs[money])
    assert found.agrees
    subjects = [(one.kind, one.subject) for one in found.differences]
    assert len(set(subjects)) == len(subjects)


@given(st.integers(0, 2**32), st.integers(0, 40))
@settings(deadline=None)
def test_a_whole_world_has_no_differences(seed: int, n: int) -> None:
    world = World.whole(Random(seed), n)
    found = world.compared()
    assert found.differences == ()
    assert found.payments.matched == Sum(n, sum(one.fen for one in world.payments.values()))
    assert found.refunds.matched == Sum(len(world.refunds), sum(one.fen for one in world.refunds.values()))
    check(world, found)


@given(st.integers(0, 2**32), st.integers(1, 40), st.floats(0, 1))
@settings(max_examples=400, deadline=None)
def test_what_was_broken_is_found_and_nothing_else(seed: int, n: int, share: float) -> None:
    random = Random(seed)
    world = World.whole(random, n)
    for order in list(world.payments):
        # A payment that is not ours would make its refund foreign as well: not in this test.
        if random.random() < share:
            random.choice(OF_PAYMENTS)(world, order)
    for order in list(world.refunds):
        if random.random() < share:
            random.choice(OF_REFUNDS)(world, order)
    found = world.compared()
    assert told(found.differences) == world.broken
    check(world, found)


@given(st.integers(0, 2**32), st.integers(1, 20))
@settings(deadline=None)
def test_orders_that_no_bill_made_are_foreign(seed: int, n: int) -> None:
    random = Random(seed)
    world = World.whole(random, n)
    for order in random.sample(list(world.payments), random.randrange(1, n + 1)):
        world.forget(order)
    for refund in list(world.refunds):
        if world.refunds[refund].payment_order not in world.payments:
            world.forget(refund)
    found = world.compared()
    assert told(found.differences) == world.broken
    check(world, found)


@given(st.integers(0, 2**32), st.integers(1, 20), st.booleans())
@settings(deadline=None)
def test_without_a_statement_everything_of_that_day_waits_for_it(seed: int, n: int, known: bool) -> None:
    world = World.whole(Random(seed), n)
    found = of_provider(DAY, world.payments.values(), world.refunds.values(), None, (), known)
    moneys = [one.money for one in found.differences]
    assert {one.kind for one in found.differences} == {Kind.STATEMENT_MISSING}
    assert moneys == [Money.PAYMENT, Money.REFUND][: 2 if world.refunds else 1]
    assert found.agrees


@given(st.integers(0, 2**32), st.integers(1, 20))
@settings(deadline=None)
def test_shortly_before_midnight_the_next_day_is_waited_for(seed: int, n: int) -> None:
    world = World.whole(Random(seed), n)
    for order in (*world.payments, *world.refunds):
        world._own(order, world.at(late=True))
        del world.rows[order]
    waiting = world.compared(next_day_known=False)
    assert {(one.kind, one.explained) for one in waiting.differences} == {(Kind.WRONG_DAY, False)}
    missing = world.compared(next_day_known=True)
    assert {one.kind for one in missing.differences} <= {
        Kind.PAID_HERE_UNKNOWN_THERE,
        Kind.REFUND_MISSING_THERE,
    }
    assert waiting.agrees and missing.agrees


@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 1))
@settings(deadline=None)
def test_the_hospital_is_told_or_tells_more(seed: int, n: int, share: float) -> None:
    random = Random(seed)
    world = World.whole(random, n)
    expected: Counter[tuple[Kind, Heal]] = Counter()
    for order in (*world.payments, *world.refunds):
        if random.random() < share:
            if random.random() < 0.5:
                del world.rows[order]
                expected[Kind.HOSPITAL_NOT_TOLD, Heal.TELL_HOSPITAL] += 1
            else:
                world.rows[order] *= 2
                expected[Kind.HOSPITAL_TELLS_MORE, Heal.NONE] += 1
    rows = [replace(row, reference="a receipt") for rows in world.rows.values() for row in rows]
    payments = [replace(one, reference="") for one in world.payments.values()]
    found = of_hospital(DAY, payments, world.refunds.values(), Statement(tuple(rows)), (), True)
    assert Counter((one.kind, one.heal) for one in found.differences) == expected
    assert found.agrees
