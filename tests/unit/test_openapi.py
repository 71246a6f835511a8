"""The layer between HTTP and handlers: what gets through, what does not, and what is documented of both."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from pydantic import Field

from engine.domain.limits import BODY_BYTES_MAX
from engine.domain.policy import Channel
from engine.domain.refusal import Reason
from engine.records.staff import Role
from web import keys
from web.auth import Staff, Tokens
from web.errors import Problem
from web.faults import Fault
from web.openapi import Api, api, as_3_0
from web.patient import patients, sessions  # noqa: F401  (they declare their routes)
from web.patient.bodies import IdPath, IsoDate, Request, WordPath, ZonedTime
from web.rights.matrix import parsed

Client = TestClient[web.Request, web.Application]
ACCOUNT = bytes(range(16))
TOKENS = Tokens(b"s" * 32, 1800, 1800, lambda: 1_800_000_000.0)  # signed at import, used whenever
BEARER = {"Authorization": f"Bearer {TOKENS.issue(ACCOUNT).access_token}"}
DESK = Staff(bytes(16), "desk", "窗口", frozenset({Role.DESK}), None, None, Channel.WINDOW)
DOCTOR = Staff(bytes(16), "doctor", "医生", frozenset({Role.DOCTOR}), "D1", None, Channel.DOCTOR)


def bearer(staff: Staff) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS.issue_staff(staff).access_token}"}


class Inner(Request):
    count: int


class EchoBody(Request):
    text: Annotated[str, Field(min_length=1, max_length=8)]
    secret: str = ""
    inner: Inner | None = None
    day: IsoDate | None = None
    at: ZonedTime | None = None


class EchoQuery(Request):
    since: Annotated[IsoDate | None, Field(alias="from", description="起 / from")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    status: list[str] | None = None
    before: ZonedTime | None = None


@dataclass(frozen=True, slots=True)
class Echo:
    text: str
    day: date | None = None
    at: datetime | None = None
    id: UUID | None = None


OPEN = ("echo", "search", "read", "word", "ready", "models", "raw")
small = Api(
    "small",
    "1",
    tags={"echo": "回声 / echo"},
    rights=parsed(
        {
            **{name: {"anyone": "all"} for name in OPEN},
            "mine": {"patient": "all"},
            "forget": {"patient": "all"},
            "desk": {"desk": "all", "manager": "all", "sees": "names"},
            "anybody_here": {"staff": "all"},
            "either": {"patient": "all", "desk": "all"},
        },
        {"all"},
    ),
)


@small.route("POST", "/echo", zh="回声", status=201, tags=["echo"])
async def echo(request: web.Request, *, body: EchoBody) -> Echo:
    """Says it back.

    With a second paragraph.
    """
    return Echo(body.text, body.day, body.at)


@small.route("GET", "/echo", zh="查询")
async def search(request: web.Request, *, query: EchoQuery) -> list[str]:
    """Says what was asked."""
    return [str(query.since), str(query.limit), str(query.status), str(query.before)]


@small.route("GET", "/things/{id}", zh="一个")
async def read(request: web.Request, *, path: IdPath) -> Echo:
    """One."""
    return Echo("", id=path.id)


@small.route("GET", "/words/{id}", zh="词")
async def word(request: web.Request, *, path: WordPath) -> Echo:
    """One by its word."""
    return Echo(path.id)


@small.route("POST", "/mine", zh="我的", status=201, errors=[Reason.SLOT_FULL])
async def mine(request: web.Request, *, account_id: bytes, idempotency_key: str, body: EchoBody) -> Echo:
    """Needs everything."""
    return Echo(f"{account_id.hex()} {idempotency_key}")


@small.route("DELETE", "/mine", zh="删除", status=204)
async def forget(request: web.Request) -> None:
    """Needs a token, says nothing."""


@small.route("GET", "/desk", zh="窗口")
async def desk(request: web.Request, *, staff: Staff) -> Echo:
    """Of the desk."""
    return Echo(f"{staff.username} {staff.channel.name}")


@small.route("GET", "/staff", zh="职工")
async def anybody_here(request: web.Request) -> Echo:
    """Of all staff."""
    return Echo("staff")


@small.route("GET", "/either", zh="两者")
async def either(request: web.Request, *, who: bytes | Staff) -> Echo:
    """Of patients, and of the desk."""
    return Echo(who.username if isinstance(who, Staff) else who.hex())


@small.route("GET", "/ready", zh="现成", answer=Echo)
async def ready(request: web.Request) -> bytes:
    """JSON that lay ready."""
    return b'{"text":"ready"}'


@small.route("GET", "/models", zh="模型")
async def models(request: web.Request) -> list[Inner]:
    """pydantic models are answers too."""
    return [Inner(count=1)]


@small.route("GET", "/raw", zh="原样")
async def raw(request: web.Request) -> web.Response:
    """A response of its own."""
    return web.Response(text="raw")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    app[keys.TOKENS] = TOKENS
    small.setup(app)
    async with TestClient(TestServer(app)) as client:
        yield client


JSON = {"Content-Type": "application/json"}


async def post(client: Client, raw: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    async with client.post("/echo", data=raw, headers={**JSON, **headers}) as response:
        return response.status, json.loads(await response.read())


# Documents.


@pytest.mark.parametrize("declared", [small, api])
def test_the_document_is_valid(declared: Api) -> None:
    assert list(OpenAPIV31SpecValidator(declared.document).iter_errors()) == []
    assert list(OpenAPIV30SpecValidator(as_3_0(declared.document)).iter_errors()) == []


def test_the_document_says_what_the_layer_does() -> None:
    document = small.document
    assert document["openapi"] == "3.1.0"
    post = document["paths"]["/mine"]["post"]
    assert post["security"] == [{"bearer": []}]
    assert [p["name"] for p in post["parameters"]] == ["Idempotency-Key"]
    assert post["parameters"][0]["required"] is True
    answers = {
        status: answer["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"][
            "enum"
        ]
        for status, answer in post["responses"].items()
        if status != "201"
    }
    assert answers == {
        "400": [
            "missing_idempotency_key",
            "invalid_idempotency_key",
            "malformed_json",
            "duplicate_key",
            "malformed_request",
        ],
        "401": ["unauthenticated", "token_expired", "session_ended"],
        "409": ["slot_full"],
        "413": ["body_too_large"],
        "415": ["unsupported_media_type"],
        "422": ["invalid_body"],
        "429": ["too_many_requests"],
        "500": ["internal"],
        "503": ["busy"],
    }
    assert "号源已满 / The slot is full" in post["responses"]["409"]["description"]
    said = document["paths"]["/echo"]["post"]
    assert (said["summary"], said["description"]) == ("回声", "Says it back.\n\nWith a second paragraph.")
    assert said["security"] == []
    names = {p["name"]: p for p in document["paths"]["/echo"]["get"]["parameters"]}
    assert list(names) == ["from", "limit", "status", "before"]
    assert names["from"]["schema"] == {"type": "string", "format": "date"}
    assert (names["from"]["description"], names["from"]["required"]) == ("起 / from", False)
    assert document["paths"]["/things/{id}"]["get"]["parameters"][0]["schema"]["format"] == "uuid"
    assert document["paths"]["/mine"]["delete"]["responses"]["204"] == {"description": "No Content"}
    assert document["paths"]["/ready"]["get"]["responses"]["200"]["content"]["application/json"][
        "schema"
    ] == {"$ref": "#/components/schemas/Echo"}


def test_the_patients_part_of_the_contract() -> None:
    paths = api.document["paths"]
    assert {"/api/v1/sessions", "/api/v1/patients"} <= set(paths)
    assert paths["/api/v1/sessions"]["post"]["security"] == []
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            assert operation["description"].isascii(), (path, method)
            assert any(c >= "\u4e00" for c in operation["summary"]), (path, method)


async def test_the_document_and_its_page_are_served(client: Client) -> None:
    async with client.get("/openapi.json") as response:
        assert await response.json() == small.document
    async with client.get("/docs") as response:
        page = await response.text()
    assert "http://" not in page and "https://" not in page  # nothing from elsewhere
    for address in (
        "/docs/assets/swagger-ui.css",
        "/docs/assets/swagger-ui-bundle.js",
        "/docs/openapi-3.0.json",
    ):
        assert address in page
        async with client.get(address) as response:
            assert response.status == 200
    async with client.get("/docs/assets/../__init__.py") as response:
        assert response.status == 404
    async with client.get("/docs/openapi-3.0.json") as response:
        assert (await response.json())["openapi"] == "3.0.3"


# Declarations that cannot be meant.


def test_mistakes_show_when_they_are_declared() -> None:
    lines = {name: {"patient": "all"} for name in ("unknown", "elsewhere", "whoever", "forget")}
    wrong = Api("wrong", "1", rights=parsed({**lines, "anonymous": {"anyone": "all"}}, {"all"}))

    async def unknown(request: web.Request, *, cookie: str) -> None: ...

    async def anonymous(request: web.Request, *, account_id: bytes) -> None: ...

    async def elsewhere(request: web.Request, *, path: IdPath) -> None: ...

    async def whoever(request: web.Request, *, who: bytes | Staff) -> None: ...

    with pytest.raises(TypeError, match="cookie"):
        wrong.route("GET", "/", zh="错")(unknown)
    with pytest.raises(TypeError, match="security is bearer"):
        wrong.route("GET", "/", zh="错")(whoever)
    with pytest.raises(TypeError, match="needs no token"):
        wrong.route("GET", "/", zh="错")(anonymous)
    with pytest.raises(TypeError, match="different things"):
        wrong.route("GET", "/{name}", zh="错")(elsewhere)
    with pytest.raises(TypeError, match="different things"):
        wrong.route("GET", "/{name}", zh="错")(forget)
    with pytest.raises(TypeError, match="no line in the matrix"):
        wrong.route("GET", "/", zh="错")(raw)
    wrong.route("GET", "/", zh="对")(forget)
    with pytest.raises(TypeError, match="two handlers"):
        wrong.route("DELETE", "/", zh="错")(forget)


def test_a_line_of_the_matrix_without_a_route_does_not_start() -> None:
    lonely = Api("lonely", "1", rights=parsed({"nobody_knows": {"patient": "all"}}, {"all"}))
    with pytest.raises(TypeError, match="nobody_knows"):
        lonely.must_be_complete()


# Bodies.


async def test_a_good_body(client: Client) -> None:
    body = {"text": "你好", "day": "2026-11-24", "at": "2026-11-24T08:30:00+08:00", "inner": {"count": 1}}
    assert await post(client, json.dumps(body).encode()) == (
        201,
        {"text": "你好", "day": "2026-11-24", "at": "2026-11-24T08:30:00+08:00", "id": None},
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'],
)
async def test_media_types_that_are_json(client: Client, content_type: str) -> None:
    assert (await post(client, b'{"text":"a"}', **{"Content-Type": content_type}))[0] == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=gbk",
        "application/merge-patch+json",
        "application/json-seq",
        "application/jsonx",
        "/",
    ],
)
async def test_media_types_that_are_not(client: Client, content_type: str) -> None:
    status, problem = await post(client, b'{"text":"a"}', **{"Content-Type": content_type})
    assert (status, problem["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"text":"a"}}',
        b"{'text':'a'}",
        b'{"text":"a",}',
        b'{"text":NaN}',
        b'{"text":Infinity}',
        b'{"text":-Infinity}',
        b'{"text":1e999}',
        b'{"text":"\xff"}',
        b'{"text":"\xed\xa0\x80"}',
        b'{"text":"\\ud800"}',
        b'{"text":"a\nb"}',
        b'\xef\xbb\xbf{"text":"a"}',
        '{"text":"a"}'.encode("utf-16"),
        b"[" * BODY_BYTES_MAX,
        b'{"inner":' * 1500,
        b'{"text":' + b"1" * 5000 + b"}",
        b'{"text":01}',
    ],
)
async def test_malformed(client: Client, raw: bytes) -> None:
    status, problem = await post(client, raw)
    assert (status, problem["code"]) == (400, "malformed_json")


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b'{"text":"a","text":"b"}', "text"),
        (b'{"text":"a","inner":{"count":1,"count":1}}', "count"),
        (b'{"text":"a","x":[[{"y":{"deep":1,"deep":2}}]]}', "deep"),
        (b'{"te\\u0078t":"a","text":"b"}', "text"),
        (b'{"\\ud800":1,"\\ud800":1}', "?"),
        (b'{"' + b"k" * 200 + b'":1,"' + b"k" * 200 + b'":1}', "k" * 64),
    ],
)
async def test_duplicate_keys(client: Client, raw: bytes, key: str) -> None:
    status, problem = await post(client, raw)
    assert (status, problem["code"], problem["key"]) == (400, "duplicate_key", key)
    assert key in problem["detail"]


async def test_a_large_body(client: Client) -> None:
    fits = b'{"text":"a"}'.ljust(BODY_BYTES_MAX)
    assert (await post(client, fits))[0] == 201
    status, problem = await post(client, fits + b" ")
    assert (status, problem["code"], problem["limit"]) == (413, "body_too_large", BODY_BYTES_MAX)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 4096

    async with client.post("/echo", data=chunks(), headers=JSON) as response:
        assert response.status == 413
        assert (await response.json())["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("body", "loc", "code"),
    [
        ([], ["body"], "model_type"),
        (None, ["body"], "model_type"),
        ("text", ["body"], "model_type"),
        ({}, ["body", "text"], "missing"),
        ({"text": 1}, ["body", "text"], "string_type"),
        ({"text": None}, ["body", "text"], "string_type"),
        ({"text": ""}, ["body", "text"], "string_too_short"),
        ({"text": "123456789"}, ["body", "text"], "string_too_long"),
        ({"text": "a", "other": 1}, ["body", "other"], "extra_forbidden"),
        ({"text": "a", "inner": {"count": "1"}}, ["body", "inner", "count"], "int_type"),
        ({"text": "a", "inner": {"count": 1.0}}, ["body", "inner", "count"], "int_type"),
        ({"text": "a", "inner": {"count": True}}, ["body", "inner", "count"], "int_type"),
        ({"text": "a", "inner": {"count": 1, "x": 1}}, ["body", "inner", "x"], "extra_forbidden"),
        *(
            ({"text": "a", "day": day}, ["body", "day"], "iso_date")
            for day in (
                "0",
                0,
                "20261124",
                "2026-13-01",
                "2026-11-31",
                "2026-11-24T00:00:00",
                "２０２６-11-24",
                "",
            )
        ),
        *(
            ({"text": "a", "at": at}, ["body", "at"], "zoned_time")
            for at in (
                "2026-11-24T08:30:00",  # no zone
                "2026-11-24 08:30:00+08:00",
                "2026-11-24",
                "0",
                0,
                1700000000,
                "2026-11-24T25:00:00Z",
                "2026-11-24T08:30:00+99:00",
            )
        ),
    ],
)
async def test_an_invalid_body(client: Client, body: object, loc: list[str], code: str) -> None:
    status, problem = await post(client, json.dumps(body).encode())
    assert (status, problem["code"]) == (422, "invalid_body")
    assert [(e["loc"], e["code"]) for e in problem["errors"]] == [(loc, code)]
    assert any(c >= "\u4e00" for c in problem["errors"][0]["msg"])
    status, problem = await post(client, json.dumps(body).encode(), **{"Accept-Language": "en"})
    assert problem["errors"][0]["msg"].isascii()


async def test_every_fault_is_listed_up_to_a_bound(client: Client) -> None:
    _, problem = await post(client, b'{"text":1,"secret":2,"x":3}')
    assert [e["loc"][-1] for e in problem["errors"]] == ["text", "secret", "x"]
    many = {"text": "a", **{f"x{n}": n for n in range(100)}}
    _, problem = await post(client, json.dumps(many).encode())
    assert len(problem["errors"]) == 20


async def test_nothing_that_was_sent_comes_back(client: Client) -> None:
    _, problem = await post(client, b'{"text":"110105194912310021","secret":["hunter2"],"inner":"hunter3"}')
    said = json.dumps(problem)
    assert "hunter" not in said and "1101051949" not in said


async def test_sign_in_faults_do_not_say_the_password(client: Client) -> None:
    app = web.Application()
    api.setup(app)
    async with TestClient(TestServer(app)) as other:
        for body in (
            {"grant": "hunter2", "code": "hunter2"},
            {"grant": "password", "username": "a", "password": ["hunter2"]},
            {"password": "hunter2"},
        ):
            async with other.post("/api/v1/sessions", json=body) as response:
                assert response.status == 422
                assert "hunter2" not in await response.text()


# Queries and paths.


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", ["None", "20", "None", "None"]),
        ("from=2026-11-24&limit=5", ["2026-11-24", "5", "None", "None"]),
        ("status=booked", ["None", "20", "['booked']", "None"]),
        ("status=booked&status=pending", ["None", "20", "['booked', 'pending']", "None"]),
        ("before=2026-11-24T08:30:00%2B08:00", ["None", "20", "None", "2026-11-24 08:30:00+08:00"]),
    ],
)
async def test_a_good_query(client: Client, query: str, said: list[str]) -> None:
    async with client.get(f"/echo?{query}") as response:
        assert (response.status, await response.json()) == (200, said)


@pytest.mark.parametrize(
    ("query", "name", "code"),
    [
        ("from=0", "from", "iso_date"),
        ("from=", "from", "iso_date"),
        ("from=tomorrow", "from", "iso_date"),
        ("limit=0", "limit", "greater_than_equal"),
        ("limit=101", "limit", "less_than_equal"),
        ("limit=many", "limit", "int_parsing"),
        ("limit=1&limit=2", "limit", "repeated"),
        ("before=2026-11-24T08:30:00", "before", "zoned_time"),
        ("before=2026-11-24T08:30:00+08:00", "before", "zoned_time"),  # + is a space in a query
        ("since=2026-11-24", "since", "extra_forbidden"),
        ("other=1", "other", "extra_forbidden"),
    ],
)
async def test_an_invalid_query(client: Client, query: str, name: str, code: str) -> None:
    async with client.get(f"/echo?{query}") as response:
        problem = await response.json()
    assert (response.status, problem["code"]) == (422, "invalid_query")
    assert [(e["loc"], e["code"]) for e in problem["errors"]] == [(["query", name], code)]


async def test_paths(client: Client) -> None:
    async with client.get(f"/things/{UUID(int=7)}") as response:
        assert (await response.json())["id"] == str(UUID(int=7))
    for path in ("/things/7", "/things/%00", "/words/a%20b", "/words/%E7%8E%8B", "/words/" + "a" * 65):
        async with client.get(path) as response:
            assert (response.status, (await response.json())["code"]) == (404, "not_found")
    async with client.get("/words/D0012-20261124") as response:
        assert response.status == 200


# Who asks, and their key.


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthenticated"),
        ({"Authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        (BEARER, 400, "missing_idempotency_key"),
        ({**BEARER, "Idempotency-Key": ""}, 400, "invalid_idempotency_key"),
        ({**BEARER, "Idempotency-Key": "a b"}, 400, "invalid_idempotency_key"),
        ({**BEARER, "Idempotency-Key": "键"}, 400, "invalid_idempotency_key"),
        ({**BEARER, "Idempotency-Key": "k" * 129}, 400, "invalid_idempotency_key"),
        ({**BEARER, "Idempotency-Key": "k"}, 422, "invalid_body"),
    ],
)
async def test_guards_in_their_order(client: Client, headers: dict[str, str], status: int, code: str) -> None:
    async with client.post("/mine", data=b"{}", headers={**JSON, **headers}) as response:
        assert (response.status, (await response.json())["code"]) == (status, code)
        assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_two_keys_are_no_key(client: Client) -> None:
    headers = [*JSON.items(), *BEARER.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    async with client.post("/mine", data=b'{"text":"a"}', headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, "invalid_idempotency_key")


async def test_a_handler_gets_what_it_names(client: Client) -> None:
    key = "k" * 128
    headers = {**JSON, **BEARER, "Idempotency-Key": key}
    async with client.post("/mine", data=b'{"text":"a"}', headers=headers) as response:
        assert (response.status, (await response.json())["text"]) == (201, f"{ACCOUNT.hex()} {key}")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.content_type == "application/json"
    async with client.delete("/mine", headers=BEARER) as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_answers_of_other_kinds(client: Client) -> None:
    async with client.get("/ready") as response:
        assert await response.json() == {"text": "ready"}
    async with client.get("/models") as response:
        assert await response.json() == [{"count": 1}]
    async with client.get("/raw") as response:
        assert await response.text() == "raw"
    async with client.head("/ready") as response:
        assert response.status == 200
    async with client.patch("/echo") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD,POST")
        assert (await response.json())["code"] == "method_not_allowed"


def test_a_problem_is_what_handlers_raise() -> None:
    assert str(Problem(Fault.NOT_FOUND)) == "not_found"


# Staff.


async def get(client: Client, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path, headers=headers) as response:
        return response.status, await response.json()


async def test_a_role_opens_what_names_it(client: Client) -> None:
    assert await get(client, "/desk", **bearer(DESK)) == (
        200,
        {"text": "desk WINDOW", "day": None, "at": None, "id": None},
    )
    status, told = await get(client, "/desk", **bearer(DOCTOR))
    assert (status, told["code"], told["roles"]) == (403, "forbidden", ["desk", "manager"])
    assert (await get(client, "/staff", **bearer(DOCTOR)))[0] == 200


async def test_what_is_for_either_tells_them_apart(client: Client) -> None:
    assert (await get(client, "/either", **BEARER))[1]["text"] == ACCOUNT.hex()
    assert (await get(client, "/either", **bearer(DESK)))[1]["text"] == "desk"
    status, told = await get(client, "/either", **bearer(DOCTOR))
    assert (status, told["code"], told["roles"]) == (403, "forbidden", ["desk"])
    assert (await get(client, "/either"))[1]["code"] == "unauthenticated"
    declared = small.document["paths"]["/either"]["get"]
    assert declared["security"] == [{"bearer": []}, {"staff": []}, {"cookie": []}]


async def test_patients_and_strangers_are_not_staff(client: Client) -> None:
    for headers in (BEARER, {}, {"Authorization": "Bearer x"}):
        for path in ("/desk", "/staff"):
            status, told = await get(client, path, **headers)
            assert (status, told["code"]) == (401, "unauthenticated")


async def test_staff_are_no_patients(client: Client) -> None:
    async with client.delete("/mine", headers=bearer(DESK)) as response:
        assert (response.status, (await response.json())["code"]) == (401, "unauthenticated")


def test_the_document_says_which_staff() -> None:
    document = small.document
    declared = document["paths"]["/desk"]["get"]
    assert declared["security"] == [{"staff": []}, {"cookie": []}]
    assert "staff" in document["components"]["securitySchemes"]
    assert declared["description"].endswith("Who may: desk (all); manager (all).")
    assert declared["x-rights"] == {"scopes": {"desk": "all", "manager": "all"}, "sees": {"default": "names"}}
    forbidden = declared["responses"]["403"]["content"]["application/problem+json"]["schema"]
    assert forbidden["allOf"][1]["properties"]["code"]["enum"] == ["forbidden"]
    assert "403" not in document["paths"]["/staff"]["get"]["responses"]


@pytest.mark.parametrize("caller", ["patient", "anyone", "signed_in"])
def test_a_route_for_staff_that_is_not_for_staff_alone(caller: str) -> None:
    async def wrong(request: web.Request, *, staff: Staff) -> None: ...

    with pytest.raises(TypeError, match="staff"):
        Api("x", "1", rights=parsed({"wrong": {caller: "all"}}, {"all"})).route("GET", "/x", zh="x")(wrong)


def test_an_account_is_not_what_a_staff_route_has() -> None:
    async def wrong(request: web.Request, *, account_id: bytes) -> None: ...

    with pytest.raises(TypeError, match="account_id"):
        Api("x", "1", rights=parsed({"wrong": {"desk": "all"}}, {"all"})).route("GET", "/x", zh="x")(wrong)
