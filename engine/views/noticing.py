"""What patients are to be told without asking, at one moment of one department. Pure.

Whatever is due is given each time it is asked for, but for what is known to have been told. That nobody is
told anything twice is seen to by whoever keeps it: engine/records/notices.py.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

from engine.domain import queue_order as order
from engine.domain import waiting_room as w
from engine.domain.queue_order import Rules
from engine.domain.waiting_terms import NoticeTerms
from engine.records.notices import Key, New
from engine.views.forecasting import MINUTE_MS, Expected, Told, arrive_by

OVERDUE_MS: Final = 60 * MINUTE_MS
"""Who is an hour behind his appointed time and not here is told nothing any more."""
LATE_STEPS_MAX: Final = 50


def ahead_due(
    room: w.WaitingRoom, rules: Rules, terms: NoticeTerms, now: int, told: Collection[Key]
) -> Iterator[New]:
    """Three people ahead. Of several numbers the least that fits; no greater one after a lesser."""
    if not terms.ahead:
        return
    for queue_id in room.queues:
        for at in w.positions(room, queue_id, rules, now):
            fits = [n for n in terms.ahead if at.ahead <= n]
            if not fits:
                continue
            wanted = min(fits)
            steps = [f"{at.stage}/{n}" for n in terms.ahead if n <= wanted]
            if any((at.ticket_id, "ahead", step) in told for step in steps):
                continue
            ticket = room.tickets[at.ticket_id]
            yield New(
                at.ticket_id,
                "ahead",
                f"{at.stage}/{wanted}",
                ticket.patient_id,
                {"ahead": at.ahead, "number": ticket.label},
            )


def leave_home_due(
    expected: Collection[Expected],
    told: Told,
    rules: order.OrderRules,
    terms: NoticeTerms,
    way_minutes: int,
    margin_minutes: int,
) -> Iterator[New]:
    """Leave home now: for those who are not here. `way_minutes`: of whoever has not said it.

    Until somebody can tell when it is their turn, they are told by the appointed time.
    """
    if not terms.leave_home:
        return
    for one in expected:
        if not is_awaited(one, told.at) or one.appointment_id in told.here:
            continue
        turn = told.booked.get(one.appointment_id)
        p10_at = None if turn is None else told.at + int(turn.estimate.p10_seconds * 1000)
        way = way_minutes if one.way_minutes is None else one.way_minutes
        by = arrive_by(one.starts_at, p10_at, rules, margin_minutes * MINUTE_MS)
        if told.at >= by - way * MINUTE_MS:
            data: dict[str, Any] = {"way_minutes": way, "assumed": one.way_minutes is None, "arrive_by": by}
            if turn is not None:
                data["turn_at"] = told.at + int(turn.estimate.p50_seconds * 1000)
            yield New(one.appointment_id, "leave_home", "", one.patient_id, data)


def late_due(
    expected: Collection[Expected], told: Told, terms: NoticeTerms, already: Collection[Key]
) -> Iterator[New]:
    """The practitioner is late, for those who are not here: once a step of `late_minutes`, and no lesser step
    after a greater one."""
    if not terms.late_minutes:
        return
    for one in expected:
        if not is_awaited(one, told.at) or one.appointment_id in told.here:
            continue
        steps = told.late.get(one.practitioner_id, 0) // 60 // terms.late_minutes
        if not steps:
            continue
        if any(
            (one.appointment_id, "late", str(n * terms.late_minutes)) in already
            for n in range(steps, steps + LATE_STEPS_MAX)
        ):
            continue
        minutes = steps * terms.late_minutes
        data = {"late_minutes": minutes, "practitioner_id": one.practitioner_id}
        yield New(one.appointment_id, "late", str(minutes), one.patient_id, data)


def is_awaited(one: Expected, now: int) -> bool:
    """Booked, of today, and not overdue beyond hope."""
    return one.booked_at <= now < one.given_up_at and now < one.starts_at + OVERDUE_MS
