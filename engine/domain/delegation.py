"""How long one person may book for another: the right that is given when a patient is added to an account.

For oneself it is for good. For one's child it ends on the child's eighteenth birthday. A grown-up consents
for a number of days, and again afterwards. Days are the hospital's; the first one without the right is told.
"""

from datetime import date, timedelta
from typing import Final

from engine.domain.eligibility import full_years

GROWN_UP_YEARS: Final = 18

SELF: Final = "self"
CHILD: Final = "child"


def ends_on(relation: str, birth_date: date | None, today: date, days: int) -> date | None:
    """The first day without the right when it is given today; None: it does not end.

    A grown-up child is a grown-up, and so is one whose age nobody knows.
    """
    if relation == SELF:
        return None
    if relation == CHILD and birth_date is not None and full_years(birth_date, today) < GROWN_UP_YEARS:
        return birthday(birth_date, GROWN_UP_YEARS)
    return today + timedelta(days=days)


def birthday(birth_date: date, years: int) -> date:
    """Who is born on 29 February turns a year older on 1 March."""
    try:
        return birth_date.replace(year=birth_date.year + years)
    except ValueError:
        return date(birth_date.year + years, 3, 1)
