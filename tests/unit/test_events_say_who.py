"""The journal is half of the audit: each kind of event says who did it, or docs/AUDIT.md says why not."""

from dataclasses import fields
from pathlib import Path

from engine.journal.codec import EVENT_CODES

DOCUMENT = (Path(__file__).parents[2] / "docs/AUDIT.md").read_text()
SAYS_NOT = {
    "ScheduleOpened",  # the actor's own, as are the next three
    "CoolingEnded",
    "SeatRestored",
    "DayOpened",
    "SessionOpened",  # after a ScheduleRevised, as are the next six
    "SeatsAdded",
    "SeatsBlocked",
    "SeatsUnblocked",
    "SessionMoved",
    "SessionStatusSet",
    "SessionSubstituted",
    "SubstituteAnswered",  # the number's own account
    "AttendanceConfirmed",
    "FateDecided",  # a suspension's
    "WishEnded",
    "BillSettled",  # after a CommandTaken, as is all that happens to a bill
    "PaymentStarted",
    "PrepayReady",
    "PaymentUncertain",
    "PaymentEnded",
    "PaymentReceived",
    "PaymentDeferred",
    "BillClosed",
    "SeatSecured",
    "SeatLapsed",
    "SeatLost",
    "SeatChanged",
    "SeatUnwanted",
    "RefundRequested",
    "RefundSent",
    "RefundUncertain",
    "RefundReset",
    "RefundRejected",
    "RefundDone",
    "SeatReleased",  # of a bill; a schedule's says who
}


def test_every_event_says_who_or_is_listed() -> None:
    silent = {
        kind.__name__ for kind in EVENT_CODES if not {"by", "account_id"} & {one.name for one in fields(kind)}
    }
    assert silent == SAYS_NOT


def test_the_list_is_in_the_document() -> None:
    assert [name for name in sorted(SAYS_NOT) if f"`{name}`" not in DOCUMENT] == []
