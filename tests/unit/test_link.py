"""The link between gateways and shards, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors import link as module
from actors.directory import ShardAway
from actors.lines import ASK, CHANGES, Lines, unpack_message, unpack_position
from actors.link import Link, LinkServer

SECRET = b"s" * 32


class Shard:
    """Answers in whatever order the test lets it."""

    def __init__(self) -> None:
        self.gates: dict[bytes, asyncio.Event] = {}
        self.seen: list[bytes] = []

    async def handle(self, body: bytes) -> bytes | None:
        self.seen.append(body)
        if body == b"not here":
            return None
        if body == b"fails":
            raise ValueError("on purpose")
        if body in self.gates:
            await self.gates[body].wait()
        return body.upper()


@pytest.fixture
def shard() -> Shard:
    return Shard()


@pytest.fixture
async def server(shard: Shard) -> AsyncIterator[tuple[LinkServer, module.Address]]:
    server = LinkServer(SECRET, shard.handle)
    yield server, await server.start("127.0.0.1")
    await server.stop()


Served = tuple[LinkServer, module.Address]


async def test_answers_find_their_questions_in_whatever_order_they_come(shard: Shard, server: Served) -> None:
    shard.gates = {b"slow": asyncio.Event()}
    link = Link(server[1], SECRET)
    slow = asyncio.create_task(link.call(b"slow"))
    assert await link.call(b"fast") == b"FAST"
    assert not slow.done()
    shard.gates[b"slow"].set()
    assert await slow == b"SLOW"


async def test_many_at_once_share_one_connection(shard: Shard, server: Served) -> None:
    link = Link(server[1], SECRET)
    bodies = [b"%d" % n * (n + 1) for n in range(300)]
    assert await asyncio.gather(*(link.call(body) for body in bodies)) == [body.upper() for body in bodies]
    assert len(server[0]._open_ones) == 1


async def test_large_bodies_come_whole(server: Served) -> None:
    body = b"x" * 1_000_000
    assert await Link(server[1], SECRET).call(body) == body.upper()


@pytest.mark.parametrize("body", [b"not here", b"fails"])
async def test_no_answer_is_told_as_away(server: Served, body: bytes) -> None:
    link = Link(server[1], SECRET)
    with pytest.raises(ShardAway):
        await link.call(body)
    assert await link.call(b"next") == b"NEXT"


async def test_a_lost_connection_is_told_at_once_and_made_again(shard: Shard, server: Served) -> None:
    shard.gates = {b"slow": asyncio.Event()}
    link = Link(server[1], SECRET)
    slow = asyncio.create_task(link.call(b"slow"))
    assert await link.call(b"fast") == b"FAST"  # so the slow one is there
    for each in list(server[0]._open_ones):
        each.close()
    with pytest.raises(ShardAway):
        await slow
    assert await link.call(b"again") == b"AGAIN"


async def test_nobody_there_is_away(server: Served) -> None:
    await server[0].stop()
    with pytest.raises(ShardAway):
        await Link(server[1], SECRET).call(b"hello")


async def test_without_the_secret_nothing_is_heard(shard: Shard, server: Served) -> None:
    with pytest.raises(ShardAway):
        await Link(server[1], b"w" * 32).call(b"hello")
    assert shard.seen == []


async def test_a_frame_beyond_all_bounds_closes_the_connection(shard: Shard, server: Served) -> None:
    reader, writer = await asyncio.open_connection(*server[1])
    writer.write(module._HEAD.pack(len(SECRET), 0) + SECRET)
    writer.write(module._HEAD.pack(module.FRAME_BYTES_MAX + 1, 1))
    assert await reader.read() == b""
    writer.close()
    assert shard.seen == []


async def test_frames_are_cut_wherever_the_bytes_are(shard: Shard, server: Served) -> None:
    reader, writer = await asyncio.open_connection(*server[1])
    stream = b"".join(module._HEAD.pack(len(b), n) + b for n, b in enumerate([SECRET, b"one", b"", b"three"]))
    for at in range(len(stream)):
        writer.write(stream[at : at + 1])
        await writer.drain()
    got = b""
    while got.count(b"THREE") == 0:
        got += await reader.read(100)
    assert shard.seen == [b"one", b"", b"three"]
    writer.close()


async def test_a_shard_that_moved_is_asked_where_it_is_now(shard: Shard, server: Served) -> None:
    elsewhere = Shard()
    other = LinkServer(SECRET, elsewhere.handle)
    lines = Lines(SECRET)
    with pytest.raises(ShardAway):
        await lines.send(0, b"x")
    lines.route(0, server[1])
    await lines.send(0, b"first")
    lines.route(0, await other.start("127.0.0.1"))
    await lines.send(0, b"second")
    await lines.changes(0, 3, 4)
    assert [unpack_message(body) for body in shard.seen] == [(ASK, 0, b"first")]
    assert unpack_message(elsewhere.seen[0]) == (ASK, 0, b"second")
    kind, shard_id, rest = unpack_message(elsewhere.seen[1])
    assert (kind, shard_id, unpack_position(rest)) == (CHANGES, 0, (3, 4))
    assert set(lines.links) == {lines.routes[0]}
    lines.close()
    await other.stop()
