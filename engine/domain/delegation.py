"""How one person may act for another: the right that is given when a patient is added to an account, or when
the person says yes to whoever asks.

For oneself it is for good. For one's child, or a minor who is one's ward, it ends on the eighteenth
birthday. A grown-up consents for a number of days, and again afterwards. Days are the hospital's; the first
one without the right is told.

Who is under 14 acts through a guardian alone (PIPL 31). Who has an account of their own is asked.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Final

from engine.domain.eligibility import full_years

GROWN_UP_YEARS: Final = 18
OWN_WILL_YEARS: Final = 14
"""Under these a guardian consents to whatever is done with the child's data."""

SELF: Final = "self"
CHILD: Final = "child"
WARD: Final = "ward"
GUARDED: Final = (CHILD, WARD)
"""Relations in which the account's holder is the guardian."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What an account may do for a person."""

    book: bool = True  # hold, confirm, change, wait for numbers; check in
    see_visits: bool = True  # what came of them: visits, tickets, notices
    pay: bool = True


ALL: Final = Rights()


class Consent(Enum):
    """Whose word a right rests on."""

    OWN = "own"  # the account's holder is the person
    APPROVED = "approved"  # the person said yes from an account of their own
    ATTESTED = "attested"  # the account's holder says that the person has said yes
    GUARDIAN = "guardian"  # the account's holder says that they are the guardian
    DESK = "desk"  # a clerk saw the papers


class Way(Enum):
    """What becomes of a wish to act for somebody."""

    GIVEN = "given"
    ASKED = "asked"  # the person must say yes first
    GUARDIAN_NEEDED = "guardian_needed"
    REFUSED = "refused"  # it was taken back, and there is nobody to ask


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody wants to act for a person."""

    relation: str
    years: int | None  # of the person, full; None: nobody knows
    has_own_account: bool  # another one than the one that asks
    has_live_right: bool  # the account has it already, with this relation
    guardian_known: bool  # a grown-up is the account's `self`
    taken_back_by: str | None = None  # the last right of this account: "person" or "desk"


def way_of(wish: Wish, *, guardian_required: bool, word_is_enough: bool = False) -> tuple[Way, Consent]:
    """And the consent that it rests on, if it is given.

    `word_is_enough`: whoever adds a person is believed, for demonstrations and for hospitals that see papers
    at the desk. What the person or a desk has taken back is not given again by anybody's word.
    """
    if wish.taken_back_by == "desk" and not wish.has_own_account:
        return Way.REFUSED, Consent.DESK
    if wish.years is not None and wish.years < OWN_WILL_YEARS:
        if wish.relation == SELF and not word_is_enough:
            return Way.GUARDIAN_NEEDED, Consent.GUARDIAN
        if guardian_required and not (wish.relation in GUARDED and wish.guardian_known):
            return Way.GUARDIAN_NEEDED, Consent.GUARDIAN
        return Way.GIVEN, Consent.GUARDIAN
    if wish.relation in GUARDED and is_minor(wish.years):
        return Way.GIVEN, Consent.GUARDIAN
    if wish.has_own_account and not wish.has_live_right and not (word_is_enough and not wish.taken_back_by):
        return Way.ASKED, Consent.APPROVED
    if wish.taken_back_by is not None:
        return Way.REFUSED, Consent.ATTESTED
    return Way.GIVEN, Consent.OWN if wish.relation == SELF else Consent.ATTESTED


def is_minor(years: int | None) -> bool:
    """A person whose age nobody knows is a grown-up."""
    return years is not None and years < GROWN_UP_YEARS


def ends_on(relation: str, birth_date: date | None, today: date, days: int) -> date | None:
    """The first day without the right when it is given today; None: it does not end.

    A grown-up child is a grown-up, and so is one whose age nobody knows.
    """
    if relation == SELF:
        return None
    if relation in GUARDED and birth_date is not None and full_years(birth_date, today) < GROWN_UP_YEARS:
        return birthday(birth_date, GROWN_UP_YEARS)
    return today + timedelta(days=days)


def birthday(birth_date: date, years: int) -> date:
    """Who is born on 29 February turns a year older on 1 March."""
    try:
        return birth_date.replace(year=birth_date.year + years)
    except ValueError:
        return date(birth_date.year + years, 3, 1)
