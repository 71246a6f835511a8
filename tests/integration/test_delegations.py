"""Who may act for whom: asked, given, changed, taken back; children, guardians; phones of accounts."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from engine.domain.claims import of_department_day, of_time
from engine.domain.eligibility import DepartmentRule, check
from engine.domain.policy import Policy
from engine.domain.schedule import Status
from engine.records import appointments, arrivals, notices, tickets, wishes
from engine.records.day_people import account_for
from engine.records.delegations import REQUEST_DAYS, REQUESTS_MAX, Asked
from engine.records.facts import Question, facts
from engine.records.identity import IdType, Person, identify
from engine.records.patients import DelegationTerms, NewPatient, Patient, add_patient
from tests.support.people import VAULT
from tests.support.people_app import ZONE, Answer, PeopleApp, people_app, resident

DAY = timedelta(days=1)


@pytest.fixture
async def house(database: str) -> AsyncIterator[PeopleApp]:
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=10) as pool,
        people_app(pool, VAULT) as house,
    ):
        yield house


async def listed(house: PeopleApp, token: str) -> dict[str, Any]:
    answer = await house.call("GET", "/delegations", token)
    assert answer.status == 200
    return answer.told


async def decide(house: PeopleApp, token: str, id_: str, word: str, **body: Any) -> Answer:
    extra = {"json": body} if word == "approve" else {}
    return await house.call("POST", f"/delegations/{id_}/{word}", token, **extra)


async def account_id(house: PeopleApp, openid: str) -> bytes:
    found = await house.pool.fetchval("select id from account where openid = $1", openid)
    return bytes(found.bytes)


async def booking(house: PeopleApp, account: bytes, patient: bytes) -> str | None:
    """The rule that stands in the way of a booking."""
    number = secrets.token_bytes(16)
    day = of_department_day(patient, "cardio", "2026-11-24", number, None)
    asked = Question(number, patient, account, "cardio", "2026-11-24", day, of_time(patient, 1, number, None))
    now = int(datetime.now(UTC).timestamp() * 1000)
    (found,) = await facts(house.pool, [asked], now)
    refusal = check(found, DepartmentRule(), Policy(), datetime.now(UTC).date(), now)
    return None if refusal is None else str(refusal.detail["rule"])


async def appointment(house: PeopleApp, account: bytes, patient: bytes, status: Status) -> bytes:
    id_ = secrets.token_bytes(16)
    await house.pool.execute(
        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,"
        " status, fee_fen, starts_at, hold_until, created_at, updated_at, department_id)"
        " values ($1, 'D1-20261124', $2, 0, 1, 1, $3, $4, $5, 0, now(), now(), now(), now(), '0304')",
        UUID(bytes=id_),
        f"slot-{id_.hex()}",
        UUID(bytes=patient),
        UUID(bytes=account),
        int(status),
    )
    return id_


async def ticket(house: PeopleApp, patient: bytes, number: bytes | None = None) -> bytes:
    id_ = secrets.token_bytes(16)
    day = datetime.now(ZONE).date()
    await house.pool.execute(
        "insert into ticket (id, department_id, day, patient_id, appointment_id, prefix, number, status,"
        " queue_id, practitioner_id, room_id, stage, stages, visit, priority, emergency, arrived_at, done,"
        " version) values ($1, $2, $3, $4, $5, 'A', 1, 1, '', '', '', 1, 1, 0, '', 0, now(), '[]', 1)",
        UUID(bytes=id_),
        id_.hex()[:8],
        day,
        UUID(bytes=patient),
        None if number is None else UUID(bytes=number),
    )
    return id_


async def test_who_has_an_account_of_their_own_is_asked(house: PeopleApp) -> None:
    mother, son = await house.account("mother"), await house.account("son")
    await house.add(mother, name="李秀兰", id_number=resident(2, "19600307"), phone="13900000001")
    await house.add(son, name="王小明", phone="13800000001")
    await house.call("PUT", "/account/phone", son, json={"code": "sandbox-phone:13812345678"})
    wanted = {"name": "李秀兰", "id_number": resident(2, "19600307"), "relation": "parent"}
    asked = await house.add(son, **wanted)
    assert asked.status == 202
    assert (asked.name, asked.relation, asked.asker) == ("李*兰", "parent", None)
    assert set(asked.told) == {"request_id", "name", "relation", "asked_at", "ends_at", "asker"}
    ends = datetime.fromisoformat(asked.ends_at) - datetime.fromisoformat(asked.asked_at)
    assert ends == REQUEST_DAYS * DAY
    # Asking again is the same request. Until she answers, nothing of hers is his.
    again = await house.add(son, **wanted)
    assert (again.status, again.request_id, again.ends_at) == (202, asked.request_id, asked.ends_at)
    assert [p["name"] for p in (await house.call("GET", "/patients", son)).patients] == ["王小明"]
    mine = await listed(house, son)
    assert ([a["request_id"] for a in mine["asked_by_me"]], mine["given"], mine["asked_of_me"]) == (
        [asked.request_id],
        [],
        [],
    )
    (of_me,) = (await listed(house, mother))["asked_of_me"]
    assert of_me["request_id"] == asked.request_id
    assert of_me["asker"] == {"name": "王*明", "phone": "138****5678"}  # as WeChat says, not as he says
    # Nobody else answers it: not he, not a stranger.
    stranger = await house.account("stranger")
    for who in (son, stranger):
        for word in ("approve", "reject"):
            refused = await decide(house, who, asked.request_id, word)
            assert (refused.status, refused.code) == (404, "no_such_delegation")
    assert (await house.call("DELETE", f"/delegations/{asked.request_id}", stranger)).status == 404
    # She says yes, for some things and for some days.
    until = datetime.now(ZONE).date() + 10 * DAY
    given = await decide(
        house, mother, asked.request_id, "approve", see_visits=False, until=until.isoformat()
    )
    assert (given.status, given.told["status"]) == (200, "approved")
    assert given.expires_at == datetime.combine(until + DAY, datetime.min.time(), ZONE).isoformat()
    twice = await decide(house, mother, asked.request_id, "approve")
    assert (twice.status, twice.expires_at) == (200, given.expires_at)  # as it was given, not anew
    (_, hers) = (await house.call("GET", "/patients", son)).patients
    assert (hers["name"], hers["relation"]) == ("李秀兰", "parent")
    assert hers["rights"] == {"book": True, "see_visits": False, "pay": True}
    assert hers["expires_at"] == given.expires_at
    (held,) = (await listed(house, mother))["given"]
    assert (held["id"], held["consent"]) == (asked.request_id, "approved")
    assert held["asker"] == {"name": "王*明", "phone": "138****5678"}
    # Adding her again is no way to more: what she gave stays as she gave it.
    (await house.add(son, **wanted, phone="13700000001"))
    (_, same) = (await house.call("GET", "/patients", son)).patients
    assert same == {**hers, "phone": "137****0001"}
    (entry,) = await house.audit("delegation_approved")
    assert '"see_visits": false' in entry["detail"]


async def test_what_was_given_is_changed_and_taken_back(house: PeopleApp) -> None:
    mother, son = await house.account("mother"), await house.account("son")
    await house.add(mother, name="李秀兰", id_number=resident(2))
    wanted = {"name": "李秀兰", "id_number": resident(2), "relation": "parent"}
    request = (await house.add(son, **wanted)).request_id
    await decide(house, mother, request, "approve")
    (right,) = (await listed(house, mother))["given"]
    patient, me = UUID(right["patient_id"]).bytes, await account_id(house, "son")
    assert right["rights"] == {"book": True, "see_visits": True, "pay": True}
    assert datetime.fromisoformat(right["expires_at"]).date() == datetime.now(ZONE).date() + 30 * DAY
    assert await booking(house, me, patient) is None
    path = f"/delegations/{right['id']}"
    less = {"book": False, "see_visits": True, "pay": False}
    changed = await house.call("PUT", path, mother, json=less)
    assert (changed.status, changed.told["status"]) == (200, "changed")
    assert await booking(house, me, patient) == "delegation_without_booking"
    assert not await arrivals.may_act_for(house.pool, me, patient)
    for bad in ("2020-01-01", (datetime.now(ZONE).date() + 31 * DAY).isoformat()):
        refused = await house.call("PUT", path, mother, json={**less, "until": bad})
        assert (refused.status, refused.code) == (422, "invalid_body")
    today = datetime.now(ZONE).date()
    ends = await house.call("PUT", path, mother, json={**less, "until": today.isoformat()})
    assert datetime.fromisoformat(ends.expires_at) == datetime.combine(today + DAY, datetime.min.time(), ZONE)
    assert (await house.call("PUT", path, son, json={})).code == "no_such_delegation"
    # Nobody takes back what is not about them; she does, whenever she likes, once for all.
    assert (await house.call("DELETE", path, await house.account("x"))).code == "no_such_delegation"
    gone = await house.call("DELETE", path, mother)
    assert (gone.status, gone.told["status"]) == (200, "revoked")
    assert (await house.call("DELETE", path, mother)).told == gone.told
    assert await booking(house, me, patient) == "delegation_expired"
    assert (await listed(house, mother))["given"] == []
    assert (await house.call("PUT", path, mother, json={})).code == "no_such_delegation"
    # He may ask again, and is not simply let in.
    assert (await house.add(son, **wanted)).status == 202
    # Her account is gone: nobody can be asked, and nobody helps himself.
    await house.pool.execute("delete from delegation_request where status = 'asked'")
    await house.call("DELETE", f"/patients/{right['patient_id']}", mother)
    refused = await house.add(son, **wanted)
    assert (refused.status, refused.code) == (409, "delegation_revoked")
    for action in ("approved", "changed", "revoked"):
        entry = (await house.audit(f"delegation_{action}"))[0]
        assert entry["subjects"] == [UUID(right["patient_id"])]
        assert entry["by_id"] == UUID(bytes=await account_id(house, "mother"))


async def test_a_request_ends_without_an_answer(house: PeopleApp) -> None:
    mother, son = await house.account("mother"), await house.account("son")
    await house.add(mother, name="李秀兰", id_number=resident(2))
    wanted = {"name": "李秀兰", "id_number": resident(2), "relation": "parent"}
    rejected = (await house.add(son, **wanted)).request_id
    for _ in range(2):
        assert (await decide(house, mother, rejected, "reject")).told["status"] == "rejected"
    assert (await decide(house, mother, rejected, "approve")).code == "delegation_decided"
    withdrawn = (await house.add(son, **wanted)).request_id
    for _ in range(2):
        gone = await house.call("DELETE", f"/delegations/{withdrawn}", son)
        assert gone.told["status"] == "withdrawn"
    assert (await decide(house, mother, withdrawn, "approve")).code == "delegation_decided"
    late = (await house.add(son, **wanted)).request_id
    await house.pool.execute("update delegation_request set ends_at = now() where status = 'asked'")
    assert (await listed(house, mother))["asked_of_me"] == []
    assert (await decide(house, mother, late, "approve")).code == "delegation_decided"
    new = (await house.add(son, **wanted)).request_id
    assert new not in (rejected, withdrawn, late)
    assert (await house.call("GET", "/patients", son)).patients == []


async def test_yes_and_no_at_once_are_one_of_them(house: PeopleApp) -> None:
    mother, son = await house.account("mother"), await house.account("son")
    await house.add(mother, name="李秀兰", id_number=resident(2))
    wanted = {"name": "李秀兰", "id_number": resident(2), "relation": "parent"}
    request = (await house.add(son, **wanted)).request_id
    answers = await asyncio.gather(
        *(decide(house, mother, request, word) for word in ("approve", "reject") * 5),
        house.call("DELETE", f"/delegations/{request}", son),
    )
    said = {answer.told["status"] for answer in answers if answer.status == 200}
    assert len(said) == 1
    patients = (await house.call("GET", "/patients", son)).patients
    assert bool(patients) == ("approved" in said)


async def test_nobody_is_pestered(house: PeopleApp) -> None:
    son = await house.account("son")
    for n in range(REQUESTS_MAX + 1):
        await house.add(await house.account(f"o{n}"), id_number=resident(n))
        asked = await house.add(son, id_number=resident(n), relation="other")
        assert asked.status == (202 if n < REQUESTS_MAX else 409)
    assert asked.code == "too_many_patients"


async def test_two_who_say_self_at_once_are_not_both_believed(house: PeopleApp) -> None:
    tokens = [await house.account(f"o{n}") for n in range(5)]
    answers = await asyncio.gather(*(house.add(token) for token in tokens))
    assert sorted(answer.status for answer in answers) == [201, 202, 202, 202, 202]


async def test_of_two_who_say_self_the_second_waits_for_the_first(house: PeopleApp) -> None:
    """Of somebody who is known already, and whose `self` nobody is."""
    await house.add(await house.account("son"), relation="parent")
    await house.account("a"), await house.account("b")
    person = identify("王小明", IdType.RESIDENT_ID, resident(1), "13800000001", date(2026, 11, 23))
    assert isinstance(person, Person)
    terms, now = DelegationTerms(30, ZONE), datetime.now(UTC)

    async def say_self(connection: asyncpg.Connection, openid: str) -> object:
        account = await account_id(house, openid)
        new = NewPatient(person, "self")
        return await add_patient(connection, VAULT, account, new, secrets.token_bytes(16), terms, now)

    async with house.pool.acquire() as one, house.pool.acquire() as two:
        async with one.transaction():
            assert isinstance(await say_self(one, "a"), Patient)
            second = asyncio.create_task(say_self(two, "b"))
            async with asyncio.timeout(30):
                while not second.done() and not await house.pool.fetchval(
                    "select exists (select from pg_locks where not granted)"
                ):
                    await asyncio.sleep(0)
        assert isinstance(await second, Asked)


async def test_a_desk_settles_whose_account_it_is(house: PeopleApp) -> None:
    """Somebody says to be another person; that person comes with her papers."""
    thief, owner = await house.account("thief"), await house.account("owner")
    desk = house.staff("clerk", "desk")
    taken = await house.add(thief, name="李秀兰", id_number=resident(2))
    request = (await house.add(owner, name="李秀兰", id_number=resident(2))).request_id
    seen = await house.call("GET", f"/desk/patients/{taken.id}/verification", desk)
    assert [one["request_id"] for one in seen.requests] == [request]
    path = f"/desk/delegations/{request}/approve"
    assert (await house.call("POST", path, owner, json={})).status == 401
    assert (await house.call("POST", path, house.staff("doc", "doctor"), json={})).status == 403
    done = await house.call("POST", path, desk, json={"ends_others": True})
    assert (done.status, done.told["status"], done.expires_at) == (200, "approved", None)
    (mine,) = (await house.call("GET", "/patients", owner)).patients
    assert (mine["relation"], mine["is_expired"], mine["expires_at"]) == ("self", False, None)
    (his,) = (await house.call("GET", "/patients", thief)).patients
    assert his["is_expired"] is True
    patient, him = UUID(taken.id).bytes, await account_id(house, "thief")
    assert await booking(house, him, patient) == "delegation_expired"
    assert (
        await house.add(thief, name="李秀兰", id_number=resident(2))
    ).status == 202  # he asks, like anybody
    (entry,) = await house.audit("delegation_approved")
    assert (entry["by_name"], entry["subjects"]) == ("clerk", [UUID(taken.id)])


async def test_without_an_account_of_their_own_it_is_attested(house: PeopleApp) -> None:
    son = await house.account("son")
    added = await house.add(son, name="李秀兰", id_number=resident(2), relation="parent")
    assert added.status == 201
    row = await house.pool.fetchrow(
        "select consent, consent_version, consent_at, granted_by from account_patient where patient_id = $1",
        UUID(added.id),
    )
    assert row is not None
    assert (row["consent"], row["consent_version"]) == ("attested", 1)
    assert row["granted_by"] == UUID(bytes=await account_id(house, "son"))
    # She comes later, sees it, and takes it back.
    mother = await house.account("mother")
    assert (await house.add(mother, name="李秀兰", id_number=resident(2))).status == 201
    (given,) = (await listed(house, mother))["given"]
    assert (given["consent"], given["relation"]) == ("attested", "parent")
    assert (await house.call("DELETE", f"/delegations/{given['id']}", mother)).status == 200
    patients = (await house.call("GET", "/patients", son)).patients
    assert [p["is_expired"] for p in patients] == [True]
    # And from here on he does not renew it by himself.
    headers = {"Authorization": f"Bearer {son}", "Idempotency-Key": "k1"}
    body = {"id_digits": resident(2)[-4:]}
    await house.pool.execute(
        "update account_patient set revoked_at = null, revoked_by = null where id = $1", UUID(given["id"])
    )
    async with house.client.post(
        f"/api/v1/patients/{added.id}/renewal", headers=headers, json=body
    ) as response:
        assert (response.status, (await response.json())["code"]) == (409, "person_must_consent")


async def test_rights_are_honoured_where_visits_are_read(house: PeopleApp) -> None:
    """May book, but not see: what is ahead is shown to who booked it, and nothing of what came of it."""
    son = await house.account("son")
    added = await house.add(son, name="李秀兰", id_number=resident(2), relation="parent")
    me, her = await account_id(house, "son"), UUID(added.id).bytes
    ids = {status: await appointment(house, me, her, status) for status in Status if status < 7}
    waiting = await ticket(house, her)
    mine = await ticket(house, her, ids[Status.ARRIVED])
    now = datetime.now(UTC)
    async with house.pool.acquire() as connection:
        await connection.execute(
            "insert into notice (subject, kind, step, patient_id, department_id, day, at, data)"
            " values ($1, 'ahead', '3', $2, 'x', current_date, now(), '{}')",
            UUID(bytes=waiting),
            UUID(bytes=her),
        )

    async def seen() -> tuple[set[int], int, set[bool], int]:
        listed = await appointments.appointments_of(house.pool, VAULT, me, None, None, 50)
        single = {
            int(status)
            for status, id_ in ids.items()
            if await appointments.appointment(house.pool, VAULT, id_, me) is not None
        }
        assert single == {one.status for one in listed}
        today = datetime.now(ZONE).date()
        of_account = await tickets.tickets_of_account(house.pool, VAULT, me, today - DAY, 50)
        found = [await tickets.ticket(house.pool, VAULT, id_) for id_ in (waiting, mine)]
        theirs = {await tickets.is_of_account(house.pool, me, one) for one in found if one is not None}
        told = await notices.notices_for(house.pool, me, None, 50, now)
        return single, len(of_account), theirs, len(told)

    assert await seen() == ({1, 2, 3, 4, 5, 6}, 2, {True}, 1)
    await house.pool.execute("update account_patient set may_see = false")
    assert await seen() == ({1, 2, 5}, 0, {False}, 0)
    # Staff give numbers to accounts that may book; wishes end without that right.
    async with house.pool.acquire() as connection:
        assert await account_for(connection, her, now) == me
        await connection.execute("update account_patient set may_book = false")
        assert await account_for(connection, her, now) is None
    assert "a.may_book" in dict(wishes._ENDS)["delegation_ended"]


async def test_children_and_guardians(house: PeopleApp) -> None:
    token = await house.account("parent")
    child = {"name": "王小宝", "id_number": resident(3, "20200506")}
    alone = await house.add(token, **child)
    assert (alone.status, alone.code) == (409, "guardian_needed")
    assert await house.pool.fetchval("select count(*) from patient") == 0
    attested = await house.add(token, **child, relation="child")
    assert attested.status == 201
    assert attested.expires_at == "2038-05-06T00:00:00+08:00"
    assert await house.pool.fetchval("select consent from account_patient") == "guardian"
    # A hospital that wants to know the guardian.
    house.policy(guardian_required=True)
    token = await house.account("other")
    for relation in ("child", "ward", "relative"):
        assert (await house.add(token, **child, relation=relation)).code == "guardian_needed"
    await house.add(token, name="王小小", id_number=resident(4, "20100307"))  # 16: no guardian
    assert (await house.add(token, **child, relation="child")).code == "guardian_needed"
    assert (await house.add(token)).status == 201
    assert (await house.add(token, **child, relation="relative")).code == "guardian_needed"
    ward = await house.add(token, **child, relation="ward")
    assert (ward.status, ward.expires_at) == (201, "2038-05-06T00:00:00+08:00")
    # From 14 on one may have an account of one's own; parents still act for who is a minor.
    teenager = {"name": "王小小", "id_number": resident(4, "20100307")}
    parent = await house.account("parent")
    assert (await house.add(parent, **teenager, relation="child")).status == 201
    assert (await house.add(parent, **teenager, relation="other")).status == 202


async def test_a_phone_is_bound(house: PeopleApp) -> None:
    token = await house.account("o1")
    fresh = await house.call("GET", "/account", token)
    assert (fresh.status, fresh.phone, fresh.phone_bound_at, fresh.phone_is_shared) == (
        200,
        None,
        None,
        False,
    )

    async def bind(token: str, word: str) -> Answer:
        return await house.call("PUT", "/account/phone", token, json={"code": f"sandbox-phone:{word}"})

    bound = await bind(token, "13812345678")
    assert (bound.status, bound.phone, bound.phone_is_shared) == (200, "138****5678", False)
    assert (await house.call("GET", "/account", token)).told == bound.told
    # A family's phone: allowed, and noted.
    shared = await bind(await house.account("o2"), "13812345678")
    assert shared.phone_is_shared is True
    assert (await house.call("GET", "/account", token)).phone_is_shared is True
    assert [entry["detail"] for entry in await house.audit("account_phone_bound")] == [
        '{"other_accounts": 0}',
        '{"other_accounts": 1}',
    ]
    assert (await bind(token, "+852-61234567")).phone == "+85*****4567"
    # Sealed, and nowhere plain.
    row = await house.pool.fetchrow("select phone, phone_index from account where openid = 'o2'")
    assert row is not None and b"13812345678" not in row["phone"] + row["phone_index"]
    for word, status, code in (
        ("invalid", 422, "phone_code_refused"),
        ("used", 422, "phone_code_refused"),
        ("busy", 503, "phone_unavailable"),
        ("quota", 503, "phone_unavailable"),
        ("foreign", 503, "phone_unavailable"),
    ):
        refused = await bind(token, word)
        assert (refused.status, refused.code) == (status, code)
    assert (await house.call("GET", "/account", token)).phone == "+85*****4567"
    desk = house.staff("clerk", "desk")
    assert (await house.call("GET", "/account", desk)).status in (401, 403)


async def test_a_unionid_is_kept_and_no_session_key(house: PeopleApp) -> None:
    for code in ("sandbox:o1", "sandbox:o1+u1", "sandbox:o1", "sandbox:o1+u2"):
        body = {"grant": "wechat", "code": code}
        assert (await house.call("POST", "/sessions", json=body)).status == 201
    assert await house.pool.fetchval("select unionid from account") == "u2"
    dump = await house.pool.fetch(
        "select a::text as row from account a union all select s::text from session s"
    )
    assert not any("c2FuZGJve" in record["row"] for record in dump)
