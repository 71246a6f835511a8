"""Bills that the hospital's own billing made: how their orders are spelled here, and which bill each is.

The hospital numbers its bills, and raises a bill's revision whenever it changes what is on it, or brings back
what it had withdrawn. Each revision is a bill of its own here, so that what somebody agreed to pay never
changes under their hands.
"""

import re
from typing import Final

from engine.domain.ids import derived

PREFIX: Final = "hospital/"
"""Of the `order` of such bills; no other order begins so."""
NUMBER_FORMAT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
REVISION_MAX: Final = 1_000_000


def order_of(number: str, revision: int) -> str:
    return f"{PREFIX}{number}/{revision}"


def bill_id_of(number: str, revision: int) -> bytes:
    """The same whoever asks, and however often."""
    return derived(b"hospital bill", order_of(number, revision).encode())


def parts_of(order: str) -> tuple[str, int] | None:
    """Number and revision; None of an order that is not the hospital's."""
    if not order.startswith(PREFIX):
        return None
    number, _, revision = order.removeprefix(PREFIX).rpartition("/")
    return number, int(revision)
