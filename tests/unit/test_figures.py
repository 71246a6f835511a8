"""What a shard counts of its actors: rates of a window, bounded memory, and the busiest first."""

import asyncio
from typing import Any

import msgpack
import pytest

import actors.figures as figures
from actors.figures import ACTORS_KEPT_MAX, ACTORS_SHOWN_MAX, RECENT, WINDOW_MS, Figures, Rate, Recent
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.refusal import Reason, Refusal
from engine.journal.codec import Ask
from engine.journal.group_commit import Flushed, Work
from engine.journal.journal import Entry
from tests.support.stores import doctor, uid
from tests.support.virtual_time import virtual

NOW = 1_800_000_000_000 // WINDOW_MS * WINDOW_MS
ANSWER = s.Answer(uid("a"), "0800", 1, 0, 2)


class Shown:
    def __init__(self, state: Any, unsettled: int = 0, last_used: int = NOW) -> None:
        self.state, self.unsettled, self.last_used = state, unsettled, last_used


def asks(*numbers: int) -> list[Ask]:
    return [(doctor(n).stream, 1_000, s.ConfirmAppointment(uid("a", n), uid("account"))) for n in numbers]


def answered(counted: Figures, now: int, *numbers: int, refused: Reason | None = None) -> None:
    messages = asks(*numbers)
    counted.came(messages)
    counted.left(messages, [Refusal(refused) if refused else ANSWER] * len(messages), now)


def told(counted: Figures, now: int = NOW, **hosts: Any) -> dict[str, Any]:
    return counted.told(0, 1, 0, {doctor(int(n[1:])).stream: host for n, host in hosts.items()}, now)


def test_a_rate_is_of_the_last_window_and_then_of_nothing() -> None:
    rate = Rate()
    for n in range(WINDOW_MS // 10):
        rate.add(1, NOW + n * 10)
    assert rate.per_second(NOW + WINDOW_MS) == pytest.approx(100, rel=0.01)
    assert rate.per_second(NOW + 2 * WINDOW_MS - WINDOW_MS // 2) == pytest.approx(50, rel=0.01)
    assert rate.per_second(NOW + 2 * WINDOW_MS) == 0
    assert rate.total == WINDOW_MS // 10
    rate.add(4, NOW + 9 * WINDOW_MS)
    assert rate.per_second(NOW + 9 * WINDOW_MS) == pytest.approx(4000 / WINDOW_MS)


def test_percentiles_are_of_the_last_measurements() -> None:
    recent = Recent()
    assert recent.told() == {"p50": 0, "p99": 0, "max": 0}
    recent.add(7)
    assert recent.told() == {"p50": 7, "p99": 7, "max": 7}
    for n in range(1, 2 * RECENT + 1):
        recent.add(n)
    assert recent.told() == {"p50": RECENT + (RECENT - 1) // 2 + 1, "p99": 2 * RECENT - 5, "max": 2 * RECENT}
    recent.add(1 << 40)
    assert recent.told()["max"] == 0xFFFFFFFF


def test_each_actor_has_its_own_and_the_shard_their_sum() -> None:
    counted = Figures()
    answered(counted, NOW, 1, 1, 1, 2)
    answered(counted, NOW, 2, refused=Reason.SLOT_FULL)
    counted.turned_away(5, Reason.BUSY, NOW)
    found = told(counted)
    first, second = found["actors"]
    assert (first["actor"], first["commands"], first["refused"]) == (doctor(1).stream, 3, {})
    assert (second["commands"], second["refused"]) == (2, {"slot_full": 1})
    assert second["refused_per_second"] == {"slot_full": 1000 / WINDOW_MS}
    assert found["commands"] == 5
    assert found["refused_per_second"] == {"slot_full": 0.25, "busy": 1.25}
    assert told(counted, NOW + 2 * WINDOW_MS)["refused_per_second"] == {}


def test_what_is_asked_and_not_answered_waits_and_comes_first() -> None:
    counted = Figures()
    answered(counted, NOW, 1, 1, 1)
    waiting = asks(2, 2)
    counted.came(waiting)
    first, second = told(counted)["actors"]
    assert [(a["actor"], a["mailbox"]) for a in (first, second)] == [
        (doctor(2).stream, 2),
        (doctor(1).stream, 0),
    ]
    counted.left(waiting, None, NOW)  # nobody knows what became of it, but nobody waits
    assert {a["mailbox"] for a in told(counted)["actors"]} == {0}


@virtual
async def test_a_flush_is_told_of_the_actors_that_it_was_for() -> None:
    counted = Figures()
    answered(counted, NOW, 1, 2)
    entry = Entry(doctor(1).stream, s.SeatBooked(uid("a")), NOW)
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    nobody: Any = None
    works = [Work(nobody, s.ExpireHolds(), NOW, done, entries=entries) for entries in ([entry], [])]
    counted.flushed(Flushed(1, works, 1, 0, 0.0025), NOW)
    found = told(counted)
    assert {a["actor"]: a["flush_us"] for a in found["actors"]} == {
        doctor(1).stream: 2500,
        doctor(2).stream: 0,
    }
    assert found["flush_us"]["p50"] == 2500
    assert found["entries_per_second"] == 1000 / WINDOW_MS


def test_the_length_of_queues_is_read_from_the_actors_themselves() -> None:
    counted = Figures()
    answered(counted, NOW, 1)
    answered(counted, NOW, 2)
    answered(counted, NOW, 3)
    day, room = s.Schedule(), w.WaitingRoom()
    day.holds[uid("a")] = NOW
    line: dict[bytes, None] = dict.fromkeys((uid("t", 1), uid("t", 2)))
    room.queues["q"] = w.Queue("q", "visit", "A", 1, 99, "", 3, line=line)
    found = {a["actor"]: a for a in told(counted, n1=Shown(day, 4), n2=Shown(room))["actors"]}
    one, two, gone = (found[doctor(n).stream] for n in (1, 2, 3))
    assert (one["holds"], one["wishes"], one["unsettled"], one["is_alive"]) == (1, 0, 4, True)
    assert (two["waiting"], "holds" in two) == (2, False)
    assert (gone["is_alive"], gone["last_used"]) == (False, NOW)


def test_memory_is_bounded_and_who_is_waited_for_is_never_forgotten() -> None:
    counted = Figures()
    counted.came(asks(0))
    for n in range(1, 3 * ACTORS_KEPT_MAX):
        answered(counted, NOW + n, n)
    assert len(counted._actors) <= ACTORS_KEPT_MAX
    found = told(counted, NOW + 3 * ACTORS_KEPT_MAX)
    assert len(found["actors"]) == ACTORS_SHOWN_MAX
    assert found["actors"][0]["actor"] == doctor(0).stream
    counted.left(asks(0), [ANSWER], NOW)


def test_it_travels() -> None:
    counted = Figures()
    answered(counted, NOW, 1, refused=Reason.SLOT_FULL)
    assert msgpack.unpackb(counted.pack(3, 2, 1, {}, NOW)) == counted.told(3, 2, 1, {}, NOW)
    assert figures.ACTORS_SHOWN_MAX * 400 < 64 * 1024, "a message of some tens of kB at most"
