"""Master keys are renewed, and every data key with them, while two gateways write and read."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from engine.records.arrivals import patient_of_id
from engine.records.day_people import patient_names
from engine.settings import Settings
from engine.vault import masters
from engine.vault.erasures import Erasures, What
from engine.vault.failed import VaultFailed
from engine.vault.kek import add_key, make_key_file
from engine.vault.opening import KEY_FILE, catch_up, kek_of, open_vault
from engine.vault.rewrapping import keys_by_version, rewrap
from engine.vault.sealing import Profile
from engine.vault.vault import Vault
from tests.support.people import add_person, add_right
from tests.support.stores import uid


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=6) as pool:
        yield pool


async def opened(pool: asyncpg.Pool, settings: Settings) -> Vault:
    async with pool.acquire() as connection:
        return await open_vault(connection, settings)


async def test_a_rotation_under_load_is_felt_by_nobody(pool: asyncpg.Pool, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    gateways = [await opened(pool, settings) for _ in range(2)]
    for n in range(60):
        await add_person(pool, gateways[n % 2], uid("before", n), name=f"先生{n}")
    written, read = [60], [0]
    rotated, done = asyncio.Event(), asyncio.Event()

    async def write(number: int) -> None:
        """New people, each read again at once by the other gateway, and all those of before in turn."""
        while not done.is_set():
            n = written[0]
            written[0] += 1
            person = uid("during", n)
            await add_person(pool, gateways[number], person, name=f"女士{n}")
            found = await patient_of_id(pool, gateways[1 - number], person)
            assert found is not None and found.name == f"女士{n}"
            old = n % 60
            async with pool.acquire() as connection:
                names = await patient_names(connection, gateways[number], [uid("before", old)])
            assert names == {uid("before", old): f"先生{old}"}
            read[0] += 2

    async def follow(vault: Vault) -> None:
        """As web/gateway.py does, but as often as it can; what is announced is known before it is used."""
        while not done.is_set():
            async with pool.acquire() as connection:
                await catch_up(vault, connection, lambda: kek_of(settings))
            if rotated.is_set():
                await asyncio.sleep(0)

    async def rotate() -> None:
        try:
            for version in (2, 3):
                async with pool.acquire() as connection:
                    profile = Profile.SM4 if version == 3 else Profile.AES
                    assert await masters.add(connection, kek_of(settings), profile, 0.3) == version
                rotated.set()
                vault = await opened(pool, settings)
                while vault.version < version or any(version not in one.versions for one in gateways):
                    await asyncio.sleep(0.01)
                async with pool.acquire() as connection:
                    assert [p.done async for p in rewrap(connection, vault, batch=7)], "something was left"
        finally:
            done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number, vault in enumerate(gateways):
            group.create_task(write(number))
            group.create_task(follow(vault))
        group.create_task(rotate())
    async with pool.acquire() as connection:
        last = await opened(pool, settings)
        async for _ in rewrap(connection, last):
            pass  # who was added with the older key while the newer one began
        assert set(await keys_by_version(connection)) == {3}
        people = [uid("before", n) for n in range(60)] + [uid("during", n) for n in range(60, written[0])]
        assert set(await patient_names(connection, last, people)) == set(people)
    assert read[0] > 20, "there was a load"


async def test_a_rewrap_that_is_stopped_goes_on_and_leaves_erased_keys_alone(
    pool: asyncpg.Pool, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path)
    vault = await opened(pool, settings)
    for n in range(10):
        await add_person(pool, vault, uid("p", n), name=f"第{n}")
    async with pool.acquire() as connection:
        account = UUID(bytes=uid("account"))
        await connection.execute("insert into account values ($1, 'o', now())", account)
        await add_right(connection, vault, uid("account"), uid("p", 1))
        async with connection.transaction():
            await Erasures((tmp_path / "erased.log",)).shred(
                connection, What.RECORD, uid("p", 0), datetime.now(UTC)
            )
        await masters.add(connection, kek_of(settings), Profile.AES, 0)
        newer = await open_vault(connection, settings)
        steps = rewrap(connection, newer, batch=4)
        assert (await anext(steps)).done == 4
        await steps.aclose()
        assert await keys_by_version(connection) == {1: 6, 2: 4}, "nine records and a contact"
        assert sum([1 async for _ in rewrap(connection, newer, batch=4)]) == 3
        assert await keys_by_version(connection) == {2: 10}
        names = await patient_names(connection, newer, [uid("p", n) for n in range(10)])
        assert sorted(names.values()) == ["已注销", *(f"第{n}" for n in range(1, 10))]
        assert [p async for p in rewrap(connection, newer)] == []


async def test_the_key_outside_changes_and_the_old_one_may_go(pool: asyncpg.Pool, tmp_path: Path) -> None:
    settings, file = Settings(home=tmp_path), tmp_path / KEY_FILE
    vault = await opened(pool, settings)
    await add_person(pool, vault, uid("p"), name="张伟")
    old = file.read_text()
    add_key(file)
    new = file.read_text().splitlines(keepends=True)[0]
    async with pool.acquire() as connection:
        assert await masters.rekek(connection, kek_of(settings), Profile.AES) == 2
        file.write_text(new)
        again = await open_vault(connection, settings)
        assert await patient_names(connection, again, [uid("p")]) == {uid("p"): "张伟"}
        file.write_text(old)
        with pytest.raises(VaultFailed, match="is not the key that this database is sealed with"):
            await open_vault(connection, settings)


async def test_a_lost_key_file_is_not_made_anew(pool: asyncpg.Pool, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    await opened(pool, settings)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(VaultFailed, match="there is no vault key .*bring back the one"):
        await opened(pool, settings)
    assert not (tmp_path / KEY_FILE).exists()
    make_key_file(tmp_path / KEY_FILE)
    with pytest.raises(VaultFailed, match="is not the key"):
        await opened(pool, settings)


async def test_a_changed_row_of_master_keys_opens_nothing(pool: asyncpg.Pool, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    await opened(pool, settings)
    async with pool.acquire() as connection:
        await masters.add(connection, kek_of(settings), Profile.AES, 0)
        for change in (
            "update vault_key set wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1)"
            " where version = 2",
            "update vault_key a set wrapped = b.wrapped from vault_key b"
            " where a.purpose = 'data' and b.purpose = 'data' and a.version <> b.version",
            "update vault_key a set wrapped = b.wrapped from vault_key b"
            " where a.purpose = 'data' and a.version = 1 and b.purpose = 'index'",
        ):
            trying = connection.transaction()
            await trying.start()
            await connection.execute(change)
            with pytest.raises(VaultFailed, match="not as it was wrapped"):
                await masters.read(connection, kek_of(settings))
            await trying.rollback()
        await masters.read(connection, kek_of(settings))


async def test_a_vault_that_many_open_first_is_made_once(pool: asyncpg.Pool, tmp_path: Path) -> None:
    vaults = await asyncio.gather(*(opened(pool, Settings(home=tmp_path)) for _ in range(5)))
    key = vaults[0].new_key("patient.record_key", uid("p"))
    sealed = vaults[0].seal(key, "patient.name", uid("p"), "张伟")
    assert {vault.open(key, "patient.name", uid("p"), sealed) for vault in vaults} == {"张伟"}
    assert len({vault.index("a", "b") for vault in vaults}) == 1
