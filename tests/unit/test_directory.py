"""The courier between a gateway and a shard, in virtual time: batches, deadlines, retries, a shard away."""

import asyncio
from collections.abc import Callable

import pytest

import actors.directory
from actors.directory import (
    DOWN_SECONDS_MAX,
    IN_FLIGHT_MAX,
    UNKNOWN,
    Directory,
    Outcome,
    ShardAway,
    shard_of,
)
from engine.domain import schedule as s
from engine.domain.limits import BATCH_COMMANDS_MAX
from engine.domain.refusal import Reason, Refusal
from engine.journal.codec import Ask, pack_replies, unpack_asks
from tests.support.stores import confirm, uid
from tests.support.virtual_time import virtual

STREAM = "schedule/D1/2026-11-24"


class Line:
    """A wire to one shard: remembers every message, and answers as it is told."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.messages: list[list[Ask]] = []
        self.is_away = False
        self.loses_answers = False
        self.says: Callable[[s.Command], s.Answer | Refusal] = lambda command: s.Answer(
            command.appointment_id,
            "0800",
            1,
            0,
            2,  # type: ignore[union-attr]
        )
        self.done: list[bytes] = []

    async def __call__(self, shard_id: int, packed: bytes) -> bytes:
        asks = unpack_asks(packed)
        self.messages.append(asks)
        if self.is_away:
            raise ShardAway
        await asyncio.sleep(self.seconds)
        replies = [self.says(command) for _, _, command in asks]
        self.done += [command.appointment_id for _, _, command in asks]  # type: ignore[union-attr]
        if self.loses_answers:
            raise ShardAway
        return pack_replies(replies)

    @property
    def sizes(self) -> list[int]:
        return [len(asks) for asks in self.messages]


def now() -> float:
    return asyncio.get_running_loop().time()


def ask(directory: Directory, number: int = 0, seconds: float = 2.0) -> asyncio.Future[Outcome]:
    return directory.ask(STREAM, confirm(uid("a", number)), now() + seconds)


async def all_of(*asked: asyncio.Future[Outcome]) -> list[Outcome]:
    async with asyncio.timeout(100):
        return await asyncio.gather(*asked)


@virtual
async def test_alone_a_command_leaves_at_once() -> None:
    line = Line()
    directory = Directory(line, 1)
    before = now()
    [answer] = await all_of(ask(directory))
    assert isinstance(answer, s.Answer) and answer.appointment_id == uid("a", 0)
    assert now() - before == pytest.approx(line.seconds)


@virtual
async def test_what_gathers_meanwhile_leaves_together_and_each_gets_his_own_answer() -> None:
    line = Line()
    directory = Directory(line, 1)
    answers = await all_of(*(ask(directory, n) for n in range(50)))
    assert [a.appointment_id for a in answers] == [uid("a", n) for n in range(50)]  # type: ignore[union-attr]
    assert line.sizes == [1] * IN_FLIGHT_MAX + [50 - IN_FLIGHT_MAX]


@virtual
async def test_a_message_is_never_larger_than_a_batch() -> None:
    line = Line()
    directory = Directory(line, 1)
    await all_of(*(ask(directory, n) for n in range(3 * BATCH_COMMANDS_MAX)))
    assert max(line.sizes) == BATCH_COMMANDS_MAX
    assert sum(line.sizes) == 3 * BATCH_COMMANDS_MAX


@virtual
async def test_a_command_carries_what_is_left_of_its_deadline() -> None:
    line = Line(seconds=0.5)
    directory = Directory(line, 1)
    await all_of(*(ask(directory, n) for n in range(IN_FLIGHT_MAX + 1)))
    left = [2000] * IN_FLIGHT_MAX + [1500]
    assert [ms for asks in line.messages for _, ms, _ in asks] == pytest.approx(left, abs=2)


@virtual
async def test_what_was_never_sent_before_its_deadline_is_too_late() -> None:
    line = Line(seconds=1.0)
    directory = Directory(line, 1)
    sent = [ask(directory, n) for n in range(IN_FLIGHT_MAX)]
    await asyncio.sleep(0)
    waits = ask(directory, 9, seconds=0.5)
    outcomes = await all_of(*sent, waits)
    assert outcomes[-1] == Refusal(Reason.TOO_LATE)
    assert all(isinstance(outcome, s.Answer) for outcome in outcomes[:-1])
    assert uid("a", 9) not in line.done


@virtual
async def test_what_was_sent_and_never_answered_is_unknown() -> None:
    line = Line()
    line.loses_answers = True
    directory = Directory(line, 1)
    before = now()
    assert await all_of(ask(directory)) == [UNKNOWN]
    assert now() - before < 2.5
    assert line.done, "and in truth it was done"


@virtual
async def test_a_retry_carries_the_same_ids_and_finds_the_answer() -> None:
    line = Line()
    line.loses_answers = True
    directory = Directory(line, 1)
    asked = ask(directory, 7)
    await asyncio.sleep(0.3)
    line.loses_answers = False
    [answer] = await all_of(asked)
    assert isinstance(answer, s.Answer)
    assert len(line.messages) > 1
    assert {command.appointment_id for asks in line.messages for _, _, command in asks} == {uid("a", 7)}  # type: ignore[union-attr]


@virtual
async def test_retries_pause_longer_each_time_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.directory.random, "uniform", lambda low, high: high)
    line = Line()
    line.is_away = True
    at: list[float] = []

    async def send(shard_id: int, packed: bytes) -> bytes:
        at.append(now())
        return await line(shard_id, packed)

    await all_of(ask(Directory(send, 1)))
    pauses = [round(later - earlier, 6) for earlier, later in zip(at, at[1:], strict=False)]
    assert pauses[:5] == [0.02, 0.04, 0.08, 0.16, 0.3]
    assert set(pauses[5:]) == {0.3}


@virtual
async def test_to_a_shard_that_is_away_one_message_at_a_time() -> None:
    line = Line()
    line.is_away = True
    under_way = most = 0

    async def send(shard_id: int, packed: bytes) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0.01)
            return await line(shard_id, packed)
        finally:
            under_way -= 1

    directory = Directory(send, 1)
    first = ask(directory, 0)
    await asyncio.sleep(0.02)
    most = 0
    await all_of(first, *(ask(directory, n) for n in range(1, 9)))
    assert most == 1


@virtual
async def test_a_shard_away_for_a_second_is_not_waited_for() -> None:
    line = Line()
    line.is_away = True
    directory = Directory(line, 1)
    first = ask(directory, 0)
    await asyncio.sleep(DOWN_SECONDS_MAX + 0.1)
    before, sent = now(), len(line.messages)
    assert await all_of(ask(directory, 1)) == [Refusal(Reason.AWAY)]
    assert now() == before and len(line.messages) == sent
    assert await all_of(first) == [UNKNOWN]


@virtual
async def test_a_shard_that_comes_back_in_time_serves_who_waited() -> None:
    line = Line()
    line.is_away = True
    directory = Directory(line, 1)
    first = ask(directory, 0)
    await asyncio.sleep(DOWN_SECONDS_MAX + 0.5)
    line.is_away = False
    assert isinstance((await all_of(first))[0], s.Answer)
    assert isinstance((await all_of(ask(directory, 1)))[0], s.Answer)


@virtual
async def test_a_shard_that_was_away_for_long_is_found_again() -> None:
    line = Line()
    line.is_away = True
    directory = Directory(line, 1)
    await all_of(ask(directory, 0))
    await asyncio.sleep(10)
    line.is_away = False
    outcomes = []
    for n in range(1, 4):
        outcomes += await all_of(ask(directory, n))
    assert isinstance(outcomes[-1], s.Answer), "refused for ever, although the shard is back"


@virtual
async def test_a_frozen_shard_keeps_nobody_waiting() -> None:
    async def send(shard_id: int, packed: bytes) -> bytes:
        await asyncio.sleep(3600)
        raise ShardAway

    directory = Directory(send, 1)
    before = now()
    asked = [ask(directory, n) for n in range(10)]
    outcomes = await asyncio.gather(*(asyncio.wait_for(x, 60) for x in asked), return_exceptions=True)
    assert set(map(type, outcomes)) <= {type(UNKNOWN), Refusal}, outcomes
    assert now() - before < 2.5
    assert outcomes.count(Refusal(Reason.TOO_LATE)) == 10 - IN_FLIGHT_MAX


@pytest.mark.parametrize("reason", [Reason.BUSY, Reason.TOO_LATE])
@virtual
async def test_busy_after_a_lost_answer_is_unknown(reason: Reason) -> None:
    """The refusal speaks of the second attempt; the first one was done."""
    line = Line()
    line.loses_answers = True
    directory = Directory(line, 1)
    asked = ask(directory)
    await asyncio.sleep(0.02)
    line.loses_answers = False
    line.says = lambda command: Refusal(reason)
    assert await all_of(asked) == [UNKNOWN]


@virtual
async def test_a_refusal_of_the_only_attempt_is_handed_on() -> None:
    line = Line()
    line.says = lambda command: Refusal(Reason.BUSY)
    assert await all_of(ask(Directory(line, 1))) == [Refusal(Reason.BUSY)]


@virtual
async def test_a_queue_past_its_bound_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.directory, "COURIER_QUEUE_MAX", 3)
    line = Line()
    directory = Directory(line, 1)
    outcomes = await all_of(*(ask(directory, n) for n in range(IN_FLIGHT_MAX + 5)))
    assert outcomes.count(Refusal(Reason.BUSY)) == 2
    assert sum(isinstance(outcome, s.Answer) for outcome in outcomes) == IN_FLIGHT_MAX + 3


@virtual
async def test_who_has_gone_is_not_sent_for() -> None:
    line = Line(seconds=0.5)
    directory = Directory(line, 1)
    sent = [ask(directory, n) for n in range(IN_FLIGHT_MAX)]
    await asyncio.sleep(0)
    gone = ask(directory, 9)
    await asyncio.sleep(0.1)
    gone.cancel()
    await all_of(*sent)
    await directory.close()
    assert uid("a", 9) not in line.done


@virtual
async def test_closing_waits_for_every_answer() -> None:
    line = Line(seconds=0.5)
    directory = Directory(line, 1)
    asked = [ask(directory, n) for n in range(9)]
    await asyncio.sleep(0)
    await directory.close()
    await asyncio.sleep(0)
    assert all(isinstance(one.result(), s.Answer) for one in asked)


@virtual
async def test_a_key_always_goes_to_its_own_shard() -> None:
    streams = [f"schedule/D{n:04d}/2026-11-24" for n in range(400)]
    seen: dict[str, set[int]] = {}

    async def send(shard_id: int, packed: bytes) -> bytes:
        asks = unpack_asks(packed)
        for stream, _, _ in asks:
            seen.setdefault(stream, set()).add(shard_id)
        return pack_replies([Refusal(Reason.NO_SUCH_SCHEDULE)] * len(asks))

    directory = Directory(send, 4)
    for _ in range(2):
        await asyncio.gather(*(directory.ask(x, confirm(uid("a")), now() + 2) for x in streams))
    assert all(shards == {shard_of(stream, 4)} for stream, shards in seen.items())
    assert all(sum(shards == {n} for shards in seen.values()) > 50 for n in range(4)), "far from even"


def test_where_a_key_lives_is_pinned() -> None:
    """Gateways of two releases must agree on it, or a day would have two writers that fence each other."""
    assert [shard_of(f"schedule/D{n:04d}/2026-11-24", 4) for n in range(8)] == [0, 3, 3, 0, 3, 0, 0, 3]
