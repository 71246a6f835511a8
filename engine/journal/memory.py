"""The journal in memory: the same promises, for tests and simulations that need no disk."""

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.domain import schedule as s
from engine.domain.planning import Plan
from engine.domain.refusal import Reason
from engine.journal.journal import (
    LOST_CLAIM,
    AppointmentRow,
    Compensate,
    Entry,
    Fenced,
    Loaded,
    StatusChange,
    fold,
    rivals,
)


@dataclass(slots=True)
class Store:
    """What PostgreSQL is to the real journal: shared by every shard that opens it."""

    epochs: dict[int, int] = field(default_factory=dict)
    seqs: dict[int, int] = field(default_factory=dict)
    fenced: dict[int, int] = field(default_factory=dict)
    events: dict[tuple[int, int], tuple[str, int, s.Event]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    claims: dict[tuple[int, bytes], s.Claim] = field(default_factory=dict)
    appointments: dict[bytes, AppointmentRow] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)  # stream -> what the catalog published


class MemoryJournal:
    def __init__(self, store: Store, shard_id: int, now: Callable[[], int]) -> None:
        self._store = store
        self._shard_id = shard_id
        self._now = now
        self._epoch = 0

    async def take_over(self) -> int:
        self._epoch = self._store.epochs.get(self._shard_id, 0) + 1
        self._store.epochs[self._shard_id] = self._epoch
        return self._epoch

    async def last_seq(self) -> int:
        return self._store.seqs.get(self._shard_id, 0)

    async def fenced(self) -> int:
        return self._store.fenced.get(self._shard_id, 0)

    async def load(self, streams: list[str]) -> dict[str, Loaded]:
        loaded = {stream: Loaded([], self._store.plans.get(stream)) for stream in streams}
        for stream, _, event in self._store.events.values():
            if stream in loaded:
                loaded[stream].events.append(event)
        return loaded

    async def append(self, entries: list[Entry], compensate: Compensate) -> int:
        store = self._store
        if store.epochs[self._shard_id] != self._epoch:
            store.fenced[self._shard_id] = store.fenced.get(self._shard_id, 0) + 1
            raise Fenced(f"shard {self._shard_id} is no longer at epoch {self._epoch}")
        losers = rivals(entries)
        lost = {id(entry) for entry, _ in losers}
        # What the batch gives back may be had again in the same batch.
        for claim in fold([e for e in entries if id(e) not in lost]).drops.values():
            self._drop(claim)
        for entry in entries:
            reason = None if id(entry) in lost else self._why_not(entry)
            if reason is not None:
                losers.append((entry, reason))
                lost.add(id(entry))
        undone = compensate(losers) if losers else []
        kept = [e for e in entries if id(e) not in lost]
        writes = fold([*kept, *undone])
        for claim in writes.drops.values():
            self._drop(claim)
        store.claims.update(writes.gains)
        store.appointments.update(writes.rows)
        for change in writes.changes.values():
            self._change(change)
        seq = store.seqs.get(self._shard_id, 0)
        for entry in [*entries, *undone]:
            seq += 1
            assert entry.version == store.versions.get(entry.stream, 0) + 1
            store.versions[entry.stream] = entry.version
            store.events[self._shard_id, seq] = (entry.stream, entry.version, entry.event)
        store.seqs[self._shard_id] = seq
        return seq

    def _drop(self, claim: s.Claim) -> None:
        held = self._store.claims.get((claim.scope, claim.key))
        if held is not None and held.owner == claim.owner:
            del self._store.claims[claim.scope, claim.key]

    def _why_not(self, entry: Entry) -> Reason | None:
        if entry.row is not None and entry.row.id in self._store.appointments:
            return Reason.KEY_REUSED
        for claim in entry.gains:
            held = self._store.claims.get((claim.scope, claim.key))
            if held is None or held.owner == claim.owner:
                continue
            if held.expires_at is None or held.expires_at >= self._now():
                return LOST_CLAIM[claim.scope]
        return None

    def _change(self, change: StatusChange) -> None:
        row = self._store.appointments.get(change.id)
        if row is not None:
            row.status, row.reason = change.status, change.reason
