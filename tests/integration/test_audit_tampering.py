"""A thousand ways to touch the audit, each of them found; and nothing found where nobody touched it.

The chain is made once, by the notary on a real database. Its rows are then read into memory, where each
tampering gets a copy of its own, and the verification that an operator runs judges it.
"""

import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.audit.blocks import (
    Block,
    Handover,
    handover_statement,
    hash_of,
    pack,
    statement,
    unpack,
)
from engine.audit.canonical import ENTRY_NAMES, EVENT_NAMES, entry_bytes, event_bytes
from engine.audit.checkpoints import FILE, CheckpointFile, read_checkpoints, restored_line
from engine.audit.entries import Actor, Entry, write
from engine.audit.signing_key import SigningKey
from engine.audit.trail import Trail
from engine.audit.verification import YOUNG_MS, Verdict, verify
from engine.database import as_app
from engine.settings import Settings
from web.audit_notary import Notary

TAMPERINGS = 1_000
ROUNDS = 8
SHARDS = (0, 1)


@dataclass(slots=True)
class Held:
    """All that somebody could touch, and a Source."""

    stored: list[Block]
    rows: list[list[Any]]  # entries
    journal: dict[int, list[list[Any]]]
    counters: dict[int, int]
    lines: list[str]  # of the checkpoint file
    at: int
    key: SigningKey

    async def blocks(self, first: int) -> AsyncIterator[Block]:
        for block in sorted(self.stored, key=lambda block: block.number):
            if block.number >= first:
                yield block

    async def entries(self, from_xid: int) -> AsyncIterator[list[Any]]:
        for row in sorted(self.rows, key=lambda row: (row[1], row[0])):
            if row[1] >= from_xid:
                yield row

    async def events(self, shard: int, after: int) -> AsyncIterator[list[Any]]:
        for row in sorted(self.journal.get(shard, []), key=lambda row: row[1]):
            if row[1] > after:
                yield row

    async def shards(self) -> dict[int, int]:
        return self.counters

    async def now(self) -> int:
        return self.at

    async def verdict(self) -> Verdict:
        return await verify(self, self.key.trusted, read_checkpoints(self.lines, self.key.trusted))


async def read(connection: asyncpg.Connection, file: CheckpointFile, key: SigningKey) -> Held:
    trail = Trail(connection)
    async with connection.transaction(isolation="repeatable_read"):
        counters = await trail.shards()
        return Held(
            [block async for block in trail.blocks(1)],
            [list(row) async for row in trail.entries(0)],
            {shard: [list(row) async for row in trail.events(shard, 0)] for shard in counters},
            counters,
            file.lines(),
            await trail.now() + 2 * YOUNG_MS,
            key,
        )


@pytest.fixture
async def history(database: str, tmp_path: Path) -> list[Held]:
    """What there was after each round; the last one is what there is."""
    key = SigningKey.new()
    notary = Notary(database, tmp_path, key, Settings.model_construct())
    file = CheckpointFile(tmp_path / FILE)
    random = Random(7)
    owner, app = await asyncpg.connect(database), await asyncpg.connect(as_app(database))
    await app.execute("insert into shard (id) select unnest($1::int[])", list(SHARDS))
    found = []
    for _ in range(ROUNDS):
        for m in range(random.randint(2, 4)):
            entry = Entry(
                random.choice(("vitals_read", "staff_disabled")),
                Actor("staff", random.randbytes(16), f"staff{m}"),
                [random.randbytes(16) for _ in range(random.randint(0, 2))],
                ("ticket", random.randbytes(4).hex()),
                reason=random.choice((None, "查房")),
                address="10.0.0.1",
                request_id=random.randbytes(16).hex(),
                gateway="gateway-0",
                detail={"n": m},
            )
            await write(app, entry)
        for shard in SHARDS:
            await app.execute(
                "with moved as (update shard set seq = seq + 4 where id = $1 returning seq - 4 as seq)"
                " insert into event (shard, seq, stream, version, type, at, data)"
                " select $1, seq + n, $2, seq + n, 2, clock_timestamp(), $3"
                "   from moved, generate_series(1, 4) n",
                shard,
                f"schedule/D{shard}/2026-11-24",
                random.randbytes(20),
            )
        assert await notary.step(owner) == 1
        found.append(await read(owner, file, key))
    await owner.close()
    await app.close()
    assert len(found[-1].stored) == ROUNDS
    return found


# What one does. Each gives what there is then; the chain is whole before.

Tampering = Callable[[Random, list[Held]], Held]


def now(history: list[Held]) -> Held:
    return deepcopy(history[-1])


def other(random: Random, value: Any) -> Any:
    """Of the same type, and not the same."""
    match value:
        case None:
            return random.choice(("", "x"))
        case bool() | int():
            return value + random.choice((-1, 1, 1000))
        case str():
            return random.choice((value + " ", value[:-1] + "\N{ZERO WIDTH SPACE}", value.upper() + "x"))
        case bytes():
            at = random.randrange(len(value))
            return value[:at] + bytes([value[at] ^ (1 << random.randrange(8))]) + value[at + 1 :]
        case UUID():
            return UUID(int=value.int ^ (1 << random.randrange(128)))
        case _:
            return value + random.choice((-1, 1)) * timedelta(microseconds=random.choice((1, 10**6, 10**9)))


def entry_field(random: Random, history: list[Held]) -> Held:
    held = now(history)
    row, at = random.choice(held.rows), random.randrange(len(ENTRY_NAMES))
    row[at] = (
        random.randbytes(16) if ENTRY_NAMES[at] == "by_id" and row[at] is None else other(random, row[at])
    )
    return held


def entry_deleted(random: Random, history: list[Held]) -> Held:
    held = now(history)
    held.rows.pop(random.randrange(len(held.rows)))
    return held


def entry_inserted(random: Random, history: list[Held]) -> Held:
    held = now(history)
    row = list(random.choice(held.rows))
    row[0] = max(row[0] for row in held.rows) + random.randint(1, 9)
    held.rows.append(row)
    return held


def entries_swapped(random: Random, history: list[Held]) -> Held:
    """Who did what: the same rows, with what they say the other way round."""
    held = now(history)
    one, two = random.sample(held.rows, 2)
    at = random.choice((slice(2, None), slice(5, 6), slice(0, 1)))
    one[at], two[at] = two[at], one[at]
    return held


def event_field(random: Random, history: list[Held]) -> Held:
    held = now(history)
    row = random.choice(held.journal[random.choice(SHARDS)])
    at = random.randrange(1, len(EVENT_NAMES))
    row[at] = other(random, row[at])
    return held


def event_deleted(random: Random, history: list[Held]) -> Held:
    held = now(history)
    journal = held.journal[random.choice(SHARDS)]
    journal.pop(random.randrange(len(journal)))
    return held


def event_inserted(random: Random, history: list[Held]) -> Held:
    """Somewhere in between, and all that follow a number later: no gap, and the counter fits."""
    held = now(history)
    shard = random.choice(SHARDS)
    journal = held.journal[shard]
    at = random.randrange(len(journal))
    new = list(journal[at])
    new[-1] = random.randbytes(20)
    for row in journal[at:]:
        row[1] += 1
    journal.insert(at, new)
    held.counters[shard] += 1
    return held


def events_swapped(random: Random, history: list[Held]) -> Held:
    held = now(history)
    journal = held.journal[random.choice(SHARDS)]
    one, two = random.sample(journal, 2)
    one[1], two[1] = two[1], one[1]
    return held


def events_cut_off(random: Random, history: list[Held]) -> Held:
    held = now(history)
    shard, many = random.choice(SHARDS), random.randint(1, 6)
    del held.journal[shard][-many:]
    if random.random() < 0.5:
        held.counters[shard] -= many
    return held


def shard_forgotten(random: Random, history: list[Held]) -> Held:
    held = now(history)
    shard = random.choice(SHARDS)
    del held.journal[shard], held.counters[shard]
    return held


def older_copy(random: Random, history: list[Held]) -> Held:
    """The whole database as it was; the file outside it is as it is."""
    held = deepcopy(history[random.randrange(ROUNDS - 1)])
    held.lines = list(history[-1].lines)
    return held


def tail_cut_off(random: Random, history: list[Held]) -> Held:
    """The last blocks go, and what they covered with them."""
    held = now(history)
    left = random.randrange(ROUNDS)
    body = unpack(held.stored[left].body)
    held.stored = held.stored[:left]
    held.rows = [row for row in held.rows if row[1] < body.from_xid]
    if random.random() < 0.5:
        for one in body.shards:
            del held.journal[one.shard][one.from_seq :]
            held.counters[one.shard] = one.from_seq
    return held


def block_field(random: Random, history: list[Held]) -> Held:
    held = now(history)
    at = random.randrange(ROUNDS)
    name = random.choice(("body", "hash", "signature"))
    changed = other(random, getattr(held.stored[at], name))
    held.stored[at] = dataclasses.replace(held.stored[at], **{name: changed})
    return held


def block_deleted(random: Random, history: list[Held]) -> Held:
    held = now(history)
    held.stored.pop(random.randrange(ROUNDS))
    return held


def blocks_swapped(random: Random, history: list[Held]) -> Held:
    held = now(history)
    one, two = random.sample(range(ROUNDS), 2)
    a, b = held.stored[one], held.stored[two]
    held.stored[one] = dataclasses.replace(b, number=a.number)
    held.stored[two] = dataclasses.replace(a, number=b.number)
    return held


def block_added(random: Random, history: list[Held]) -> Held:
    """One more at the end, by somebody without the key."""
    held = now(history)
    last = held.stored[-1]
    body = dataclasses.replace(unpack(last.body), number=last.number + 1, previous=last.hash)
    packed = pack(body)
    held.stored.append(Block(body.number, packed, hash_of(last.hash, packed), random.randbytes(64)))
    return held


def written_anew(random: Random, history: list[Held]) -> Held:
    """An entry or an event is changed, and every block from there on is made to fit: only the key is not
    there. What the file says then is as it was, or made to fit as well."""
    held = now(history)
    if random.random() < 0.5:
        row = random.choice(held.rows)
        row[3] = "nothing_happened"
    else:
        row = random.choice(held.journal[0])
        row[-1] = random.randbytes(9)
    forger = Ed25519PrivateKey.generate()
    public = forger.public_key().public_bytes_raw()
    how = random.choice(("kept", "own", "in its name", "handed over"))
    previous, first = bytes(32), -1
    for at, block in enumerate(held.stored):
        body = fitting(held, dataclasses.replace(unpack(block.body), previous=previous))
        if first < 0 and hash_of(previous, pack(body)) == block.hash:  # before the change all is as it was
            previous = block.hash
            continue
        first = at if first < 0 else first
        if how in ("own", "handed over"):
            over = Handover(held.key.public, forger.sign(handover_statement(public)))
            body = dataclasses.replace(
                body, key=public, handover=over if how == "handed over" and at == first else None
            )
        packed = pack(body)
        made = hash_of(previous, packed)
        signature = block.signature if how == "kept" else forger.sign(statement(at + 1, made))
        held.stored[at] = Block(block.number, packed, made, signature)
        previous = made
        if how != "kept" and random.random() < 0.5:
            said = {"block": at + 1, "hash": made.hex(), "at": 0, "key": body.key.hex()}
            held.lines[at] = json.dumps({**said, "signature": signature.hex()}) + "\n"
    return held


def fitting(held: Held, body: Any) -> Any:
    """The body with the hashes of what is there now."""
    rows = [row for row in sorted(held.rows, key=lambda row: (row[1], row[0])) if row[1] < body.to_xid]
    said = [entry_bytes(row) for row in rows if row[1] >= body.from_xid]
    ids = [row[0] for row in rows if row[1] >= body.from_xid]
    tags = b"".join(
        one.to_bytes(8) + hashlib.sha256(row).digest()[:4] for one, row in zip(ids, said, strict=True)
    )
    shards = []
    for one in body.shards:
        mine = [event_bytes(row) for row in held.journal[one.shard][one.from_seq : one.to_seq]]
        shards.append(
            dataclasses.replace(
                one,
                hash=hashlib.sha256(b"".join(mine)).digest(),
                tags=b"".join(hashlib.sha256(row).digest()[:4] for row in mine),
            )
        )
    return dataclasses.replace(
        body,
        entries=len(said),
        entries_hash=hashlib.sha256(b"".join(said)).digest(),
        entry_tags=tags,
        shards=tuple(shards),
    )


def file_cut_off(random: Random, history: list[Held]) -> Held:
    held = now(history)
    del held.lines[random.randrange(ROUNDS) :]
    return held


def file_with_a_gap(random: Random, history: list[Held]) -> Held:
    held = now(history)
    del held.lines[random.randrange(ROUNDS - 1)]
    return held


def file_edited(random: Random, history: list[Held]) -> Held:
    held = now(history)
    at = random.randrange(ROUNDS)
    said = json.loads(held.lines[at])
    name = random.choice(("block", "hash", "key", "signature"))
    said[name] = said[name] + 1 if name == "block" else other(random, bytes.fromhex(said[name])).hex()
    held.lines[at] = json.dumps(said) + "\n"
    return held


def file_garbled(random: Random, history: list[Held]) -> Held:
    held = now(history)
    at = random.randrange(ROUNDS)
    held.lines[at] = random.choice(("{}\n", "block 7\n", held.lines[at][:40] + "\n", "[1, 2]\n", "null\n"))
    return held


def file_reordered(random: Random, history: list[Held]) -> Held:
    held = now(history)
    one, two = random.sample(range(ROUNDS), 2)
    held.lines[one], held.lines[two] = held.lines[two], held.lines[one]
    return held


def file_restored_by_a_stranger(random: Random, history: list[Held]) -> Held:
    """An older copy, and a line that says it was put back on purpose, without the key."""
    back = random.randrange(ROUNDS - 1)
    held = deepcopy(history[back])
    last = held.stored[-1]
    line = restored_line(last.number, last.hash, ROUNDS, 0, "硬盘坏了", SigningKey.new())
    if random.random() < 0.5:
        said = json.loads(line)
        said["key"] = held.key.public.hex()
        line = json.dumps(said) + "\n"
    held.lines = [*history[-1].lines, line]
    return held


TAMPERING: tuple[Tampering, ...] = (
    entry_field,
    entry_deleted,
    entry_inserted,
    entries_swapped,
    event_field,
    event_deleted,
    event_inserted,
    events_swapped,
    events_cut_off,
    shard_forgotten,
    older_copy,
    tail_cut_off,
    block_field,
    block_deleted,
    blocks_swapped,
    block_added,
    written_anew,
    file_cut_off,
    file_with_a_gap,
    file_edited,
    file_garbled,
    file_reordered,
    file_restored_by_a_stranger,
)


async def test_a_thousand_tamperings_are_all_found(history: list[Held]) -> None:
    for held in history:  # nothing is found where nobody touched it
        assert (await held.verdict()).faults == []
    untouched = history[-1]
    missed = []
    touched = 0
    for n in range(TAMPERINGS * 2):
        random = Random(n)
        tamper = TAMPERING[n % len(TAMPERING)]
        held = tamper(random, history)
        if held == untouched:  # two equal things were swapped
            continue
        touched += 1
        if (await held.verdict()).ok:
            missed.append((n, tamper.__name__))
        if touched == TAMPERINGS:
            break
    assert touched == TAMPERINGS
    assert missed == []
    assert (await untouched.verdict()).faults == []  # and no tampering has touched the others' copy


async def test_what_was_made_anew_is_found_without_the_file_too(history: list[Held]) -> None:
    """The key alone tells: each forger has another one, and says what he likes of it."""
    for n in range(60):
        held = written_anew(Random(n), history)
        assert not (await verify(held, held.key.trusted)).ok, n


async def test_two_branches_that_the_key_signed_do_not_pass_for_one(history: list[Held]) -> None:
    """After a restore there are blocks of the same numbers twice, each signed, each whole."""
    held, key = now(history), history[-1].key
    branch, previous = list[Block](), held.stored[3].hash
    for block in held.stored[4:]:
        packed = pack(dataclasses.replace(unpack(block.body), previous=previous, at=1))
        previous = hash_of(previous, packed)
        branch.append(Block(block.number, packed, previous, key.sign(statement(block.number, previous))))
    other_branch = dataclasses.replace(held, stored=[*held.stored[:4], *branch])
    assert (await verify(other_branch, key.trusted)).faults == []
    mixed = dataclasses.replace(held, stored=[*held.stored[:5], *branch[1:]])
    assert (await verify(mixed, key.trusted)).faults == [
        "block 6 does not follow block 5: one of them was put in later"
    ]


async def test_it_says_what_it_is(history: list[Held]) -> None:
    held = now(history)
    held.rows.pop(0)
    row = held.rows[5]
    row[11] = "没有这回事"
    held.journal[1][9][5] += timedelta(hours=1)
    del held.journal[0][3]
    faults = (await held.verdict()).faults
    assert "block 1: entry 1 is missing" in faults
    assert any(fault.endswith(f"entry {row[0]} was changed") for fault in faults)
    assert "block 3: event 1/10 was changed" in faults
    assert "block 1: event 0/4 is missing" in faults
    assert len(faults) == 4


async def test_a_copy_elsewhere_finds_what_both_here_agree_on(history: list[Held]) -> None:
    """Database and file put back together are whole by themselves: that is what the second place is for."""
    older, line_of_the_second_place = deepcopy(history[4]), history[-1].lines[-1]
    assert (await older.verdict()).ok
    elsewhere = read_checkpoints([line_of_the_second_place], older.key.trusted, some=True)
    verdict = await verify(older, older.key.trusted, elsewhere)
    assert len(verdict.faults) == 1
    assert "older copy" in verdict.faults[0]
