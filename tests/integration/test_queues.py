"""Boards, consulting rooms and queues of a waiting room, and who may see and do what: on a running system."""

import secrets
from datetime import date, datetime, timedelta
from uuid import uuid4

import pytest

from tests.integration.test_api import ZONE, Answer, Hospital, Json, until
from tests.support.front_door import PASSWORD
from tests.support.system import System, run
from web.demo_staff import DEMO_PASSWORD

GENERAL = "general"
SEEN: dict[str, int] = {}
"""Department -> the version of its board that our consoles have made."""


class Console:
    """A PC at which one of the staff has signed in."""

    def __init__(self, hospital: Hospital, username: str, password: str = DEMO_PASSWORD) -> None:
        grant = {"grant": "password", "username": username, "password": password}
        self.hospital = hospital
        self.token: str = hospital.post("/api/v1/sessions", body=grant).good(201)["access_token"]

    def post(self, path: str, key: str | None = None, **body: object) -> Answer:
        return self._send("POST", path, key, body)

    def put(self, path: str, key: str | None = None, **body: object) -> Answer:
        return self._send("PUT", path, key, body)

    def _send(self, method: str, path: str, key: str | None, body: object) -> Answer:
        key = str(uuid4()) if key is None else key
        answer = self.hospital.call(method, f"/api/v1/queues/{path}", self.token, body, key)
        if answer.status == 200 and "?day=" not in path:
            self._knows(path.partition("/")[0], answer.body["board_version"])
        return answer

    def _knows(self, department: str, version: int) -> None:
        """Whoever looks after this, through whichever gateway, sees it."""
        SEEN[department] = max(version, SEEN.get(department, 0))

    def get(self, path: str, **headers: str) -> Answer:
        return self.hospital.get(f"/api/v1/queues{path}", self.token, **headers)

    def board(self, department: str) -> Json:
        return self.get(f"/{department}?at_least={SEEN.get(department, 0)}").good()

    def walk_in(self, department: str, name: str = "张小明", **more: object) -> str:
        """The id of the ticket of somebody new."""
        person = {
            "name": name,
            "id_type": "passport",
            "id_number": "W" + secrets.token_hex(6).upper(),
            "phone": "13900139000",
            "sex": "female",
            "birth_date": "1990-01-01",
        }
        body = {"department_id": department, "person": person, **more}
        answer = self.hospital.post("/api/v1/walk-ins", self.token, body, str(uuid4()))
        found: str = answer.good(201)["id"]
        written = self.get(f"/{department}/tickets/{found}/history").good()
        self._knows(department, written["lines"][-1]["version"])
        return found

    def step(self, department: str, ticket: str, verb: str, key: str | None = None, **body: object) -> Answer:
        return self._send("POST", f"{department}/tickets/{ticket}/{verb}", key, body)

    def open(self, department: str, room: str, **body: object) -> Json:
        return self._send("POST", f"{department}/rooms/{room}/open", None, body).good()

    def call_next(self, department: str, room: str, key: str | None = None, **body: object) -> Answer:
        return self._send("POST", f"{department}/call-next", key, {"room_id": room, **body})


def line_of(board: Json, queue: str = GENERAL) -> list[Json]:
    found: list[Json] = next(q for q in board["queues"] if q["queue_id"] == queue)["line"]
    return found


def tickets_of(board: Json, queue: str = GENERAL) -> list[str]:
    return [one["ticket_id"] for one in line_of(board, queue)]


def room_of(board: Json, room: str) -> Json:
    found: Json = next(one for one in board["rooms"] if one["room_id"] == room)
    return found


def add_staff(
    system: System, hospital: Hospital, role: str, department: str = "", practitioner: str = ""
) -> Console:
    """Somebody new of the staff."""
    username = f"h-{secrets.token_hex(4)}"
    options = [
        "--username",
        username,
        "--name",
        f"同事{username}",
        "--role",
        role,
        "--home",
        str(system.home),
    ]
    options += ["--department", department] if department else []
    options += ["--practitioner", practitioner] if practitioner else []
    added = run("staff", "add", *options, "--keep-password", typed=f"{PASSWORD}\n")
    assert added.returncode == 0, added.stdout + added.stderr
    return Console(hospital, username, PASSWORD)


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


@pytest.fixture(scope="module")
def nurse(hospital: Hospital) -> Console:
    return Console(hospital, "demo-nurse")


# Looking.


def test_a_board_shows_everybody_in_order_and_the_rooms(nurse: Console) -> None:
    department, room = "5001", "R5001.1"
    tickets = [nurse.walk_in(department, name) for name in ("王一", "李二", "赵老三")]
    urgent = nurse.walk_in(department, "孙急", emergency=1)
    opened = nurse.open(department, room)
    assert (opened["status"], opened["version"]) == ("open", 1)
    board = nurse.board(department)
    assert (board["sight"], board["waiting"], board["open_rooms"]) == ("whole", 4, 1)
    line = line_of(board)
    assert [one["ticket_id"] for one in line] == [urgent, *tickets]
    assert [one["position"] for one in line] == [1, 2, 3, 4]
    assert [one["ahead"] for one in line] == [0, 1, 2, 3]
    assert [one["patient_name"] for one in line] == ["孙急", "王一", "李二", "赵老三"]
    assert (line[0]["band"], line[0]["lane"], line[0]["emergency"]) == ("emergency", "emergency", 1)
    assert (line[1]["band"], line[1]["lane"], line[1]["lane_text"]) == ("line", "ordinary", "按顺序")
    assert room_of(board, room)["next"] == line[0]["number"]
    assert room_of(board, room)["queues"] == [GENERAL]
    assert room_of(board, room)["ticket"] is None and room_of(board, room)["name"] != room
    called = nurse.call_next(department, room).good()
    assert called["ticket_id"] == urgent
    board = nurse.board(department)
    assert room_of(board, room)["ticket"]["ticket_id"] == urgent
    assert room_of(board, room)["ticket"]["status"] == "called"
    assert tickets_of(board) == tickets
    assert [(c["kind"], c["number"], c["patient_name"]) for c in board["last_calls"]] == [
        ("called", called["number"], "孙急")
    ]
    nurse.step(department, tickets[1], "park", reason="去缴费").good()
    board = nurse.board(department)
    assert [(one["ticket_id"], one["status"]) for one in board["aside"]] == [(tickets[1], "parked")]


def test_names_are_for_those_who_work_there(system: System, hospital: Hospital, nurse: Console) -> None:
    department, room = "5010", "R5010.1"
    ticket = nurse.walk_in(department, "欧阳小明")
    nurse.open(department, room)
    name = "欧**明"
    for who, sight, shown in (
        (Console(hospital, "demo-desk"), "whole", "欧阳小明"),
        (Console(hospital, "demo-manager"), "whole", "欧阳小明"),
        (Console(hospital, "demo-doctor"), "masked", name),  # of another department
        (Console(hospital, "demo-office"), "masked", name),
        (add_staff(system, hospital, "nurse", department="03"), "masked", name),
        (add_staff(system, hospital, "nurse", department="50"), "whole", "欧阳小明"),
        (Console(hospital, "demo-screen"), "screen", name),
    ):
        board = who.board(department)
        (told,) = line_of(board)
        assert (board["sight"], told["patient_name"], told["ticket_id"]) == (sight, shown, ticket)
        assert (told["patient_id"] is None) == (sight != "whole")
    for token in (
        hospital.token(),
        Console(hospital, "demo-kiosk").token,
        Console(hospital, "demo-his").token,
    ):
        answer = hospital.get(f"/api/v1/queues/{department}", token)
        board = answer.good()
        assert (board["sight"], board["waiting"], board["open_rooms"]) == ("counters", 1, 1)
        assert (board["rooms"], board["aside"], board["last_calls"]) == (None, None, None)
        assert {queue["line"] for queue in board["queues"]} == {None}
        assert next(q for q in board["queues"] if q["queue_id"] == GENERAL)["waiting_since"]
        assert "欧" not in answer.raw.decode()
        yesterday = datetime.now(ZONE).date() - timedelta(days=1)
        hospital.get(f"/api/v1/queues/{department}?day={yesterday}", token).problem(403, "forbidden")
    hospital.get(f"/api/v1/queues/{department}").problem(401, "unauthenticated")


def test_a_board_that_has_not_changed_is_not_sent_again(hospital: Hospital, nurse: Console) -> None:
    department = "5013"
    first = nurse.get(f"/{department}")
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = nurse.get(f"/{department}", If_None_Match=tag)
    assert (again.status, again.raw) == (304, b"")
    assert nurse.get(f"/{department}", If_None_Match=tag, Accept_Language="en").status == 200
    counters = hospital.get(f"/api/v1/queues/{department}", hospital.token(), If_None_Match=tag)
    assert counters.status == 200, "who sees less does not have what somebody else has"
    ticket = nurse.walk_in(department)

    def seen() -> bool:  # another gateway hears of it by the feed
        answer = nurse.get(f"/{department}", If_None_Match=tag)
        return answer.status == 200 and tickets_of(answer.body) == [ticket]

    until(seen, 5, "the newcomer")


def test_what_is_not_there_is_told(hospital: Hospital, nurse: Console) -> None:
    nurse.get("/9999").problem(404, "no_such_department")
    nurse.get("/5001?day=today").problem(422, "invalid_query")
    nurse.get("/..%2F5001").problem(404, "not_found")
    past = nurse.get("/5001?day=2020-01-01").good()
    assert (past["version"], past["waiting"], past["rooms"]) == (0, 0, [])


def test_the_list_names_departments_where_somebody_waits(hospital: Hospital, nurse: Console) -> None:
    for department in ("5014", "1502"):
        nurse.walk_in(department)
    found: list[str] = []
    after, pages = "", 0
    while True:
        page = nurse.get(f"?limit=1{after}").good()
        found += [row["department_id"] for row in page["departments"]]
        pages += 1
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert {"5014", "1502"} <= set(found) and found == sorted(found) and pages == len(found)
    row = next(r for r in nurse.get("").good()["departments"] if r["department_id"] == "5014")
    assert (row["department_name"], row["waiting"], row["called"]) == ("推拿科", 1, 0) and row[
        "waiting_since"
    ]
    hospital.get("/api/v1/queues", hospital.token()).problem(401, "unauthenticated")


# Rooms and queues.


def test_a_room_is_opened_paused_and_closed(nurse: Console) -> None:
    department, room = "1506", "R1506.1"
    path = f"{department}/rooms/{room}"
    nurse.post(f"{path}/pause").problem(409, "room_not_open", room_status="closed")
    nurse.call_next(department, room).problem(409, "room_not_open")
    opened = nurse.open(department, room, expected_version=0)
    assert (opened["room_id"], opened["status"], opened["version"]) == (room, "open", 1)
    nurse.call_next(department, room).problem(409, "nobody_waits")
    ticket = nurse.walk_in(department)
    nurse.post(f"{path}/pause", reason="午休", expected_version=0).problem(409, "stale_version", version=1)
    assert nurse.post(f"{path}/pause", reason="午休", expected_version=1).good()["status"] == "paused"
    nurse.call_next(department, room).problem(409, "room_not_open", room_status="paused")
    assert nurse.open(department, room)["version"] == 3
    assert nurse.call_next(department, room).good()["ticket_id"] == ticket
    nurse.step(department, ticket, "start").good()
    nurse.post(f"{path}/close").problem(409, "room_busy")
    nurse.step(department, ticket, "finish").good()
    assert nurse.post(f"{path}/close").good()["status"] == "closed"
    assert nurse.board(department)["open_rooms"] == 0


def test_a_room_that_there_is_not_cannot_be_opened(nurse: Console) -> None:
    nurse.post("1506/rooms/R9.9/open").problem(422, "no_such_room", room="R9.9")
    nurse.post("1506/rooms/R1506.2/open", queues=["nowhere"]).problem(
        404, "no_such_queue", queue_id="nowhere"
    )
    nurse.post("1506/rooms/R1506.2/open", queues=[]).problem(422, "invalid_body")
    nurse.post("1506/rooms/R1506.2/open", practitioner_id="D9999").problem(404, "no_such_practitioner")


def test_one_practitioner_is_in_one_room_and_one_room_has_one(nurse: Console, hospital: Hospital) -> None:
    people = hospital.get("/api/v1/departments/1603/practitioners").good()["practitioners"]
    one, other = people[0]["id"], people[1]["id"]
    nurse.open("1603", "R1603.1", practitioner_id=one)
    nurse.post("1603/rooms/R1603.1/open", practitioner_id=other).problem(
        409, "room_in_use", practitioner_id=one
    )
    nurse.post("1603/rooms/R1603.2/open", practitioner_id=one).problem(
        409, "practitioner_elsewhere", room_id="R1603.1"
    )
    nurse.open("1603", "R1603.2", practitioner_id=other)
    room = room_of(nurse.board("1603"), "R1603.1")
    assert (room["practitioner_id"], room["practitioner_name"]) == (one, people[0]["name"])


def test_one_room_serves_several_queues_and_one_queue_several_rooms(nurse: Console) -> None:
    department = "1901"
    nurse.put(f"{department}/queues/dressing", kind="desk", prefix="Y", first=1, last=99).good()
    nurse.open(department, "R1901.1", queues=[GENERAL, "dressing"])
    nurse.open(department, "R1901.2", queues=[GENERAL])
    first, second, third = (nurse.walk_in(department) for _ in range(3))
    nurse.step(department, first, "transfer", queue_id="dressing", reason="换药").good()
    # Who has waited longest goes first, whichever queue it is; the other room does not serve that one.
    assert nurse.call_next(department, "R1901.2").good()["ticket_id"] == second
    assert nurse.call_next(department, "R1901.1").good()["ticket_id"] == first
    board = nurse.board(department)
    assert tickets_of(board) == [third] and tickets_of(board, "dressing") == []
    assert {q["queue_id"]: q["open_rooms"] for q in board["queues"]}[GENERAL] == 2


def test_a_queue_has_numbers_of_its_own(nurse: Console) -> None:
    department = "2101"
    put = f"{department}/queues/extra"
    told = nurse.put(put, kind="examination", prefix="Y", first=10, last=20).good()
    assert told["queue_id"] == "extra"
    nurse.put(f"{department}/queues/twin", prefix="Y", first=20, last=30).problem(
        409, "numbers_overlap", queue_id="extra"
    )
    nurse.put(put, prefix="Y", first=20, last=10).problem(422, "too_large")
    nurse.put(put, prefix="y!", first=1, last=2).problem(422, "invalid_body")
    nurse.put(f"{department}/queues/{GENERAL}", prefix="Z", first=301, last=302).good()
    ticket = nurse.walk_in(department)
    assert line_of(nurse.board(department))[0]["number"] == "Z301"
    nurse.walk_in(department)
    person = {"name": "钱三", "id_type": "passport", "id_number": "W0000001", "phone": "13900139000"}
    body = {"department_id": department, "person": person}
    refused = nurse.hospital.post("/api/v1/walk-ins", nurse.token, body, "third")
    refused.problem(409, "numbers_exhausted", queue_id=GENERAL, last=302)
    assert tickets_of(nurse.board(department))[0] == ticket


def test_the_emergency_button(hospital: Hospital, nurse: Console) -> None:
    nurse.open("2701", "R2701.1")
    before = room_of(nurse.board("2701"), "R2701.1")
    told = nurse.post("2701/rooms/R2701.1/alarm", note="患者晕倒").good()
    assert (told["alarm"], told["version"]) == (True, before["version"])
    assert room_of(nurse.board("2701"), "R2701.1")["alarm_since"]
    nurse.post("2701/rooms/R2701.1/alarm", on=False).good()
    assert room_of(nurse.board("2701"), "R2701.1")["alarm_since"] is None
    nurse.post("2701/rooms/R2701.9/alarm").problem(409, "room_not_open")


# Who may.


def test_only_those_whose_waiting_room_it_is_act_there(
    system: System, hospital: Hospital, nurse: Console
) -> None:
    department, room = "0309", "R0309.1"
    ticket = nurse.walk_in(department)
    nurse.open(department, room)
    strangers = [
        Console(hospital, "demo-doctor"),
        Console(hospital, "demo-kiosk"),
        Console(hospital, "demo-screen"),
        Console(hospital, "demo-his"),
        Console(hospital, "demo-office"),
        add_staff(system, hospital, "nurse", department="50"),
    ]
    for who in strangers:
        who.call_next(department, room).problem(403, "forbidden")
        who.step(department, ticket, "move", ahead=0, reason="x").problem(403, "forbidden")
        who.post(f"{department}/rooms/{room}/open").problem(403, "forbidden")
        who.post(f"{department}/rooms/{room}/close").problem(403, "forbidden")
        who.post(f"{department}/rooms/{room}/alarm").problem(403, "forbidden")
        who.put(f"{department}/queues/x", prefix="X", first=1, last=2).problem(403, "forbidden")
        who.get(f"/{department}/history").problem(403, "forbidden")
    patient = {"room_id": room}
    hospital.post(f"/api/v1/queues/{department}/call-next", hospital.token(), patient, "k").problem(
        401, "unauthenticated"
    )
    own = add_staff(system, hospital, "nurse", department="03")
    assert own.call_next(department, room).good()["ticket_id"] == ticket


def test_a_ticket_of_another_department_is_not_here(nurse: Console) -> None:
    ticket = nurse.walk_in("0308")
    nurse.step("0307", ticket, "leave", reason="x").problem(404, "no_such_ticket")
    nurse.get(f"/0307/tickets/{ticket}/history").problem(404, "no_such_ticket")
    assert tickets_of(nurse.board("0308")) == [ticket]


def test_other_days_are_not_changed(nurse: Console) -> None:
    today = datetime.now(ZONE).date()

    def opened(day: date) -> Answer:
        return nurse.post(f"0306/rooms/R0306.1/open?day={day}")

    opened(today + timedelta(days=1)).problem(409, "not_today", day=str(today))
    opened(today - timedelta(days=2)).problem(409, "not_today", day=str(today))
    opened(today - timedelta(days=1)).good()  # past midnight somebody still waits
    assert nurse.board("0306")["rooms"] == []
