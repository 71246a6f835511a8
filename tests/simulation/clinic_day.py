"""A department's whole day, simulated: who books, comes, is late, walks in, is called, is not there, is sent
to an examination; consoles that race and repeat themselves, clocks that differ, a doctor who leaves.

    python -m tests.simulation.clinic_day [SEED [DAYS]]

Everything follows from the seed, and a failure prints it. Real: consultation times (`hangu_service_times`, by
first and return visit), when walk-ins come (`queue_params.json`), how many do not come (there too). Assumed,
for no data tells it: how early people come, who is not there when called, who is sent elsewhere.

Checked after every event: a ticket is in one place. At the end: nobody was forgotten, the journal replays to
the same state, from its bytes too, a screen saw every call once, and nobody was overtaken more often than the
rules allow.
"""

import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import msgpack

from engine.domain import queue_order as q
from engine.domain import waiting_room as w
from engine.domain.queue_order import Rules
from engine.domain.refusal import Reason, Refusal
from engine.domain.waiting_room import Status

DATA = Path(__file__).parents[3] / "shared" / "data"
MIDNIGHT = 1_799_942_400_000
DAY = "2027-01-15"
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
CONSOLES = 64


@dataclass(frozen=True, slots=True)
class Real:
    seconds: tuple[tuple[int, ...], tuple[int, ...]]  # consultations: first visits, return visits
    walk_in_minutes: tuple[int, ...]  # after midnight, a quarter of an hour each
    walk_in_shares: tuple[float, ...]
    no_show: float


@cache
def real() -> Real:
    params = json.loads((DATA / "queue_params.json").read_text(encoding="utf-8"))
    shares = params["arrivals"]["share_by_15min_weekday"]
    first: list[int] = []
    again: list[int] = []
    with gzip.open(DATA / "hangu_service_times.csv.gz", "rt", encoding="utf-8-sig") as rows:
        for row in csv.DictReader(rows):
            (first if row["Visit.No"] == "1" else again).append(int(float(row["ServTime"])))
    morning = {clock: share for clock, share in shares.items() if clock < "11:45"}
    return Real(
        (tuple(first), tuple(again)),
        tuple(int(clock[:2]) * 60 + int(clock[3:]) for clock in morning),
        tuple(morning.values()),
        params["no_show_2016"]["overall"],
    )


@dataclass(slots=True)
class Result:
    seed: int
    finished: int = 0
    left: int = 0
    calls: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    waited: dict[str, list[float]] = field(default_factory=dict)  # minutes until first seen, by group
    overtaken_most: int = 0
    events: int = 0

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.finished} seen, {self.left} left, {self.calls} calls, "
            f"{self.events} events, overtaken at most {self.overtaken_most} times"
        ]
        for group, minutes in sorted(self.waited.items()):
            if len(minutes) > 1:
                tenths = quantiles(minutes, n=10)
                lines.append(
                    f"  {group:10} {len(minutes):3}   P50 {tenths[4]:5.1f}   P90 {tenths[8]:5.1f} min"
                )
        lines.append(f"  refused: {dict(self.refused.most_common())}")
        return "\n".join(lines)


class ClinicDay:
    """One morning: two experts with queues of their own, two doctors who share the common one, a pharmacy."""

    common = "common"
    """The queue of the doctors who have none of their own, and of walk-ins."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.chance = Random(seed)
        self.rules = rules
        self.room = w.WaitingRoom()
        self.now = MIDNIGHT + 7 * HOUR
        self.agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.n = 0
        self.journal: list[tuple[type, bytes]] = []
        self.result = Result(seed)
        self.screen: list[w.Call] = []
        self.seen = 0
        self.service: dict[bytes, int] = {}  # ticket -> visit kind
        self.groups: dict[bytes, str] = {}
        self.away: set[bytes] = set()  # who has just gone for a coffee
        self.leaves_at = 0
        self.overtaken: Counter[bytes] = Counter()

    def id(self, kind: str = "") -> bytes:
        self.n += 1
        return f"{kind}{self.n:08}".encode().ljust(16, b"_")

    def at(self, when: int, action: Callable[[], None]) -> None:
        self.n += 1
        heappush(self.agenda, (max(when, self.now), self.n, action))

    def run(self, command: w.Command) -> w.Told | Reason:
        """As a shard would; and now and then the answer is lost on the way, and the command comes again."""
        clock = self.now + self.chance.randint(-2_000, 0)
        outcome = w.decide(self.room, command, clock, self.rules)
        if isinstance(outcome, Refusal):
            self.result.refused[outcome.reason] += 1
            return outcome.reason
        for event in outcome:
            if isinstance(event, w.TicketCalled):
                self.count_overtaken(event)
            w.apply(self.room, event)
            self.journal.append((type(event), packed(event)))
            self.check()
            self.count_anew(event)
        told = w.reply_to(self.room, command)
        if self.chance.random() < 0.05 and not isinstance(command, w.PassTime | w.FillDoors):
            assert w.decide(self.room, command, clock + 100, self.rules) == []
            assert w.reply_to(self.room, command) == told
        if self.chance.random() < 0.3:
            self.look()
        return told

    def count_overtaken(self, event: w.TicketCalled) -> None:
        """By its own count: who was there earlier, for the same room, when the rules called another one."""
        if event.out_of_turn or event.lane in ("emergency", "moved"):
            return
        called, place = self.room.tickets[event.ticket_id], self.room.rooms[event.room_id]
        for other in self.room.tickets.values():
            if (
                other.status in w.IN_LINE
                and other.queue_id in place.queues
                and other.practitioner_id in ("", place.practitioner_id)
                and other.standing.room_id in ("", place.room_id)
                and other.standing.moved is None
                and other.standing.counts_from < called.standing.counts_from
                and other.standing.rests_until <= event.at
            ):
                self.overtaken[other.ticket_id] += 1
                most = self.overtaken[other.ticket_id]
                self.result.overtaken_most = max(self.result.overtaken_most, most)
                kind = self.room.queues[other.queue_id].kind
                assert most <= self.rules.order_of(kind).overtaken_max, "starved"

    def count_anew(self, event: w.Event) -> None:
        match event:
            case w.TicketReturned() | w.StageFinished() | w.TicketPassed():
                self.overtaken[event.ticket_id] = 0
            case w.StepUndone():  # whom the call that is taken back went before was not overtaken
                for ticket_id, ticket in self.room.tickets.items():
                    self.overtaken[ticket_id] = min(self.overtaken[ticket_id], ticket.overtaken)
            case _:
                pass

    def check(self) -> None:
        busy = [room.ticket_id for room in self.room.rooms.values() if room.ticket_id]
        line = [ticket_id for queue in self.room.queues.values() for ticket_id in queue.line]
        assert len(set(busy + line)) == len(busy) + len(line), "in two places"

    def look(self) -> None:
        news = w.calls_since(self.room, self.seen)
        assert not news.whole
        self.screen += news.calls
        self.seen = news.sequence

    # The day.

    def play(self) -> Result:
        self.open()
        self.expect_patients()
        while self.agenda:
            when, _, action = heappop(self.agenda)
            wake = w.next_wake(self.room, self.rules)
            if wake is not None and wake <= when:
                self.now = max(self.now, wake)
                self.at(when, action)
                self.run(w.PassTime())
                continue
            self.now = when
            action()
            while self.rules.door_cap and self.fill_door():
                pass
        self.finish()
        return self.result

    def fill_door(self) -> bool:
        before = len(self.journal)
        self.run(w.FillDoors())
        return len(self.journal) > before

    def open(self) -> None:
        self.run(w.OpenDay(self.id(), "0304", DAY, MIDNIGHT + 13 * HOUR))
        for queue_id, kind, prefix, first, last, who in (
            ("D1", "visit", "A", 101, 199, "D1"),
            ("D2", "visit", "B", 101, 199, "D2"),
            (self.common, "visit", "C", 101, 499, ""),
            ("pharmacy", "pharmacy", "P", 1, 999, ""),
        ):
            self.run(w.SetQueue(self.id(), queue_id, kind, prefix, first, last, who))
        for room_id, queues, who in (
            ("r1", ("D1",), "D1"),
            ("r2", ("D2", self.common), "D2"),  # serves both
            ("r3", (self.common,), "D3"),
            ("r4", (self.common,), "D4"),
            ("window", ("pharmacy",), ""),
        ):
            opens = MIDNIGHT + 8 * HOUR + int(self.chance.expovariate(1 / 120)) * SECOND
            self.at(opens, lambda r=room_id, qs=queues, p=who: self.open_room(r, qs, p))  # type: ignore[misc]
        if self.chance.random() < 0.3:
            self.leaves_at = MIDNIGHT + 10 * HOUR
            self.at(self.leaves_at, lambda: self.doctor_leaves("r4"))

    def open_room(self, room_id: str, queues: tuple[str, ...], who: str) -> None:
        self.run(w.OpenRoom(self.id(), room_id, queues, who))
        self.look_out(room_id)

    def look_out(self, room_id: str) -> None:
        """Every half minute, whether somebody has come."""
        self.work(room_id)
        if self.now < MIDNIGHT + 20 * HOUR and self.anybody_left():
            self.at(self.now + 30 * SECOND, lambda: self.look_out(room_id))

    def expect_patients(self) -> None:
        chance = self.chance
        for who in ("D1", "D2", "D3", "D4"):
            for half_hour in range(8):
                for n in range(3 if who in ("D1", "D2") else 2):
                    if chance.random() < real().no_show:
                        continue
                    starts = MIDNIGHT + 8 * HOUR + half_hour * 30 * MINUTE
                    came = starts + int(chance.gauss(-20, 20)) * MINUTE
                    number = half_hour * 3 + n + 1
                    self.at(came, lambda p=who, s=starts, k=number: self.arrive(p, s, k))  # type: ignore[misc]
        for _ in range(chance.randint(15, 35)):
            minute = chance.choices(real().walk_in_minutes, real().walk_in_shares)[0]
            came = MIDNIGHT + minute * MINUTE + chance.randint(0, 15 * MINUTE)
            self.at(came, self.walk_in)

    def priority(self) -> tuple[str, int]:
        drawn = self.chance.random()
        if drawn < 0.01:
            return "", 1
        return ("soldier" if drawn < 0.03 else "aged" if drawn < 0.15 else ""), 0

    def arrive(self, who: str, starts: int, number: int, tries: int = 0) -> None:
        chance = self.chance
        patient = f"p{who}{(starts - MIDNIGHT) // MINUTE:04}{number:02}".encode().ljust(16, b"_")
        priority, emergency = self.priority()
        visit = int(chance.random() < 0.62)
        distance = 2_000 if chance.random() < 0.05 else chance.randint(0, 300)
        buys_medicine: tuple[w.Stage, ...] = (("pharmacy", "pharmacy", "", 0),)
        stages = buys_medicine if chance.random() < 0.6 else ()
        command = w.CheckIn(
            self.id("in"), patient, chance.choice(["mini_program", "kiosk"]), distance,
            b"a" + patient[:15], patient, "0304", who, DAY, True,
            starts, starts + 30 * MINUTE, MIDNIGHT + 12 * HOUR, number, visit,
            priority=priority, emergency=emergency, stages=stages,
        )  # fmt: skip
        told = self.run(command)
        match told:
            case Reason.TOO_FAR | Reason.CHECK_IN_TOO_EARLY if tries < 20:
                self.at(self.now + 10 * MINUTE, lambda: self.arrive(who, starts, number, tries + 1))
            case w.Told():
                late = self.now > starts + self.rules.order.late_minutes * MINUTE
                self.came(told, visit, "late" if late else priority or "booked")
            case _:
                assert told in (Reason.CHECK_IN_TOO_LATE, Reason.TOO_FAR, Reason.CHECK_IN_TOO_EARLY), told

    def walk_in(self) -> None:
        priority, emergency = self.priority()
        patient = self.id("walker")
        told = self.run(
            w.TakeNumber(
                self.id("in"),
                patient,
                "kiosk",
                self.common,
                session_ends_at=MIDNIGHT + 12 * HOUR,
                priority=priority,
                emergency=emergency,
            )
        )
        assert isinstance(told, w.Told)
        self.came(told, 0, priority or "walk-in")
        again = self.run(w.TakeNumber(self.id("in"), patient, "kiosk", self.common))
        assert again is Reason.PATIENT_WAITS_ALREADY

    def came(self, told: w.Told, visit: int, group: str) -> None:
        ticket_id = told.ticket_id
        self.service[ticket_id], self.groups[ticket_id] = visit, group
        drawn = self.chance.random()
        if drawn < 0.08:
            self.away.add(ticket_id)
            self.at(self.now + 25 * MINUTE, lambda: self.away.discard(ticket_id))
        elif drawn < 0.10:
            self.at(self.now + 40 * MINUTE, lambda: self.goes_home(ticket_id))
        elif drawn < 0.12:
            self.at(self.now + 5 * MINUTE, lambda: self.faints(ticket_id))

    def goes_home(self, ticket_id: bytes) -> None:
        self.run(w.LeaveTicket(self.id(), ticket_id, "patient", "went home"))

    def faints(self, ticket_id: bytes) -> None:
        self.run(w.MoveTicket(self.id(), ticket_id, 1, "nurse", "faint"))

    def doctor_leaves(self, room_id: str) -> None:
        before = {t for t, x in self.room.tickets.items() if x.status not in w.OVER}
        told = self.run(w.CloseRoom(self.id(), room_id, "D4", "called to the ward"))
        if told is Reason.ROOM_BUSY:
            self.at(self.now + MINUTE, lambda: self.doctor_leaves(room_id))
            return
        assert isinstance(told, w.Told)
        assert before == {t for t, x in self.room.tickets.items() if x.status not in w.OVER}

    # A room.

    def work(self, room_id: str) -> None:
        """Calls the next one; several consoles at once, as if pressed by everybody."""
        place = self.room.rooms[room_id]
        if place.status != w.OPEN or place.ticket_id:
            return
        racing = CONSOLES if self.chance.random() < 0.01 else self.chance.choice([1, 1, 2])
        version = place.version
        called = [self.run(w.CallNext(self.id("call"), room_id, room_id, version)) for _ in range(racing)]
        won = [told for told in called if isinstance(told, w.Told)]
        assert len(won) <= 1
        if won:
            self.called(room_id, won[0].ticket_id)

    def anybody_left(self) -> bool:
        return (
            any(t.status not in w.OVER for t in self.room.tickets.values()) or self.now < MIDNIGHT + 12 * HOUR
        )

    def called(self, room_id: str, ticket_id: bytes) -> None:
        if ticket_id not in self.away:
            self.at(self.now + 20 * SECOND, lambda: self.comes_in(room_id, ticket_id))
        elif self.room.tickets[ticket_id].standing.calls < self.rules.calls_max:
            self.at(self.now + 30 * SECOND, lambda: self.recall(room_id, ticket_id))
        else:
            gone = self.now + self.chance.choice([5, 120]) * SECOND
            self.at(gone, lambda: self.not_there(room_id, ticket_id))

    def is_called(self, room_id: str, ticket_id: bytes) -> bool:
        ticket = self.room.tickets[ticket_id]
        return ticket.status is Status.CALLED and ticket.standing.room_id == room_id

    def recall(self, room_id: str, ticket_id: bytes) -> None:
        if self.is_called(room_id, ticket_id):
            told = self.run(w.Recall(self.id(), ticket_id, room_id))
            assert isinstance(told, w.Told) or told in (Reason.TOO_SOON, Reason.CALLS_MAX), told
            self.called(room_id, ticket_id)

    def not_there(self, room_id: str, ticket_id: bytes) -> None:
        if self.is_called(room_id, ticket_id):
            self.run(w.PassTicket(self.id(), ticket_id, room_id))
        self.at(self.now + 15 * MINUTE, lambda: self.reports(ticket_id))
        self.work(room_id)

    def reports(self, ticket_id: bytes) -> None:
        self.away.discard(ticket_id)
        if self.room.tickets[ticket_id].status is Status.PASSED:
            assert isinstance(self.run(w.ReturnTicket(self.id(), ticket_id, "desk")), w.Told)

    def comes_in(self, room_id: str, ticket_id: bytes) -> None:
        if not self.is_called(room_id, ticket_id):
            return
        chance = self.chance
        if chance.random() < 0.02:  # the wrong button, and back
            version = self.room.tickets[ticket_id].version
            undone = self.run(w.UndoStep(self.id(), ticket_id, version, room_id, "wrong button"))
            assert isinstance(undone, w.Told)
            self.work(room_id)
            return
        self.run(w.StartService(self.id(), ticket_id, room_id))
        ticket = self.room.tickets[ticket_id]
        kind = ticket.standing.stages[0][0]
        if kind == "visit" and not ticket.standing.done:
            minutes = (self.now - ticket.standing.counts_from) / MINUTE
            self.result.waited.setdefault(self.groups[ticket_id], []).append(minutes)
        seconds = 90 if kind == "pharmacy" else chance.choice(real().seconds[self.service[ticket_id]])
        if ticket.standing.returned:
            seconds //= 3
        self.at(self.now + seconds * SECOND, lambda: self.seen_by(room_id, ticket_id))

    def seen_by(self, room_id: str, ticket_id: bytes) -> None:
        ticket, chance = self.room.tickets[ticket_id], self.chance
        kind, queue_id, _, back = ticket.standing.stages[0]
        stages: tuple[w.Stage, ...] | None = None
        if kind == "visit" and not back and chance.random() < 0.15:
            stages = (("examination", "", "", 0), ("visit", queue_id, "", 1), *ticket.standing.stages[1:])
            if self.leaves_at and ticket.queue_id == self.common:
                stages = (stages[0], ("visit", queue_id, "D3", 1), *stages[2:])
            away = int(chance.lognormvariate(3.2, 0.5)) * MINUTE
            self.at(self.now + away, lambda: self.run(w.ReturnTicket(self.id(), ticket_id, "kiosk")))  # type: ignore[arg-type]
        told = self.run(w.FinishTicket(self.id(), ticket_id, room_id, stages))
        assert isinstance(told, w.Told), told
        self.work(room_id)

    # The end.

    def finish(self) -> None:
        room, result = self.room, self.result
        lost = {t.label: t.status.name for t in room.tickets.values() if t.status not in w.OVER}
        assert not lost, f"forgotten: {lost}"
        assert room.tickets.keys() == self.service.keys()
        assert len({(t.prefix, t.number) for t in room.tickets.values()}) == len(room.tickets)
        events = [unpacked(kind, data) for kind, data in self.journal]
        assert w.replay(events) == room, "the journal tells another day"
        assert not w.rehearse(events, self.rules).differs, "its own rules would have called others"
        self.look()
        assert [call.sequence for call in self.screen] == list(range(1, room.call_sequence + 1))
        result.finished = sum(t.status is Status.FINISHED for t in room.tickets.values())
        result.left = sum(t.status is Status.LEFT for t in room.tickets.values())
        result.calls, result.events = room.call_sequence, len(events)


def packed(event: w.Event) -> bytes:
    told: bytes = msgpack.packb(tuple(getattr(event, f.name) for f in fields(event)))
    return told


def unpacked(kind: type, data: bytes) -> w.Event:
    told: tuple[Any, ...] = msgpack.unpackb(data, use_list=False)
    event: w.Event = kind(*told)
    return event


def rules_of(seed: int) -> Rules:
    """Other rules with every seed, so that all of them meet all sorts of days."""
    chance = Random(f"rules {seed}")
    order = q.OrderRules(
        by=chance.choice(list(q.Basis)),
        early=chance.choice(list(q.EarlyRule)),
        late=chance.choice(list(q.LateRule)),
        passed=chance.choice(list(q.PassedRule)),
        passed_rest_seconds=chance.choice([0, 300]),
        returned=chance.choice(list(q.ReturnRule)),
        mix=chance.choice(list(q.Mix)),
        overtaken_max=chance.choice([3, 8, 12]),
    )
    return replace(
        Rules(order=order),
        across=chance.choice(list(q.Across)),
        door_cap=chance.choice([0, 0, 2]),
        passed_must_report=chance.random() < 0.7,
        early_minutes=chance.choice([None, 60, 30]),
    )


def play(seed: int, rules: Rules | None = None) -> Result:
    """A day of this seed. Whatever goes wrong, the seed is told."""
    try:
        return ClinicDay(seed, rules or rules_of(seed)).play()
    except BaseException:
        print(f"clinic day failed: python -m tests.simulation.clinic_day {seed}", file=sys.stderr)
        raise


if __name__ == "__main__":
    start = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for each in range(start, start + (int(sys.argv[2]) if len(sys.argv) > 2 else 1)):
        print(play(each))
