"""Seats of a half hour, as bits: which are free, and to whom.

Every seat is exactly one of free, held or booked (`taken`), blocked, cooling. A share says who may have its
seats from when on; a session without shares is open to everybody.
"""

from dataclasses import dataclass, field
from typing import Final

from engine.domain.planning import Plan, PlannedSlot, Session, Share, Stage

PUBLIC: Final = Share("public", (Stage(0, 255),))
"""Of seats that are everybody's in a session whose seats differ."""


@dataclass(slots=True)
class RunningSession:
    """A session as it is now; the plan says how it began."""

    period: str
    department_id: str
    number_class_id: str
    room_id: str | None
    fee_fen: int
    shares: tuple[Share, ...] = ()
    status: str = "open"  # open | paused | suspended
    substitute_id: str | None = None
    last_number: int = 0  # 序号: seats that are added get the next ones
    visits: list[int] = field(default_factory=lambda: [0, 0])  # taken by first visits, by follow-ups


@dataclass(slots=True)
class Slot:
    clock: str  # this very string is shared by the slot's appointments
    starts_at: int
    capacity: int  # seats that exist, whatever their state
    first_number: int  # 序号 of seat 0
    session: RunningSession
    taken: int = 0  # a bit a seat: held or booked
    blocked: int = 0
    cooling: int = 0  # returned, and not to be had before its time
    masks: list[int] = field(default_factory=list)
    """The seats of each share of the session; empty where the session has none."""
    added: list[int] = field(default_factory=list)
    """The numbers of seats that came after the plan; they are the last ones."""
    formerly: frozenset[str] = frozenset()
    """Clocks under which this slot was asked for before its session moved."""


def number_of(slot: Slot, seat: int) -> int:
    planned = slot.capacity - len(slot.added)
    return slot.first_number + seat if seat < planned else slot.added[seat - planned]


def free(slot: Slot) -> int:
    """The free seats, whoever may have them."""
    return ((1 << slot.capacity) - 1) & ~(slot.taken | slot.blocked | slot.cooling)


def remaining(slot: Slot) -> int:
    """Free seats. A hold past its time counts as taken until the sweeper's second is over."""
    return slot.capacity - (slot.taken | slot.blocked | slot.cooling).bit_count()


def remaining_by_share(slot: Slot) -> int | list[int]:
    """What the feed says: one number, or one for each share."""
    if not slot.masks:
        return remaining(slot)
    seats = free(slot)
    return [(mask & seats).bit_count() for mask in slot.masks]


def seats_for(slot: Slot, channel: int, now: int) -> int:
    """The seats that a channel may have at this moment, free or not."""
    shares = slot.session.shares
    if not shares:
        return (1 << slot.capacity) - 1
    seats = 0
    for share, mask in zip(shares, slot.masks, strict=True):
        if share.channels(now) & channel:
            seats |= mask
    return seats


def choose(slot: Slot, channel: int, now: int, among: int) -> int:
    """The seat to give out of `among` (bits), or -1. The share with the fewest takers first, so that what is
    kept for one channel is used before what is everybody's; in it the lowest number."""
    shares = slot.session.shares
    if not shares:
        return (among & -among).bit_length() - 1
    best, fewest = -1, 99
    for share, mask in zip(shares, slot.masks, strict=True):
        who = share.channels(now)
        if who & channel and mask & among and who.bit_count() < fewest:
            best, fewest = lowest(mask & among), who.bit_count()
    return best


def lowest(seats: int) -> int:
    """The lowest of these seats; -1 when there is none."""
    return (seats & -seats).bit_length() - 1


def indices(seats: int) -> list[int]:
    found = []
    while seats:
        lowest_bit = seats & -seats
        found.append(lowest_bit.bit_length() - 1)
        seats ^= lowest_bit
    return found


def bits(seats: "list[int] | tuple[int, ...]") -> int:
    found = 0
    for seat in seats:
        found |= 1 << seat
    return found


def opens_at(slot: Slot, channel: int, now: int) -> int | None:
    """The next moment at which this channel gets more seats here; None: never again."""
    moments = [
        stage.at
        for share in slot.session.shares
        for stage in share.stages
        if stage.at > now and stage.channels & channel and not share.channels(now) & channel
    ]
    return min(moments, default=None)


def run_session(planned: Session, slots: dict[str, Slot]) -> None:
    """Makes the slots of a session that opens; numbers go on where its earlier slots ended."""
    session = next((s.session for s in slots.values() if s.session.period == planned.period), None)
    if session is None:
        session = RunningSession(
            planned.period,
            planned.department_id,
            planned.number_class_id,
            planned.room_id,
            planned.fee_fen,
            planned.shares,
            planned.status,
            planned.substitute_id,
        )
        shares = tuple(range(len(session.shares)))
    else:
        shares = _share_of_each(planned, session, slots)
    for each in planned.slots:
        slots[each.clock] = Slot(
            each.clock,
            each.starts_at,
            each.capacity,
            session.last_number + 1,
            session,
            masks=_masks(each, shares, len(session.shares)),
        )
        session.last_number += each.capacity


def _share_of_each(planned: Session, session: RunningSession, slots: dict[str, Slot]) -> tuple[int, ...]:
    """Where the shares of slots that come later are among those of their session, which has them then."""
    if planned.shares and not session.shares:
        _begin_shares(slots, session)
    wanted = planned.shares or ((PUBLIC,) if session.shares else ())
    return tuple(_have_share(slots, session, share) for share in wanted)


def _masks(planned: PlannedSlot, shares: tuple[int, ...], many: int) -> list[int]:
    if not many:
        return []
    masks = [0] * many
    seat = 0
    for share, seats in planned.runs or ((0, planned.capacity),):
        masks[shares[share]] |= ((1 << seats) - 1) << seat
        seat += seats
    return masks


def add_seats(slots: dict[str, Slot], slot: Slot, count: int, channels: int, pool: str) -> None:
    """New seats at the end of a slot, with the session's next numbers. `channels` 0: as those seats of the
    session that most may have in the end."""
    session = slot.session
    new = ((1 << count) - 1) << slot.capacity
    if channels and not session.shares and channels != 255:
        _begin_shares(slots, session)
    if session.shares:
        wanted = Share(pool, (Stage(0, channels),)) if channels else max(session.shares, key=_who_may)
        slot.masks[_have_share(slots, session, wanted)] |= new
    slot.capacity += count
    slot.added += range(session.last_number + 1, session.last_number + 1 + count)
    session.last_number += count


def _begin_shares(slots: dict[str, Slot], session: RunningSession) -> None:
    """From now on seats of this session differ in who may have them: those so far are everybody's."""
    session.shares = (PUBLIC,)
    for slot in slots.values():
        if slot.session is session:
            slot.masks = [(1 << slot.capacity) - 1]


def _have_share(slots: dict[str, Slot], session: RunningSession, share: Share) -> int:
    if share not in session.shares:
        session.shares = (*session.shares, share)
        for slot in slots.values():
            if slot.session is session:
                slot.masks.append(0)
    return session.shares.index(share)


def _who_may(share: Share) -> tuple[int, int]:
    """The more, the more may have it in the end; of equal ones the sooner."""
    last = share.stages[-1] if share.stages else Stage(0, 0)
    return last.channels.bit_count(), -last.at


def plan_of(slots: dict[str, Slot]) -> Plan:
    """The day as it is now, in the shape of a plan: what the catalog and the gateways show."""
    sessions: dict[int, list[Slot]] = {}
    for slot in sorted(slots.values(), key=lambda slot: slot.starts_at):
        sessions.setdefault(id(slot.session), []).append(slot)
    return tuple(
        Session(
            (session := mine[0].session).period,
            session.department_id,
            session.number_class_id,
            session.room_id,
            session.fee_fen,
            tuple(PlannedSlot(x.clock, x.starts_at, x.capacity, _runs(x)) for x in mine),
            session.shares,
            session.status,
            session.substitute_id,
        )
        for mine in sessions.values()
    )


def _runs(slot: Slot) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for seat in range(slot.capacity) if slot.masks else ():
        share = next(n for n, mask in enumerate(slot.masks) if mask >> seat & 1)
        if runs and runs[-1][0] == share:
            runs[-1] = (share, runs[-1][1] + 1)
        else:
            runs.append((share, 1))
    return tuple(runs)


def conservation_error(slot: Slot) -> int:
    """Seats of a slot that are in two states, or beyond its capacity, or in no share or in two."""
    wrong = (slot.taken & slot.blocked) | (slot.taken & slot.cooling) | (slot.blocked & slot.cooling)
    error = wrong.bit_count() + ((slot.taken | slot.blocked | slot.cooling) >> slot.capacity).bit_count()
    if slot.masks:
        once = 0
        for mask in slot.masks:
            error += (once & mask).bit_count()
            once |= mask
        error += (once ^ ((1 << slot.capacity) - 1)).bit_count()
    return error
