"""Accounts and patients against PostgreSQL, and over the wire, with the WeChat sandbox."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from engine.domain.claims import of_department_day, of_time
from engine.records.delegations import Asked
from engine.records.facts import Question, facts
from engine.records.identity import IdType, identify
from engine.records.patients import (
    ACCOUNT_PATIENTS_EVER_MAX,
    ACCOUNT_PATIENTS_MAX,
    DelegationTerms,
    NewPatient,
    Patient,
    PeopleRefusal,
    account_of_openid,
    add_patient,
    patients_of,
    renew,
    revoke,
)
from tests.support.people import VAULT
from tests.support.people_app import form, people_app, resident
from web.patient import patients, sessions  # noqa: F401  (they declare their routes)

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")
TERMS = DelegationTerms(365, ZONE)
DAY = timedelta(days=1)
Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=10) as pool:
        yield pool


def new_id() -> bytes:
    return secrets.token_bytes(16)


def someone(
    n: int = 1,
    name: str = "王小明",
    relation: str = "self",
    phone: str = "13800000001",
    born: str = "19900307",
) -> NewPatient:
    person = identify(name, IdType.RESIDENT_ID, resident(n, born), phone, NOW.date())
    assert not isinstance(person, str)
    return NewPatient(person, relation)


def traveller(birth_date: date | None = None, sex: str | None = None) -> NewPatient:
    person = identify("Jane Roe", IdType.PASSPORT, "E12345678", "+12025550123", NOW.date(), birth_date, sex)
    assert not isinstance(person, str)
    return NewPatient(person, "other")


async def account(pool: asyncpg.Pool, openid: str = "o1") -> bytes:
    async with pool.acquire() as conn:
        return await account_of_openid(conn, openid, new_id(), NOW)


async def add(
    pool: asyncpg.Pool, account_id: bytes, patient: NewPatient, now: datetime = NOW
) -> Patient | Asked | PeopleRefusal:
    async with pool.acquire() as conn:
        return await add_patient(conn, VAULT, account_id, patient, new_id(), TERMS, now)


async def added(pool: asyncpg.Pool, account_id: bytes, patient: NewPatient, now: datetime = NOW) -> Patient:
    found = await add(pool, account_id, patient, now)
    assert isinstance(found, Patient)
    return found


async def renewed(
    pool: asyncpg.Pool,
    account_id: bytes,
    patient: Patient,
    now: datetime,
    key: str = "k1",
    digits: str | None = None,
) -> Patient | PeopleRefusal:
    async with pool.acquire() as conn:
        wanted = patient.id_number[-4:] if digits is None else digits
        return await renew(conn, VAULT, account_id, patient.id, wanted, key, TERMS, now)


async def revoked(
    pool: asyncpg.Pool, account_id: bytes, patient_id: bytes, now: datetime
) -> Patient | PeopleRefusal:
    async with pool.acquire() as conn:
        return await revoke(conn, VAULT, account_id, patient_id, now)


async def right(pool: asyncpg.Pool, account_id: bytes, patient_id: bytes) -> tuple[bool, int | None]:
    """What a booking learns: whose patient it is, and until when (ms)."""
    number = new_id()
    day, time = (
        of_department_day(patient_id, "cardio", "2026-11-24", number, None),
        of_time(patient_id, 1, number, None),
    )
    (found,) = await facts(
        pool,
        [Question(number, patient_id, account_id, "cardio", "2026-11-24", day, time)],
        int(datetime.now(UTC).timestamp() * 1000),
    )
    return found.is_of_account, found.delegated_until


async def test_fifty_sign_ins_of_one_person_make_one_account(pool: asyncpg.Pool) -> None:
    ids = await asyncio.gather(*(account(pool, "one") for _ in range(50)))
    assert len(set(ids)) == 1
    assert await pool.fetchval("select count(*) from account") == 1
    assert await account(pool, "another") not in ids


async def test_a_patient_added_twice_is_one(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    first = await add(pool, mine, someone())
    again = await add(pool, mine, someone(phone="13800000002", relation="parent"))
    assert isinstance(first, Patient) and isinstance(again, Patient)
    assert again.id == first.id
    async with pool.acquire() as conn:
        assert await patients_of(conn, VAULT, mine) == [again]
    assert (again.phone, again.relation) == ("13800000002", "parent")
    assert (again.birth_date, again.sex) == (date(1990, 3, 7), "male")


async def test_one_identity_is_one_patient_across_accounts(pool: asyncpg.Pool) -> None:
    mine, yours = await account(pool, "mine"), await account(pool, "yours")
    a = await add(pool, mine, someone())
    b = await add(pool, yours, someone(2, relation="spouse", phone="13800000009"))
    c = await add(pool, mine, someone(2, relation="spouse"))
    assert isinstance(a, Patient) and isinstance(b, Patient) and isinstance(c, Patient)
    assert b.id == c.id != a.id
    async with pool.acquire() as conn:
        assert sorted((p.relation, p.phone) for p in await patients_of(conn, VAULT, mine)) == [
            ("self", "13800000001"),
            ("spouse", "13800000001"),
        ]


async def test_another_name_is_refused(pool: asyncpg.Pool) -> None:
    mine, yours = await account(pool, "mine"), await account(pool, "yours")
    await add(pool, mine, someone())
    assert await add(pool, yours, someone(name="李四")) is PeopleRefusal.IDENTITY_MISMATCH
    assert await add(pool, mine, someone(name="李四")) is PeopleRefusal.IDENTITY_MISMATCH
    async with pool.acquire() as conn:
        assert await patients_of(conn, VAULT, yours) == []


async def test_what_was_left_out_may_come_later_and_then_stays(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    await add(pool, mine, traveller())
    known = await add(pool, mine, traveller(date(1980, 1, 2), "female"))
    assert isinstance(known, Patient)
    assert (known.birth_date, known.sex) == (date(1980, 1, 2), "female")
    assert await add(pool, mine, traveller(date(1980, 1, 3))) is PeopleRefusal.IDENTITY_MISMATCH
    assert await add(pool, mine, traveller(sex="male")) is PeopleRefusal.IDENTITY_MISMATCH
    assert await add(pool, mine, traveller()) == known


async def test_the_limit_holds_however_many_are_added_at_once(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    added = await asyncio.gather(*(add(pool, mine, someone(n)) for n in range(20)))
    assert sum(isinstance(one, Patient) for one in added) == ACCOUNT_PATIENTS_MAX
    assert added.count(PeopleRefusal.TOO_MANY_PATIENTS) == 20 - ACCOUNT_PATIENTS_MAX
    # Those refused left nothing behind, and those that are there may still be changed.
    assert await pool.fetchval("select count(*) from patient") == ACCOUNT_PATIENTS_MAX
    n = next(n for n, one in enumerate(added) if isinstance(one, Patient))
    assert isinstance(await add(pool, mine, someone(n, phone="13800000003")), Patient)


async def test_the_limit_holds_for_people_others_know(pool: asyncpg.Pool) -> None:
    mine, yours = await account(pool, "mine"), await account(pool, "yours")
    for n in range(ACCOUNT_PATIENTS_MAX):
        await add(pool, mine, someone(n))
    await add(pool, yours, someone(99, relation="other"))
    assert await add(pool, mine, someone(99)) is PeopleRefusal.TOO_MANY_PATIENTS


async def test_many_accounts_add_one_person_at_once(pool: asyncpg.Pool) -> None:
    accounts = [await account(pool, f"o{n}") for n in range(20)]
    added = await asyncio.gather(*(add(pool, one, someone(relation="parent")) for one in accounts))
    assert len({one.id for one in added if isinstance(one, Patient)}) == 1
    assert await pool.fetchval("select count(*) from account_patient") == 20


# Rights to book for others.


async def test_rights_end_by_relation(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    oneself = await added(pool, mine, someone(1))
    child = await added(pool, mine, someone(2, relation="child", born="20200506"))
    son = await added(pool, mine, someone(3, relation="child", born="19900307"))
    mother = await added(pool, mine, someone(4, relation="parent", born="19600307"))
    assert oneself.expires_at is None
    assert child.expires_at == datetime(2038, 5, 6, tzinfo=ZONE)
    assert son.expires_at == mother.expires_at == datetime(2027, 11, 23, tzinfo=ZONE)
    assert not mother.is_expired(NOW) and mother.is_expired(datetime(2027, 11, 23, tzinfo=ZONE))
    assert mother.expires_at is not None
    told = int(mother.expires_at.timestamp() * 1000)
    assert await right(pool, mine, mother.id) == (True, told)
    assert await right(pool, mine, oneself.id) == (True, None)
    assert await right(pool, await account(pool, "another"), oneself.id) == (False, None)


async def test_a_grown_up_is_asked_again(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    mother = await added(pool, mine, someone(relation="parent"))
    later = NOW + 400 * DAY
    assert mother.is_expired(later)
    assert await renewed(pool, mine, mother, later, digits="0000") is PeopleRefusal.ID_DIGITS_MISMATCH
    again = await renewed(pool, mine, mother, later)
    assert isinstance(again, Patient)
    assert again.expires_at == datetime(2028, 12, 27, tzinfo=ZONE)
    async with pool.acquire() as conn:
        assert await patients_of(conn, VAULT, mine) == [again]
    # A retry finds what was done, and gives no day more.
    assert await renewed(pool, mine, mother, later + DAY) == again
    other = await added(pool, mine, someone(2, relation="spouse"), later)
    assert await renewed(pool, mine, other, later) is PeopleRefusal.KEY_REUSED
    another = await account(pool, "another")
    assert await renewed(pool, another, mother, later, "k2") is PeopleRefusal.NO_SUCH_PATIENT


async def test_a_child_is_a_child_until_eighteen_and_then_asked_itself(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    child = await added(pool, mine, someone(relation="child", born="20090310"))
    assert await renewed(pool, mine, child, NOW) == child  # not a day longer
    birthday = datetime(2027, 3, 10, tzinfo=ZONE)
    assert child.expires_at == birthday
    eve = birthday - timedelta(seconds=1)
    assert await renewed(pool, mine, child, eve) == child
    assert await renewed(pool, mine, child, birthday) is PeopleRefusal.CHILD_IS_GROWN_UP
    grown = await added(pool, mine, someone(relation="child", born="20090310"), birthday)
    assert grown.expires_at == datetime(2028, 3, 9, tzinfo=ZONE)
    again = await renewed(pool, mine, grown, birthday + 30 * DAY)
    assert isinstance(again, Patient) and again.expires_at == datetime(2028, 4, 8, tzinfo=ZONE)


async def test_a_right_taken_back_is_over_at_once(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    oneself = await added(pool, mine, someone())
    gone = await revoked(pool, mine, oneself.id, NOW)
    assert isinstance(gone, Patient)
    assert gone.is_expired(NOW) and gone.ends_at == NOW
    assert await revoked(pool, mine, oneself.id, NOW + DAY) == gone
    assert await right(pool, mine, oneself.id) == (True, int(NOW.timestamp() * 1000))
    assert await renewed(pool, mine, oneself, NOW) is PeopleRefusal.DELEGATION_REVOKED
    assert await revoked(pool, mine, new_id(), NOW) is PeopleRefusal.NO_SUCH_PATIENT
    back = await added(pool, mine, someone())
    assert back == oneself
    assert await right(pool, mine, oneself.id) == (True, None)


async def test_rights_that_are_over_make_room_but_not_for_ever(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    people = [await added(pool, mine, someone(n)) for n in range(ACCOUNT_PATIENTS_MAX)]
    for n in range(ACCOUNT_PATIENTS_MAX, ACCOUNT_PATIENTS_EVER_MAX):
        assert await add(pool, mine, someone(n)) is PeopleRefusal.TOO_MANY_PATIENTS
        await revoked(pool, mine, people[n - ACCOUNT_PATIENTS_MAX].id, NOW)
        people.append(await added(pool, mine, someone(n)))
    await revoked(pool, mine, people[-1].id, NOW)
    assert await add(pool, mine, someone(99)) is PeopleRefusal.TOO_MANY_PATIENTS
    assert isinstance(await add(pool, mine, someone(0)), Patient)
    assert await add(pool, mine, someone(1)) is PeopleRefusal.TOO_MANY_PATIENTS


async def test_an_old_right_is_not_renewed_into_a_full_account(pool: asyncpg.Pool) -> None:
    mine = await account(pool)
    mother = await added(pool, mine, someone(50, relation="parent"))
    later = NOW + 400 * DAY
    for n in range(ACCOUNT_PATIENTS_MAX):
        await added(pool, mine, someone(n), later)
    assert await renewed(pool, mine, mother, later) is PeopleRefusal.TOO_MANY_PATIENTS


# Over the wire.


@pytest.fixture
async def client(pool: asyncpg.Pool) -> AsyncIterator[Client]:
    async with people_app(pool, VAULT) as house:
        yield house.client


async def call(client: Client, method: str, path: str, token: str = "", **rest: Any) -> SimpleNamespace:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with client.request(method, path, headers=headers, **rest) as response:
        told = {**await response.json(), "status": response.status, "headers": response.headers}
        return SimpleNamespace(**told)


async def sign_in(client: Client, openid: str = "o1") -> str:
    session = await call(
        client, "POST", "/api/v1/sessions", json={"grant": "wechat", "code": f"sandbox:{openid}"}
    )
    assert (session.status, session.expires_in) == (201, 1800)
    token: str = session.access_token
    return token


async def test_a_person_signs_in_and_adds_patients(client: Client) -> None:
    token = await sign_in(client)
    added = await call(client, "POST", "/api/v1/patients", token, json=form())
    assert added.status == 201
    listed = await call(client, "GET", "/api/v1/patients", await sign_in(client))
    assert listed.patients == [
        {
            "id": added.id,
            "name": "王小明",
            "id_type": "resident_id",
            "id_number": "110" + "*" * 11 + resident(1)[-4:],
            "phone": "138****0001",
            "relation": "self",
            "birth_date": "1990-03-07",
            "sex": "male",
            "expires_at": None,
            "is_expired": False,
            "rights": {"book": True, "see_visits": True, "pay": True},
            "verification": "verified",
        }
    ]
    assert (await call(client, "GET", "/api/v1/patients", await sign_in(client, "o2"))).patients == []


async def test_a_refresh_token_buys_the_next_pair(client: Client) -> None:
    first = await call(client, "POST", "/api/v1/sessions", json={"grant": "wechat", "code": "sandbox:o1"})
    body = {"grant": "refresh", "refresh_token": first.refresh_token}
    second = await call(client, "POST", "/api/v1/sessions", json=body)
    assert second.status == 201
    assert (await call(client, "GET", "/api/v1/patients", second.access_token)).status == 200
    body = {"grant": "refresh", "refresh_token": first.access_token}
    assert (await call(client, "POST", "/api/v1/sessions", json=body)).code == "unauthenticated"
    assert (await call(client, "GET", "/api/v1/patients", first.refresh_token)).code == "unauthenticated"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"grant": "wechat", "code": "nonsense"}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": "sandbox:"}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": "sandbox:a b"}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": "sandbox:" + "x" * 65}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": "sandbox:o\n"}, 401, "sign_in_refused"),
        ({"grant": "wechat", "code": ""}, 422, "invalid_body"),
        ({"grant": "refresh", "refresh_token": "x"}, 401, "unauthenticated"),
        ({"grant": "password", "username": "a", "password": "b"}, 422, "unsupported_grant"),
        ({"grant": "magic"}, 422, "invalid_body"),
        ({}, 422, "invalid_body"),
    ],
)
async def test_sign_ins_that_fail(client: Client, body: dict[str, str], status: int, code: str) -> None:
    answer = await call(client, "POST", "/api/v1/sessions", json=body)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"name": "王😀"}, 422, "invalid_name", "name"),
        ({"id_number": "110105199003070011"}, 422, "invalid_id_number", "id_number"),
        ({"id_number": resident(1, "20991231")}, 422, "invalid_id_number", "id_number"),
        ({"birth_date": "1990-03-08"}, 422, "invalid_birth_date", "birth_date"),
        ({"sex": "female"}, 422, "invalid_sex", "sex"),
        ({"phone": "110"}, 422, "invalid_phone", "phone"),
        ({"id_type": "library_card"}, 422, "invalid_body", "id_type"),
        ({"relation": "boss"}, 422, "invalid_body", "relation"),
        ({"name": "王\u0000"}, 422, "invalid_name", "name"),
    ],
)
async def test_forms_that_are_wrong(
    client: Client, changes: dict[str, str], status: int, code: str, field: str
) -> None:
    answer = await call(client, "POST", "/api/v1/patients", await sign_in(client), json=form(**changes))
    assert (answer.status, answer.code) == (status, code)
    assert [error["loc"] for error in answer.errors] == [["body", field]]
    assert not any(isinstance(v, str) and v in str(vars(answer)) for v in changes.values() if v != "")


async def test_refusals_over_the_wire(client: Client) -> None:
    token = await sign_in(client)
    await call(client, "POST", "/api/v1/patients", token, json=form())
    answer = await call(client, "POST", "/api/v1/patients", token, json=form(name="李四"))
    assert (answer.status, answer.code) == (409, "identity_mismatch")
    for n in range(2, ACCOUNT_PATIENTS_MAX + 1):
        added = await call(client, "POST", "/api/v1/patients", token, json=form(id_number=resident(n)))
        assert added.status == 201
    answer = await call(client, "POST", "/api/v1/patients", token, json=form(id_number=resident(77)))
    assert (answer.status, answer.code, answer.limit) == (409, "too_many_patients", 10)
    assert "10" in answer.detail


async def test_a_right_over_the_wire(client: Client, pool: asyncpg.Pool) -> None:
    token = await sign_in(client)
    mother = await call(client, "POST", "/api/v1/patients", token, json=form(relation="parent"))
    days = datetime.fromisoformat(mother.expires_at).date() - datetime.now(ZONE).date()
    assert (days, mother.is_expired) == (30 * DAY, False)
    path = f"/api/v1/patients/{mother.id}"
    await pool.execute("update account_patient set expires_at = $1", datetime.now(UTC) - DAY)
    (listed,) = (await call(client, "GET", "/api/v1/patients", token)).patients
    assert listed["is_expired"] is True

    async def renewal(digits: object, key: str = "k1") -> SimpleNamespace:
        body = {"id_digits": digits}
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        async with client.post(f"{path}/renewal", json=body, headers=headers) as response:
            return SimpleNamespace(**{**await response.json(), "status": response.status})

    for wrong in ("", "12", "12345", "12 4", 1234, "１２３４"):
        assert (await renewal(wrong)).code == "invalid_body"
    refused = await renewal("0000")
    assert (refused.status, refused.code) == (422, "id_digits_mismatch")
    again = await renewal(resident(1)[-4:])
    assert (again.status, again.is_expired, again.expires_at) == (200, False, mother.expires_at)
    gone = await call(client, "DELETE", path, token)
    assert (gone.status, gone.is_expired) == (200, True)
    refused = await renewal(resident(1)[-4:], "k2")
    assert (refused.status, refused.code) == (409, "delegation_revoked")
    (listed,) = (await call(client, "GET", "/api/v1/patients", token)).patients
    assert listed["is_expired"] is True
    other = await sign_in(client, "o2")
    missing = await call(client, "DELETE", path, other)
    assert (missing.status, missing.code) == (404, "no_such_patient")


async def test_sign_in_says_when_the_database_is_away(client: Client, pool: asyncpg.Pool) -> None:
    await pool.close()
    answer = await call(client, "POST", "/api/v1/sessions", json={"grant": "wechat", "code": "sandbox:o1"})
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "database_down", "2")
