"""Bytes that others have written must be read for ever."""

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.messages import Event, Reply
from engine.domain.planning import Plan, PlannedSlot, Session, Share, Stage, plan_as_data, plan_from_data
from engine.domain.price_rules import Discount, Line
from engine.domain.refusal import Reason, Refusal
from engine.journal import codec
from tests.support import bill_bytes

ids = st.binary(min_size=16, max_size=16)
times = st.integers(0, 2**53)
texts = st.text(max_size=20)


def several(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=3).map(tuple)


runs = several(st.tuples(st.integers(0, 3), st.integers(1, 9)))
slots = st.builds(PlannedSlot, texts, times, st.integers(1, 9_999), runs)
shares = st.builds(Share, texts, several(st.builds(Stage, times, st.integers(0, 255))))
sessions = st.builds(
    Session,
    texts,
    texts,
    texts,
    st.none() | texts,
    st.integers(0, 10**6),
    several(slots),
    several(shares),
    st.sampled_from(["open", "paused", "suspended"]),
    st.none() | texts,
)
stages = st.tuples(texts, texts, texts, st.integers(0, 1))
BY_TYPE: dict[object, st.SearchStrategy[object]] = {
    bytes: ids,
    str: texts,
    str | None: st.none() | texts,
    int: times,
    bool: st.booleans(),
    Session: sessions,
    Plan: several(sessions),
    tuple[bytes, ...]: several(ids),
    tuple[str, ...]: several(texts),
    tuple[int, ...]: several(times),
    tuple[tuple[bytes, bytes], ...]: several(st.tuples(ids, ids)),
    tuple[tuple[str, str, int], ...]: several(st.tuples(texts, texts, times)),
    tuple[w.Stage, ...]: several(stages),
    tuple[w.Stage, ...] | None: st.none() | several(stages),
    w.Heir | None: st.none() | st.tuples(texts, texts, times),
    tuple[tuple[str, int], ...]: several(st.tuples(texts, times)),
    tuple[tuple[int, int], ...]: several(st.tuples(times, times)),
    tuple[Line, ...]: several(st.builds(Line, texts, texts, texts, times, st.integers(1, 99))),
    tuple[Discount, ...]: several(st.builds(Discount, texts, texts, texts, times, times, times)),
}


def any_of(kinds: Iterable[type]) -> st.SearchStrategy[object]:
    """Every field with every value of its type."""
    return st.one_of(st.builds(kind, *(BY_TYPE[f.type] for f in fields(kind))) for kind in kinds)


events = any_of(codec.EVENT_CODES)
commands = any_of(codec.COMMAND_CODES)
details = st.dictionaries(texts, st.none() | texts | st.integers(-(2**53), 2**53), max_size=3)
answers = st.builds(
    s.Answer, ids, texts, st.integers(0, 9_999), times, st.sampled_from([1, 2, 3, 4, 5, 6, 7])
)
replies = st.one_of(
    answers,
    st.builds(s.Many, several(answers)),
    st.builds(w.Told, ids, texts, times, times, texts, times, ids, times),
    st.builds(s.Revised, times, st.none() | answers),
    st.builds(s.Waiting, ids, times, times),
    st.builds(p.Answer, ids, texts, times, times, times, times, ids, times),
    st.builds(Refusal, st.sampled_from(Reason), details),
)


@given(events)
def test_an_event_reads_back(event: Event) -> None:
    assert codec.unpack_event(codec.EVENT_CODES[type(event)], codec.pack_event(event)) == event


@given(st.lists(st.tuples(texts, st.integers(1, 60_000), commands), max_size=8))
def test_a_gateways_batch_reads_back(asks: list[codec.Ask]) -> None:
    assert codec.unpack_asks(codec.pack_asks(asks)) == asks


@given(st.lists(replies, max_size=8))
def test_a_shards_replies_read_back_in_order(told: list[Reply | Refusal]) -> None:
    assert codec.unpack_replies(codec.pack_replies(told)) == told


@given(st.lists(sessions, max_size=3).map(tuple))
def test_a_plan_reads_back(plan: tuple[Session, ...]) -> None:
    assert plan_from_data(msgpack.unpackb(msgpack.packb(plan_as_data(plan)))) == plan


def test_a_status_crosses_the_wire_as_its_number() -> None:
    answer = s.Answer(bytes(16), "0800", 1, 2, s.Status.BOOKED)
    assert codec.unpack_replies(codec.pack_replies([answer])) == [answer]


A, P, B = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
PLAN = (
    Session(
        "morning",
        "0304",
        "expert",
        None,
        5000,
        (PlannedSlot("0800", 1_795_478_400_000, 2), PlannedSlot("0830", 1_795_480_200_000, 3)),
    ),
)
T = 1_795_478_400_000
EXTRA = Session(
    "morning",
    "0304",
    "expert",
    None,
    5000,
    (PlannedSlot("0800", T, 2, ((0, 1), (1, 1))),),
    (Share("window", (Stage(0, 2), Stage(T, 255))), Share("", (Stage(0, 255),))),
    "paused",
    "D0002",
)
NIGHT = Session("night", "0304", "expert", "r1", 100, (PlannedSlot("1900", T, 1),))
ON = (("examination", "", "", 0), ("visit", "D0001", "D0001", 1))
"""What is left of a journey."""

# What lies in journals out there. A line may be added; a line that is here never changes.
GOLDEN_EVENTS = [
    (
        1,
        (
            "919196a76d6f726e696e67a430333034a6657870657274c0cd13889293a430383030cf000001a20ada2c000293"
            "a430383330cf000001a20af5a34003"
        ),
        s.ScheduleOpened(PLAN),
    ),
    (
        2,
        (
            "96c410000102030405060708090a0b0c0d0e0fa43038303001c410101112131415161718191a1b1c1d1e1fc410"
            "202122232425262728292a2b2c2d2e2fcf000001a20ad41180"
        ),
        s.SeatHeld(A, "0800", 1, P, B, 1_795_478_000_000),
    ),
    (
        3,
        ("91c410000102030405060708090a0b0c0d0e0f"),
        s.SeatBooked(A),
    ),
    (
        4,
        ("92c410000102030405060708090a0b0c0d0e0fa765787069726564"),
        s.SeatReleased(A, "expired"),
    ),
    (
        2,
        (
            "9dc410000102030405060708090a0b0c0d0e0fa43038303000c410101112131415161718191a1b1c1d1e1fc410"
            "202122232425262728292a2b2c2d2e2fcf000001a20ada2c000201a773746166663a31c4102021222324252627"
            "28292a2b2c2d2e2f0301c410101112131415161718191a1b1c1d1e1f"
        ),
        s.SeatHeld(A, "0800", 0, P, B, T, 2, 1, "staff:1", B, 3, 1, P),
    ),
    (
        3,
        ("92c410000102030405060708090a0b0c0d0e0fa773746166663a31"),
        s.SeatBooked(A, "staff:1"),
    ),
    (
        4,
        (
            "97c410000102030405060708090a0b0c0d0e0fa76368616e676564a773746166663a31a3696c6ccf000001a20a"
            "da2c00c410202122232425262728292a2b2c2d2e2f03"
        ),
        s.SeatReleased(A, "changed", "staff:1", "ill", T, B, 3),
    ),
    (
        5,
        ("92c410000102030405060708090a0b0c0d0e0f02"),
        s.SeatRestored(A, 2),
    ),
    (
        6,
        ("92a430383030920002"),
        s.CoolingEnded("0800", (0, 2)),
    ),
    (
        7,
        ("93c410000102030405060708090a0b0c0d0e0fa773746166663a31a3776879"),
        s.ScheduleRevised(A, "staff:1", "why"),
    ),
    (
        8,
        (
            "9199a76d6f726e696e67a430333034a6657870657274c0cd13889194a430383030cf000001a20ada2c00029292"
            "00019201019292a677696e646f779292000292cf000001a20ada2c00ccff92a0919200ccffa6706175736564a5"
            "4430303032"
        ),
        s.SessionOpened(EXTRA),
    ),
    (
        8,
        ("9196a56e69676874a430333034a6657870657274a27231649193a431393030cf000001a20ada2c0001"),
        s.SessionOpened(NIGHT),
    ),
    (
        9,
        ("94a4303830300220a56164646564"),
        s.SeatsAdded("0800", 2, 32, "added"),
    ),
    (
        9,
        ("93a4303830300200"),
        s.SeatsAdded("0800", 2, 0),
    ),
    (
        10,
        ("92a4303830309101"),
        s.SeatsBlocked("0800", (1,)),
    ),
    (
        11,
        ("92a4303830309101"),
        s.SeatsUnblocked("0800", (1,)),
    ),
    (
        12,
        ("93a76d6f726e696e679193a430383030a430383330cf000001a20ada2c00a27232"),
        s.SessionMoved("morning", (("0800", "0830", T),), "r2"),
    ),
    (
        12,
        ("93a76d6f726e696e6790c0"),
        s.SessionMoved("morning", (), None),
    ),
    (
        13,
        ("93a76d6f726e696e67a973757370656e646564a3696c6c"),
        s.SessionStatusSet("morning", "suspended", "ill"),
    ),
    (
        14,
        ("92a76d6f726e696e67c0"),
        s.SessionSubstituted("morning", None),
    ),
    (
        15,
        ("92c410000102030405060708090a0b0c0d0e0fc2"),
        s.SubstituteAnswered(A, False),
    ),
    (
        16,
        ("93c410000102030405060708090a0b0c0d0e0fa76f666665726564c410202122232425262728292a2b2c2d2e2f"),
        s.FateDecided(A, "offered", B),
    ),
    (
        16,
        ("92c410000102030405060708090a0b0c0d0e0fa8726566756e646564"),
        s.FateDecided(A, "refunded"),
    ),
    (
        17,
        ("93c410000102030405060708090a0b0c0d0e0f06a773746166663a31"),
        s.AttendanceRecorded(A, 6, "staff:1"),
    ),
    (20, "91c410000102030405060708090a0b0c0d0e0f", s.AttendanceConfirmed(A)),
    (
        18,
        (
            "9bc410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2f91c4101011121314"
            "15161718191a1b1c1d1e1f91a43038303001cf000001a20ada2c00cf000001a20ada2c00c41010111213141516"
            "1718191a1b1c1d1e1fc410202122232425262728292a2b2c2d2e2f0301"
        ),
        s.WishAdded(A, B, (P,), ("0800",), 1, T, T, P, B, 3, 1),
    ),
    (
        18,
        (
            "98c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2f91c4101011121314"
            "15161718191a1b1c1d1e1f9000cf000001a20ada2c00cf000001a20ada2c00c410101112131415161718191a1b"
            "1c1d1e1f"
        ),
        s.WishAdded(A, B, (P,), (), 0, T, T, P),
    ),
    (
        19,
        ("92c410000102030405060708090a0b0c0d0e0fa36d6574"),
        s.WishEnded(A, "met"),
    ),
    (
        21,
        ("95c400a430333034aa323032362d31312d3234cf000001a20ada2c00cf000001a20ada2c00"),
        w.DayOpened(b"", "0304", "2026-11-24", T, T),
    ),
    (
        22,
        (
            "99c410000102030405060708090a0b0c0d0e0fa54430303031a57669736974a142cd01f5cd03e7a54430303031"
            "a773746166663a31cf000001a20ada2c00"
        ),
        w.QueueSet(A, "D0001", "visit", "B", 501, 999, "D0001", "staff:1", T),
    ),
    (
        23,
        (
            "98c410000102030405060708090a0b0c0d0e0fa27231a46f70656ea5443030303192a54430303031a767656e65"
            "72616ca773746166663a31a3776879cf000001a20ada2c00"
        ),
        w.RoomSet(A, "r1", "open", "D0001", ("D0001", "general"), "staff:1", "why", T),
    ),
    (
        23,
        (
            "99c410000102030405060708090a0b0c0d0e0fa27231a6636c6f736564a5443030303191a54430303031a77374"
            "6166663a31a3696c6ccf000001a20ada2c0093a767656e6572616ca54430303032cf000001a20ada2c00"
        ),
        w.RoomSet(A, "r1", "closed", "D0001", ("D0001",), "staff:1", "ill", T, ("general", "D0002", T)),
    ),
    (
        24,
        (
            "dc0013c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fc41010111213"
            "1415161718191a1b1c1d1e1fc410000102030405060708090a0b0c0d0e0f01a1420707cf000001a20ada2c00cf"
            "000001a20ada2c00cf000001a20ada2c009294ab6578616d696e6174696f6ea0a00094a57669736974a5443030"
            "3031a5443030303101a46167656402a56b696f736b28cf000001a20ada2c00a773746166663a31cf000001a20a"
            "da2c00"
        ),
        w.TicketIssued(A, B, P, A, 1, "B", 7, 7, T, T, T, ON, "aged", 2, "kiosk", 40, T, "staff:1", T),
    ),
    (
        24,
        (
            "dc0013c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fc41010111213"
            "1415161718191a1b1c1d1e1fc40000a14101000000009194a57669736974a54430303031a5443030303101a000"
            "a46465736bffcf000001a20ada2c00a0cf000001a20ada2c00"
        ),
        w.TicketIssued(A, B, P, b"", 0, "A", 1, 0, 0, 0, 0, ON[1:], "", 0, "desk", -1, T, "", T),
    ),
    (
        25,
        ("97c400c410202122232425262728292a2b2c2d2e2fa27231a86f7264696e617279a0a0cf000001a20ada2c00"),
        w.TicketSentToDoor(b"", B, "r1", "ordinary", "", "", T),
    ),
    (
        26,
        (
            "98c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa27231a56d6f7665"
            "64c3a773746166663a31a56661696e74cf000001a20ada2c00"
        ),
        w.TicketCalled(A, B, "r1", "moved", True, "staff:1", "faint", T),
    ),
    (
        26,
        (
            "98c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa27231a86f726469"
            "6e617279c2a773746166663a31a0cf000001a20ada2c00"
        ),
        w.TicketCalled(A, B, "r1", "ordinary", False, "staff:1", "", T),
    ),
    (
        27,
        (
            "94c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773746166663a31"
            "cf000001a20ada2c00"
        ),
        w.TicketRecalled(A, B, "staff:1", T),
    ),
    (
        28,
        (
            "94c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773746166663a31"
            "cf000001a20ada2c00"
        ),
        w.ServiceStarted(A, B, "staff:1", T),
    ),
    (
        29,
        (
            "97c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773746166663a31"
            "c2cf000001a20ada2c00cf000001a20ada2c00cf000001a20ada2c00"
        ),
        w.TicketPassed(A, B, "staff:1", False, T, T, T),
    ),
    (
        29,
        (
            "97c400c410202122232425262728292a2b2c2d2e2fa0c3cf000001a20ada2c00cf000001a20ada2c00cf000001"
            "a20ada2c00"
        ),
        w.TicketPassed(b"", B, "", True, T, T, T),
    ),
    (
        30,
        (
            "96c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fcf000001a20ada2c"
            "00a773746166663a31a472657374cf000001a20ada2c00"
        ),
        w.TicketParked(A, B, T, "staff:1", "rest", T),
    ),
    (
        31,
        (
            "96c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa56b696f736bcf00"
            "0001a20ada2c00a773746166663a31cf000001a20ada2c00"
        ),
        w.TicketReturned(A, B, "kiosk", T, "staff:1", T),
    ),
    (
        32,
        (
            "96c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2f9294ab6578616d69"
            "6e6174696f6ea0a00094a57669736974a54430303031a5443030303101cf000001a20ada2c00a773746166663a"
            "31cf000001a20ada2c00"
        ),
        w.StageFinished(A, B, ON, T, "staff:1", T),
    ),
    (
        32,
        ("96c400c410202122232425262728292a2b2c2d2e2f90cf000001a20ada2c00a773746166663a31cf000001a20ada2c00"),
        w.StageFinished(b"", B, (), T, "staff:1", T),
    ),
    (
        33,
        ("94c410202122232425262728292a2b2c2d2e2fa773746166663a31ab726f6f6d5f636c6f736564cf000001a20ada2c00"),
        w.TicketReleased(B, "staff:1", "room_closed", T),
    ),
    (
        34,
        (
            "97c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa767656e6572616c"
            "a54430303032a773746166663a31a462757379cf000001a20ada2c00"
        ),
        w.TicketTransferred(A, B, "general", "D0002", "staff:1", "busy", T),
    ),
    (
        34,
        (
            "98c400c410202122232425262728292a2b2c2d2e2fa767656e6572616ca0a773746166663a31a46c656674cf00"
            "0001a20ada2c0002"
        ),
        w.TicketTransferred(b"", B, "general", "", "staff:1", "left", T, 2),
    ),
    (
        35,
        (
            "96c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2f03a773746166663a"
            "31a56661696e74cf000001a20ada2c00"
        ),
        w.TicketMoved(A, B, 3, "staff:1", "faint", T),
    ),
    (
        36,
        (
            "97c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa46167656401a773"
            "746166663a31a6766974616c73cf000001a20ada2c00"
        ),
        w.TicketClassified(A, B, "aged", 1, "staff:1", "vitals", T),
    ),
    (
        37,
        (
            "95c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773746166663a31"
            "a4686f6d65cf000001a20ada2c00"
        ),
        w.TicketLeft(A, B, "staff:1", "home", T),
    ),
    (
        38,
        (
            "95c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773746166663a31"
            "a76d697374616b65cf000001a20ada2c00"
        ),
        w.StepUndone(A, B, "staff:1", "mistake", T),
    ),
    (
        39,
        ("96c410000102030405060708090a0b0c0d0e0fa27231c3a773746166663a31a468656c70cf000001a20ada2c00"),
        w.AlarmSet(A, "r1", True, "staff:1", "help", T),
    ),
    *bill_bytes.EVENTS,
]
GOLDEN_COMMANDS = [
    (
        (
            "9194b67363686564756c652f44312f323032362d31312d3234cd07d00195c410000102030405060708090a0b0c"
            "0d0e0fa430383030c410101112131415161718191a1b1c1d1e1fc410202122232425262728292a2b2c2d2e2fcd"
            "0384"
        ),
        ("schedule/D1/2026-11-24", 2000, s.HoldSeat(A, "0800", P, B, 900)),
    ),
    (
        (
            "9194b67363686564756c652f44312f323032362d31312d3234010292c410000102030405060708090a0b0c0d0e"
            "0fc410202122232425262728292a2b2c2d2e2f"
        ),
        ("schedule/D1/2026-11-24", 1, s.ConfirmAppointment(A, B)),
    ),
    (
        (
            "9194b67363686564756c652f44312f323032362d31312d3234010392c410000102030405060708090a0b0c0d0e"
            "0fc410202122232425262728292a2b2c2d2e2f"
        ),
        ("schedule/D1/2026-11-24", 1, s.CancelAppointment(A, B)),
    ),
    (
        (
            "9194a17301019bc410000102030405060708090a0b0c0d0e0fa430383030c410101112131415161718191a1b1c"
            "1d1e1fc410202122232425262728292a2b2c2d2e2fcd03840201a773746166663a31c410202122232425262728"
            "292a2b2c2d2e2f0301"
        ),
        ("s", 1, s.HoldSeat(A, "0800", P, B, 900, 2, 1, "staff:1", B, 3, 1)),
    ),
    (
        (
            "9194a173010293c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773"
            "746166663a31"
        ),
        ("s", 1, s.ConfirmAppointment(A, B, "staff:1")),
    ),
    (
        (
            "9194a173010394c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fa773"
            "746166663a31a3696c6c"
        ),
        ("s", 1, s.CancelAppointment(A, B, "staff:1", "ill")),
    ),
    (
        (
            "9194a1730104979292c410000102030405060708090a0b0c0d0e0fc410101112131415161718191a1b1c1d1e1f"
            "92c410202122232425262728292a2b2c2d2e2fc410000102030405060708090a0b0c0d0e0fa430383030c41020"
            "2122232425262728292a2b2c2d2e2fcd03840201a773746166663a31"
        ),
        ("s", 1, s.HoldGroup(((A, P), (B, A)), "0800", B, 900, 2, 1, "staff:1")),
    ),
    (
        (
            "9194a1730104939192c410000102030405060708090a0b0c0d0e0fc410101112131415161718191a1b1c1d1e1f"
            "a430383030c410202122232425262728292a2b2c2d2e2f"
        ),
        ("s", 1, s.HoldGroup(((A, P),), "0800", B)),
    ),
    (
        (
            "9194a173010597c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fc410"
            "101112131415161718191a1b1c1d1e1fa430333034c3cf000001a20ada2c00a773746166663a31"
        ),
        ("s", 1, s.LeaveFor(A, B, P, "0304", True, T, "staff:1")),
    ),
    (
        ("9194a173010692c410000102030405060708090a0b0c0d0e0fc3"),
        ("s", 1, s.SettleChange(A, True)),
    ),
    (
        (
            "9194a17301079bc410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2f91c4"
            "10101112131415161718191a1b1c1d1e1f91a43038303001cf000001a20ada2c00cf000001a20ada2c00c41010"
            "1112131415161718191a1b1c1d1e1fc410202122232425262728292a2b2c2d2e2f0301"
        ),
        ("s", 1, s.JoinWaitlist(A, B, (P,), ("0800",), 1, T, T, P, B, 3, 1)),
    ),
    (
        ("9194a173010892c410000102030405060708090a0b0c0d0e0fa977697468647261776e"),
        ("s", 1, s.LeaveWaitlist(A, "withdrawn")),
    ),
    (
        ("9194a173010993c410000102030405060708090a0b0c0d0e0f03a773746166663a31"),
        ("s", 1, s.RecordAttendance(A, 3, "staff:1")),
    ),
    (
        (
            "9194a173010a95c410000102030405060708090a0b0c0d0e0fffa773746166663a31a377687999a76d6f726e69"
            "6e67a430333034a6657870657274c0cd13889194a430383030cf000001a20ada2c0002929200019201019292a6"
            "77696e646f779292000292cf000001a20ada2c00ccff92a0919200ccffa6706175736564a54430303032"
        ),
        ("s", 1, s.OpenSession(A, -1, "staff:1", "why", EXTRA)),
    ),
    (
        ("9194a173010b97c410000102030405060708090a0b0c0d0e0f02a773746166663a31a3776879a76d6f726e696e67a0ff"),
        ("s", 1, s.ChangeCapacity(A, 2, "staff:1", "why", "morning", "", -1)),
    ),
    (
        ("9194a173010c97c410000102030405060708090a0b0c0d0e0f02a773746166663a31a3776879a4303830300320"),
        ("s", 1, s.AddSeats(A, 2, "staff:1", "why", "0800", 3, 32)),
    ),
    (
        (
            "9194a173010d99c410000102030405060708090a0b0c0d0e0f02a773746166663a31a3776879a430383030c410"
            "202122232425262728292a2b2c2d2e2fc410101112131415161718191a1b1c1d1e1fc410000102030405060708"
            "090a0b0c0d0e0f01"
        ),
        ("s", 1, s.AddPatient(A, 2, "staff:1", "why", "0800", B, P, A, 1)),
    ),
    (
        (
            "9194a173010e97c410000102030405060708090a0b0c0d0e0f02a773746166663a31a3776879a76d6f726e696e"
            "679193a430383030a430383330cf000001a20ada2c00c0"
        ),
        ("s", 1, s.MoveSession(A, 2, "staff:1", "why", "morning", (("0800", "0830", T),), None)),
    ),
    (
        (
            "9194a173010f97c410000102030405060708090a0b0c0d0e0f02a773746166663a31a3776879a76d6f726e696e"
            "67a6706175736564a3696c6c"
        ),
        ("s", 1, s.SetSessionStatus(A, 2, "staff:1", "why", "morning", "paused", "ill")),
    ),
    (
        (
            "9194a173011096c410000102030405060708090a0b0c0d0e0f02a773746166663a31a3776879a76d6f726e696e"
            "67a54430303032"
        ),
        ("s", 1, s.SubstituteSession(A, 2, "staff:1", "why", "morning", "D0002")),
    ),
    (
        ("9194a173011193c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2fc3"),
        ("s", 1, s.AnswerSubstitute(A, B, True)),
    ),
    (
        (
            "9194a173011293c410000102030405060708090a0b0c0d0e0faa776169746c6973746564c41020212223242526"
            "2728292a2b2c2d2e2f"
        ),
        ("s", 1, s.DecideFate(A, "waitlisted", B)),
    ),
    (
        ("9194a173011392c410000102030405060708090a0b0c0d0e0fc410202122232425262728292a2b2c2d2e2f"),
        ("s", 1, s.ConfirmAttendance(A, B)),
    ),
    (("9194a173011491c410000102030405060708090a0b0c0d0e0f"), ("s", 1, s.ReleaseUnconfirmed(A))),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011596c410000102030405060708090a0b0c0d0e0fa7"
            "67656e6572616ca57669736974a14101cd03e7"
        ),
        ("room/0304/2026-11-24", 1, w.SetQueue(A, "general", "visit", "A", 1, 999)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011598c410000102030405060708090a0b0c0d0e0fa5"
            "4430303031a57669736974a142cd01f5cd03e7a54430303031a773746166663a31"
        ),
        ("room/0304/2026-11-24", 1, w.SetQueue(A, "D0001", "visit", "B", 501, 999, "D0001", "staff:1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011693c410000102030405060708090a0b0c0d0e0fa2"
            "723192a54430303031a767656e6572616c"
        ),
        ("room/0304/2026-11-24", 1, w.OpenRoom(A, "r1", ("D0001", "general"))),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011696c410000102030405060708090a0b0c0d0e0fa2"
            "723191a54430303031a54430303031a773746166663a3103"
        ),
        ("room/0304/2026-11-24", 1, w.OpenRoom(A, "r1", ("D0001",), "D0001", "staff:1", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011795c410000102030405060708090a0b0c0d0e0fa2"
            "7231a773746166663a31a47265737403"
        ),
        ("room/0304/2026-11-24", 1, w.PauseRoom(A, "r1", "staff:1", "rest", 3)),
    ),
    (
        ("9194b4726f6f6d2f303330342f323032362d31312d3234011892c410000102030405060708090a0b0c0d0e0fa27231"),
        ("room/0304/2026-11-24", 1, w.CloseRoom(A, "r1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011899c410000102030405060708090a0b0c0d0e0fa2"
            "7231a773746166663a31a3696c6c03a767656e6572616ca54430303032c3cf000001a20ada2c00"
        ),
        ("room/0304/2026-11-24", 1, w.CloseRoom(A, "r1", "staff:1", "ill", 3, "general", "D0002", True, T)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d323401199ec410000102030405060708090a0b0c0d0e0fc4"
            "10101112131415161718191a1b1c1d1e1fa56b696f736bffc410202122232425262728292a2b2c2d2e2fc41010"
            "1112131415161718191a1b1c1d1e1fa430333034a54430303031aa323032362d31312d3234c3cf000001a20ada"
            "2c00cf000001a20ada2c00cf000001a20ada2c0007"
        ),
        (
            "room/0304/2026-11-24",
            1,
            w.CheckIn(A, P, "kiosk", -1, B, P, "0304", "D0001", "2026-11-24", True, T, T, T, 7),
        ),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d32340119dc0014c410000102030405060708090a0b0c0d0e"
            "0fc410101112131415161718191a1b1c1d1e1fac6d696e695f70726f6772616d28c41020212223242526272829"
            "2a2b2c2d2e2fc410101112131415161718191a1b1c1d1e1fa430333034a54430303031aa323032362d31312d32"
            "34c3cf000001a20ada2c00cf000001a20ada2c00cf000001a20ada2c000701a54430303031a461676564029294"
            "ab6578616d696e6174696f6ea0a00094a57669736974a54430303031a5443030303101a773746166663a31"
        ),
        (
            "room/0304/2026-11-24",
            1,
            w.CheckIn(
                A,
                P,
                "mini_program",
                40,
                B,
                P,
                "0304",
                "D0001",
                "2026-11-24",
                True,
                T,
                T,
                T,
                7,
                1,
                "D0001",
                "aged",
                2,
                ON,
                "staff:1",
            ),
        ),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011a94c410000102030405060708090a0b0c0d0e0fc4"
            "10101112131415161718191a1b1c1d1e1fa46465736ba767656e6572616c"
        ),
        ("room/0304/2026-11-24", 1, w.TakeNumber(A, P, "desk", "general")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011a9cc410000102030405060708090a0b0c0d0e0fc4"
            "10101112131415161718191a1b1c1d1e1fac6d696e695f70726f6772616da767656e6572616c28a54430303031"
            "cf000001a20ada2c0001a461676564029294ab6578616d696e6174696f6ea0a00094a57669736974a544303030"
            "31a5443030303101a773746166663a31"
        ),
        (
            "room/0304/2026-11-24",
            1,
            w.TakeNumber(A, P, "mini_program", "general", 40, "D0001", T, 1, "aged", 2, ON, "staff:1"),
        ),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011b93c410000102030405060708090a0b0c0d0e0fa2"
            "7231a773746166663a31"
        ),
        ("room/0304/2026-11-24", 1, w.CallNext(A, "r1", "staff:1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011b95c410000102030405060708090a0b0c0d0e0fa2"
            "7231a773746166663a3103c2"
        ),
        ("room/0304/2026-11-24", 1, w.CallNext(A, "r1", "staff:1", 3, False)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011c94c410000102030405060708090a0b0c0d0e0fa2"
            "7231c410202122232425262728292a2b2c2d2e2fa773746166663a31"
        ),
        ("room/0304/2026-11-24", 1, w.CallTicket(A, "r1", B, "staff:1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011c96c410000102030405060708090a0b0c0d0e0fa2"
            "7231c410202122232425262728292a2b2c2d2e2fa773746166663a31a56661696e7403"
        ),
        ("room/0304/2026-11-24", 1, w.CallTicket(A, "r1", B, "staff:1", "faint", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011d94c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a3103"
        ),
        ("room/0304/2026-11-24", 1, w.Recall(A, B, "staff:1", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011e94c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a3103"
        ),
        ("room/0304/2026-11-24", 1, w.StartService(A, B, "staff:1", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234011f94c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a3103"
        ),
        ("room/0304/2026-11-24", 1, w.PassTicket(A, B, "staff:1", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012096c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a31a472657374cf000001a20ada2c0003"
        ),
        ("room/0304/2026-11-24", 1, w.ParkTicket(A, B, "staff:1", "rest", T, 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012195c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fac6d696e695f70726f6772616d28a773746166663a31"
        ),
        ("room/0304/2026-11-24", 1, w.ReturnTicket(A, B, "mini_program", 40, "staff:1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012293c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a31"
        ),
        ("room/0304/2026-11-24", 1, w.FinishTicket(A, B, "staff:1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012295c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a319294ab6578616d696e6174696f6ea0a00094a576"
            "69736974a54430303031a544303030310103"
        ),
        ("room/0304/2026-11-24", 1, w.FinishTicket(A, B, "staff:1", ON, 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012397c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa767656e6572616ca773746166663a31a462757379a5443030303203"
        ),
        ("room/0304/2026-11-24", 1, w.TransferTicket(A, B, "general", "staff:1", "busy", "D0002", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012496c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2f03a773746166663a31a56661696e7403"
        ),
        ("room/0304/2026-11-24", 1, w.MoveTicket(A, B, 3, "staff:1", "faint", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012597c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa46167656401a773746166663a31a6766974616c7303"
        ),
        ("room/0304/2026-11-24", 1, w.ClassifyTicket(A, B, "aged", 1, "staff:1", "vitals", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012696c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa27231a773746166663a31aa776865656c636861697203"
        ),
        ("room/0304/2026-11-24", 1, w.SendToDoor(A, B, "r1", "staff:1", "wheelchair", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012795c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2fa773746166663a31a4686f6d6503"
        ),
        ("room/0304/2026-11-24", 1, w.LeaveTicket(A, B, "staff:1", "home", 3)),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012895c410000102030405060708090a0b0c0d0e0fc4"
            "10202122232425262728292a2b2c2d2e2f03a773746166663a31a76d697374616b65"
        ),
        ("room/0304/2026-11-24", 1, w.UndoStep(A, B, 3, "staff:1", "mistake")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012993c410000102030405060708090a0b0c0d0e0fa2"
            "7231a773746166663a31"
        ),
        ("room/0304/2026-11-24", 1, w.SoundAlarm(A, "r1", "staff:1")),
    ),
    (
        (
            "9194b4726f6f6d2f303330342f323032362d31312d3234012995c410000102030405060708090a0b0c0d0e0fa2"
            "7231a773746166663a31c2a46f766572"
        ),
        ("room/0304/2026-11-24", 1, w.SoundAlarm(A, "r1", "staff:1", False, "over")),
    ),
    *bill_bytes.COMMANDS,
]
GOLDEN_REPLIES = [
    (
        ("91920095c410000102030405060708090a0b0c0d0e0fa43038303003cf000001a20ada2c0002"),
        s.Answer(A, "0800", 3, T, 2),
    ),
    (("919301aa62656c6f775f736f6c6481a4736f6c6402"), Refusal(Reason.BELOW_SOLD, {"sold": 2})),
    (
        ("9192029195c410000102030405060708090a0b0c0d0e0fa43038303003cf000001a20ada2c0001"),
        s.Many((s.Answer(A, "0800", 3, T, 1),)),
    ),
    (("91930307c0"), s.Revised(7)),
    (
        ("9193030795c410000102030405060708090a0b0c0d0e0fa43038303003cf000001a20ada2c0002"),
        s.Revised(7, s.Answer(A, "0800", 3, T, 2)),
    ),
    (("91920493c410000102030405060708090a0b0c0d0e0f0102"), s.Waiting(A, 1, 2)),
    (
        (
            "91920598c410202122232425262728292a2b2c2d2e2fa4423030370302a2723104c41010111213141516171819"
            "1a1b1c1d1e1f15"
        ),
        w.Told(B, "B007", 3, 2, "r1", 4, P, 21),
    ),
    (("91920590"), w.Told()),
    *bill_bytes.REPLIES,
]


@pytest.mark.parametrize(("code", "data", "event"), GOLDEN_EVENTS)
def test_the_bytes_of_each_event_are_pinned(code: int, data: str, event: Event) -> None:
    assert codec.EVENT_CODES[type(event)] == code
    assert codec.pack_event(event).hex() == data
    assert codec.unpack_event(code, bytes.fromhex(data)) == event


def test_every_event_has_a_pinned_line_and_a_code_of_its_own() -> None:
    assert {type(event) for _, _, event in GOLDEN_EVENTS} == set(codec.EVENT_CODES)
    assert set(codec.EVENT_CODES) == set(Event.__args__)
    assert len(set(codec.EVENT_CODES.values())) == len(codec.EVENT_CODES)


@pytest.mark.parametrize(("data", "ask"), GOLDEN_COMMANDS)
def test_the_bytes_of_each_command_are_pinned(data: str, ask: codec.Ask) -> None:
    """Gateways and shards of two releases talk to each other while an upgrade rolls."""
    assert codec.pack_asks([ask]).hex() == data
    assert codec.unpack_asks(bytes.fromhex(data)) == [ask]


@pytest.mark.parametrize(("data", "reply"), GOLDEN_REPLIES)
def test_the_bytes_of_each_reply_are_pinned(data: str, reply: Reply | Refusal) -> None:
    assert codec.pack_replies([reply]).hex() == data
    assert codec.unpack_replies(bytes.fromhex(data)) == [reply]
    assert {type(told) for _, told in GOLDEN_REPLIES} == {*Reply.__args__, Refusal}


@pytest.mark.parametrize("kind", [*codec.EVENT_CODES, *codec.COMMAND_CODES])
def test_what_is_as_by_default_is_left_out_only_at_the_end(kind: type) -> None:
    """A value as by default between two others stays in its place."""
    optional = [f for f in fields(kind) if f.default is not MISSING]
    if len(optional) < 2:
        return
    goldens = [e for _, _, e in GOLDEN_EVENTS] + [ask[2] for _, ask in GOLDEN_COMMANDS]
    full = max((g for g in goldens if type(g) is kind), key=lambda g: len(codec._FIELDS[kind](g)))
    assert len(codec._FIELDS[kind](full)) == len(fields(kind))
    gap = replace(full, **{optional[0].name: optional[0].default})
    assert len(codec._FIELDS[kind](gap)) == len(fields(kind))
    end = replace(full, **{f.name: f.default for f in optional})
    assert len(codec._FIELDS[kind](end)) == len(fields(kind)) - len(optional)


def test_every_command_that_travels_has_a_pinned_line() -> None:
    assert {type(ask[2]) for _, ask in GOLDEN_COMMANDS} == set(codec.COMMAND_CODES)


def test_bytes_from_before_a_field_was_added_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule under which fields are added: at the end, with a default."""

    @dataclass(frozen=True, slots=True)
    class SeatReleased:
        appointment_id: bytes
        reason: str
        by: str = "nobody"

    monkeypatch.setitem(codec._READ_EVENT, 4, SeatReleased)
    old = codec.pack_event(s.SeatReleased(A, "expired"))
    assert codec.unpack_event(4, old) == SeatReleased(A, "expired", "nobody")


def test_an_event_of_an_unknown_code_is_never_guessed() -> None:
    with pytest.raises(KeyError):
        codec.unpack_event(99, codec.pack_event(s.SeatBooked(A)))
