"""What `xinglin serve` does about the vault before anybody is served, and the commands `xinglin vault`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from engine.domain.masking import ERASED_NAME
from engine.records.day_people import patient_names
from engine.settings import Settings
from engine.vault.erasures import LEDGER, ErasureFailed, What
from engine.vault.failed import VaultFailed
from engine.vault.kek import read_key_file
from engine.vault.opening import KEY_FILE, open_vault
from tests.support.people import add_person
from tests.support.stores import uid
from web import keys
from web.app import make_app
from web.cli import main
from web.erasing import erasures_of
from web.main import _prepare_database

WHO, OTHER = uid("p"), uid("other")


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["vault", *arguments])


def said(*arguments: str) -> str:
    done = asked(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


async def looked(database: str, home: Path) -> dict[bytes, str]:
    connection = await asyncpg.connect(database)
    vault = await open_vault(connection, Settings(home=home))
    names = await patient_names(connection, vault, [WHO, OTHER])
    await connection.close()
    return names


async def with_people(database: str, home: Path) -> None:
    connection = await asyncpg.connect(database)
    vault = await open_vault(connection, Settings(home=home))
    for who, name in ((WHO, "张伟"), (OTHER, "李娜")):
        await add_person(connection, vault, who, name=name)
    await connection.close()


async def test_a_start_erases_again_what_the_ledger_names(database: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=SecretStr(database))
    await _prepare_database(database, settings)
    await with_people(database, tmp_path)
    connection = await asyncpg.connect(database)
    [before] = await connection.fetch("select * from patient where id = $1", WHO.hex())
    async with connection.transaction():
        await erasures_of(settings).shred(connection, What.RECORD, WHO, datetime.now(UTC))
    await connection.execute(
        "update patient set record_key = $2, name = $3 where id = $1",  # as a restore would
        WHO.hex(), before["record_key"], before["name"],
    )  # fmt: skip
    await connection.close()
    assert await looked(database, tmp_path) == {WHO: "张伟", OTHER: "李娜"}, "a control"
    await _prepare_database(database, settings)
    assert await looked(database, tmp_path) == {WHO: ERASED_NAME, OTHER: "李娜"}
    (tmp_path / LEDGER).write_text("xinglin-erased-1 nobody 2026 .\n")
    with pytest.raises(ErasureFailed):
        await _prepare_database(database, settings)


async def test_a_start_without_the_right_key_is_refused_before_anything_is_served(
    database: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, database_url=SecretStr(database))
    await _prepare_database(database, settings)
    (tmp_path / KEY_FILE).rename(tmp_path / "elsewhere")
    with pytest.raises(VaultFailed, match="there is no vault key"):
        await _prepare_database(database, settings)
    await _prepare_database(database, settings.model_copy(update={"vault_key": f"file:{tmp_path}/elsewhere"}))
    (tmp_path / "elsewhere").chmod(0o644)
    with pytest.raises(VaultFailed, match="chmod 600"):
        await _prepare_database(
            database, settings.model_copy(update={"vault_key": f"file:{tmp_path}/elsewhere"})
        )


def test_keys_are_renewed_by_commands(database: str, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("XINGLIN_VAULT_KEY", "XINGLIN_VAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    where = ("--home", str(tmp_path), "--database-url", database)
    none = asked("status", *where)
    assert none.exit_code == 1 and "has no vault yet" in none.output
    asyncio.run(with_people(database, tmp_path))
    first = read_key_file(tmp_path / KEY_FILE).id.hex()
    assert f"by key {first}" in said("status", *where) and "2 data keys" in said("status", *where)
    monkeypatch.setenv("XINGLIN_VAULT_PROFILE", "sm4")
    assert "master key 2 (sm4)" in said("rotate", *where, "--announced-seconds", "3600")
    assert "announced" in said("status", *where)
    assert "every data key is wrapped with master key 1" in said("rewrap", *where), "its time has not come"
    assert "master key 3" in said("rotate", *where, "--announced-seconds", "0")
    told = said("rewrap", *where)
    assert "patient.record_key: 2" in told and "master key 3" in told
    assert "2 data keys" in said("status", *where).splitlines()[2]
    assert "is in" in said("key", "--rotate", str(tmp_path / KEY_FILE))
    assert "(older)" in said("status", *where)
    assert "4 master keys are wrapped anew" in said("rekek", *where)
    newest = (tmp_path / KEY_FILE).read_text().splitlines(keepends=True)[0]
    (tmp_path / KEY_FILE).write_text(newest)
    assert asyncio.run(looked(database, tmp_path)) == {WHO: "张伟", OTHER: "李娜"}
    (tmp_path / KEY_FILE).unlink()
    for command in ("status", "rotate", "rewrap", "rekek"):
        refused = asked(command, *where)
        assert refused.exit_code == 1 and refused.output.count("\n") == 1, refused.output


def test_a_key_is_made_once(tmp_path: Path) -> None:
    assert "keep a copy" in said("key", str(tmp_path / "k"))
    again = asked("key", str(tmp_path / "k"))
    assert again.exit_code == 1 and "may be the only key" in again.output


def test_the_application_does_not_show_what_it_opens_with() -> None:
    assert keys.VAULT not in make_app(), "the gateway gives it, nobody makes one by accident"
