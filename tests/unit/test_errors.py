"""Every refusal has a status and words in both languages; every failure comes out as problem+json."""

import ast
import inspect
import json
import string
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from engine.domain import eligibility
from engine.domain.policy import Offence
from engine.domain.refusal import Reason, Refusal
from engine.records.conduct import ConductRefusal
from engine.records.identity import IdentityFault
from engine.records.patients import PeopleRefusal
from engine.vault.failed import VaultBehind
from web import keys
from web.door import Door
from web.errors import Problem, expect, language_of, problems, refused
from web.faults import INVALID, PENALTIES, RULES, TABLE, WISHES, Fault, Row, Text

MEMBERS = {
    "scope",
    "again_at",
    "at_most",
    "calls",
    "clock",
    "day",
    "department_id",
    "end",
    "expires_in",
    "found",
    "from",
    "key",
    "last",
    "limit",
    "metres",
    "newest",
    "number",
    "number_class",
    "passed_at",
    "practitioner_id",
    "queue_id",
    "request_id",
    "request_status",
    "retry_after",
    "revision",
    "room",
    "room_id",
    "schedule_id",
    "service",
    "sold",
    "start",
    "ticket_status",
    "times",
    "unfit",
    "until",
    "version",
    "waiting",
    "why",
}


@pytest.mark.parametrize("code", [*Reason, *Fault])
def test_every_code_has_its_row(code: Reason | Fault) -> None:
    row = TABLE[code]
    assert 400 <= row.status < 600
    for text in (row.title, row.detail):
        assert any(character >= "\u4e00" for character in text.zh)
        assert text.en.isascii()
        assert {name for _, name, _, _ in string.Formatter().parse(text.zh + text.en) if name} <= MEMBERS


def test_the_table_has_nothing_else_and_no_code_twice() -> None:
    assert set(TABLE) == {*map(str, Reason), *map(str, Fault)}
    assert not {str(reason) for reason in Reason} & {str(fault) for fault in Fault}


def test_the_records_refusals_are_codes_too() -> None:
    assert {str(fault) for fault in (*IdentityFault, *PeopleRefusal, *ConductRefusal)} <= set(TABLE)


def test_unavailable_says_when_to_come_back() -> None:
    assert all((row.retry_after is not None) == (row.status == 503) for row in TABLE.values())


def test_every_eligibility_rule_has_words() -> None:
    rules = {
        call.args[0].value
        for call in ast.walk(ast.parse(inspect.getsource(eligibility)))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "_refused"
        and isinstance(call.args[0], ast.Constant)
    }
    assert len(rules) >= 6
    assert rules == set(RULES)


@pytest.mark.parametrize("text", [*RULES.values(), *PENALTIES.values(), *WISHES.values(), *INVALID.values()])
def test_words_are_in_both_languages(text: Text) -> None:
    assert any(character >= "\u4e00" for character in text.zh)
    assert text.en.isascii()


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        (None, "zh"),
        ("", "zh"),
        ("*", "zh"),
        ("zh-CN", "zh"),
        ("en", "en"),
        ("en-GB,en;q=0.9", "en"),
        ("EN-us", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en;q=0.8,zh;q=0.9", "zh"),
        ("en,zh;q=0.5", "en"),
        ("en,zh", "en"),
        ("zh,en", "zh"),
        ("fr,en;q=0.1", "en"),
        ("fr", "zh"),
        ("en;q=0", "zh"),
        ("en;q=nonsense", "zh"),
        ("en;q=nan", "zh"),
        (",;,=;q", "zh"),
        ("en," * 1000, "zh"),
    ],
)
def test_language(accept: str | None, language: str) -> None:
    assert language_of(accept) == language


def body_of(problem: Problem, **headers: str) -> dict[str, object]:
    response = problem.response(make_mocked_request("GET", "/", headers={**headers}))
    assert isinstance(response.body, bytes)
    body: dict[str, object] = json.loads(response.body)
    assert body["status"] == response.status
    return body


def test_a_refusal_carries_what_helps() -> None:
    owner = UUID(int=7)
    body = body_of(refused(Refusal(Reason.ALREADY_BOOKED, {"appointment_id": owner.bytes.hex()})))
    assert body["code"] == "already_booked"
    assert body["type"] == "/problems/already_booked"
    assert body["appointment_id"] == str(owner)
    full = body_of(refused(Refusal(Reason.SLOT_FULL), alternatives=[{"slot_id": "D1-20261124-0830"}]))
    assert full["alternatives"] == [{"slot_id": "D1-20261124-0830"}]


def test_a_rule_has_its_own_words() -> None:
    refusal = Refusal(Reason.NOT_ELIGIBLE, {"rule": "account_holds_max", "limit": 5})
    assert body_of(refused(refusal)) == {
        "type": "/problems/not_eligible",
        "title": "不符合预约条件",
        "status": 403,
        "detail": "当前账号已有 5 个待支付的预约，请先支付或取消。",
        "code": "not_eligible",
        "rule": "account_holds_max",
        "limit": 5,
    }
    assert "5 unpaid" in str(body_of(refused(refusal), **{"Accept-Language": "en"})["detail"])
    unknown = body_of(refused(Refusal(Reason.NOT_ELIGIBLE, {"rule": "a_new_one"})))
    assert unknown["detail"] == "不符合预约条件。"


def test_a_penalty_speaks_of_its_offence_whatever_the_hospital_called_the_rule() -> None:
    assert set(PENALTIES) == set(Offence)
    detail: dict[str, str | int | None] = {
        "rule": "delegation_expired",  # also a name that a hospital may choose
        "offence": "dropped_hold",
        "until": 1_800_000_000_000,
        "penalty_id": UUID(int=7).bytes.hex(),
    }
    problem = refused(Refusal(Reason.NOT_ELIGIBLE, detail))
    assert problem.members["penalty_id"] == str(UUID(int=7))
    chinese = str(problem.body("zh")["detail"])
    assert "占号不付" in chinese and "「delegation_expired」" in chinese
    assert 'rule "delegation_expired"' in str(problem.body("en")["detail"])


def application() -> web.Application:
    app = web.Application(middlewares=[problems], client_max_size=100)
    app[keys.ZONE] = ZoneInfo("Asia/Shanghai")

    async def raises(request: web.Request) -> web.Response:
        match request.match_info["what"]:
            case "busy":
                raise refused(Refusal(Reason.BUSY))
            case "ended":
                raise refused(
                    Refusal(Reason.NOT_ELIGIBLE, {"rule": "delegation_expired", "until": 1_800_000_000_000})
                )
            case "bug":
                raise RuntimeError("secret detail")
            case "database":
                raise asyncpg.InterfaceError("pool is closing")
            case "vault":
                raise VaultBehind("master key 2 is not known here yet")
            case "gone":
                raise web.HTTPGone
            case "moved":
                raise web.HTTPFound("/elsewhere")
            case "token":
                raise Problem(Fault.TOKEN_EXPIRED)
        return web.Response(text=str(len(await request.read())))

    app.router.add_get("/{what}", raises, expect_handler=expect)
    app.router.add_post("/{what}", raises, expect_handler=expect)
    return app


@pytest.fixture
async def client() -> TestClient[web.Request, web.Application]:
    async with TestClient(TestServer(application())) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "header"),
    [
        ("GET", "/busy", 503, "busy", ("Retry-After", "1")),
        ("GET", "/bug", 500, "internal", None),
        ("GET", "/database", 503, "database_down", ("Retry-After", "2")),
        ("GET", "/vault", 503, "database_down", ("Retry-After", "2")),
        ("GET", "/gone", 410, "request_refused", None),
        ("GET", "/no/such", 404, "not_found", None),
        ("DELETE", "/busy", 405, "method_not_allowed", ("Allow", "GET,HEAD,POST")),
        ("POST", "/body", 413, "body_too_large", None),
        (
            "GET",
            "/token",
            401,
            "token_expired",
            ("WWW-Authenticate", 'Bearer realm="xinglin", error="invalid_token"'),
        ),
    ],
)
async def test_whatever_is_raised(
    client: TestClient[web.Request, web.Application],
    method: str,
    path: str,
    status: int,
    code: str,
    header: tuple[str, str] | None,
) -> None:
    data = b"x" * 101 if method == "POST" else None
    async with client.request(method, path, data=data, headers={"Accept-Language": "en"}) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"
        assert response.headers["Content-Language"] == "en"
        body = await response.json()
        assert (body["status"], body["code"]) == (status, code)
        assert body["title"] == TABLE[code].title.en
        if header is not None:
            assert response.headers[header[0]].startswith(header[1])


async def test_until_is_told_in_the_hospitals_zone(client: TestClient[web.Request, web.Application]) -> None:
    async with client.get("/ended") as response:
        until = (await response.json())["until"]
        assert until == "2027-01-15T16:00:00+08:00"
        assert datetime.fromisoformat(until).timestamp() == 1_800_000_000


def test_times_in_words_are_as_on_the_clock_of_the_hospital() -> None:
    detail: dict[str, str | int | None] = {"from": 1_800_000_000_000, "again_at": 1_800_000_007_000}
    problem = refused(Refusal(Reason.CHECK_IN_TOO_EARLY, detail))
    said = problem.body("en", ZoneInfo("Asia/Shanghai"))
    assert said["detail"] == "Check-in opens at 2027-01-15 16:00."
    said = refused(Refusal(Reason.TOO_SOON, detail)).body("zh", ZoneInfo("Asia/Shanghai"))
    assert "2027-01-15 16:00:07" in str(said["detail"])


async def test_a_bug_is_logged_under_the_id_that_is_told(
    client: TestClient[web.Request, web.Application], caplog: pytest.LogCaptureFixture
) -> None:
    async with client.get("/bug") as response:
        text = await response.text()
    assert "secret detail" not in text
    assert "Traceback" not in text
    assert json.loads(text)["request_id"] in caplog.text
    assert "secret detail" in caplog.text


async def test_a_redirect_is_no_error(client: TestClient[web.Request, web.Application]) -> None:
    async with client.get("/moved", allow_redirects=False) as response:
        assert response.status == 302


async def test_expect(client: TestClient[web.Request, web.Application]) -> None:
    async with client.post("/body", data=b"x" * 10, expect100=True) as response:
        assert (response.status, await response.text()) == (200, "10")
    async with client.post("/body", data=b"x", headers={"Expect": "a miracle"}) as response:
        assert response.status == 417
        assert (await response.json())["code"] == "expectation_failed"


@pytest.mark.parametrize(
    "raw", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
async def test_bytes_that_are_no_http(raw: bytes) -> None:
    import asyncio

    runner = Door(application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(raw)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    finally:
        await runner.cleanup()
    assert head.startswith(b"HTTP/1.") and b" 400 " in head.splitlines()[0]
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"


def test_a_row_without_its_word_still_speaks() -> None:
    problem = Problem(Fault.TOO_MANY_PATIENTS)
    assert isinstance(problem.row, Row)
    assert body_of(problem)["detail"] == "每个账号最多添加 ? 位就诊人。"
