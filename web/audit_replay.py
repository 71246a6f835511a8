"""What only a replay can tell: the tables against the schedules that their events make. See web/audit.py."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
import orjson

from engine.domain import schedule as s
from engine.domain.claims import Scope
from engine.domain.ids import ScheduleKey
from engine.domain.limits import CHANGE_CLAIM_MS
from engine.domain.planning import plan_as_data
from engine.domain.policy import Channel
from engine.domain.seats import number_of, plan_of, seats_for
from engine.journal.codec import unpack_event

STREAMS_AT_ONCE: Final = 1_000
EXAMPLES_MAX: Final = 3


@dataclass(slots=True)
class Check:
    name: str
    examined: int = 0
    faults: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults

    def wrong(self, what: str) -> None:
        self.faults += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(what)


_APPOINTMENTS: Final = """
select id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id, status, reason, fee_fen,
       starts_at, hold_until, department_id, number_class_id, channel, visit, replaces, successor, wish_id,
       changes, booked_by, fate, will_come
  from appointment where schedule_id = any ($1)"""

_STRAY_CLAIMS: Final = """
select c.scope, c.owner from claim c
 where (c.expires_at is null or c.expires_at > now())
   and not exists (select from appointment a where a.id = c.owner)
 order by c.scope, c.owner"""


@dataclass(slots=True)
class Replayed:
    """A schedule, and what its state does not tell of the way to it."""

    state: s.Schedule = field(default_factory=s.Schedule)
    capacity: dict[bytes, int] = field(default_factory=dict)
    """Of the appointment's slot when the seat was given: seats are added later."""
    by: dict[bytes, str] = field(default_factory=dict)
    given_up: dict[bytes, int] = field(default_factory=dict)
    """Held for a change from another schedule and never booked: when it was given up (ms)."""
    too_early: list[s.SeatHeld] = field(default_factory=list)
    """Given through a channel to which the seat was not open yet."""

    def apply(self, event: s.Event, at: int) -> None:
        state = self.state
        if isinstance(event, s.SeatReleased) and event.appointment_id in state.changes:
            self.given_up[event.appointment_id] = at
        if isinstance(event, s.SeatHeld) and not (
            seats_for(state.slots[event.clock], event.channel, at) >> event.seat & 1
        ):
            self.too_early.append(event)
        s.apply(state, event)
        match event:
            case s.SeatHeld():
                self.capacity[event.appointment_id] = state.slots[event.clock].capacity
                self.by[event.appointment_id] = event.by
            case s.SeatRestored():
                self.given_up.pop(event.appointment_id, None)
            case s.SeatReleased() if event.reason == "lost_claim":
                self.given_up.pop(event.appointment_id, None)
            case _:
                pass


@dataclass(slots=True)
class _Claims:
    """What replayed schedules say about claims: (scope, key, owner) -> when it ends (ms; None: never)."""

    expected: dict[tuple[int, bytes, bytes], int | None] = field(default_factory=dict)
    allowed: set[tuple[int, bytes, bytes]] = field(default_factory=set)
    """There or not: what the number that is changed passes on."""
    moved: set[tuple[int, bytes, bytes]] = field(default_factory=set)
    """Missing where somebody else has it."""
    successors: dict[bytes, bytes] = field(default_factory=dict)
    """A number at another actor -> the one that was given up for it."""

    def add(self, key: ScheduleKey, replayed: Replayed) -> None:
        state = replayed.state
        for id_, appointment in state.appointments.items():
            if appointment.reason == "changed" and appointment.successor not in state.appointments:
                self.successors[appointment.successor] = id_
            if appointment.status > s.Status.FULFILLED:
                continue
            slot = state.slots[appointment.clock]
            for claim in s.claims_of(state, id_, key.day):
                name = claim.scope, claim.key, claim.owner
                self.expected[name] = claim.expires_at
                if slot.formerly and claim.scope is Scope.PATIENT_TIME:
                    self.moved.add(name)
            if appointment.status is s.Status.PENDING and appointment.replaces:
                wanted = s.claims_wanted(slot, appointment.patient_id, id_, key.day, None)
                self.allowed.update((claim.scope, claim.key, claim.owner) for claim in wanted)
        for id_, at in replayed.given_up.items():
            self.expected[Scope.MOVE, id_, id_] = at + CHANGE_CLAIM_MS


class Comparison:
    """Schedule by schedule, some hundred at a time: a hospital's whole journal need not fit into memory."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._replays = Check("events replay")
        self._appointments = Check("appointments as replayed")
        self._numbers = Check("numbers unique")
        self._conserved = Check("seats conserved")
        self._plans = Check("plans as opened")
        self._unfree = Check("seats out of use")
        self._release = Check("nobody before the release")
        self._waiting = Check("waiting lists")
        self._claims = Check("claims")
        self._queues: dict[bytes, list[str]] = {}
        """wish -> the schedules on whose lists it is."""
        self._rowless: set[bytes] = set()
        """In the journal and not in the table: told once, so their claims are not called strays as well."""

    async def run(self) -> list[Check]:
        self._now = _ms(await self._connection.fetchval("select now()"))
        rows = await self._connection.fetch(
            "select distinct stream from event where stream like 'schedule/%' order by stream"
        )
        keys = [ScheduleKey.of_stream(row["stream"]) for row in rows]
        for first in range(0, len(keys), STREAMS_AT_ONCE):
            await self._compare(keys[first : first + STREAMS_AT_ONCE])
        await self._without_events([key.schedule_id for key in keys])
        await self._compare_queues()
        return [
            self._replays,
            self._appointments,
            self._numbers,
            self._conserved,
            self._plans,
            self._unfree,
            self._release,
            self._waiting,
            self._claims,
        ]

    async def _compare(self, keys: list[ScheduleKey]) -> None:
        ids = [key.schedule_id for key in keys]
        events: dict[str, list[tuple[s.Event, int]]] = {key.stream: [] for key in keys}
        unreadable: dict[str, str] = {}
        for row in await self._connection.fetch(
            "select stream, version, type, at, data from event"
            " where stream = any ($1) order by stream, version",
            list(events),
        ):
            self._replays.examined += 1
            try:
                event = cast(s.Event, unpack_event(row["type"], row["data"]))
                events[row["stream"]].append((event, _ms(row["at"])))
            except Exception as error:  # damaged bytes may raise anything, and the audit must go on
                unreadable.setdefault(row["stream"], f"event {row['version']}: {error!r}")
        rows: dict[str, list[asyncpg.Record]] = {id_: [] for id_ in ids}
        for row in await self._connection.fetch(_APPOINTMENTS, ids):
            rows[row["schedule_id"]].append(row)
        plans = {
            row["id"]: (orjson.loads(row["plan"]), orjson.loads(row["unfree"]))
            for row in await self._connection.fetch(
                "select id, plan::text, unfree::text from schedule where id = any ($1) and opened", ids
            )
        }
        claims = _Claims()
        owners: set[bytes] = set()
        for key in keys:
            why = unreadable.get(key.stream)
            try:
                replayed = Replayed()
                for event, at in events[key.stream] if why is None else ():
                    replayed.apply(event, at)
            except Exception as error:  # as above: a journal with a hole breaks the machine's assertions
                why = repr(error)
            if why is not None:
                self._replays.wrong(f"{key.stream}: {why}")
                continue
            self._compare_one(key, replayed, rows[key.schedule_id], plans.get(key.schedule_id))
            owners.update(row["id"].bytes for row in rows[key.schedule_id])
            claims.add(key, replayed)
        for row in await self._connection.fetch(
            "select id from appointment where id = any ($1::uuid[]) and status = 1",
            [UUID(bytes=id_) for id_ in claims.successors],
        ):
            # Given up for one that does not know it yet.
            new = row["id"].bytes
            claims.expected[Scope.MOVE, new, claims.successors[new]] = None
        await self._compare_claims(owners | {owner for _, _, owner in claims.expected}, claims)

    def _compare_one(
        self,
        key: ScheduleKey,
        replay: Replayed,
        rows: list[asyncpg.Record],
        shown: tuple[list[object], dict[str, list[int]]] | None,
    ) -> None:
        state = replay.state
        self._appointments.examined += len(state.appointments)
        found = {row["id"].bytes: _row_facts(row) for row in rows}
        replayed = {id_: _state_facts(key, replay, id_) for id_ in state.appointments}
        for id_ in sorted(found.keys() | replayed.keys()):
            have, want = found.get(id_), replayed.get(id_)
            if have is None:
                self._rowless.add(id_)
                self._appointments.wrong(f"{UUID(bytes=id_)} on {key.schedule_id} is in the journal alone")
            elif want is None:
                self._appointments.wrong(f"{UUID(bytes=id_)} on {key.schedule_id} is in the table alone")
            elif have != want:
                said = ", ".join(f"{n} {have[n]!r} for {want[n]!r}" for n in want if have[n] != want[n])
                self._appointments.wrong(f"{UUID(bytes=id_)} on {key.schedule_id}: the table has {said}")
        self._check_numbers(key, state, rows)
        for wish_id in state.wishes:
            self._queues.setdefault(wish_id, []).append(key.schedule_id)
        self._release.examined += len(replay.by)
        for held in replay.too_early:
            self._release.wrong(
                f"{UUID(bytes=held.appointment_id)} on {key.slot_id(held.clock)} had a seat that was not"
                f" open to {Channel(held.channel).name} then"
            )
        self._conserved.examined += sum(slot.capacity for slot in state.slots.values())
        if error := s.conservation_error(state):
            self._conserved.wrong(f"{key.schedule_id}: {error} seats are in no state or in two")
        self._plans.examined += 1
        self._unfree.examined += 1
        if shown is None:
            self._plans.wrong(f"{key.schedule_id} has events and is not opened")
            return
        plan, unfree = shown
        if plan != orjson.loads(orjson.dumps(plan_as_data(plan_of(state.slots)))):
            self._plans.wrong(f"{key.schedule_id} shows another plan than its events make")
        if unfree != s.unfree(state):
            self._unfree.wrong(f"{key.schedule_id} shows {unfree} as out of use, not {s.unfree(state)}")

    def _check_numbers(self, key: ScheduleKey, state: s.Schedule, rows: list[asyncpg.Record]) -> None:
        given: set[tuple[int, int]] = set()
        for row in rows:
            slot = state.slots.get(row["slot_id"].rpartition("-")[2])
            if row["status"] > s.Status.FULFILLED or slot is None:
                continue
            self._numbers.examined += 1
            number = id(slot.session), row["number"]
            if number in given:
                self._numbers.wrong(
                    f"{key.schedule_id}: number {row['number']} is given twice in one session"
                )
            given.add(number)

    async def _compare_claims(self, owners: set[bytes], claims: _Claims) -> None:
        """Both ways for the appointments at hand; claims of nobody are found by `_without_events`."""
        expected = claims.expected
        self._claims.examined += len(expected)
        found = {
            (row["scope"], row["key"], row["owner"].bytes): _expiry(row["expires_at"])
            for row in await self._connection.fetch(
                "select scope, key, owner, expires_at from claim where owner = any ($1::uuid[])",
                [UUID(bytes=owner) for owner in owners],
            )
        }
        taken = await self._taken([claim for claim in claims.moved if claim not in found])
        for claim in sorted((expected.keys() | found.keys()) - taken):
            missing, extra = claim not in found, claim not in expected
            if extra and claim in claims.allowed:
                continue
            expires_at = expected[claim] if missing else found[claim]
            if expires_at is not None and expires_at <= self._now:
                continue  # it has given way by itself, or may
            name = f"of {UUID(bytes=claim[2])}, scope {Scope(claim[0]).name.lower()}"
            if missing:
                self._claims.wrong(f"{name}: is missing")
            elif extra:
                self._claims.wrong(f"{name}: belongs to no appointment that holds a seat")
            elif expires_at != expected[claim]:
                self._claims.wrong(f"{name}: ends at {_time(expires_at)}, not at {_time(expected[claim])}")

    async def _taken(self, claims: list[tuple[int, bytes, bytes]]) -> set[tuple[int, bytes, bytes]]:
        """Of these, those that somebody else has."""
        rows = await self._connection.fetch(
            "select scope, key from claim where scope = $1 and key = any ($2::bytea[])",
            Scope.PATIENT_TIME,
            [key for _, key, _ in claims],
        )
        there = {(row["scope"], row["key"]) for row in rows}
        return {claim for claim in claims if (claim[0], claim[1]) in there}

    async def _compare_queues(self) -> None:
        """Who waits is on a list, and who is on a list waits; unless somebody is just about to see to it."""
        rows = {
            row["id"].bytes: row
            for row in await self._connection.fetch(
                "select w.id, w.status in ('waiting', 'offered') as is_open,"
                "       exists (select from errand e where e.key = replace(w.id::text, '-', '')"
                "               or e.key like replace(w.id::text, '-', '') || '/%') as is_moving"
                "  from wish w where w.status in ('waiting', 'offered') or w.id = any ($1::uuid[])",
                [UUID(bytes=wish_id) for wish_id in self._queues],
            )
        }
        for wish_id in rows.keys() | self._queues.keys():
            self._waiting.examined += 1
            row, places = rows.get(wish_id), self._queues.get(wish_id, [])
            if row is None:
                self._waiting.wrong(f"{UUID(bytes=wish_id)} is on the list of {places} and nobody's wish")
            elif row["is_open"] != bool(places) and not row["is_moving"]:
                said = "waits on no list" if row["is_open"] else f"has ended and is on the list of {places}"
                self._waiting.wrong(f"{UUID(bytes=wish_id)} {said}")

    async def _without_events(self, known: list[str]) -> None:
        """What belongs to no schedule of the journal, and so was never compared."""
        for row in await self._connection.fetch(
            "select id, schedule_id from appointment where not (schedule_id = any ($1)) order by id", known
        ):
            self._appointments.wrong(f"{row['id']} on {row['schedule_id']} is in the table alone")
        for row in await self._connection.fetch(
            "select id from schedule where opened and not (id = any ($1)) order by id", known
        ):
            self._plans.wrong(f"{row['id']} is opened and has no events")
        for row in await self._connection.fetch(_STRAY_CLAIMS):
            if row["owner"].bytes in self._rowless:
                continue
            self._claims.wrong(f"of {row['owner']}, scope {row['scope']}: belongs to no appointment")


def _row_facts(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "slot": row["slot_id"],
        "seat": row["seat"],
        "capacity": row["capacity"],
        "number": row["number"],
        "patient": row["patient_id"].hex,
        "account": row["account_id"].hex,
        "status": word(row["status"]),
        "reason": row["reason"] or "",
        "fee": row["fee_fen"],
        "start": _ms(row["starts_at"]),
        "hold": _ms(row["hold_until"]),
        "department": row["department_id"],
        "class": row["number_class_id"],
        "channel": row["channel"],
        "visit": row["visit"],
        "replaces": _hex(row["replaces"]),
        "successor": _hex(row["successor"]),
        "wish": _hex(row["wish_id"]),
        "changes": row["changes"],
        "by": row["booked_by"],
        "fate": row["fate"] or "",
        "comes": row["will_come"],
    }


def _state_facts(key: ScheduleKey, replayed: Replayed, id_: bytes) -> dict[str, Any]:
    appointment = replayed.state.appointments[id_]
    slot = replayed.state.slots[appointment.clock]
    return {
        "slot": key.slot_id(appointment.clock),
        "seat": appointment.seat,
        "capacity": replayed.capacity[id_],
        "number": number_of(slot, appointment.seat),
        "patient": appointment.patient_id.hex(),
        "account": appointment.account_id.hex(),
        "status": word(appointment.status),
        "reason": appointment.reason,
        "fee": slot.session.fee_fen,
        "start": slot.starts_at,
        "hold": appointment.hold_until,
        "department": slot.session.department_id,
        "class": slot.session.number_class_id,
        "channel": int(appointment.channel),
        "visit": appointment.visit,
        "replaces": appointment.replaces.hex(),
        "successor": appointment.successor.hex(),
        "wish": appointment.wish_id.hex(),
        "changes": appointment.changes,
        "by": replayed.by[id_],
        "fate": str(appointment.fate),
        "comes": appointment.will_come,
    }


def _hex(id_: asyncpg.pgproto.pgproto.UUID | None) -> str:
    return "" if id_ is None else str(id_.hex)


def word(status: int) -> str:
    return _WORDS.get(status, f"status {status}")


_WORDS: Final = {status.value: status.name.lower() for status in s.Status}


def _expiry(at: datetime | None) -> int | None:
    return None if at is None else _ms(at)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _time(ms: int | None) -> str:
    return "no time" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()
