"""A bill's actor by itself: decide, apply, journal, reply, and nothing between."""

import asyncio
from dataclasses import replace

import pytest

from actors.bill_host import BillHost
from actors.host import Rules
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.journal.group_commit import Work
from engine.journal.journal import Entry, Loaded
from tests.support.bills import Ids, opens, pays
from tests.support.stores import uid

SEAT, ATTEMPT = uid("seat"), uid("attempt")
NOW = 1_800_000_000_000
KEY = BillKey(SEAT)


class Alone:
    """A host without a shard: what it decides is taken as written at once."""

    def __init__(self, rules: Rules | None = None, loaded: Loaded | None = None) -> None:
        self.rules = rules or Rules(Policy(), lambda: 7)
        self.host = BillHost(KEY, loaded or Loaded([]), NOW, self.rules)
        self.loop = asyncio.new_event_loop()
        self.journal: list[Entry] = []

    def work(self, command: p.Command) -> Work:
        work = Work(self.host, command, NOW, self.loop.create_future())
        self.host.settle(work)
        self.journal += work.entries
        return work

    def reply(self, command: p.Command) -> p.Answer:
        reply = self.work(command).reply
        assert isinstance(reply, p.Answer), reply
        return reply


def test_a_command_is_written_once_and_its_rows_with_its_last_event() -> None:
    alone, new = Alone(), Ids()
    alone.work(opens(new, SEAT, NOW))
    for command in pays(new, ATTEMPT):
        alone.work(command)
    assert [type(entry.event).__name__ for entry in alone.journal] == [
        *("CommandTaken", "BillOpened", "CommandTaken", "PaymentStarted", "CommandTaken", "PaymentReceived")
    ]
    assert [entry.more is not None for entry in alone.journal] == [False, True] * 3
    assert {entry.stream for entry in alone.journal} == {f"bill/{SEAT.hex()}"}
    last = alone.journal[-1].more
    assert last is not None and last.postings == [
        [SEAT.hex(), 6, 1, NOW, "provider/wechat_pay", 5_000],
        [SEAT.hex(), 6, 2, NOW, "patient", -5_000],
    ]
    assert last.due == [["bill", SEAT.hex(), {}, 0]], "the seat is to be booked at once"
    assert not any(entry.gains or entry.drops or entry.row for entry in alone.journal)


def test_a_reply_says_as_of_when_it_is_also_the_second_time() -> None:
    alone, new = Alone(), Ids()
    opening, (start, report) = opens(new, SEAT, NOW), pays(new, ATTEMPT)
    assert [alone.reply(one).seen for one in (opening, start, report)] == [2, 4, 6]
    written = len(alone.journal)
    again = alone.reply(opening)
    assert (again.status, again.seen, len(alone.journal)) == ("paid", 6, written)


def test_what_is_refused_is_written_nowhere() -> None:
    alone, new = Alone(), Ids()
    alone.work(opens(new, SEAT, NOW))
    start, report = pays(new, ATTEMPT)
    alone.work(start)
    written = len(alone.journal)
    assert isinstance(report, p.PaymentReported)
    for command, reason in (
        (replace(report, fen=4_999), Reason.AMOUNT_MISMATCH),
        (replace(report, merchant_id="1900000999"), Reason.FOREIGN_MERCHANT),
        (replace(report, currency="USD"), Reason.CURRENCY_MISMATCH),
        (replace(report, attempt_id=uid("other")), Reason.NO_SUCH_PAYMENT),
        (opens(new, uid("other"), NOW), Reason.BILL_UNFIT),
    ):
        reply = alone.work(command).reply
        assert isinstance(reply, Refusal) and reply.reason is reason
    assert len(alone.journal) == written


def test_a_bill_that_was_read_again_is_the_one_that_was_written() -> None:
    alone, new = Alone(), Ids()
    for command in (opens(new, SEAT, NOW), *pays(new, ATTEMPT)):
        alone.work(command)
    again = Alone(loaded=Loaded([entry.event for entry in alone.journal]))
    assert again.host.state == alone.host.state
    assert (again.host.version, again.host.applied) == (6, 6)
    assert again.reply(p.SeatTaken(new(), SEAT)).seen == 9


def test_the_hospitals_own_terms_hold_from_the_moment_they_are_read() -> None:
    rules = Rules(Policy(), lambda: 7)
    alone, new = Alone(rules), Ids()
    alone.work(opens(new, SEAT, NOW))
    rules.policy = Policy(money=p.MoneyTerms(at_hospital=p.AtHospital(fen_max=100)))
    refused = alone.work(p.PayAtHospital(new(), 0)).reply
    assert isinstance(refused, Refusal) and refused.detail == {"why": "amount", "limit": 100}
    rules.policy = Policy()
    assert alone.reply(p.PayAtHospital(new(), 1_000)).status == "at_hospital"


def test_it_rests_as_soon_as_all_is_written() -> None:
    alone = Alone()
    assert alone.host.is_idle
    alone.host.unsettled = 1
    assert not alone.host.is_idle


def test_a_bill_holds_no_claims_that_could_be_lost() -> None:
    alone, new = Alone(), Ids()
    work = alone.work(opens(new, SEAT, NOW))
    alone.host.granted(work)
    with pytest.raises(AssertionError, match="a bill has no claims, yet OpenBill lost one"):
        alone.host.undo(work, Reason.SLOT_FULL)
