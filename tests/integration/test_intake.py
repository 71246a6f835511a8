"""The intake against a real database: each message once, what is wrong aside, nothing behind it stopped."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from engine import embedded_postgres
from engine.domain.intake import Finding, Unclaimed, Unfit
from engine.records import intake as records
from engine.records.patient_numbers import link, number_index
from engine.vault.columns import INTAKE_KEY
from engine.vault.vault import DataKey
from integrations.connector import Refused, TryAgain
from tests.support.copies import copied, migrated
from tests.support.intake import Waiting, intake_over
from tests.support.people import add_person
from web.intake.figures import IntakeFigures
from web.intake.intake import Intake, Outcome

HEARD = "lis.report"
NAME = "欧阳若兰"


@pytest.fixture(scope="module")
def original(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def waiting(original: str) -> AsyncIterator[Waiting]:
    async with copied(original) as url, intake_over(url) as found:
        yield found


class Receiver:
    """What an interface does with its messages: notes them, or says why not."""

    def __init__(self) -> None:
        self.used: list[Mapping[str, Any]] = []
        self.trouble: Exception | None = None

    async def __call__(self, body: Mapping[str, Any]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.used.append(body)


ANY = "test.any"
"""Without a section in the rules: everything is as it should be."""


async def test_a_message_is_used_once(waiting: Waiting) -> None:
    use = Receiver()
    first = await waiting.intake.take(ANY, "HIS/1", {"a": 1}, use, b"raw")
    again = await waiting.intake.take(ANY, "HIS/1", {"a": 1}, use, b"raw")
    assert (first.outcome, again.outcome) == (Outcome.ACCEPTED, Outcome.DUPLICATE)
    assert use.used == [{"a": 1}]
    assert await waiting.one("select body is null and data_key is null from intake_message")
    assert waiting.counted(ANY, "duplicate") == 1


async def test_twenty_at_once_are_one(waiting: Waiting) -> None:
    use = Receiver()
    taken = await asyncio.gather(*(waiting.intake.take(ANY, "HIS/1", {"a": 1}, use) for _ in range(20)))
    assert sorted(one.outcome for one in taken) == ["accepted", *["duplicate"] * 19]
    assert len(use.used) == 1


async def test_the_same_id_with_another_content_is_no_duplicate(waiting: Waiting) -> None:
    use = Receiver()
    await waiting.intake.take(ANY, "HIS/1", {"a": 1}, use)
    other = await waiting.intake.take(ANY, "HIS/1", {"a": 2}, use)
    assert [one.rule for one in other.reasons] == ["same_id_other_content"]
    assert use.used == [{"a": 1}]
    assert (await waiting.intake.take(ANY, "HIS/1", {"a": 1}, use)).outcome is Outcome.DUPLICATE


async def test_what_breaks_a_rule_is_kept_sealed_and_its_reasons_say_nothing(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    use = Receiver()
    body = {"number": "N1", "status": "weird", "patient": {"name": NAME}}
    with caplog.at_level(logging.DEBUG):
        taken = await waiting.intake.take(HEARD, "LIS/7", body, use, NAME.encode("gb18030"))
    assert taken.outcome is Outcome.QUARANTINED and not use.used
    assert Finding("title", "missing") in taken.reasons
    row = await waiting.pool.fetchrow("select * from intake_message")
    for spelled in (NAME.encode(), NAME.encode("gb18030"), b"LIS/7"):
        assert spelled not in repr(dict(row)).encode() and spelled not in row["body"]
    assert NAME not in caplog.text and "LIS/7" not in caplog.text
    kept = await records.contents(waiting.pool, waiting.vault, taken.id or b"")
    assert kept is not None
    assert (kept.message_id, kept.body, kept.raw) == ("LIS/7", body, NAME.encode("gb18030"))
    # Sealed for this row: nowhere else does it open.
    other = DataKey(INTAKE_KEY.field, bytes(16), row["data_key"])
    with pytest.raises(Exception, match="does not hold"):
        waiting.vault.open(other, records.BODY, bytes(16), row["body"])
    figures = IntakeFigures(waiting.registry)
    await figures.look(waiting.pool)
    assert waiting.registry.get_sample_value("xinglin_intake_quarantined", {"interface": HEARD}) == 1
    assert waiting.registry.get_sample_value(
        "xinglin_intake_findings_total", {"interface": HEARD, "rule": "missing"}
    )


async def test_a_mended_rule_lets_it_in(waiting: Waiting) -> None:
    use = Receiver()
    waiting.intake.receives("lis.report", use)
    body = {"number": "N1"}
    taken = await waiting.intake.take("lis.report", "LIS/7", body, use)
    assert not taken.is_good
    off = "".join(
        f"    {path}: off\n"
        for path in ("source", "status", "title", "changed_at", "issued_at", "patient", "patient.numbers")
    )
    await records.store_rules(waiting.pool, "lis.report:\n  fields:\n" + off, "u", waiting.now())
    assert await waiting.intake.retry_waiting() == 0  # nobody has asked
    assert await records.ask_retry(waiting.pool, waiting.now(), interface="lis.report") == 1
    assert await waiting.intake.retry_waiting() == 1
    assert use.used == [body]
    assert (await waiting.intake.take("lis.report", "LIS/7", body, use)).outcome is Outcome.DUPLICATE


async def test_what_the_receiver_refuses_waits_and_goes_in_when_the_data_is_mended(waiting: Waiting) -> None:
    use = Receiver()
    waiting.intake.receives(ANY, use)
    use.trouble = Unfit("department", "unknown_code", "a department that is mapped")
    taken = await waiting.intake.take(ANY, "HIS/1", {"department": "X9"}, use)
    assert taken.reasons == (Finding("department", "unknown_code", "a department that is mapped"),)
    await records.ask_retry(waiting.pool, waiting.now(), id_=taken.id)
    await waiting.intake.retry_waiting()
    assert await waiting.one("select times from intake_message") == 2  # still not
    use.trouble = None
    await records.ask_retry(waiting.pool, waiting.now(), id_=taken.id)
    await waiting.intake.retry_waiting()
    assert use.used == [{"department": "X9"}]
    assert await waiting.one("select state from intake_message") == "accepted"


async def test_a_corrected_resend_with_the_same_id_goes_in(waiting: Waiting) -> None:
    use = Receiver()
    use.trouble = Refused("slot_full")
    first = await waiting.intake.take(ANY, "HIS/1", {"at": "08:00"}, use)
    assert first.reasons == (Finding("", "refused", "slot_full"),)
    use.trouble = None
    assert (await waiting.intake.take(ANY, "HIS/1", {"at": "08:30"}, use)).outcome is Outcome.ACCEPTED
    assert use.used == [{"at": "08:30"}]
    assert await waiting.one("select count(*) from intake_message") == 1


async def test_one_that_makes_us_fail_does_not_stop_the_next(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    use = Receiver()
    use.trouble = KeyError(NAME)
    taken = await waiting.intake.take(ANY, "HIS/1", {"name": NAME}, use)
    assert taken.reasons == (Finding("", "failed", "KeyError"),)
    assert NAME not in caplog.text and "test_intake.py" in caplog.text
    use.trouble = None
    assert (await waiting.intake.take(ANY, "HIS/2", {"name": NAME}, use)).is_good


async def test_what_is_worth_another_try_is_not_noted(waiting: Waiting) -> None:
    use = Receiver()
    use.trouble = TryAgain("away")
    with pytest.raises(TryAgain):
        await waiting.intake.take(ANY, "HIS/1", {}, use)
    assert await waiting.one("select count(*) from intake_message") == 0
    use.trouble = None
    assert (await waiting.intake.take(ANY, "HIS/1", {}, use)).outcome is Outcome.ACCEPTED


async def test_a_retry_that_meets_an_outage_is_tried_again_by_itself(waiting: Waiting) -> None:
    use = Receiver()
    waiting.intake.receives(ANY, use)
    use.trouble = Unfit("a", "unknown_code")
    taken = await waiting.intake.take(ANY, "HIS/1", {}, use)
    use.trouble = TryAgain("away")
    await records.ask_retry(waiting.pool, waiting.now(), id_=taken.id)
    assert await waiting.intake.retry_waiting() == 1
    assert await waiting.intake.retry_waiting() == 0  # it is somebody's for a while
    use.trouble = None
    waiting.later(seconds=records.LEASE_SECONDS + 1)
    assert await waiting.intake.retry_waiting() == 1
    assert len(use.used) == 1


async def test_later_ones_of_a_thing_wait_behind_it_in_order(waiting: Waiting) -> None:
    use = Receiver()
    waiting.intake.receives(ANY, use)

    async def take(n: int, of: str = "R1") -> Outcome:
        waiting.later(seconds=1)
        return (await waiting.intake.take(ANY, f"HIS/{of}/{n}", {"n": n}, use, aggregate=of)).outcome

    use.trouble = Unfit("department", "unknown_code")
    first = await waiting.intake.take(ANY, "HIS/R1/1", {"n": 1}, use, aggregate="R1")
    use.trouble = None
    assert await take(2) is Outcome.QUARANTINED
    assert await take(3) is Outcome.QUARANTINED
    assert await take(9, "R2") is Outcome.ACCEPTED  # others go on
    waiting.later(seconds=1)
    await records.ask_retry(waiting.pool, waiting.now(), id_=first.id)
    assert await waiting.intake.retry_waiting() == 3
    assert [one["n"] for one in use.used] == [9, 1, 2, 3]


async def test_dropping_one_lets_those_behind_go_on(waiting: Waiting) -> None:
    use = Receiver()
    waiting.intake.receives(ANY, use)
    use.trouble = Unfit("department", "unknown_code")
    first = await waiting.intake.take(ANY, "HIS/1", {"n": 1}, use, aggregate="R1")
    use.trouble = None
    waiting.later(seconds=1)
    await waiting.intake.take(ANY, "HIS/2", {"n": 2}, use, aggregate="R1")
    assert await records.drop(waiting.pool, first.id or b"", "u", "测试数据", waiting.now()) == ANY
    await waiting.intake.retry_waiting()
    assert use.used == [{"n": 2}]
    assert await waiting.one("select body is null from intake_message where state = 'dropped'")
    assert (
        await waiting.intake.take(ANY, "HIS/1", {"n": 1}, use, aggregate="R1")
    ).outcome is Outcome.DUPLICATE


async def test_what_is_about_nobody_waits_for_its_patient_without_alarm(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    use = Receiver()
    waiting.intake.receives(ANY, use)
    key = number_index(waiting.vault, "his", "0815")
    use.trouble = Unclaimed([key])
    with caplog.at_level(logging.INFO):
        taken = await waiting.intake.take(ANY, "HIS/1", {"patient": "0815"}, use)
    assert taken.outcome is Outcome.UNCLAIMED and taken.is_good and not caplog.records
    use.trouble = None
    assert await waiting.intake.retry_waiting() == 0
    person = b"\x07" * 16
    await add_person(waiting.pool, waiting.vault, person)
    assert await waiting.intake.retry_waiting() == 0  # somebody else
    assert await link(waiting.pool, waiting.vault, person, "his", "0815", "his.person", waiting.now())
    waiting.later(seconds=5)
    assert await waiting.intake.retry_waiting() == 1
    assert use.used == [{"patient": "0815"}]


async def test_a_patient_who_came_in_that_very_moment_is_found(waiting: Waiting) -> None:
    """The trigger ran before there was a message that it could have woken."""
    use = Receiver()
    waiting.intake.receives(ANY, use)
    await add_person(waiting.pool, waiting.vault, b"\x07" * 16)
    await link(waiting.pool, waiting.vault, b"\x07" * 16, "his", "0815", "his.person", waiting.now())
    use.trouble = Unclaimed([number_index(waiting.vault, "his", "0815")])
    await waiting.intake.take(ANY, "HIS/1", {}, use)
    use.trouble = None
    waiting.later(minutes=2)
    assert await waiting.intake.retry_waiting() == 1
    assert len(use.used) == 1


async def test_what_cannot_be_read_is_kept_once_and_is_not_retried_as_it_is(waiting: Waiting) -> None:
    use = Receiver()
    waiting.intake.receives(ANY, use)
    broken = Finding("MSH-9", "missing")
    first = await waiting.intake.set_aside(ANY, "", b"MSH|garbage", [broken])
    await waiting.intake.set_aside(ANY, "", b"MSH|garbage", [broken])
    await waiting.intake.set_aside(ANY, "", b"MSH|other garbage", [broken])
    assert await waiting.one("select array_agg(times order by times) from intake_message") == [1, 2]
    await records.ask_retry(waiting.pool, waiting.now(), id_=first.id)
    await waiting.intake.retry_waiting()
    assert not use.used
    assert await waiting.one("select count(*) from intake_message where retry_at is not null") == 0


async def test_two_processes_do_not_try_the_same(waiting: Waiting) -> None:
    use = Receiver()
    other = Intake(waiting.pool, waiting.vault, None, waiting.now)
    for one in (waiting.intake, other):
        one.receives(ANY, use)
    use.trouble = Unfit("a", "unknown_code")
    for n in range(20):
        await waiting.intake.take(ANY, f"HIS/{n}", {"n": n}, use)
    use.trouble = None
    await records.ask_retry(waiting.pool, waiting.now())
    tried = await asyncio.gather(waiting.intake.retry_waiting(), other.retry_waiting())
    assert sum(tried) == 20
    assert sorted(one["n"] for one in use.used) == list(range(20))


async def test_old_ids_and_what_nobody_came_for_are_forgotten(waiting: Waiting) -> None:
    use = Receiver()
    await waiting.intake.take(ANY, "HIS/1", {}, use)
    use.trouble = Unclaimed([b"k"])
    await waiting.intake.take(ANY, "HIS/2", {}, use)
    use.trouble = Unfit("a", "unknown_code")
    await waiting.intake.take(ANY, "HIS/3", {}, use)
    waiting.later(days=records.UNCLAIMED_DAYS + 1)
    await records.forget_old(waiting.pool, waiting.now())
    rows = await waiting.pool.fetch("select state from intake_message")
    assert [row["state"] for row in rows] == ["quarantined"]
