"""What the HIS has yet to be told of a number, and what two lists of one day say differently.

Pure. `next_step` compares our numbers with what the HIS is believed to have, and names the one thing to do
next; whoever does it notes the outcome and asks again, until there is nothing left. So it does not matter how
often it is asked, after which event, or what came of the try before.

The numbers that a patient changed from one to the next are one chain and are looked at together: a change is
told as a change, never as two numbers at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from engine.domain.policy import Channel
from engine.domain.schedule import Status


class Phase(StrEnum):
    """How far the HIS is believed to be with one number."""

    DUE = "due"  # to be told; whether it was is not known
    ASKING = "asking"  # a place was asked for; whether it was given is not known
    LOCKED = "locked"  # a place is kept for us
    BOOKED = "booked"
    ARRIVED = "arrived"
    FULFILLED = "fulfilled"
    NO_SHOW = "no_show"
    GONE = "gone"  # they have it no more


class Do(StrEnum):
    LOCK = "lock"
    UNLOCK = "unlock"
    BOOK = "book"
    RESCHEDULE = "reschedule"  # `before` becomes this one
    CHANGE = "change"  # another time, doctor or number, or it is only booked again
    ARRIVE = "arrive"
    FULFIL = "fulfil"
    MISS = "miss"
    CANCEL = "cancel"
    FIND = "find"  # ask whether they have it: nobody here knows


@dataclass(frozen=True, slots=True)
class Ours:
    """A number as it is committed here."""

    id: bytes
    status: int
    slot_id: str
    starts_at: int
    number: int
    channel: int
    asks_first: bool
    """Its department's numbers are the HIS's."""


@dataclass(frozen=True, slots=True)
class Believed:
    """What the HIS has of it, as far as we know."""

    phase: Phase
    slot_id: str | None = None
    starts_at: int | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    do: Do
    id: bytes
    before: bytes = b""


Pair = tuple[Ours, Believed | None]

_TOLD: Final = (Phase.BOOKED, Phase.ARRIVED, Phase.FULFILLED, Phase.NO_SHOW)
_PHASES: Final = {
    Status.BOOKED: Phase.BOOKED,
    Status.ARRIVED: Phase.ARRIVED,
    Status.FULFILLED: Phase.FULFILLED,
    Status.NOSHOW: Phase.NO_SHOW,
}
_STEPS: Final = {
    Phase.BOOKED: Do.CHANGE,
    Phase.ARRIVED: Do.ARRIVE,
    Phase.FULFILLED: Do.FULFIL,
    Phase.NO_SHOW: Do.MISS,
}


def phase_of(status: int) -> Phase | None:
    """What the HIS should have of a number of this state; None: nothing (pending, given up)."""
    return _PHASES.get(Status(status))


def next_step(chain: Sequence[Pair]) -> Step | None:
    """What is over goes first, so that nobody has two numbers over there; None: both sides say the same."""
    for ours, believed in chain:
        if believed is None or phase_of(ours.status) is not None or _is_waiting(ours):
            continue
        match believed.phase:
            case Phase.DUE | Phase.ASKING:
                return Step(Do.FIND, ours.id)
            case Phase.LOCKED:
                return Step(Do.UNLOCK, ours.id)
            case Phase.GONE:
                continue
        heir = _heir(chain)
        return Step(Do.CANCEL, ours.id) if heir is None else Step(Do.RESCHEDULE, heir, ours.id)
    for ours, believed in chain:
        step = _step_for(ours, believed)
        if step is not None:
            return Step(step, ours.id)
    return None


def _is_waiting(ours: Ours) -> bool:
    """Held and not paid for: whatever they keep for it is right until it is decided."""
    return ours.status == Status.PENDING


def _heir(chain: Iterable[Pair]) -> bytes | None:
    """The number that came instead, where the HIS need not be asked for a place first."""
    for ours, believed in chain:
        untold = believed is None or believed.phase is Phase.DUE
        if phase_of(ours.status) is not None and untold and not ours.asks_first and not _is_theirs(ours):
            return ours.id
    return None


def _is_theirs(ours: Ours) -> bool:
    """They registered it: they need not be told that it is booked."""
    return ours.channel == Channel.HIS


def _step_for(ours: Ours, believed: Believed | None) -> Do | None:
    wanted = phase_of(ours.status)
    phase = None if believed is None else believed.phase
    if phase in (None, Phase.DUE, Phase.ASKING):
        if _is_theirs(ours):
            return None
        if ours.asks_first and (wanted is not None or _is_waiting(ours)):
            return Do.LOCK
        return None if wanted is None else Do.BOOK
    if wanted is None or phase is Phase.GONE:
        return None
    if phase is Phase.LOCKED:
        return Do.BOOK
    assert believed is not None
    if _is_elsewhere(ours, believed):
        return Do.CHANGE
    return None if phase is wanted else _STEPS[wanted]


def _is_elsewhere(ours: Ours, believed: Believed) -> bool:
    """Where their numbers count, or they gave this one, ours is nobody's business."""
    number = ours.number if not ours.asks_first and not _is_theirs(ours) else believed.number
    return (believed.slot_id, believed.starts_at, believed.number) != (ours.slot_id, ours.starts_at, number)


# Two lists of one day.


class Differs(StrEnum):
    MISSING_THERE = "missing_there"  # ours is not in their list
    MISSING_HERE = "missing_here"  # theirs is not among ours
    STATE = "state"
    TIME = "time"
    DOUBLED = "doubled"  # two of theirs for one of ours
    REFUSED_HERE = "refused_here"  # their registration could not be taken in
    REFUSED_THERE = "refused_there"  # our number could not be told
    NO_PLACE_THERE = "no_place_there"  # promised here, and they have no place for it


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of their list of a day."""

    his_id: str
    booking_id: bytes | None  # ours, where they know it
    phase: Phase
    practitioner_id: str  # in our codes; "" where there is none
    starts_at: int
    number: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    kind: Differs
    id: bytes | None  # ours
    his_id: str | None


def compare(
    numbers: Sequence[tuple[Ours, Believed | None, str | None]], listed: Sequence[Listed]
) -> tuple[int, list[Difference]]:
    """How many are the same on both sides, and what differs. The third of each number is their id of it.

    A number that is held here and kept there is not over yet, and no difference."""
    by_booking: dict[bytes, list[Listed]] = {}
    by_his_id: dict[str, Listed] = {}
    for one in listed:
        by_his_id[one.his_id] = one
        if one.booking_id is not None:
            by_booking.setdefault(one.booking_id, []).append(one)
    same, found, seen = 0, list[Difference](), set[str]()
    for ours, _, his_id in numbers:
        mine = list(by_booking.get(ours.id, ()))
        if not mine and his_id is not None and his_id in by_his_id:
            mine = [by_his_id[his_id]]
        seen.update(one.his_id for one in mine)
        there = [one for one in mine if one.phase is not Phase.GONE]
        wanted = phase_of(ours.status)
        if len(there) > 1:
            found.append(Difference(Differs.DOUBLED, ours.id, there[1].his_id))
        elif wanted is None:
            if there and not (_is_waiting(ours) and there[0].phase is Phase.LOCKED):
                found.append(Difference(Differs.STATE, ours.id, there[0].his_id))
        elif not there:
            kind = Differs.STATE if mine else Differs.MISSING_THERE
            found.append(Difference(kind, ours.id, mine[0].his_id if mine else None))
        elif there[0].starts_at != ours.starts_at or there[0].practitioner_id not in (
            "",
            ours.slot_id.rpartition("-")[0].rpartition("-")[0],
        ):
            found.append(Difference(Differs.TIME, ours.id, there[0].his_id))
        elif there[0].phase is not wanted:
            found.append(Difference(Differs.STATE, ours.id, there[0].his_id))
        else:
            same += 1
    found += [
        Difference(Differs.MISSING_HERE, one.booking_id, one.his_id)
        for one in listed
        if one.his_id not in seen and one.phase is not Phase.GONE
    ]
    return same, found
