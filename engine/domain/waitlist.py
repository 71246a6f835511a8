"""候补: who is next for a seat that has come back. Used inside schedule.py: release and offer are one step.

A wish waits at every practitioner's day that would do; each of them keeps its own copy. First come, first
served, within classes of priority. A group is offered seats only where all of it finds room at once, and
never stops those behind it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.domain import seats
from engine.domain.ids import derived
from engine.domain.limits import SLOT_MS
from engine.domain.seats import Slot


@dataclass(slots=True)
class Wish:
    wish_id: bytes
    account_id: bytes
    patient_ids: tuple[bytes, ...]  # all or nobody
    clocks: tuple[str, ...]  # slots that would do; empty: any of the day
    priority: int  # the higher, the sooner
    since: int  # ms, when it was made: the same at every actor
    until: int  # ms, then it ends by itself
    seed: bytes  # 16 bytes, this wish at this actor: offers' ids are made of it
    replaces: bytes = b""  # a booked appointment that would be given up for an earlier one
    waives: int = 0  # claims that the replaced appointment holds and would pass on
    visit: int = 0
    skips: set[str] = field(default_factory=set)  # offered and declined, or not to be had
    offered: list[bytes] = field(default_factory=list)  # appointments held for it now
    offers: int = 0


def queue(wishes: Iterable[Wish]) -> list[Wish]:
    """Who is next, first of all."""
    return sorted(wishes, key=lambda wish: (-wish.priority, wish.since, wish.wish_id))


def position(wishes: Mapping[bytes, Wish], wish_id: bytes) -> int:
    """From 1, among those who wait here."""
    return 1 + next(n for n, wish in enumerate(queue(wishes.values())) if wish.wish_id == wish_id)


def fits(wish: Wish, slot: Slot, now: int, closes_ms: int) -> bool:
    """Whether this slot could be offered to this wish now, if it has a seat."""
    return (
        not wish.offered
        and now < wish.until
        and (not wish.clocks or slot.clock in wish.clocks)
        and slot.clock not in wish.skips
        and slot.session.status == "open"
        and now < slot.starts_at - closes_ms
    )


def offer_id(wish: Wish, member: int) -> bytes:
    """The appointment that is offered: derived, so that a replay or a retry makes the same one."""
    return derived(b"offer", wish.seed, wish.offers.to_bytes(4, "big"), bytes([member]))


def together(
    slots: Iterable[Slot], first: Slot, count: int, channel: int, now: int, free: Mapping[str, int]
) -> list[tuple[Slot, int]] | None:
    """Seats for `count` people at neighbouring times of one session, or None.

    The shortest run of half hours without a gap that holds `first` and has room for all; of two as short the
    earlier one. `free` are the seats to give out, by clock. Gives (slot, seat) by time.
    """
    mine = sorted(
        (s for s in slots if s.session is first.session and s.clock in free), key=lambda s: s.starts_at
    )
    at = mine.index(first)
    best: tuple[int, int] | None = None
    for begin in range(at, -1, -1):
        if begin < at and mine[begin + 1].starts_at - mine[begin].starts_at > SLOT_MS:
            break
        room = 0
        for end in range(begin, len(mine)):
            if end > begin and mine[end].starts_at - mine[end - 1].starts_at > SLOT_MS:
                break
            room += free[mine[end].clock].bit_count()
            if end >= at and room >= count:
                if best is None or end - begin <= best[1] - best[0]:
                    best = begin, end
                break
    if best is None:
        return None
    found: list[tuple[Slot, int]] = []
    # Who wished for `first` gets it before its neighbours do.
    for slot in sorted(
        mine[best[0] : best[1] + 1], key=lambda s: (abs(s.starts_at - first.starts_at), s.starts_at)
    ):
        left = free[slot.clock]
        while left and len(found) < count:
            seat = seats.choose(slot, channel, now, left)
            left &= ~(1 << seat)
            found.append((slot, seat))
    return sorted(found, key=lambda each: (each[0].starts_at, each[1]))
