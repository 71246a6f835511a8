"""The proof that nobody is before the release reads each number's moment and channel."""

from engine.domain import schedule as s
from engine.domain.planning import PlannedSlot, Session, Share, Stage
from engine.domain.policy import EVERYBODY, Channel
from web.audit_replay import Replayed

OPENS = 1_000_000
PLAN = (
    Session(
        "morning",
        "0304",
        "expert",
        None,
        5000,
        (PlannedSlot("0800", OPENS + 10_000_000, 2, ((0, 1), (1, 1))),),
        (
            Share("", (Stage(OPENS, int(EVERYBODY)),)),
            Share("window", (Stage(OPENS, int(Channel.WINDOW)),)),
        ),
    ),
)


def given(seat: int, channel: Channel, at: int) -> int:
    """How many faults there are when this seat was given so."""
    replayed = Replayed()
    replayed.apply(s.ScheduleOpened(PLAN), 0)
    held = s.SeatHeld(b"a" * 16, "0800", seat, b"p" * 16, b"c" * 16, at + 1, int(channel))
    replayed.apply(held, at)
    return len(replayed.too_early)


def test_a_seat_that_was_given_a_millisecond_too_soon_is_found() -> None:
    assert given(0, Channel.MINI_PROGRAM, OPENS) == 0
    assert given(0, Channel.MINI_PROGRAM, OPENS - 1) == 1
    assert given(0, Channel.WINDOW, OPENS - 1) == 1


def test_a_seat_that_was_another_channels_is_found() -> None:
    assert given(1, Channel.WINDOW, OPENS) == 0
    assert given(1, Channel.MINI_PROGRAM, OPENS) == 1
