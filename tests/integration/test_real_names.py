"""Real names: the register's wire, what is asked when somebody is added, and what is settled later."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from engine.domain.claims import of_department_day, of_time
from engine.domain.eligibility import DepartmentRule, check
from engine.domain.policy import Policy
from engine.records.facts import Question, facts
from engine.records.identity import IdType
from engine.records.real_names import GUESSES_A_DAY, Waiting
from integrations.connector import Refused, TryAgain
from integrations.real_name import signing
from integrations.real_name.client import PATH, RealNameClient, Register
from integrations.real_name.sandbox import Sandbox
from integrations.real_name.translate import Finding
from tests.support.people import VAULT
from tests.support.people_app import PATIENCE_SECONDS, Answer, Clock, PeopleApp, people_app, resident
from web.patient.real_names import MISTAKEN_SECONDS, RealNames, verify_waiting

NUMBER = "11010519491231002X"
RETRY_AFTER = 7  # what the sandbox says when it is busy


# The wire.


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox("hospital", b"secret")


async def finding(
    sandbox: Sandbox, name: str, secret: bytes = b"secret", app_id: str = "hospital", shift: int = 0
) -> Finding:
    async with TestServer(sandbox.app()) as server, ClientSession() as session:
        register = Register(str(server.make_url("")), app_id, secret)
        now = datetime.now(UTC).timestamp() + shift
        seconds = 0.2 if name.endswith("超时") else PATIENCE_SECONDS
        client = RealNameClient(session, register, seconds, clock=lambda: now)
        return await client.check(name, IdType.RESIDENT_ID, NUMBER)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("王小明", Finding.MATCH),
        ("王不符", Finding.MISMATCH),
        ("王无此人", Finding.NOT_FOUND),
    ],
)
async def test_what_the_register_says(sandbox: Sandbox, name: str, found: Finding) -> None:
    assert await finding(sandbox, name) is found


async def test_a_register_that_knows_whose_number_it_is(sandbox: Sandbox) -> None:
    sandbox.register[NUMBER] = "李四"
    assert await finding(sandbox, "李四") is Finding.MATCH
    assert await finding(sandbox, "王小明") is Finding.MISMATCH


@pytest.mark.parametrize(
    ("name", "match", "after"),
    [("王繁忙", "status 503", 7.0), ("王超时", "Timeout", None), ("王伪造", "not theirs", None)],
)
async def test_a_register_that_is_away_or_somebody_else(
    sandbox: Sandbox, name: str, match: str, after: float | None
) -> None:
    with pytest.raises(TryAgain, match=match) as caught:
        await finding(sandbox, name)
    assert caught.value.after == after
    assert name not in repr(caught.value) and NUMBER not in repr(caught.value)


async def test_a_register_that_does_not_know_us(sandbox: Sandbox) -> None:
    for wrong in ({"secret": b"another"}, {"app_id": "another"}, {"shift": -301}, {"shift": 301}):
        with pytest.raises(Refused, match="status_401"):
            await finding(sandbox, "王小明", **wrong)


async def test_a_request_is_good_once() -> None:
    sandbox = Sandbox("hospital", b"secret", clock=lambda: 1000.0)
    body = b'{"name":"x","kind":"01","number":"1"}'
    headers = {
        signing.APP: "hospital",
        signing.TIMESTAMP: "1000",
        signing.NONCE: "a" * 32,
        signing.SIGNATURE: signing.of_request(b"secret", "POST", PATH, "hospital", 1000, "a" * 32, body),
    }
    async with TestServer(sandbox.app()) as server, ClientSession() as session:
        statuses = []
        for _ in range(2):
            async with session.post(server.make_url(PATH), data=body, headers=headers) as response:
                statuses.append(response.status)
    assert statuses == [200, 401]


@pytest.mark.parametrize("kept", ["timestamp", "nonce", "status"])
async def test_an_old_answer_passes_for_no_new_one(kept: str) -> None:
    """Somebody on the line plays back what the register once said to another question."""
    now = datetime.now(UTC).timestamp()

    async def old(request: web.Request) -> web.Response:
        nonce = "b" * 32 if kept == "nonce" else request.headers[signing.NONCE]
        at = int(now) - (301 if kept == "timestamp" else 0)
        body = b'{"result":"match"}'
        signed = signing.of_answer(b"secret", 204 if kept == "status" else 200, nonce, at, body)
        return web.Response(body=body, headers={signing.TIMESTAMP: str(at), signing.SIGNATURE: signed})

    app = web.Application()
    app.router.add_post(PATH, old)
    async with TestServer(app) as server, ClientSession() as session:
        register = Register(str(server.make_url("")), "hospital", b"secret")
        client = RealNameClient(session, register, PATIENCE_SECONDS)
        with pytest.raises(TryAgain):
            await client.check("王小明", IdType.RESIDENT_ID, NUMBER)


# When somebody is added.


@pytest.fixture
async def house(database: str) -> AsyncIterator[PeopleApp]:
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=10) as pool,
        people_app(pool, VAULT) as house,
    ):
        yield house


async def state(house: PeopleApp, patient: Answer) -> tuple[str, str | None]:
    row = await house.pool.fetchrow(
        "select verification, verified_by from patient where id = $1", UUID(patient.id)
    )
    assert row is not None
    return row["verification"], row["verified_by"]


async def test_who_is_added_is_looked_up(house: PeopleApp, caplog: pytest.LogCaptureFixture) -> None:
    token = await house.account("o1")
    known = await house.add(token)
    assert (known.status, known.verification) == (201, "verified")
    assert await state(house, known) == ("verified", "register")
    # Known already: nobody is asked again.
    assert (await house.add(token, phone="13800000002")).verification == "verified"
    assert house.register.asked == 1
    # Other papers are not in the register.
    guest = {"id_type": "passport", "id_number": "E1234567", "relation": "other"}
    assert (await house.add(token, **guest)).verification == "unverified"
    assert house.register.asked == 1
    # Nobody there has this number: a desk must see the papers.
    nobody = await house.add(token, name="李无此人", id_number=resident(2))
    assert (nobody.status, nobody.verification) == (201, "unverified")
    assert await house.pool.fetchval("select count(*) from patient where verify_at is not null") == 0
    # Away: added, and settled later. No log names anybody.
    with caplog.at_level(logging.WARNING):
        waiting = await house.add(token, name="李繁忙", id_number=resident(3))
    assert (waiting.status, waiting.verification) == (201, "unverified")
    assert await house.pool.fetchval("select count(*) from patient where verify_at is not null") == 1
    assert "李繁忙" not in caplog.text and resident(3) not in caplog.text
    # While it is away, nobody waits for it.
    asked = house.register.asked
    assert (await house.add(token, name="王五", id_number=resident(4))).verification == "unverified"
    assert house.register.asked == asked


async def test_a_wrong_name_stores_nothing_and_is_no_oracle(house: PeopleApp) -> None:
    token = await house.account("o1")
    for n in range(GUESSES_A_DAY):
        refused = await house.add(token, name="李不符", id_number=resident(n))
        assert (refused.status, refused.code) == (409, "real_name_mismatch")
        assert "李不符" not in str(refused.told) and resident(n) not in str(refused.told)
    assert await house.pool.fetchval("select count(*) from patient") == 0
    asked = house.register.asked
    await house.pool.execute("update identity_guess set at = at - interval '23 hours'")
    limited = await house.add(token)  # even a right one, now
    assert (limited.status, limited.code, limited.limit) == (429, "too_many_mismatches", GUESSES_A_DAY)
    assert limited.headers["Retry-After"]
    assert house.register.asked == asked
    # Each account by itself, and for a day.
    assert (await house.add(await house.account("o2"))).status == 201
    await house.pool.execute("update identity_guess set at = at - interval '1 hour'")
    assert (await house.add(token, id_number=resident(9))).status == 201
    assert len(await house.audit("real_name_refused")) == GUESSES_A_DAY


async def test_many_guesses_at_once_do_not_get_by(house: PeopleApp) -> None:
    token = await house.account("o1")
    answers = await asyncio.gather(
        *(house.add(token, name="李不符", id_number=resident(n)) for n in range(3 * GUESSES_A_DAY))
    )
    codes = [answer.code for answer in answers]
    assert codes.count("real_name_mismatch") == house.register.asked <= GUESSES_A_DAY
    assert codes.count("too_many_mismatches") == len(codes) - house.register.asked


async def test_names_of_people_who_are_known_here_are_guesses_too(house: PeopleApp) -> None:
    await house.add(await house.account("o1"))
    token = await house.account("o2")
    for n in range(GUESSES_A_DAY):
        refused = await house.add(token, name="赵钱孙李周"[n] + "小明", relation="other")
        assert refused.code == "identity_mismatch"
    assert (await house.add(token, relation="other")).code == "too_many_mismatches"
    assert house.register.asked == 1  # who is known is not looked up


async def test_the_round_settles_what_waited(house: PeopleApp) -> None:
    token = await house.account("o1")
    house.register.is_away = True
    right = await house.add(token)
    wrong = await house.add(token, name="李四", id_number=resident(2))
    assert (right.verification, wrong.verification) == ("unverified", "unverified")
    await house.pool.execute("update patient set verify_at = now()")
    await verify_waiting(house.app)  # away still, and it is known: nobody is asked
    assert await house.pool.fetchval("select sum(verify_tries) from patient") == 0
    house.register.is_away = False
    house.register.register[resident(2)] = "别人"
    house.clock.now += RETRY_AFTER
    await verify_waiting(house.app)
    assert await state(house, right) == ("verified", "register")
    assert await state(house, wrong) == ("refused", None)
    assert await house.pool.fetchval("select count(*) from patient where verify_at is not null") == 0
    assert [len(await house.audit(f"real_name_{word}")) for word in ("verified", "not_verified")] == [1, 1]
    # A miss is a miss, if late.
    assert await house.pool.fetchval("select count(*) from identity_guess where missed") == 1


async def test_the_round_waits_longer_each_time(house: PeopleApp) -> None:
    token = await house.account("o1")
    house.register.is_away = True
    await house.add(token)
    waits = []
    for _ in range(4):
        house.clock.now += RETRY_AFTER
        await house.pool.execute("update patient set verify_at = now()")
        before = datetime.now(UTC)
        await verify_waiting(house.app)
        at = await house.pool.fetchval("select verify_at from patient")
        waits.append((at - datetime.now(UTC), at - before))
    for (least, most), minutes in zip(waits, (1, 2, 4, 8), strict=True):
        assert least <= timedelta(minutes=minutes) <= most


async def test_a_desk_looks_at_the_papers(house: PeopleApp) -> None:
    token, desk = await house.account("o1"), house.staff("clerk", "desk")
    guest = await house.add(token, name="Jane Roe", id_type="passport", id_number="E1234567")
    path = f"/desk/patients/{guest.id}/verification"
    found = await house.call("GET", path, desk)
    assert (found.status, found.state, found.name) == (200, "unverified", "J*** R***")
    assert found.id_number == "E*****67"
    body = {"outcome": "verified", "document": "passport"}
    verified = await house.call("POST", path, desk, json=body)
    assert (verified.status, verified.state, verified.verified_by) == (200, "verified", "clerk")
    assert (await house.call("GET", "/patients", token)).patients[0]["verification"] == "verified"
    await house.call("POST", path, desk, json={**body, "outcome": "refused"})
    assert await state(house, guest) == ("refused", "clerk")
    for action in ("verification_read", "identity_verified", "identity_refused"):
        (entry,) = await house.audit(action)
        assert (entry["by_kind"], entry["by_name"]) == ("staff", "clerk")
        assert entry["subjects"] == [UUID(guest.id)]
    assert (await house.call("POST", path, token, json=body)).status == 401
    assert (await house.call("POST", path, house.staff("doc", "doctor"), json=body)).status == 403
    unknown = await house.call("POST", f"/desk/patients/{UUID(int=7)}/verification", desk, json=body)
    assert unknown.code == "no_such_patient"


async def test_a_hospital_that_wants_real_names(house: PeopleApp) -> None:
    token = await house.account("o1")
    known = await house.add(token)
    guest = await house.add(token, id_type="passport", id_number="E1234567", relation="other")
    account_id = await house.pool.fetchval("select id from account where openid = 'o1'")

    async def refused(patient: Answer, policy: Policy) -> str | None:
        id_, number = UUID(patient.id).bytes, UUID(int=1).bytes
        day = of_department_day(id_, "cardio", "2026-11-24", number, None)
        question = Question(
            number, id_, account_id.bytes, "cardio", "2026-11-24", day, of_time(id_, 1, number, None)
        )
        (found,) = await facts(house.pool, [question], 0)
        refusal = check(found, DepartmentRule(), policy, date(2026, 11, 24), 0)
        return None if refusal is None else str(refusal.detail["rule"])

    strict = Policy(real_name_required=True)
    assert await refused(guest, Policy()) is None
    assert await refused(guest, strict) == "real_name_required"
    assert await refused(known, strict) is None


async def test_a_register_that_is_away_is_left_alone_for_a_while(sandbox: Sandbox) -> None:
    clock = Clock()
    async with TestServer(sandbox.app()) as server, ClientSession() as session:
        register = Register(str(server.make_url("")), "hospital", b"wrong")
        client = RealNameClient(session, register, PATIENCE_SECONDS)
        names = RealNames(client, clock)
        person = Waiting(b"", "王小明", IdType.RESIDENT_ID, NUMBER, 0)
        assert await names.check(person) is None
        assert await names.check(person) is None
        assert (sandbox.asked, names.is_away) == (1, True)
        clock.now += MISTAKEN_SECONDS
        assert not names.is_away
        await names.check(person)
        assert sandbox.asked == 2
