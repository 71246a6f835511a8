"""Dashboards: shards are asked once for all who look, and watchers are told what has changed."""

import asyncio
import json
from datetime import date
from typing import Any

import pytest

from actors.directory import ShardAway
from actors.figures import Figures
from engine.domain.policy import Channel
from engine.domain.refusal import Reason
from engine.records.indicators import Cell, Queue
from engine.records.staff import Role, Staff
from engine.views.indicators import Scope, difference, summary
from tests.support.virtual_time import virtual
from tests.unit.test_figures import NOW, answered
from tests.unit.test_stream import BEFORE, ZONE, Reader, World, row
from web.desk.actors import LOOK_SECONDS, ActorBoard
from web.errors import Problem
from web.stream import SAID_MAX

MANAGER = Staff(bytes(16), "manager", "主任", frozenset({Role.MANAGER}), None, None, Channel.MANAGEMENT)
DESK = Staff(bytes(16), "desk", "窗口", frozenset({Role.DESK}), None, "cardio", Channel.WINDOW)
DAY = date(2026, 11, 24)


class Shards:
    """What gateways ask, counted."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.away: set[int] = set()
        self.epoch = 3
        self.answers = asyncio.Event()
        self.answers.set()

    async def figures(self, shard_id: int) -> bytes:
        self.asked.append(shard_id)
        await self.answers.wait()
        if shard_id in self.away:
            raise ShardAway("dead")
        counted = Figures()
        answered(counted, NOW, 1, refused=Reason.SLOT_FULL)
        return counted.pack(shard_id, self.epoch, 5, {}, NOW)


def board_of(world: World, shards: Shards) -> ActorBoard:
    return ActorBoard(shards.figures, 2, world.stream, ZONE, lambda: BEFORE)


@virtual
async def test_shards_are_asked_once_for_all_who_look() -> None:
    shards = Shards()
    board = board_of(World(row("D0")), shards)
    found = await asyncio.gather(*(board.latest() for _ in range(50)))
    assert shards.asked == [0, 1]
    assert {id(one) for one in found} == {id(found[0])}
    await board.latest()
    assert shards.asked == [0, 1], "it is not a second old"
    await asyncio.sleep(LOOK_SECONDS)
    await board.latest()
    assert shards.asked == [0, 1, 0, 1]
    (shard, _) = found[0].shards
    assert (shard.mailbox, shard.epoch, shard.refused_per_second) == (5, 3, {"slot_full": 0.25})
    assert shard.actors[0].refused == {"slot_full": 1}


@virtual
async def test_a_shard_that_is_away_or_says_nothing_is_shown_as_such() -> None:
    shards = Shards()
    board = board_of(World(row("D0")), shards)
    shards.away = {1}
    assert [s.is_away for s in (await board.latest()).shards] == [False, True]
    shards.answers.clear()
    await asyncio.sleep(LOOK_SECONDS)
    assert [s.is_away for s in (await board.latest()).shards] == [True, True]
    shards.answers.set()
    shards.away, shards.epoch = set(), 4
    await asyncio.sleep(LOOK_SECONDS)
    assert [s.restarts for s in (await board.latest()).shards] == [1, 0], (
        "of the second this is the first word"
    )


@virtual
async def test_watchers_hear_every_second_and_nobody_is_asked_while_nobody_watches() -> None:
    world, shards = World(row("D0")), Shards()
    board = board_of(world, shards)
    running = asyncio.create_task(board.run())
    await asyncio.sleep(5)
    assert shards.asked == []
    readers = [Reader(world), Reader(world)]
    for reader in readers:
        reader.connection.who = MANAGER
        await reader.watches("actors/all")
    await readers[1].watches("actors/1")
    asked = len(shards.asked)
    await asyncio.sleep(10 * LOOK_SECONDS)
    assert len(shards.asked) - asked == 20, "ten times, two shards, whoever looks"
    first, second = [await reader.heard() for reader in readers]
    assert len(first) >= 10 and {m["snapshot"] for m in first} == {"actors/all"}
    assert {(m["snapshot"], len(m["shards"])) for m in second} == {("actors/all", 2), ("actors/1", 1)}
    for reader in readers:
        world.stream.leave(reader.connection)
    asked = len(shards.asked)
    await asyncio.sleep(5)
    assert len(shards.asked) == asked
    running.cancel()


@virtual
async def test_actors_are_for_those_who_run_the_place() -> None:
    world = World(row("D0"))
    board_of(world, Shards())
    reader = Reader(world)
    for who, code in ((None, "unauthenticated"), (bytes(16), "forbidden"), (DESK, "forbidden")):
        reader.connection.who = who
        with pytest.raises(Problem) as refused:
            world.stream.subscribe(reader.connection, "actors/all")
        assert refused.value.code == code
    reader.connection.who = MANAGER
    for name in ("2", "-1", "x"):
        with pytest.raises(Problem):
            world.stream.subscribe(reader.connection, f"actors/{name}")


@virtual
async def test_who_is_far_behind_is_told_the_whole_again_instead_of_every_change() -> None:
    world, shards = World(row("D0")), Shards()
    board_of(world, shards)
    reader = Reader(world)
    reader.connection.who = MANAGER
    await reader.watches("actors/all")
    reader.reads.clear()
    for n in range(3 * SAID_MAX):
        world.stream.say("actors/all", json.dumps({"patch": n}).encode())
        await asyncio.sleep(0)
    reader.reads.set()
    got = await reader.heard()
    assert len(got) < SAID_MAX
    patches = [m["patch"] for m in got if "patch" in m]
    assert patches == list(range(len(patches))), "what was said first came first, and nothing between is lost"
    assert got[-1]["snapshot"] == "actors/all"


def test_a_difference_laid_over_the_old_gives_the_new() -> None:
    def laid(old: Any, patch: Any) -> Any:
        """RFC 7396."""
        if not isinstance(patch, dict):
            return patch
        found = dict(old) if isinstance(old, dict) else {}
        for key, value in patch.items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = laid(found.get(key), value)
        return found

    documents: list[dict[str, Any]] = [
        {},
        {"a": 1, "b": {"x": 1, "y": 2}},
        {"a": 1, "b": {"x": 1}, "c": {"z": {"w": 0}}},
        {"b": {"x": 2}, "c": {"z": {"w": 0.5}}},
    ]
    for old in documents:
        for new in documents:
            assert laid(old, difference(old, new)) == new
            assert (difference(old, new) == {}) == (old == new)


def test_the_parts_sum_up_to_the_whole_and_a_scope_leaves_the_rest_out() -> None:
    counts = {
        Cell(DAY, "cardio", "D0", 1, "booked"): 3,
        Cell(DAY, "cardio", "D0", 2, "fulfilled"): 4,
        Cell(DAY, "cardio", "D1", 1, "noshow"): 1,
        Cell(DAY, "cardio", "D1", 1, "taken"): 10,
        Cell(DAY, "cardio", "D1", 1, "confirmed"): 9,
        Cell(DAY, "derma", "D2", 1, "arrived"): 5,
        Cell(date(2026, 11, 25), "cardio", "D0", 1, "booked"): 100,
    }
    queues = {
        "cardio": Queue(3, 2, 40 * 60, 30 * 60, 1, 4, 80 * 60),
        "derma": Queue(1, 1, 60, 60, 0, 0, 0, walk_ins=2),
    }
    whole = summary(Scope(DAY, None), counts, queues, {"D0": 14, "D9": 5})
    assert whole["registrations"] == {
        "taken": 10,
        "confirmed": 9,
        "confirmation_rate": 0.9,
        "expected": 13,
        "pending": 0,
    }
    assert whole["outpatients"] == {"total": 9, "arrived": 5, "fulfilled": 4}
    assert whole["no_shows"] == {"total": 1, "rate": 0.1}
    assert whole["waiting"] == {
        "now": 4,
        "called": 1,
        "mean_minutes": 13,
        "max_minutes": 30,
        "walk_ins": 2,
        "seen": 4,
        "seen_mean_minutes": 20,
    }
    for kind in ("channels", "departments", "practitioners"):
        assert sum(part["registrations"]["expected"] for part in whole[kind].values()) == 13
    assert set(whole["channels"]) == {"mini_program", "window"}
    assert whole["practitioners"]["D0"]["load"] == {"seats": 14, "booked": 7, "rate": 0.5}
    assert whole["practitioners"]["D9"]["load"] == {"seats": 5, "booked": 0, "rate": 0.0}
    cardio = summary(Scope(DAY, frozenset({"cardio"})), counts, queues, {})
    assert cardio["departments"] == {"cardio": whole["departments"]["cardio"]}
    assert (cardio["outpatients"]["total"], cardio["waiting"]["now"]) == (4, 3)
