"""Who is next, as data: a waiting room's rules, the rank of everybody in one line, and the reason for it.

Pure: `rank` is a function of facts that the events left (`Place`, `Turns`), the rules and the time. Nothing
is stored about the order itself, so other rules can be tried on the same facts. Times are int milliseconds.

A line has four bands, one strictly before the next, and those who rest behind them:

  emergency   the levels that go before everybody, by level
  overtaken   whoever was overtaken `overtaken_max` times by later arrivals: the bound on starvation
  door        whoever was sent to a room's door: that was a promise
  line        everybody else, in lanes

Within the line there is the ordinary lane, by number or by check-in, and lanes that are let in between: one
(or a few) after every so many ordinary ones. Only calls of ordinary ones count towards that, so that no
number of lanes can keep the ordinary one from going on. What was moved by hand stands where it was put:
behind so many calls.

The bound: nobody is overtaken by rules alone by more than `overtaken_max` later arrivals, at any room that
could have called him, emergencies of the first levels excepted. Whoever has reached it is behind nobody but
them and those who have reached it too and arrived earlier.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

MINUTE: Final = 60_000
FAR: Final = 1 << 62  # later than any time
NEVER: Final = 1 << 30  # more calls than a day has
NO_DETAIL: Final[Mapping[str, str | int]] = {}

# Rules.


class Basis(StrEnum):
    """What ordinary ones are ordered by."""

    NUMBER = "number"  # the appointed time and number; a walk-in's time is when he came
    CHECK_IN = "check_in"  # when they checked in


class EarlyRule(StrEnum):
    """Where the order is by check-in: who comes before his time."""

    AS_COME = "as_come"
    OWN_TIME = "own_time"  # as if he came at his time


class LateRule(StrEnum):
    EVERY = "every"  # let in, one after every so many
    END_OF_SESSION = "end_of_session"
    NORMAL = "normal"  # as if he were not late
    END_OF_WINDOW = "end_of_window"  # behind everybody of his own appointed half hour


class PassedRule(StrEnum):
    """过号: was called, was not there, and is back."""

    EVERY = "every"
    END_OF_WINDOW = "end_of_window"  # of his own half hour; if that is over, behind whose time has come
    END_OF_SESSION = "end_of_session"


class ReturnRule(StrEnum):
    """回诊: back from an examination, to the practitioner who sent him."""

    NEXT = "next"  # before all ordinary ones
    EVERY = "every"
    OWN_PLACE = "own_place"  # where his number is
    END = "end"  # as if he had just come


class Mix(StrEnum):
    """Booked and walk-in patients of one line."""

    BOOKED_FIRST = "booked_first"
    MIXED = "mixed"  # one order for all
    EVERY = "every"  # one walk-in after every so many booked ones


class Across(StrEnum):
    """A room that serves several queues: whose first one is called, where no band decides."""

    LONGEST = "longest"  # who has waited longest
    LISTED = "listed"  # the queue that the room names first


class LeaveRule(StrEnum):
    """A practitioner's room closes while people wait for that practitioner."""

    ANYBODY = "anybody"  # they wait for anybody who serves their queue; where nobody does: ASK
    KEEP = "keep"  # they wait until somebody comes back
    ASK = "ask"  # it does not close before somebody says where to


@dataclass(frozen=True, slots=True)
class Interval:
    """`together` of a lane after every `every` ordinary ones. 0: before all ordinary ones."""

    every: int
    together: int = 1

    def __post_init__(self) -> None:
        assert self.every >= 0
        assert self.together >= 1


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """Soldiers, the old, children: a class of patients with its own lane. The lower the rank, the sooner."""

    code: str
    rank: int
    interval: Interval


DEFAULT_CLASSES: Final = (
    PriorityClass("soldier", 1, Interval(1)),  # 军人优先
    PriorityClass("aged", 2, Interval(2)),
    PriorityClass("disabled", 2, Interval(2)),
    PriorityClass("pregnant", 3, Interval(2)),
    PriorityClass("child", 4, Interval(3)),
)


@dataclass(frozen=True, slots=True)
class OrderRules:
    """How one kind of queue is ordered."""

    by: Basis = Basis.NUMBER
    early: EarlyRule = EarlyRule.OWN_TIME
    late: LateRule = LateRule.EVERY
    late_minutes: int = 30  # past the appointed time, who comes is late
    late_interval: Interval = Interval(3)
    passed: PassedRule = PassedRule.EVERY
    passed_interval: Interval = Interval(3)
    passed_rest_seconds: int = 0  # after that long he may be called again
    returned: ReturnRule = ReturnRule.EVERY
    returned_interval: Interval = Interval(1)
    mix: Mix = Mix.MIXED
    walk_in_interval: Interval = Interval(2)
    classes: tuple[PriorityClass, ...] = DEFAULT_CLASSES
    emergency_first: int = 2  # levels 1 to this go before everybody
    emergency_intervals: tuple[tuple[int, Interval], ...] = (
        (3, Interval(1)),
    )  # by level; others are ordinary
    overtaken_max: int = 12

    def __post_init__(self) -> None:
        assert self.overtaken_max >= 1
        assert len({c.code for c in self.classes}) == len(self.classes)

    def class_of(self, code: str) -> PriorityClass | None:
        return next((c for c in self.classes if c.code == code), None)


AS_THEY_COME: Final = OrderRules(by=Basis.CHECK_IN, early=EarlyRule.AS_COME)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one waiting room: the hospital's, or a department's own in their place."""

    order: OrderRules = OrderRules()
    orders: Mapping[str, OrderRules] = field(default_factory=lambda: {"triage": AS_THEY_COME})
    """By kind of queue, where it differs from `order`."""
    across: Across = Across.LONGEST
    # Check-in.
    signs_in: bool = True
    """No: a booked number waits from its time on by itself; its call shows whether its patient is here."""
    early_minutes: int | None = 120  # before the appointed time; None: any time; 0: not before it
    distance_m_max: int = 500  # of a mini-program from the hospital
    triage_queue: str = ""  # everybody goes there first; "": nobody does
    # Calling.
    door_cap: int = 0  # people at a room's door (诊间候诊上限); 0: they are called from the hall
    calls_max: int = 3
    recall_gap_seconds: int = 10
    call_gap_seconds: int = 0  # of a room, from one patient's call to the next one's
    answer_seconds: int = 60  # after the last call; then the number is passed
    passed_must_report: bool = True
    passes_max: int = 3  # after that many only the desk lets him in again
    leave: LeaveRule = LeaveRule.ANYBODY

    def __post_init__(self) -> None:
        assert self.calls_max >= 1
        assert self.early_minutes is None or self.early_minutes >= 0

    def order_of(self, kind: str) -> OrderRules:
        return self.orders.get(kind, self.order)


def early_from(rules: Rules, starts_at: int) -> int:
    """From when on somebody with that time may check in."""
    return 0 if rules.early_minutes is None else starts_at - rules.early_minutes * MINUTE


def counts_from(rules: OrderRules, at: int, starts_at: int) -> int:
    """From when on it counts as overtaking: nobody is kept waiting before his own time."""
    early_does_not_count = rules.by is Basis.NUMBER or rules.early is EarlyRule.OWN_TIME
    return max(at, starts_at) if early_does_not_count else at


# Facts.


@dataclass(frozen=True, slots=True)
class Moved:
    """By hand: so many go first, counted in calls of the line."""

    ahead: int
    since_calls: int  # calls of the line when it was moved
    sequence: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """What the order needs to know of one who waits."""

    ticket_id: bytes
    sequence: int  # of check-ins in this waiting room: never the same twice
    arrived_at: int
    counts_from: int
    entered: int  # ordinary calls of the line when this one joined it
    number: int = 0
    starts_at: int = 0  # 0: not booked, or the queue is not a practitioner's
    window_ends_at: int = 0
    session_ends_at: int = 0  # 0: the day's end
    priority: str = ""
    emergency: int = 0  # level, from 1; 0: none
    passed: bool = False
    returned: bool = False
    door: int = 0  # when sent to a door, the sequence of that; 0: in the hall
    moved: Moved | None = None
    overtaken: int = 0
    rests_until: int = 0
    is_visit: bool = True  # of a practitioner: early, late, booked and walk-in mean something


ORDINARY: Final = "ordinary"
OUTSIDE: Final = ("emergency", "overtaken", "moved")
"""Calls from no lane. From a door it is no call of the line any more: that was when it was sent there."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Whose turn it was so far in one line."""

    calls: int = 0
    ordinary: int = 0  # of them: the ordinary lane's
    lanes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Lane -> ordinary calls when one of it was last called, and how many were called at once then."""

    def after(self, lane: str) -> "Turns":
        if lane == ORDINARY:
            return Turns(self.calls + 1, self.ordinary + 1, self.lanes)
        if lane in OUTSIDE:
            return Turns(self.calls + 1, self.ordinary, self.lanes)
        last, run = self.lanes.get(lane, (-1, 0))
        run = run + 1 if last == self.ordinary else 1
        return Turns(self.calls + 1, self.ordinary, {**self.lanes, lane: (self.ordinary, run)})

    def wait(self, lane: str, interval: Interval, entered: int) -> int:
        """How many ordinary ones go before the first of this lane."""
        last, run = self.lanes.get(lane, (-1, 0))
        if last == self.ordinary and run < interval.together:
            return 0
        return max(0, interval.every - (self.ordinary - max(last, entered)))


# Rank.


class Band(IntEnum):
    EMERGENCY = 0
    OVERTAKEN = 1
    DOOR = 2
    LINE = 3
    RESTS = 4


class How(StrEnum):
    """What put somebody at his time within a lane."""

    TIME = "time"  # the appointed one
    ARRIVAL = "arrival"
    LATE = "late"
    PASSED = "passed"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Rank:
    """Where one stands, and what of. Between two of one lane the key decides."""

    place: Place
    band: Band
    lane: str
    precedence: tuple[int, int]  # of the lane: two whose turn it is
    interval: Interval
    at: int
    tail: int
    how: How

    @property
    def ticket_id(self) -> bytes:
        return self.place.ticket_id

    @property
    def call_lane(self) -> str:
        """What a call of this one counts as."""
        match self.band:
            case Band.EMERGENCY:
                return "emergency"
            case Band.OVERTAKEN:
                return "overtaken"
            case _:
                return "moved" if self.place.moved else self.lane

    @property
    def key(self) -> tuple[int, int, int, int]:
        return (self.at, self.tail, self.place.number, self.place.sequence)

    @property
    def seniority(self) -> tuple[int, int]:
        return (self.place.counts_from, self.place.sequence)


def rank(places: Iterable[Place], turns: Turns, rules: OrderRules, now: int) -> list[Rank]:
    """The whole line, the next one first. The order in which `places` are given does not matter."""
    bands: dict[Band, list[Rank]] = {band: [] for band in Band}
    for place in places:
        found = _stands(place, rules, now)
        bands[found.band].append(found)
    bands[Band.EMERGENCY].sort(key=lambda r: (r.place.emergency, *r.seniority))
    bands[Band.OVERTAKEN].sort(key=lambda r: r.seniority)
    bands[Band.DOOR].sort(key=lambda r: r.place.door)
    bands[Band.RESTS].sort(key=lambda r: (r.place.rests_until, r.place.sequence))
    bands[Band.LINE] = _line(bands[Band.LINE], turns)
    return [one for band in Band for one in bands[band]]


def _stands(place: Place, rules: OrderRules, now: int) -> Rank:
    lane, precedence, interval, at, tail, how = _spot(place, rules)
    if 0 < place.emergency <= rules.emergency_first:
        band = Band.EMERGENCY
    elif place.rests_until > now:
        band = Band.RESTS
    elif place.overtaken >= rules.overtaken_max and place.moved is None:
        band = Band.OVERTAKEN
    elif place.door:
        band = Band.DOOR
    else:
        band = Band.LINE
    return Rank(place, band, lane, precedence, interval, at, tail, how)


_AT_ONCE = Interval(0)
_LAST = Interval(NEVER)
_Spot = tuple[str, tuple[int, int], Interval, int, int, How]


def is_late(place: Place, rules: OrderRules) -> bool:
    return place.starts_at > 0 and place.arrived_at > place.starts_at + rules.late_minutes * MINUTE


def _spot(place: Place, rules: OrderRules) -> _Spot:
    """Lane and time of one. What happened last decides: passed over, back from examination, late."""
    session = place.session_ends_at or FAR
    came = place.counts_from
    if place.passed:
        match rules.passed:
            case PassedRule.EVERY:
                return ("passed", (4, 0), rules.passed_interval, came, 0, How.PASSED)
            case PassedRule.END_OF_SESSION:
                return (ORDINARY, (9, 0), _AT_ONCE, session, 2, How.PASSED)
            case PassedRule.END_OF_WINDOW:
                return (ORDINARY, (9, 0), _AT_ONCE, max(place.window_ends_at, came), 1, How.PASSED)
    if place.returned:
        match rules.returned:
            case ReturnRule.NEXT:
                return ("returned", (1, 0), _AT_ONCE, came, 0, How.RETURNED)
            case ReturnRule.EVERY:
                return ("returned", (1, 0), rules.returned_interval, came, 0, How.RETURNED)
            case ReturnRule.END:
                return (ORDINARY, (9, 0), _AT_ONCE, came, 1, How.RETURNED)
            case ReturnRule.OWN_PLACE:
                pass
    elif place.is_visit and is_late(place, rules):
        match rules.late:
            case LateRule.EVERY:
                return ("late", (3, 0), rules.late_interval, came, 0, How.LATE)
            case LateRule.END_OF_SESSION:
                return (ORDINARY, (9, 0), _AT_ONCE, session, 2, How.LATE)
            case LateRule.END_OF_WINDOW:
                ends = place.window_ends_at
                at = ends if rules.by is Basis.NUMBER else max(ends, place.arrived_at)
                return (ORDINARY, (9, 0), _AT_ONCE, at, 1, How.LATE)
            case LateRule.NORMAL:
                pass
    at, how = _own_time(place, rules)
    for level, interval in rules.emergency_intervals:
        if level == place.emergency:
            return (f"emergency:{level}", (0, level), interval, at, 0, how)
    found = rules.class_of(place.priority) if place.priority else None
    if found is not None:
        return (f"priority:{found.code}", (2, found.rank), found.interval, at, 0, how)
    if place.is_visit and not place.starts_at and not place.returned:
        match rules.mix:
            case Mix.BOOKED_FIRST:
                return ("walk_in", (5, 0), _LAST, at, 0, how)
            case Mix.EVERY:
                return ("walk_in", (5, 0), rules.walk_in_interval, at, 0, how)
            case Mix.MIXED:
                pass
    return (ORDINARY, (9, 0), _AT_ONCE, at, 0, how)


def _own_time(place: Place, rules: OrderRules) -> tuple[int, How]:
    if not place.is_visit:
        return place.counts_from, How.ARRIVAL
    if rules.by is Basis.NUMBER:
        return (place.starts_at, How.TIME) if place.starts_at else (place.arrived_at, How.ARRIVAL)
    if rules.early is EarlyRule.OWN_TIME and place.starts_at > place.arrived_at:
        return place.starts_at, How.TIME
    return place.arrived_at, How.ARRIVAL


def _line(ranks: list[Rank], turns: Turns) -> list[Rank]:
    by_hand = [r for r in ranks if r.place.moved]
    line = _merged([r for r in ranks if not r.place.moved], turns)

    def left(r: Rank) -> int:
        moved = r.place.moved
        assert moved is not None
        return max(0, moved.ahead - (turns.calls - moved.since_calls))

    # Of two put at one place the later move is in front: it was made by somebody who saw the other one there.
    for one in sorted(by_hand, key=lambda r: (left(r), r.place.moved.sequence if r.place.moved else 0)):
        line.insert(left(one), one)
    return line


def _merged(ranks: list[Rank], turns: Turns) -> list[Rank]:
    lanes: dict[str, list[Rank]] = {}
    for one in sorted(ranks, key=lambda r: r.key, reverse=True):
        lanes.setdefault(one.lane, []).append(one)  # the first one last, to be popped
    ordinary = lanes.pop(ORDINARY, [])
    if not lanes:
        return ordinary[::-1]
    line: list[Rank] = []
    while ordinary or lanes:
        waits = [
            (turns.wait(lane, heads[-1].interval, heads[-1].place.entered), heads[-1].precedence, lane)
            for lane, heads in lanes.items()
        ]
        first = min(waits, default=None)
        if ordinary and (first is None or first[0] > 0):
            line.append(ordinary.pop())
            turns = turns.after(ORDINARY)
            continue
        assert first is not None
        lane = first[2]
        line.append(lanes[lane].pop())
        turns = turns.after(lane)
        if not lanes[lane]:
            del lanes[lane]
    return line


# Why.


class Why(StrEnum):
    """Why one is before another. Stable codes; the words are the web's."""

    CALLED = "called"  # is being called or seen
    EMERGENCY = "emergency"
    EMERGENCY_LEVEL = "emergency_level"  # both are; this level is more urgent
    OVERTAKEN = "overtaken"  # has been overtaken as often as the rules allow
    AT_DOOR = "at_door"  # was sent to the room's door before
    MOVED = "moved"  # by hand: stands where it was put
    OTHER_MOVED = "other_moved"
    RESTS = "rests"  # the other one was passed over just now
    LANE_TURN = "lane_turn"  # it is this lane's turn: priority, returned, late, passed, walk-in
    LANE_WAITS = "lane_waits"  # the other's lane waits until so many ordinary ones have gone
    LANES = "lanes"  # both are let in between; this lane's turn comes first
    EARLIER_TIME = "earlier_time"  # appointed
    LOWER_NUMBER = "lower_number"
    CAME_EARLIER = "came_earlier"
    CAME_BEFORE_TIME = "came_before_time"  # came before the other one's appointed time
    TIME_BEFORE_CAME = "time_before_came"  # was appointed for before the other one came
    EARLIER_END = "earlier_end"  # stands at the end of its half hour or session, and that is sooner
    OTHER_LATE = "other_late"  # and therefore stands behind
    OTHER_PASSED = "other_passed"
    OTHER_RETURNED = "other_returned"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The one in front, and what the other one is told. Details hold nothing that says who it is."""

    first: bytes
    why: Why
    detail: Mapping[str, str | int] = field(default_factory=dict)


_BEHIND: Final = {How.LATE: Why.OTHER_LATE, How.PASSED: Why.OTHER_PASSED, How.RETURNED: Why.OTHER_RETURNED}


def why(line: Sequence[Rank], first: bytes, second: bytes) -> Explanation | None:
    """Why `first` is before `second` in this line; None where it is not."""
    at = {r.ticket_id: n for n, r in enumerate(line) if r.ticket_id in (first, second)}
    if len(at) < 2 or at[first] > at[second]:
        return None
    code, detail = _why(line[at[first]], line[at[second]])
    return Explanation(first, code, detail)


def _why(a: Rank, b: Rank) -> tuple[Why, Mapping[str, str | int]]:
    if a.band is not b.band:
        return _of_band(a, b)
    match a.band:
        case Band.EMERGENCY if a.place.emergency != b.place.emergency:
            return Why.EMERGENCY_LEVEL, {"level": a.place.emergency, "other": b.place.emergency}
        case Band.EMERGENCY | Band.OVERTAKEN:
            return Why.CAME_EARLIER, {"at": a.place.counts_from}
        case Band.DOOR:
            return Why.AT_DOOR, NO_DETAIL
        case Band.RESTS:
            return Why.RESTS, {"until": b.place.rests_until}
        case Band.LINE:
            return _of_line(a, b)


def _of_band(a: Rank, b: Rank) -> tuple[Why, Mapping[str, str | int]]:
    match a.band:
        case Band.EMERGENCY:
            return Why.EMERGENCY, {"level": a.place.emergency}
        case Band.OVERTAKEN if b.band is not Band.RESTS:
            return Why.OVERTAKEN, {"times": a.place.overtaken}
        case Band.DOOR if b.band is not Band.RESTS:
            return Why.AT_DOOR, NO_DETAIL
        case _:
            return Why.RESTS, {"until": b.place.rests_until}


def _of_line(a: Rank, b: Rank) -> tuple[Why, Mapping[str, str | int]]:
    if a.place.moved is not None:
        return Why.MOVED, {"by": a.place.moved.by, "reason": a.place.moved.reason}
    if b.place.moved is not None:
        return Why.OTHER_MOVED, {"by": b.place.moved.by, "reason": b.place.moved.reason}
    if a.lane != b.lane:
        if b.lane == ORDINARY:
            return Why.LANE_TURN, {"lane": a.lane, "every": a.interval.every}
        if a.lane == ORDINARY:
            return Why.LANE_WAITS, {"lane": b.lane, "every": b.interval.every}
        return Why.LANES, {"lane": a.lane, "other": b.lane}
    if a.at == b.at and a.tail == b.tail:
        if a.place.number != b.place.number:
            return Why.LOWER_NUMBER, {"number": a.place.number, "other": b.place.number}
        return Why.CAME_EARLIER, {"at": a.place.arrived_at}
    at_end = a.tail > 0 and a.how is not How.RETURNED
    if b.how in _BEHIND and a.how is not b.how and not at_end:
        return _BEHIND[b.how], {"at": b.at}
    times: Mapping[str, str | int] = {"at": a.at, "other": b.at}
    if at_end:
        return Why.EARLIER_END, times
    if a.how is How.TIME:
        return (Why.EARLIER_TIME if b.how is How.TIME else Why.TIME_BEFORE_CAME), times
    if b.how is How.TIME:
        return Why.CAME_BEFORE_TIME, times
    return Why.CAME_EARLIER, times
