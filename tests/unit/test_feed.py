"""The feed: a reader that follows it knows the last word on every slot, or is told that it does not."""

import asyncio

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import actors.feed
from actors.feed import Changes, Feed
from actors.news import News
from tests.support.virtual_time import run, virtual


@virtual
async def test_a_reader_in_step_waits_for_news_and_no_longer() -> None:
    feed = Feed(3, 10)
    loop = asyncio.get_running_loop()
    reading = asyncio.create_task(feed.since(3, 10, 5.0))
    await asyncio.sleep(1)
    feed.publish(12, News({"a": 1}))
    assert await reading == Changes(3, 12, {"a": 1})
    before = loop.time()
    assert await feed.since(3, 12, 5.0) == Changes(3, 12, {})
    assert loop.time() - before == pytest.approx(5.0)


@virtual
async def test_a_reader_behind_is_answered_at_once_with_the_last_word_on_each_slot() -> None:
    feed = Feed(1, 0)
    feed.publish(1, News({"a": 9, "b": 9}))
    feed.publish(4, News({"a": 8}))
    assert await feed.since(1, 0, 5.0) == Changes(1, 4, {"a": 8, "b": 9})
    assert await feed.since(1, 1, 5.0) == Changes(1, 4, {"a": 8})


@pytest.mark.parametrize(
    ("epoch", "seq"),
    [(0, 0), (0, 7), (2, 4), (1, 5), (1, -1)],
    ids=["never read", "an older owner's", "a newer owner's", "from the future", "before the beginning"],
)
@virtual
async def test_a_reader_of_another_time_is_told_to_read_everything(epoch: int, seq: int) -> None:
    feed = Feed(1, 0)
    feed.publish(4, News({"a": 8}))
    assert await feed.since(epoch, seq, 5.0) == Changes(1, 4, None)


@virtual
async def test_a_reader_too_far_behind_is_told_to_read_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.feed, "FEED_CHANGES_MAX", 3)
    feed = Feed(1, 0)
    for seq in range(1, 6):
        feed.publish(seq, News({str(seq): seq}))
    assert (await feed.since(1, 1, 5.0)).remaining is None
    assert (await feed.since(1, 2, 5.0)).remaining == {"3": 3, "4": 4, "5": 5}


@virtual
async def test_all_who_wait_hear_the_same_news() -> None:
    feed = Feed(1, 0)
    readers = [asyncio.create_task(feed.since(1, 0, 60.0)) for _ in range(3)]
    await asyncio.sleep(0)
    feed.publish(1, News({"a": 1}))
    assert await asyncio.gather(*readers) == [Changes(1, 1, {"a": 1})] * 3


@virtual
async def test_days_that_changed_go_with_the_free_seats_the_last_of_each() -> None:
    feed = Feed(1, 0)
    feed.publish(1, News({"a": [1, 2]}, {"A": [["old"]], "B": [["b"]]}))
    feed.publish(2, News({"a": [1, 1]}))
    feed.publish(3, News({"c": 1}, {"A": [["new"]]}))
    merged = {"a": [1, 1], "c": 1}
    assert await feed.since(1, 0, 5.0) == Changes(1, 3, merged, {"A": [["new"]], "B": [["b"]]})
    assert await feed.since(1, 1, 5.0) == Changes(1, 3, merged, {"A": [["new"]]})
    feed.publish(4, News({}, {"A": []}))
    assert await feed.since(1, 3, 5.0) == Changes(1, 4, {}, {"A": []})


@virtual
async def test_of_waiting_rooms_every_event_is_told_once_and_in_order() -> None:
    feed = Feed(1, 0)
    room, other = "room/derma/2026-11-24", "room/heart/2026-11-24"
    feed.publish(2, News(rooms={room: [(1, 21, b"a"), (2, 22, b"b")]}))
    feed.publish(3, News({"a": 1}))
    feed.publish(5, News(rooms={room: [(3, 23, b"c")], other: [(1, 21, b"d")]}))
    told = await feed.since(1, 0, 5.0)
    assert told.rooms == {room: [(1, 21, b"a"), (2, 22, b"b"), (3, 23, b"c")], other: [(1, 21, b"d")]}
    assert (await feed.since(1, 2, 5.0)).rooms == {room: [(3, 23, b"c")], other: [(1, 21, b"d")]}
    assert (await feed.since(1, 0, 5.0)).rooms == told.rooms  # telling has changed nothing


def test_changes_survive_the_wire() -> None:
    for changes in (
        Changes(1, 2, {"D1-20261124-0800": 3}),
        Changes(1, 2, {}),
        Changes(1, 2, None),
        Changes(1, 2, {"D1-20261124-0800": [1, 0]}, {"D1-20261124": [["morning", None, 3]]}),
        Changes(1, 2, {}, {}, {"room/derma/2026-11-24": [[3, 24, b"called"]]}),
    ):
        assert Changes.unpack(changes.pack()) == changes


def test_without_plans_nothing_is_said_of_them() -> None:
    assert len(Changes(1, 2, {}).pack()) == len(msgpack.packb((1, 2, {})))


published = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=1), max_size=12)


@given(published, st.lists(st.integers(0, 12), max_size=6))
def test_whoever_follows_ends_with_the_truth(news: list[dict[str, int]], reads: list[int]) -> None:
    """A reader that reads after the n-th publication, for any n, and once at the end."""

    async def follow() -> None:
        feed = Feed(1, 0)
        truth: dict[str, int] = {}
        mine: dict[str, int] = {}
        at = (1, 0)
        for number, remaining in enumerate(news):
            truth |= remaining
            feed.publish(2 * number + 1, News(remaining))
            if number in reads:
                changes = await feed.since(*at, 1.0)
                assert changes.remaining is not None
                mine |= changes.remaining
                at = changes.epoch, changes.seq
        changes = await feed.since(*at, 1.0)
        assert mine | (changes.remaining or {}) == truth

    run(follow())
