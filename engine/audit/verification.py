"""Is everything as it was chained? Recomputes every hash from the rows and says what does not fit.

One pass in the order of the blocks over blocks, entries and events, so that a year takes as long as reading
it. What is found has a sentence each; what nobody can tell from inside the database (its end was cut off, or
all of it is an older copy) is found by the checkpoints that are kept outside it.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from engine.audit.blocks import (
    ENTRY_TAG_BYTES,
    NO_HASH,
    TAG_BYTES,
    Block,
    Body,
    Covered,
    NoBlock,
    handover_statement,
    hash_of,
    is_signed,
    statement,
    unpack,
)
from engine.audit.canonical import entry_bytes, event_bytes
from engine.audit.checkpoints import Checkpoints

Row = Sequence[Any]
T = TypeVar("T")
YOUNG_MS: Final = 10_000
"""A block as old as this has its line in the file: it is written right after the block."""


class Source(Protocol):
    """One consistent look at the tables."""

    def blocks(self, first: int) -> AsyncIterator[Block]:
        """From this number on, in order."""

    def entries(self, from_xid: int) -> AsyncIterator[Row]:
        """ENTRY_NAMES of those with this transaction or a later one, by transaction and id."""

    def events(self, shard: int, after: int) -> AsyncIterator[Row]:
        """EVENT_NAMES of those after this number, in order."""

    async def shards(self) -> dict[int, int]:
        """Shard -> its counter."""

    async def now(self) -> int:
        """The database's clock, in ms."""


@dataclass(slots=True)
class Verdict:
    blocks: int = 0
    entries: int = 0
    events: int = 0
    waiting_entries: int = 0  # written since the last block
    waiting_events: int = 0
    last: tuple[int, str] | None = None  # number and hash of the last block
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults


async def verify(
    source: Source,
    trusted: frozenset[bytes],
    checkpoints: Checkpoints | None = None,
    again: Callable[[], Checkpoints] | None = None,
    first: int = 1,
    progress: Callable[[Verdict], None] = lambda verdict: None,
) -> Verdict:
    """`trusted`: public keys whose signatures count, and those that they handed over to.

    `checkpoints` were read before the source, `again` reads them after it: a chain that goes on meanwhile is
    neither longer than the file nor shorter.
    """
    return await _Pass(source, trusted, checkpoints, again, first, progress).run()


class _Pass:
    def __init__(
        self,
        source: Source,
        trusted: frozenset[bytes],
        checkpoints: Checkpoints | None,
        again: Callable[[], Checkpoints] | None,
        first: int,
        progress: Callable[[Verdict], None],
    ) -> None:
        self._source = source
        self._trusted = set(trusted)
        self._checkpoints = checkpoints
        self._again = again
        self._first = first
        self._progress = progress
        self._verdict = Verdict()
        self._entries: _Ahead[Row] | None = None
        self._events: dict[int, _Ahead[Row]] = {}
        self._before: Body | None = None
        self._before_hash = NO_HASH
        self._number = first - 1
        self._seen: dict[int, bytes] = {}

    async def run(self) -> Verdict:
        verdict = self._verdict
        async for block in self._source.blocks(self._first):
            await self._block(block)
            verdict.blocks += 1
            self._progress(verdict)
        await self._rest()
        if self._checkpoints is not None:
            await self._compare(self._checkpoints)
        if self._number >= self._first:
            verdict.last = self._number, self._before_hash.hex()
        return verdict

    def _wrong(self, what: str) -> None:
        self._verdict.faults.append(what)

    async def _block(self, block: Block) -> None:
        name = f"block {block.number}"
        gap = block.number != self._number + 1
        if block.number <= self._number:
            self._wrong(f"{name} stands a second time, or out of order")
        elif gap:
            missing = f"{self._number + 1} to {block.number - 1}"
            self._wrong(f"blocks {missing} are missing, and with them the word for what they covered")
        self._number = block.number
        self._seen[block.number] = block.hash
        try:
            body = unpack(block.body)
        except NoBlock as no:
            self._wrong(f"{name}: its body cannot be read ({no})")
            self._before_hash = block.hash
            self._before = None
            return
        self._check_chain(name, block, body, gap)
        self._check_signature(name, block, body)
        await self._check_entries(name, body)
        for covered in body.shards:
            await self._check_events(name, covered)
        self._before, self._before_hash = body, block.hash

    def _check_chain(self, name: str, block: Block, body: Body, gap: bool) -> None:
        if body.number != block.number:
            self._wrong(f"{name} says that it is block {body.number}: it was put into another's place")
        if hash_of(body.previous, block.body) != block.hash:
            self._wrong(f"{name}: its body is not the one that its hash was made of")
        if block.number == self._first and not gap:
            if self._first == 1 and (body.previous != NO_HASH or body.from_xid != 0):
                self._wrong(f"{name} follows another one, and is the first: the chain's begin was cut off")
            return
        if gap:
            return
        if body.previous != self._before_hash:
            self._wrong(f"{name} does not follow block {block.number - 1}: one of them was put in later")
        if self._before is None:
            return
        if body.from_xid != self._before.to_xid:
            self._wrong(f"{name} does not begin where block {block.number - 1} ended")
        ended = {one.shard: one.to_seq for one in self._before.shards}
        for one in body.shards:
            if one.from_seq != ended.get(one.shard, 0):
                self._wrong(f"{name} does not begin where block {block.number - 1} ended (shard {one.shard})")

    def _check_signature(self, name: str, block: Block, body: Body) -> None:
        before = self._before
        if before is not None and body.key != before.key:
            over = body.handover
            if over is not None and over.old == before.key and over.old in self._trusted:
                if is_signed(over.old, over.signature, handover_statement(body.key)):
                    self._trusted.add(body.key)
                    self._verdict.notes.append(f"{name}: from here on signs the key {_short(body.key)}")
                else:
                    self._wrong(f"{name}: the key before did not hand over to {_short(body.key)}")
            elif body.key in self._trusted:
                self._verdict.notes.append(f"{name}: from here on signs the key {_short(body.key)}")
        if body.key not in self._trusted:
            self._wrong(
                f"{name} is signed by the key {_short(body.key)}, which is not known: forged, or pass"
                " --trust with the key's full public half as `xinglin audit key` printed it"
            )
        if not is_signed(body.key, block.signature, statement(block.number, block.hash)):
            self._wrong(f"{name}: its signature is not of this block")

    async def _check_entries(self, name: str, body: Body) -> None:
        if self._entries is None:
            self._entries = _Ahead(self._source.entries(body.from_xid))
        digest = hashlib.sha256()
        tags: dict[int, bytes] = {}
        async for row in self._entries.until(lambda row: row[1] < body.to_xid):
            if row[1] < body.from_xid:
                self._wrong(f"entry {row[0]} stands where no block covers it (transaction {row[1]})")
                continue
            said = entry_bytes(row)
            digest.update(said)
            tags[row[0]] = hashlib.sha256(said).digest()[:TAG_BYTES]
        self._verdict.entries += len(tags)
        if digest.digest() == body.entries_hash and len(tags) == body.entries:
            return
        before = len(self._verdict.faults)
        chained = {
            int.from_bytes(body.entry_tags[at : at + 8]): body.entry_tags[at + 8 : at + ENTRY_TAG_BYTES]
            for at in range(0, len(body.entry_tags), ENTRY_TAG_BYTES)
        }
        for one in sorted(chained.keys() - tags.keys()):
            self._wrong(f"{name}: entry {one} is missing")
        for one in sorted(tags.keys() - chained.keys()):
            self._wrong(f"{name}: entry {one} was put in later")
        for one in sorted(chained.keys() & tags.keys()):
            if chained[one] != tags[one]:
                self._wrong(f"{name}: entry {one} was changed")
        if len(self._verdict.faults) == before:
            self._wrong(f"{name}: its {len(tags)} entries are not the {body.entries} that were chained")

    async def _check_events(self, name: str, covered: Covered) -> None:
        shard = covered.shard
        if shard not in self._events:
            self._events[shard] = _Ahead(self._source.events(shard, covered.from_seq))
        digest = hashlib.sha256()
        found: dict[int, bytes] = {}
        async for row in self._events[shard].until(lambda row: row[1] <= covered.to_seq):
            if row[1] <= covered.from_seq:
                self._wrong(f"event {shard}/{row[1]} stands where no block covers it")
                continue
            said = event_bytes(row)
            digest.update(said)
            found[row[1]] = hashlib.sha256(said).digest()[:TAG_BYTES]
        self._verdict.events += len(found)
        if digest.digest() == covered.hash and len(found) == covered.to_seq - covered.from_seq:
            return
        before = len(self._verdict.faults)
        for at, seq in enumerate(range(covered.from_seq + 1, covered.to_seq + 1)):
            tag = covered.tags[at * TAG_BYTES : (at + 1) * TAG_BYTES]
            if seq not in found:
                self._wrong(f"{name}: event {shard}/{seq} is missing")
            elif found[seq] != tag:
                self._wrong(f"{name}: event {shard}/{seq} was changed")
        if len(self._verdict.faults) == before:
            self._wrong(f"{name}: the events of shard {shard} are not those that were chained")

    async def _rest(self) -> None:
        """What has been written since the last block: not chained yet, but without gaps."""
        verdict = self._verdict
        ended = {one.shard: one.to_seq for one in self._before.shards} if self._before else {}
        if self._entries is None:
            self._entries = _Ahead(self._source.entries(0))
        async for _ in self._entries.until(lambda row: True):
            verdict.waiting_entries += 1
        counters = await self._source.shards()
        for shard in sorted(counters.keys() | ended.keys()):
            at = ended.get(shard, 0)
            counter = counters.get(shard, -1)
            if counter < at:
                self._wrong(f"shard {shard} is at event {max(0, counter)}, and {at} are chained")
            if shard not in self._events:
                self._events[shard] = _Ahead(self._source.events(shard, at))
            async for row in self._events[shard].until(lambda row: True):
                if row[1] != at + 1:
                    self._wrong(f"events {shard}/{at + 1} to {row[1] - 1} are missing")
                at = row[1]
                verdict.waiting_events += 1
            if counter > at:
                self._wrong(f"events {shard}/{at + 1} to {counter} are missing")

    async def _compare(self, kept: Checkpoints) -> None:
        verdict = self._verdict
        last = kept.last
        later = kept if self._again is None else self._again()
        verdict.faults += later.faults
        verdict.notes += later.notes
        if last is None:
            if self._seen:
                self._wrong("there are no checkpoints, and there is a chain: the file was lost or emptied")
            return
        if last > self._number:
            self._wrong(
                f"the checkpoints know block {last}, and the chain ends with block {self._number}: its end"
                " was cut off, or this is an older copy of the database"
            )
        for number, block_hash in later.hashes.items():
            if number >= self._first and self._seen.get(number, block_hash) != block_hash:
                self._wrong(
                    f"block {number} is not the one of the checkpoints: it was made anew, or put back"
                )
        if later.some:
            return
        missing = [one for one in sorted(self._seen) if one > later.begun and one not in later.hashes]
        if missing and missing[-1] == self._number and await self._is_young():
            missing.pop()
        if missing:
            self._wrong(
                f"the checkpoints do not know {len(missing)} blocks, {_ranges(missing)}: the file was"
                " shortened, or the last start has not come to it yet"
            )

    async def _is_young(self) -> bool:
        return self._before is not None and await self._source.now() - self._before.at < YOUNG_MS


class _Ahead(Generic[T]):
    """An iterator that may be looked into by one."""

    def __init__(self, rows: AsyncIterator[T]) -> None:
        self._rows = rows
        self._next: T | None = None

    async def until(self, wanted: Callable[[T], bool]) -> AsyncIterator[T]:
        """Those that come next, as long as they are wanted."""
        while True:
            if self._next is None:
                self._next = await anext(self._rows, None)
            if self._next is None or not wanted(self._next):
                return
            row, self._next = self._next, None
            yield row


def _short(key: bytes) -> str:
    return key.hex()[:16]


def _ranges(numbers: Iterable[int]) -> str:
    found: list[list[int]] = []
    for one in numbers:
        if found and found[-1][1] == one - 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    said = [f"{a}" if a == b else f"{a} to {b}" for a, b in found[:10]]
    return ", ".join(said) + (" …" if len(found) > 10 else "")
