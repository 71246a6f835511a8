"""What happened to a ticket and in a department's day, by whom and why; and why one is before another."""

from datetime import datetime
from uuid import uuid4

import pytest

from tests.integration.test_api import ZONE, Hospital, Json
from tests.integration.test_queues import SEEN, Console
from tests.support.system import System

DEPARTMENT, ROOM = "1101", "R1101.1"


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


@pytest.fixture(scope="module")
def nurse(hospital: Hospital) -> Console:
    return Console(hospital, "demo-nurse")


def lines_of(console: Console, ticket: str, language: str = "zh", department: str = DEPARTMENT) -> list[Json]:
    path = f"/{department}/tickets/{ticket}/history"
    found: list[Json] = console.get(path, Accept_Language=language).good()["lines"]
    return found


def test_every_step_is_told_with_who_when_and_why(hospital: Hospital, nurse: Console) -> None:
    desk = Console(hospital, "demo-desk")
    ticket, other = desk.walk_in(DEPARTMENT), nurse.walk_in(DEPARTMENT)
    nurse.open(DEPARTMENT, ROOM)
    nurse.step(DEPARTMENT, ticket, "park", reason="买水").good()
    nurse.step(DEPARTMENT, ticket, "return").good()
    nurse.step(DEPARTMENT, ticket, "move", ahead=1, reason="等家属").good()
    nurse.call_next(DEPARTMENT, ROOM).good()
    nurse.step(DEPARTMENT, other, "pass").good()
    desk.step(DEPARTMENT, ticket, "call", room_id=ROOM).good()
    told = nurse.step(DEPARTMENT, ticket, "start").good()
    nurse.step(DEPARTMENT, ticket, "undo", expected_version=told["version"], reason="还没进来").good()
    nurse.step(DEPARTMENT, ticket, "start").good()
    desk.step(DEPARTMENT, ticket, "finish").good()
    lines = lines_of(nurse, ticket)
    assert [(one["what"], one["by_name"], one["by_hand"], one["reason"]) for one in lines] == [
        ("walked_in", "演示窗口", False, None),
        ("parked", "演示分诊护士", False, "买水"),
        ("unparked", "演示分诊护士", False, None),
        ("moved", "演示分诊护士", True, "等家属"),
        ("called", "演示窗口", False, None),
        ("started", "演示分诊护士", False, None),
        ("undone", "演示分诊护士", True, "还没进来"),
        ("started", "演示分诊护士", False, None),
        ("seen", "演示窗口", False, None),
    ]
    number = lines[0]["number"]
    room = next(one for one in nurse.board(DEPARTMENT)["rooms"] if one["room_id"] == ROOM)["name"]
    assert [one["text"] for one in lines] == [
        f"现场取号 {number}",
        "暂离",
        "暂离结束，回到原位",
        "调整顺序，排在 1 人之后",
        f"叫号到 {room}",
        f"在 {room} 开始就诊",
        f"撤销：在 {room} 开始就诊",
        f"在 {room} 开始就诊",
        f"{room} 就诊完成",
    ]
    english = lines_of(nurse, ticket, "en")
    assert english[3]["text"] == "Moved: 1 go first" and english[6]["text"] == f"Taken back: Came in, {room}"
    times = [datetime.fromisoformat(one["at"]) for one in lines]
    assert times == sorted(times) and times[0].date() == datetime.now(ZONE).date()
    assert {one["by"] for one in lines} == {"staff"}
    assert {one["ticket_id"] for one in lines} == {ticket}


def test_the_day_is_told_page_by_page_and_what_was_done_by_hand_alone(nurse: Console) -> None:
    department, room = "1102", "R1102.1"
    first, second = nurse.walk_in(department), nurse.walk_in(department)
    nurse.open(department, room)
    nurse.step(department, second, "classify", emergency=2, reason="高热").good()
    nurse.step(department, second, "call", room_id=room).good()
    nurse.post(f"{department}/rooms/{room}/alarm", note="摔倒").good()
    whole: list[Json] = []
    after: int | None = 0
    while after is not None:
        page = nurse.get(f"/{department}/history?limit=3&after={after}").good()
        assert len(page["lines"]) <= 3
        whole += page["lines"]
        after = page["next"]
    assert [one["version"] for one in whole] == list(range(1, len(whole) + 1))
    assert [one["what"] for one in whole if not one["what"].startswith("queue")] == [
        "day_opened",
        "walked_in",
        "walked_in",
        "room_opened",
        "classified",
        "called",
        "alarm",
    ]
    assert (whole[0]["by"], whole[-1]["reason"]) == ("system", "摔倒")
    by_hand = nurse.get(f"/{department}/history?by_hand=true").good()
    assert [(one["what"], one["ticket_id"]) for one in by_hand["lines"]] == [("classified", second)]
    assert by_hand["next"] is None
    assert nurse.get(f"/{department}/history?day=2020-01-01").good() == {"lines": [], "next": None}
    assert first != second


def test_why_one_is_before_another(hospital: Hospital, nurse: Console) -> None:
    department = "1103"
    a, b, c = (nurse.walk_in(department) for _ in range(3))
    d = nurse.walk_in("1101")

    def why(one: str, other: str, language: str = "zh") -> Json:
        path = f"/{department}/tickets/{one}/why?other={other}&at_least={SEEN[department]}"
        found: Json = nurse.get(path, Accept_Language=language).good()
        return found

    for one, other in ((a, b), (b, a)):
        told = why(one, other)
        assert (told["first"], told["why"], told["reason"]) == (a, "came_earlier", None)
        assert told["text"].startswith("比您先到")
    assert why(a, b, "en")["text"].startswith("Came before you did")
    nurse.step(department, c, "move", ahead=0, reason="行动不便").good()
    told = why(a, c)
    assert (told["first"], told["why"], told["reason"]) == (c, "moved", "行动不便")
    nurse.step(department, b, "park", reason="x").good()
    assert why(a, b)["first"] is None
    nurse.get(f"/{department}/tickets/{a}/why?other={uuid4()}").problem(404, "no_such_ticket")
    nurse.get(f"/{department}/tickets/{a}/why?other={d}").problem(404, "no_such_ticket")
    nurse.get(f"/{department}/tickets/{a}/why").problem(422, "invalid_query")


def test_history_is_for_those_who_work_there(hospital: Hospital, nurse: Console) -> None:
    ticket = nurse.walk_in(DEPARTMENT)
    for username in ("demo-doctor", "demo-kiosk", "demo-screen", "demo-his"):
        who = Console(hospital, username)
        for path in (f"tickets/{ticket}/history", "history", f"tickets/{ticket}/why?other={ticket}"):
            who.get(f"/{DEPARTMENT}/{path}").problem(403, "forbidden")
    Console(hospital, "demo-manager").get(f"/{DEPARTMENT}/tickets/{ticket}/history").good()
    hospital.get(f"/api/v1/queues/{DEPARTMENT}/history", hospital.token()).problem(401, "unauthenticated")
    nurse.get(f"/{DEPARTMENT}/tickets/{uuid4()}/history").problem(404, "no_such_ticket")
    nurse.get("/9999/history").problem(404, "no_such_department")
