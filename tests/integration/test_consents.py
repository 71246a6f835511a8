"""What people agree to: texts, agreeing, taking back; what a hospital will not do without it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import ANY
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner

from engine.domain.claims import of_department_day, of_time
from engine.domain.consents import ALL, ConsentKind, bits, kinds_of, missing
from engine.domain.eligibility import DepartmentRule, Facts, check
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import consents as records
from engine.records.consents import ConsentText, ConsentVersion, NotSaid
from engine.records.facts import Question, facts
from engine.vault.vault import Vault
from tests.support.privacy import Office, fresh_database, office
from web.cli import main

NEEDED = Policy(consents_required=(ConsentKind.PRIVACY_POLICY, ConsentKind.HEALTH_DATA, ConsentKind.GUARDIAN))
KIND = ConsentKind.PRIVACY_POLICY


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres.url) as url:
        yield url


@pytest.fixture
async def here(shared: str, vault: Vault, tmp_path: Path) -> AsyncIterator[Office]:
    async with office(shared, vault, tmp_path) as here:
        yield here


@pytest.fixture
async def alone(database: str, vault: Vault, tmp_path: Path) -> AsyncIterator[Office]:
    """With a database of the test's own, where it changes what holds for all."""
    async with office(database, vault, tmp_path) as alone:
        yield alone


async def known_to_a_booking(here: Office, account_id: bytes, patient_id: bytes) -> Facts:
    number = b"n" * 16
    (found,) = await facts(
        here.pool,
        [
            Question(
                number,
                patient_id,
                account_id,
                "0304",
                "2026-11-24",
                of_department_day(patient_id, "0304", "2026-11-24", number, None),
                of_time(patient_id, 1, number, None),
            )
        ],
        int(datetime.now(UTC).timestamp() * 1000),
    )
    return found


async def refusal(here: Office, account_id: bytes, patient_id: str, policy: Policy) -> Refusal | None:
    """What a booking is told, by the very predicate that the shards ask."""
    known = await known_to_a_booking(here, account_id, bytes.fromhex(patient_id.replace("-", "")))
    now = datetime.now(UTC)
    return check(known, DepartmentRule(), policy, now.date(), int(now.timestamp() * 1000))


async def test_the_texts_are_there_in_both_languages(here: Office) -> None:
    one = await here.person("o1")
    told = await one.ask("GET", "/api/v1/consents")
    assert told.status == 200
    assert [text["kind"] for text in told["texts"]] == [
        "guardian",
        "health_data",
        "messages",
        "privacy_policy",
    ]
    assert {(text["language"], text["state"], text["is_required"]) for text in told["texts"]} == {
        ("zh", "none", False)
    }
    english = await one.ask("GET", "/api/v1/consents", language="en")
    assert {text["language"] for text in english["texts"]} == {"en"}
    for text in (*told["texts"], *english["texts"]):
        assert text["sha256"] == ConsentText(text["title"], text["text"]).sha256.hex()


async def test_a_hospital_that_asks_for_nothing_refuses_nobody(here: Office) -> None:
    one = await here.person("o1")
    added = await one.add(1)
    assert added.status == 201
    assert await refusal(here, one.id, added["id"], Policy()) is None


async def test_without_consent_nobody_is_added_and_nothing_is_booked(here: Office) -> None:
    here.demand(NEEDED)
    one = await here.person("o1")
    refused = await one.add(1)
    assert (refused.status, refused["code"]) == (403, "consent_needed")
    assert refused["consents"] == ["privacy_policy", "health_data"]
    await agree(one, "privacy_policy")
    assert (await one.add(1))["consents"] == ["health_data"]
    given = await agree(one, "health_data")
    assert {text["kind"]: text["state"] for text in given["texts"]}["health_data"] == "given"
    added = await one.add(1)
    assert added.status == 201
    assert await refusal(here, one.id, added["id"], NEEDED) is None
    # Taken back as easily as given: no more bookings from that moment on, for those who are there already.
    gone = await one.ask("DELETE", "/api/v1/consents/health_data")
    assert gone.status == 200 and gone["stays"] and gone["ends"]
    told = await refusal(here, one.id, added["id"], NEEDED)
    assert told is not None and told.reason is Reason.CONSENT_NEEDED
    assert told.detail == {"consents": "health_data"}
    assert (await one.ask("DELETE", "/api/v1/consents/health_data")).status == 404


async def test_a_guardian_agrees_for_one_child(here: Office) -> None:
    here.demand(NEEDED)
    one = await here.person("o1")
    for kind in ("privacy_policy", "health_data"):
        await agree(one, kind)
    child = await one.add(1, "child", "王小小", "20200506")
    other = await one.add(2, "child", "王小宝", "20210506")
    told = await refusal(here, one.id, child["id"], NEEDED)
    assert told is not None and told.detail == {"consents": "guardian"}
    nobody = await one.ask("POST", "/api/v1/consents", json={"kind": "guardian", "version": "2026.1"})
    assert (nobody.status, nobody["code"]) == (422, "consent_of_whom")
    body = {"kind": "guardian", "version": "2026.1", "patient_id": child["id"]}
    stranger = await here.person("o2")
    assert (await stranger.ask("POST", "/api/v1/consents", json=body))["code"] == "no_such_patient"
    assert (await one.ask("POST", "/api/v1/consents", json=body)).status == 201
    assert await refusal(here, one.id, child["id"], NEEDED) is None
    assert await refusal(here, one.id, other["id"], NEEDED) is not None
    grown = await one.add(3, "spouse", "李四", "19900506")
    assert await refusal(here, one.id, grown["id"], NEEDED) is None


async def test_whoever_registers_at_the_window_is_asked_there(here: Office) -> None:
    """The account that the hospital keeps for them says yes to everything: staff ask in person."""
    desk = await here.person("desk:0011")
    added = await desk.add(1)
    assert await refusal(here, desk.id, added["id"], NEEDED) is None
    assert (
        await known_to_a_booking(here, desk.id, bytes.fromhex(added["id"].replace("-", "")))
    ).consents == ALL


async def test_what_was_said_is_kept_for_ever(here: Office) -> None:
    one = await here.person("o1")
    await agree(one, "messages")
    await agree(one, "messages")  # again changes nothing
    await one.ask("DELETE", "/api/v1/consents/messages")
    await agree(one, "messages", "en")
    async with here.pool.acquire() as connection:
        said = await records.history_of(connection, one.id)
        assert [(x.act, x.language, x.how) for x in said] == [
            ("given", "zh", "app"),
            ("withdrawn", "zh", "app"),
            ("given", "en", "app"),
        ]
        assert said[0].text_sha256 != said[2].text_sha256
        for change in (
            "update consent set act = 'withdrawn'",
            "delete from consent",
            "truncate consent",
        ):
            with pytest.raises(asyncpg.PostgresError, match="only added to"):
                await connection.execute(change)
    entries = await here.pool.fetch(
        "select action from audit_entry where action like 'consent%' and by_id = $1 order by id",
        UUID(bytes=one.id),
    )
    assert [row["action"] for row in entries] == ["consent_given", "consent_withdrawn", "consent_given"]


async def test_a_newer_text_that_asks_anew_ends_what_was_agreed_to(alone: Office) -> None:
    one = await alone.person("o1")
    await agree(one, "privacy_policy")
    now = datetime.now(UTC)
    soon = now + timedelta(days=7)
    async with alone.pool.acquire() as connection:
        assert len(await records.publish(connection, [version("2026.2", now)], "office", now)) == 1
        # Words only: what was agreed to before stays good, and is told as not the newest.
        assert await state(one) == "older"
        assert await bits_of(alone, one.id) == bits(["privacy_policy"])
        await records.publish(connection, [version("2027.1", soon, renew=True)], "office", now)
        assert await bits_of(alone, one.id) == bits(["privacy_policy"])  # not yet
        assert await records.take_effect(connection, soon) == 1
        assert await bits_of(alone, one.id) == 0
        assert [x.counts for x in await records.stands_of(connection, one.id, soon)] == [False]
        assert await records.take_effect(connection, soon) == 0
        # Agreed to anew, it stands again; what was shown must be what is in force.
        with pytest.raises(NotSaid, match="consent_outdated"):
            await records.give(connection, one.id, None, KIND, "2026.2", "zh", soon)
        assert await records.give(connection, one.id, None, KIND, "2027.1", "zh", soon)
        assert await bits_of(alone, one.id) == bits(["privacy_policy"])


async def test_a_text_that_is_there_is_never_another_one(alone: Office) -> None:
    now = datetime.now(UTC)
    async with alone.pool.acquire() as connection:
        await records.publish(connection, [version("2026.2", now)], "office", now)
        assert await records.publish(connection, [version("2026.2", now)], "office", now) == []
        with pytest.raises(NotSaid, match="consent_version_taken"):
            await records.publish(connection, [version("2026.2", now, text="另一份")], "office", now)
        with pytest.raises(NotSaid, match="consent_version_late"):
            await records.publish(connection, [version("2026.3", now - timedelta(days=1))], "office", now)


async def test_a_file_is_published_by_the_command_whole_or_not_at_all(
    alone: Office, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "consents.yaml"

    async def command(text: str) -> tuple[int, str]:
        file.write_text(text)
        arguments = ["consents", "publish", str(file), "--who", "office", "--database-url", database]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        return result.exit_code, result.output

    words = "research:\n  version: r1\n  zh: {title: 研究, text: 同意用于研究}\n"
    assert await command(words + "cookies: {}\n") == (1, ANY)
    assert await alone.pool.fetchval("select count(*) from consent_version where kind = 'research'") == 0
    status, told = await command(words)
    assert status == 0 and told.startswith("research r1 holds from ")
    assert await command(words) == (0, "all of them are published already\n")
    status, told = await command(words.replace("同意用于研究", "另一份"))
    assert status == 1 and "give the text a new version" in told
    entry = await alone.pool.fetchrow(
        "select by_kind, object_id from audit_entry where action = 'consent_published'"
    )
    assert tuple(entry) == ("operator", "research")
    one = await alone.person("o1")
    given = await one.ask("POST", "/api/v1/consents", json={"kind": "research", "version": "r1"})
    assert given.status == 201


async def test_an_old_version_cannot_be_agreed_to(here: Office) -> None:
    one = await here.person("o1")
    refused = await one.ask("POST", "/api/v1/consents", json={"kind": "messages", "version": "2025.9"})
    assert (refused.status, refused["code"], refused["newest"]) == (409, "consent_outdated", "2026.1")
    none = await one.ask("POST", "/api/v1/consents", json={"kind": "research", "version": "1"})
    assert (none.status, none["code"]) == (404, "no_such_consent")


def test_bits_and_kinds_are_one_thing() -> None:
    assert kinds_of(bits(ConsentKind)) == tuple(ConsentKind)
    assert missing(tuple(ConsentKind), ALL, 3) == ()
    assert missing((ConsentKind.GUARDIAN,), 0, 14) == missing((ConsentKind.GUARDIAN,), 0, None) == ()
    assert missing((ConsentKind.GUARDIAN,), 0, 13) == (ConsentKind.GUARDIAN,)


async def test_sql_has_the_bits_that_the_domain_has(alone: Office) -> None:
    one = await alone.person("o1")
    now = datetime.now(UTC)
    async with alone.pool.acquire() as connection:
        await records.publish(
            connection,
            [version("1", now, kind) for kind in (ConsentKind.RESEARCH, ConsentKind.CROSS_BORDER)],
            "x",
            now,
        )
        for kind in (k for k in ConsentKind if k is not ConsentKind.GUARDIAN):
            text = (await records.in_force(connection, now))[kind]
            await records.give(connection, one.id, None, kind, text.version, "zh", now)
            assert kind in kinds_of(await bits_of(alone, one.id))
    assert await bits_of(alone, one.id) == bits(set(ConsentKind) - {ConsentKind.GUARDIAN})


async def agree(one, kind: str, language: str = "zh"):  # type: ignore[no-untyped-def]
    given = await one.ask(
        "POST", "/api/v1/consents", json={"kind": kind, "version": "2026.1", "language": language}
    )
    assert given.status == 201
    return given


async def state(one) -> str:  # type: ignore[no-untyped-def]
    told = await one.ask("GET", "/api/v1/consents")
    found: str = next(text["state"] for text in told["texts"] if text["kind"] == KIND)
    return found


async def bits_of(here: Office, account_id: bytes) -> int:
    found: int = await here.pool.fetchval("select consents from account where id = $1", account_id.hex())
    return found


def version(
    name: str, at: datetime, kind: ConsentKind = KIND, renew: bool = False, text: str = "正文"
) -> ConsentVersion:
    return ConsentVersion(kind, name, at, renew, {"zh": ConsentText("标题", text)})
