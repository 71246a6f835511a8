"""Bills of the hospital's own billing: asked for, paid here, told there, given back; and whatever goes wrong
between the two. One shard, real PostgreSQL, the sandbox's wire; errands are done when a test says so."""

import contextlib
import copy
import itertools
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from actors.directory import Directory
from actors.errands import TryAgain
from engine.database import as_app
from engine.domain import payment as p
from engine.domain.hospital_orders import bill_id_of, order_of
from engine.domain.payment import Status
from engine.domain.policy import Policy
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import bills_export, hospital_bills, payment_alarms
from engine.settings import Settings
from engine.vault.vault import Vault
from integrations.hospital_billing import signing
from integrations.hospital_billing.client import Billing, HospitalBillingClient
from integrations.hospital_billing.sandbox import Fault, Sandbox
from tests.support.bills import MERCHANT, WECHAT, Ids, gives_back, reports
from tests.support.people_app import ZONE, Clock, resident
from tests.support.privacy import fresh_database
from tests.support.stores import PostgresWorld, Served
from tests.support.till import till_at, until
from web import keys
from web.auditing import Readings
from web.auth import Tokens
from web.bills.asking import bill_now, tell_bill
from web.errors import Problem
from web.hospital_billing import routes  # noqa: F401  (declares its routes)
from web.hospital_billing.billing import AWAY_SECONDS, HospitalBilling
from web.hospital_billing.errands import handlers
from web.hospital_billing.looking import must_be_due
from web.hospital_billing.names import names_of
from web.openapi import api
from web.patient import patients  # noqa: F401
from web.rate_limits import limits_of

SECRET = b"secret"
CALLBACK = "/api/v1/callbacks/hospital_billing"
PATIENCE_SECONDS = 30.0
DRUG, DRUG_FEN = "阿莫西林胶囊", 2_560
ITEMS: list[dict[str, Any]] = [
    {"line": "1", "kind": "drug", "code": "D0101", "name": DRUG, "quantity": 2, "fen": DRUG_FEN},
    {"line": "2", "kind": "examination", "code": "E0201", "name": "血常规", "quantity": 1, "fen": 2_500},
]
FEN = 5_060
Json = dict[str, Any]
_people = itertools.count(1)
"""Each test has a person of its own: they share a database."""


@dataclass
class House:
    """A hospital, its billing, and what lies between them."""

    world: PostgresWorld
    served: Served
    pool: asyncpg.Pool
    app: web.Application
    sandbox: Sandbox
    client: TestClient[web.Request, web.Application]
    away: Clock
    """By which the billing is left alone for a while."""
    new: Ids = field(default_factory=Ids)
    account: bytes = b""
    patient: str = ""
    number: str = field(default_factory=lambda: resident(next(_people)))

    async def sign_up(self) -> bytes:
        account = secrets.token_bytes(16)
        await self.pool.execute(
            "insert into account values ($1, $2, now())", UUID(bytes=account), account.hex()
        )
        return account

    async def call(
        self, method: str, path: str, account: bytes | None = None, **rest: Any
    ) -> tuple[int, Json]:
        """As clients must, with the same key again where nobody could say what became of it: a busy machine's
        disk may take longer than an answer may."""
        token = self.app[keys.TOKENS].issue(account or self.account).access_token
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid4())}
        for _ in range(5):
            async with self.client.request(method, f"/api/v1{path}", headers=headers, **rest) as answer:
                told = await answer.json()
            if answer.status != 503 or told["type"] != "/problems/outcome_unknown":
                break
        return answer.status, told

    async def add_patient(self, account: bytes, relation: str = "self") -> str:
        person = {
            "name": "王小明",
            "id_type": "resident_id",
            "id_number": self.number,
            "phone": "13800000001",
            "relation": relation,
        }
        status, told = await self.call("POST", "/patients", account, json=person)
        assert status == 201, told
        return str(told["id"])

    def charge(self, items: list[Json] | None = None, **changes: Any) -> str:
        """A bill more for our patient."""
        number = self.sandbox.charge("01", self.number, copy.deepcopy(ITEMS if items is None else items))
        for name, value in changes.items():
            setattr(self.sandbox.bills[number], name, value)
        return number

    async def outstanding(self) -> list[Json]:
        status, told = await self.call("GET", f"/patients/{self.patient}/outstanding")
        assert status == 200, told
        assert told["withheld"] == 0
        found: list[Json] = told["bills"]
        return found

    async def opened(self) -> tuple[str, bytes]:
        """A bill that the patient has seen: its number there, its id here."""
        number = self.charge()
        assert number in {bill["number"] for bill in await self.outstanding()}
        return number, bill_id_of(number, 1)

    async def tell(self, bill_id: bytes, command: p.Command) -> p.Answer:
        answer = await tell_bill(self.app, bill_id, command)
        assert isinstance(answer, p.Answer), answer
        return answer

    async def pay(self, bill_id: bytes, fen: int = FEN) -> bytes:
        """As WeChat Pay's callback reports it; the attempt."""
        attempt_id = secrets.token_bytes(16)
        await self.tell(bill_id, p.StartPayment(self.new(), attempt_id, WECHAT, MERCHANT))
        await self.tell(bill_id, reports(self.new, attempt_id, fen))
        return attempt_id

    async def refunded(self, bill_id: bytes) -> list[p.Refund]:
        """WeChat Pay gives back what was asked for."""
        for refund_id, refund in (await bill_now(self.app, bill_id)).refunds.items():
            await self.tell(bill_id, gives_back(self.new, refund_id, refund.fen))
        return list((await bill_now(self.app, bill_id)).refunds.values())

    async def run(self) -> list[str]:
        """Does the billing's errands that are there, once each; why some are to be done later."""
        later: list[str] = []
        self.away.now += 10 * AWAY_SECONDS  # it is left alone no longer
        ours = handlers(self.app)
        for row in await self.pool.fetch(
            "select id, kind, key from errand where kind = any ($1)", list(ours)
        ):
            try:
                await ours[row["kind"]](row["key"], {})
            except TryAgain as again:
                later.append(str(again))
            else:
                await self.pool.execute("delete from errand where id = $1", row["id"])
        return later

    async def row(self, bill_id: bytes) -> asyncpg.Record:
        row = await self.pool.fetchrow("select * from bill where id = $1", UUID(bytes=bill_id))
        assert row is not None
        return row

    async def bills(self) -> int:
        count: int = await self.pool.fetchval(
            "select count(*) from bill where patient_id = $1", UUID(self.patient)
        )
        return count

    async def told(self, bill_id: bytes) -> list[tuple[str, int, str, str]]:
        told = await hospital_bills.told_of(self.pool, bill_id)
        return [(one.kind, one.fen, one.outcome, one.code) for one in told.values()]

    async def told_twice(self) -> int:
        """Rows of their books under one id of ours."""
        return len(self.sandbox.ledger) - len({one["id"] for one in self.sandbox.ledger})

    async def alarms(self) -> list[tuple[str, str]]:
        return [(one.what, one.why) for one in await payment_alarms.alarms(self.pool, True, 50, None)]

    async def they_call(
        self, content: Json, secret: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Json]:
        signed, body = self.sandbox.signed(content, secret)
        async with self.client.post(CALLBACK, data=body, headers={**signed, **(headers or {})}) as answer:
            return answer.status, await answer.json()


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres.url) as url:
        yield url


@pytest.fixture
async def house(shared: str, vault: Vault) -> AsyncIterator[House]:
    owner = await asyncpg.connect(shared)
    await owner.execute("delete from payment_alarm; delete from errand")  # of tests before
    await owner.close()
    world = PostgresWorld(as_app(shared))
    served = await Served.open(world)
    pool = await world.pool()

    async def send(_: int, packed: bytes) -> bytes:
        return await served.unless_dead(served.shard.ask(packed))

    sandbox, away = Sandbox("hospital", SECRET, time.time, zone=ZONE), Clock()
    app = web.Application()
    app[keys.POOL], app[keys.DIRECTORY], app[keys.VAULT] = pool, Directory(send, 1), vault
    app[keys.SETTINGS], app[keys.ZONE], app[keys.READINGS] = Settings.model_construct(), ZONE, Readings()
    app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
    app[keys.TOKENS] = Tokens(b"t" * 32, 1800, 86400)
    app[keys.POLICY] = keys.PolicyInForce(Policy(word_is_enough=True))
    api.setup(app)
    async with TestServer(sandbox.app()) as there, ClientSession() as session:
        billing = Billing(str(there.make_url("")), "hospital", SECRET)
        app[keys.HOSPITAL_BILLING] = HospitalBilling(
            HospitalBillingClient(session, billing, PATIENCE_SECONDS), away
        )
        async with TestClient(TestServer(app)) as client:
            sandbox.callback_url = str(client.make_url(CALLBACK))
            house = House(world, served, pool, app, sandbox, client, away)
            house.account = await house.sign_up()
            house.patient = await house.add_patient(house.account)
            yield house
    await served.stop()
    await world.close()


# From what is owed to what they were told.


async def test_what_is_owed_becomes_bills_and_is_paid_and_told(house: House) -> None:
    number, bill_id = await house.opened()
    [shown] = await house.outstanding()
    assert (shown["id"], shown["number"], shown["fen"]) == (str(UUID(bytes=bill_id)), number, FEN)
    assert shown["status"] == "open" and shown["pay_by"] is None
    assert [(one["kind"], one["code"], one["name"], one["quantity"]) for one in shown["lines"]] == [
        ("drug", "D0101", DRUG, 2),
        ("examination", "E0201", "血常规", 1),
    ]
    row = await house.row(bill_id)
    assert (row["order_no"], row["appointment_id"], str(row["patient_id"])) == (
        order_of(number, 1),
        None,
        house.patient,
    )
    await must_be_due(house.app, bill_id, row["order_no"])
    attempt_id = await house.pay(bill_id)
    assert (await house.row(bill_id))["status"] == Status.SETTLED
    # Between the payment and its telling, nobody is asked to pay it again.
    assert await house.outstanding() == []
    assert await house.run() == [] == await house.run()
    [there] = house.sandbox.ledger
    assert (there["kind"], there["id"], there["fen"]) == ("payment", attempt_id.hex(), FEN)
    assert await house.told(bill_id) == [("payment", FEN, "accepted", "")]
    assert await house.alarms() == []


async def test_asked_often_and_by_others_it_is_one_bill(house: House) -> None:
    await house.opened()
    other = await house.sign_up()
    assert await house.add_patient(other, "relative") == house.patient
    status, told = await house.call("GET", f"/patients/{house.patient}/outstanding", other)
    assert status == 200 and len(told["bills"]) == 1
    assert await house.bills() == 1
    # Somebody else's data were read: it is in the audit.
    rows = await house.pool.fetch(
        "select by_id from audit_entry where action = 'outstanding_read' and subjects @> array[$1::uuid]",
        UUID(house.patient),
    )
    assert [row["by_id"] for row in rows] == [UUID(bytes=other)]


async def test_names_are_sealed_and_taken_along(house: House) -> None:
    number, bill_id = await house.opened()
    assert await names_of(house.app, [bill_id]) == {bill_id: {"1": DRUG, "2": "血常规"}}
    tables = ("event", "bill", "hospital_bill", "errand", "audit_entry")
    for table in tables:
        for row in await house.pool.fetch(f"select t::text as said, t.* from {table} t"):
            assert DRUG not in row["said"] and house.number not in row["said"]
            assert DRUG.encode().hex() not in row["said"]
    [row] = await house.pool.fetch(bills_export.QUERY, UUID(bytes=house.account), [UUID(house.patient)])
    taken_along = bills_export.own_bill(house.app[keys.VAULT], row, house.account)
    assert [line.name for line in taken_along.lines] == [DRUG, "血常规"]


async def test_who_may_not_act_or_pay_for_the_patient(house: House) -> None:
    stranger = await house.sign_up()
    path = f"/patients/{house.patient}/outstanding"
    assert (await house.call("GET", path, stranger))[1]["code"] == "no_such_patient"
    change = "update account_patient set may_pay = $2, may_see = $3, revoked_at = $4 where account_id = $1"
    account = UUID(bytes=house.account)
    for may in ((False, True), (True, False)):
        await house.pool.execute(change, account, *may, None)
        assert (await house.call("GET", path))[1]["code"] == "paying_not_delegated"
    await house.pool.execute(change, account, True, True, datetime.now(UTC))
    assert (await house.call("GET", path))[1]["code"] == "no_such_patient"
    assert house.sandbox.asked == []


# What does not fit.


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fen": FEN + 1}, "sum"),
        ({"currency": "USD"}, "currency"),
        ({"patient": {"kind": "01", "number": "11010519491231002X"}}, "of_somebody_else"),
        ({"pay_by": "2020-01-01T00:00:00+08:00"}, "over"),
    ],
)
async def test_a_bill_that_does_not_fit_is_recorded_and_not_opened(
    house: House, change: Json, why: str
) -> None:
    house.charge()
    good = house.charge()

    def spoil(answer: Json) -> Json:
        first, *rest = answer["bills"]
        return {**answer, "bills": [{**first, **change}, *rest]}

    house.sandbox.spoil = spoil
    status, told = await house.call("GET", f"/patients/{house.patient}/outstanding")
    assert status == 200 and told["withheld"] == 1
    assert [one["number"] for one in told["bills"]] == [good]
    assert await house.alarms() == [("query", why)]
    assert await house.bills() == 1


async def test_a_bill_that_changes_under_its_revision_is_refused(house: House) -> None:
    number, bill_id = await house.opened()
    house.sandbox.bills[number].items[0]["fen"] += 1
    status, told = await house.call("GET", f"/patients/{house.patient}/outstanding")
    assert (status, told["bills"], told["withheld"]) == (200, [], 1)
    with pytest.raises(Problem) as caught:
        await must_be_due(house.app, bill_id, order_of(number, 1))
    assert caught.value.code == "hospital_billing_away"
    assert set(await house.alarms()) == {("query", "contradicts")}
    assert (await house.row(bill_id))["fen"] == FEN


async def test_a_bill_that_is_suddenly_somebody_elses_is_refused(house: House) -> None:
    number, bill_id = await house.opened()
    house.number = resident(next(_people))
    other = await house.add_patient(house.account, "relative")
    house.sandbox.bills[number].patient = {"kind": "01", "number": house.number}
    status, told = await house.call("GET", f"/patients/{other}/outstanding")
    assert (status, told) == (200, {"bills": [], "withheld": 1})
    with pytest.raises(Problem) as caught:
        await must_be_due(house.app, bill_id, order_of(number, 1))
    assert caught.value.code == "hospital_billing_away"
    assert await house.alarms() == [("query", "of_somebody_else")]
    assert str((await house.row(bill_id))["patient_id"]) == house.patient


async def test_a_revision_that_goes_back_changes_nothing(house: House) -> None:
    number, _ = await house.opened()
    house.sandbox.change(number, copy.deepcopy(ITEMS))
    await house.outstanding()
    bill_id = bill_id_of(number, 2)
    await house.pay(bill_id)
    await house.run()
    house.sandbox.bills[number].revision = 1  # from a copy that is behind
    await house.they_call({"event": "look", "order": number, "revision": 2})
    assert await house.run() == ["the billing's answer does not fit: older"]
    assert await house.alarms() == [("query", "older")]
    assert (await house.row(bill_id))["status"] == Status.SETTLED


async def test_paid_and_accepted_and_then_changed_the_old_one_goes_back(house: House) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    await house.run()
    house.sandbox.withdraw(number)
    house.sandbox.change(number)  # and brought back before we have looked
    await house.sandbox.deliver()
    await house.run()
    [refund] = await house.refunded(bill_id)
    assert (refund.fen, refund.cause) == (FEN, "hospital_changed")
    [new] = await house.outstanding()
    assert new["id"] == str(UUID(bytes=bill_id_of(number, 2)))
    # The old payment is on the bill over there: it does not pass for the new one, whose telling is lost.
    await house.run()
    await house.pay(UUID(new["id"]).bytes, new["fen"])
    house.sandbox.fail("payment", Fault.CUT)
    assert len(await house.run()) == 1
    assert await house.run() == []
    assert [(one["kind"], one["revision"]) for one in house.sandbox.ledger] == [
        ("payment", 1),
        ("refund", 1),
        ("payment", 2),
    ]


async def test_a_billing_that_is_away_is_left_alone_for_a_moment(house: House) -> None:
    path = f"/patients/{house.patient}/outstanding"
    house.sandbox.fail("outstanding", Fault.ERROR)
    for _ in range(2):
        status, told = await house.call("GET", path)
        assert (status, told["code"]) == (503, "hospital_billing_away")
    assert house.sandbox.asked == ["outstanding"]
    house.away.now += AWAY_SECONDS + 1
    assert (await house.call("GET", path))[0] == 200


async def test_an_answer_of_another_version_changes_nothing(house: House) -> None:
    house.charge()
    house.sandbox.spoil = lambda answer: {**answer, "version": 2}
    status, told = await house.call("GET", f"/patients/{house.patient}/outstanding")
    assert (status, told["code"]) == (503, "hospital_billing_away")
    assert await house.alarms() == [("query", "version")]
    assert await house.bills() == 0


# Telling.


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        (Fault.CUT, 2),
        (Fault.APPLIED_THEN_CUT, 1),
        (Fault.ERROR, 2),
        (Fault.APPLIED_ERROR, 1),
        (Fault.FORGED, 1),
        (Fault.BUSY, 2),
    ],
)
async def test_a_payment_is_booked_there_once_whatever_becomes_of_the_telling(
    house: House, fault: Fault, asked: int
) -> None:
    _, bill_id = await house.opened()
    await house.pay(bill_id)
    house.sandbox.fail("payment", fault)
    later = await house.run()
    # What was booked is found by asking; what was not is told again.
    assert len(later) == asked - 1
    assert await house.run() == []
    assert house.sandbox.asked.count("payment") == asked
    assert [one["fen"] for one in house.sandbox.ledger] == [FEN]
    assert await house.told(bill_id) == [("payment", FEN, "accepted", "")]


async def test_what_is_away_is_not_asked_by_each_errand(house: House) -> None:
    for _ in range(3):
        _, bill_id = await house.opened()
        await house.pay(bill_id)
    house.sandbox.fail("payment", Fault.ERROR)
    assert len(await house.run()) == 3
    assert house.sandbox.asked.count("payment") == 1
    assert await house.run() == []
    assert len(house.sandbox.ledger) == 3


async def test_what_was_told_by_one_who_died_is_told_again_and_is_the_same(house: House) -> None:
    _, bill_id = await house.opened()
    await house.pay(bill_id)
    ours = handlers(house.app)[hospital_bills.TELL]
    await ours(bill_id.hex(), {})
    await house.pool.execute(
        "delete from hospital_told where bill_id = $1", UUID(bytes=bill_id)
    )  # he died before he could write it down
    assert await house.run() == []
    assert len(house.sandbox.ledger) == 1


@pytest.mark.parametrize(
    ("move", "why"),
    [
        ("pay_at_window", "paid_elsewhere"),
        ("withdraw", "withdrawn"),
        ("change", "changed"),
    ],
)
async def test_paid_here_when_it_does_not_stand_there_any_more(house: House, move: str, why: str) -> None:
    number, bill_id = await house.opened()
    attempt_id = await house.pay(bill_id)
    getattr(house.sandbox, move)(number)
    assert await house.run() == [] == await house.run()
    assert await house.told(bill_id) == [("payment", FEN, "refused", why)]
    [refund] = await house.refunded(bill_id)
    assert (refund.attempt_id, refund.fen, refund.cause) == (attempt_id, FEN, f"hospital_{why}")
    assert (await house.row(bill_id))["status"] == Status.REFUNDED
    # They never took the payment: they are not told that it went back.
    assert await house.run() == []
    assert house.sandbox.ledger == [] and "refund" not in house.sandbox.asked


async def test_a_refusal_that_is_not_of_the_bill_gives_nothing_back_and_raises_an_alarm(house: House) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    there = house.sandbox.bills[number]
    there.items[0]["fen"] += 1
    assert await house.run() == ["the billing refuses: amount"]
    assert await house.alarms() == [("query", "refused_amount")]
    assert (await house.row(bill_id))["status"] == Status.SETTLED
    there.items[0]["fen"] -= 1  # somebody has mended it
    assert await house.run() == []
    assert await house.told(bill_id) == [("payment", FEN, "accepted", "")]


# Before paying, and when they say that something has changed.


@pytest.mark.parametrize(
    ("move", "why"),
    [
        ("pay_at_window", "paid_elsewhere"),
        ("withdraw", "withdrawn"),
        ("change", "changed"),
    ],
)
async def test_nobody_begins_to_pay_what_does_not_stand_any_more(house: House, move: str, why: str) -> None:
    number, bill_id = await house.opened()
    getattr(house.sandbox, move)(number)
    with pytest.raises(Problem) as caught:
        await must_be_due(house.app, bill_id, order_of(number, 1))
    assert (caught.value.code, caught.value.members["why"]) == ("bill_closed", why)
    row = await house.row(bill_id)
    assert (row["status"], row["closed"]) == (Status.CLOSED, why)


@pytest.mark.parametrize(
    ("move", "why"),
    [
        ("pay_at_window", "paid_elsewhere"),
        ("withdraw", "withdrawn"),
        ("change", "changed"),
    ],
)
@pytest.mark.parametrize("by_callback", [True, False])
async def test_it_is_closed_when_they_say_so_or_when_it_is_not_owed_any_more(
    house: House, move: str, why: str, by_callback: bool
) -> None:
    number, bill_id = await house.opened()
    getattr(house.sandbox, move)(number)
    if by_callback:
        assert await house.sandbox.deliver() == 1
        assert house.sandbox.answers == [200]
    else:
        found = {bill["id"]: bill["fen"] for bill in await house.outstanding()}
        assert str(UUID(bytes=bill_id)) not in found
        # What has changed is another bill.
        assert (str(UUID(bytes=bill_id_of(number, 2))) in found) == (move == "change")
    assert await house.run() == []
    assert (await house.row(bill_id))["closed"] == why


async def test_paid_and_accepted_and_withdrawn_afterwards_it_goes_back(house: House) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    await house.run()
    house.sandbox.withdraw(number)
    await house.sandbox.deliver()
    assert await house.run() == []
    [refund] = await house.refunded(bill_id)
    assert (refund.fen, refund.cause) == (FEN, "hospital_withdrawn")
    assert await house.run() == []
    assert [one["kind"] for one in house.sandbox.ledger] == ["payment", "refund"]


async def test_a_look_at_what_stands_changes_nothing(house: House) -> None:
    number, bill_id = await house.opened()
    for _ in range(2):
        await house.they_call({"event": "look", "order": number, "revision": 1})
        assert await house.run() == []
        if (await house.row(bill_id))["status"] == Status.OPEN:
            await house.pay(bill_id)
    row = await house.row(bill_id)
    assert (row["status"], row["closed"]) == (Status.SETTLED, "")


# What they ask to be given back.


async def test_a_drug_that_was_not_dispensed_goes_back_once(house: House) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    await house.run()
    house.sandbox.copies = 3
    asked_as = house.sandbox.take_back(number, {"1": DRUG_FEN})
    assert await house.sandbox.deliver() == 3
    assert house.sandbox.answers == [200, 200, 200]
    [refund] = await house.refunded(bill_id)
    assert (refund.fen, refund.lines, refund.cause) == (
        DRUG_FEN,
        (("1", DRUG_FEN),),
        "hospital_not_dispensed",
    )
    house.sandbox.fail("refund", Fault.APPLIED_THEN_CUT)
    assert await house.run() == [] == await house.run()
    await handlers(house.app)[hospital_bills.TELL](bill_id.hex(), {})  # whoever does it again
    assert house.sandbox.asked.count("payment") == house.sandbox.asked.count("refund") == 1
    [there] = house.sandbox.bills[number].refunds
    assert (there["fen"], there["asked_as"], there["reason"]) == (DRUG_FEN, asked_as, "not_dispensed")
    assert there["lines"] == [{"line": "1", "fen": DRUG_FEN}]
    assert await house.told(bill_id) == [
        ("payment", FEN, "accepted", ""),
        ("refund", DRUG_FEN, "accepted", ""),
    ]
    assert (await house.row(bill_id))["status"] == Status.PARTLY_REFUNDED
    rows = await house.pool.fetch(
        "select by_name from audit_entry where action = 'refund_asked_by_billing' and object_id = $1",
        str(UUID(bytes=bill_id)),
    )
    assert {row["by_name"] for row in rows} == {"hospital_billing"}


async def test_their_day_is_what_they_were_told(house: House) -> None:
    number, bill_id = await house.opened()
    attempt_id = await house.pay(bill_id)
    await house.run()
    [there] = house.sandbox.ledger
    there["at"] = "2026-11-20T12:00:00+08:00"
    [row] = await house.app[keys.HOSPITAL_BILLING].statement(date(2026, 11, 20))
    assert (row.kind, row.order, row.reference, row.fen) == (
        "payment",
        order_of(number, 1),
        attempt_id.hex(),
        FEN,
    )


CALL: Json = {
    "event": "refund",
    "revision": 1,
    "refund": "TF-1",
    "currency": "CNY",
    "fen": 1_000,
    "lines": [{"line": "1", "fen": 1_000}],
    "reason": "other",
}


@pytest.mark.parametrize(
    ("change", "status", "code", "why"),
    [
        ({"fen": DRUG_FEN + 1, "lines": [{"line": "1", "fen": DRUG_FEN + 1}]}, 409, "refund_too_large", ""),
        ({"lines": [{"line": "9", "fen": 1_000}]}, 409, "refund_too_large", ""),
        ({"order": "CF-404"}, 404, "no_such_bill", ""),
        ({"revision": 2}, 404, "no_such_bill", ""),
        ({"fen": 999}, 422, "billing_call_unfit", "sum"),
        ({"currency": "USD"}, 422, "billing_call_unfit", "currency"),
        ({"version": 2}, 422, "billing_call_unfit", "version"),
        ({"lines": [{"line": "1", "fen": -1_000}]}, 422, "billing_call_unfit", "negative"),
    ],
)
async def test_a_refund_that_does_not_fit_is_refused_and_recorded(
    house: House, change: Json, status: int, code: str, why: str
) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    answer = await house.they_call({**CALL, "order": number, **change})
    assert (answer[0], answer[1]["code"]) == (status, code)
    assert await house.alarms() == [("callback", why or code)]
    assert (await bill_now(house.app, bill_id)).refunds == {}


async def test_a_refund_of_what_nobody_paid(house: House) -> None:
    number, bill_id = await house.opened()
    status, told = await house.they_call({**CALL, "order": number})
    assert (status, told["code"]) == (409, "wrong_bill_state")
    assert (await house.row(bill_id))["status"] == Status.OPEN


async def test_one_refund_number_is_one_refund(house: House) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    assert (await house.they_call({**CALL, "order": number}))[0] == 200
    assert (await house.they_call({**CALL, "order": number}))[0] == 200
    lines = [{"line": "1", "fen": 999}]
    status, told = await house.they_call({**CALL, "order": number, "fen": 999, "lines": lines})
    assert (status, told["code"]) == (422, "key_reused")
    [refund] = (await bill_now(house.app, bill_id)).refunds.values()
    assert refund.fen == 1_000


@pytest.mark.parametrize("how", ["secret", "nonce", "app", "old", "unsigned", "changed"])
async def test_a_forged_call_changes_nothing(house: House, how: str) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    content = {**CALL, "order": number}
    match how:
        case "secret":
            status, told = await house.they_call(content, secret=b"another")
        case "nonce":
            status, told = await house.they_call(content, headers={signing.NONCE: "0" * 32})
        case "app":
            status, told = await house.they_call(content, headers={signing.APP: "another"})
        case "unsigned":
            status, told = await house.they_call(content, headers={signing.SIGNATURE: ""})
        case "old":
            house.sandbox.clock = lambda: time.time() - signing.WINDOW_SECONDS - 60
            status, told = await house.they_call(content)
        case _:
            headers, body = house.sandbox.signed(content)
            raw = body.replace(b"1000", b"2000")
            async with house.client.post(CALLBACK, data=raw, headers=headers) as answer:
                status, told = answer.status, await answer.json()
    assert (status, told["code"]) == (401, "billing_call_refused")
    assert await house.alarms() == [("callback", "not_theirs")]
    assert (await bill_now(house.app, bill_id)).refunds == {}


async def test_a_call_that_is_played_back_is_refused(house: House) -> None:
    number, bill_id = await house.opened()
    await house.pay(bill_id)
    headers, body = house.sandbox.signed({**CALL, "order": number})
    statuses = []
    for _ in range(2):
        async with house.client.post(CALLBACK, data=body, headers=headers) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 401]
    assert await house.alarms() == [("callback", "replayed")]
    assert len((await bill_now(house.app, bill_id)).refunds) == 1


async def test_without_a_billing_there_is_nothing_to_pay_and_nobody_to_call(house: House) -> None:
    assert set(handlers(house.app)) == {hospital_bills.TELL, hospital_bills.LOOK}
    without = web.Application()
    without[keys.POOL] = house.pool
    assert handlers(without) == {}
    with pytest.raises(Problem) as caught:
        await must_be_due(without, b"\x01" * 16, order_of("CF-1", 1))
    assert caught.value.code == "hospital_billing_away"


# Anything, in any order.

ANSWERS = (Fault.CUT, Fault.APPLIED_THEN_CUT, Fault.ERROR, Fault.APPLIED_ERROR, Fault.FORGED, Fault.BUSY)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_kept_here_is_booked_there(house: House, seed: int) -> None:
    """People pay, windows take money, doctors change their minds, lines break. When all is healed, what we
    keep of each bill is what the billing has booked, and a bill that it does not stand by has its money
    back."""
    chance = random.Random(seed)
    there = house.sandbox
    for _ in range(60):
        number = chance.choice(sorted(there.bills) or [""])
        match chance.randrange(9):
            case 0 | 1:
                house.charge()
            case 2:
                house.away.now += 10 * AWAY_SECONDS
                await house.call("GET", f"/patients/{house.patient}/outstanding")
            case 3 | 4 if number:
                await _maybe_paid(house, number, chance)
            case 5 if number:
                with contextlib.suppress(ValueError):  # it was paid meanwhile
                    chance.choice([there.pay_at_window, there.withdraw, there.change])(number)
            case 6 if number and there.bills[number].items:
                first = there.bills[number].items[0]
                there.take_back(number, {first["line"]: chance.randint(1, first["fen"])})
            case 7:
                there.fail(
                    chance.choice(["payment", "refund", "bill", "outstanding"]), chance.choice(ANSWERS)
                )
                there.copies = chance.randint(1, 3)
            case _:
                await there.deliver()
                await house.run()
    there._faults.clear()
    while await there.deliver() or await house.run() or await _given_back(house):
        pass
    for row in await house.pool.fetch(
        "select h.number, h.revision, b.* from hospital_bill h join bill b on b.id = h.bill_id"
        " where b.patient_id = $1",
        UUID(house.patient),
    ):
        booked = [
            one for one in there.ledger if (one["order"], one["revision"]) == (row["number"], row["revision"])
        ]
        theirs = sum(one["fen"] if one["kind"] == "payment" else -one["fen"] for one in booked)
        assert row["owed_back"] == 0
        assert row["paid"] - row["refunded"] == theirs, (row["number"], row["status"])
        if there.bills[row["number"]].status == "withdrawn":
            assert theirs == 0 and row["status"] != Status.OPEN
    assert await house.told_twice() == 0


async def _maybe_paid(house: House, number: str, chance: random.Random) -> None:
    """Somebody pays some revision of it that we know; some of them asked first, as the route does."""
    bill_id = bill_id_of(number, chance.randint(1, house.sandbox.bills[number].revision))
    row = await house.pool.fetchrow("select order_no, status from bill where id = $1", UUID(bytes=bill_id))
    if row is None or row["status"] != Status.OPEN:
        return
    if chance.random() < 0.5:
        try:
            await must_be_due(house.app, bill_id, row["order_no"])
        except Problem:
            return
    fen = await house.pool.fetchval("select fen from bill where id = $1", UUID(bytes=bill_id))
    await house.pay(bill_id, fen)


async def _given_back(house: House) -> bool:
    """WeChat Pay does what it was asked to; whether there was anything."""
    rows = await house.pool.fetch(
        "select distinct r.bill_id from refund r join bill b on b.id = r.bill_id"
        " where r.state < 5 and b.patient_id = $1",
        UUID(house.patient),
    )
    for row in rows:
        await house.refunded(row["bill_id"].bytes)
    return bool(rows)


# With everything running: a gateway, both payment sandboxes, the errands by themselves.


async def test_paid_with_wechat_told_and_given_back(database: str) -> None:
    sandbox = Sandbox("hospital", SECRET, time.time, zone=ZONE)
    async with TestServer(sandbox.app()) as there:
        billing = Billing(str(there.make_url("")), "hospital", SECRET)
        async with till_at(database, billing=billing) as till:
            sandbox.callback_url = f"{till.one.address}{CALLBACK}"
            payer = await till.payer()
            numbers = [sandbox.charge("03", "P0000001", copy.deepcopy(ITEMS)) for _ in range(3)]
            found = (await payer.good("GET", f"patients/{payer.patient_id}/outstanding"))["bills"]
            kept, twice, gone = [next(b["id"] for b in found if b["number"] == n) for n in numbers]

            # Paid, told although the line breaks, and one drug goes back because they say so.
            sandbox.fail("payment", Fault.APPLIED_THEN_CUT)
            payment = await payer.pay(kept)
            till.wechat.callbacks.copies = 2
            till.wechat.pay(till.order(payment))
            await payer.status(kept, "settled")
            await until(lambda: _is(lambda: len(sandbox.ledger) == 1), "the billing to be told")
            assert sandbox.ledger[0]["id"] == till.order(payment)
            asked_as = sandbox.take_back(numbers[0], {"1": DRUG_FEN})
            await sandbox.deliver()
            told = await payer.status(kept, "partly_refunded")
            assert (told["paid"], told["refunded"]) == (FEN, DRUG_FEN)
            assert told["lines"][0]["name"]["zh"] == DRUG
            refunds = sandbox.bills[numbers[0]].refunds
            await until(lambda: _is(lambda: bool(refunds)), "the billing to be told of the refund")
            assert [(one["fen"], one["asked_as"]) for one in refunds] == [(DRUG_FEN, asked_as)]

            # Paid here and at the window in the same moment: here it goes back.
            payment = await payer.pay(twice, "wechat_pay")
            sandbox.pay_at_window(numbers[1])
            till.wechat.pay(till.order(payment))
            await payer.status(twice, "refunded")
            assert len(sandbox.ledger) == 2

            # Withdrawn before anybody begins to pay.
            sandbox.withdraw(numbers[2])
            answer = await payer.ask("POST", f"bills/{gone}/payments", {"provider": "wechat_pay"})
            assert (answer.status, answer["code"]) == (409, "bill_closed")
            assert await till.alarms() == []


async def _is(what: Callable[[], bool]) -> bool:
    return what()
