"""What screens are told, from random days: each call once, whatever was cut where; and who would be next."""

import random
from collections.abc import Iterator
from datetime import date
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.domain.waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.limits import CALLS_KEPT
from engine.domain.planning import PlannedSlot, Session
from engine.domain.queue_order import Across, OrderRules, Rules
from engine.domain.refusal import Refusal
from engine.domain.waiting_terms import ScreenTerms
from engine.records.catalog import NOT_IMPORTED, Catalog, Practitioner, Room, schedule_row
from engine.views.availability import Availability
from web.queues.call_log import CallLog
from web.queues.screen_bodies import NEXT_MAX, Drawing, is_of_day, sequence_of, upcoming
from web.queues.topic_state import difference

DAY = "2026-11-24"
START = schedule_row("D1", date(2026, 11, 24), False, ()).midnight_utc
MINUTE = 60_000
ROOMS = {"r1": ("own", "common"), "r2": ("common",), "r3": ("common", "triage")}
RULES = (
    Rules(recall_gap_seconds=0, call_gap_seconds=0),
    Rules(recall_gap_seconds=0, call_gap_seconds=0, door_cap=2),
    Rules(OrderRules(overtaken_max=2, passed_rest_seconds=120), across=Across.LISTED, call_gap_seconds=0),
)
TERMS = ScreenTerms()


def day(seed: int, steps: int = 120) -> Iterator[tuple[w.WaitingRoom, Rules, int]]:
    """The room after each thing that happened in it."""
    chance = random.Random(seed)
    rules, room, now = chance.choice(RULES), w.WaitingRoom(), START
    ids = iter(range(1, 100_000))

    def do(command: w.Command) -> bool:
        found = w.decide(room, command, now, rules)
        if isinstance(found, Refusal):
            return False
        for event in found:
            w.apply(room, event)
        return bool(found)

    def new() -> bytes:
        return next(ids).to_bytes(16, "big")

    do(w.OpenDay(new(), "0304", DAY, START + 600 * MINUTE))
    for queue_id, kind, who in (("common", "visit", ""), ("own", "visit", "D1"), ("triage", "triage", "")):
        do(w.SetQueue(new(), queue_id, kind, queue_id[0].upper(), 1, 900, who))
    for room_id, queues in ROOMS.items():
        do(w.OpenRoom(new(), room_id, queues, "D1" if room_id == "r1" else ""))
    for _ in range(steps):
        now += chance.randrange(3 * MINUTE)
        at = chance.choice(list(ROOMS))
        inside = room.rooms[at].ticket_id
        version = room.tickets[inside].version if inside else 0
        kinds: list[w.Command] = [
            w.TakeNumber(new(), new(), "desk", chance.choice(("common", "own", "triage"))),
            w.CallNext(new(), at, "nurse"),
        ]
        if inside:
            kinds += [
                w.StartService(new(), inside, "nurse"),
                w.FinishTicket(new(), inside, "nurse"),
                w.PassTicket(new(), inside, "nurse"),
                w.Recall(new(), inside, "nurse"),
                w.UndoStep(new(), inside, version, "nurse", "mistake"),
            ]
        do(chance.choice(kinds))
        while do(w.FillDoors()):
            pass
        yield room, rules, now


def body(room: w.WaitingRoom, call: w.Call) -> bytes:
    return orjson.dumps([call.sequence, call.kind, call.label, call.room_id])


def as_told(calls: tuple[w.Call, ...], room_id: str | None) -> list[bytes]:
    return [body(w.WaitingRoom(), call) for call in calls if room_id in (None, call.room_id)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), room_id=st.sampled_from((None, "r1")), data=st.data())
def test_wherever_it_is_cut_each_call_is_told_once_and_in_order(
    seed: int, room_id: str | None, data: st.DataObject
) -> None:
    cuts = random.Random(data.draw(st.integers(0, 1 << 32)))
    log, cursor, told = CallLog(DAY), 0, list[bytes]()
    room = w.WaitingRoom()
    for room, _, _ in day(seed):
        if cuts.random() < 0.1:
            log = CallLog(DAY)  # another gateway
        if cuts.random() < 0.5:
            log.take(room, TERMS, body)
        if cuts.random() < 0.3:
            found = log.since(cursor, room_id)
            if found is not None:  # else this gateway knows less than the screen does
                told += [call.body for call in found]
                cursor = log.last
    log.take(room, TERMS, body)
    found = log.since(cursor, room_id)
    assert found is not None
    told += [call.body for call in found]
    assert told == as_told(w.calls_since(room, 0).calls, room_id)
    assert log.version == sequence_of(DAY, room.call_sequence)


def test_who_is_too_far_behind_is_told_nothing_by_halves() -> None:
    room, log = w.WaitingRoom(), CallLog(DAY)
    for n in range(1, 2 * CALLS_KEPT + 1):
        room.call_sequence = n
        room.calls.append(w.Call(n, "called", b"", b"", f"A{n}", "r1", "common", START))
        del room.calls[:-CALLS_KEPT]
        if n == CALLS_KEPT // 2:
            log.take(room, TERMS, body)
    log.take(room, TERMS, body)  # what lay between was never seen here
    first = CALLS_KEPT + 1
    assert log.since(first - 2, None) is None
    assert [call.sequence for call in log.since(first - 1, None) or ()] == list(
        range(first, 2 * CALLS_KEPT + 1)
    )
    assert log.since(2 * CALLS_KEPT, None) == []
    assert log.since(2 * CALLS_KEPT + 1, None) is None
    assert log.latest(None, 2) == [body(room, call) for call in room.calls[-2:]]
    assert log.latest("r2", 2) == []


def test_under_other_terms_all_is_told_in_other_words() -> None:
    *_, (room, _, _) = day(5)
    log = CallLog(DAY)
    log.take(room, TERMS, lambda room, call: b"Wang")
    assert not log.take(room, TERMS, lambda room, call: b"never")
    log.take(room, ScreenTerms(repeats=3), lambda room, call: b"W*")
    assert {call.body for call in log.since(0, None) or ()} == {b"W*"}
    assert len(log.since(0, None) or ()) == room.call_sequence > 10


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_the_first_of_who_is_shown_as_next_is_who_is_called_next(seed: int) -> None:
    for room, rules, now in day(seed, 60):
        lines = {queue_id: w.line(room, queue_id, rules, now) for queue_id in room.queues}
        for place in room.rooms.values():
            shown = [ticket.ticket_id for ticket in upcoming(room, place, lines, rules)]
            next_ = w.next_for(room, place, rules, now)
            assert shown[:1] == ([] if next_ is None else [next_.ticket_id])
            waiting = {
                rank.ticket_id
                for queue_id in place.queues
                for rank in lines[queue_id]
                if rank.band.name != "RESTS"
                and room.tickets[rank.ticket_id].practitioner_id in ("", place.practitioner_id)
                and (
                    room.tickets[rank.ticket_id].status is w.Status.WAITING
                    or room.tickets[rank.ticket_id].standing.room_id == place.room_id
                )
            }
            assert set(shown) <= waiting and len(set(shown)) == len(shown)
            assert len(shown) == min(NEXT_MAX, len(waiting))


def test_sequences_grow_over_days_and_say_theirs() -> None:
    assert sequence_of(DAY, 17) == 2026112400017
    assert sequence_of(DAY, 99_999) < sequence_of("2026-11-25", 0)
    assert is_of_day(sequence_of(DAY, 17), DAY) and not is_of_day(sequence_of("2026-11-25", 17), DAY)
    assert not is_of_day(17, DAY)


@pytest.mark.parametrize(
    ("called_at", "number_class", "text"),
    [
        (8 * 60, "expert", "专家 A001 到 一诊室"),
        (14 * 60, "", "请 A001 王*明 到 一诊室 就诊"),  # the afternoon's class has no words of its own
        (6 * 60, "expert", "专家 A001 到 一诊室"),  # before the first session
    ],
)
def test_a_call_is_said_in_the_words_of_its_class(called_at: int, number_class: str, text: str) -> None:
    slots = [(PlannedSlot(f"{h:02}00", START + h * 60 * MINUTE, 3),) for h in (8, 14)]
    sessions = tuple(
        Session(period, "0304", class_, None, 5000, slot)
        for period, class_, slot in zip(("morning", "afternoon"), ("expert", "plain"), slots, strict=True)
    )
    row = schedule_row("D1", date(2026, 11, 24), False, sessions)
    catalog = Catalog(
        1,
        NOT_IMPORTED,
        {},
        {"D1": Practitioner("D1", "Dr", "chief", "0304", "", "", 0)},
        {"r1": Room("r1", "一诊室", "0304")},
        {},
    )
    terms = ScreenTerms(texts={"expert": ("专家 {number} 到 {room}", "Expert {number} to {room}")})
    patient = b"p" * 16
    key = RoomKey("0304", DAY)
    drawing = Drawing(key, Availability(catalog, [row]), terms, ZoneInfo("UTC"), {patient: "王小明"})
    room = w.WaitingRoom(rooms={"r1": w.Room("r1", w.OPEN, "D1", ("common",))})
    call = w.Call(1, "called", b"t" * 16, patient, "A001", "r1", "common", START + called_at * MINUTE)
    told = orjson.loads(drawing.call(room, call))
    assert told["text_zh"] == text and told["room"] == "一诊室"
    door = orjson.loads(drawing.call(room, w.Call(2, "door", b"", patient, "A001", "r1", "common", START)))
    assert door["text_zh"] == "请 A001 王*明 到 一诊室 门口候诊"
    gone = orjson.loads(drawing.call(room, w.Call(3, "withdrawn", b"", b"", "A001", "r1", "common", START)))
    assert (gone["text_zh"], gone["text_en"], gone["name"]) == (None, None, None)


def test_a_difference_names_what_is_new_other_or_gone() -> None:
    old = {"rooms": {"r1": {"now": 1}, "r2": None, "r3": 3}, "totals": {"n": 1}}
    new = {"rooms": {"r1": {"now": 2}, "r2": None, "r4": None}, "totals": {"n": 1}, "next": {"r1": []}}
    assert difference(old, new) == {"rooms": {"r1": {"now": 2}, "r4": None, "r3": None}, "next": {"r1": []}}
    assert difference(new, new) == {}
