"""What becomes of each kind of data when a person wants to be forgotten, and until when the law keeps it.

A hospital keeps an outpatient's record for 15 years from the last visit (医疗机构病历管理规定 29;
电子病历应用管理规范 19). What belongs to it (who it was, the visits, what was measured) is then *restricted*:
kept, and shown to nobody in the ordinary course of work. All else is erased at once (PIPL 47). Where nothing
happened that must be recorded, nothing is kept. Pure: days are the hospital's.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from engine.domain.delegation import birthday

OUTPATIENT_YEARS: Final = 15


class Datum(StrEnum):
    """Kinds of data about a person."""

    IDENTITY = "identity"  # name, number of the document, birth date, sex
    VISITS = "visits"  # appointments and tickets
    CLINICAL = "clinical"  # what was measured and noted
    CONTACT = "contact"  # telephone numbers
    APPEALS = "appeals"  # what was written about a penalty, and its answer
    CALLS = "calls"  # what was said when the desk rang
    NOTICES = "notices"  # what the person was told, and how long their way is
    DELEGATIONS = "delegations"  # who may book for whom
    SIGN_IN = "sign_in"  # openid, sessions, devices
    WISHES = "wishes"  # waiting lists, all ended
    PENALTIES = "penalties"  # blocks: ids and times
    CONSENTS = "consents"  # what was agreed to, when and how: the proof of it
    TRAIL = "trail"  # who read and changed what: the audit


class Fate(StrEnum):
    ERASED = "erased"  # nobody can read it any more, nor in a backup
    RESTRICTED = "restricted"  # kept until a day because the law says so; nobody works with it
    UNNAMED = "unnamed"  # stays as numbers, which lead to nobody once the identity is erased
    KEPT = "kept"  # as the evidence that the law asks for; holds ids and times, no name


class Obstacle(StrEnum):
    """What must be settled first. Each is the person's own to settle, or ends by itself."""

    BOOKING_AHEAD = "booking_ahead"
    BILL_OPEN = "bill_open"
    WAITING_TODAY = "waiting_today"
    WISH_OPEN = "wish_open"
    APPEAL_OPEN = "appeal_open"
    PENALTY_IN_FORCE = "penalty_in_force"  # of a login: a new one would be free of it


@dataclass(frozen=True, slots=True)
class Standing:
    """What binds a hospital to a person's data."""

    last_visit: date | None  # the last one that took place, here or in the room; None: there was none
    blocked_until: date | None = None  # the day on which the last penalty in force ends
    bookings_ahead: int = 0
    bills_open: int = 0  # numbers that are held and not paid
    waits: int = 0  # tickets of a waiting room that are not over
    wishes_open: int = 0
    appeals_open: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The fate of one kind of data; `until`: the first day on which a RESTRICTED one goes, too."""

    fate: Fate
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    obstacles: tuple[Obstacle, ...]
    fates: dict[Datum, Kept]
    """What would become of each, once no obstacle is left."""
    kept_until: date | None
    """None: nothing that leads to the person is kept."""


def obstacles(standing: Standing) -> tuple[Obstacle, ...]:
    found = (
        (Obstacle.BOOKING_AHEAD, standing.bookings_ahead),
        (Obstacle.BILL_OPEN, standing.bills_open),
        (Obstacle.WAITING_TODAY, standing.waits),
        (Obstacle.WISH_OPEN, standing.wishes_open),
        (Obstacle.APPEAL_OPEN, standing.appeals_open),
    )
    return tuple(obstacle for obstacle, count in found if count)


def of_patient(standing: Standing, today: date, years: int = OUTPATIENT_YEARS) -> Decision:
    """A person who asks to be forgotten, with or without a record here."""
    record = None if standing.last_visit is None else birthday(standing.last_visit, years)
    record = record if record is not None and record > today else None
    # A block is not lived down by being forgotten: it knows the person until it ends.
    block = standing.blocked_until if (standing.blocked_until or today) > today else None
    identity = max((day for day in (record, block) if day is not None), default=None)
    bound = _erased_or(identity)  # what was written of the visits has the identity's key
    fates = {
        Datum.IDENTITY: bound,
        Datum.VISITS: Kept(Fate.UNNAMED) if record is None else Kept(Fate.RESTRICTED, record),
        Datum.CLINICAL: bound,
        **dict.fromkeys(
            (Datum.CONTACT, Datum.APPEALS, Datum.CALLS, Datum.NOTICES, Datum.DELEGATIONS), Kept(Fate.ERASED)
        ),
        Datum.PENALTIES: Kept(Fate.UNNAMED),
        Datum.CONSENTS: Kept(Fate.KEPT),
        Datum.TRAIL: Kept(Fate.KEPT),
    }
    return Decision(obstacles(standing), fates, identity)


def of_account(standing: Standing) -> Decision:
    """A login that is to be forgotten. The people whom it acts for are forgotten by themselves."""
    fates = {
        **dict.fromkeys((Datum.SIGN_IN, Datum.CONTACT, Datum.APPEALS, Datum.DELEGATIONS), Kept(Fate.ERASED)),
        Datum.WISHES: Kept(Fate.UNNAMED),
        Datum.PENALTIES: Kept(Fate.UNNAMED),
        Datum.CONSENTS: Kept(Fate.KEPT),
        Datum.TRAIL: Kept(Fate.KEPT),
    }
    found = obstacles(standing)
    if standing.blocked_until is not None:
        found = (*found, Obstacle.PENALTY_IN_FORCE)
    return Decision(found, fates, None)


def _erased_or(until: date | None) -> Kept:
    return Kept(Fate.ERASED) if until is None else Kept(Fate.RESTRICTED, until)
