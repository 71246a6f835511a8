"""Whose waiting room it is: roles, departments, who holds which session that day, what is in whose room."""

from dataclasses import replace

import pytest
from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.policy import Channel
from engine.domain.room_plan import RoomPlan, opening
from engine.domain.waiting_terms import WaitingTerms
from engine.records.staff import Role
from engine.views.availability import Availability
from tests.unit.test_availability import CATALOG, DAY, MS, row, session
from web import keys
from web.auth import Staff
from web.queues.rights import Sight, duties, runs, sight_of, works_in
from web.queues.rights import is_theirs as is_of
from web.queues.rooms import session_end

KEY = RoomKey("cardio", DAY.isoformat())
MORNING, AFTERNOON = session("morning", "0000", "0030"), session("afternoon", "0600")


def member(role: str, department: str | None = None, practitioner: str | None = None) -> Staff:
    return Staff(bytes(16), role, role, frozenset({role}), practitioner, department, Channel.WINDOW)


@pytest.fixture
def app() -> web.Application:
    app = web.Application()
    app[keys.AVAILABILITY] = Availability(
        CATALOG,
        [
            row("D1", MORNING, AFTERNOON),
            row("D2", replace(MORNING, substitute_id="D4"), AFTERNOON),
            row("D3", session("morning", "0000", of="derma")),
        ],
    )
    return app


def midnight() -> int:
    return row("D1").midnight_utc


def test_a_nurse_a_desk_and_a_manager_run_their_department_and_those_below() -> None:
    running = {Role.NURSE, Role.DESK, Role.MANAGER, Role.DEPARTMENT_HEAD}
    for role in running:
        for department, expected in ((None, True), ("cardio", True), ("inner", True), ("derma", False)):
            assert runs(member(role, department), "cardio", CATALOG.departments) is expected
    for role in set(Role) - running:
        assert not runs(member(role), "cardio", CATALOG.departments)


def test_a_doctor_works_where_she_belongs_and_where_she_holds_a_session(app: web.Application) -> None:
    def works(who: str | None, key: RoomKey = KEY) -> bool:
        return works_in(app, member(Role.DOCTOR, practitioner=who), key)

    assert works("D1") and works("D3"), "of this department"
    assert works("D4"), "of another, but a substitute here today"
    assert not works("D4", RoomKey("cardio", "2026-11-25"))
    assert works("D3", RoomKey("derma", KEY.day)) and not works("D1", RoomKey("derma", KEY.day))
    assert not works(None)
    assert not works_in(app, member(Role.NURSE, practitioner="D1"), KEY)


def test_a_session_with_a_substitute_is_held_by_the_substitute(app: web.Application) -> None:
    start = midnight()
    assert duties(app, KEY, "D1") == [(start, start + MS), (start + 6 * MS, start + 6 * MS + MS // 2)]
    assert duties(app, KEY, "D2") == [(start + 6 * MS, start + 6 * MS + MS // 2)]
    assert duties(app, KEY, "D4") == [(start, start + MS)]
    assert duties(app, KEY, "D3") == []


def test_who_closes_a_room_hands_over_until_the_end_of_the_session(app: web.Application) -> None:
    start = midnight()

    def ends(now: int, who: str = "D1") -> int:
        return session_end(app, KEY, who, now)

    assert ends(start - 1) == start + MS, "before the first one it is the first"
    assert ends(start) == ends(start + 2 * MS) == start + MS, "somebody may stay longer"
    assert ends(start + 6 * MS) == start + 6 * MS + MS // 2
    assert ends(start, "D3") == 0


def test_how_much_somebody_sees(app: web.Application) -> None:
    for who, sight in (
        (bytes(16), Sight.COUNTERS),
        (member(Role.NURSE, "cardio"), Sight.WHOLE),
        (member(Role.NURSE, "derma"), Sight.MASKED),
        (member(Role.DOCTOR, practitioner="D4"), Sight.WHOLE),
        (member(Role.SCHEDULE_OFFICE), Sight.MASKED),
        (member(Role.SCREEN), Sight.SCREEN),
        (member(Role.SCREEN, "derma"), Sight.COUNTERS),
        (member(Role.KIOSK), Sight.COUNTERS),
        (member(Role.PARTNER), Sight.COUNTERS),
    ):
        assert sight_of(app, who, KEY) is sight


def test_a_ticket_is_of_who_has_it_in_her_room_or_could_call_it() -> None:
    room = w.WaitingRoom()
    plan = RoomPlan(KEY.department_id, KEY.day, 1_000_000, ("D1", "D2"))
    for event in opening(plan, WaitingTerms(), 0):
        w.apply(room, event)

    def do(command: w.Command) -> None:
        outcome = w.decide(room, command, 0)
        assert isinstance(outcome, list), outcome
        for event in outcome:
            w.apply(room, event)

    def owners(n: int) -> set[str]:
        ticket = room.tickets[list(room.tickets)[n]]
        return {who for who in ("D1", "D2", "D3") if is_of(room, ticket.standing, who)}

    ids = [bytes([n]) * 16 for n in range(40)]
    do(w.TakeNumber(ids[1], ids[1], "desk", "general"))
    assert owners(0) == set(), "nobody calls from the general queue yet"
    do(w.OpenRoom(ids[2], "R1", ("general", "D1"), "D1"))
    do(w.OpenRoom(ids[3], "R3", ("general",), "D3"))
    assert owners(0) == {"D1", "D3"}
    do(w.CallNext(ids[4], "R3", "x"))
    assert owners(0) == {"D3"}, "in her room it is hers alone"
    do(w.TakeNumber(ids[5], ids[5], "desk", "D2"))
    assert owners(1) == {"D2"}, "in a queue of her own, although she is not here yet"
    ticket = list(room.tickets)[1]
    do(w.TransferTicket(ids[6], ticket, "general", "x", "y", "D1"))
    assert owners(1) == {"D1"}, "for nobody else"
    do(w.CloseRoom(ids[7], "R1", keeps=True))
    assert owners(1) == {"D1"}
