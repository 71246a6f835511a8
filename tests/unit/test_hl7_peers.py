"""Both directions with HL7 programs that were not written here (tests/peers); hl7apy judges what we say."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from integrations.connector import OutcomeUnknown
from integrations.his import hl7_words as words
from integrations.his.his import Kind
from integrations.his.his_at import HisAt
from integrations.his.hl7_codes import TRIGGERS
from integrations.his.hl7v2_form import Hl7His
from integrations.hl7v2 import ack, mllp
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.message import Header, Message, Row, compose, parse
from tests.support.his import PERSON, ZONE, booking
from tests.support.npm_peers import peer_sends, peer_server

NAME = "张三丰𠮷"
KINDS = tuple(Kind)
AT = booking(1).starts_at


def said(n: int, kind: tuple[str, str, str], rows: list[Row], charset: str = "utf-8", **more: str) -> bytes:
    header = Header(("XINGLIN", "X"), ("HIS", "H"), kind, f"0-{n}-0", AT, charset=charset, **more)
    return compose(header, rows)


def of_kind(kind: Kind, n: int = 1, charset: str = "utf-8", **more: str) -> bytes:
    one = replace(booking(n), person=replace(PERSON, name=NAME))
    if kind is Kind.ARRIVED:
        return said(n, ("ADT", "A04", "ADT_A01"), words.arrival_rows(one, AT), charset, **more)
    before = booking(99) if kind is Kind.RESCHEDULED else None
    rows = words.schedule_rows(kind, one, before, "病人来电")
    return said(n, ("SIU", TRIGGERS[kind][1], "SIU_S12"), rows, charset, **more)


@pytest.mark.parametrize(
    ("library", "charset"),
    [
        ("simple-hl7", "utf-8"),
        ("hl7v2-net", "utf-8"),
        ("medplum", "utf-8"),
        ("medplum", "gb18030"),
    ],
)
async def test_their_servers_understand_what_we_say(library: str, charset: str) -> None:
    async with peer_server(library, charset) as server:
        client = Client(Peer("127.0.0.1", server.port, connections=1, answer_seconds_max=30, default=charset))
        for n, kind in enumerate(KINDS, 1):
            raw = of_kind(kind, n, charset)
            answer = await client.send(raw, f"0-{n}-0")
            assert answer.first("MSA").text(1) == "AA"
            got = parse((await server.got()).encode(charset))
            assert got.first("PID").text(5) == NAME
            assert [one.name for one in got.segments] == [one.name for one in parse(raw).segments]
        await client.close()


async def test_a_mebibyte_at_once() -> None:
    async with peer_server("medplum") as server:
        raw = said(1, ("ORU", "R01", "ORU_R01"), [("OBX", {2: "ED", 5: "QUJD" * 300_000})])
        client = Client(Peer("127.0.0.1", server.port, answer_seconds_max=30))
        assert (await client.send(raw, "0-1-0")).first("MSA").text(1) == "AA"
        await client.close()


async def test_their_two_acknowledgements_are_told_apart() -> None:
    """Commit, then answer: whoever takes the next frame for the answer is one behind on a kept connection."""
    async with peer_server("medplum", "utf-8", "enhanced") as server:
        client = Client(Peer("127.0.0.1", server.port, connections=1, answer_seconds_max=30))
        for n in range(1, 9):
            raw = of_kind(Kind.BOOKED, n, accept="AL", application="AL")
            msa = (await client.send(raw, f"0-{n}-0")).first("MSA")
            assert (msa.text(1), msa.text(2)) == ("AA", f"0-{n}-0")
        await client.close()


async def test_a_server_that_repeats_old_answers_is_never_believed() -> None:
    """node-hl7-server answers on a kept connection with what it said before."""
    async with peer_server("node-hl7-server") as server:
        client = Client(Peer("127.0.0.1", server.port, connections=1, answer_seconds_max=5))
        for n in range(1, 6):
            try:
                answer = await client.send(of_kind(Kind.BOOKED, n), f"0-{n}-0")
            except OutcomeUnknown:
                continue  # said again later, on another connection
            assert answer.first("MSA").text(2) == f"0-{n}-0"
        await client.close()


@pytest.mark.parametrize(
    ("library", "charset"),
    [
        ("simple-hl7", "utf-8"),
        ("hl7v2-net", "utf-8"),
        ("medplum", "utf-8"),
        ("medplum", "gb18030"),
    ],
)
async def test_we_understand_what_their_clients_say(library: str, charset: str) -> None:
    got: list[Message] = []

    async def handle(raw: bytes) -> mllp.Answers:
        got.append(parse(raw, charset))
        return ack.answers(got[-1], "AA")

    server = await mllp.serve("127.0.0.1", 0, handle)
    try:
        texts = [of_kind(kind, n, charset).decode(charset) for n, kind in enumerate(KINDS, 1)]
        acks = await peer_sends(library, server.port, texts, charset)
    finally:
        await server.abort()
    assert [parse(one.encode()).first("MSA").text(1) for one in acks] == ["AA"] * len(KINDS)
    assert [one.first("PID").text(5) for one in got] == [NAME] * len(KINDS)
    assert [one.control_id for one in got] == [f"0-{n}-0" for n in range(1, len(KINDS) + 1)]


async def test_what_they_send_wrong_is_refused_to_them() -> None:
    """hl7v2-net writes other bytes than GB18030 where MSH-18 says GB18030."""
    texts = [of_kind(Kind.BOOKED, 1, "gb18030").decode("gb18030"), of_kind(Kind.BOOKED, 2).decode()]

    async def handle(raw: bytes) -> mllp.Answers:
        return ack.answers(parse(raw), "AA")

    server = await mllp.serve("127.0.0.1", 0, handle)
    try:
        acks = await peer_sends("hl7v2-net", server.port, texts)
    finally:
        await server.abort()
    codes = [parse(one.encode()).first("MSA").text(1) for one in acks]
    assert len(codes) == 2 and codes[1] == "AA"


# A judge.


def judged(raw: bytes) -> Any:
    parser = pytest.importorskip("hl7apy.parser")
    return parser.parse_message(raw.decode(), validation_level=2, find_groups=True)


@pytest.mark.parametrize("kind", KINDS)
def test_hl7apy_finds_nothing_wrong_with_what_we_tell(kind: Kind) -> None:
    assert judged(of_kind(kind)).validate()


class Recorded:
    """What a connector asks, taken by a server of ours."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    async def handle(self, raw: bytes) -> mllp.Answers:
        self.raw.append(raw)
        return ack.ack(parse(raw), "AE", ack.Trouble(ack.UNSUPPORTED_KIND, ""))


@pytest.mark.parametrize("what", ["lock", "unlock", "find", "registrations"])
async def test_hl7apy_finds_nothing_wrong_with_what_we_ask(what: str) -> None:
    """Not QBP^Q22: hl7apy takes QPD-3 for one value, and the query's own profile repeats it."""
    recorded = Recorded()
    server = await mllp.serve("127.0.0.1", 0, recorded.handle)
    his = Hl7His(HisAt("hl7v2", host="127.0.0.1", port=server.port))
    asked = {
        "lock": lambda: his.lock(booking(1)),
        "unlock": lambda: his.unlock(booking(1).id),
        "find": lambda: his.find(booking(1).id),
        "registrations": lambda: his.registrations(AT.astimezone(ZONE).date()),
    }
    try:
        await asyncio.gather(asked[what](), return_exceptions=True)
    finally:
        await his.close()
        await server.abort()
    (raw,) = recorded.raw
    assert judged(raw).validate()


@pytest.mark.parametrize("code", ["AA", "AE"])
def test_hl7apy_finds_nothing_wrong_with_what_we_answer(code: str) -> None:
    trouble = None if code == "AA" else ack.Trouble(ack.REQUIRED, "missing", "PID-5.1")
    assert judged(ack.ack(parse(of_kind(Kind.BOOKED)), code, trouble)).validate()
