"""`xinglin policy dry-run`: recorded days, read in one snapshot, under the policy in force and under another.

engine/domain/rehearsal.py says what is rehearsed and what cannot be. Nothing is written.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import Session, Share
from engine.domain.policy import EVERYBODY, Channel, Policy
from engine.domain.rehearsal import Outcome, Recorded, Refused, rehearse
from engine.domain.release import ALWAYS, release
from engine.journal.codec import unpack_event
from engine.records.catalog import NOT_IMPORTED, load_schedules

EXAMPLES_MAX: Final = 3

_EVENTS: Final = """
select stream, type, at, data from event
 where stream like 'schedule/%' and right(stream, 10) between $1 and $2
 order by stream, version"""

_NO_SHOWS: Final = """
select id, schedule_id, starts_at from appointment
 where status = 6 and schedule_id = any ($1) order by starts_at, id"""


@dataclass(frozen=True, slots=True)
class Days:
    """What is recorded of the days from `first` to `last`, both included."""

    zone: ZoneInfo
    events: tuple[Recorded, ...]  # in the order in which they happened
    sessions: tuple[tuple[date, Session], ...]  # as published, opened or not


@dataclass(frozen=True, slots=True)
class Comparison:
    days: Days
    before: Outcome
    after: Outcome
    shares_before: Counter[tuple[str, ...]]
    shares_after: Counter[tuple[str, ...]]


async def read_days(connection: asyncpg.Connection, first: date, last: date) -> Days:
    timezone = await connection.fetchval("select timezone from hospital")
    streams: dict[str, list[Recorded]] = {}
    for row in await connection.fetch(_EVENTS, first.isoformat(), last.isoformat()):
        known = streams.setdefault(row["stream"], [])
        # Clocks of processes differ; what came after something never happened before it.
        at = max(_ms(row["at"]), known[-1].at if known else 0)
        key = ScheduleKey.of_stream(row["stream"])
        known.append(Recorded(at, key, cast(s.Event, unpack_event(row["type"], row["data"]))))
    events = [each for known in streams.values() for each in known]
    told = {each.event.appointment_id for each in events if isinstance(each.event, s.AttendanceRecorded)}
    keys = {each.key.schedule_id: each.key for each in events}
    for row in await connection.fetch(_NO_SHOWS, list(keys)):
        if row["id"].bytes not in told:
            missed = s.AttendanceRecorded(row["id"].bytes, int(s.Status.NOSHOW), "")
            events.append(Recorded(_ms(row["starts_at"]), keys[row["schedule_id"]], missed))
    events.sort(key=lambda each: each.at)  # stable: a day's own order stays
    published = await load_schedules(connection, first, last)
    return Days(
        ZoneInfo(timezone or NOT_IMPORTED.timezone),
        tuple(events),
        tuple((row.day, session) for row in published for session in row.plan),
    )


def compare(days: Days, before: Policy, after: Policy) -> Comparison:
    return Comparison(
        days,
        rehearse(days.events, before, days.zone),
        rehearse(days.events, after, days.zone),
        _shares(days, before),
        _shares(days, after),
    )


def _shares(days: Days, policy: Policy) -> Counter[tuple[str, ...]]:
    """Seats by (department, class, pool, who may have them from when)."""
    found: Counter[tuple[str, ...]] = Counter()
    for day, session in days.sessions:
        terms = policy.terms_of(session.department_id, session.number_class_id)
        released = release(session, terms, day, days.zone)
        if not released.shares:
            continue  # as all the others: everybody's at once
        seats: Counter[int] = Counter()
        for slot in released.slots:
            for run, count in slot.runs:
                seats[run] += count
        for number, share in enumerate(released.shares):
            key = session.department_id, session.number_class_id, share.pool, _when(share, day, days.zone)
            found[key] += seats[number]
    return found


def _when(share: Share, day: date, zone: ZoneInfo) -> str:
    told = []
    for stage in share.stages:
        at = datetime.fromtimestamp(stage.at / 1000, UTC).astimezone(zone)
        days = (day - at.date()).days
        moment = "when published" if stage.at == ALWAYS else f"{days}d before at {at:%H:%M}"
        told.append(f"{moment}: {channel_words(stage.channels)}")
    return "; ".join(told)


def channel_words(channels: int) -> str:
    if channels == EVERYBODY:
        return "everybody"
    return ", ".join((c.name or "").lower() for c in Channel if c & channels)


_WHAT: Final = {"book": "bookings", "confirm": "confirmations", "cancel": "cancels", "change": "changes"}


def show(found: Comparison, console: Console) -> None:
    """What would differ; what both policies say alike is only counted."""
    days = len({each.key for each in found.days.events})
    console.print(f"{days} recorded schedules, {len(found.days.events)} events")
    for table in (_refusals(found), _blocks(found), _releases(found)):
        console.print()
        console.print(table)


def _table(title: str, words: Sequence[str], *numbers: str) -> Table:
    table = Table(*words, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        if column.header in numbers:
            column.justify = "right"
    return table


def _refusals(found: Comparison) -> Table:
    words = ("refused", "rule", "asked", "in force", "then", "newly refused", "no longer", "such as")
    table = _table("What would be refused", words, *words[2:7])
    before, after = _by_rule(found.before.refused), _by_rule(found.after.refused)
    for what, rule in sorted(before.keys() | after.keys()):
        old, new = before[what, rule], after[what, rule]
        gained = [each for id_, each in new.items() if id_ not in old]
        lost = [each for id_, each in old.items() if id_ not in new]
        table.add_row(
            _WHAT[what],
            rule,
            str(found.after.asked[what]),
            str(len(old)),
            str(len(new)),
            Text(str(len(gained)), "red" if gained else ""),
            Text(str(len(lost)), "green" if lost else ""),
            ", ".join(_example(each, found.days.zone) for each in (gained or lost)[:EXAMPLES_MAX]),
        )
    if not table.rows:
        table.add_row("nothing, under either policy", *[""] * 7)
    return table


def _by_rule(refused: Iterable[Refused]) -> dict[tuple[str, str], dict[bytes, Refused]]:
    found: dict[tuple[str, str], dict[bytes, Refused]] = defaultdict(dict)
    for each in refused:
        found[each.what, each.rule][each.appointment_id] = each
    return found


def _example(each: Refused, zone: ZoneInfo) -> str:
    at = datetime.fromtimestamp(each.at / 1000, UTC).astimezone(zone)
    return f"{UUID(bytes=each.appointment_id)} on {each.slot_id}, asked {at:%m-%d %H:%M}"


def _blocks(found: Comparison) -> Table:
    words = ("rule", "subject", "blocks in force", "blocks then", "subjects in force", "subjects then")
    table = _table("Blocks that conduct rules would have made", words, *words[2:])
    counts: dict[tuple[str, str], list[list[bytes]]] = defaultdict(lambda: [[], []])
    for n, outcome in enumerate((found.before, found.after)):
        for each in outcome.blocked:
            counts[each.verdict.rule.name, each.subject.value][n].append(each.id)
    for (rule, subject), (old, new) in sorted(counts.items()):
        table.add_row(rule, subject, str(len(old)), str(len(new)), str(len(set(old))), str(len(set(new))))
    if not counts:
        table.add_row("none, under either policy", *[""] * 5)
    return table


def _releases(found: Comparison) -> Table:
    words = ("department", "class", "pool", "seats in force", "seats then", "who may have them, from when on")
    table = _table("Seats that are not simply everybody's", words, *words[3:5])
    for key in sorted(found.shares_before.keys() | found.shares_after.keys()):
        department_id, class_id, pool, when = key
        table.add_row(
            department_id,
            class_id,
            pool or "(rest)",
            str(found.shares_before[key]),
            str(found.shares_after[key]),
            when,
        )
    if not table.rows:
        table.add_row("none, under either policy", *[""] * 5)
    return table


def _ms(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
