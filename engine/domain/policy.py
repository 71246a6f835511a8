"""What the hospital decided about numbers. Data, not code: engine/records/policy_file.py reads policy.yaml.

`Terms` are the rules of one department and number class, `WaitingTerms` those of a department's waiting room;
`Policy` holds them all, with what is true for the whole hospital. Pure and immutable, so `decide` takes it as
an argument, like the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from functools import lru_cache
from typing import Final

from engine.domain.consents import ConsentKind
from engine.domain.limits import HOLD_SECONDS_DEFAULT, HOLD_SECONDS_MAX
from engine.domain.payment import MoneyTerms
from engine.domain.price_rules import PriceRules
from engine.domain.waiting_terms import WaitingTerms


class Channel(IntFlag):
    """Where somebody books. A set of them says to whom seats are open."""

    MINI_PROGRAM = 1
    WINDOW = 2
    KIOSK = 4
    PHONE = 8
    REFERRAL = 16  # 医联体
    DOCTOR = 32  # 加号 and follow-ups that a doctor keeps for her own patients
    MANAGEMENT = 64
    HIS = 128


EVERYBODY: Final = Channel(255)
SELF_SERVICE: Final = Channel.MINI_PROGRAM | Channel.KIOSK | Channel.PHONE


@dataclass(frozen=True, slots=True)
class Moment:
    """A wall-clock time so many days before the visit. 0 days: on the day itself."""

    days_before: int
    minute: int  # after midnight, hospital's zone


@dataclass(frozen=True, slots=True)
class Opening:
    """A part of the seats opens (放号) at one moment, on every channel that may have them."""

    percent: int
    at: Moment


@dataclass(frozen=True, slots=True)
class Flow:
    """From `at` on the pool's unused seats are open to `channels`."""

    at: Moment
    channels: Channel


@dataclass(frozen=True, slots=True)
class Pool:
    """号源池: a share of every session's seats, kept for some channels. The rest is everybody's."""

    name: str
    percent: int
    channels: Channel
    flows: tuple[Flow, ...] = ()  # by time


class Return(StrEnum):
    """When a returned number is free again for those who did not wait for it."""

    AT_ONCE = "at_once"
    COOL_DOWN = "cool_down"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Returned:
    mode: Return = Return.AT_ONCE
    seconds_min: int = 0  # random: the window begins; cool_down: the wait
    seconds_max: int = 0  # random: the window ends


@dataclass(frozen=True, slots=True)
class Waitlist:
    enabled: bool = True
    offer_seconds: int = 15 * 60
    closes_minutes: int = 120  # before the slot; then what is left is everybody's
    length_max: int = 200  # wishes on one practitioner's day


@dataclass(frozen=True, slots=True)
class Attendance:
    """Whoever booked long ago is asked whether he still comes; without an answer his seat goes to others."""

    asked_minutes: int  # before the slot: from then on one may answer. Who books later is not asked
    by_minutes: int  # before the slot: the last moment to answer


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules of one department and number class."""

    hold_seconds: int = HOLD_SECONDS_DEFAULT
    closes_minutes: int = 0  # before the slot: the last moment to book by oneself
    cancel_minutes: int = 0  # before the slot: the last moment to cancel by oneself
    change_minutes: int = 0  # before the slot: the last moment to change (改签) by oneself
    changes_max: int = 3  # times one booking may be changed
    first_visits_max: int | None = None  # a session
    follow_ups_max: int | None = None  # a session
    follow_up_days: int = 90  # a visit to the department within these makes the next a follow-up
    openings: tuple[Opening, ...] = ()  # empty: open as soon as published; else the percents make 100
    pools: tuple[Pool, ...] = ()
    returned: Returned = Returned()
    waitlist: Waitlist = Waitlist()
    attendance: Attendance | None = None  # None: nobody is asked

    def __post_init__(self) -> None:
        assert 0 < self.hold_seconds <= HOLD_SECONDS_MAX
        assert not self.openings or sum(o.percent for o in self.openings) == 100
        assert sum(p.percent for p in self.pools) <= 100


class Offence(StrEnum):
    """What a patient or an account may do too often."""

    NO_SHOW = "no_show"  # 爽约
    LATE_CANCEL = "late_cancel"  # within `late_cancel_minutes` of the visit
    CANCEL = "cancel"
    DROPPED_HOLD = "dropped_hold"  # held and let go unpaid: how scalpers keep numbers for a buyer


class Subject(StrEnum):
    PATIENT = "patient"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class ConductRule:
    """`count` offences within `window_days` stop `subject` from booking for `block_days`."""

    name: str
    offence: Offence
    subject: Subject
    count: int
    window_days: int
    block_days: int


class Fate(StrEnum):
    """What becomes of a number whose session is called off, in the order in which a hospital tries them."""

    MOVED = "moved"
    OFFERED = "offered"
    WAITLISTED = "waitlisted"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Suspension:
    """停诊: how the patients of a session that is called off are looked after."""

    order: tuple[Fate, ...] = (Fate.OFFERED, Fate.WAITLISTED, Fate.REFUNDED)
    offer_seconds: int = 24 * 3600
    days_max: int = 7  # how far from the visit another one may be


APPROVABLE: Final = (
    "open_session",
    "change_capacity",
    "move_session",
    "add_seats",  # 加号 for a count
    "add_patient",  # 加号 for one patient
    "suspend",  # 停诊
    "substitute",  # 替诊
    "pause",
    "resume",
    "change_template",
)
"""Schedule work that a hospital may bind to somebody's consent."""

SUBSTITUTES: Final = ("department", "first_level", "hospital")
"""Of the same department, of those under the same first-level one, or of any."""

APPROVERS: Final = ("desk", "schedule_office", "manager")
"""Staff roles that may be asked for it."""


@dataclass(frozen=True, slots=True)
class Policy:
    hold_seconds: int = HOLD_SECONDS_DEFAULT
    """Where no policy file says otherwise: the setting of this installation."""
    active_appointments_max: int = 10  # pending and booked, a patient, over all departments
    account_holds_max: int = 5  # unpaid numbers an account may hold at one time
    day_appointments_max: int = 5  # of a patient on one day, over all departments
    wishes_max: int = 5  # open wishes an account may have on waiting lists
    late_cancel_minutes: int = 60
    delegation_days: int = 365  # how long a grown-up's consent to be booked for lasts
    real_name_required: bool = False  # who is not verified may not book
    guardian_required: bool = False  # who is under 14 is added by a guardian who is known here
    word_is_enough: bool = False  # who adds a person is believed: nobody is asked, no guardian needed
    consents_required: tuple[ConsentKind, ...] = ()  # without these nobody adds a person or books
    staff_named_to_patients: bool = False  # who read a record is told by name, not by role alone
    no_show_after_minutes: int | None = None  # past the slot, who has not come; None: the desk says
    conduct: tuple[ConductRule, ...] = ()
    approvals: Mapping[str, str] = field(default_factory=dict)
    """Of APPROVABLE -> of APPROVERS: the role that must agree to it."""
    suspension: Suspension = Suspension()
    substitutes: str = "department"
    """Of SUBSTITUTES: how far from a session's department its substitute (替诊) may be."""
    terms: Mapping[tuple[str, str], Terms] = field(default_factory=dict)
    """(department, class) -> terms; "" stands for all. Every level is whole: the file's reader merges."""
    waiting: Mapping[str, WaitingTerms] = field(default_factory=dict)
    """Department -> rules of its waiting room; "" stands for all others. Every level is whole."""
    money: MoneyTerms = MoneyTerms()
    prices: PriceRules = PriceRules()
    refund_approval_above: int | None = None
    """Fen: for what staff give back beyond it, a manager's consent is asked. None: for nothing."""

    def __post_init__(self) -> None:
        assert 0 < self.hold_seconds <= HOLD_SECONDS_MAX
        assert self.active_appointments_max > 0
        assert self.account_holds_max > 0

    def terms_of(self, department_id: str, number_class_id: str) -> Terms:
        """The most particular that there are: both, then the department's, the class's, the hospital's."""
        terms = self.terms
        if terms:
            for key in (
                (department_id, number_class_id),
                (department_id, ""),
                ("", number_class_id),
                ("", ""),
            ):
                found = terms.get(key)
                if found is not None:
                    return found
        return _default_terms(self.hold_seconds)

    def waiting_of(self, department_id: str) -> WaitingTerms:
        """The department's own, else the hospital's."""
        found = self.waiting.get(department_id)
        return found if found is not None else self.waiting.get("", DEFAULT_WAITING)


DEFAULT_WAITING: Final = WaitingTerms()


@lru_cache(maxsize=16)
def _default_terms(hold_seconds: int) -> Terms:
    return Terms(hold_seconds)
