"""Staff against PostgreSQL: their accounts, signing in over HTTP, locks, and `xinglin staff`."""

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from engine.domain.policy import Channel
from engine.records import staff as records
from engine.records.catalog import load_catalog
from engine.records.staff import FAILURES_MAX, LOCK, NewStaff, Role, Staff, StaffRefused
from tests.support.system import ROOT, System, run
from web import keys, passwords
from web.auth import Tokens
from web.demo_staff import DEMO_PASSWORD, DEMO_STAFF, close_demo_staff, open_demo_staff
from web.openapi import Api, api
from web.passwords import Passwords, hash_of
from web.patient import patients, sessions  # noqa: F401  (they declare their routes)

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PASSWORD = "a good password"
HASH = hash_of(PASSWORD)
Client = TestClient[web.Request, web.Application]

desk_api = Api("desk", "1")


@desk_api.route("GET", "/desk/me", zh="我", security="staff", roles=("desk",))
async def me(request: web.Request, *, staff: Staff) -> dict[str, object]:
    """Who I am."""
    return {"username": staff.username, "roles": sorted(staff.roles), "department": staff.department_id}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=10) as pool:
        await pool.execute(
            "insert into department (id, parent_id, name, campus, position) values"
            " ('03', null, '内科', '本部', 0), ('0304', '03', '心内科', '本部', 1)"
        )
        await pool.execute(
            "insert into practitioner (id, name, title, department_id, position)"
            " values ('D0001', '郝思涵', 'chief', '0304', 0)"
        )
        yield pool


@pytest.fixture
async def client(pool: asyncpg.Pool) -> AsyncIterator[Client]:
    app = web.Application()
    app[keys.POOL] = pool
    app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400)
    app[keys.PASSWORDS] = Passwords()
    api.setup(app)
    below = web.Application()
    below[keys.TOKENS] = app[keys.TOKENS]
    desk_api.setup(below)
    app.add_subapp("/of", below)
    async with TestClient(TestServer(app)) as client:
        yield client


def someone(username: str = "desk", *roles: str, **rest: Any) -> NewStaff:
    return NewStaff(username, "窗口一号", HASH, roles or (Role.DESK,), **rest)


async def add(pool: asyncpg.Pool, new: NewStaff) -> Staff:
    async with pool.acquire() as connection:
        return await records.add_staff(connection, new, secrets.token_bytes(16), NOW)


async def post(client: Client, **body: str) -> tuple[int, dict[str, Any]]:
    async with client.post("/api/v1/sessions", json=body) as response:
        return response.status, await response.json()


async def sign_in(client: Client, username: str = "desk", password: str = PASSWORD) -> tuple[int, str]:
    """The status, and the access token or the code of the failure."""
    status, told = await post(client, grant="password", username=username, password=password)
    return status, told["access_token" if status == 201 else "code"]


REFUSED = (401, "sign_in_refused")


async def who(client: Client, token: str) -> tuple[int, dict[str, Any]]:
    async with client.get("/of/desk/me", headers={"Authorization": f"Bearer {token}"}) as response:
        return response.status, await response.json()


# Accounts.


async def test_what_is_added_is_read_back(pool: asyncpg.Pool) -> None:
    made = await add(
        pool, someone("zhang.san", Role.DOCTOR, Role.DESK, practitioner_id="D0001", department_id="03")
    )
    assert (made.practitioner_id, made.department_id, made.channel) == ("D0001", "03", Channel.DOCTOR)
    assert made.roles == {Role.DOCTOR, Role.DESK}
    async with pool.acquire() as connection:
        assert await records.staff_of_id(connection, made.id) == made
        assert await records.staff_of_id(connection, bytes(16)) is None
        (row,) = await records.list_staff(connection)
    assert (row.staff, row.disabled, row.locked_until, row.created_at) == (made, False, None, NOW)
    phone = await add(pool, someone("phone", Role.DESK, channel="phone"))
    assert phone.channel is Channel.PHONE


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (someone("Desk"), "username 'Desk'"),
        (someone(""), "username ''"),
        (someone("a b"), "username 'a b'"),
        (someone("x" * 65), "username"),
        (NewStaff("a", "", HASH, (Role.DESK,)), "name ''"),
        (NewStaff("a", "王\0", HASH, (Role.DESK,)), "name"),
        (NewStaff("a", "王", HASH, ()), "no role"),
        (someone("a", "boss"), "no role is called 'boss'"),
        (someone("a", Role.DESK, channel="fax"), "no channel is called 'fax'"),
        (someone("a", Role.DOCTOR), "a doctor needs a practitioner"),
        (someone("a", Role.DESK, practitioner_id="D0001"), "not the role doctor"),
        (someone("a", Role.DOCTOR, practitioner_id="D9"), "no practitioner has the id 'D9'"),
        (someone("a", Role.DESK, department_id="99"), "no department has the id '99'"),
        (someone("a", Role.DESK, department_id="\0"), "no department has the id"),
    ],
)
async def test_what_is_wrong_is_told_and_not_added(pool: asyncpg.Pool, new: NewStaff, told: str) -> None:
    with pytest.raises(StaffRefused) as caught:
        await add(pool, new)
    assert [error for error in caught.value.errors if error.startswith(told) or told in error]
    assert await pool.fetchval("select count(*) from staff") == 0


async def test_all_that_is_wrong_is_told_at_once(pool: asyncpg.Pool) -> None:
    with pytest.raises(StaffRefused) as caught:
        await add(pool, someone("A", "boss", department_id="99", channel="x"))
    assert len(caught.value.errors) == 4


async def test_a_username_is_given_once_however_many_ask(pool: asyncpg.Pool) -> None:
    made = await asyncio.gather(*(add(pool, someone()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Staff) for one in made) == 1
    assert sum(isinstance(one, StaffRefused) and "is taken" in str(one) for one in made) == 7


# Locks, by the clock of whoever asks.


async def begin(pool: asyncpg.Pool, now: datetime, username: str = "desk") -> bool:
    async with pool.acquire() as connection:
        return await records.begin_sign_in(connection, username, now) is not None


async def test_five_failures_lock_for_fifteen_minutes(pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    for n in range(FAILURES_MAX):
        assert await begin(pool, NOW + timedelta(seconds=n))
    fifth = NOW + timedelta(seconds=FAILURES_MAX - 1)
    assert not await begin(pool, fifth)
    assert not await begin(pool, fifth + LOCK - timedelta(microseconds=1))
    # Then there are five again, not one.
    for _ in range(FAILURES_MAX):
        assert await begin(pool, fifth + LOCK)
    assert not await begin(pool, fifth + LOCK)


async def test_a_success_begins_a_new_count(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone())
    for _ in range(3):
        for _ in range(FAILURES_MAX):
            assert await begin(pool, NOW)
        async with pool.acquire() as connection:
            assert await records.end_sign_in(connection, made.id) == made


async def test_a_crowd_of_guesses_is_five_guesses(pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    begun = await asyncio.gather(*(begin(pool, NOW) for _ in range(50)))
    assert sum(begun) == FAILURES_MAX


async def test_who_is_disabled_meanwhile_stays_out(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone())
    assert await begin(pool, NOW)
    async with pool.acquire() as connection:
        await records.disable_staff(connection, "desk")
        assert await records.end_sign_in(connection, made.id) is None
        assert await records.staff_of_id(connection, made.id) is None
    assert not await begin(pool, NOW)


# Over HTTP.


async def test_a_desk_signs_in_and_is_known(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone(department_id="03"))
    status, told = await post(client, grant="password", username=" Desk", password=PASSWORD)
    assert (status, sorted(told), told["expires_in"]) == (
        201,
        ["access_token", "expires_in", "refresh_token"],
        1800,
    )
    assert await who(client, told["access_token"]) == (
        200,
        {"username": "desk", "roles": ["desk"], "department": "03"},
    )
    status, problem = await who(client, told["refresh_token"])
    assert (status, problem["code"]) == (401, "unauthenticated")


async def test_every_failure_looks_the_same(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    await add(pool, someone("gone"))
    async with pool.acquire() as connection:
        await records.disable_staff(connection, "gone")
    told = [
        await post(client, grant="password", username=username, password=password)
        for username, password in (
            ("desk", "wrong"),
            ("desk", PASSWORD + " "),
            ("gone", PASSWORD),
            ("nobody", PASSWORD),
            ("no such thing!", PASSWORD),
            ("\0", "\0"),
        )
    ]
    assert {(status, problem["code"]) for status, problem in told} == {REFUSED}
    assert len({str(sorted(problem.items())) for _, problem in told}) == 1


async def test_the_right_password_does_not_open_a_lock(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    await add(pool, someone("other"))
    for _ in range(FAILURES_MAX - 1):
        assert await sign_in(client, password="wrong") == REFUSED
    assert (await sign_in(client))[0] == 201  # and the count begins anew
    for _ in range(FAILURES_MAX):
        assert await sign_in(client, password="wrong") == REFUSED
    assert await sign_in(client) == REFUSED
    assert (await sign_in(client, "other"))[0] == 201
    await pool.execute("update staff set locked_until = $1", datetime.now(UTC))
    assert (await sign_in(client))[0] == 201
    assert await pool.fetchrow("select failed_count, locked_until from staff where username = 'desk'") == (
        0,
        None,
    )


async def test_many_right_ones_at_once_lock_nobody_out(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone("his", Role.PARTNER))
    told = await asyncio.gather(*(sign_in(client, "his") for _ in range(passwords.SIGN_INS_EACH_MAX)))
    assert {status for status, _ in told} == {201}


async def test_beyond_the_bound_it_is_refused_at_once(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    told = await asyncio.gather(*(sign_in(client) for _ in range(2 * passwords.SIGN_INS_EACH_MAX)))
    statuses = [status for status, _ in told]
    assert set(statuses) == {201, 503}
    assert {code for status, code in told if status == 503} == {"sign_in_unavailable"}


async def test_a_refresh_says_what_they_may_by_then(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    _, first = await post(client, grant="password", username="desk", password=PASSWORD)
    await pool.execute("update staff set roles = array['manager'], department_id = '03'")
    status, second = await post(client, grant="refresh", refresh_token=first["refresh_token"])
    assert status == 201
    status, problem = await who(client, second["access_token"])
    assert (status, problem["code"], problem["roles"]) == (403, "forbidden", ["desk"])
    await pool.execute("update staff set disabled = true")
    status, problem = await post(client, grant="refresh", refresh_token=second["refresh_token"])
    assert (status, problem["code"]) == REFUSED


async def test_staff_have_no_patients(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone())
    _, token = await sign_in(client)
    async with client.get("/api/v1/patients", headers={"Authorization": f"Bearer {token}"}) as response:
        assert (response.status, (await response.json())["code"]) == (401, "unauthenticated")


async def test_a_database_that_is_away(client: Client, pool: asyncpg.Pool) -> None:
    await pool.close()
    assert await sign_in(client) == (503, "database_down")


# The demo's own.


async def test_the_demos_doors_close_with_the_demo(client: Client, pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        catalog = await load_catalog(connection)
        await open_demo_staff(connection, catalog)
        first = await records.list_staff(connection)
        await open_demo_staff(connection, catalog)
        assert await records.list_staff(connection) == first
    assert sorted(row.staff.username for row in first) == sorted(username for username, _, _ in DEMO_STAFF)
    (doctor,) = [row.staff for row in first if row.staff.username == "demo-doctor"]
    assert (doctor.practitioner_id, doctor.roles) == ("D0001", {Role.DOCTOR})
    await add(pool, someone())
    assert (await sign_in(client, "demo-his", DEMO_PASSWORD))[0] == 201
    async with pool.acquire() as connection:
        await close_demo_staff(connection)
    assert await sign_in(client, "demo-his", DEMO_PASSWORD) == REFUSED
    assert (await sign_in(client))[0] == 201
    async with pool.acquire() as connection:
        await open_demo_staff(connection, catalog)
    assert (await sign_in(client, "demo-his", DEMO_PASSWORD))[0] == 201


async def test_a_real_account_with_a_demos_name_stays_real(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone("demo-desk"))
    async with pool.acquire() as connection:
        await open_demo_staff(connection, await load_catalog(connection))
    assert await sign_in(client, "demo-desk", DEMO_PASSWORD) == REFUSED
    assert (await sign_in(client, "demo-desk"))[0] == 201


# The command.


async def staff_command(database: str, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    done = await asyncio.to_thread(run, "staff", *arguments, "--database-url", database, typed=typed)
    return done.returncode, done.stdout, done.stderr


async def test_the_command(client: Client, pool: asyncpg.Pool, database: str) -> None:
    about = ("--username", "Zhang", "--name", "张三", "--role", "doctor", "--practitioner", "D0001")
    status, said, wrong = await staff_command(database, "add", *about, typed=f"{PASSWORD}\n")
    assert (status, said, wrong) == (0, "zhang may sign in as doctor\n", "")
    assert (await sign_in(client, "zhang"))[0] == 201
    status, said, _ = await staff_command(database, "list")
    row = next(line.split() for line in said.splitlines() if "zhang" in line)
    assert (status, row) == (0, ["zhang", "张三", "doctor", "D0001", "all", "doctor", "active"])
    assert await staff_command(database, "disable", "--username", "zhang") == (0, "zhang is disabled\n", "")
    assert await sign_in(client, "zhang") == REFUSED
    assert "disabled" in (await staff_command(database, "list"))[1]


async def test_the_command_says_what_is_wrong(pool: asyncpg.Pool, database: str) -> None:
    about = ("--username", "a b", "--name", "x", "--role", "boss", "--department", "99")
    status, said, wrong = await staff_command(database, "add", *about, typed=PASSWORD)
    assert (status, said) == (1, "")
    told = wrong.splitlines()
    assert told[0].startswith("username 'a b'") and told[1].startswith("no role is called 'boss'")
    assert told[2].startswith("no department has the id '99'")
    assert told[3:] == ["xinglin: nothing was changed"]
    status, _, wrong = await staff_command(
        database, "add", "--username", "a", "--name", "x", "--role", "desk", typed="short\n"
    )
    assert (status, wrong) == (1, "xinglin: a password has 8 to 256 characters, not 5\n")
    status, _, wrong = await staff_command(database, "disable", "--username", "nobody")
    assert (status, wrong.splitlines()[0]) == (
        1,
        "nobody has the username 'nobody': see `xinglin staff list`",
    )
    assert await pool.fetchval("select count(*) from staff") == 0


# The whole system.


async def test_the_demos_staff_can_sign_in(system: System) -> None:
    async with ClientSession() as session:
        for username, _, _ in DEMO_STAFF:
            body = {"grant": "password", "username": username, "password": DEMO_PASSWORD}
            async with session.post(f"{system.address}/api/v1/sessions", json=body) as response:
                assert response.status == 201, username


def greeting(demo: bool) -> str:
    # In a process of its own: web.main imports Ray, which this one must not have when unit tests run in it.
    program = (
        "from pathlib import Path; from engine.settings import Settings; from web.main import _greet;"
        f" _greet(Settings(demo={demo}), Path('home'), ['http://here'])"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_only_the_demo_tells_a_password() -> None:
    told = greeting(demo=True)
    assert all(username in told for username, _, _ in DEMO_STAFF) and DEMO_PASSWORD in told
    assert "demo" not in greeting(demo=False)
