"""Calling, and what is done by hand, on a running system with two gateways; and bad input: races, repeats,
stale versions, clocks that differ, a doctor who leaves. Whatever is refused leaves the order as it was."""

import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.policy import Channel, Policy
from engine.domain.refusal import Reason, Refusal
from engine.journal.streams import read_room
from engine.records.catalog import load_catalog
from engine.records.staff import Role
from engine.views.availability import Availability
from tests.integration.test_api import ZONE, Answer, Hospital, Json, until
from tests.integration.test_queues import GENERAL, Console, add_staff, line_of, room_of, tickets_of
from tests.support.stores import HOUR, PostgresWorld, Served, doctor, plan, uid
from tests.support.system import System, run, started
from web import keys
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.queues.copies import Copies
from web.queues.rights import must_act_in_room, must_act_on_ticket

CONSOLES = 64
POLICY = """\
departments:
  "0302":
    waiting: {calling: {leave: keep}}
  "0303":
    waiting: {calling: {leave: ask}}
  "0305":
    waiting: {calling: {calls_max: 2, recall_gap: 0s}}
  "0307":
    waiting: {calling: {door_cap: 1}}
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with started("--gateways", "2", "--shards", "2") as system:
        file = tmp_path_factory.mktemp("policy") / "policy.yaml"
        file.write_text(POLICY)
        applied = run("policy", "apply", str(file), "--home", str(system.home), "--who", "test")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        yield system


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


@pytest.fixture(scope="module")
def nurse(hospital: Hospital) -> Console:
    return Console(hospital, "demo-nurse")


@pytest.fixture(scope="module")
def colleague(system: System, hospital: Hospital) -> Console:
    """D0001 on a second PC (学生电脑)."""
    return add_staff(system, hospital, "doctor", practitioner="D0001")


def standing(board: Json) -> Json:
    """All of a board that nobody may change by asking for what is refused."""
    return {name: told for name, told in board.items() if name != "version"}


def people_of(hospital: Hospital, department: str) -> list[str]:
    found = hospital.get(f"/api/v1/departments/{department}/practitioners").good()["practitioners"]
    return [one["id"] for one in found]


# The ordinary day.


def test_one_is_called_comes_in_and_is_seen(nurse: Console) -> None:
    department, room = "0201", "R0201.4"
    first, second = nurse.walk_in(department, "王一"), nurse.walk_in(department, "李二")
    nurse.open(department, room)
    called = nurse.call_next(department, room, expected_version=1).good()
    assert (called["ticket_id"], called["patient_name"], called["status"]) == (first, "王一", "called")
    assert (called["room_id"], called["room_version"], called["version"]) == (room, 2, 2)
    assert called["why"] == {"lane": "ordinary", "text": "按顺序", "out_of_turn": False, "reason": None}
    nurse.call_next(department, room).problem(409, "room_busy", number=called["number"])
    assert nurse.step(department, first, "start").good()["status"] == "serving"
    nurse.step(department, first, "start").problem(409, "wrong_status", ticket_status="serving")
    nurse.call_next(department, room, finishes=False).problem(409, "room_busy")
    following = nurse.call_next(department, room).good()  # finishes whoever is inside
    assert following["ticket_id"] == second
    nurse.step(department, first, "finish").problem(409, "wrong_status", ticket_status="finished")
    nurse.step(department, second, "start").good()
    assert nurse.step(department, second, "finish").good()["status"] == "finished"
    nurse.post(f"{department}/rooms/{room}/close").good()


def test_who_is_not_there_is_called_again_and_passed_over(nurse: Console) -> None:
    department, room = "0305", "R0305.1"
    ticket, other = nurse.walk_in(department), nurse.walk_in(department)
    nurse.open(department, room)
    nurse.call_next(department, room).good()
    assert nurse.step(department, ticket, "recall").good()["status"] == "called"
    refused = nurse.step(department, ticket, "recall").problem(409, "calls_max", calls=2)
    assert datetime.fromisoformat(refused["passed_at"])
    assert nurse.step(department, ticket, "pass").good()["status"] == "passed"
    nurse.step(department, ticket, "pass").problem(409, "wrong_status", ticket_status="passed")
    board = nurse.board(department)
    assert tickets_of(board) == [other] and board["aside"][0]["passes"] == 1
    assert nurse.step(department, ticket, "return").good()["status"] == "waiting"
    line = line_of(nurse.board(department))
    assert [(one["ticket_id"], one["lane"]) for one in line] == [(other, "ordinary"), (ticket, "passed")]


def test_a_call_is_not_repeated_at_once(nurse: Console) -> None:
    department, room = "0306", "R0306.1"
    ticket = nurse.walk_in(department)
    nurse.open(department, room)
    nurse.call_next(department, room).good()
    refused = nurse.step(department, ticket, "recall").problem(409, "too_soon")
    called = room_of(nurse.board(department), room)["ticket"]["called_at"]
    waits = datetime.fromisoformat(refused["again_at"]) - datetime.fromisoformat(called)
    assert waits == timedelta(seconds=10)


def test_one_is_put_aside_and_comes_back_to_the_same_place(nurse: Console) -> None:
    department = "0308"
    tickets = [nurse.walk_in(department) for _ in range(3)]
    nurse.step(department, tickets[0], "park").problem(422, "invalid_body")
    nurse.step(department, tickets[0], "park", reason=" ").problem(422, "invalid_body")
    past = (datetime.now(ZONE) - timedelta(hours=1)).isoformat()
    nurse.step(department, tickets[0], "park", reason="打印", until=past).problem(409, "in_the_past")
    assert tickets_of(nurse.board(department)) == tickets
    assert nurse.step(department, tickets[0], "park", reason="打印").good()["status"] == "parked"
    assert tickets_of(nurse.board(department)) == tickets[1:]
    nurse.step(department, tickets[0], "return").good()
    assert tickets_of(nurse.board(department)) == tickets


def test_to_an_examination_and_back_to_the_doctor(nurse: Console) -> None:
    department, room = "0301", "R0301.4"
    ticket, other = nurse.walk_in(department), nurse.walk_in(department)
    nurse.open(department, room)
    nurse.call_next(department, room).good()
    nurse.step(department, ticket, "finish", stages=[{"kind": "visit", "queue_id": "nowhere"}]).problem(
        404, "no_such_queue", queue_id="nowhere"
    )
    stages = [{"kind": "examination"}, {"kind": "visit", "queue_id": GENERAL, "comes_back": True}]
    assert nurse.step(department, ticket, "finish", stages=stages).good()["status"] == "away"
    (away,) = nurse.board(department)["aside"]
    assert (away["ticket_id"], away["stage"], away["stages"]) == (ticket, 2, 3)
    nurse.step(department, ticket, "return").good()
    line = line_of(nurse.board(department))
    assert [(one["ticket_id"], one["lane"]) for one in line] == [(other, "ordinary"), (ticket, "returned")]
    assert nurse.call_next(department, room).good()["ticket_id"] == other
    nurse.step(department, other, "start").good()
    called = nurse.call_next(department, room).good()
    assert (called["ticket_id"], called["why"]["lane"]) == (ticket, "returned")


# By hand.


def test_the_order_is_changed_by_hand_and_undone(nurse: Console) -> None:
    department, room = "0309", "R0309.1"
    tickets = [nurse.walk_in(department) for _ in range(4)]
    a, b, c, d = tickets
    nurse.step(department, d, "move", ahead=1).problem(422, "invalid_body")
    moved = nurse.step(department, d, "move", ahead=1, reason="行动不便").good()
    assert tickets_of(nurse.board(department)) == [a, d, b, c]
    assert line_of(nurse.board(department))[1]["moved"] == {"ahead": 1, "reason": "行动不便"}
    nurse.step(department, d, "undo", expected_version=moved["version"] - 1, reason="误操作").problem(
        409, "stale_version", version=moved["version"]
    )
    nurse.step(department, d, "undo", expected_version=moved["version"], reason="误操作").good()
    assert tickets_of(nurse.board(department)) == tickets
    nurse.step(department, d, "undo", expected_version=moved["version"] + 1, reason="再撤").problem(
        409, "nothing_to_undo"
    )
    nurse.step(department, c, "classify", priority="vip", reason="x").problem(422, "unknown_priority")
    nurse.step(department, c, "classify", emergency=1, reason="胸痛，绿色通道").good()
    assert tickets_of(nurse.board(department)) == [c, a, b, d]
    nurse.step(department, b, "classify", priority="soldier", reason="军人证").good()
    assert tickets_of(nurse.board(department)) == [c, a, b, d]
    nurse.open(department, room)
    called = nurse.call_next(department, room).good()
    assert (called["ticket_id"], called["why"]["lane"]) == (c, "emergency")
    nurse.step(department, c, "undo", expected_version=called["version"], reason="叫错").good()
    assert tickets_of(nurse.board(department)) == [c, a, b, d]
    assert nurse.step(department, a, "leave", reason="回家").good()["status"] == "left"
    # The soldier goes in after one ordinary patient: the rules do not change when the one ahead goes home.
    assert tickets_of(nurse.board(department)) == [c, d, b]
    nurse.step(department, d, "call", room_id=room).problem(422, "reason_needed")
    told = nurse.step(department, d, "call", room_id=room, reason="家属代取药").good()
    assert told["why"] == {
        "lane": "moved",
        "text": "人工调整",
        "out_of_turn": True,
        "reason": "家属代取药",
    }
    assert tickets_of(nurse.board(department)) == [c, b]


def test_one_waits_at_a_door_that_has_room(nurse: Console) -> None:
    department = "0307"
    first, second, third = (nurse.walk_in(department) for _ in range(3))
    nurse.open(department, "R0307.1")

    def door() -> list[str]:
        found: list[str] = room_of(nurse.board(department), "R0307.1")["door"]
        return found

    until(lambda: door() == [first], 10, "the rules send the first one to the door")
    nurse.step(department, third, "door", room_id="R0307.1", reason="近").problem(409, "door_full", at_most=1)
    nurse.step(department, third, "door", room_id="R0307.2", reason="近").problem(409, "room_not_open")
    nurse.put(f"{department}/queues/other", prefix="Y", first=1, last=9).good()
    nurse.open(department, "R0307.2", queues=["other"])
    nurse.step(department, third, "door", room_id="R0307.2", reason="近").problem(409, "not_served_here")
    assert nurse.call_next(department, "R0307.1").good()["ticket_id"] == first


def test_one_is_transferred_to_another_queue(nurse: Console) -> None:
    department = "0304"
    ticket, other = nurse.walk_in(department), nurse.walk_in(department)
    nurse.put(f"{department}/queues/second", prefix="Y", first=1, last=9).good()
    step = nurse.step(department, ticket, "transfer", queue_id="nowhere", reason="x")
    step.problem(404, "no_such_queue")
    step = nurse.step(department, ticket, "transfer", queue_id="second", practitioner_id="D9", reason="x")
    step.problem(404, "no_such_practitioner")
    stranger = {"queue_id": "second", "practitioner_id": "D0001", "reason": "x"}  # of another department
    step = nurse.step(department, ticket, "transfer", **stranger)
    step.problem(409, "not_on_duty", practitioner_id="D0001")
    assert tickets_of(nurse.board(department)) == [ticket, other]
    nurse.step(department, ticket, "transfer", queue_id="second", reason="专病门诊").good()
    board = nurse.board(department)
    assert (tickets_of(board), tickets_of(board, "second")) == ([other], [ticket])
    nurse.open(department, "R0304.1", practitioner_id="D0002", queues=["second"])  # helps out here
    nurse.step(department, ticket, "transfer", **{**stranger, "practitioner_id": "D0002"}).good()
    assert line_of(nurse.board(department), "second")[0]["practitioner_id"] == "D0002"


# A doctor's rooms.


def test_a_doctor_calls_in_her_own_room_on_any_pc(
    hospital: Hospital, nurse: Console, colleague: Console
) -> None:
    department, room = "0201", "R0201.1"
    her = Console(hospital, "demo-doctor")
    her.post(f"{department}/rooms/{room}/open", practitioner_id="D0002").problem(403, "forbidden")
    opened = her.open(department, room)
    board = her.board(department)
    mine = room_of(board, room)
    assert (mine["practitioner_id"], mine["version"]) == ("D0001", opened["version"])
    assert GENERAL in mine["queues"] and board["sight"] == "whole"
    first, second, third = (nurse.walk_in(department) for _ in range(3))
    called = colleague.call_next(department, room).good()  # the trainee
    assert called["ticket_id"] == first
    her.step(department, first, "start").good()
    line = colleague.get(f"/{department}/tickets/{first}/history").good()["lines"]
    assert [one["by_name"] for one in line][-2:] == [line[-2]["by_name"], "演示医生"]
    assert line[-2]["by_name"].startswith("同事")
    her.step(department, third, "move", ahead=0, reason="与患者约好").good()
    seen = her.step(department, first, "finish").good()
    her.step(department, first, "undo", expected_version=seen["version"], reason="点错").good()
    her.step(department, first, "finish").good()
    assert her.call_next(department, room).good()["ticket_id"] == third
    # What is another's is not hers.
    nurse.open(department, "R0201.2", practitioner_id="D0002")
    his = nurse.call_next(department, "R0201.2").good()
    assert his["ticket_id"] == second
    for refused in (
        her.call_next(department, "R0201.2"),
        her.step(department, second, "start"),
        her.step(department, second, "undo", expected_version=his["version"], reason="x"),
        her.step(department, second, "call", room_id="R0201.2", reason="x"),
        her.post(f"{department}/rooms/R0201.2/pause"),
        her.post(f"{department}/rooms/R0201.2/close"),
        her.put(f"{department}/queues/x", prefix="X", first=1, last=2),
    ):
        refused.problem(403, "forbidden")
    her.post(f"{department}/rooms/R0201.2/open").problem(409, "room_in_use", practitioner_id="D0002")
    her.step(department, str(uuid4()), "start").problem(404, "no_such_ticket")
    her.call_next(department, "R0201.3").problem(409, "room_not_open")
    her.post(f"{department}/rooms/R0201.2/alarm").good()  # whoever sees it may press it
    assert room_of(nurse.board(department), "R0201.2")["ticket"]["ticket_id"] == second
    her.step(department, third, "leave", reason="x").good()
    her.post(f"{department}/rooms/{room}/close").good()


def test_what_another_gateway_did_a_moment_ago_counts(
    system: System, hospital: Hospital, nurse: Console
) -> None:
    """Half of the requests come to a gateway that has not heard of it yet."""
    department, other = "1001", "R1001.4"
    who = people_of(hospital, department)[0]
    her = add_staff(system, hospital, "doctor", practitioner=who)
    nurse.open(department, other)
    for room in ("R1001.1", "R1001.2", "R1001.3"):
        mine, another = nurse.walk_in(department), nurse.walk_in(department)
        her.open(department, room, queues=[GENERAL])
        assert her.call_next(department, room).good()["ticket_id"] == mine
        nurse.call_next(department, other).good()
        # It waited in her queue, and no longer does.
        her.step(department, another, "leave", reason="x").problem(403, "forbidden")
        newcomer = nurse.walk_in(department)
        her.step(department, newcomer, "move", ahead=0, reason="x").good()
        for ticket in (mine, another, newcomer):
            nurse.step(department, ticket, "leave", reason="x").good()
        her.post(f"{department}/rooms/{room}/close", keeps=True).good()


# Bad input.


def test_of_64_consoles_with_one_version_one_wins(nurse: Console) -> None:
    department, room = "0403", "R0403.1"
    tickets = [nurse.walk_in(department) for _ in range(3)]
    nurse.open(department, room)
    version = room_of(nurse.board(department), room)["version"]
    barrier = threading.Barrier(CONSOLES)

    def call(_: int) -> Answer:
        barrier.wait()
        return nurse.call_next(department, room, expected_version=version)

    with ThreadPoolExecutor(CONSOLES) as consoles:
        answers = list(consoles.map(call, range(CONSOLES)))
    winners = [one.good() for one in answers if one.status == 200]
    assert [one["ticket_id"] for one in winners] == [tickets[0]]
    for answer in answers:
        if answer.status != 200:
            told = answer.problem(409, "stale_version", number=winners[0]["number"], version=version + 1)
            assert "刷新" in told["detail"]
    board = nurse.board(department)
    assert tickets_of(board) == tickets[1:]
    assert [one["number"] for one in board["last_calls"]] == [winners[0]["number"]]


def test_64_calls_from_many_rooms_call_everybody_once(nurse: Console) -> None:
    department = "0401"
    rooms = [f"R0401.{n}" for n in range(1, 5)]
    tickets = [nurse.walk_in(department) for _ in range(3)]
    for room in rooms:
        nurse.open(department, room)
    barrier = threading.Barrier(CONSOLES)

    def call(n: int) -> Answer:
        barrier.wait()
        return nurse.call_next(department, rooms[n % 4])

    with ThreadPoolExecutor(CONSOLES) as consoles:
        answers = list(consoles.map(call, range(CONSOLES)))
    called = [one.good()["ticket_id"] for one in answers if one.status == 200]
    assert sorted(called) == sorted(tickets)
    assert {one.body["code"] for one in answers if one.status != 200} <= {"room_busy", "nobody_waits"}


def test_a_console_that_lost_its_network_repeats_its_key(nurse: Console) -> None:
    department, room = "0404", "R0404.1"
    first, second = nurse.walk_in(department), nurse.walk_in(department)
    nurse.open(department, room)
    called = nurse.call_next(department, room, key="lost").good()
    assert nurse.call_next(department, room, key="lost").good() == called
    nurse.step(department, first, "start", key="lost-2").good()
    assert nurse.call_next(department, room, key="lost").good() == called, "also when it has moved on"
    assert nurse.step(department, first, "start", key="lost-2").good()["status"] == "serving"
    # The key of one request is no key of another.
    nurse.call_next(department, room, key="lost", finishes=False).problem(422, "key_reused")
    nurse.step(department, first, "finish", key="lost-2").problem(422, "key_reused")
    board = nurse.board(department)
    assert tickets_of(board) == [second]
    assert room_of(board, room)["ticket"]["ticket_id"] == first
    assert len(board["last_calls"]) == 1


def test_64_repeats_at_once_call_one(nurse: Console) -> None:
    department, room = "0402", "R0402.1"
    tickets = [nurse.walk_in(department) for _ in range(3)]
    nurse.open(department, room)
    barrier = threading.Barrier(CONSOLES)

    def call(_: int) -> Answer:
        barrier.wait()
        return nurse.call_next(department, room, key="one-and-the-same")

    with ThreadPoolExecutor(CONSOLES) as consoles:
        answers = [one.good() for one in consoles.map(call, range(CONSOLES))]
    assert all(one == answers[0] for one in answers) and answers[0]["ticket_id"] == tickets[0]
    assert tickets_of(nurse.board(department)) == tickets[1:]


def test_a_ticket_called_from_two_rooms_goes_to_one(nurse: Console) -> None:
    department = "0406"
    ticket = nurse.walk_in(department)
    nurse.open(department, "R0406.1")
    nurse.open(department, "R0406.2")
    barrier = threading.Barrier(2)

    def call(room: str) -> Answer:
        barrier.wait()
        return nurse.step(department, ticket, "call", room_id=room)

    with ThreadPoolExecutor(2) as consoles:
        answers = list(consoles.map(call, ["R0406.1", "R0406.2"]))
    won, lost = sorted(answers, key=lambda answer: answer.status)
    room = won.good()["room_id"]
    lost.problem(409, "wrong_status", ticket_status="called", room_id=room)


def test_nothing_unknown_changes_anything(nurse: Console) -> None:
    department, room = "0405", "R0405.1"
    tickets = [nurse.walk_in(department) for _ in range(2)]
    nurse.open(department, room)
    before = standing(nurse.board(department))
    stranger = str(uuid4())
    for verb, body in (
        ("call", {"room_id": room}),
        ("recall", {}),
        ("start", {}),
        ("pass", {}),
        ("park", {"reason": "x"}),
        ("return", {}),
        ("finish", {}),
        ("transfer", {"queue_id": GENERAL, "reason": "x"}),
        ("move", {"ahead": 1, "reason": "x"}),
        ("classify", {"emergency": 1, "reason": "x"}),
        ("door", {"room_id": room, "reason": "x"}),
        ("leave", {"reason": "x"}),
        ("undo", {"expected_version": 1, "reason": "x"}),
    ):
        nurse.step(department, stranger, verb, **body).problem(404, "no_such_ticket")
        nurse.step(department, "not-an-id", verb, **body).problem(404, "not_found")
        nurse.step("9999", stranger, verb, **body).problem(404, "no_such_department")
        nurse.step(department, tickets[0], verb, **body, surprise=1).problem(422, "invalid_body")
        missing = nurse.hospital.post(
            f"/api/v1/queues/{department}/tickets/{tickets[0]}/{verb}", nurse.token, body
        )
        missing.problem(400, "missing_idempotency_key")
        if "expected_version" not in body and verb != "return":
            stale = nurse.step(department, tickets[0], verb, **body, expected_version=77)
            stale.problem(409, "stale_version", version=1, ticket_status="waiting")
    nurse.call_next(department, "R0405.9").problem(409, "room_not_open")
    nurse.step(department, tickets[0], "move", ahead=1000, reason="x").problem(422, "invalid_body")
    nurse.step(department, tickets[0], "classify", emergency=9, reason="x").problem(422, "invalid_body")
    for verb in ("recall", "start", "pass", "return", "finish"):
        refused = nurse.step(department, tickets[1], verb).problem(409, "wrong_status")
        assert refused["ticket_status"] == "waiting"
    assert standing(nurse.board(department)) == before


def test_a_console_left_open_over_night_is_told(nurse: Console) -> None:
    """It shows yesterday's board, and its version is of yesterday's room."""
    department, room = "0408", "R0408.1"
    yesterday = datetime.now(ZONE).date() - timedelta(days=1)
    for _ in range(3):
        old = nurse.post(f"{department}/rooms/{room}/open?day={yesterday}").good()
    ticket = nurse.walk_in(department)
    nurse.call_next(department, room, expected_version=old["version"]).problem(409, "room_not_open")
    nurse.open(department, room)
    refused = nurse.call_next(department, room, expected_version=old["version"])
    refused.problem(409, "stale_version", version=1)
    # Where it says of which day it speaks, it speaks of that day: there nobody waits.
    path = f"{department}/call-next?day={yesterday}"
    nurse.post(path, room_id=room, expected_version=old["version"]).problem(409, "nobody_waits")
    assert tickets_of(nurse.board(department)) == [ticket]


# A doctor leaves while people wait.


def waiting_for(nurse: Console, department: str, who: str) -> tuple[str, list[str]]:
    """A queue of this practitioner's own, and two who wait in it."""
    queue = f"of-{who}"
    nurse.put(f"{department}/queues/{queue}", prefix="Y", first=1, last=99, practitioner_id=who).good()
    tickets = [nurse.walk_in(department) for _ in range(2)]
    for ticket in tickets:
        nurse.step(department, ticket, "transfer", queue_id=queue, reason="指定医生").good()
    return queue, tickets


def test_by_rule_those_who_wait_go_to_anybody_who_serves_their_queue(
    hospital: Hospital, nurse: Console
) -> None:
    department = "0301"  # leave: anybody
    who, other = people_of(hospital, department)[:2]
    queue, tickets = waiting_for(nurse, department, who)
    nurse.open(department, "R0301.1", practitioner_id=who, queues=[queue])
    close = f"{department}/rooms/R0301.1/close"
    before = standing(nurse.board(department))
    nurse.post(close).problem(409, "people_wait", waiting=2, queue_id=queue)
    assert standing(nurse.board(department)) == before
    nurse.open(department, "R0301.2", practitioner_id=other, queues=[queue, GENERAL])
    nurse.post(close).good()
    assert tickets_of(nurse.board(department), queue) == tickets
    assert nurse.call_next(department, "R0301.2").good()["ticket_id"] == tickets[0]


def test_by_rule_they_keep_waiting(hospital: Hospital, nurse: Console) -> None:
    department = "0302"
    who = people_of(hospital, department)[0]
    queue, tickets = waiting_for(nurse, department, who)
    nurse.open(department, "R0302.1", practitioner_id=who, queues=[queue])
    nurse.post(f"{department}/rooms/R0302.1/close").good()
    assert tickets_of(nurse.board(department), queue) == tickets
    nurse.open(department, "R0302.1", practitioner_id=who, queues=[queue])
    assert nurse.call_next(department, "R0302.1").good()["ticket_id"] == tickets[0]


def test_by_rule_somebody_must_say_where_they_go(hospital: Hospital, nurse: Console) -> None:
    department = "0303"
    who, other = people_of(hospital, department)[:2]
    queue, tickets = waiting_for(nurse, department, who)
    nurse.open(department, "R0303.1", practitioner_id=who, queues=[queue])
    nurse.open(department, "R0303.2", practitioner_id=other, queues=[GENERAL])
    close = f"{department}/rooms/R0303.1/close"
    nurse.post(close).problem(409, "people_wait", waiting=2)
    nurse.post(close, to_queue="nowhere").problem(404, "no_such_queue")
    nurse.post(close, to_practitioner="D9999").problem(404, "no_such_practitioner")
    assert tickets_of(nurse.board(department), queue) == tickets
    called = nurse.call_next(department, "R0303.1").good()  # who is called goes back to the front
    nurse.post(close, to_queue=GENERAL, to_practitioner=other, reason="医生手术").good()
    board = nurse.board(department)
    assert tickets_of(board) == tickets and called["ticket_id"] == tickets[0]
    assert {one["practitioner_id"] for one in line_of(board)} == {other}
    assert nurse.call_next(department, "R0303.2").good()["ticket_id"] == tickets[0]


# Clocks that differ.


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    await world.publish(doctor(1), plan(world.clock() + HOUR, 10))
    pool = await world.pool()
    await pool.execute(
        "insert into hospital (name, timezone) values ('h', 'Asia/Shanghai') on conflict do nothing"
    )
    yield world
    await world.close()


async def test_a_shard_whose_clock_is_behind_keeps_the_order(world: PostgresWorld) -> None:
    """Taken over by a machine with an earlier clock: what happens counts as at the last thing's time."""
    pool = await world.pool()
    department = await pool.fetchval("select id from department limit 1")
    key = RoomKey(department, doctor(1).day)

    async def ask(served: Served, *commands: w.Command) -> list[object]:
        return list(await served.send([(key.stream, 60_000, command) for command in commands]))

    def walk_in(n: int) -> w.TakeNumber:
        return w.TakeNumber(uid("c", n), uid("p", n), "desk", GENERAL)

    served = await Served.open(world)
    await ask(served, walk_in(1), walk_in(2), w.OpenRoom(uid("open"), "R1", (GENERAL,), "", "nurse"))
    await served.stop()
    world.clock.advance(seconds=-600)
    served = await Served.open(world)
    await ask(served, walk_in(3))
    called, busy = await ask(served, *(w.CallNext(uid("n", n), "R1", "nurse", -1) for n in range(2)))
    assert isinstance(called, w.Told) and called.ticket_id == ticket_id(uid("c", 1))
    assert isinstance(busy, Refusal) and busy.reason is Reason.ROOM_BUSY
    (repeated,) = await ask(served, w.CallNext(uid("n", 0), "R1", "nurse", -1))
    assert isinstance(repeated, w.Told) and replace(repeated, seen=0) == replace(called, seen=0)
    await served.stop()
    async with pool.acquire() as connection:
        events = await read_room(connection, key)
    assert [event.at for event in events] == sorted(event.at for event in events)
    room = w.replay(events)
    assert list(room.queues[GENERAL].line) == [ticket_id(uid("c", n)) for n in (2, 3)]


# A gateway that is behind.


async def test_what_a_gateway_has_not_heard_of_yet_the_journal_tells(world: PostgresWorld) -> None:
    """A copy that no feed keeps: it stays as it was when it was read."""
    pool = await world.pool()
    async with pool.acquire() as connection:
        catalog = await load_catalog(connection)
    (department,) = catalog.departments
    key = RoomKey(department, doctor(1).day)
    app = web.Application()
    app[keys.POOL] = pool
    app[keys.AVAILABILITY] = Availability(catalog, [])
    app[keys.ROOMS] = Copies(pool, keys.PolicyInForce(Policy()), world.clock)
    who = doctor(1).practitioner_id
    her = Staff(uid("her"), "her", "", frozenset({Role.DOCTOR}), who, None, Channel.DOCTOR)
    served = await Served.open(world)

    async def ask(*commands: w.Command) -> None:
        for told in await served.send([(key.stream, 60_000, command) for command in commands]):
            assert isinstance(told, w.Told), told

    async def refused(room: str = "", ticket: bytes = b"", expected: int = -1) -> Reason | Fault | None:
        try:
            if room:
                await must_act_in_room(app, her, key, room, uid("new"))
            else:
                recall = w.Recall(uid("new"), ticket, "", expected)
                await must_act_on_ticket(app, her, key, recall, fresh=False)
        except Problem as problem:
            return problem.code
        return None

    mine, another = (ticket_id(uid("c", n)) for n in (1, 2))
    assert (await app[keys.ROOMS].look(key)).version == 0
    assert await refused("R1") is Reason.ROOM_NOT_OPEN
    assert await refused(ticket=mine) is Reason.NO_SUCH_TICKET
    await ask(
        *(w.TakeNumber(uid("c", n), uid("p", n), "desk", GENERAL) for n in (1, 2)),
        w.OpenRoom(uid("open", 1), "R1", (GENERAL,), who, "nurse"),
        w.OpenRoom(uid("open", 2), "R2", (GENERAL,), "", "nurse"),
        w.CallNext(uid("call", 1), "R1", "nurse"),
        w.CallNext(uid("call", 2), "R2", "nurse"),
    )
    assert (await app[keys.ROOMS].look(key)).version == 0, "it has heard of nothing"
    assert await refused("R1") is None
    assert await refused("R2") is Fault.FORBIDDEN
    assert await refused(ticket=mine) is None
    assert await refused(ticket=another) is Fault.FORBIDDEN
    assert await refused(ticket=mine, expected=1) is Reason.STALE_VERSION
    assert await refused(ticket=mine, expected=2) is None
    await served.stop()
