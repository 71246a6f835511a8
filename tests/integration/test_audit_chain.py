"""The chain over a real database: made by the notary, recomputed by the verification."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from engine.audit.canonical import (
    ENTRY_BYTES,
    ENTRY_COLUMNS,
    EVENT_BYTES,
    EVENT_COLUMNS,
    entry_bytes,
    event_bytes,
)
from engine.audit.checkpoints import FILE, CheckpointFile, read_checkpoints, restored_line
from engine.audit.entries import Actor, Entry, operator, write
from engine.audit.notary import NotaryStopped, last_block, make_block
from engine.audit.signing_key import SigningKey, keep_key, key_of
from engine.audit.trail import Trail
from engine.audit.verification import Verdict, verify
from engine.backup import chains
from engine.backup.key_file import Keys, new_key
from engine.backup.places import Directory
from engine.database import APP_ROLE, as_app, let_app_in
from engine.settings import Settings
from web.audit_notary import Notary

STAFF = Actor("staff", bytes(15) + b"\x07", "zhang.san")
ANN = bytes(15) + b"\x01"


@dataclass(slots=True)
class House:
    url: str
    home: Path
    key: SigningKey
    owner: asyncpg.Connection
    app: asyncpg.Connection  # as gateways and shards are

    def notary(self) -> Notary:
        return Notary(self.url, self.home, self.key, Settings.model_construct())

    async def chain(self) -> int:
        return await self.notary().step(self.owner)

    async def verified(self, *more: bytes, first: int = 1) -> Verdict:
        trusted = self.key.trusted | frozenset(more)
        file = CheckpointFile(self.home / FILE)
        async with self.owner.transaction(isolation="repeatable_read", readonly=True):
            return await verify(
                Trail(self.owner),
                trusted,
                read_checkpoints(file.lines(), trusted),
                lambda: read_checkpoints(file.lines(), trusted),
                first,
            )

    async def entry(self, action: str = "vitals_read") -> None:
        await write(self.app, Entry(action, STAFF, (ANN,), ("ticket", "t-1"), detail={"n": 1, "词": "é"}))

    async def events(self, shard: int, count: int) -> None:
        """As `flush` writes them."""
        await self.app.execute("insert into shard (id) values ($1) on conflict do nothing", shard)
        async with self.app.transaction():
            seq = await self.app.fetchval(
                "update shard set seq = seq + $2 where id = $1 returning seq - $2", shard, count
            )
            await self.app.execute(
                "insert into event (shard, seq, stream, version, type, at, data)"
                " select $1, $2 + n, $4, $2 + n, 2, clock_timestamp(), decode(lpad(to_hex(n), 8, '0'), 'hex')"
                " from generate_series(1, $3) n",
                shard,
                seq,
                count,
                f"schedule/D{shard}/2026-11-24",
            )


@pytest.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[House]:
    owner, app = await asyncpg.connect(database), await asyncpg.connect(as_app(database))
    try:
        yield House(database, tmp_path, key_of(tmp_path), owner, app)
    finally:
        await app.close()
        await owner.close()


async def test_both_make_the_same_bytes_of_a_row(house: House) -> None:
    await house.entry()
    await write(house.app, Entry("settings_read", operator(), reason="看\n一下", address="::1"))
    await house.events(0, 3)
    await house.owner.execute("set timezone = 'Asia/Shanghai'")  # nothing of a session counts
    for table, columns, made, mine in (
        ("audit_entry", ENTRY_COLUMNS, ENTRY_BYTES, entry_bytes),
        ("event", EVENT_COLUMNS, EVENT_BYTES, event_bytes),
    ):
        rows = await house.owner.fetch(f"select {columns} from {table}")
        made_there = await house.owner.fetch(f"select {made} as bytes from {table}")
        assert len(rows) >= 2
        assert [mine(row) for row in rows] == [row["bytes"] for row in made_there]


async def test_what_is_untouched_is_found_right(house: House) -> None:
    assert (await house.verified()).ok  # nothing there yet
    assert await house.chain() == 0
    for n in range(5):
        await house.entry()
        await house.events(n % 2, 1 + n)
        assert await house.chain() == 1
    assert await house.chain() == 0  # nothing new
    await house.entry()
    await house.events(1, 2)
    found = await house.verified()
    assert found.faults == []
    assert (found.blocks, found.entries, found.events) == (5, 5, 15)
    assert (found.waiting_entries, found.waiting_events) == (1, 2)
    later = await house.verified(first=3)
    assert later.faults == []
    assert (later.blocks, later.entries) == (3, 3)


async def test_transactions_that_end_out_of_order_are_each_in_one_block(house: House) -> None:
    late = await asyncpg.connect(house.url)
    try:
        slow = late.transaction()
        await slow.start()
        await write(late, Entry("slow_read", STAFF))
        await house.entry("fast_read")  # a later transaction, over earlier
        rolled_back = house.app.transaction()
        await rolled_back.start()
        await house.entry("never_read")
        await rolled_back.rollback()
        await house.events(0, 1)
        assert await house.chain() == 1  # of events: entries wait for the slow one
        assert (await house.verified()).waiting_entries == 1
        await slow.commit()
        assert await house.chain() == 1
    finally:
        await late.close()
    found = await house.verified()
    assert found.faults == []
    assert (found.entries, found.waiting_entries) == (2, 0)


async def test_what_nobody_has_chained_yet_becomes_small_blocks(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of a hospital with a long journal."""
    monkeypatch.setattr("engine.audit.notary.EVENTS_MAX", 10)
    monkeypatch.setattr("engine.audit.notary.ENTRIES_MAX", 3)
    await house.events(0, 45)
    for _ in range(4):
        await house.entry()
    async with house.app.transaction():  # one transaction's entries stay together
        for _ in range(5):
            await house.entry()
    assert await house.chain() == 5
    found = await house.verified()
    assert found.faults == []
    assert (found.entries, found.events, found.waiting_events) == (9, 45, 0)


async def test_a_crash_between_a_block_and_its_line_is_made_good(house: House) -> None:
    await house.entry()
    await house.chain()
    await house.entry()
    assert await make_block(house.owner, house.key, 0) is not None  # and then the process died
    assert any("do not know 1 blocks" in fault for fault in (await house.verified()).faults)
    await house.entry()
    assert await house.chain() == 1
    assert (await house.verified()).faults == []


async def test_a_line_that_a_crash_has_cut_is_told_and_does_not_spoil_the_next(house: House) -> None:
    await house.entry()
    await house.chain()
    file = house.home / FILE
    file.write_text(file.read_text() + '{"block": 2, "ha')
    await house.entry()
    await house.chain()
    assert (await house.verified()).faults == ["checkpoints, line 2: cannot be read"]


async def test_an_older_copy_is_not_gone_on_from_unless_somebody_says_why(house: House) -> None:
    for _ in range(3):
        await house.entry()
        await house.chain()
    await house.owner.execute("set session_replication_role = replica")
    await house.owner.execute("delete from audit_block where number = 3")
    await house.owner.execute("delete from audit_entry where id = 3")
    assert any("older copy" in fault for fault in (await house.verified()).faults)
    await house.entry()
    with pytest.raises(NotaryStopped, match="older copy"):
        await house.chain()
    last = await last_block(house.owner)
    assert last is not None
    line = restored_line(last.number, last.hash, 3, 0, "硬盘坏了", house.key)
    CheckpointFile(house.home / FILE).add(line)
    assert await house.chain() == 1
    found = await house.verified()
    assert found.faults == []
    assert found.notes == ["an older database was put back on purpose: from block 3 to 2 (硬盘坏了)"]


async def test_a_lost_file_is_told_and_begun_anew(house: House) -> None:
    for _ in range(2):
        await house.entry()
        await house.chain()
    (house.home / FILE).unlink()
    assert any("lost or emptied" in fault for fault in (await house.verified()).faults)
    await house.entry()
    await house.chain()
    found = await house.verified()
    assert found.faults == []
    assert found.notes == ["the checkpoints begin after block 2: there was no file"]


async def test_a_rotated_key_is_vouched_for_by_the_one_before(house: House) -> None:
    first = house.key
    await house.entry()
    await house.chain()
    house.key = keep_key(house.home / "audit.key", first.successor())
    assert key_of(house.home) == house.key
    assert (house.home / "audit.key").stat().st_mode & 0o777 == 0o600
    await house.entry()
    await house.chain()
    found = await house.verified()
    assert found.faults == []
    assert found.notes == [f"block 2: from here on signs the key {house.key.public.hex()[:16]}"]
    # Whoever kept the first public key alone follows; whoever has only a stranger's does not.
    async with house.owner.transaction(isolation="repeatable_read", readonly=True):
        assert (await verify(Trail(house.owner), frozenset([first.public]))).faults == []
        strange = await verify(Trail(house.owner), frozenset([SigningKey.new().public]))
        assert len(strange.faults) == 2
    second, house.key = house.key, SigningKey.new()  # lost, and made anew: nobody vouches for it
    await house.entry()
    await house.chain()
    house.key = second
    faults = (await house.verified()).faults
    assert len(faults) == 2  # of the block, and of its line
    assert all("block 3 is signed by the" in fault and "known" in fault for fault in faults)


MORE_THAN_ADDING = (
    "update audit_entry set action = 'x'",
    "delete from audit_entry",
    "truncate audit_entry",
    "update event set seq = 0",
    "delete from event",
    "truncate event",
    "insert into audit_block values (9, '', '', '')",
    "update audit_block set hash = ''",
    "delete from audit_block",
    "insert into audit_entry (action, by_kind, at) values ('x_read', 'nobody', now())",
    "insert into audit_entry (action, by_kind, xid) values ('x_read', 'nobody', '1')",
    "delete from migration",
    "alter table audit_entry disable trigger all",
    "drop table audit_entry",
    "create table mine (x int)",
)


async def test_gateways_and_shards_may_only_add(house: House) -> None:
    assert await house.app.fetchval("select current_user") == APP_ROLE
    for statement in MORE_THAN_ADDING:
        # Not by the trigger: by the rights themselves.
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied|must be owner"):
            await house.app.execute(statement)


async def test_also_the_owner_is_refused_until_it_is_the_maintenance_role(house: House) -> None:
    await house.entry()
    await house.events(0, 1)
    for table in ("audit_entry", "event", "audit_block"):
        for statement in (f"delete from {table}", f"truncate {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only added to"):
                await house.owner.execute(statement)
    await house.owner.execute("set role xinglin_maintenance")
    assert await house.owner.execute("delete from audit_entry") == "DELETE 1"


async def test_a_user_who_may_not_make_roles_gets_one_line(house: House) -> None:
    """An outside server, where the roles are not there yet and whoever asks is no administrator."""
    name = f"plain_{house.url.rpartition('/')[2]}"
    await house.owner.execute(f"create role {name} login password 'plain'")
    try:
        plain = await asyncpg.connect(house.url, user=name, password="plain")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="may not act as xinglin_app"):
            await plain.execute(_roles_of_the_migration())
        await house.owner.execute(f"grant xinglin_app to {name}")
        await plain.execute(_roles_of_the_migration())
        await plain.close()
    finally:
        await house.owner.execute(f"drop role {name}")


def _roles_of_the_migration() -> str:
    sql = (Path(__file__).parents[2] / "engine/migrations/0025_audit.sql").read_text()
    begin = sql.index("do $$")
    return sql[begin : sql.index("$$;", begin) + 3]


async def test_a_word_of_the_audit_has_no_place_for_a_second_line(house: House) -> None:
    corpus = ["a\r\nb", "a\x00b", "a\x1b[31mb", "a\u2028b", "a\u202eb", "a\x85b", "a\ud800b", "a\u200bb"]
    for word in corpus:
        by = Actor("operator", name=word)
        detail = {word: word, "list": [word]}
        await write(house.app, Entry("x_read", by, object=("k", word), reason=word, detail=detail))
    reason = "手机 13800138000，证件 11010119900307803X"
    await write(house.app, Entry("x_read", STAFF, reason=reason, request_id="\n", address="\t"))
    rows = await house.owner.fetch("select by_name, object_id, reason, detail from audit_entry order by id")
    for row in rows[:-1]:
        assert {row["by_name"], row["object_id"], row["reason"]} <= {"a b", "a [31mb"}
    assert rows[-1]["reason"] == "手机 •••••••••00，证件 ••••••••••••••••3X"
    assert await house.chain() == 1
    assert (await house.verified()).faults == []
    with pytest.raises(ValueError, match="no action"):
        await write(house.app, Entry("Read\n", STAFF))


async def test_many_subjects_become_several_entries(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.audit.entries.SUBJECTS_MAX", 2)
    people = [bytes(15) + bytes([n]) for n in range(5)]
    await write(house.app, Entry("board_read", STAFF, [*people, people[0], UUID(bytes=people[1])]))
    rows = await house.owner.fetch("select subjects from audit_entry order by id")
    assert [len(row["subjects"]) for row in rows] == [2, 2, 1]
    assert [one.bytes for row in rows for one in row["subjects"]] == people


async def test_the_newest_line_goes_to_the_second_place_and_disturbs_no_backup_there(house: House) -> None:
    place = house.home / "second"
    place.mkdir()
    notary = Notary(house.url, house.home, house.key, Settings.model_construct(backup_to=str(place)))
    for n in range(3):
        await house.entry()
        await notary.step(house.owner)
        if n != 1:  # the middle one was within the same minute
            await notary.send()
    await notary.send()  # nothing new
    (file,) = (place / "audit").iterdir()
    elsewhere = read_checkpoints(CheckpointFile(file).lines(), house.key.trusted, some=True)
    assert (sorted(elsewhere.hashes), elsewhere.faults) == ([1, 3], [])
    async with house.owner.transaction(isolation="repeatable_read", readonly=True):
        assert (await verify(Trail(house.owner), house.key.trusted, elsewhere)).faults == []
    held = await chains.held(Directory(place), Keys.of(new_key()))
    assert not any(one.bases or one.wal or one.unfinished for one in held)
    assert chains.outlived(held, 1, "other") == []


async def test_with_a_login_of_its_own_the_app_cannot_become_anybody_else(house: House) -> None:
    """As on the embedded server: what gets into a statement of a gateway's gets no further."""
    await let_app_in(house.owner, "it's a secret")
    app = await asyncpg.connect(house.url, user=APP_ROLE, password="it's a secret")
    try:
        await write(app, Entry("x_read", STAFF))
        for statement in (
            f"set role {await house.owner.fetchval('select current_user')}",
            "set role xinglin_maintenance",
            "set session authorization xinglin",
            "set session_replication_role = replica",
            "copy audit_entry to program 'cat'",
            "select pg_read_file('/etc/passwd')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(statement)
    finally:
        await app.close()
