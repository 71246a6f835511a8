"""The cashier's desk through a gateway: cash, receipts, refunds by two persons, what waits, one's shift."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import pytest

from engine.domain import payment as p
from engine.domain.ids import BillKey, ScheduleKey
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import cash, coupons, payment_alarms
from engine.records.cash import NewReceipt
from engine.records.policies import store_policy
from engine.records.staff import NewStaff, Role, Staff, add_staff
from tests.support.bills import MERCHANT, WECHAT, Ids, reports
from tests.support.copies import copied, migrated
from tests.support.noon import noon_zone
from tests.support.one_process import OneProcess, serving
from tests.support.stores import PostgresWorld, plan, uid

Json = dict[str, Any]
FEE = 5_000
NAME = "欧阳明月"
POLICY = """\
payment:
  refunds: {approval_above: "30.00"}
defaults:
  refunds: {cancelled: [{before: 0m, percent: 80}]}
"""
PEOPLE = {
    "cashier": (Role.CASHIER, None),
    "second": (Role.CASHIER, None),
    "desk": (Role.DESK, None),
    "elsewhere": (Role.CASHIER, "neuro"),
    "manager": (Role.MANAGER, None),
    "both": (Role.MANAGER, None),  # and a cashier
}


@dataclass
class Office:
    one: OneProcess
    http: aiohttp.ClientSession
    world: PostgresWorld
    people: dict[str, Staff | bytes]
    slot: str
    zone: ZoneInfo
    id: Ids = field(default_factory=Ids)

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, key: str = "", status: int | None = None
    ) -> Json:
        """Fails unless the status is this one; without one, unless it is good."""
        person = self.people[who]
        tokens = self.one.tokens
        pair = tokens.issue_staff(person) if isinstance(person, Staff) else tokens.issue(person)
        headers = {"Authorization": f"Bearer {pair.access_token}", "Idempotency-Key": key or str(uuid4())}
        address = f"/api/v1/{path}"
        async with self.http.request(method, address, json=body, headers=headers) as answer:
            text = await answer.text()
            told: Json = (
                {} if answer.status == 204 else await answer.json() if text[:1] == "{" else {"text": text}
            )
            assert answer.status == status if status else answer.status < 300, (answer.status, told)
            return {**told, "_headers": dict(answer.headers)}

    async def number(self, document: str) -> Json:
        """Booked, to be paid at the hospital, for a new patient."""
        body = {
            "name": NAME, "id_type": "passport", "id_number": document, "phone": "13712345678",
            "birth_date": "1980-01-01", "sex": "female", "relation": "other",
        }  # fmt: skip
        patient = (await self.ask("patient", "POST", "patients", body))["id"]
        held = await self.ask(
            "patient", "POST", "appointments", {"slot_id": self.slot, "patient_id": patient}
        )
        await self.ask("patient", "POST", f"appointments/{held['id']}/confirm")
        return {**held, "patient_id": patient, "document": document}

    async def bill(self, document: str) -> Json:
        number = await self.number(document)
        bill = await self.ask("desk", "POST", f"cashier/appointments/{number['id']}/bill", {})
        return {**bill, "document": document}

    async def paid(self, document: str, who: str = "cashier") -> Json:
        bill = await self.bill(document)
        return await self.ask(who, "POST", f"cashier/bills/{bill['id']}/payments", {"fee": FEE})

    async def tell(self, bill_id: str, *commands: p.Command) -> list[Any]:
        stream = BillKey(UUID(bill_id).bytes).stream
        return await self.one.served.send([(stream, 60_000, one) for one in commands])

    async def paid_by_wechat(self, document: str) -> tuple[str, bytes]:
        """The bill, and the attempt."""
        bill = await self.bill(document)
        attempt = self.id()
        said = await self.tell(
            bill["id"],
            p.StartPayment(self.id(), attempt, WECHAT, MERCHANT),
            p.PrepayAnswered(self.id(), attempt, "prepay"),
            reports(self.id, attempt),
        )
        assert all(isinstance(one, p.Answer) for one in said), said
        return bill["id"], attempt

    async def audit(self, action: str) -> list[asyncpg.Record]:
        pool = await self.world.pool()
        found: list[asyncpg.Record] = await pool.fetch(
            "select * from audit_entry where action = $1 order by id", action
        )
        return found


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def office(original: str) -> AsyncIterator[Office]:
    async with copied(original) as database, opened(database) as office:
        yield office


@asynccontextmanager
async def opened(database: str) -> AsyncIterator[Office]:
    world = PostgresWorld(database)
    zone = ZoneInfo(noon_zone())
    tomorrow = datetime.now(zone).date() + timedelta(1)
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('市第一医院', $1)", str(zone))
    await pool.execute(
        "insert into department (id, name, campus, position) values"
        " ('cardio', '心内科', 'east', 0), ('neuro', '神经科', 'east', 1)"
    )
    await pool.execute("insert into number_class (id, name, fee_fen) values ('expert', '专家号', 5000)")
    starts = int(datetime.combine(tomorrow, time(9), zone).timestamp() * 1000)
    key = ScheduleKey("D0001", tomorrow.isoformat())
    await world.publish(key, plan(starts, 20, 20, department="cardio", clock=9 * 60))
    account = uid("account", 9)
    await pool.execute("insert into account values ($1, 'o9', now())", UUID(bytes=account))
    people: dict[str, Staff | bytes] = {"patient": account}
    async with pool.acquire() as connection:
        async with connection.transaction():
            assert await store_policy(connection, POLICY, "test")
        for n, (name, (role, department)) in enumerate(PEOPLE.items()):
            roles = (role, Role.CASHIER) if name == "both" else (role,)
            new = NewStaff(name, f"{name}的姓名", "no hash", roles, None, department)
            people[name] = await add_staff(connection, new, uid("staff", n + 1), datetime.now(UTC))
    async with serving(world) as one, aiohttp.ClientSession(one.address) as http:
        yield Office(one, http, world, people, key.slot_id("0900"), zone)
    await world.close()


async def test_cash_is_taken_once_and_its_receipt_is_ours(office: Office) -> None:
    number = await office.number("P0000001")
    found = await office.ask(
        "cashier", "POST", "cashier/bills/search", {"id_type": "passport", "id_number": "P0000001"}
    )
    assert (found["bills"], found["patient_name"]) == ([], NAME)
    (waiting,) = found["numbers"]
    assert (waiting["appointment_id"], waiting["fee"]) == (number["id"], FEE)
    bill = await office.ask("cashier", "POST", f"cashier/appointments/{number['id']}/bill", {})
    assert (bill["id"], bill["status"], bill["fee"]) == (number["id"], "open", FEE)
    assert bill["lines"][0] == {
        "id": "registration", "kind": "registration", "item": "expert", "name": "专家号", "quantity": 1,
        "fee": FEE, "left": 0,
    }  # fmt: skip
    path = f"cashier/bills/{bill['id']}/payments"
    wrong = await office.ask("cashier", "POST", path, {"fee": FEE - 1}, status=422)
    assert (wrong["code"], wrong["due"]) == ("amount_mismatch", FEE)
    taken = await office.ask("cashier", "POST", path, {"fee": FEE}, key="once")
    today = datetime.now(office.zone).date()
    assert taken["receipt"] == f"{today:%Y%m%d}-000002"  # the first one is void
    assert (taken["bill"]["status"], taken["bill"]["paid"]) == ("settled", FEE)
    again = await office.ask("cashier", "POST", path, {"fee": FEE}, key="once")
    assert (again["receipt"], again["payment_id"]) == (taken["receipt"], taken["payment_id"])
    assert (await office.ask("cashier", "POST", path, {"fee": 1}, key="once", status=422))[
        "code"
    ] == "key_reused"
    assert (await office.ask("second", "POST", path, {"fee": FEE}, status=409))["code"] == "bill_paid"
    found = await office.ask("desk", "POST", "cashier/bills/search", {"slot_id": office.slot, "number": 1})
    assert [one["id"] for one in found["bills"]] == [bill["id"]] and not found["numbers"]
    outcomes = [(row["outcome"], row["detail"]) for row in await office.audit("cash_taken")]
    assert [outcome for outcome, _ in outcomes] == ["done", "refused", "done", "done", "refused"]
    assert taken["receipt"] in outcomes[2][1]


async def test_a_number_that_is_only_held_is_booked_by_its_cash(office: Office) -> None:
    body = {
        "name": NAME, "id_type": "passport", "id_number": "P0000002", "phone": "13712345678",
        "birth_date": "1980-01-01", "sex": "female", "relation": "other",
    }  # fmt: skip
    patient = (await office.ask("patient", "POST", "patients", body))["id"]
    held = await office.ask(
        "patient", "POST", "appointments", {"slot_id": office.slot, "patient_id": patient}
    )
    await office.ask("desk", "POST", f"cashier/appointments/{held['id']}/bill", {})
    taken = await office.ask("desk", "POST", f"cashier/bills/{held['id']}/payments", {"fee": FEE})
    assert taken["bill"]["status"] in ("paid", "settled")
    async with asyncio.timeout(30):  # an errand of the gateway's
        while (await office.ask("desk", "GET", f"cashier/bills/{held['id']}"))["status"] != "settled":
            pass
    assert (await office.ask("patient", "GET", f"appointments/{held['id']}"))["status"] == "booked"


async def test_a_coupon_is_taken_at_the_desk_and_comes_back_with_the_money(office: Office) -> None:
    pool = await office.world.pool()
    now = datetime.now(UTC)
    new = coupons.NewCoupons("国庆券", ("registration",), now, now + timedelta(days=9), fen=1_500)
    async with pool.acquire() as connection:
        (code,) = await coupons.make(connection, new, 1, "test", now)
    number, other = await office.number("P0000201"), await office.number("P0000202")
    shown = {"coupon": coupons.spelled(code).lower()}
    for _ in range(2):  # and again, for the same bill
        bill = await office.ask("cashier", "POST", f"cashier/appointments/{number['id']}/bill", shown)
        (discount,) = bill["discounts"]
        assert (bill["fee"], discount["fee"]) == (3_500, 1_500)
        assert discount["name"] == f"国庆券 {code[-4:]}"
    path = f"cashier/appointments/{other['id']}/bill"
    assert (await office.ask("desk", "POST", path, shown, status=409))["code"] == "coupon_used"
    await office.ask("desk", "POST", path, {})
    assert (await office.ask("desk", "POST", path, shown, status=409))["code"] in (
        "coupon_used",
        "coupon_too_late",
    )
    taken = await office.ask("cashier", "POST", f"cashier/bills/{bill['id']}/payments", {"fee": 3_500})
    gone = p.SeatGone(office.id(), UUID(number["id"]).bytes, "suspended", office.world.clock())
    await office.tell(bill["id"], gone)
    refunds = (await office.ask("cashier", "GET", f"cashier/bills/{bill['id']}"))["refunds"]
    assert [(one["fee"], one["payment_id"]) for one in refunds] == [(3_500, taken["payment_id"])]
    pay = f"cashier/bills/{bill['id']}/refunds/{refunds[0]['id']}/payout"
    await office.ask("cashier", "POST", pay, {"reason": "停诊退费"})
    assert await pool.fetchval("select bill_id from coupon") is None


async def test_receipts_of_a_day_count_without_a_gap_whoever_takes_at_once(office: Office) -> None:
    bills = [await office.bill(f"P000010{n}") for n in range(6)]
    taken = await asyncio.gather(
        *(
            office.ask(who, "POST", f"cashier/bills/{bill['id']}/payments", {"fee": FEE})
            for bill, who in zip(bills, itertools.cycle(("cashier", "second", "desk")), strict=False)
        )
    )
    assert sorted(int(one["receipt"][-6:]) for one in taken) == list(range(1, 7))


async def test_one_key_has_one_number_though_two_ask_at_once(office: Office) -> None:
    pool = await office.world.pool()
    day, now = datetime.now(office.zone).date(), datetime.now(UTC)
    cashier = office.people["cashier"]
    assert isinstance(cashier, Staff)
    new = NewReceipt(uid("command"), "in", uid("bill"), uid("payment"), 1, cashier.id)

    async def number() -> str:
        async with pool.acquire() as connection, connection.transaction():
            return (await cash.receipt_for(connection, new, day, now)).number

    assert len(set(await asyncio.gather(number(), number(), number()))) == 1
    assert await pool.fetchval("select given from cash_day") == 1


async def test_what_is_not_theirs_is_refused(office: Office) -> None:
    bill = await office.paid("P0000003")
    number, bill_id = bill["bill"]["appointment_id"], bill["bill"]["id"]
    for method, path, body in (
        ("GET", f"cashier/bills/{bill_id}", None),
        ("GET", f"cashier/bills/{bill_id}/receipt", None),
        ("POST", f"cashier/appointments/{number}/bill", {}),
        ("POST", f"cashier/bills/{bill_id}/payments", {"fee": FEE}),
        (
            "POST",
            f"cashier/bills/{bill_id}/refunds",
            {"lines": [{"line_id": "registration", "fee": 1}], "reason": "没有"},
        ),
        ("POST", "cashier/bills/search", {"appointment_id": number}),
    ):
        assert (await office.ask("elsewhere", method, path, body, status=403))["code"] == "forbidden"
    mine = {"patient_id": bill["bill"]["patient_id"]}
    assert (await office.ask("elsewhere", "POST", "cashier/bills/search", mine, status=404))[
        "code"
    ] == "no_such_patient"
    for said in ({}, {**mine, "appointment_id": number}, {"number": 1}):
        assert (await office.ask("cashier", "POST", "cashier/bills/search", said, status=422))[
            "code"
        ] == "say_who"
    missing = await office.ask("cashier", "GET", f"cashier/bills/{uuid4()}", status=404)
    assert missing["code"] == "no_such_bill"


async def test_a_refund_below_the_limit_goes_out_in_cash_with_a_voucher(office: Office) -> None:
    taken = await office.paid("P0000004")
    path = f"cashier/bills/{taken['bill']['id']}/refunds"
    body = {"lines": [{"line_id": "registration", "fee": 2_000}], "reason": "未做检查"}
    asked = await office.ask("cashier", "POST", path, body, key="r")
    (refund,) = asked["bill"]["refunds"]
    assert (refund["status"], refund["fee"], refund["cause"]) == ("requested", 2_000, "desk")
    assert refund["by_hand_from"] is not None and asked["bill"]["lines"][0]["left"] == FEE - 2_000
    assert (await office.ask("cashier", "POST", path, body, key="r"))["refund_id"] == asked["refund_id"]
    work = await office.ask("cashier", "GET", "cashier/work")
    assert [one["refund_id"] for one in work["refunds"]] == [asked["refund_id"]]
    assert (await office.ask("elsewhere", "GET", "cashier/work"))["refunds"] == []
    unreasoned = await office.ask("cashier", "POST", f"{path}/{refund['id']}/payout", {}, status=422)
    assert unreasoned["code"] == "invalid_body"
    given = await office.ask("second", "POST", f"{path}/{refund['id']}/payout", {"reason": "退现金"}, key="x")
    assert given["receipt"].endswith("-000002") and given["bill"]["status"] == "partly_refunded"
    assert (
        await office.ask("second", "POST", f"{path}/{refund['id']}/payout", {"reason": "退现金"}, key="x")
    )["receipt"] == given["receipt"]
    twice = await office.ask(
        "cashier", "POST", f"{path}/{refund['id']}/payout", {"reason": "再退"}, status=409
    )
    assert twice["code"] == "refund_contradicts"
    mine = (await office.ask("cashier", "GET", "cashier/shift"))["receipts"]
    assert [(one["kind"], one["is_void"]) for one in mine] == [("in", False), ("out", True)]
    assert (await office.ask("cashier", "GET", "cashier/work"))["refunds"] == []
    (entry,) = [row for row in await office.audit("cash_given_back") if row["outcome"] == "done"][:1]
    assert (entry["by_name"], entry["reason"]) == ("second", "退现金")


async def test_above_the_limit_somebody_else_must_agree(office: Office) -> None:
    taken = await office.paid("P0000005")
    bill_id = taken["bill"]["id"]
    path = f"cashier/bills/{bill_id}/refunds"

    def body(fee: int) -> Json:
        return {"lines": [{"line_id": "registration", "fee": fee}], "reason": "患者投诉，经核实退费"}

    too_much = await office.ask("both", "POST", path, body(FEE + 1), status=409)
    assert (too_much["code"], too_much["limit"]) == ("refund_too_large", FEE)
    waiting = await office.ask("both", "POST", path, body(3_001), key="big", status=202)
    assert (waiting["status"], waiting["role"]) == ("pending", "manager")
    assert (await office.ask("cashier", "GET", f"cashier/bills/{bill_id}"))["refunds"] == []
    (awaited,) = (await office.ask("cashier", "GET", "cashier/work"))["awaited"]
    assert (awaited["request_id"], awaited["fee"]) == (waiting["request_id"], 3_001)
    decision = f"desk/change-requests/{waiting['request_id']}/decision"
    agreed = {"decision": "approve", "reason": "同意"}
    for who in ("both", "desk"):  # who asked, and who has no say
        assert (await office.ask(who, "POST", decision, agreed, status=403))["code"] == "forbidden"
    listed = await office.ask("manager", "GET", "desk/change-requests?status=waiting")
    assert [one["id"] for one in listed["requests"]] == [waiting["request_id"]]
    for _ in range(2):  # and a retry
        decided = await office.ask("manager", "POST", decision, agreed)
        assert (decided["status"], decided["command"]) == ("approved", "refund")
    (refund,) = (await office.ask("cashier", "GET", f"cashier/bills/{bill_id}"))["refunds"]
    assert refund["fee"] == 3_001
    again = await office.ask("both", "POST", path, body(3_001), key="big", status=202)
    assert again["status"] == "approved"
    assert (await office.ask("both", "POST", path, body(1), key="big", status=422))["code"] == "key_reused"
    # What staff gave back already counts: the next fen needs consent, too.
    small = await office.ask("cashier", "POST", path, body(1), status=202)
    refused = {"decision": "reject", "reason": "不同意"}
    await office.ask("manager", "POST", f"desk/change-requests/{small['request_id']}/decision", refused)
    assert len((await office.ask("cashier", "GET", f"cashier/bills/{bill_id}"))["refunds"]) == 1
    assert [row["by_name"] for row in await office.audit("refund_given")] == ["manager"]


async def test_two_halves_at_once_do_not_pass_the_limit(office: Office) -> None:
    taken = await office.paid("P0000006")
    path = f"cashier/bills/{taken['bill']['id']}/refunds"
    body = {"lines": [{"line_id": "registration", "fee": 2_000}], "reason": "分两次退"}
    statuses = []

    async def ask(who: str) -> None:
        statuses.append("role" in await office.ask(who, "POST", path, body))

    await asyncio.gather(*(ask(who) for who in ("cashier", "second", "both")))
    assert sorted(statuses) == [False, True, True]


async def test_what_the_provider_refused_is_paid_in_cash_when_it_is_settled(office: Office) -> None:
    bill_id, attempt = await office.paid_by_wechat("P0000007")
    path = f"cashier/bills/{bill_id}/refunds"
    body = {"lines": [{"line_id": "registration", "fee": 1_000}], "reason": "账户已注销"}
    asked = await office.ask("cashier", "POST", path, body)
    refund = UUID(asked["refund_id"]).bytes
    pay = f"{path}/{asked['refund_id']}/payout"
    early = await office.ask("cashier", "POST", pay, {"reason": "患者要现金"}, status=409)
    assert early["code"] == "refund_unsettled"
    assert (await office.ask("cashier", "GET", "cashier/work"))["refunds"] == []
    await office.tell(bill_id, p.RefundRefused(office.id(), refund, "USER_ACCOUNT_ABNORMAL", True))
    (waiting,) = (await office.ask("cashier", "GET", "cashier/work"))["refunds"]
    assert (waiting["code"], waiting["provider"]) == ("USER_ACCOUNT_ABNORMAL", WECHAT)
    since, hand = (datetime.fromisoformat(waiting[name]) for name in ("since", "by_hand_from"))
    assert hand - since == timedelta(minutes=10)
    retried = await office.ask(
        "cashier", "POST", f"{path}/{asked['refund_id']}/retry", {"reason": "账户恢复"}
    )
    assert retried["bill"]["refunds"][0]["status"] == "requested"
    await office.tell(bill_id, p.RefundRefused(office.id(), refund, "USER_ACCOUNT_ABNORMAL", True))
    assert (await office.ask("cashier", "POST", pay, {"reason": "现金"}, status=409))[
        "code"
    ] == "refund_unsettled"
    office.world.clock.advance(seconds=601)
    given = await office.ask("cashier", "POST", pay, {"reason": "微信账户已注销，改退现金"})
    (done,) = given["bill"]["refunds"]
    assert (done["status"], done["provider"], done["reference"]) == ("done", "at_hospital", given["receipt"])
    other = await office.paid("P0000008")
    elsewhere = f"cashier/bills/{other['bill']['id']}/refunds/{asked['refund_id']}/payout"
    assert (await office.ask("cashier", "POST", elsewhere, {"reason": "错单"}, status=404))[
        "code"
    ] == "no_such_refund"


async def test_money_for_no_bill_and_what_was_not_believed_are_on_the_list(office: Office) -> None:
    bill_id, _ = await office.paid_by_wechat("P0000009")
    pool = await office.world.pool()
    late = office.id()
    # A second payment under way while the first one came: it lies in suspense, and goes back.
    other = await office.bill("P0000010")
    first, second = office.id(), late
    await office.tell(
        other["id"],
        p.StartPayment(office.id(), first, WECHAT, MERCHANT),
        p.StartPayment(office.id(), second, "alipay", "2088"),
        reports(office.id, first),
        p.PaymentReported(office.id(), second, "alipay", "2088", "t2", FEE, "CNY", p.Via.QUERY),
    )
    alarm = payment_alarms.Alarm("wechat_pay", "callback", "foreign_merchant", bill_id=UUID(bill_id).bytes)
    await payment_alarms.note(pool, alarm, datetime.now(UTC))
    work = await office.ask("manager", "GET", "cashier/work")
    (suspense,) = work["suspense"]
    assert (suspense["bill_id"], suspense["fee"], suspense["cause"]) == (other["id"], FEE, "double")
    (told,) = work["alarms"]
    assert (told["why"], told["bill_id"]) == ("foreign_merchant", bill_id)
    settle = f"cashier/alarms/{told['id']}/settlement"
    await office.ask("cashier", "POST", settle, {"reason": "与支付平台核对，系伪造"})
    assert (await office.ask("cashier", "POST", settle, {"reason": "又来"}, status=404))[
        "code"
    ] == "no_such_alarm"
    assert (await office.ask("manager", "GET", "cashier/work"))["alarms"] == []


async def test_a_shift_counts_what_changed_hands_and_nothing_that_is_void(office: Office) -> None:
    first = await office.paid("P0000011")
    await office.paid("P0000012", "second")
    bill = await office.bill("P0000013")
    await office.ask("cashier", "POST", f"cashier/bills/{bill['id']}/payments", {"fee": 1}, status=422)
    path = f"cashier/bills/{first['bill']['id']}/refunds"
    body = {"lines": [{"line_id": "registration", "fee": 700}], "reason": "多收"}
    refund = (await office.ask("cashier", "POST", path, body))["refund_id"]
    await office.ask("cashier", "POST", f"{path}/{refund}/payout", {"reason": "多收退还"})
    shift = await office.ask("cashier", "GET", "cashier/shift")
    assert (shift["taken"], shift["taken_count"]) == (FEE, 1)
    assert (shift["given_back"], shift["given_back_count"], shift["balance"]) == (700, 1, FEE - 700)
    assert [(one["kind"], one["fee"], one["is_void"]) for one in shift["receipts"]] == [
        ("in", FEE, False),
        ("in", 1, True),
        ("out", 700, False),
    ]
    assert (await office.ask("second", "GET", "cashier/shift"))["balance"] == FEE
    later = (datetime.now(office.zone) + timedelta(hours=1)).isoformat().replace("+", "%2B")
    assert (await office.ask("cashier", "GET", f"cashier/shift?since={later}&until={later}"))[
        "receipts"
    ] == []


async def test_a_cancelled_number_gives_back_by_the_rules_and_waits_for_the_desk(office: Office) -> None:
    taken = await office.paid("P0000014")
    bill_id, number = taken["bill"]["id"], taken["bill"]["appointment_id"]
    await office.tell(
        bill_id,
        p.SeatGone(office.id(), UUID(number).bytes, "cancelled", office.world.clock()),
    )
    bill = await office.ask("cashier", "GET", f"cashier/bills/{bill_id}")
    assert (bill["owed_back"], bill["kept"], bill["refunds"][0]["cause"]) == (4_000, 1_000, "cancelled")
    (waiting,) = (await office.ask("cashier", "GET", "cashier/work"))["refunds"]
    given = await office.ask(
        "cashier",
        "POST",
        f"cashier/bills/{bill_id}/refunds/{waiting['refund_id']}/payout",
        {"reason": "退号"},
    )
    assert given["bill"]["refunded"] == 4_000


async def test_the_receipt_is_a_page_that_says_what_it_is_not(office: Office) -> None:
    taken = await office.paid("P0000015")
    bill_id = taken["bill"]["id"]
    path = f"cashier/bills/{bill_id}/refunds"
    body = {"lines": [{"line_id": "registration", "fee": 5}], "reason": "<b>多收</b>"}
    refund = (await office.ask("cashier", "POST", path, body))["refund_id"]
    await office.ask("cashier", "POST", f"{path}/{refund}/payout", {"reason": "多收退还"})
    page = await office.ask("desk", "GET", f"cashier/bills/{bill_id}/receipt")
    text, headers = page["text"], page["_headers"]
    for said in (
        "市第一医院", taken["receipt"], NAME, "挂号费", "专家号", "伍拾元整", "¥50.00", "现金（窗口）",
        "cashier的姓名", "心内科", "已退款：¥0.05（伍分）", "不是发票",
    ):  # fmt: skip
        assert said in text, said
    assert "P0000015" not in text and "<script" not in text
    assert headers["Content-Type"] == "text/html; charset=utf-8" and headers["Cache-Control"] == "no-store"
    assert "style-src 'sha256-" in headers["Content-Security-Policy"]
    unpaid = await office.bill("P0000016")
    refused = await office.ask("cashier", "GET", f"cashier/bills/{unpaid['id']}/receipt", status=409)
    assert refused["code"] == "wrong_bill_state"
    assert len(await office.audit("receipt_read")) == 1
