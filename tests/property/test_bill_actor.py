"""Bills and numbers as actors of one shard, with patients, a provider and workers that all fail alone.

Every number is a real one of a hosted day, every bill a hosted bill, and what is to be done next are the
errands that their commits have written. Shards are killed in the middle, callbacks come late, twice or never,
workers die before they tell what they have done. Then all errands are done, and every fen that the provider
has is a service's, and no number is booked that nobody has paid.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from actors.host import Host
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.ids import BillKey
from engine.domain.payment import Do, Found, Via
from engine.domain.price_rules import Kind, Line
from engine.domain.refund_rules import Cause, cause_of
from engine.domain.refusal import Reason, Refusal
from engine.journal.codec import pack_asks, unpack_replies
from tests.support.bills import MERCHANT, WECHAT, check_bill, history
from tests.support.rooms import bury, time_comes
from tests.support.stores import LAVISH, Clock, MemoryWorld, Served, audit, doctor, plan, uid

FAMOUS = doctor(1, "2027-01-15")
NIGHT = 1_800_000_000_000
DAY_MS = 86_400_000
MINUTE = 60_000
PATIENTS = 4
FEE = 5_000
SEEDS = 120
WORLDS = 30  # of each test


class Again(Exception):
    """The errand is not done yet."""


class Clinic:
    """Two slots with two seats each, and more people who want them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.world = MemoryWorld(Clock(NIGHT))
        self.store = self.world.store
        self.served: Served
        self.ids = 0
        self.numbers: dict[bytes, tuple[bytes, bytes]] = {}  # appointment -> account, patient
        self.orders: dict[bytes, dict[str, Any]] = {}  # at the provider
        self.given_back: dict[bytes, tuple[bytes, int]] = {}  # refund -> attempt, fen
        self.inbox: list[tuple[bytes, p.Command]] = []
        self.met: Counter[str] = Counter()

    async def open(self) -> None:
        await self.world.publish(FAMOUS, plan(NIGHT + 3 * DAY_MS, 2, 2))
        await self.world.register([(account(n), patient(n)) for n in range(PATIENTS)])
        await self.serve()

    async def serve(self) -> None:
        self.served = await Served.open(self.world, policy=LAVISH)
        for _ in range(3):
            await asyncio.sleep(0)  # its tasks begin

    def new(self) -> bytes:
        self.ids += 1
        return uid("id", self.ids)

    @property
    def now(self) -> int:
        return self.world.clock()

    async def ask(self, stream: str, command: Any) -> Any:
        """None: nobody knows whether it was done, since the shard was killed."""
        asked = asyncio.ensure_future(self.served.shard.ask(pack_asks([(stream, 60_000, command)])))
        if self.rng.random() < 0.03:
            for _ in range(self.rng.randrange(6)):
                await asyncio.sleep(0)
            if not asked.done():
                await self.kill()
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
                self.met["killed"] += 1
                return None
        [reply] = unpack_replies(await self.served.unless_dead(asked))
        return reply

    async def kill(self) -> None:
        await bury(self.served)
        await self.serve()

    async def tell(self, bill_id: bytes, command: p.Command) -> Any:
        return await self.ask(BillKey(bill_id).stream, command)

    async def bill(self, bill_id: bytes) -> p.Bill:
        return p.replay(await history(self.world, bill_id))

    # What people do.

    async def step(self) -> None:
        kinds: dict[Callable[[], Any], int] = {
            self.hold: 5,
            self.open_bill: 6,
            self.start: 6,
            self.pay: 8,
            self.defer: 1,
            self.cancel: 2,
            self.change: 2,
            self.suspend_or_resume: 1,
            self.miss: 1,
            self.time_goes: 3,
            self.deliver: 8,
            self.forge: 1,
            self.work: 12,
        }
        await self.rng.choices([*kinds], [*kinds.values()])[0]()

    async def hold(self) -> None:
        n = self.rng.randrange(PATIENTS)
        appointment_id = self.new()
        self.numbers[appointment_id] = account(n), patient(n)
        clock = self.rng.choice(["0800", "0830"])
        await self.ask(FAMOUS.stream, s.HoldSeat(appointment_id, clock, patient(n), account(n)))

    async def open_bill(self) -> None:
        """For a number that this caller has read as held: it may have ended since."""
        appointment_id = self.one_of(self.held())
        if appointment_id:
            row = self.store.appointments[appointment_id]
            self.met["opened late"] += row.status != s.Status.PENDING
            opening = p.OpenBill(
                uid("open", int.from_bytes(appointment_id[8:], "big")),
                appointment_id,
                row.account_id,
                row.patient_id,
                appointment_id.hex(),
                (Line("1", Kind.REGISTRATION, "expert", FEE),),
                appointment_id=appointment_id,
                starts_at=row.starts_at,
                pay_by=row.hold_until,
                department_id="cardio",
            )
            await self.tell(appointment_id, opening)

    def held(self) -> list[bytes]:
        """Or was a moment ago. What is held for a change is paid by the bill of what it replaces."""
        ended = s.Status.CANCELLED if self.rng.random() < 0.2 else s.Status.PENDING
        rows = self.store.appointments.values()
        found = [row.id for row in rows if row.status in (s.Status.PENDING, ended)]
        return [id_ for id_ in found if id_ not in self.store.held_for and id_.hex() not in self.store.bills]

    def bills(self) -> list[bytes]:
        return [bytes.fromhex(bill_id) for bill_id in self.store.bills]

    def one_of(self, among: list[bytes]) -> bytes:
        return self.rng.choice(among) if among else b""

    async def start(self) -> None:
        bill_id = self.one_of(self.bills())
        if bill_id:
            attempt_id = self.new()
            told = await self.tell(bill_id, p.StartPayment(self.new(), attempt_id, WECHAT, MERCHANT))
            if isinstance(told, p.Answer) and self.rng.random() < 0.8:
                await self.ask_prepay(bill_id, attempt_id, self.fault())

    async def defer(self) -> None:
        bill_id = self.one_of(self.bills())
        if bill_id:
            await self.tell(bill_id, p.PayAtHospital(self.new(), 0))

    async def pay(self) -> None:
        """Also on a page that was left open."""
        attempt_id = self.one_of([id_ for id_, order in self.orders.items() if order["state"] == "open"])
        if attempt_id:
            order = self.orders[attempt_id]
            order["state"] = "paid"
            if self.rng.random() < 0.8:  # else the callback is lost
                self.inbox += [(order["bill"], self.paid(attempt_id, Via.CALLBACK))] * self.rng.choice(
                    [1, 1, 3]
                )

    def paid(self, attempt_id: bytes, via: Via) -> p.PaymentReported:
        transaction = f"t{attempt_id.hex()}"
        return p.PaymentReported(
            self.new(), attempt_id, WECHAT, MERCHANT, transaction, FEE, "CNY", via, self.now
        )

    async def cancel(self) -> None:
        appointment_id = self.one_of([*self.numbers])
        if appointment_id:
            owner = self.numbers[appointment_id][0]
            await self.ask(FAMOUS.stream, s.CancelAppointment(appointment_id, owner))

    async def change(self) -> None:
        booked = [row.id for row in self.store.appointments.values() if row.status == s.Status.BOOKED]
        appointment_id = self.one_of(booked)
        if not appointment_id:
            return
        row, successor = self.store.appointments[appointment_id], self.new()
        self.numbers[successor] = row.account_id, row.patient_id
        clock = "0830" if row.slot_id.endswith("0800") else "0800"
        hold = s.HoldSeat(successor, clock, row.patient_id, row.account_id, replaces=appointment_id)
        if isinstance(await self.ask(FAMOUS.stream, hold), s.Answer):
            starts_at = self.store.appointments[successor].starts_at
            leave = s.LeaveFor(appointment_id, successor, row.account_id, "cardio", True, starts_at)
            left = await self.ask(FAMOUS.stream, leave)
            self.met["changed"] += isinstance(left, s.Answer)

    async def suspend_or_resume(self) -> None:
        status = self.rng.choice(["suspended", "open"])
        revision = self.rng.randrange(3)
        off = s.SetSessionStatus(self.new(), revision, "staff:1", "", "morning", status, "ill")
        told = await self.ask(FAMOUS.stream, off)
        if isinstance(told, s.Revised) and status == "suspended":
            for row in list(self.store.appointments.values()):
                if row.status == s.Status.BOOKED:
                    refunded = s.DecideFate(row.id, "refunded")
                    self.met["called off"] += isinstance(await self.ask(FAMOUS.stream, refunded), s.Answer)

    async def miss(self) -> None:
        """Nobody is late before the visit: the world has none, so staff may only mark who has come."""
        booked = [row.id for row in self.store.appointments.values() if row.status == s.Status.BOOKED]
        appointment_id = self.one_of(booked)
        if appointment_id and self.rng.random() < 0.2:
            arrived = s.RecordAttendance(appointment_id, s.Status.ARRIVED, "staff:1")
            await self.ask(FAMOUS.stream, arrived)

    async def time_goes(self) -> None:
        self.world.clock.advance(ms=self.rng.choice([1_000, MINUTE, 8 * MINUTE, 20 * MINUTE]))
        if self.rng.random() < 0.7:  # the sweeper is not always there at once
            await time_comes(self.served)

    async def deliver(self) -> None:
        if self.inbox:
            await self.tell(*self.inbox.pop(self.rng.randrange(len(self.inbox))))

    async def forge(self) -> None:
        """Signed by somebody, but not about our money: refused, and nothing is written."""
        attempt_id = self.one_of([*self.orders])
        if not attempt_id:
            return
        bill_id = self.orders[attempt_id]["bill"]
        good, before = self.paid(attempt_id, Via.CALLBACK), len(await history(self.world, bill_id))
        bad = self.rng.choice(
            [
                replace(good, merchant_id="1900000999"),
                replace(good, currency="USD"),
                replace(good, fen=FEE + 1),
                replace(good, fen=-FEE),
                replace(good, provider="alipay"),
                replace(good, attempt_id=self.new()),
            ]
        )
        told = await self.tell(bill_id, bad)
        self.met["forged"] += 1
        if told is not None:
            assert isinstance(told, Refusal)
        assert len(await history(self.world, bill_id)) == before

    # Errands, as gateways do them: taken by one worker at a time, gone when they are done and were not asked
    # for anew meanwhile.

    def errands(self) -> list[tuple[str, str]]:
        """Those about money: what else a day leaves to do is not this test's."""
        return [(kind, key) for kind, key in self.store.errands if kind in ("bill", "bill_seat")]

    async def work(self) -> None:
        errands = self.errands()
        if not errands:
            return
        kind, key = self.rng.choice(errands)
        data = self.store.errands[kind, key]
        try:
            if kind == "bill":
                await self.attend(bytes.fromhex(key), self.fault())
            else:
                await self.seat_changed(bytes.fromhex(key), data)
        except Again:
            return
        if self.store.errands.get((kind, key)) is data:
            del self.store.errands[kind, key]

    def fault(self) -> str:
        """busy: not done; lost: done, and nobody hears of it; unheard: neither; dies: done, and not told."""
        return self.rng.choice(["", "", "", "", "busy", "lost", "unheard", "dies"]) if self.faulty else ""

    faulty = True

    async def attend(self, bill_id: bytes, fault: str) -> None:
        bill = await self.bill(bill_id)
        left = [errand for errand in p.errands(bill) if errand.do != Do.REFUND_BY_HAND]
        for errand in left:
            if errand.due <= self.now:
                await self.do(bill_id, bill, errand, fault)
        if left:
            raise Again

    async def do(self, bill_id: bytes, bill: p.Bill, errand: p.Errand, fault: str) -> None:
        subject, lost, done = errand.subject, fault in ("lost", "unheard"), fault != "unheard"
        if fault == "busy":
            return
        self.met[errand.do] += 1
        match errand.do:
            case Do.ASK_PREPAY:
                await self.ask_prepay(bill_id, subject, fault)
            case Do.QUERY_PAYMENT | Do.CLOSE_PAYMENT:
                order = self.orders.get(subject, {"state": Found.NONE})
                if errand.do == Do.CLOSE_PAYMENT and done and order["state"] == "open":
                    order["state"] = "closed"
                if order["state"] == "paid":
                    report: p.Command = self.paid(subject, Via.QUERY)
                elif errand.do == Do.CLOSE_PAYMENT and lost:
                    report = p.PaymentOutcomeLost(self.new(), subject)
                elif errand.do == Do.CLOSE_PAYMENT:
                    report = p.PaymentFound(self.new(), subject, Found.CLOSED)
                else:
                    report = p.PaymentFound(self.new(), subject, str(order["state"]))
                if not (errand.do == Do.QUERY_PAYMENT and lost):
                    await self.report(bill_id, report, fault)
            case Do.LOOK_AT_SEAT:
                await self.look(bill_id, subject, self.now)
            case Do.BOOK_SEAT:
                confirm = s.ConfirmAppointment(subject, self.store.appointments[subject].account_id)
                told = await self.ask(FAMOUS.stream, confirm)
                if isinstance(told, s.Answer):
                    await self.report(bill_id, p.SeatTaken(self.new(), subject), fault)
                elif isinstance(told, Refusal) and told.reason is Reason.HOLD_EXPIRED:
                    gone = p.SeatGone(self.new(), subject, Cause.EXPIRED, self.now)
                    await self.report(bill_id, gone, fault)
                elif isinstance(told, Refusal):
                    await self.look(bill_id, subject, self.now)
            case Do.RETAKE_SEAT:
                await self.retake(bill_id, errand, fault)
            case Do.RELEASE_SEAT:
                owner, last = bill.opened.account_id if bill.opened else b"", subject
                while last in self.store.successors:  # its patient has changed it meanwhile
                    last = bytes.fromhex(self.store.successors[last])
                told = await self.ask(FAMOUS.stream, s.CancelAppointment(last, owner, SYSTEM))
                if told is not None:
                    gone = p.SeatGone(self.new(), subject, Cause.CANCELLED, self.now)
                    await self.report(bill_id, gone, fault)
            case Do.SEND_REFUND | Do.QUERY_REFUND:
                refund = bill.refunds[subject]
                if errand.do == Do.SEND_REFUND and done:
                    self.given_back[subject] = refund.attempt_id, refund.fen
                if lost and errand.do == Do.SEND_REFUND:
                    await self.tell(bill_id, p.RefundOutcomeLost(self.new(), subject))
                elif subject in self.given_back:
                    back = p.RefundReported(
                        self.new(), subject, WECHAT, f"r{subject.hex()}", refund.fen, "CNY"
                    )
                    await self.report(bill_id, back, fault)
                elif not lost:
                    await self.report(bill_id, p.RefundFound(self.new(), subject, Found.NONE), fault)
            case _:
                raise AssertionError(errand)

    async def report(self, bill_id: bytes, command: p.Command, fault: str) -> None:
        if fault != "dies":
            await self.tell(bill_id, command)

    async def ask_prepay(self, bill_id: bytes, attempt_id: bytes, fault: str) -> None:
        if fault == "busy":
            return
        if fault != "unheard" and attempt_id not in self.orders:
            self.orders[attempt_id] = {"bill": bill_id, "state": "open"}
        if fault in ("lost", "unheard"):
            await self.tell(bill_id, p.PaymentOutcomeLost(self.new(), attempt_id))
        elif self.orders[attempt_id]["state"] == "open":
            await self.report(bill_id, p.PrepayAnswered(self.new(), attempt_id, "prepay"), fault)
        else:
            await self.report(bill_id, p.PrepayRefused(self.new(), attempt_id, "ORDERPAID"), fault)

    async def retake(self, bill_id: bytes, errand: p.Errand, fault: str) -> None:
        row, again = self.store.appointments[errand.subject], errand.successor
        self.numbers[again] = row.account_id, row.patient_id
        clock = row.slot_id[-4:]
        hold = s.HoldSeat(again, clock, row.patient_id, row.account_id, by=SYSTEM)
        told = await self.ask(FAMOUS.stream, hold)
        if isinstance(told, s.Answer) and told.status == s.Status.PENDING:
            told = await self.ask(FAMOUS.stream, s.ConfirmAppointment(again, row.account_id, SYSTEM))
        if told is None:
            return
        seat = self.store.appointments.get(again)
        if seat is not None and (seat.status, seat.reason) != (s.Status.CANCELLED, "expired"):
            # Also one that was booked by whoever died since, and is given up or changed already: that is told
            # by the look which follows.
            await self.report(bill_id, p.SeatTakenAgain(self.new(), errand.subject), fault)
        else:
            gone = p.SeatGone(self.new(), errand.subject, Cause.FULL, self.now)
            await self.report(bill_id, gone, fault)

    async def seat_changed(self, appointment_id: bytes, data: dict[str, Any]) -> None:
        for bill_id, row in list(self.store.bills.items()):
            if row[8] == appointment_id.hex():
                told = await self.look(bytes.fromhex(bill_id), appointment_id, cast(int, data["at"]))
                if told is None or isinstance(told, Refusal):
                    raise Again

    async def look(self, bill_id: bytes, appointment_id: bytes, at: int) -> Any:
        """Says to the bill how its number stands. Nothing to say is said, too."""
        row = self.store.appointments[appointment_id]
        command: p.Command
        if row.status == s.Status.CANCELLED and row.reason == "changed":
            successor = bytes.fromhex(self.store.successors[appointment_id])
            starts_at = self.store.appointments[successor].starts_at
            command = p.SeatMoved(self.new(), appointment_id, successor, starts_at)
        elif row.status == s.Status.CANCELLED:
            command = p.SeatGone(self.new(), appointment_id, cause_of(row.reason or ""), at)
        elif row.status in (s.Status.BOOKED, s.Status.ARRIVED):
            command = p.SeatTaken(self.new(), appointment_id)
        else:
            return True  # still held: whoever ends it will tell
        return await self.tell(bill_id, command)

    # The end.

    async def heal(self) -> None:
        """Everything is done that is left to do; nobody pays any more."""
        self.faulty = False
        for _ in range(300):
            for order in self.orders.values():
                if order["state"] == "open":
                    order["state"] = "closed"
            while self.inbox:
                await self.deliver()
            if not self.errands():
                return
            self.world.clock.advance(ms=MINUTE)
            await time_comes(self.served)
            for _ in range(len(self.errands())):
                await self.work()
        raise AssertionError(f"never at rest: {self.errands()}")

    async def check(self) -> None:
        shard = self.served.shard
        await self.served.unless_dead(shard._commit.drain())
        await shard._activate({FAMOUS.stream})
        await audit(self.world, [cast(Host, shard._hosts[FAMOUS.stream])], [0])
        for bill_id in self.bills():
            await check_bill(self.world, await self.bill(bill_id), bill_id)

    async def judge(self) -> None:
        await self.check()
        with_bill: dict[bytes, p.Bill] = {}
        for bill_id in self.bills():
            bill = await self.bill(bill_id)
            with_bill[bill.appointment_id] = bill
            told = p.told(bill)
            self.met[told.status] += 1
            came = sum(FEE for id_, o in self.orders.items() if o["bill"] == bill_id and o["state"] == "paid")
            back = sum(fen for attempt_id, fen in self.given_back.values() if attempt_id in bill.attempts)
            status = self.store.appointments[bill.appointment_id].status
            is_booked = status in (s.Status.BOOKED, s.Status.ARRIVED)
            assert came == sum(attempt.received for attempt in bill.attempts.values()), "a payment is lost"
            if is_booked and not bill.is_deferred:
                assert bill.is_settled and not bill.closed, "a number without its money"
            assert came - back == (FEE if bill.is_settled and is_booked else 0), "money without its number"
            assert not bill.unwanted
        for row in self.store.appointments.values():
            if row.status in (s.Status.BOOKED, s.Status.ARRIVED):
                assert row.id in with_bill, "booked for nobody"


def account(n: int) -> bytes:
    return uid("account", n)


def patient(n: int) -> bytes:
    return uid("patient", n)


async def play(seed: int, met: Counter[str]) -> None:
    clinic = Clinic(random.Random(seed))
    await clinic.open()
    try:
        for _ in range(clinic.rng.randint(20, 120)):
            await clinic.step()
            if clinic.rng.random() < 0.05:
                await clinic.check()
        await clinic.heal()
        await clinic.judge()
    finally:
        await bury(clinic.served)
    met += clinic.met
    for bill_id in clinic.bills():
        met.update(type(event).__name__ for event in await history(clinic.world, bill_id))


def played(seeds: range) -> Counter[str]:
    """What was met in these worlds."""
    met: Counter[str] = Counter()
    for seed in seeds:
        try:
            asyncio.run(play(seed, met))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return met


@pytest.mark.parametrize("first", range(0, SEEDS, WORLDS))
def test_every_fen_is_a_services_or_comes_back(first: int) -> None:
    assert played(range(first, first + WORLDS))["BillOpened"]


def test_the_worlds_meet_what_they_are_for() -> None:
    wanted = {"killed", "forged", "changed", "opened late", "called off", *Do} - {
        Do.REFUND_BY_HAND,
        Do.CLOSE_BILL,
    }
    wanted |= {"SeatChanged", "SeatLapsed", "SeatLost", "SeatUnwanted", "RefundUncertain", "RefundReset"}
    assert wanted - played(range(10_000, 10_080)).keys() == set()
