"""The journal in memory: the same promises, for tests and simulations that need no disk."""

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.domain.claims import Claim, Scope
from engine.domain.messages import Event
from engine.domain.planning import Plan, plan_from_data
from engine.domain.refusal import Reason
from engine.domain.room_plan import RoomPlan
from engine.domain.schedule import Status
from engine.journal.journal import (
    LOST_CLAIM,
    AppointmentRow,
    Compensate,
    Entry,
    Fenced,
    Loaded,
    More,
    StatusChange,
    Writes,
    fold,
    rivals,
    with_atoms,
)


@dataclass(slots=True)
class Store:
    """What PostgreSQL is to the real journal: shared by every shard that opens it."""

    epochs: dict[int, int] = field(default_factory=dict)
    seqs: dict[int, int] = field(default_factory=dict)
    fenced: dict[int, int] = field(default_factory=dict)
    events: dict[tuple[int, int], tuple[str, int, Event]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    claims: dict[tuple[int, bytes], Claim] = field(default_factory=dict)
    appointments: dict[bytes, AppointmentRow] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)  # stream -> what the catalog published
    room_plans: dict[str, RoomPlan] = field(default_factory=dict)
    tickets: dict[str, list[object]] = field(default_factory=dict)
    bills: dict[str, list[object]] = field(default_factory=dict)  # as engine/journal/bills.py tells them
    payments: dict[str, list[object]] = field(default_factory=dict)
    refunds: dict[str, list[object]] = field(default_factory=dict)
    postings: list[list[object]] = field(default_factory=list)
    shown: dict[str, Plan] = field(default_factory=dict)  # schedule -> its plan, once it is opened
    unfree: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    held_for: dict[bytes, list[object]] = field(default_factory=dict)  # [replaces, wish, changes, by]
    fates: dict[bytes, tuple[str | None, str | None]] = field(default_factory=dict)
    successors: dict[bytes, str] = field(default_factory=dict)
    coming: set[bytes] = field(default_factory=set)
    wishes: dict[bytes, tuple[str, str | None]] = field(default_factory=dict)  # [status, appointment]
    errands: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    due: dict[tuple[str, str], int] = field(default_factory=dict)  # errands that are for later: in ms


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
        for stream, found in loaded.items():
            found.room = self._store.room_plans.get(stream)
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
        losers = with_atoms(entries, losers)
        undone = compensate(losers) if losers else []
        lost = {id(entry) for entry, _ in losers}
        kept = [e for e in entries if id(e) not in lost]
        writes = fold([*kept, *undone])
        for claim in writes.drops.values():
            self._drop(claim)
        store.claims.update(writes.gains)
        store.appointments.update(writes.rows)
        for change in writes.changes.values():
            self._change(change)
        for key, plan in writes.opened:
            store.shown[key.schedule_id] = plan
        if writes.more is not None:
            self._write_more(writes.more)
        self._tell_bills(writes)
        seq = store.seqs.get(self._shard_id, 0)
        for entry in [*entries, *undone]:
            seq += 1
            assert entry.version == store.versions.get(entry.stream, 0) + 1
            store.versions[entry.stream] = entry.version
            store.events[self._shard_id, seq] = (entry.stream, entry.version, entry.event)
        store.seqs[self._shard_id] = seq
        return seq

    def _drop(self, claim: Claim) -> None:
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

    def _write_more(self, more: More) -> None:
        """What PostgreSQL's flush_more does."""
        store = self._store
        for schedule_id, plan in more.plans.items():
            store.shown[schedule_id] = plan_from_data(plan)  # type: ignore[arg-type]
        store.unfree |= more.unfree
        for appointment_id, *why in more.held:
            store.held_for[bytes.fromhex(str(appointment_id))] = why
        for appointment_id, slot_id, starts_at in more.moved:
            row = store.appointments[bytes.fromhex(str(appointment_id))]
            row.slot_id, row.starts_at = str(slot_id), int(starts_at)  # type: ignore[call-overload]
        for appointment_id, fate, successor in more.fates:
            store.fates[bytes.fromhex(str(appointment_id))] = (
                fate and str(fate),
                successor and str(successor),
            )  # type: ignore[assignment]
        for appointment_id, successor in more.successors:
            store.successors[bytes.fromhex(str(appointment_id))] = str(successor)
        store.coming.update(map(bytes.fromhex, more.coming))
        for wish_id, status, appointment in more.wishes:
            store.wishes[bytes.fromhex(str(wish_id))] = (str(status), appointment and str(appointment))  # type: ignore[assignment]
        for scope, key, owner, expires_at in more.yields:
            claim = Claim(
                Scope(int(scope)),  # type: ignore[call-overload]
                bytes.fromhex(str(key)),
                bytes.fromhex(str(owner)),
                expires_at,  # type: ignore[arg-type]
            )
            held = store.claims.get((claim.scope, claim.key))
            if held is None or (held.expires_at is not None and held.expires_at < self._now()):
                store.claims[claim.scope, claim.key] = claim
        for kind, key, data in more.errands:
            store.errands[str(kind), str(key)] = data  # type: ignore[assignment]
        store.tickets |= more.tickets
        store.bills |= more.bills
        store.payments |= more.payments
        store.refunds |= more.refunds
        store.postings += more.postings
        for kind, key, data, ms in more.due:
            store.errands[str(kind), str(key)] = data  # type: ignore[assignment]
            store.due[str(kind), str(key)] = int(ms)  # type: ignore[call-overload]

    def _tell_bills(self, writes: Writes) -> None:
        """As PostgreSQL's flush: of numbers that were given up, missed or moved, those that a bill is for."""
        told = [
            (c.id, "no_show" if c.status == Status.NOSHOW else c.reason, c.at)
            for c in writes.changes.values()
            if c.status in (Status.CANCELLED, Status.NOSHOW)
        ]
        moved = writes.more.moved if writes.more is not None else []
        told += [(bytes.fromhex(str(appointment_id)), "moved", self._now()) for appointment_id, *_ in moved]
        mine = {row[8] for row in self._store.bills.values()} if told else set()
        for appointment_id, cause, at in told:
            if appointment_id.hex() in mine:
                self._store.errands["bill_seat", appointment_id.hex()] = {"cause": cause, "at": at}
