"""The waiting rooms' part of `xinglin policy dry-run`: recorded days under the rules in force and others.

At every recorded call: whom the rules would have called as things stood then (engine/domain/waiting_room.py
`rehearse`), and at every check-in whether they would have let it. What would have come of it later is not
followed. Calls by hand stay as they were. Nothing is written.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.domain import waiting_room as w
from engine.domain.ids import ROOM_PREFIX, RoomKey
from engine.domain.policy import Policy
from engine.domain.queue_order import Explanation, Rules, Why, early_from
from engine.journal.streams import read_room

EXAMPLES_MAX: Final = 3  # of a day
DAYS_SHOWN_MAX: Final = 60  # with differences; the others are counted

_ROOMS: Final = """
select stream from event
 where stream like $3 || '%' and right(stream, 10) between $1 and $2
 group by stream order by right(stream, 10), stream"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One recorded day under one policy."""

    rehearsed: w.Rehearsal
    too_far: int  # check-ins that were let, and would not have been
    too_early: int


@dataclass(frozen=True, slots=True)
class RoomDay:
    key: RoomKey
    numbers: Mapping[bytes, str]  # ticket -> its number: what tells people apart here
    before: Outcome
    after: Outcome

    @property
    def differs(self) -> bool:
        return self.before != self.after or bool(self.after.rehearsed.differs)


async def compare_rooms(
    connection: asyncpg.Connection, first: date, last: date, before: Policy, after: Policy
) -> list[RoomDay]:
    """Every recorded waiting room from `first` to `last`, both included, one at a time in memory."""
    found = []
    for row in await connection.fetch(_ROOMS, first.isoformat(), last.isoformat(), ROOM_PREFIX):
        key = RoomKey.of_stream(row["stream"])
        found.append(compare_room(key, await read_room(connection, key), before, after))
    return found


def compare_room(key: RoomKey, events: Sequence[w.Event], before: Policy, after: Policy) -> RoomDay:
    issued = [event for event in events if isinstance(event, w.TicketIssued)]
    old, new = (policy.waiting_of(key.department_id).rules for policy in (before, after))
    was = _outcome(events, issued, old)
    return RoomDay(
        key,
        {event.ticket_id: f"{event.prefix}{event.number:03}" for event in issued},
        was,
        was if new == old else _outcome(events, issued, new),
    )


def _outcome(events: Iterable[w.Event], issued: Iterable[w.TicketIssued], rules: Rules) -> Outcome:
    far = early = 0
    for event in issued:
        if event.where == w.Where.MINI_PROGRAM and event.distance_m > rules.distance_m_max:
            far += 1
        elif event.starts_at and event.at < early_from(rules, event.starts_at):
            early += 1
    return Outcome(w.rehearse(events, rules), far, early)


def show_rooms(found: Sequence[RoomDay], zone: ZoneInfo, console: Console) -> None:
    """Days with differences, each with its first few; of the others, how many there are."""
    differ = [day for day in found if day.differs]
    console.print()
    console.print(_table(differ[:DAYS_SHOWN_MAX], zone))
    calls = sum(day.after.rehearsed.calls for day in found)
    told = sum(len(day.after.rehearsed.differs) for day in found)
    more = len(differ) - DAYS_SHOWN_MAX
    console.print(
        f"{len(found)} recorded waiting rooms, {calls} calls by the rules: {told} would go to somebody else;"
        f" {len(found) - len(differ)} days as they were{f', {more} more not shown' if more > 0 else ''}"
    )


_NUMBERS: Final = ("calls", "else in force", "else then", "too far", "too early")


def _table(days: Iterable[RoomDay], zone: ZoneInfo) -> Table:
    table = Table(
        *("day", "department", *_NUMBERS, "such as"),
        title="Whom the waiting rooms would have called, and let check in",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in table.columns:
        if column.header in _NUMBERS:
            column.justify = "right"
    for day in days:
        differs = day.after.rehearsed.differs
        table.add_row(
            day.key.day,
            day.key.department_id,
            str(day.after.rehearsed.calls),
            str(len(day.before.rehearsed.differs)),
            Text(str(len(differs)), "red" if differs else ""),
            _newly(day.after.too_far - day.before.too_far),
            _newly(day.after.too_early - day.before.too_early),
            "\n".join(_example(each, day, zone) for each in differs[:EXAMPLES_MAX]),
        )
    if not table.rows:
        table.add_row("as they were, all of them", *[""] * 7)
    return table


def _newly(count: int) -> Text:
    return Text(f"{count:+}" if count else "0", "red" if count > 0 else "green" if count < 0 else "")


def _example(each: w.Differs, day: RoomDay, zone: ZoneInfo) -> str:
    at = _clock(each.at, zone)
    called = day.numbers[each.called]
    if not each.instead:
        return f"{at} {each.room_id}: nobody rather than {called}"
    reason = "of another queue" if each.why is None else words_of(each.why, zone)
    return f"{at} {each.room_id}: {day.numbers[each.instead]} rather than {called} ({reason})"


_WORDS: Final[Mapping[Why, str]] = {
    Why.CALLED: "is being called or seen",
    Why.EMERGENCY: "an emergency of level {level}",
    Why.EMERGENCY_LEVEL: "an emergency of level {level} before {other}",
    Why.OVERTAKEN: "was overtaken {times} times",
    Why.AT_DOOR: "was sent to the door before",
    Why.MOVED: "was put there by hand: {reason}",
    Why.OTHER_MOVED: "the other was put back by hand: {reason}",
    Why.RESTS: "the other was passed over and rests until {until}",
    Why.LANE_TURN: "the turn of {lane}, after every {every}",
    Why.LANE_WAITS: "{lane} waits until {every} have gone",
    Why.LANES: "the turn of {lane} before that of {other}",
    Why.EARLIER_TIME: "appointed for {at}, before {other}",
    Why.LOWER_NUMBER: "number {number} before {other}",
    Why.CAME_EARLIER: "waits since {at}",
    Why.CAME_BEFORE_TIME: "came at {at}, before the other's time {other}",
    Why.TIME_BEFORE_CAME: "appointed for {at}, before the other came at {other}",
    Why.EARLIER_END: "stands at the end of {at}, the other of {other}",
    Why.OTHER_LATE: "the other was late",
    Why.OTHER_PASSED: "the other was passed over",
    Why.OTHER_RETURNED: "the other is back from an examination",
}
assert _WORDS.keys() == set(Why)


def words_of(why: Explanation, zone: ZoneInfo) -> str:
    return _WORDS[why.why].format_map(dict(_told(why, zone)))


def _told(why: Explanation, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    """Moments as clock times: they are the numbers that no count of people reaches."""
    for name, value in why.detail.items():
        yield name, _clock(value, zone) if isinstance(value, int) and value > _COUNT_MAX else str(value)


_COUNT_MAX: Final = 1 << 32


def _clock(ms: int, zone: ZoneInfo) -> str:
    if ms >= w.FAR:
        return "the day's end"
    return f"{datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone):%H:%M}"
