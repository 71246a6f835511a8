"""Whatever happens to a number and to the line, the HIS ends with what we have: next_step alone decides."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.his_rules import (
    Believed,
    Differs,
    Do,
    Listed,
    Ours,
    Phase,
    Step,
    compare,
    next_step,
    phase_of,
)
from engine.domain.policy import Channel
from engine.domain.schedule import Status

STEPS_MAX = 16
_AFTER = {
    Do.LOCK: Phase.LOCKED,
    Do.BOOK: Phase.BOOKED,
    Do.RESCHEDULE: Phase.BOOKED,
    Do.CHANGE: Phase.BOOKED,
    Do.ARRIVE: Phase.ARRIVED,
    Do.FULFIL: Phase.FULFILLED,
    Do.MISS: Phase.NO_SHOW,
}


def number(n: int, status: Status = Status.BOOKED, **changes: object) -> Ours:
    whole = Ours(bytes([n]) * 16, status, f"D1-20261124-{n:04d}", n * 1000, n, 1, False)
    return replace(whole, **changes)  # type: ignore[arg-type]


def told(ours: Ours, phase: Phase = Phase.BOOKED) -> Believed:
    return Believed(phase, ours.slot_id, ours.starts_at, ours.number)


class There:
    """The other side, and what is believed of it."""

    def __init__(self) -> None:
        self.has: dict[bytes, Phase] = {}
        self.believed: dict[bytes, Believed] = {}

    def do(self, step: Step, by_id: dict[bytes, Ours], how: str) -> None:
        """`how`: done, lost (done, and nobody heard), died (the same, and so did we), failed."""
        one = by_id[step.id]
        if step.do is Do.FIND:
            found = self.has.get(step.id)
            wanted = phase_of(one.status) is not None
            phase = found or (Phase.DUE if wanted else Phase.GONE)
            self.believed[step.id] = told(one, phase)
            return
        if how == "failed":
            return
        gone = {Do.CANCEL: step.id, Do.RESCHEDULE: step.before}.get(step.do)
        if gone is not None and gone not in self.has:  # refused: then they are asked what they have
            self.look(list(by_id.values()))
            return
        if step.do is Do.LOCK:  # noted before it is asked for
            self.believed[step.id] = Believed(Phase.ASKING)
        if step.do in (Do.CANCEL, Do.UNLOCK):
            self.has.pop(step.id, None)  # a place may be given back twice
        else:
            if step.do is Do.BOOK:
                kept = (Phase.LOCKED, Phase.BOOKED) if one.asks_first else (None, Phase.BOOKED)
                assert self.has.get(step.id) in kept
            if step.do is Do.RESCHEDULE:
                del self.has[step.before]
            self.has[step.id] = _AFTER[step.do]
        if how == "done":
            if step.before:
                self.believed[step.before] = told(by_id[step.before], Phase.GONE)
            phase = self.has.get(step.id, Phase.GONE)
            self.believed[step.id] = told(one, phase)

    def look(self, chain: list[Ours]) -> None:
        """As after an outcome that nobody knows."""
        for one in chain:
            if one.id in self.believed and self.believed[one.id].phase is not Phase.GONE:
                self.do(Step(Do.FIND, one.id), {one.id: one}, "done")


_STATUSES = [Status.PENDING, Status.BOOKED, Status.ARRIVED, Status.FULFILLED, Status.NOSHOW, Status.CANCELLED]
_MOVES = st.tuples(st.integers(0, 2), st.sampled_from(_STATUSES))


@given(
    st.lists(st.tuples(_MOVES, st.sampled_from(["done", "lost", "died", "failed"])), max_size=12),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_both_sides_end_alike(moves: list[tuple[tuple[int, Status], str]], asks_first: bool) -> None:
    there = There()
    chain: list[Ours] = []
    has_died = False
    for (n, status), how in [*moves, ((0, Status.CANCELLED), "done")]:
        if n == 2 and len(chain) < 3:
            chain = [replace(one, status=Status.CANCELLED) for one in chain]
            chain.append(number(len(chain) + 1, Status.PENDING, asks_first=asks_first))
        elif chain and chain[-1].status != Status.CANCELLED and status != Status.PENDING:
            chain[-1] = replace(chain[-1], status=status)
        for one in chain:  # as the subscriber notes before anything is told
            if phase_of(one.status) is not None and one.id not in there.believed:
                there.believed[one.id] = Believed(Phase.DUE)
        by_id = {one.id: one for one in chain}
        if has_died:  # whoever comes next knows that something was under way, and asks first
            there.look(chain)
            has_died = False
        hows = [how]
        for _ in range(STEPS_MAX):
            step = next_step([(one, there.believed.get(one.id)) for one in chain])
            if step is None:
                break
            now = hows.pop() if hows else "done"
            there.do(step, by_id, now)
            if now == "lost":
                there.look(chain)
            if now == "died":
                has_died = True
                break
        else:
            raise AssertionError("never at rest")
        if step is not None:
            continue
        wanted = {one.id: phase_of(one.status) for one in chain if phase_of(one.status) is not None}
        kept = {one.id for one in chain if one.status == Status.PENDING}
        assert {id_: phase for id_, phase in there.has.items() if id_ not in kept} == wanted


def test_a_change_is_told_as_one() -> None:
    old, new = number(1, Status.CANCELLED), number(2)
    chain = [(old, told(old)), (new, Believed(Phase.DUE))]
    assert next_step(chain) == Step(Do.RESCHEDULE, new.id, old.id)
    locked = [(old, told(old)), (replace(new, asks_first=True), Believed(Phase.LOCKED))]
    assert next_step(locked) == Step(Do.CANCEL, old.id)
    untold = [(old, Believed(Phase.DUE)), (new, Believed(Phase.DUE))]
    assert next_step(untold) == Step(Do.FIND, old.id)


def test_what_they_registered_is_not_told_back() -> None:
    theirs = number(1, channel=int(Channel.HIS))
    assert next_step([(theirs, None)]) is None
    assert next_step([(theirs, told(theirs))]) is None
    gone = replace(theirs, status=Status.CANCELLED)
    assert next_step([(gone, told(theirs))]) == Step(Do.CANCEL, gone.id)


def test_a_hold_is_told_only_where_they_must_be_asked() -> None:
    held = number(1, Status.PENDING)
    assert next_step([(held, None)]) is None
    asked = replace(held, asks_first=True)
    assert next_step([(asked, Believed(Phase.DUE))]) == Step(Do.LOCK, asked.id)
    assert next_step([(asked, Believed(Phase.LOCKED))]) is None


def test_their_number_is_no_difference_where_theirs_count() -> None:
    ours = number(1, asks_first=True)
    theirs = replace(told(ours), number=99)
    assert next_step([(ours, theirs)]) is None
    assert next_step([(replace(ours, asks_first=False), theirs)]) == Step(Do.CHANGE, ours.id)


def listed(ours: Ours, phase: Phase = Phase.BOOKED, **changes: object) -> Listed:
    whole = Listed(f"R{ours.number}", ours.id, phase, "D1", ours.starts_at, ours.number)
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_each_difference_is_named() -> None:
    numbers = [number(n) for n in range(1, 8)]
    numbers[5] = replace(numbers[5], status=Status.CANCELLED)
    numbers[6] = replace(numbers[6], status=Status.PENDING)
    theirs = [
        listed(numbers[0]),
        listed(numbers[2], starts_at=1),
        listed(numbers[3], Phase.ARRIVED),
        listed(numbers[4]),
        listed(numbers[4], his_id="twin"),
        listed(numbers[5]),
        listed(numbers[6], Phase.LOCKED),
        Listed("R99", None, Phase.BOOKED, "D1", 5, 1),
        Listed("R98", None, Phase.GONE, "D1", 5, 1),
    ]
    same, found = compare([(one, None, None) for one in numbers], theirs)
    assert same == 1
    assert [(one.kind, one.id and one.id[0], one.his_id) for one in found] == [
        (Differs.MISSING_THERE, 2, None),
        (Differs.TIME, 3, "R3"),
        (Differs.STATE, 4, "R4"),
        (Differs.DOUBLED, 5, "twin"),
        (Differs.STATE, 6, "R6"),
        (Differs.MISSING_HERE, None, "R99"),
    ]
