"""What others are told of each journal event, and how it is spelled."""

from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import BillKey, RoomKey
from engine.journal.codec import EVENT_CODES
from tests.support.stores import doctor, uid
from web.events.cursors import CursorBroken, cursor_of, positions_of
from web.events.envelope import cloud_event, schema_of
from web.events.reading import Wanted
from web.events.vocabulary import PUBLISHED, TYPES, BookedFor, Facts, PublicEvent, told, uuid

ONE, PATIENT, OTHER = uid("appointment", 1), uid("patient", 1), uid("appointment", 2)
KEY = doctor()
ROOM, BILL = RoomKey("X1", KEY.day), BillKey(uid("bill", 1))
FACTS = Facts(
    {ONE: BookedFor(PATIENT, KEY.schedule_id, "X1", 7)},
    {uid("ticket"): PATIENT},
    {BILL.bill_id: (PATIENT, 1500)},
)
NOTE = "张三 13800000001"
"""What somebody typed: it must never get out."""

EVENTS = [
    (
        KEY.stream,
        s.SeatHeld(ONE, "0800", 0, PATIENT, uid("account"), 1_764_000_000_000, by=NOTE),
        "appointment.held",
    ),
    (KEY.stream, s.SeatBooked(ONE, NOTE), "appointment.booked"),
    (KEY.stream, s.SeatReleased(ONE, "cancelled", NOTE, NOTE), "appointment.cancelled"),
    (KEY.stream, s.SeatReleased(ONE, "expired"), "appointment.expired"),
    (KEY.stream, s.SeatReleased(ONE, "changed", successor=OTHER), "appointment.rescheduled"),
    (KEY.stream, s.SeatReleased(ONE, "lost_claim"), None),
    (KEY.stream, s.SeatRestored(ONE, 2), "appointment.restored"),
    (KEY.stream, s.AttendanceRecorded(ONE, s.Status.ARRIVED, NOTE), "appointment.arrived"),
    (KEY.stream, s.AttendanceRecorded(ONE, s.Status.FULFILLED, NOTE), "appointment.fulfilled"),
    (KEY.stream, s.AttendanceRecorded(ONE, s.Status.NOSHOW, NOTE), "appointment.no_show"),
    (KEY.stream, s.AttendanceRecorded(ONE, s.Status.BOOKED, NOTE), "appointment.arrival_withdrawn"),
    (KEY.stream, s.AttendanceConfirmed(ONE), "appointment.confirmed"),
    (KEY.stream, s.SeatBooked(OTHER), None),
    (doctor(2).stream, s.SeatBooked(ONE), None),
    (KEY.stream, s.SessionStatusSet("morning", "suspended", "ill"), "schedule.suspended"),
    (KEY.stream, s.SessionStatusSet("morning", "paused", "ill"), "schedule.paused"),
    (KEY.stream, s.SessionStatusSet("morning", "open", ""), "schedule.resumed"),
    (KEY.stream, s.SeatsAdded("0800", 2, 0), "schedule.changed"),
    (KEY.stream, s.SessionMoved("morning", (("0800", "0900", 1),), None), "schedule.changed"),
    (KEY.stream, s.SessionSubstituted("morning", "D2"), "schedule.changed"),
    (KEY.stream, s.ScheduleRevised(b"1", NOTE, NOTE), None),
    (
        KEY.stream,
        s.WishAdded(uid("wish"), uid("account"), (PATIENT,), ("0800",), 1, 2, 3, b"4"),
        "waitlist.joined",
    ),
    (KEY.stream, s.WishEnded(uid("wish"), "met"), "waitlist.left"),
    (ROOM.stream, w.TicketCalled(b"1", uid("ticket"), "R1", "a", True, NOTE, NOTE, 5), "ticket.called"),
    (ROOM.stream, w.TicketLeft(b"1", uid("ticket"), NOTE, NOTE, 5), "ticket.left"),
    (ROOM.stream, w.StageFinished(b"1", uid("ticket"), (), 1, NOTE, 5), "ticket.stage_finished"),
    (ROOM.stream, w.AlarmSet(b"1", "R1", True, NOTE, NOTE, 5), None),
    (BILL.stream, p.BillSettled((("registration", 1500),)), "bill.paid"),
    (BILL.stream, p.RefundDone(uid("refund"), "alipay", "their-number", 100), "bill.refunded"),
    (BILL.stream, p.BillClosed("expired"), "bill.closed"),
    (BILL.stream, p.PrepayReady(uid("attempt"), "secret"), None),
]


@pytest.mark.parametrize(("stream", "event", "type_"), EVENTS)
def test_each_event_has_its_word_and_fits_its_schema(stream: str, event: object, type_: str | None) -> None:
    said = told(stream, event, FACTS)  # type: ignore[arg-type]
    if type_ is None:
        assert said is None
        return
    assert said is not None and said[0] == type_
    spelled = cloud_event(PublicEvent(3, 9, stream, *said[:2], datetime.now(UTC), said[2]), "urn:uuid:1")
    Draft202012Validator(schema_of(type_)).validate(spelled["data"])
    assert not set(spelled["data"]) - set(TYPES[type_].fields) - set(TYPES[type_].may)
    assert NOTE not in str(spelled) and "their-number" not in str(spelled)
    assert (spelled["id"], spelled["partitionkey"]) == ("3-9", stream)


def test_an_issued_ticket_is_told_with_its_label() -> None:
    issued = w.TicketIssued(
        b"1",
        uid("ticket"),
        PATIENT,
        ONE,
        0,
        "A",
        7,
        0,
        0,
        0,
        0,
        (("visit", "Q1", "", 0),),
        "",
        0,
        "desk",
        0,
        1,
        NOTE,
        5,
    )
    said = told(ROOM.stream, issued, Facts())
    assert said is not None and said[0] == "ticket.issued"
    assert (said[2]["label"], said[2]["queue_id"], said[2]["appointment_id"]) == ("A007", "Q1", uuid(ONE))
    Draft202012Validator(schema_of("ticket.issued")).validate(said[2])


def test_every_published_kind_is_one_of_the_journal_and_every_word_can_be_asked_for() -> None:
    assert set(EVENT_CODES) > PUBLISHED
    for type_ in TYPES:
        assert Wanted((type_,)).has(type_) and Wanted(("*",)).has(type_)
        assert Wanted((f"{type_.partition('.')[0]}.*",)).has(type_)
    assert not Wanted(("bill.*", "appointment.held")).has("appointment.booked")


def test_a_cursor_is_what_was_put_in_and_nobody_elses() -> None:
    secret, places = b"s" * 32, {0: 7, 12: 2**40}
    cursor = cursor_of(places, secret)
    assert positions_of(cursor, secret) == places
    assert positions_of(cursor_of({}, secret), secret) == {}
    with pytest.raises(CursorBroken):
        positions_of(cursor, b"t" * 32)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c[:-1],
        lambda c: "B" + c[1:],
        lambda c: c + "A",
        lambda _: "",
        lambda _: "é",
        lambda _: "===",
        lambda _: "A" * 5_000,
    ],
)
def test_a_spoilt_cursor_is_no_cursor(spoil: object) -> None:
    secret = b"s" * 32
    with pytest.raises(CursorBroken):
        positions_of(spoil(cursor_of({0: 7}, secret)), secret)  # type: ignore[operator]
