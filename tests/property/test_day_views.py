"""Whatever happens on a day: what is foreseen is what happens, and the history ends where the state is."""

from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.limits import SLOT_MS
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import Policy
from engine.domain.recorded import Recorded
from engine.domain.refusal import Refusal
from engine.journal.codec import EVENT_CODES, pack_event, unpack_event
from engine.views.history import WORDS, history, of_appointment
from engine.views.preview import preview

NOW = 1_800_000_000_000
DAY = NOW + 24 * 3_600_000
POLICY = Policy()
CLOCKS = ("0800", "0830", "0900", "1400", "1430")
STARTS = {clock: DAY + n * SLOT_MS for clock, n in zip(CLOCKS, (0, 1, 2, 12, 13), strict=True)}
PLAN = (
    Session("morning", "03", "a", "R1", 1, tuple(PlannedSlot(c, STARTS[c], 2) for c in CLOCKS[:3])),
    Session("afternoon", "04", "a", None, 1, tuple(PlannedSlot(c, STARTS[c], 1) for c in CLOCKS[3:])),
)
ACCOUNT = bytes(16)


def uid(number: int) -> bytes:
    return number.to_bytes(16, "big")


numbers = st.integers(1, 8)
clocks = st.sampled_from(CLOCKS)
periods = st.sampled_from(["morning", "afternoon", "night"])
staff = st.sampled_from(["staff:" + "a" * 32, "staff:" + "b" * 32])
command_ids = st.integers(100, 100_000).map(uid)
expected = st.sampled_from([-1, -1, -1, 0, 1, 2])


def of_the_day(kind: type, *fields: st.SearchStrategy[object]) -> st.SearchStrategy[s.Structural]:
    return st.builds(kind, command_ids, expected, staff, st.sampled_from(["", "why"]), *fields)


def moved(period: str, later: int) -> tuple[tuple[str, str, int], ...]:
    mine = CLOCKS[:3] if period == "morning" else CLOCKS[3:]
    found = []
    for clock in mine:
        minute = int(clock[:2]) * 60 + int(clock[2:]) + 30 * later
        found.append((clock, f"{minute // 60:02d}{minute % 60:02d}", STARTS[clock] + later * SLOT_MS))
    return tuple(found)


structural: st.SearchStrategy[s.Structural] = st.one_of(
    of_the_day(s.ChangeCapacity, periods, st.sampled_from(["", *CLOCKS]), st.sampled_from([-2, -1, 1, 2])),
    of_the_day(s.AddSeats, clocks, st.integers(1, 3), st.sampled_from([255, 2, 32])),
    of_the_day(s.AddPatient, clocks, numbers.map(uid), numbers.map(lambda n: uid(20 + n)), st.just(ACCOUNT)),
    of_the_day(s.MoveSession, periods, st.just(()), st.sampled_from(["R1", "R2"])),
    st.builds(
        lambda id, by, period, later: s.MoveSession(id, -1, by, "", period, moved(period, later), "R1"),
        command_ids,
        staff,
        st.sampled_from(["morning", "afternoon"]),
        st.integers(-2, 3),
    ),
    of_the_day(
        s.SetSessionStatus, periods, st.sampled_from(["open", "paused", "suspended"]), st.just("leave")
    ),
    of_the_day(s.SubstituteSession, periods, st.sampled_from(["D2", "D3", None])),
    of_the_day(
        s.OpenSession,
        st.just(Session("night", "03", "a", None, 1, (PlannedSlot("1800", DAY + 20 * SLOT_MS, 2),))),
    ),
)
everyday: st.SearchStrategy[s.Command] = st.one_of(
    st.builds(s.HoldSeat, numbers.map(uid), clocks, numbers.map(lambda n: uid(20 + n)), st.just(ACCOUNT)),
    st.builds(s.ConfirmAppointment, numbers.map(uid), st.just(ACCOUNT)),
    st.builds(s.CancelAppointment, numbers.map(uid), st.just(ACCOUNT), st.one_of(st.just(""), staff)),
    st.builds(s.AnswerSubstitute, numbers.map(uid), st.just(ACCOUNT), st.booleans()),
    st.builds(s.DecideFate, numbers.map(uid), st.sampled_from(["offered", "refunded", "waitlisted"])),
    st.just(s.ExpireHolds()),
)
steps = st.lists(
    st.tuples(st.one_of(everyday, everyday, structural), st.integers(0, 600_000)), min_size=10, max_size=40
)


def open_seats(state: s.Schedule, now: int) -> int:
    return sum(
        seats.free(slot).bit_count()
        for slot in state.slots.values()
        if slot.session.status == "open" and slot.starts_at + SLOT_MS > now
    )


def changed(before: s.Schedule, after: s.Schedule) -> set[bytes]:
    """Numbers that are new, or that were held and are otherwise now."""
    found = set()
    for appointment_id, x in after.appointments.items():
        old = before.appointments.get(appointment_id)
        if old is None:
            found.add(appointment_id)
        elif old.status > s.Status.FULFILLED:
            continue
        elif (old.status, old.clock, old.fate) != (x.status, x.clock, x.fate):
            found.add(appointment_id)
    return found


@settings(max_examples=200, deadline=None)
@given(steps)
def test_what_is_foreseen_happens_and_is_remembered(steps: list[tuple[s.Command, int]]) -> None:
    state = s.Schedule()
    recorded: list[Recorded] = []
    now = NOW

    def add(events: list[s.Event]) -> None:
        for event in events:
            s.apply(state, event)
            # As it comes back from the journal.
            again = unpack_event(EVENT_CODES[type(event)], pack_event(event))
            recorded.append(Recorded(len(recorded) + 1, now, again))

    add([s.ScheduleOpened(PLAN)])
    for command, later in steps:
        now += later
        before = deepcopy(state)
        foreseen = preview(state, [command], now, POLICY) if isinstance(command, s.Structural) else None
        assert state == before
        outcome = s.decide(state, command, now, POLICY)
        if not isinstance(outcome, Refusal):
            add(outcome)
        if foreseen is None:
            continue
        assert foreseen.refusal == (outcome if isinstance(outcome, Refusal) else None)
        assert foreseen.revision == state.revision
        assert foreseen.seats_opened - foreseen.seats_closed == open_seats(state, now) - open_seats(
            before, now
        )
        assert changed(before, state) <= {one.appointment_id for one in foreseen.affected}

    lines = history(recorded)
    assert [line.version for line in lines] == sorted(line.version for line in lines)
    assert all(line.what in WORDS for line in lines)
    for appointment_id, x in state.appointments.items():
        mine = of_appointment(recorded, appointment_id)
        assert mine[0].what == "held"
        what = [line.what for line in mine]
        if x.status is s.Status.CANCELLED:
            assert x.reason in what
        if x.status is s.Status.BOOKED:
            assert "booked" in what and not {"cancelled", "expired", "suspended"} & set(what)
        if x.fate not in ("", s.AFFECTED):
            assert f"fate_{x.fate}" in what
