"""Staff at the front door, over HTTP and PostgreSQL: locks, second factors, recovery, new passwords."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from argon2 import PasswordHasher

from engine.database import create_if_missing, migrate
from engine.domain.lockout import OF_AN_ADDRESS, OF_CODES, OF_STRANGERS
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import sessions, sign_ins
from engine.records import staff as records
from engine.records.staff import Role, Staff
from engine.vault.vault import Vault
from tests.support.front_door import HERE, PASSWORD, REFUSED, THERE, FrontDoor, Told, front_door
from web import passwords
from web.passwords import hash_of
from web.sign_in.password_rules import PasswordRules
from web.sign_in.rules import SignInRules

OPTIONAL = SignInRules(is_factor_required=False)
NEW = "quite another phrase"


@pytest.fixture(scope="module")
def hospital(postgres: EmbeddedPostgres) -> str:
    """The URL of one database for all of these tests; each begins with nobody in it."""
    url = f"{postgres.url.rpartition('/')[0]}/sign_in_{secrets.token_hex(4)}"

    async def made() -> None:
        await create_if_missing(url)
        connection = await asyncpg.connect(url)
        await migrate(connection)
        await connection.close()

    asyncio.run(made())
    return url


@pytest.fixture
async def pool(hospital: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(hospital, min_size=1, max_size=10) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")  # past the audit's guard
            await connection.execute("truncate staff, sign_in_address, session, audit_entry cascade")
        yield pool


@pytest.fixture
async def door(pool: asyncpg.Pool, vault: Vault) -> AsyncIterator[FrontDoor]:
    async with front_door(pool, vault, OPTIONAL) as door:
        yield door


@pytest.fixture
async def strict(pool: asyncpg.Pool, vault: Vault) -> AsyncIterator[FrontDoor]:
    """Where there must be a second factor."""
    async with front_door(pool, vault, SignInRules()) as door:
        yield door


async def audit(pool: asyncpg.Pool) -> list[tuple[str, str, str | None]]:
    """Action, outcome and reason of each entry, the first first."""
    rows = await pool.fetch(
        "select action, outcome, detail ->> 'why' as why from audit_entry"
        " where action <> 'signed_in' order by id"
    )
    return [(row["action"], row["outcome"], row["why"]) for row in rows]


async def fails(door: FrontDoor, times: int, address: str = HERE, username: str = "desk") -> None:
    for _ in range(times):
        assert await door.tries(username, "wrong", address=address) == REFUSED


# Locks.


async def test_a_stranger_locks_nobody_out_at_another_address(door: FrontDoor) -> None:
    await door.hire("desk")
    await fails(door, OF_AN_ADDRESS.failures_max, THERE)
    assert await door.tries("desk", address=THERE) == REFUSED
    assert (await door.sign_in("desk", address=HERE))[0] == 201
    # And what happened here does not open it there.
    assert await door.tries("desk", address=THERE) == REFUSED


async def test_a_lock_passes_and_the_next_one_is_twice_as_long(door: FrontDoor) -> None:
    await door.hire("desk")
    await fails(door, OF_AN_ADDRESS.failures_max)
    door.clock.passes(seconds=OF_AN_ADDRESS.lock.total_seconds() - 1)
    assert await door.tries("desk") == REFUSED
    door.clock.passes(seconds=1)
    await fails(door, OF_AN_ADDRESS.failures_max)
    door.clock.passes(seconds=OF_AN_ADDRESS.lock.total_seconds())
    assert await door.tries("desk") == REFUSED
    door.clock.passes(seconds=OF_AN_ADDRESS.lock.total_seconds())
    assert (await door.sign_in("desk"))[0] == 201
    # A success forgets them all: the next lock is a first one.
    await fails(door, OF_AN_ADDRESS.failures_max)
    door.clock.passes(seconds=OF_AN_ADDRESS.lock.total_seconds())
    assert (await door.sign_in("desk"))[0] == 201


async def test_guesses_from_everywhere_lock_strangers_and_never_the_own_address(door: FrontDoor) -> None:
    await door.hire("desk")
    assert (await door.sign_in("desk", address=HERE))[0] == 201
    async with door.pool.acquire() as connection:
        for n in range(OF_STRANGERS.failures_max):
            attempt = await sign_ins.begin(connection, "desk", f"192.0.2.{n}", door.clock.now)
            assert not attempt.is_locked
        attempt = await sign_ins.begin(connection, "desk", "192.0.2.200", door.clock.now)
        assert attempt.is_locked
    assert await door.tries("desk", address=THERE) == REFUSED
    assert (await door.sign_in("desk", address=HERE))[0] == 201


async def test_a_crowd_of_guesses_is_five_guesses(door: FrontDoor) -> None:
    await door.hire("desk")

    async def begun() -> bool:
        async with door.pool.acquire() as connection:
            return not (await sign_ins.begin(connection, "desk", HERE, door.clock.now)).is_locked

    assert sum(await asyncio.gather(*(begun() for _ in range(50)))) == OF_AN_ADDRESS.failures_max


async def test_an_administrator_unlocks(door: FrontDoor) -> None:
    made = await door.hire("desk")
    await fails(door, OF_AN_ADDRESS.failures_max)
    async with door.pool.acquire() as connection:
        until = await sign_ins.locked_until(connection, made.id, door.clock.now)
        assert until == door.clock.now + OF_AN_ADDRESS.lock
        assert await sign_ins.unlock(connection, made.id)
        assert await sign_ins.locked_until(connection, made.id, door.clock.now) is None
        assert not await sign_ins.unlock(connection, bytes(16))
    assert (await door.sign_in("desk"))[0] == 201


async def test_names_that_nobody_has_are_counted_in_few_rows_and_take_the_same_way(
    door: FrontDoor, vault: Vault, hospital: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await door.hire("desk")
    await door.hire("gone")
    async with door.pool.acquire() as connection:
        await records.disable_staff(connection, "gone")
    checked: list[str] = []
    really = passwords.fits

    def counting(password: str, password_hash: str) -> bool:
        checked.append(password_hash)
        return really(password, password_hash)

    monkeypatch.setattr(passwords, "fits", counting)
    asked: list[str] = []

    async def listen(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(lambda query: asked.append(query.query))

    ways = []
    async with (
        asyncpg.create_pool(hospital, min_size=1, max_size=1, init=listen) as pool,
        front_door(pool, vault, OPTIONAL) as listened,
    ):
        await listened.tries("first", "wrong")  # a new connection asks more, once
        checked.clear()
        for username in ("desk", "gone", "nobody", "somebody-else"):
            asked.clear()
            assert await listened.tries(username, "wrong") == REFUSED
            ways.append(list(asked))
    assert ways[1:] == ways[:-1] and len(ways[0]) > 5
    assert len(checked) == 4
    rows = "select count(*) from sign_in_address where address = ''"
    assert await door.pool.fetchval(rows) == 4
    for n in range(3):
        await door.tries("nobody", "wrong", address=f"192.0.2.{n}")
    assert await door.pool.fetchval(rows) == 4


async def test_a_flood_of_sign_ins_leaves_the_loop_free(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    usernames = [f"desk-{n}" for n in range(8)]
    for username in usernames:
        await door.hire(username)
    token = await door.token("desk-0")
    entered, free = threading.Semaphore(0), threading.Event()
    running, most = 0, 0
    guard = threading.Lock()

    def held(password: str, password_hash: str) -> bool:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        entered.release()
        assert free.wait(60)
        with guard:
            running -= 1
        return True

    monkeypatch.setattr(passwords, "fits", held)
    flood = [
        asyncio.create_task(door.tries(username))
        for username in usernames
        for _ in range(passwords.SIGN_INS_EACH_MAX)
    ]
    try:
        for _ in range(passwords.CHECKS_AT_ONCE):
            assert await asyncio.to_thread(entered.acquire, timeout=60)
        # All checks are busy and stay so; whoever else asks is answered.
        for _ in range(5):
            assert (await door.asked("GET", "me/second-factor", token=token))[0] == 200
    finally:
        free.set()
    told = await asyncio.gather(*flood)
    assert most == passwords.CHECKS_AT_ONCE
    statuses = [status for status, _ in told]
    assert statuses.count(201) == passwords.SIGN_INS_MAX
    assert statuses.count(503) == len(flood) - passwords.SIGN_INS_MAX


async def test_who_floods_a_name_from_elsewhere_is_not_in_its_way(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await door.hire("desk")
    entered, free = threading.Semaphore(0), threading.Event()

    def held(password: str, password_hash: str) -> bool:
        entered.release()
        return free.wait(60)

    monkeypatch.setattr(passwords, "fits", held)
    flood = [
        asyncio.create_task(door.tries("desk", address=THERE)) for _ in range(2 * passwords.SIGN_INS_EACH_MAX)
    ]
    mine = asyncio.create_task(door.tries("desk", address=HERE))
    try:  # one check of theirs, and mine beside it
        for _ in range(2):
            assert await asyncio.to_thread(entered.acquire, timeout=60)
    finally:
        free.set()
    assert (await mine)[0] == 201
    statuses = [status for status, _ in await asyncio.gather(*flood)]
    assert statuses.count(503) == passwords.SIGN_INS_EACH_MAX


# A second factor.


async def test_enrolment_from_end_to_end(strict: FrontDoor) -> None:
    door = strict
    made = await door.hire("desk")
    assert await door.tries("desk", "wrong") == REFUSED
    status, told = await door.sign_in("desk")
    assert (status, told["code"]) == (403, "second_factor_needed")
    step = {"step_token": told["step_token"]}
    # The token opens nothing else.
    assert (await door.asked("GET", "me/second-factor", token=told["step_token"]))[0] == 401
    status, wrong = await door.asked("POST", "sign-in/password", {**step, "new_password": NEW})
    assert (status, wrong["code"]) == (403, "sign_in_step_over")
    status, begun = await door.asked("POST", "sign-in/second-factor", step)
    assert status == 201
    assert begun["uri"].startswith("otpauth://totp/Xinglin:desk?secret=" + begun["secret"])
    confirm = "sign-in/second-factor/confirmation"
    status, wrong = await door.asked("POST", confirm, {**step, "code": "000000"})
    assert (status, wrong["code"]) == (422, "code_wrong")
    status, done = await door.asked("POST", confirm, {**step, "code": door.code(begun["secret"])})
    assert status == 201 and len(set(done["recovery_codes"])) == 10
    # Signed in by that already; and the token is used up.
    token = done["session"]["access_token"]
    status, mine = await door.asked("GET", "me/second-factor", token=token)
    assert (status, mine["recovery_codes_left"], mine["required"]) == (200, 10, True)
    assert (await door.asked("POST", "sign-in/second-factor", step))[1]["code"] == "sign_in_step_over"
    # From now on the password alone does not do, and the code that confirmed is used.
    assert await door.tries("desk") == (403, "otp_needed")
    assert await door.tries("desk", otp=door.code(begun["secret"])) == REFUSED
    door.clock.passes(seconds=30)
    assert (await door.sign_in("desk", otp=door.code(begun["secret"])))[0] == 201
    assert [action for action, _, _ in await audit(door.pool)] == [
        "sign_in_refused",
        "second_factor_begun",
        "second_factor_confirmed",
        "sign_in_refused",
    ]
    refused = await door.pool.fetch(
        "select by_kind, by_id, object_kind, object_id, host(address::inet) as address from audit_entry"
        " where action = 'sign_in_refused'"
    )
    desk = str(UUID(bytes=made.id))
    assert [tuple(row) for row in refused] == [("nobody", None, "staff", desk, HERE)] * 2


async def test_machines_need_no_second_factor(strict: FrontDoor) -> None:
    for role in (Role.KIOSK, Role.SCREEN, Role.PARTNER):
        await strict.hire(role, role)
        assert (await strict.sign_in(role))[0] == 201
    await strict.hire("both", Role.PARTNER, Role.DESK)
    assert await strict.tries("both") == (403, "second_factor_needed")


async def test_a_secret_is_nowhere_in_the_database(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, codes = await door.enrol("desk")
    rows = await door.pool.fetch("select f::text as said from second_factor f")
    rows += await door.pool.fetch("select c::text as said from recovery_code c")
    rows += await door.pool.fetch("select a::text as said from audit_entry a")
    said = "\n".join(row["said"] for row in rows).lower()
    assert secret.lower() not in said and secret.lower().encode().hex() not in said
    for code in codes:
        assert code not in said and code.replace("-", "") not in said
    assert codes[0].encode().hex() not in said


async def test_a_telephone_may_be_one_step_off(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, _ = await door.enrol("desk")
    for steps, opens in ((-2, False), (2, False), (100, False), (-1, True), (0, True), (1, True)):
        status, _ = await door.sign_in("desk", otp=door.code(secret, steps))
        assert (status == 201) is opens, steps


async def test_a_code_counts_once_and_none_before_it(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, _ = await door.enrol("desk")
    code = door.code(secret)
    assert (await door.sign_in("desk", otp=code))[0] == 201
    assert await door.tries("desk", otp=code) == REFUSED
    assert await door.tries("desk", otp=door.code(secret, -1)) == REFUSED
    assert (await door.sign_in("desk", otp=door.code(secret, 1)))[0] == 201
    assert (await audit(door.pool))[-2:] == [("sign_in_refused", "refused", "code")] * 2


async def test_one_code_sent_twice_at_once_opens_once(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, _ = await door.enrol("desk")
    told = await asyncio.gather(*(door.tries("desk", otp=door.code(secret)) for _ in range(4)))
    assert sorted(status for status, _ in told) == [201, 401, 401, 401]


async def test_only_the_servers_clock_counts(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, _ = await door.enrol("desk")
    old = door.code(secret, -10)
    body = {"grant": "password", "username": "desk", "password": PASSWORD, "otp": old}
    at = door.clock.now.strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with door.client.post("/api/v1/sessions", json=body, headers={"Date": at}) as response:
        assert response.status == 401
    assert (await door.asked("POST", "sessions", {**body, "now": 0}))[1]["code"] == "invalid_body"


async def test_that_a_code_is_missing_hears_only_who_has_the_password(door: FrontDoor) -> None:
    await door.hire("desk")
    await door.enrol("desk")
    for _ in range(2 * OF_AN_ADDRESS.failures_max):  # it is no failure
        assert await door.tries("desk") == (403, "otp_needed")
    assert await door.tries("desk", "wrong") == REFUSED
    await fails(door, OF_AN_ADDRESS.failures_max - 1)
    assert await door.tries("desk") == REFUSED  # locked, whatever is right


async def test_wrong_codes_lock_from_wherever_they_come(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, _ = await door.enrol("desk")
    for n in range(OF_CODES.failures_max):
        assert await door.tries("desk", otp="000000", address=f"192.0.2.{n}") == REFUSED
    assert await door.tries("desk", otp=door.code(secret), address=THERE) == REFUSED
    assert await door.tries("desk", otp=door.code(secret), address=HERE) == REFUSED
    door.clock.passes(seconds=OF_CODES.lock.total_seconds())
    assert (await door.sign_in("desk", otp=door.code(secret), address=HERE))[0] == 201


async def test_a_recovery_code_opens_once_and_opens_locks(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, codes = await door.enrol("desk")
    await fails(door, OF_AN_ADDRESS.failures_max)
    assert await door.tries("desk", otp=door.code(secret)) == REFUSED
    assert await door.tries("desk", "wrong", codes[0]) == REFUSED  # both, or nothing
    assert (await door.sign_in("desk", otp=codes[0].upper().replace("-", " ")))[0] == 201
    assert await door.tries("desk", otp=codes[0]) == REFUSED
    assert (await door.sign_in("desk", otp=door.code(secret)))[0] == 201
    token = await door.token("desk", codes[1])
    assert (await door.asked("GET", "me/second-factor", token=token))[1]["recovery_codes_left"] == 8
    assert ("recovery_code_used", "done", None) in await audit(door.pool)


async def test_a_recovery_code_is_its_owners_alone(door: FrontDoor) -> None:
    await door.hire("desk")
    await door.hire("other")
    _, codes = await door.enrol("desk")
    await door.enrol("other")
    assert await door.tries("other", otp=codes[0]) == REFUSED


async def test_renewing_and_removing_need_password_and_code(door: FrontDoor) -> None:
    await door.hire("desk")
    secret, codes = await door.enrol("desk")
    token = await door.token("desk", door.code(secret))
    proof: dict[str, str] = {"password": PASSWORD}
    for method, path in (
        ("POST", "me/second-factor"),
        ("POST", "me/second-factor/removal"),
        ("POST", "me/recovery-codes"),
    ):
        status, told = await door.asked(method, path, proof, token)
        assert (status, told["code"]) == (403, "otp_needed")
        status, told = await door.asked(method, path, {"password": "wrong", "otp": codes[0]}, token)
        assert (status, told["code"]) == (403, "proof_refused")
    # New recovery codes: the old ones count no more.
    status, told = await door.asked("POST", "me/recovery-codes", {**proof, "otp": codes[0]}, token)
    assert status == 201
    assert await door.tries("desk", otp=codes[1]) == REFUSED
    codes = told["recovery_codes"]
    # A new secret: the old one counts until the new one is confirmed, and not after.
    status, told = await door.asked("POST", "me/second-factor", {**proof, "otp": codes[0]}, token)
    assert status == 201 and told["secret"] != secret
    door.clock.passes(minutes=1)
    assert (await door.sign_in("desk", otp=door.code(secret)))[0] == 201
    code = {"code": door.code(told["secret"])}
    assert (await door.asked("POST", "me/second-factor/confirmation", code, token))[0] == 200
    again = await door.asked("POST", "me/second-factor/confirmation", code, token)
    assert (again[0], again[1]["code"]) == (409, "no_pending_second_factor")
    door.clock.passes(minutes=1)
    assert await door.tries("desk", otp=door.code(secret)) == REFUSED
    proof["otp"] = door.code(told["secret"])
    assert (await door.asked("POST", "me/second-factor/removal", proof, token))[0] == 204
    assert (await door.sign_in("desk"))[0] == 201
    status, told = await door.asked("POST", "me/second-factor/removal", {"password": PASSWORD}, token)
    assert (status, told["code"]) == (409, "no_second_factor")


async def test_an_enrolment_that_nobody_confirms_is_over(door: FrontDoor) -> None:
    await door.hire("desk")
    token = await door.token("desk")
    _, told = await door.asked("POST", "me/second-factor", {"password": PASSWORD}, token)
    assert (await door.sign_in("desk"))[0] == 201  # nothing is in force yet
    door.clock.passes(minutes=10)
    code = {"code": door.code(told["secret"])}
    status, told = await door.asked("POST", "me/second-factor/confirmation", code, token)
    assert (status, told["code"]) == (409, "no_pending_second_factor")


async def test_administrators_help_whoever_cannot_sign_in(door: FrontDoor) -> None:
    made = await door.hire("desk")
    await door.enrol("desk")
    system, security = await door.hire("sys", Role.SYSTEM_ADMIN), await door.hire("sec", Role.SECURITY_ADMIN)
    keeper, guard = await door.token("sys"), await door.token("sec")

    async def password(of: Staff, token: str, new: str = NEW) -> Told:
        path = f"admin/staff/{UUID(bytes=of.id)}/password"
        return await door.asked("POST", path, {"password": new}, token)

    async def reset(of: Staff, token: str) -> Told:
        return await door.asked("POST", f"admin/staff/{UUID(bytes=of.id)}/second-factor/reset", token=token)

    # Neither does what is the other's, nor anything to administrators.
    assert [(await password(made, guard))[0], (await reset(made, keeper))[0]] == [403, 403]
    for told in (await password(security, keeper), await reset(system, guard)):
        assert (told[0], told[1]["code"]) == (403, "only_at_the_machine")
    for told in (await password(system, keeper), await reset(security, guard)):
        assert (told[0], told[1]["code"]) == (403, "not_by_oneself")
    assert (await password(made, keeper, "qwertyuiop"))[1]["code"] == "password_unfit"
    assert await door.tries("desk") == (403, "otp_needed")  # all is as it was
    assert (await password(made, keeper))[0] == 204
    assert await door.tries("desk", NEW) == (403, "otp_needed")
    assert (await reset(made, guard))[0] == 204
    assert (await reset(made, guard))[1]["code"] == "no_second_factor"
    assert await door.tries("desk", NEW) == (403, "password_change_needed")
    assert (
        await door.pool.fetchval(
            "select count(*) from session where owner = $1 and revoked_at is null", UUID(bytes=made.id)
        )
        == 0
    )
    assert [action for action, _, _ in await audit(door.pool)][-2:] == ["password_set", "second_factor_reset"]


# Passwords.


async def test_changing_the_own_password(door: FrontDoor) -> None:
    await door.hire("desk")
    token = await door.token("desk")
    await door.token("desk")
    change = {"password": PASSWORD, "new_password": NEW}
    status, told = await door.asked("POST", "me/password", {**change, "password": "wrong"}, token)
    assert (status, told["code"]) == (403, "proof_refused")
    assert (await door.asked("POST", "me/password", change, token))[0] == 204
    assert await door.tries("desk") == REFUSED
    kept = await door.pool.fetch("select revoked_at from session")
    assert sorted(row["revoked_at"] is None for row in kept) == [False, True]  # this one stays
    assert (await door.sign_in("desk", NEW))[0] == 201


async def test_a_password_that_will_not_do(door: FrontDoor) -> None:
    await door.hire("desk")
    token = await door.token("desk")
    for new, code in (
        ("7 chars", "password_too_short"),
        ("qwertyuiop", "password_common"),
        ("my desk at work", "password_has_name"),
        (PASSWORD, "password_used_before"),
    ):
        body = {"password": PASSWORD, "new_password": new}
        status, told = await door.asked("POST", "me/password", body, token)
        assert (status, told["code"]) == (422, "password_unfit")
        assert [entry["code"] for entry in told["errors"]] == [code]
        assert new not in str(told)
    assert (await door.sign_in("desk"))[0] == 201


async def test_who_was_given_a_password_chooses_another(door: FrontDoor) -> None:
    await door.hire("desk", must_change_password=True)
    status, told = await door.sign_in("desk")
    assert (status, told["code"]) == (403, "password_change_needed")
    step = {"step_token": told["step_token"]}
    status, wrong = await door.asked("POST", "sign-in/password", {**step, "new_password": PASSWORD})
    assert (status, wrong["code"]) == (422, "password_unfit")
    assert (await door.asked("POST", "sign-in/password", {**step, "new_password": NEW}))[0] == 204
    assert (await door.sign_in("desk", NEW))[0] == 201
    status, wrong = await door.asked("POST", "sign-in/password", {**step, "new_password": "and again one"})
    assert (status, wrong["code"]) == (403, "sign_in_step_over")


async def test_a_step_is_over_when_somebody_sets_another_password(door: FrontDoor) -> None:
    made = await door.hire("desk", must_change_password=True)
    step = {"step_token": (await door.sign_in("desk"))[1]["step_token"]}
    async with door.pool.acquire() as connection:
        await records.set_password(
            connection, made.id, hash_of("of an administrator"), door.clock.now, must_change=True
        )
    status, told = await door.asked("POST", "sign-in/password", {**step, "new_password": NEW})
    assert (status, told["code"]) == (403, "sign_in_step_over")


async def test_who_is_disabled_has_no_step_left(strict: FrontDoor) -> None:
    await strict.hire("desk")
    step = {"step_token": (await strict.sign_in("desk"))[1]["step_token"]}
    async with strict.pool.acquire() as connection:
        await records.disable_staff(connection, "desk")
    assert (await strict.asked("POST", "sign-in/second-factor", step))[1]["code"] == "sign_in_step_over"


async def test_a_step_is_over_after_its_time_and_after_a_newer_one(door: FrontDoor) -> None:
    await door.hire("desk", must_change_password=True)
    steps = [(await door.sign_in("desk"))[1]["step_token"] for _ in range(2)]
    for token, passes in ((steps[0], 0), (steps[1], 10)):
        door.clock.passes(minutes=passes)
        body = {"step_token": token, "new_password": NEW}
        assert (await door.asked("POST", "sign-in/password", body))[1]["code"] == "sign_in_step_over"


async def test_the_rules_of_dengbao(pool: asyncpg.Pool, vault: Vault) -> None:
    rules = SignInRules(PasswordRules(kinds_min=3, days_max=90, not_again=2), is_factor_required=False)
    async with front_door(pool, vault, rules) as door:
        await door.hire("desk")
        door.clock.passes(days=89)
        assert (await door.sign_in("desk"))[0] == 201
        door.clock.passes(days=1)
        _, told = await door.sign_in("desk")
        assert told["code"] == "password_change_needed"
        step = {"step_token": told["step_token"]}
        status, wrong = await door.asked("POST", "sign-in/password", {**step, "new_password": NEW})
        assert [entry["code"] for entry in wrong["errors"]] == ["password_too_plain"]
        before = "Phrase 1 of it"
        assert (await door.asked("POST", "sign-in/password", {**step, "new_password": before}))[0] == 204
        # The one in force may not come back, nor the two before it.
        token = (await door.sign_in("desk", before))[1]["access_token"]
        for new, status in (
            ("Phrase 2 of it", 204),
            ("Phrase 1 of it", 422),
            ("Phrase 3 of it", 204),
            ("Phrase 4 of it", 204),
            ("Phrase 2 of it", 422),
            ("Phrase 1 of it", 204),
        ):
            body = {"password": before, "new_password": new}
            assert (await door.asked("POST", "me/password", body, token))[0] == status, new
            before = new if status == 204 else before


async def test_a_hash_of_old_is_renewed_and_nobody_is_signed_out(
    door: FrontDoor,
) -> None:
    await door.hire("desk")
    await door.token("desk")
    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    async with door.pool.acquire() as connection, connection.transaction():
        await sessions.spare_all(connection)
        await connection.execute("update staff set password_hash = $1", old)
    assert (await door.sign_in("desk"))[0] == 201
    made = await door.pool.fetchval("select password_hash from staff")
    assert made != old and not passwords.is_outdated(made) and passwords.is_outdated(old)
    assert await door.pool.fetchval("select count(*) from session where revoked_at is not null") == 0
    assert (await door.sign_in("desk"))[0] == 201
    assert await door.pool.fetchval("select password_hash from staff") == made
