"""HL7's times: YYYY[MM[DD[HH[MM[SS[.S]]]]]][+ZZZZ]. Pure."""

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Final

from integrations.hl7v2.malformed import Malformed

_FORM: Final = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6})\d*)?)?)?)?)?)?([+-]\d{4})?", re.ASCII
)


def stamp(at: datetime) -> str:
    """To the second, with its zone's offset, as `at` has it."""
    return at.strftime("%Y%m%d%H%M%S%z")


def day(on: date) -> str:
    return on.strftime("%Y%m%d")


def time_of(text: str, zone: tzinfo, where: str = "") -> datetime:
    """`zone`: of a time that names none, and of the result. Raises Malformed."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Malformed(where, "time")
    year, month, of_month, hour, minute, second, fraction, offset = found.groups()
    try:
        at = datetime(
            int(year),
            int(month or 1),
            int(of_month or 1),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "").ljust(6, "0")),
            tzinfo=zone if offset is None else _zone(offset),
        )
        return at.astimezone(zone)
    except (ValueError, OverflowError):
        raise Malformed(where, "time") from None


def date_of(text: str, where: str = "") -> date:
    """A day; of a time, its day as written. Raises Malformed."""
    if len(text) < 8:
        raise Malformed(where, "date")
    return time_of(re.sub(r"[+-]\d{4}$", "", text), UTC, where).date()


def _zone(offset: str) -> tzinfo:
    delta = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))
    return timezone(-delta if offset[0] == "-" else delta)
