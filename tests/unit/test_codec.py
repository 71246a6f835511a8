"""Bytes that others have written must be read for ever."""

from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain import schedule as s
from engine.domain.planning import PlannedSlot, Session, plan_as_data, plan_from_data
from engine.domain.refusal import Reason, Refusal
from engine.journal import codec

ids = st.binary(min_size=16, max_size=16)
times = st.integers(0, 2**53)
texts = st.text(max_size=20)
slots = st.builds(PlannedSlot, texts, times, st.integers(1, 9_999))
slot_lists = st.lists(slots, max_size=4).map(tuple)
sessions = st.builds(
    Session,
    texts,
    texts,
    texts,
    st.none() | texts,
    st.integers(0, 10**6),
    st.lists(slots, max_size=4).map(tuple),
)
events = st.one_of(
    st.builds(s.ScheduleOpened, st.lists(sessions, max_size=3).map(tuple)),
    st.builds(s.SeatHeld, ids, texts, st.integers(0, 9_999), ids, ids, times),
    st.builds(s.SeatBooked, ids),
    st.builds(s.SeatReleased, ids, st.sampled_from(["cancelled", "expired", "lost_claim"])),
)
commands = st.one_of(
    st.builds(s.HoldSeat, ids, texts, ids, ids, st.integers(0, 3600)),
    st.builds(s.ConfirmAppointment, ids, ids),
    st.builds(s.CancelAppointment, ids, ids),
)
details = st.dictionaries(texts, st.none() | texts | st.integers(-(2**53), 2**53), max_size=3)
replies = st.one_of(
    st.builds(s.Answer, ids, texts, st.integers(0, 9_999), times, st.sampled_from([1, 2, 3, 4, 5, 6, 7])),
    st.builds(Refusal, st.sampled_from(Reason), details),
)


@given(events)
def test_an_event_reads_back(event: s.Event) -> None:
    assert codec.unpack_event(codec.EVENT_CODES[type(event)], codec.pack_event(event)) == event


@given(st.lists(st.tuples(texts, st.integers(1, 60_000), commands), max_size=8))
def test_a_gateways_batch_reads_back(asks: list[codec.Ask]) -> None:
    assert codec.unpack_asks(codec.pack_asks(asks)) == asks


@given(st.lists(replies, max_size=8))
def test_a_shards_replies_read_back_in_order(answers: list[s.Answer | Refusal]) -> None:
    assert codec.unpack_replies(codec.pack_replies(answers)) == answers


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
]


@pytest.mark.parametrize(("code", "data", "event"), GOLDEN_EVENTS)
def test_the_bytes_of_each_event_are_pinned(code: int, data: str, event: s.Event) -> None:
    assert codec.EVENT_CODES[type(event)] == code
    assert codec.pack_event(event).hex() == data
    assert codec.unpack_event(code, bytes.fromhex(data)) == event


def test_every_event_has_a_pinned_line_and_a_code_of_its_own() -> None:
    assert {type(event) for _, _, event in GOLDEN_EVENTS} == set(codec.EVENT_CODES)
    assert set(codec.EVENT_CODES) == set(s.Event.__args__)
    assert len(set(codec.EVENT_CODES.values())) == len(codec.EVENT_CODES)


@pytest.mark.parametrize(("data", "ask"), GOLDEN_COMMANDS)
def test_the_bytes_of_each_command_are_pinned(data: str, ask: codec.Ask) -> None:
    """Gateways and shards of two releases talk to each other while an upgrade rolls."""
    assert codec.pack_asks([ask]).hex() == data
    assert codec.unpack_asks(bytes.fromhex(data)) == [ask]


def test_every_command_that_travels_has_a_pinned_line() -> None:
    assert {type(ask[2]) for _, ask in GOLDEN_COMMANDS} == set(codec.COMMAND_CODES)


def test_bytes_from_before_a_field_was_added_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule under which fields are added: at the end, with a default."""

    @dataclass(frozen=True, slots=True)
    class SeatReleased:
        appointment_id: bytes
        reason: str
        by: str = "nobody"

    monkeypatch.setitem(codec._EVENTS, 4, SeatReleased)
    old = codec.pack_event(s.SeatReleased(A, "expired"))
    assert codec.unpack_event(4, old) == SeatReleased(A, "expired", "nobody")


def test_an_event_of_an_unknown_code_is_never_guessed() -> None:
    with pytest.raises(KeyError):
        codec.unpack_event(99, codec.pack_event(s.SeatBooked(A)))
