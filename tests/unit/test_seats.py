"""Who may have which seat, when, and under which number."""

import pytest

from engine.domain import seats
from engine.domain.planning import PlannedSlot, Session, Share, Stage
from engine.domain.policy import Channel

MINI, WINDOW, DOCTOR = int(Channel.MINI_PROGRAM), int(Channel.WINDOW), int(Channel.DOCTOR)
OPENS = 1_000
SHARES = (
    Share("window", (Stage(0, WINDOW), Stage(OPENS, WINDOW | MINI))),
    Share("late", (Stage(OPENS, 255),)),
    Share("", (Stage(0, 255),)),
)


def slots_of(*runs: tuple[tuple[int, int], ...], shares: tuple[Share, ...] = SHARES) -> dict[str, seats.Slot]:
    planned = tuple(
        PlannedSlot(f"{8 + n:02}00", n * 3_600_000, sum(many for _, many in mine), mine if shares else ())
        for n, mine in enumerate(runs)
    )
    slots: dict[str, seats.Slot] = {}
    seats.run_session(Session("morning", "d", "c", None, 1, planned, shares), slots)
    return slots


def numbers(slots: dict[str, seats.Slot]) -> list[list[int]]:
    return [[seats.number_of(slot, n) for n in range(slot.capacity)] for slot in slots.values()]


@pytest.mark.parametrize(
    ("channel", "now", "may", "chosen"),
    [
        (MINI, OPENS - 1, 0b100, 2),  # the rest only
        (WINDOW, OPENS - 1, 0b101, 0),  # its own first, so that the rest stays for the others
        (MINI, OPENS, 0b111, 0),  # fewest channels first
        (DOCTOR, OPENS, 0b110, 1),
        (DOCTOR, OPENS - 1, 0b100, 2),
    ],
)
def test_seats_are_given_from_the_share_with_the_fewest_takers(
    channel: int, now: int, may: int, chosen: int
) -> None:
    slot = slots_of(((0, 1), (1, 1), (2, 1)))["0800"]
    assert seats.seats_for(slot, channel, now) == may
    assert seats.choose(slot, channel, now, may) == chosen
    assert seats.choose(slot, channel, now, 0) == -1


def test_what_is_taken_blocked_or_cools_is_not_free() -> None:
    slot = slots_of(((0, 2), (2, 3)))["0800"]
    slot.taken, slot.blocked, slot.cooling = 0b00001, 0b00010, 0b00100
    assert seats.free(slot) == 0b11000
    assert seats.remaining(slot) == 2
    assert seats.remaining_by_share(slot) == [0, 0, 2]


def test_a_channel_is_told_when_it_gets_more() -> None:
    slot = slots_of(((0, 1), (2, 1)))["0800"]
    assert seats.opens_at(slot, MINI, 0) == OPENS
    assert seats.opens_at(slot, MINI, OPENS) is None
    assert seats.opens_at(slot, WINDOW, 0) == OPENS  # the late share


def test_numbers_go_on_and_are_never_given_twice() -> None:
    slots = slots_of(((2, 2),), ((2, 1),))
    seats.add_seats(slots, slots["0800"], 2, 0, "")
    more = Session("morning", "d", "c", None, 1, (PlannedSlot("1000", 0, 2),))
    seats.run_session(more, slots)
    seats.add_seats(slots, slots["0900"], 1, 255, "added")
    assert numbers(slots) == [[1, 2, 4, 5], [3, 8], [6, 7]]


def test_seats_for_some_channels_begin_shares_where_there_were_none() -> None:
    slots = slots_of(((0, 2),), ((0, 1),), shares=())
    seats.add_seats(slots, slots["0800"], 1, DOCTOR, "added")
    assert [slot.masks for slot in slots.values()] == [[0b011, 0b100], [0b1, 0]]
    assert seats.seats_for(slots["0800"], MINI, 0) == 0b011
    seats.add_seats(slots, slots["0900"], 1, DOCTOR, "added")
    assert slots["0900"].masks == [0b01, 0b10], "the same share again"


def test_seats_for_everybody_begin_no_shares() -> None:
    slots = slots_of(((0, 2),), shares=())
    seats.add_seats(slots, slots["0800"], 1, 255, "added")
    assert slots["0800"].masks == []


def test_more_capacity_is_everybodys_where_anything_is() -> None:
    """Not of the first pool in the list, which may be for referrals alone."""
    slots = slots_of(((0, 1), (2, 1)))
    seats.add_seats(slots, slots["0800"], 1, 0, "")
    assert slots["0800"].masks == [0b001, 0, 0b110]


@pytest.mark.parametrize("shares", [(), SHARES[:1]])
def test_slots_that_come_later_bring_their_own_shares(shares: tuple[Share, ...]) -> None:
    slots = slots_of(((2, 1),))
    runs = ((0, 2),) if shares else ()
    seats.run_session(
        Session("morning", "d", "c", None, 1, (PlannedSlot("1000", 0, 2, runs),), shares), slots
    )
    where = 0 if shares else 3  # the plan's window share; or a public one
    assert slots["1000"].masks[where] == 0b11
    assert {len(slot.masks) for slot in slots.values()} == {3 if shares else 4}
    assert not any(seats.conservation_error(slot) for slot in slots.values())
    assert seats.plan_of(slots)[0].slots[1].runs == ((where, 2),)


def test_conservation_sees_each_kind_of_damage() -> None:
    slot = slots_of(((0, 1), (2, 1)))["0800"]
    assert seats.conservation_error(slot) == 0
    slot.taken = slot.blocked = 1
    assert seats.conservation_error(slot) == 1
    slot.taken, slot.blocked = 0b100, 0
    assert seats.conservation_error(slot) == 1
    slot.taken, slot.masks = 0, [0b11, 0, 0b10]
    assert seats.conservation_error(slot) == 1
