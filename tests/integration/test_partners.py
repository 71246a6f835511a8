"""Other systems: their credentials, tokens and scopes, over the wire and from the command line."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import jwt
import pytest
from click.testing import CliRunner

from engine.domain.policy import Channel
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import partners as records
from engine.records.erasure import _FORGET_PATIENT
from engine.records.partners import Partner
from tests.support.copies import copied, migrated
from tests.support.fhir_face import ALL, Face, opened
from tests.support.one_process import SECRET
from web.cli import main
from web.fresh_ids import new_id
from web.partner.sight import LOOK_AGAIN_SECONDS, Partners
from web.partner.tokens import AUDIENCE, TOKEN_SECONDS, PartnerTokens

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def face(original: str) -> AsyncIterator[Face]:
    async with copied(original) as database, opened(database) as face:
        yield face


@pytest.fixture
async def connection(original: str) -> AsyncIterator[asyncpg.Connection]:
    async with copied(original) as database:
        connection = await asyncpg.connect(database)
        yield connection
        await connection.close()


async def test_a_token_is_given_for_credentials_and_opens_what_it_says(face: Face) -> None:
    status, told, headers = await face.token("city")
    assert status == 200
    assert (told["token_type"], told["expires_in"], told["scope"]) == (
        "Bearer",
        TOKEN_SECONDS,
        "fhir.book fhir.read",
    )
    assert headers["Cache-Control"] == "no-store"
    bearer = {"Authorization": f"Bearer {told['access_token']}"}
    assert (await face.ask("GET", "Schedule", headers=bearer)).status == 200

    # In the form instead; with less than there is.
    partner, secret = face.partners["city"]
    form = {
        "grant_type": "client_credentials", "client_id": str(UUID(bytes=partner.id)), "client_secret": secret,
        "scope": "fhir.read",
    }  # fmt: skip
    async with face.http.post("/api/v1/partner/token", data=form) as answer:
        told = await answer.json()
    assert (answer.status, told["scope"]) == (200, "fhir.read")
    less = {"Authorization": f"Bearer {told['access_token']}"}
    assert (await face.ask("GET", "Schedule", headers=less)).status == 200
    refused = await face.ask("GET", "Appointment", headers=less)
    assert (refused.status, refused.code) == (403, "scope_missing")
    assert "fhir.book" in refused.body["issue"][0]["diagnostics"]
    given = await face.audit("partner_token_given")
    assert [(row["by_kind"], row["by_name"]) for row in given] == [("partner", "city")] * 2
    assert secret not in str([dict(row) for row in given])


async def test_what_is_not_right_is_refused_as_oauth_says(face: Face) -> None:
    partner, secret = face.partners["city"]
    id_ = str(UUID(bytes=partner.id))

    def basic(user: str, password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    async def told(form: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        async with face.http.post("/api/v1/partner/token", data=form, headers=headers or {}) as answer:
            said = await answer.json()
            if answer.status == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Basic")
            assert secret not in str(said)
            return answer.status, said.get("error") or said["code"]

    grant = {"grant_type": "client_credentials"}
    for form, headers, wanted in (
        (grant, None, (401, "invalid_client")),
        (grant, basic(id_, "xls_wrong"), (401, "invalid_client")),
        (grant, basic(str(uuid4()), secret), (401, "invalid_client")),
        (grant, basic("city", secret), (401, "invalid_client")),
        (grant, {"Authorization": "Basic !!!"}, (401, "invalid_client")),
        (grant, {"Authorization": f"Bearer {secret}"}, (401, "invalid_client")),
        ({**grant, "client_secret": secret}, basic(id_, secret), (400, "invalid_request")),
        ({"grant_type": "password"}, basic(id_, secret), (400, "unsupported_grant_type")),
        ({**grant, "scope": "fhir.read lis.write"}, basic(id_, secret), (400, "invalid_scope")),
        ({**grant, "scope": " "}, basic(id_, secret), (400, "invalid_scope")),
        (b"grant_type=a&grant_type=b", {"Content-Type": "application/x-www-form-urlencoded"},
         (400, "invalid_request")),
        (b"grant_type=\xff", {"Content-Type": "application/x-www-form-urlencoded"}, (400, "invalid_request")),
        (b"{}", {"Content-Type": "application/json"}, (400, "invalid_request")),
        ({**grant, "x": "y" * 5_000}, basic(id_, secret), (413, "body_too_large")),
    ):  # fmt: skip
        assert await told(form, headers) == wanted, (form, headers)
    refused = await face.audit("partner_token_refused")
    assert [(row["by_name"], row["outcome"]) for row in refused] == [("city", "refused")]


async def test_tokens_of_others_open_nothing_here_and_its_token_nothing_elsewhere(face: Face) -> None:
    account = face.one.tokens.issue(b"a" * 16).access_token
    for token in (account, "x", "x" * 5_000, face.bearer()[7:-2]):
        said = await face.ask("GET", "Schedule", headers={"Authorization": f"Bearer {token}"})
        assert (said.status, said.code) == (401, "unauthenticated")
    bearer = {"Authorization": face.bearer(), "Idempotency-Key": "k"}
    for method, path in (("GET", "appointments"), ("GET", "patients"), ("POST", "desk/appointments")):
        async with face.http.request(method, f"/api/v1/{path}", headers=bearer) as answer:
            assert answer.status == 401

    def signed(**claims: Any) -> str:
        now = int(datetime.now(UTC).timestamp())
        partner, _ = face.partners["city"]
        said = {
            "iss": "xinglin", "aud": AUDIENCE, "sub": partner.id.hex(), "typ": "partner_access",
            "scope": "fhir.read", "iat": now, "exp": now + 60, **claims,
        }  # fmt: skip
        return jwt.encode(said, SECRET, algorithm="HS256")

    assert (await face.ask("GET", "Schedule", headers={"Authorization": f"Bearer {signed()}"})).status == 200
    for claims in (
        {"aud": "xinglin-api"}, {"typ": "access"}, {"sub": "zz"}, {"sub": 5}, {"scope": None},
        {"scope": ["a"]}, {"iat": 2**40}, {"exp": "soon"}, {"sub": uuid4().hex},
    ):  # fmt: skip
        headers = {"Authorization": f"Bearer {signed(**claims)}"}
        assert (await face.ask("GET", "Schedule", headers=headers)).status == 401, claims
    headers = {"Authorization": f"Bearer {signed(exp=1)}"}
    assert (await face.ask("GET", "Schedule", headers=headers)).code == "token_expired"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_who_is_shut_out_is_out_within_seconds(connection: asyncpg.Connection) -> None:
    """Also who may less than before, though the token says more."""
    partner, secret = await records.add(
        connection, "lab", ["lis.write", "emr.read"], Channel.HIS, new_id(), NOW
    )
    tokens, clock = PartnerTokens(SECRET), Clock()
    partners = Partners(tokens, connection, clock=clock)
    header = f"Bearer {tokens.issue(partner, partner.scopes)}"
    assert (await partners.of_header(header)).scopes == {"lis.write", "emr.read"}
    await records.allow(connection, "lab", ["emr.read", "emr.write"])
    clock.now += LOOK_AGAIN_SECONDS
    assert (await partners.of_header(header)).scopes == {"emr.read"}, "what both have"
    await records.disable(connection, "lab", NOW)
    assert (await partners.of_header(header)).id == partner.id, "it has been looked at just now"
    clock.now += LOOK_AGAIN_SECONDS
    for _ in range(2):
        with pytest.raises(Exception, match="unauthenticated"):
            await partners.of_header(header)
    found = await records.by_secret(connection, partner.id, secret, NOW)
    assert found is not None and not found.is_live(NOW)


async def test_each_partner_has_a_rate_of_its_own(connection: asyncpg.Connection) -> None:
    tokens, clock = PartnerTokens(SECRET), Clock()
    partners = Partners(tokens, connection, per_second=2.0, burst=3, clock=clock)
    headers = []
    for name in ("one", "two"):
        partner, _ = await records.add(connection, name, ["lis.write"], Channel.HIS, new_id(), NOW)
        headers.append(f"Bearer {tokens.issue(partner, partner.scopes)}")
    for _ in range(3):
        await partners.of_header(headers[0])
    with pytest.raises(Exception, match="too_many_requests"):
        await partners.of_header(headers[0])
    await partners.of_header(headers[1])
    clock.now += 0.5
    await partners.of_header(headers[0])
    with pytest.raises(Exception, match="too_many_requests"):
        await partners.of_header(headers[0])


async def test_secrets_are_rotated_with_an_overlap_and_kept_as_hashes(connection: asyncpg.Connection) -> None:
    partner, first = await records.add(connection, "lab", ["lis.write"], Channel.HIS, new_id(), NOW)

    async def good(secret: str, after: timedelta = timedelta(0)) -> bool:
        return await records.by_secret(connection, partner.id, secret, NOW + after) is not None

    second = await records.rotate(connection, "lab", NOW, timedelta(days=7))
    assert await good(first) and await good(second)
    assert not await good(first, timedelta(days=7)) and await good(second, timedelta(days=700))
    third = await records.rotate(connection, "lab", NOW, timedelta(0))
    assert [await good(one) for one in (first, second, third)] == [False, False, True], "it was stolen"
    other, theirs = await records.add(connection, "lab-2", ["lis.write"], Channel.HIS, new_id(), NOW)
    assert await records.by_secret(connection, partner.id, theirs, NOW) is None, "with its own id alone"
    kept = str([dict(row) for row in await connection.fetch("select * from partner_secret, partner")])
    assert not any(one in kept for one in (first, second, third, theirs))
    assert len({first, second, third, theirs}) == 4 and len(third) > 40
    with pytest.raises(records.NoSuchPartner):
        await records.rotate(connection, "nobody", NOW)


async def test_what_can_be_no_partner(connection: asyncpg.Connection) -> None:
    async def made(name: str, scopes: list[str], channel: Channel = Channel.HIS) -> Partner:
        return (await records.add(connection, name, scopes, channel, new_id(), NOW))[0]

    await made("lab", ["lis.write"])
    for name, scopes, channel in (
        ("lab", ["lis.write"], Channel.HIS),
        ("L", ["lis.write"], Channel.HIS),
        ("检验", ["lis.write"], Channel.HIS),
        ("lab-2", [], Channel.HIS),
        ("lab-2", ["everything"], Channel.HIS),
        ("lab-2", ["lis.write"], Channel.HIS | Channel.PHONE),
    ):
        with pytest.raises(records.PartnerWrong):
            await made(name, scopes, channel)
    assert [one.name for one in await records.partners(connection)] == ["lab"]
    ends = (await records.add(connection, "a-year", list(ALL), Channel.REFERRAL, new_id(), NOW, NOW))[0]
    assert not ends.is_live(NOW) and ends.is_live(NOW - timedelta(1))


async def test_the_command_line(original: str) -> None:
    async with copied(original) as database:
        connection = await asyncpg.connect(database)
        await connection.execute("insert into hospital (name, timezone) values ('h', 'Asia/Shanghai')")

        async def run(*words: str, exit_code: int = 0) -> str:
            arguments = ["partner", *words, "--database-url", database]
            result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
            assert result.exit_code == exit_code, result.output
            return result.output

        told = await run("add", "city", "--may", "fhir.read, fhir.book", "--channel", "referral")
        found = re.search(r"client_id +(\S+)\nclient_secret (xls_\S+)", told)
        assert found is not None
        partner_id, secret = UUID(found[1]).bytes, found[2]
        assert await records.by_secret(connection, partner_id, secret, datetime.now(UTC)) is not None
        assert "already" in await run("add", "city", "--may", "fhir.read", exit_code=1)
        assert "no scopes" in await run("add", "town", "--may", "fhir.all", exit_code=1)
        assert "is over" in await run(
            "add", "town", "--may", "fhir.read", "--until", "2020-01-01", exit_code=1
        )
        listed = await run("list")
        assert "city" in listed and "fhir.book fhir.read" in listed and secret not in listed
        rotated = (await run("rotate", "city", "--overlap-days", "0")).split()[-1]
        assert await records.by_secret(connection, partner_id, secret, datetime.now(UTC)) is None
        assert await records.by_secret(connection, partner_id, rotated, datetime.now(UTC)) is not None
        assert "emr.read" in await run("allow", "city", "--may", "emr.read")
        await run("disable", "city")
        assert "disabled" in await run("list")
        assert "no partner called" in await run("disable", "nobody", exit_code=1)
        actions = await connection.fetch("select action, object_id from audit_entry order by id")
        assert [row["action"] for row in actions] == [
            "partner_added", "partner_rotated", "partner_allowed", "partner_disabled",
        ]  # fmt: skip
        assert {row["object_id"] for row in actions} == {"city"}
        await connection.close()


async def test_who_is_forgotten_is_seen_by_no_partner(face: Face) -> None:
    patient = await face.patient()
    async with face.pool.acquire() as connection:
        for statement in _FORGET_PATIENT:
            await connection.execute(statement, UUID(patient))
    assert (await face.ask("GET", f"Patient/{patient}")).status == 404
