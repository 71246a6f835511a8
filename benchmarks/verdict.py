"""What became of every life, asked of SQL and of the journal: not of what the load believes.

All of it is judged when the load is over and what was left half done has been settled (`settled`).
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from benchmarks.lives import Change, End, Group, Life, World
from engine.domain import schedule as s
from engine.journal.codec import EVENT_CODES, unpack_event
from web.audit_replay import Check

SETTLE_SECONDS_MAX: Final = 100.0  # a change that nobody drives on waits out its hold, a minute
TIMER_SECONDS_MIN: Final = 50.0  # a hold for a change lasts 60
STOOD_STILL_SECONDS: Final = 0.5  # between two steps of a change that was not disturbed: milliseconds

_UNSETTLED: Final = """
select (select count(*) from appointment a
         where a.status = 1 and a.replaces is not null and not exists
               (select from appointment o
                 where o.id = a.replaces and o.fate = 'offered' and o.successor = a.id))
     + (select count(*) from appointment where status = 2 and fate = 'affected')
     + (select count(*) from errand where kind in ('rehome', 'change_ended'))"""

_ALIVE: Final = """
select patient_id, count(*) filter (where status = 2 or (status = 1 and replaces is null)) as alive,
       bool_or(fate in ('refunded', 'waitlisted')) as is_owed, array_agg(id) as ids
  from appointment where patient_id = any ($1) group by patient_id"""


async def settled(connection: asyncpg.Connection, seconds: float = SETTLE_SECONDS_MAX) -> int:
    """Waits until nothing is left half done; what is left when the time is over."""
    ends = asyncio.get_running_loop().time() + seconds
    while (left := await connection.fetchval(_UNSETTLED)) and asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(0.2)
    return int(left)


@dataclass(slots=True)
class Stood:
    """How changes between two actors were disturbed: where they stood still, and who moved them on."""

    after_held: int = 0
    """Both numbers were the patient's: the new one held, the old one not yet left."""
    after_left: int = 0
    """The old number was left, the new one not yet booked."""
    by_timer: int = 0
    """Nobody asked again; the actor of the new number found out and settled it."""


async def judge(connection: asyncpg.Connection, world: World) -> list[Check]:
    return [
        await _one_each(connection, world.lives),
        await _changes(connection, world.changes),
        await _groups(connection, world.groups),
        *await called_off(connection),
        await _wishes(connection, world.wishes),
    ]


async def _one_each(connection: asyncpg.Connection, lives: Iterable[Life]) -> Check:
    """Never two numbers where there must be one, never none."""
    check = Check("one number each")
    ends = {UUID(patient): life for life in lives for patient in life.patients}
    rows = {row["patient_id"]: row for row in await connection.fetch(_ALIVE, list(ends))}
    for patient, life in ends.items():
        check.examined += 1
        row = rows.get(patient)
        alive = 0 if row is None else row["alive"]
        wanted = {End.ONE: {1}, End.NONE: {0}, End.EITHER: {0, 1}}[life.end]
        if alive not in wanted:
            check.wrong(f"{life.kind}: patient {patient} has {alive} numbers, must have {life.end.value}")
    return check


@dataclass(slots=True)
class Steps:
    """When a change took each of its steps, in seconds; None: it never did. From the journal."""

    held: float | None = None
    left: float | None = None  # the old number
    booked: float | None = None
    given_up: float | None = None

    @property
    def stood_after_held(self) -> bool:
        return _apart(self.held, self.left)

    @property
    def stood_after_left(self) -> bool:
        return _apart(self.left, self.booked)


def _apart(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and other - one > STOOD_STILL_SECONDS


async def steps_of(connection: asyncpg.Connection, changes: Iterable[Change]) -> dict[bytes, Steps]:
    """new number -> its steps."""
    steps = {change.new.bytes: Steps() for change in changes}
    came_after: dict[bytes, bytes] = {}  # old -> new, for as long as it is left
    kinds = (s.SeatHeld, s.SeatReleased, s.SeatBooked, s.SeatRestored)
    async with connection.transaction():
        async for at, code, data in connection.cursor(
            "select extract(epoch from at)::float8, type, data from event where type = any ($1)"
            " order by shard, seq",
            [EVENT_CODES[kind] for kind in kinds],
        ):
            match unpack_event(code, data):
                case s.SeatHeld(appointment_id=id_) if id_ in steps:
                    steps[id_].held = at
                case s.SeatBooked(appointment_id=id_) if id_ in steps:
                    steps[id_].booked = at
                case s.SeatReleased(appointment_id=id_, reason="changed", successor=new) if new in steps:
                    steps[new].left = at
                    came_after[id_] = new
                case s.SeatReleased(appointment_id=id_) if id_ in steps and steps[id_].booked is None:
                    steps[id_].given_up = at
                case s.SeatRestored(appointment_id=id_):
                    if id_ in came_after:
                        steps[came_after.pop(id_)].left = None
                    if id_ in steps:
                        steps[id_].given_up = None
    return steps


async def _changes(connection: asyncpg.Connection, changes: Sequence[Change]) -> Check:
    """The old number was left if and only if the new one was booked; and that is what was answered."""
    check = Check("changes: old or new")
    steps = await steps_of(connection, changes)
    for change in changes:
        check.examined += 1
        took, said = steps[change.new.bytes], change.said
        what = f"{change.reach} change {change.old} -> {change.new} (answered {said.status} {said.code})"
        if (took.left is None) != (took.booked is None):
            check.wrong(f"{what}: not both or neither, {took}")
        elif said.is_known and (took.booked is None) == (said.status == 200):
            check.wrong(f"{what}: not as answered, {took}")
        elif took.held is not None and took.booked is None and took.given_up is None:
            check.wrong(f"{what}: half done, {took}")
    return check


async def _groups(connection: asyncpg.Connection, groups: Sequence[Group]) -> Check:
    check = Check("groups: all or none")
    members = [id_ for group in groups for id_ in group.members]
    rows = await connection.fetch(
        "select id from appointment where id = any ($1) and status in (1, 2)", members
    )
    alive = {UUID(bytes=row["id"].bytes) for row in rows}
    for group in groups:
        check.examined += 1
        have = sum(id_ in alive for id_ in group.members)
        said = group.said
        if have not in (0, len(group.members)):
            check.wrong(f"{have} of {len(group.members)} numbers of {group.members[0]}")
        elif said.is_known and bool(have) != (said.status == 201):
            check.wrong(f"answered {said.status} {said.code}, has {have} numbers: {group.members[0]}")
    return check


_FATES: Final = """
select a.id, a.schedule_id, a.status, a.reason, a.fate, a.successor,
       n.status as then_status, n.replaces as then_replaces, w.id as wish
  from appointment a left join appointment n on n.id = a.successor left join wish w on w.id = a.successor
 where a.fate is not null"""

_NO_FATE: Final = """
select a.id, a.schedule_id, a.status from appointment a join schedule s on s.id = a.schedule_id
 where a.status = 2 and a.fate is null and s.opened
   and exists (select from jsonb_array_elements(s.plan) session
                where session ->> 7 = 'suspended'
                  and exists (select from jsonb_array_elements(session -> 5) slot
                               where slot ->> 0 = right(a.slot_id, 4)))"""


async def called_off(connection: asyncpg.Connection) -> list[Check]:
    """Everybody who was booked when a session was called off has exactly one fate, and it is true."""
    check = Check("called off: one fate each")
    for row in await connection.fetch(_FATES):
        check.examined += 1
        ended = row["status"] == s.Status.CANCELLED
        match row["fate"]:
            case "moved":
                true = ended and row["reason"] == "changed" and row["then_replaces"] == row["id"]
            case "offered":
                true = row["status"] == s.Status.BOOKED and row["then_status"] == s.Status.PENDING
            case "waitlisted":
                true = ended and row["wish"] is not None
            case "refunded":
                true = ended
            case _:
                true = False
        if not true:
            check.wrong(f"{row['id']}: {dict(row)}")
    forgotten = Check("called off: nobody forgotten")
    forgotten.examined = check.examined
    for row in await connection.fetch(_NO_FATE):
        forgotten.wrong(f"{row['id']} is booked on {row['schedule_id']}, which was called off")
    return [check, forgotten]


async def _wishes(connection: asyncpg.Connection, wishes: Sequence[tuple[UUID, object]]) -> Check:
    """A wish that was acknowledged is there, and has one offer at a time at most."""
    check = Check("wishes: kept, one offer each")
    ids = [id_ for id_, _ in wishes]
    found = await connection.fetch("select id from wish where id = any ($1)", ids)
    kept = {UUID(bytes=row["id"].bytes) for row in found}
    offers = Counter(
        UUID(bytes=row["wish_id"].bytes)
        for row in await connection.fetch(
            "select wish_id from appointment where wish_id = any ($1) and status <= 4", ids
        )
    )
    for id_, said in wishes:
        check.examined += 1
        if getattr(said, "status", 0) == 201 and id_ not in kept:
            check.wrong(f"wish {id_} was acknowledged and is not there")
        if offers[id_] > 1:
            check.wrong(f"wish {id_} has {offers[id_]} numbers")
    return check


async def fates(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch(
        "select fate, count(*) as n from appointment where fate is not null group by fate order by fate"
    )
    return {row["fate"]: row["n"] for row in rows}


async def stood(connection: asyncpg.Connection, changes: Sequence[Change]) -> Stood:
    """Where the changes between two actors were disturbed."""
    found = Stood()
    steps = await steps_of(connection, changes)
    for change in changes:
        took = steps[change.new.bytes]
        if change.reach == "home":
            continue
        found.after_held += took.stood_after_held
        found.after_left += took.stood_after_left
        if not change.said.is_known and took.held is not None:
            ended = took.booked or took.given_up
            found.by_timer += ended is not None and ended - took.held > TIMER_SECONDS_MIN
    return found
