"""What an event of a waiting room writes beside itself: the ticket's row, and what others must do next."""

from dataclasses import astuple

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.schedule import Status as Attendance
from engine.journal.journal import Entry, More


def enact_room(room: w.WaitingRoom, key: RoomKey, event: w.Event, now: int) -> Entry:
    """As journal.enact, for waiting rooms. They hold no claims: a patient may wait in two departments."""
    w.apply(room, event)
    entry = Entry(key.stream, event, now)
    if isinstance(event, w.DayOpened | w.QueueSet | w.RoomSet | w.AlarmSet):
        return entry
    ticket = room.tickets[event.ticket_id]
    entry.more = More(tickets={ticket.ticket_id.hex(): row_of(key, ticket)})
    attendance = _attendance(event, ticket)
    if attendance is not None:
        data = {"status": int(attendance), "by": event.by}
        entry.more.errands.append(["attendance", ticket.appointment_id.hex(), data])
    return entry


def _attendance(event: w.Event, ticket: w.Ticket) -> Attendance | None:
    """What the practitioner's day must learn of a booked patient."""
    if not ticket.appointment_id:
        return None
    if isinstance(event, w.TicketIssued):
        return None if event.where == w.Where.NOBODY else Attendance.ARRIVED
    if isinstance(event, w.StageFinished) and not any(kind == w.VISIT for kind, *_ in event.stages):
        return Attendance.FULFILLED
    return None


def row_of(key: RoomKey, ticket: w.Ticket) -> list[object]:
    """The ticket as its table shows it; times in ms, None where it has not come to that. See 0010."""
    standing = ticket.standing
    done = standing.done
    seen = [stage for stage in done if stage.started_at]
    return [
        key.department_id,
        key.day,
        ticket.patient_id.hex(),
        ticket.appointment_id.hex() or None,
        ticket.prefix,
        ticket.number,
        int(ticket.status),
        ticket.queue_id,
        ticket.practitioner_id,
        standing.room_id,
        len(done) + bool(standing.stages),
        len(done) + len(standing.stages),
        ticket.visit,
        standing.priority,
        standing.emergency,
        ticket.starts_at or None,
        ticket.arrived_at,
        (seen[0].called_at if seen else standing.first_called_at) or None,
        (seen[0].started_at if seen else standing.started_at) or None,
        (done[-1].finished_at if done else 0) or None,
        [list(astuple(stage)) for stage in done],
        ticket.version,
    ]
