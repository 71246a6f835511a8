"""Erased stays erased: whatever an older copy of the database brings back, the ledger erases again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from engine.backup.failed import BackupFailed
from engine.backup.places import Directory, Place
from engine.domain.masking import ERASED_NAME
from engine.records.arrivals import patient_of_document
from engine.records.day_people import patient_names
from engine.records.patients import patients_of
from engine.vault.erasures import ErasureFailed, Erasures, What
from engine.vault.vault import Vault
from tests.support.people import add_person, add_right
from tests.support.stores import uid

WHO, OTHER, ACCOUNT = uid("p"), uid("other"), uid("account")
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
async def connection(database: str, vault: Vault) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute("insert into account values ($1, 'o', now())", UUID(bytes=ACCOUNT))
    for who, name, number in ((WHO, "张伟", "E1234"), (OTHER, "李娜", "E5678")):
        await add_person(connection, vault, who, name=name, id_number=number)
        await add_right(connection, vault, ACCOUNT, who)
    yield connection
    await connection.close()


async def rows(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select * from patient order by id")


async def put_back(connection: asyncpg.Connection, before: list[asyncpg.Record]) -> None:
    """What restoring an older backup does to these rows."""
    for row in before:
        await connection.execute(
            "update patient set name = $2, id_number = $3, id_index = $4, record_key = $5, contact_key = $6"
            " where id = $1",
            *(row[name] for name in ("id", "name", "id_number", "id_index", "record_key", "contact_key")),
        )


async def test_a_shredded_person_is_nobody_everywhere(
    connection: asyncpg.Connection, vault: Vault, tmp_path: Path
) -> None:
    erasures = Erasures((tmp_path / "erased.log",))
    async with connection.transaction():
        assert await erasures.shred(connection, What.CONTACT, WHO, NOW)
    [told] = [p for p in await patients_of(connection, vault, ACCOUNT) if p.id == WHO]
    assert (told.name, told.id_number, told.phone) == ("张伟", "E1234", "")
    async with connection.transaction():
        assert await erasures.shred(connection, What.RECORD, WHO, NOW)
        assert not await erasures.shred(connection, What.RECORD, WHO, NOW), "once"
    assert await patient_names(connection, vault, [WHO, OTHER]) == {WHO: ERASED_NAME, OTHER: "李娜"}
    [gone] = [p for p in await patients_of(connection, vault, ACCOUNT) if p.id == WHO]
    assert (gone.name, gone.id_number, gone.phone) == (ERASED_NAME, "", "")
    assert await patient_of_document(connection, vault, "passport", "E1234") is None
    told_of = (tmp_path / "erased.log").read_text()
    assert len([line for line in told_of.splitlines() if line]) == 2
    assert "张伟" not in told_of and "E1234" not in told_of


async def test_what_a_restore_brings_back_is_erased_again(
    connection: asyncpg.Connection, vault: Vault, tmp_path: Path
) -> None:
    before = await rows(connection)
    place = tmp_path / "place"
    place.mkdir()

    @asynccontextmanager
    async def second() -> AsyncIterator[Place]:
        yield Directory(place)

    home = Erasures((tmp_path / "erased.log",), second)
    async with connection.transaction():
        await home.shred(connection, What.RECORD, WHO, NOW)
        await home.shred(connection, What.CONTACT, WHO, NOW)
    for ledger in (Erasures((tmp_path / "erased.log",)), Erasures((tmp_path / "new-home.log",), second)):
        await put_back(connection, before)
        assert (await patient_names(connection, vault, [WHO]))[WHO] == "张伟", "a control: it is back"
        assert await ledger.apply(connection) == 2
        assert (await patient_names(connection, vault, [WHO, OTHER])) == {WHO: ERASED_NAME, OTHER: "李娜"}
        assert await ledger.apply(connection) == 0
    await put_back(connection, before)
    assert await Erasures((tmp_path / "new-home.log",), second).apply(connection, with_place=False) == 0


async def test_who_comes_back_is_not_erased_by_an_old_line(
    connection: asyncpg.Connection, vault: Vault, tmp_path: Path
) -> None:
    erasures = Erasures((tmp_path / "erased.log",))
    async with connection.transaction():
        await erasures.shred(connection, What.CONTACT, WHO, NOW)
    await connection.execute("delete from account_patient where patient_id = $1", UUID(bytes=WHO))
    await add_right(connection, vault, ACCOUNT, WHO, phone="13900139000")
    assert await erasures.apply(connection) == 0
    [told] = [p for p in await patients_of(connection, vault, ACCOUNT) if p.id == WHO]
    assert told.phone == "13900139000"


async def test_nothing_is_erased_that_could_not_be_written_down(
    connection: asyncpg.Connection, vault: Vault, tmp_path: Path
) -> None:
    before = await rows(connection)

    @asynccontextmanager
    async def away() -> AsyncIterator[Place]:
        raise BackupFailed("the disk is not mounted")
        yield Directory(tmp_path)

    for erasures in (
        Erasures((tmp_path / "nowhere" / "erased.log",)),
        Erasures((tmp_path / "erased.log",), away),
        Erasures((tmp_path / "erased.log",), lambda: _nothing(tmp_path / "gone")),
    ):
        with pytest.raises(ErasureFailed, match="cannot be written"):
            async with connection.transaction():
                await erasures.shred(connection, What.RECORD, WHO, NOW)
        assert await rows(connection) == before


@asynccontextmanager
async def _nothing(folder: Path) -> AsyncIterator[Place]:
    yield Directory(folder)


async def test_the_line_is_on_the_disk_before_the_key_is_gone(
    connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two leaves a key that the next start erases, and never the other way round."""
    ledger = tmp_path / "erased.log"
    seen: list[bool] = []
    real = asyncpg.Connection.fetchval

    async def fetchval(self: asyncpg.Connection, query: str, *args: object, **more: object) -> object:
        if query.startswith("update patient"):
            seen.append(ledger.exists() and WHO.hex() in ledger.read_text())
        return await real(self, query, *args, **more)

    monkeypatch.setattr(asyncpg.Connection, "fetchval", fetchval)
    async with connection.transaction():
        await Erasures((ledger,)).shred(connection, What.RECORD, WHO, NOW)
    assert seen == [True]


async def test_a_torn_line_is_passed_over_and_a_changed_one_is_not(
    connection: asyncpg.Connection, tmp_path: Path
) -> None:
    ledger = tmp_path / "erased.log"
    erasures = Erasures((ledger,))
    async with connection.transaction():
        await erasures.shred(connection, What.RECORD, WHO, NOW)
    whole = ledger.read_text()
    ledger.write_text(whole + whole.strip()[:-10])  # the power went while the next one was written
    async with connection.transaction():
        await erasures.shred(connection, What.RECORD, OTHER, NOW)
    assert len(await erasures._entries(False)) == 2
    ledger.write_text(whole.replace("record-", "nobody-"))
    with pytest.raises(ErasureFailed, match="mend it first"):
        await erasures.apply(connection)
