"""MLLP on real sockets: every frame gets an answer, and nothing sent breaks the line for what follows."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integrations.connector import OutcomeUnknown, TryAgain
from integrations.hl7v2 import ack, mllp
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.frames import framed
from integrations.hl7v2.message import Header, Message, Row, compose, parse

AT = datetime(2026, 11, 23, 1, 30, tzinfo=UTC)


def message(control_id: str, *rows: Row, accept: str = "", application: str = "") -> bytes:
    header = Header(
        ("A", "B"),
        ("C", "D"),
        ("SIU", "S12", "SIU_S12"),
        control_id,
        AT,
        accept=accept,
        application=application,
    )
    return compose(header, [("PID", {5: "张三"}), *rows])


def answer_to(control_id: str, code: str = "AA") -> bytes:
    return ack.ack(parse(message(control_id)), code)


def answered(control_id: str, code: str = "AA") -> bytes:
    return framed(answer_to(control_id, code))


async def taken(raw: bytes) -> mllp.Answers:
    return ack.answers(parse(raw), "AA")


class Line:
    """A bare connection: what any sender could do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def answer(self) -> Message:
        frame = await self.reader.readuntil(b"\x1c\r")
        return parse(frame[frame.index(b"\x0b") + 1 : -2])

    async def said(self) -> tuple[str, str]:
        msa = (await self.answer()).first("MSA")
        return msa.text(1), msa.text(2)


@contextlib.asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(
    handle: mllp.Handle = taken, limits: mllp.Limits | None = None
) -> AsyncIterator[mllp.Server]:
    server = await mllp.serve("127.0.0.1", 0, handle, limits)
    try:
        yield server
    finally:
        await server.abort()


@contextlib.asynccontextmanager
async def scripted(*answers: bytes | None) -> AsyncIterator[tuple[int, list[int]]]:
    """A server that says these bytes, one for each piece that it reads, whatever that was; None: hangs up."""
    connections: list[int] = []
    waiting = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while waiting:
                await reader.readuntil(b"\x1c\r")
                connections[-1] += 1
                answer = waiting.pop(0)
                if answer is None:
                    break
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()


async def test_messages_are_answered_in_their_order() -> None:
    async with serving() as server, line_to(server.port) as line:
        line.say(framed(message("1")) + framed(message("2")))
        line.say(framed(message("3")))
        assert [await line.said() for _ in range(3)] == [("AA", "1"), ("AA", "2"), ("AA", "3")]
        assert server.answered == 3


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"noise\r\n\x1c\r",
        b"\x0bMSH|^~\\&|torn",
        b"\x0b\x1c\r",
        b"\x0bhello\x1c\r",
        framed(b"PID|1\r"),
        framed(b"MSH|^~\\&|||||||ADT^A04|7||||||||UNICODE UTF-8\rPID|||||\xd5\xc5\r"),
        b"\x0b" + b"x" * 5000 + b"\x1c\r",
        b"\x0b" + message("0"),
    ],
)
async def test_no_frame_keeps_the_next_one_from_being_read(before: bytes) -> None:
    async with serving(limits=mllp.Limits(frame_bytes_max=1000)) as server, line_to(server.port) as line:
        line.say(before + framed(message("next")))
        said = await line.said()
        if said != ("AA", "next"):
            assert said[0] == "AR"
            assert await line.said() == ("AA", "next")


@given(st.lists(st.binary(max_size=60).filter(lambda one: not {0x0B, 0x1C} & set(one)), max_size=8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_frame_is_answered(frames: list[bytes]) -> None:
    async def all_of_them() -> None:
        async with serving() as server, line_to(server.port) as line:
            line.say(b"".join(b"\x0b%b\x1c\r" % one for one in frames) + framed(message("end")))
            for _ in frames:
                assert (await line.said())[0] in ("AR", "AA")
            assert await line.said() == ("AA", "end")

    asyncio.run(all_of_them())


async def test_a_message_that_is_too_large_is_refused_and_the_line_stays() -> None:
    async with serving(limits=mllp.Limits(frame_bytes_max=200_000)) as server, line_to(server.port) as line:
        line.say(framed(message("big", ("OBX", {5: "x" * 600_000}))))
        assert await line.said() == ("AR", "big")
        line.say(framed(message("small", ("OBX", {5: "x" * 100_000}))))
        assert await line.said() == ("AA", "small")


async def test_a_little_too_large_is_too_large() -> None:
    raw = message("big", ("OBX", {5: "x" * 1500}))
    limits = mllp.Limits(frame_bytes_max=len(raw) - 1)
    async with serving(limits=limits) as server, line_to(server.port) as line:
        line.say(framed(raw) + framed(message("small")))
        assert [await line.said() for _ in range(2)] == [("AR", "big"), ("AA", "small")]


async def test_bytes_without_end_are_hung_up_on() -> None:
    async with serving(limits=mllp.Limits(frame_bytes_max=1000)) as server:
        async with line_to(server.port) as line:
            line.say(b"x" * 200_000)
            with contextlib.suppress(ConnectionError):
                assert await line.reader.read() == b""
        async with line_to(server.port) as line:
            line.say(framed(message("next")))
            assert await line.said() == ("AA", "next")


@pytest.mark.parametrize("limit", [{"idle_seconds_max": 0.0}, {"frame_seconds_max": 0.0}])
async def test_whoever_says_nothing_is_hung_up_on(limit: dict[str, float]) -> None:
    async with serving(limits=mllp.Limits(**limit)) as server, line_to(server.port) as line:  # type: ignore[arg-type]
        line.say(b"\x0bMSH")
        assert await line.reader.read() == b""


async def test_a_handler_that_fails_or_takes_too_long_costs_only_its_message() -> None:
    async def handle(raw: bytes) -> mllp.Answers:
        control_id = parse(raw).control_id
        if control_id == "broken":
            raise RuntimeError(control_id)
        if control_id == "slow":
            await asyncio.Event().wait()
        return await taken(raw)

    async with serving(handle, mllp.Limits(handle_seconds_max=0.01)) as server, line_to(server.port) as line:
        for control_id, code in (("broken", "AE"), ("slow", "AE"), ("fine", "AA")):
            line.say(framed(message(control_id)))
            assert await line.said() == (code, control_id)
        assert (server.answered, server.refused) == (1, 2)


async def test_both_acknowledgements_of_enhanced_mode() -> None:
    async with serving() as server, line_to(server.port) as line:
        line.say(framed(message("1", accept="AL", application="AL")))
        assert [await line.said() for _ in range(2)] == [("CA", "1"), ("AA", "1")]
        line.say(framed(message("2", accept="NE", application="NE")) + framed(message("3")))
        assert await line.said() == ("AA", "3")


@pytest.mark.parametrize(
    "said",
    [answer_to("0"), b"MSH|^~\\&|a\rMSA|AA|0\r", b"MSH|^~\\&|||||||ACK\rMS\r"],
    ids=["whole", "without a type", "cut off"],
)
async def test_acknowledgements_are_not_acknowledged(said: bytes) -> None:
    """Else two sides that do so never end."""
    async with serving() as server, line_to(server.port) as line:
        line.say(framed(said) + framed(message("1")))
        assert await line.said() == ("AA", "1")
        assert (server.ignored, server.answered) == (1, 1)


async def test_peers_that_are_not_allowed_and_one_connection_too_many() -> None:
    elsewhere = mllp.Limits(peers=(ipaddress.ip_network("10.0.0.0/8"),))
    async with serving(limits=elsewhere) as server, line_to(server.port) as line:
        assert await line.reader.read() == b""
    here = mllp.Limits(peers=(ipaddress.ip_network("127.0.0.0/8"),), connections_max=1)
    async with serving(limits=here) as server, line_to(server.port) as line:
        line.say(framed(message("1")))
        assert await line.said() == ("AA", "1")
        async with line_to(server.port) as another:
            assert await another.reader.read() == b""


async def test_closing_answers_what_is_in_hand() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(raw: bytes) -> mllp.Answers:
        begun.set()
        await go_on.wait()
        return await taken(raw)

    async with serving(handle) as server, line_to(server.port) as line, line_to(server.port) as idle:
        line.say(framed(message("1")))
        await begun.wait()
        closing = asyncio.create_task(server.close())
        assert await idle.reader.read() == b""
        go_on.set()
        assert await line.said() == ("AA", "1")
        await closing


# The client.


async def test_one_message_in_flight_on_a_connection_and_connections_are_kept() -> None:
    inside, most = 0, 0

    async def handle(raw: bytes) -> mllp.Answers:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return await taken(raw)

    async with serving(handle) as server:
        client = Client(Peer("127.0.0.1", server.port, connections=2))
        answers = await asyncio.gather(*(client.send(message(f"{n}"), f"{n}") for n in range(40)))
        assert [one.first("MSA").text(2) for one in answers] == [f"{n}" for n in range(40)]
        assert most <= 2
        assert len(server._connections) <= 2
        await client.close()


async def test_an_answer_belongs_to_its_message() -> None:
    stale = answered("0") + answered("1", "CA") + answered("1", "AE")
    async with scripted(stale) as (port, _):
        answer = await Client(Peer("127.0.0.1", port)).send(message("1"), "1")
        assert answer.first("MSA").text(1) == "AE"


async def test_a_commit_is_enough_where_it_is_said_to_be() -> None:
    async with scripted(answered("1", "CA"), answered("2", "CR")) as (port, _):
        client = Client(Peer("127.0.0.1", port))
        answer = await client.send(message("1"), "1", is_commit_enough=True)
        assert answer.first("MSA").text(1) == "CA"
        assert (await client.send(message("2"), "2")).first("MSA").text(1) == "CR"


async def test_a_line_with_something_unread_on_it_is_not_used_again() -> None:
    async with scripted(answered("1") + answered("2", "AE"), answered("2")) as (port, connections):
        client = Client(Peer("127.0.0.1", port))
        await client.send(message("1"), "1")
        assert (await client.send(message("2"), "2")).first("MSA").text(1) == "AA"
        assert connections == [1, 1]


async def test_nobody_there_is_try_again() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(TryAgain):
        await Client(Peer("127.0.0.1", port)).send(message("1"), "1")


@pytest.mark.parametrize("said", [None, b"OK", framed(b"garbage"), framed(b"MSH|^~\\&|\xff")])
async def test_what_is_not_answered_is_unknown(said: bytes | None) -> None:
    async with scripted(said) as (port, _):
        with pytest.raises(OutcomeUnknown):
            await Client(Peer("127.0.0.1", port, answer_seconds_max=0.3)).send(message("1"), "1")


async def test_no_answer_in_time_is_unknown() -> None:
    async def never(_raw: bytes) -> mllp.Answers:
        await asyncio.Event().wait()
        return b""

    async with serving(never) as server:
        with pytest.raises(OutcomeUnknown):
            await Client(Peer("127.0.0.1", server.port, answer_seconds_max=0.05)).send(message("1"), "1")


async def test_marks_of_frames_are_not_sent_inside_one() -> None:
    with pytest.raises(ValueError):
        await Client(Peer("127.0.0.1", 1)).send(b"MSH\x1c\r\x0bMSH", "1")
