"""Staff against PostgreSQL: their accounts, signing in over HTTP, locks, and `xinglin staff`."""

import asyncio
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner, Result
from pydantic import SecretStr

from engine.database import create_if_missing
from engine.domain.lockout import FAMILIAR, OF_AN_ADDRESS
from engine.domain.policy import Channel
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import second_factors, sign_ins
from engine.records import staff as records
from engine.records.catalog import load_catalog
from engine.records.staff import Duties, NewStaff, Role, Staff, StaffRefused
from engine.settings import Settings
from engine.vault.opening import open_vault
from tests.support.front_door import front_door
from tests.support.system import ROOT, System
from web import app as every_route  # noqa: F401  (declares them)
from web import keys, passwords
from web.auth import Tokens
from web.cli import main
from web.demo_staff import DEMO_PASSWORD, DEMO_STAFF, close_demo_staff, open_demo_staff
from web.openapi import Api, api
from web.passwords import Passwords, hash_of
from web.rate_limits import limits_of
from web.rights.matrix import parsed
from web.sign_in import totp
from web.sign_in.rules import SignInRules

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PASSWORD = "a good password"
HASH = hash_of(PASSWORD)
Client = TestClient[web.Request, web.Application]

desk_api = Api("desk", "1", rights=parsed({"me": {"desk": "all"}}, {"all"}))


@desk_api.route("GET", "/desk/me", zh="我")
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
    app[keys.SIGN_IN_RULES] = SignInRules(is_factor_required=False)
    app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
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


WRONG = [
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
]


async def test_what_is_wrong_is_told_and_not_added(pool: asyncpg.Pool) -> None:
    for new, told in WRONG:
        with pytest.raises(StaffRefused) as caught:
            await add(pool, new)
        assert [error for error in caught.value.errors if told in error], (new, told)
    assert await pool.fetchval("select count(*) from staff") == 0


async def test_all_that_is_wrong_is_told_at_once(pool: asyncpg.Pool) -> None:
    with pytest.raises(StaffRefused) as caught:
        await add(pool, someone("A", "boss", department_id="99", channel="x"))
    assert len(caught.value.errors) == 4


async def test_a_username_is_given_once_however_many_ask(pool: asyncpg.Pool) -> None:
    made = await asyncio.gather(*(add(pool, someone()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Staff) for one in made) == 1
    assert sum(isinstance(one, StaffRefused) and "is taken" in str(one) for one in made) == 7


async def test_duties_are_given_as_a_whole(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone("zhang.san", Role.DOCTOR, practitioner_id="D0001", department_id="03"))
    async with pool.acquire() as connection:
        now = await records.set_duties(connection, made.id, Duties((Role.NURSE, Role.DESK), None, "0304"))
        assert (now.roles, now.practitioner_id, now.department_id) == ({"nurse", "desk"}, None, "0304")
        assert now.channel is Channel.WINDOW
        assert await records.staff_of_id(connection, made.id) == now
        for wrong, lines in (
            (Duties(("boss", "desk"), "D9", "99", "nowhere", "fax"), 6),
            (Duties((Role.AUDIT_ADMIN, Role.DESK)), 1),
            (Duties((Role.SYSTEM_ADMIN, Role.SECURITY_ADMIN)), 1),
            (Duties((Role.DOCTOR,)), 1),
        ):
            with pytest.raises(StaffRefused) as caught:
                await records.set_duties(connection, made.id, wrong)
            assert len(caught.value.errors) == lines, caught.value.errors
        assert await records.staff_of_id(connection, made.id) == now
        with pytest.raises(StaffRefused):
            await records.set_duties(connection, bytes(16), Duties((Role.DESK,)))


async def test_who_is_disabled_meanwhile_stays_out(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone())
    async with pool.acquire() as connection:
        attempt = await sign_ins.begin(connection, "desk", "192.0.2.1", NOW)
        await records.disable_staff(connection, "desk")
        assert await sign_ins.succeed(connection, attempt, NOW) is None
        assert await records.staff_of_id(connection, made.id) is None
        assert (await sign_ins.begin(connection, "desk", "192.0.2.1", NOW)).staff is None
        await records.enable_staff(connection, "desk")
        assert await records.staff_of_id(connection, made.id) == made


async def test_who_has_another_password_meanwhile_stays_out(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone())
    async with pool.acquire() as connection:
        attempt = await sign_ins.begin(connection, "desk", "192.0.2.1", NOW)
        await records.set_password(connection, made.id, hash_of("another"), NOW, must_change=False)
        assert await sign_ins.succeed(connection, attempt, NOW) is None


async def test_what_nobody_looks_at_is_forgotten(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone())
    addresses = "select array_agg(address order by address) from sign_in_address"
    async with pool.acquire() as connection:
        for address in ("192.0.2.1", "192.0.2.2"):
            attempt = await sign_ins.begin(connection, "desk", address, NOW)
        assert await sign_ins.succeed(connection, attempt, NOW) == made
        await sign_ins.allow_step(connection, made.id, sign_ins.Step.PASSWORD, b"token", NOW)
        for passed, left in (
            (sign_ins.FAILURES_KEPT, ["192.0.2.1", "192.0.2.2"]),
            (sign_ins.FAILURES_KEPT + timedelta(seconds=1), ["192.0.2.2"]),
            (FAMILIAR, ["192.0.2.2"]),
            (FAMILIAR + timedelta(seconds=1), None),
        ):
            await sign_ins.forget(connection, NOW + passed)
            assert await connection.fetchval(addresses) == left
        assert await connection.fetchval("select count(*) from sign_in_step") == 0


# Over HTTP.


async def test_a_desk_signs_in_and_is_known(client: Client, pool: asyncpg.Pool) -> None:
    await add(pool, someone(department_id="03"))
    status, told = await post(client, grant="password", username=" Desk", password=PASSWORD)
    assert (status, sorted(told)) == (201, ["access_token", "expires_in", "refresh_token"])
    assert 0 < told["expires_in"] <= 1800
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
    for _ in range(OF_AN_ADDRESS.failures_max - 1):
        assert await sign_in(client, password="wrong") == REFUSED
    assert (await sign_in(client))[0] == 201  # and the count begins anew
    for _ in range(OF_AN_ADDRESS.failures_max):
        assert await sign_in(client, password="wrong") == REFUSED
    assert await sign_in(client) == REFUSED
    assert (await sign_in(client, "other"))[0] == 201
    now = datetime.now(UTC)
    await pool.execute("update sign_in_address set locked_until = $1 where failed_count > 0", now)
    assert (await sign_in(client))[0] == 201
    for table in ("staff", "sign_in_address"):
        counted = "select count(*) from {} where failed_count > 0 or locked_until is not null"
        assert await pool.fetchval(counted.format(table)) == 0


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


async def test_a_change_of_rights_ends_what_was_and_counts_from_the_next_sign_in(
    client: Client, pool: asyncpg.Pool
) -> None:
    await add(pool, someone())
    _, first = await post(client, grant="password", username="desk", password=PASSWORD)
    await pool.execute("update staff set roles = array['manager'], department_id = '03'")
    status, problem = await post(client, grant="refresh", refresh_token=first["refresh_token"])
    assert (status, problem["code"]) == (401, "session_ended")
    _, token = await sign_in(client)
    status, problem = await who(client, token)
    assert (status, problem["code"], problem["roles"]) == (403, "forbidden", ["desk"])


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


async def command(*arguments: str, typed: str = "") -> tuple[int, str, str]:
    """Of ours, in this process: exit status, and what it said and what was wrong."""

    def done() -> Result:
        return CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments, input=typed, prog_name="xinglin")

    result = await asyncio.to_thread(done)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


async def staff_command(database: str, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    return await command("staff", *arguments, "--database-url", database, typed=typed)


async def test_the_command(client: Client, pool: asyncpg.Pool, database: str) -> None:
    about = ("--username", "Zhang", "--name", "张三", "--role", "doctor", "--practitioner", "D0001")
    status, said, wrong = await staff_command(database, "add", *about, typed=f"{PASSWORD}\n")
    assert (status, said, wrong) == (0, "zhang may sign in as doctor\n", "")
    assert await sign_in(client, "zhang") == (403, "password_change_needed")
    status, said, _ = await staff_command(database, "list")
    row = next(line.split() for line in said.splitlines() if "zhang" in line)
    assert (status, row[:8]) == (0, ["zhang", "张三", "doctor", "D0001", "all", "doctor", "no", "must"])
    who = ("--username", "zhang")
    another = f"{PASSWORD} of mine"
    done = await staff_command(database, "set-password", *who, "--keep-password", typed=another)
    assert done == (0, "zhang has a new password\n", "")
    assert await sign_in(client, "zhang") == REFUSED
    assert (await sign_in(client, "zhang", another))[0] == 201
    assert await staff_command(database, "disable", *who) == (0, "zhang is disabled\n", "")
    assert await sign_in(client, "zhang", another) == REFUSED
    assert "disabled" in (await staff_command(database, "list"))[1]
    assert await staff_command(database, "enable", *who) == (0, "zhang may sign in again\n", "")
    assert (await sign_in(client, "zhang", another))[0] == 201
    sessions = "select count(*), count(revoked_at) from session"
    assert await pool.fetchrow(sessions) == (2, 1)
    done = await staff_command(database, "roles", *who, "--role", "nurse", "--department", "03")
    assert done == (0, "zhang may sign in as nurse\n", "")
    assert await pool.fetchrow(sessions) == (2, 2)
    noted = await pool.fetch(
        "select action, by_kind, object_kind from audit_entry where by_kind = 'operator' order by id"
    )
    assert [row["action"] for row in noted] == [
        *("staff_added", "password_set", "staff_disabled", "staff_enabled", "roles_changed")
    ]


async def test_the_commands_that_let_somebody_in_again(
    client: Client, pool: asyncpg.Pool, database: str
) -> None:
    made = await add(pool, someone())
    who = ("--username", "desk")
    for _ in range(OF_AN_ADDRESS.failures_max):
        assert await sign_in(client, password="wrong") == REFUSED
    assert "locked somewhere until" in (await staff_command(database, "list"))[1]
    assert await staff_command(database, "unlock", *who) == (0, "desk is locked nowhere\n", "")
    assert (await sign_in(client))[0] == 201
    status, _, wrong = await staff_command(database, "reset-second-factor", *who)
    assert (status, wrong.splitlines()[0]) == (1, "desk has no second factor")
    async with pool.acquire() as connection:
        await second_factors.propose(connection, made.id, b"key", b"sealed", NOW)
        await second_factors.confirm(connection, made.id, 0, NOW)
        await second_factors.replace_recovery_codes(connection, made.id, ["code"])
    assert await sign_in(client) == (403, "otp_needed")
    done = await staff_command(database, "reset-second-factor", *who)
    assert done == (0, "desk has no second factor now\n", "")
    assert await pool.fetchval("select count(*) from session where revoked_at is null") == 0
    assert (await sign_in(client))[0] == 201


async def test_machines_keep_the_password_they_are_given(
    client: Client, pool: asyncpg.Pool, database: str
) -> None:
    about = ("--username", "his", "--name", "HIS", "--role", "partner")
    assert (await staff_command(database, "add", *about, typed=PASSWORD))[0] == 0
    assert (await sign_in(client, "his"))[0] == 201


async def test_the_command_says_what_is_wrong(pool: asyncpg.Pool, database: str) -> None:
    about = ("--username", "a b", "--name", "x", "--role", "boss", "--department", "99")
    status, said, wrong = await staff_command(database, "add", *about, typed=PASSWORD)
    assert (status, said) == (1, "")
    told = wrong.splitlines()
    assert sorted(line.split("'")[0].strip() for line in told[:-1]) == [
        *("no department has the id", "no role is called", "username")
    ]
    assert told[-1] == "xinglin: nothing was changed"
    for typed, why in (
        ("short\n", "the password must have at least 8 characters"),
        ("password1\n", "the password is too common, or too easily guessed"),
        ("nothing but desk-7\n", "the password must not have the username or the name in it"),
    ):
        about = ("--username", "desk-7", "--name", "x", "--role", "desk")
        status, _, wrong = await staff_command(database, "add", *about, typed=typed)
        assert (status, wrong) == (1, f"{why}\nxinglin: nothing was changed\n")
    for command in ("disable", "enable", "unlock", "reset-second-factor", "set-password"):
        status, _, wrong = await staff_command(database, command, "--username", "nobody", typed=PASSWORD)
        assert (status, wrong.splitlines()[0]) == (
            1,
            "nobody has the username 'nobody': see `xinglin staff list`",
        )
    assert await pool.fetchval("select count(*) from staff") == 0
    assert await pool.fetchval("select count(*) from audit_entry") == 0


# The first administrators.

THREE = ("--system", "li.si=李四", "--security", "wang.wu=王五", "--audit", "zhao.liu=赵六")
THREE_PASSWORDS = "".join(f"{PASSWORD} {n}\n" for n in range(3))


async def admin_create(database: str, home: Path, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    options = ("--database-url", database, "--home", str(home))
    return await command("admin", "create", *arguments, *options, typed=typed)


async def test_the_first_administrators_of_a_fresh_database(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    url = f"{postgres.url.rpartition('/')[0]}/fresh_{secrets.token_hex(4)}"
    await create_if_missing(url)  # empty: no schema, nobody
    status, said, wrong = await admin_create(url, tmp_path, *THREE, typed=THREE_PASSWORDS)
    assert (status, wrong) == (0, ""), wrong
    secrets_told = re.findall(r"by hand +([A-Z2-7]{32})$", said, re.MULTILINE)
    assert len(set(secrets_told)) == 3 and len(re.findall(r"^    [a-z2-9-]{29}$", said, re.MULTILINE)) == 30
    assert said.count("otpauth://totp/Xinglin:") == 3
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        async with pool.acquire() as connection:
            rows = await records.list_staff(connection)
            vault = await open_vault(connection, Settings(home=tmp_path, database_url=SecretStr(url)))
        assert {row.staff.username: row.staff.roles for row in rows} == {
            "li.si": {Role.SYSTEM_ADMIN},
            "wang.wu": {Role.SECURITY_ADMIN},
            "zhao.liu": {Role.AUDIT_ADMIN},
        }
        # Each signs in with their own password and a code, and then chooses another password.
        async with front_door(pool, vault, SignInRules()) as door:
            door.clock.now = datetime.now(UTC)
            for n, username in enumerate(("li.si", "wang.wu", "zhao.liu")):
                given = f"{PASSWORD} {n}"
                assert await door.tries(username, given) == (403, "otp_needed")
                told = await door.tries(username, given, door.code(secrets_told[n]))
                assert told == (403, "password_change_needed")
        # There are three now, and no more are made this way.
        status, said, wrong = await admin_create(url, tmp_path, *THREE, typed=THREE_PASSWORDS)
        assert (status, said, len(wrong.splitlines())) == (1, "", 4)
        noted = await pool.fetch("select detail ->> 'role' as role from audit_entry order by id")
        assert [row["role"] for row in noted if row["role"]] == [
            "system_admin",
            "security_admin",
            "audit_admin",
        ]


WRONG_ADMINISTRATORS = [
    (THREE[:4], THREE_PASSWORDS, "say who the audit administrator is"),
    ((*THREE[:4], "--audit", "li.si=李四"), THREE_PASSWORDS, "three different people are needed"),
    (THREE, f"{PASSWORD}\n", "the password must have at least 8 characters"),
    (THREE, "", "the password must have at least 8 characters"),
    ((*THREE[:4], "--audit", "zhao liu=赵六"), THREE_PASSWORDS, "username 'zhao liu'"),
]


async def test_administrators_that_will_not_do(pool: asyncpg.Pool, database: str, tmp_path: Path) -> None:
    for arguments, typed, why in WRONG_ADMINISTRATORS:
        status, said, wrong = await admin_create(database, tmp_path, *arguments, typed=typed)
        assert (status, said) == (1, "") and why in wrong, wrong
    assert await pool.fetchval("select count(*) from staff") == 0


async def test_the_schema_itself_knows_no_two_of_the_three(pool: asyncpg.Pool) -> None:
    made = await add(pool, someone("a", Role.SYSTEM_ADMIN))
    for other in (Role.SECURITY_ADMIN, Role.AUDIT_ADMIN, Role.DOCTOR):
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute(
                "update staff set roles = roles || $2::text where id = $1", UUID(bytes=made.id), other
            )


# The whole system.


async def test_the_demos_staff_can_sign_in(system: System) -> None:
    async with ClientSession() as session:
        for username, _, _ in DEMO_STAFF:
            body = {"grant": "password", "username": username, "password": DEMO_PASSWORD}
            async with session.post(f"{system.address}/api/v1/sessions", json=body) as response:
                assert response.status == 201, username


async def test_a_new_colleague_sets_up_a_second_factor_on_the_running_system(system: System) -> None:
    username = f"new-{secrets.token_hex(4)}"
    about = ("--username", username, "--name", "新同事", "--role", "desk", "--home", str(system.home))
    assert (await command("staff", "add", *about, typed=PASSWORD))[0] == 0
    async with ClientSession(f"{system.address}/api/v1/") as session:

        async def asked(path: str, body: object, token: str = "") -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.post(path, json=body, headers=headers) as response:
                return response.status, await response.json() if response.status != 204 else None

        grant = {"grant": "password", "username": username, "password": PASSWORD}
        status, told = await asked("sessions", grant)
        assert (status, told["code"]) == (403, "password_change_needed")
        step = {"step_token": told["step_token"]}
        chosen = f"{PASSWORD} of mine"
        assert (await asked("sign-in/password", {**step, "new_password": chosen}))[0] == 204
        grant["password"] = chosen
        status, told = await asked("sessions", grant)
        assert status == 201
        token = told["access_token"]
        status, enrolment = await asked("me/second-factor", {"password": chosen}, token)
        assert status == 201
        code = {"code": totp.code_of(enrolment["secret"], datetime.now(UTC))}
        status, told = await asked("me/second-factor/confirmation", code, token)
        assert status == 200
        status, missing = await asked("sessions", grant)
        assert (status, missing["code"]) == (403, "otp_needed")
        # The code of now was used to confirm; so a recovery code, which need not wait for the next one.
        assert (await asked("sessions", {**grant, "otp": code["code"]}))[0] == 401
        assert (await asked("sessions", {**grant, "otp": told["recovery_codes"][0]}))[0] == 201


def greeting(demo: bool) -> str:
    pages = ("http://here/pay", "http://here/billing", {"his": "http://here/his"}) if demo else ("", "", {})
    # In a process of its own: web.main imports Ray, which this one must not have when unit tests run in it.
    program = (
        "from pathlib import Path; from engine.settings import Settings; from web.main import _greet;"
        f" _greet(Settings(demo={demo}), Path('home'), ['http://here'], *{pages})"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_only_the_demo_tells_a_password() -> None:
    told = greeting(demo=True)
    assert all(username in told for username, _, _ in DEMO_STAFF) and DEMO_PASSWORD in told
    assert all(f"http://here/{page}" in told for page in ("pay", "billing", "his"))
    assert "demo" not in greeting(demo=False)
