"""From offences to penalties, appeals and amnesty, against PostgreSQL and over the wire."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.claims import of_department_day, of_time
from engine.domain.eligibility import Block, Facts
from engine.domain.policy import Channel, ConductRule, Offence, Policy, Subject
from engine.domain.refusal import Reason, Refusal
from engine.domain.schedule import Status
from engine.records.conduct import (
    Appeal,
    ConductRefusal,
    Penalty,
    appeal,
    decide,
    open_appeals,
    penalties_of,
    review,
    review_recent,
)
from engine.records.facts import Question, facts
from engine.records.staff import Role
from engine.vault.vault import Vault
from tests.support.people import VAULT, add_person
from tests.support.stores import HOUR, PostgresWorld, Served, doctor, hold, plan, uid
from web import keys
from web.auth import Staff, Tokens
from web.desk import conduct as desk_conduct  # noqa: F401  (declares its routes)
from web.openapi import api
from web.patient import conduct  # noqa: F401  (declares its routes)

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
ACCOUNT, PATIENT = uid("account"), uid("patient")
STAFF = uid("staff")
NO_SHOWS = ConductRule("three_no_shows", Offence.NO_SHOW, Subject.PATIENT, 3, 90, 180)


def rules(*given: ConductRule) -> Policy:
    return Policy(conduct=given, late_cancel_minutes=60)


@dataclass
class Records:
    """Appointments as the journal would have left them."""

    pool: asyncpg.Pool
    vault: Vault = VAULT
    made: int = 0

    async def people(self, *pairs: tuple[bytes, bytes]) -> None:
        for account, patient in pairs:
            await self.pool.execute(
                "insert into account values ($1, $2, $3) on conflict do nothing",
                UUID(bytes=account),
                account.hex(),
                NOW,
            )
            known = "select exists (select from patient where id = $1)"
            if not await self.pool.fetchval(known, UUID(bytes=patient)):
                await add_person(self.pool, self.vault, patient, name="王小明")
            await self.pool.execute(
                "insert into account_patient (account_id, patient_id, relation, created_at)"
                " values ($1, $2, 'self', $3) on conflict do nothing",
                UUID(bytes=account),
                UUID(bytes=patient),
                NOW,
            )

    async def appointment(
        self,
        starts_at: datetime,
        status: Status,
        reason: str | None = None,
        at: datetime | None = None,
        patient: bytes = PATIENT,
        account: bytes = ACCOUNT,
        **more: Any,
    ) -> bytes:
        """`at`: when it came to be so; an absence is noted the minute after the visit began."""
        self.made += 1
        appointment_id = uid("number", self.made)
        day = starts_at.astimezone(ZoneInfo("Asia/Shanghai"))
        names = "".join(f", {name}" for name in more)
        places = "".join(f", ${n}" for n in range(10, 10 + len(more)))
        await self.pool.execute(
            "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id,"
            f" account_id, status, reason, fee_fen, starts_at, hold_until, created_at, updated_at{names})"
            " values ($1, $2, $3, 0, 1, 1, $4, $5, $6, $7, 0, $8, $9, $9, $9" + places + ")",
            UUID(bytes=appointment_id),
            f"D0001-{day:%Y%m%d}",
            f"slot-{self.made}",
            UUID(bytes=patient),
            UUID(bytes=account),
            int(status),
            reason,
            starts_at,
            at or starts_at + MINUTE,
            *more.values(),
        )
        return appointment_id

    async def no_shows(self, *days_ago: float, **more: Any) -> list[bytes]:
        return [await self.appointment(NOW - ago * DAY, Status.NOSHOW, **more) for ago in days_ago]

    async def penalties(self, account: bytes = ACCOUNT, now: datetime = NOW) -> list[Penalty]:
        async with self.pool.acquire() as connection:
            return await penalties_of(connection, self.vault, account, now)

    async def review(
        self,
        policy: Policy,
        patients: Iterable[bytes] = (PATIENT,),
        accounts: Iterable[bytes] = (ACCOUNT,),
        now: datetime = NOW,
    ) -> list[bytes]:
        async with self.pool.acquire() as connection:
            return await review(connection, policy, list(patients), list(accounts), now)

    async def recent(self, policy: Policy, now: datetime = NOW) -> list[bytes]:
        async with self.pool.acquire() as connection:
            return await review_recent(connection, policy, now)

    async def appeal(
        self,
        penalty: bytes,
        text: str = "当天住院",
        key: str = "k1",
        account: bytes = ACCOUNT,
        now: datetime = NOW,
    ) -> Penalty | ConductRefusal:
        async with self.pool.acquire() as connection:
            return await appeal(connection, self.vault, account, penalty, text, key, now)

    async def decide(
        self,
        policy: Policy,
        penalty: bytes,
        lift: bool,
        key: str = "d1",
        reason: str = "情况属实",
        now: datetime = NOW,
    ) -> Penalty | ConductRefusal:
        async with self.pool.acquire() as connection:
            return await decide(
                connection,
                self.vault,
                policy,
                penalty,
                lift=lift,
                reason=reason,
                staff_id=STAFF,
                username="desk1",
                key=key,
                now=now,
            )


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as pool:
        yield pool


@pytest.fixture
async def records(pool: asyncpg.Pool) -> Records:
    found = Records(pool)
    await found.people((ACCOUNT, PATIENT))
    await pool.execute("update conduct_review set until = $1", NOW - 10 * DAY)
    return found


def ids(penalty: Penalty) -> list[bytes]:
    return [one.appointment_id for one in penalty.evidence]


# What counts.


async def test_three_absences_within_three_months_block_for_half_a_year(records: Records) -> None:
    missed = await records.no_shows(80, 40, 2)
    (new,) = await records.review(rules(NO_SHOWS))
    (penalty,) = await records.penalties()
    assert penalty.id == new
    assert (penalty.subject, penalty.subject_id, penalty.patient_name) == (Subject.PATIENT, PATIENT, "王小明")
    assert (penalty.rule, penalty.offence) == ("three_no_shows", Offence.NO_SHOW)
    assert (penalty.begins, penalty.ends) == (NOW - 2 * DAY, NOW + 178 * DAY)
    assert ids(penalty) == missed
    assert penalty.is_in_force(NOW) and not penalty.is_in_force(penalty.ends)


@pytest.mark.parametrize(("first", "blocked"), [(92.0, False), (91.999, True), (93.0, False)])
async def test_the_window_is_from_visit_to_visit(records: Records, first: float, blocked: bool) -> None:
    await records.no_shows(first, 40, 2)
    assert bool(await records.review(rules(NO_SHOWS))) is blocked


async def test_an_absence_counts_from_the_visit_however_late_it_was_noted(records: Records) -> None:
    for ago in (300, 200, 100):
        await records.appointment(NOW - ago * DAY, Status.NOSHOW, at=NOW - MINUTE)
    assert await records.review(rules(NO_SHOWS)) == []


CANCELLED, LAPSED = (Status.CANCELLED, "cancelled"), (Status.CANCELLED, "expired")
WHAT_COUNTS: list[tuple[Offence, tuple[Status, str | None], int, dict[str, Any], bool]] = [
    # What became of it, how many minutes before the visit, what else is known of it.
    (Offence.CANCEL, CANCELLED, 3000, {}, True),
    (Offence.CANCEL, CANCELLED, 5, {}, True),
    (Offence.CANCEL, LAPSED, 3000, {}, False),
    (Offence.CANCEL, (Status.NOSHOW, None), -1, {}, False),
    (Offence.LATE_CANCEL, CANCELLED, 59, {}, True),
    (Offence.LATE_CANCEL, CANCELLED, 60, {}, False),
    (Offence.LATE_CANCEL, LAPSED, 5, {}, False),
    (Offence.DROPPED_HOLD, LAPSED, 3000, {}, True),
    (Offence.DROPPED_HOLD, CANCELLED, 3000, {}, False),
    (Offence.NO_SHOW, (Status.NOSHOW, None), -1, {}, True),
    (Offence.NO_SHOW, (Status.FULFILLED, None), -1, {}, False),
    (Offence.NO_SHOW, (Status.BOOKED, None), -1, {}, False),
    # What the hospital caused, or somebody else.
    *(
        (offence, (Status.CANCELLED, reason), 5, {}, False)
        for offence in Offence
        for reason in ("suspended", "substitute_declined", "changed", "lost_claim")
    ),
    (Offence.CANCEL, CANCELLED, 3000, {"fate": "refunded"}, False),  # its session had been called off
    (Offence.DROPPED_HOLD, LAPSED, 3000, {"fate": "offered"}, False),
    (Offence.DROPPED_HOLD, LAPSED, 3000, {"wish_id": UUID(int=1)}, False),  # offered, and not taken up
    (Offence.DROPPED_HOLD, LAPSED, 3000, {"replaces": UUID(int=1)}, False),  # a change left unfinished
    (Offence.DROPPED_HOLD, LAPSED, 3000, {"booked_by": "desk1"}, False),  # a clerk held it
]


async def test_what_is_an_offence(records: Records) -> None:
    at = NOW - DAY
    wrong = []
    for n, (offence, (status, reason), minutes, more, counts) in enumerate(WHAT_COUNTS):
        patient = uid("patient", n)
        await records.people((ACCOUNT, patient))
        policy = rules(ConductRule("twice", offence, Subject.PATIENT, 2, 30, 30))
        for _ in range(2):
            await records.appointment(at + minutes * MINUTE, status, reason, at, patient=patient, **more)
        if bool(await records.review(policy, [patient])) is not counts:
            wrong.append(WHAT_COUNTS[n])
    assert wrong == []


async def test_an_account_answers_for_what_it_did_with_all_its_patients(records: Records) -> None:
    rule = ConductRule("hoarding", Offence.DROPPED_HOLD, Subject.ACCOUNT, 3, 1, 7)
    for n in range(3):
        await records.people((ACCOUNT, uid("patient", n)))
        at = NOW - n * timedelta(hours=1)
        await records.appointment(NOW + DAY, Status.CANCELLED, "expired", at, patient=uid("patient", n))
    assert len(await records.review(rules(rule))) == 1
    (penalty,) = await records.penalties()
    assert (penalty.subject, penalty.subject_id, penalty.patient_name) == (Subject.ACCOUNT, ACCOUNT, None)
    assert (penalty.begins, penalty.ends) == (NOW, NOW + 7 * DAY)


async def test_who_is_no_account_is_not_judged_as_one(records: Records) -> None:
    """A clerk at the window books for whole families."""
    rule = ConductRule("hoarding", Offence.CANCEL, Subject.ACCOUNT, 2, 30, 7)
    for _ in range(2):
        await records.appointment(NOW + DAY, Status.CANCELLED, "cancelled", NOW - DAY, account=STAFF)
    assert await records.review(rules(rule), accounts=[STAFF]) == []


# Once and no more.


async def test_offences_that_have_served_do_not_count_again(records: Records) -> None:
    policy = rules(NO_SHOWS)
    await records.no_shows(40, 30, 20)
    assert len(await records.review(policy)) == 1
    assert await records.review(policy) == []
    await records.no_shows(10, 9)
    assert await records.review(policy) == []
    await records.no_shows(1)
    assert len(await records.review(policy)) == 1
    assert len(await records.penalties()) == 2


async def test_an_absence_noted_late_does_not_make_the_earlier_ones_count_twice(records: Records) -> None:
    policy = rules(NO_SHOWS)
    await records.no_shows(40, 30, 20)
    assert len(await records.review(policy)) == 1
    await records.no_shows(35)
    assert await records.review(policy) == []


async def test_a_review_waits_for_the_one_before(records: Records) -> None:
    """Two that see different halves of a history must not count the same absence twice."""
    policy = rules(NO_SHOWS)
    await records.no_shows(40, 30)
    third = await records.appointment(NOW - 20 * DAY, Status.BOOKED)
    async with records.pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await first.execute("update appointment set status = 6 where id = $1", UUID(bytes=third))
        assert len(await review(first, policy, [PATIENT], [], NOW)) == 1
        await records.no_shows(10)
        second = asyncio.create_task(records.review(policy))
        while not second.done() and not await records.pool.fetchval(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database()))"
        ):
            pass
        await transaction.commit()
    assert await second == []
    assert len(await records.penalties()) == 1


async def test_a_block_that_would_be_over_is_not_written(records: Records) -> None:
    await records.no_shows(400, 390, 380)
    assert await records.review(rules(NO_SHOWS)) == []


async def test_one_absence_may_serve_for_two_rules(records: Records) -> None:
    policy = rules(NO_SHOWS, ConductRule("two", Offence.NO_SHOW, Subject.PATIENT, 2, 90, 90))
    await records.no_shows(3, 2, 1)
    assert len(await records.review(policy)) == 2


async def test_two_reviews_at_once_write_one_penalty(records: Records) -> None:
    await records.no_shows(3, 2, 1)
    new = await asyncio.gather(*(records.review(rules(NO_SHOWS)) for _ in range(4)))
    assert sum(map(len, new)) == 1


async def test_the_minutely_review_finds_everybody_since_the_last(records: Records) -> None:
    policy = rules(NO_SHOWS)
    await records.no_shows(60, 50)
    assert await records.recent(policy, NOW) == []
    late = await records.appointment(NOW, Status.NOSHOW, at=NOW - MINUTE)  # committed after that review
    (penalty,) = await records.recent(policy, NOW + MINUTE)
    assert late in ids((await records.penalties())[0])
    assert await records.recent(policy, NOW + 2 * MINUTE) == []
    assert await records.pool.fetchval("select until from conduct_review") == NOW + 2 * MINUTE
    assert await records.recent(policy, NOW) == []  # a clock that is behind does not turn it back
    assert await records.pool.fetchval("select until from conduct_review") == NOW + 2 * MINUTE
    assert [one.id for one in await records.penalties()] == [penalty]


async def test_a_new_rule_punishes_nobody_until_he_offends_again(records: Records) -> None:
    await records.no_shows(5, 4, 3)
    assert await records.recent(rules()) == []
    assert await records.recent(rules(NO_SHOWS), NOW + DAY) == []
    await records.appointment(NOW + DAY, Status.NOSHOW)
    assert len(await records.recent(rules(NO_SHOWS), NOW + DAY + MINUTE)) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 3, 10, 25, 45, 80]),  # days since the one before
        st.sampled_from(["no_show", "cancelled", "late", "expired"]),
        st.integers(0, 1),  # patient
        st.integers(0, 1),  # account
        st.booleans(),  # review after this one
    ),
    max_size=24,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(STEPS)
async def test_in_whatever_parts_it_is_reviewed_the_same_people_are_blocked(
    records: Records, steps: list[tuple[int, str, int, int, bool]]
) -> None:
    policy = rules(
        NO_SHOWS,
        ConductRule("late", Offence.LATE_CANCEL, Subject.PATIENT, 2, 30, 60),
        ConductRule("cancel", Offence.CANCEL, Subject.ACCOUNT, 3, 90, 30),
        ConductRule("hoarding", Offence.DROPPED_HOLD, Subject.ACCOUNT, 2, 10, 5),
        ConductRule("short", Offence.NO_SHOW, Subject.PATIENT, 2, 20, 1),
    )
    await records.pool.execute("truncate appointment, penalty, amnesty cascade")
    people = [(uid("account", a), uid("patient", p)) for a in range(2) for p in range(2)]
    await records.people(*people)
    at = NOW
    await records.pool.execute("update conduct_review set until = $1", at)
    for days, what, p, a, reviewed in steps:
        at += days * DAY
        who = uid("patient", p), uid("account", a)
        match what:
            case "no_show":
                await records.appointment(at, Status.NOSHOW, None, None, *who)
            case "expired":
                await records.appointment(at + DAY, Status.CANCELLED, "expired", at, *who)
            case _:
                ahead = 30 * MINUTE if what == "late" else DAY
                await records.appointment(at + ahead, Status.CANCELLED, "cancelled", at, *who)
        if reviewed:
            await records.recent(policy, at + 2 * MINUTE)
    end = at + 2 * MINUTE
    await records.recent(policy, end)
    in_force = "select id, subject, rule, begins, ends, evidence from penalty where ends > $1 order by id"
    parts = await records.pool.fetch(in_force, end)
    everybody = [uid("patient", p) for p in range(2)], [uid("account", a) for a in range(2)]
    assert await records.review(policy, *everybody, now=end) == []
    # At once, as if nobody had looked before.
    await records.pool.execute("truncate penalty, amnesty")
    await records.review(policy, *everybody, now=end)
    assert await records.pool.fetch(in_force, end) == parts


# Appeals.


async def test_lifting_frees_at_once_and_the_same_offences_never_count_again(records: Records) -> None:
    policy = rules(NO_SHOWS)
    missed = await records.no_shows(30, 20, 10)
    (penalty,) = await records.review(policy)
    appealed = await records.appeal(penalty)
    assert isinstance(appealed, Penalty)
    assert (appealed.appeal, appealed.appeal_text, appealed.appealed_at) == (Appeal.OPEN, "当天住院", NOW)
    assert appealed.is_in_force(NOW)
    async with records.pool.acquire() as connection:
        assert [one.id for one in await open_appeals(connection, records.vault)] == [penalty]
    lifted = await records.decide(policy, penalty, lift=True, now=NOW + MINUTE)
    assert isinstance(lifted, Penalty)
    assert not lifted.is_in_force(NOW + MINUTE)
    assert (lifted.appeal, lifted.decided_by, lifted.decided_at, lifted.decision_reason) == (
        Appeal.LIFTED,
        "desk1",
        NOW + MINUTE,
        "情况属实",
    )
    async with records.pool.acquire() as connection:
        assert await open_appeals(connection, records.vault) == []
    forgiven = await records.pool.fetch("select appointment_id from amnesty order by appointment_id")
    assert [row[0].bytes for row in forgiven] == missed
    await records.no_shows(2, 1)
    assert await records.review(policy) == []
    five = ConductRule("five", Offence.NO_SHOW, Subject.PATIENT, 5, 365, 90)
    assert await records.review(rules(five)) == []  # nor for another rule
    await records.no_shows(0.5)
    assert len(await records.review(policy)) == 1


async def test_upholding_changes_nothing_but_says_who_why_and_when(records: Records) -> None:
    policy = rules(NO_SHOWS)
    await records.no_shows(30, 20, 10)
    (penalty,) = await records.review(policy)
    await records.appeal(penalty)
    upheld = await records.decide(policy, penalty, lift=False, reason="无证明")
    assert isinstance(upheld, Penalty)
    assert upheld.is_in_force(NOW) and upheld.lifted_at is None
    assert (upheld.appeal, upheld.decision_reason) == (Appeal.UPHELD, "无证明")
    assert await records.pool.fetchval("select count(*) from amnesty") == 0
    assert await records.appeal(penalty, key="k2") is ConductRefusal.ALREADY_APPEALED
    assert await records.decide(policy, penalty, lift=True, key="d2") is ConductRefusal.NO_OPEN_APPEAL


async def test_a_penalty_that_counted_the_same_falls_with_it_and_the_rest_is_judged_anew(
    records: Records,
) -> None:
    two = ConductRule("two", Offence.NO_SHOW, Subject.PATIENT, 2, 20, 90)
    policy = rules(NO_SHOWS, two)
    first, second, third, fourth = await records.no_shows(40, 30, 20.5, 5)
    await records.review(policy)
    by_rule = {one.rule: one for one in await records.penalties()}
    assert ids(by_rule["three_no_shows"]) == [first, second, third]
    assert ids(by_rule["two"]) == [first, second]
    await records.appeal(by_rule["two"].id)
    await records.decide(policy, by_rule["two"].id, lift=True)
    standing = [one for one in await records.penalties() if one.is_in_force(NOW)]
    assert [(one.rule, ids(one)) for one in standing] == [("two", [third, fourth])]


async def test_a_retry_finds_its_first_answer_and_another_body_is_refused(records: Records) -> None:
    policy = rules(NO_SHOWS)
    await records.no_shows(30, 20, 10)
    (penalty,) = await records.review(policy)
    first = await records.appeal(penalty)
    assert await records.appeal(penalty) == first
    assert await records.appeal(penalty, text="别的理由") is ConductRefusal.KEY_REUSED
    assert await records.appeal(penalty, key="k2") is ConductRefusal.ALREADY_APPEALED
    done = await records.decide(policy, penalty, lift=True)
    assert await records.decide(policy, penalty, lift=True, now=NOW + DAY) == done
    assert await records.decide(policy, penalty, lift=False) is ConductRefusal.KEY_REUSED
    # A refusal leaves its key free.
    assert await records.pool.fetchval("select count(*) from request_key") == 2


async def test_who_may_appeal_what(records: Records) -> None:
    policy = rules(NO_SHOWS)
    await records.no_shows(30, 20, 10)
    (penalty,) = await records.review(policy)
    stranger, carer = uid("account", 8), uid("account", 9)
    await records.people((stranger, uid("patient", 8)), (carer, PATIENT))
    assert await records.penalties(stranger) == []
    assert await records.appeal(penalty, account=stranger) is ConductRefusal.NO_SUCH_PENALTY
    assert await records.appeal(uid("none")) is ConductRefusal.NO_SUCH_PENALTY
    assert [one.id for one in await records.penalties(carer)] == [penalty]
    await records.pool.execute(
        "update account_patient set expires_at = $1 where account_id = $2", NOW, UUID(bytes=carer)
    )
    assert await records.penalties(carer) == []
    assert await records.appeal(penalty, account=carer) is ConductRefusal.NO_SUCH_PENALTY
    later = NOW + 200 * DAY
    assert await records.appeal(penalty, now=later) is ConductRefusal.PENALTY_OVER
    assert await records.decide(policy, uid("none"), lift=True) is ConductRefusal.NO_SUCH_PENALTY


# What a booking learns of it.


def question(patient: bytes = PATIENT, day: str = "2026-11-24", **more: Any) -> Question:
    number = uid("new")
    return Question(
        number,
        patient,
        ACCOUNT,
        "cardio/x",
        day,
        of_department_day(patient, "cardio/x", day, number, None),
        of_time(patient, 1, number, None),
        **more,
    )


async def known(records: Records, *questions: Question) -> list[Facts]:
    return await facts(records.pool, list(questions), int((await now_of(records)).timestamp() * 1000))


async def now_of(records: Records) -> datetime:
    """Facts are of PostgreSQL's time."""
    now: datetime = await records.pool.fetchval("select date_trunc('milliseconds', now())")
    return now


async def test_the_block_that_ends_last_stops_a_booking(records: Records) -> None:
    now = await now_of(records)
    account_rule = ConductRule("account", Offence.NO_SHOW, Subject.ACCOUNT, 1, 90, 10)
    policy = rules(account_rule, ConductRule("patient", Offence.NO_SHOW, Subject.PATIENT, 1, 90, 20))
    await records.appointment(now - DAY, Status.NOSHOW, at=now - DAY)
    other = uid("patient", 5)
    await records.people((ACCOUNT, other))
    assert [one.block for one in await known(records, question(), question(other))] == [None, None]
    await records.review(policy, now=now)
    mine, another = await known(records, question(), question(other))
    by_rule = {one.rule: one for one in await records.penalties(now=now)}
    ends = int(by_rule["patient"].ends.timestamp() * 1000)
    assert mine.block == Block(by_rule["patient"].id, "patient", Offence.NO_SHOW, ends)
    assert another.block is not None and another.block.rule == "account"
    await records.appeal(by_rule["patient"].id, now=now)
    await records.decide(policy, by_rule["patient"].id, lift=True, now=now)
    assert [one.block for one in await known(records, question(), question(other))] == [None, None]


async def test_numbers_of_one_day_over_all_departments(records: Records) -> None:
    now = await now_of(records)
    local = now.astimezone(ZoneInfo("Asia/Shanghai")) + DAY
    noon = local.replace(hour=12, minute=0)
    for starts, status in (
        (noon, Status.BOOKED),
        (noon.replace(hour=0), Status.FULFILLED),
        (noon.replace(hour=23, minute=30), Status.PENDING),
        (noon, Status.CANCELLED),
        (noon + DAY, Status.BOOKED),
        (noon - DAY, Status.ARRIVED),
    ):
        await records.appointment(starts, status, at=now + DAY)
    await records.appointment(noon, Status.PENDING, at=now - DAY)  # its hold has ended
    (found,) = await known(records, question(day=f"{local:%Y-%m-%d}"))
    assert (found.day_appointments, found.active_appointments) == (3, 3)
    # One that has begun or is over today counts today, and is not ahead.
    other, today = uid("patient", 7), now.astimezone(ZoneInfo("Asia/Shanghai"))
    await records.people((ACCOUNT, other))
    midnight = today.replace(hour=0, minute=0, second=0, microsecond=0)
    await records.appointment(midnight, Status.FULFILLED, patient=other)
    (found,) = await known(records, question(other, day=f"{today:%Y-%m-%d}"))
    assert (found.day_appointments, found.active_appointments) == (1, 0)


async def test_the_last_visit_to_the_department_is_told_to_who_asks(records: Records) -> None:
    now = await now_of(records)
    for ago, status, department in (
        (50, Status.FULFILLED, "cardio/x"),
        (30, Status.FULFILLED, "cardio/x"),
        (20, Status.NOSHOW, "cardio/x"),
        (10, Status.FULFILLED, "cardio"),
    ):
        await records.appointment(now - ago * DAY, status, department_id=department)
    asked, unasked = await known(records, question(), question(wants_last_visit=False))
    assert asked.last_visit_at == int((now - 30 * DAY).timestamp() * 1000)
    assert unasked.last_visit_at is None


async def test_a_booking_is_refused_with_the_rule_the_reason_and_the_end(database: str) -> None:
    world = PostgresWorld(database)
    try:
        await world.publish(doctor(), plan(world.clock() + HOUR, 5))
        others = [(uid("account", n), uid("patient", n)) for n in (1, 2)]
        await world.register([(ACCOUNT, PATIENT), *others])
        pool = await world.pool()
        records = Records(pool)
        now = await now_of(records)
        await records.appointment(now - DAY, Status.NOSHOW)
        (penalty,) = await records.review(
            rules(ConductRule("once", Offence.NO_SHOW, Subject.PATIENT, 1, 30, 3)), now=now
        )
        (account, patient), (second, parent) = others
        await pool.execute(
            "update account_patient set expires_at = $2 where patient_id = $1", UUID(bytes=parent), now - DAY
        )
        served = await Served.open(world)
        blocked, expired, good = await served.ask(
            doctor(),
            hold(uid("a", 1), PATIENT),
            hold(uid("a", 2), parent, account=second),
            hold(uid("a", 3), patient, account=account),
        )
        assert isinstance(blocked, Refusal) and blocked.reason is Reason.NOT_ELIGIBLE
        assert blocked.detail == {
            "rule": "once",
            "offence": "no_show",
            "until": int((now + 2 * DAY).timestamp() * 1000),
            "penalty_id": penalty.hex(),
        }
        assert isinstance(expired, Refusal) and expired.detail["rule"] == "delegation_expired"
        assert not isinstance(good, Refusal)
        await served.stop()
    finally:
        await world.close()


# Over the wire.

Client = TestClient[web.Request, web.Application]
POLICY = rules(NO_SHOWS)


@pytest.fixture
async def client(records: Records) -> AsyncIterator[Client]:
    app = web.Application()
    app[keys.POOL] = records.pool
    app[keys.VAULT] = records.vault
    app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400)
    app[keys.ZONE] = ZoneInfo("Asia/Shanghai")
    app[keys.POLICY] = keys.PolicyInForce(POLICY)
    api.setup(app)
    async with TestClient(TestServer(app)) as client:
        yield client


async def call(
    client: Client, method: str, path: str, token: str, key: str = "", **rest: Any
) -> SimpleNamespace:
    headers = {"Authorization": f"Bearer {token}", **({"Idempotency-Key": key} if key else {})}
    async with client.request(method, path, headers=headers, **rest) as response:
        return SimpleNamespace(**{**await response.json(), "http": response.status})


def tokens_of(client: Client) -> Tokens:
    assert isinstance(client.server, TestServer)
    return client.server.app[keys.TOKENS]


def patient_token(client: Client, account: bytes = ACCOUNT) -> str:
    return tokens_of(client).issue(account).access_token


def staff_token(client: Client, *roles: Role) -> str:
    staff = Staff(STAFF, "desk1", "窗口", frozenset(roles), None, None, Channel.WINDOW)
    return tokens_of(client).issue_staff(staff).access_token


async def penalised(records: Records) -> str:
    """Just now, for handlers take the machine's time."""
    now = datetime.now(UTC)
    for ago in (30, 20, 10):
        await records.appointment(now - ago * DAY, Status.NOSHOW)
    (penalty,) = await records.review(POLICY, now=now)
    return str(UUID(bytes=penalty))


async def test_an_appeal_from_beginning_to_end(client: Client, records: Records) -> None:
    penalty = await penalised(records)
    mine, desk = patient_token(client), staff_token(client, Role.DESK)
    (listed,) = (await call(client, "GET", "/api/v1/penalties", mine)).penalties
    assert (listed["id"], listed["subject"], listed["patient_id"]) == (
        penalty,
        "patient",
        str(UUID(bytes=PATIENT)),
    )
    assert (listed["is_in_force"], listed["appeal_state"], listed["appeal"]) == (True, "none", None)
    assert len(listed["evidence"]) == 3 and listed["evidence"][0]["practitioner_id"] == "D0001"
    assert listed["until"].endswith("+08:00")
    path = f"/api/v1/penalties/{penalty}/appeals"
    appealed = await call(client, "POST", path, mine, "a1", json={"text": "当天急诊住院\n有证明"})
    assert (appealed.http, appealed.appeal_state, appealed.is_in_force) == (201, "open", True)
    again = await call(client, "POST", path, mine, "a1", json={"text": "当天急诊住院\n有证明"})
    assert vars(again) == vars(appealed)
    refused = await call(client, "POST", path, mine, "a2", json={"text": "再来一次"})
    assert (refused.http, refused.code) == (409, "already_appealed")
    (waiting,) = (await call(client, "GET", "/api/v1/desk/appeals", desk)).appeals
    assert waiting["penalty"]["appeal"]["text"] == "当天急诊住院\n有证明"
    path = f"/api/v1/desk/appeals/{penalty}/decision"
    body = {"decision": "lift", "reason": "证明属实"}
    decided = await call(client, "POST", path, desk, "d1", json=body)
    assert (decided.http, decided.decided_by) == (200, "desk1")
    assert decided.penalty["is_in_force"] is False
    assert (await call(client, "GET", "/api/v1/desk/appeals", desk)).appeals == []
    (listed,) = (await call(client, "GET", "/api/v1/penalties", mine)).penalties
    assert (listed["appeal_state"], listed["appeal"]["reason"]) == ("lifted", "证明属实")
    assert "decided_by" not in str(listed)  # the patient learns why, not from whom


async def test_appeals_come_in_pages(client: Client, records: Records) -> None:
    rule = ConductRule("once", Offence.NO_SHOW, Subject.PATIENT, 1, 90, 90)
    now = datetime.now(UTC)
    for n in range(3):
        patient = uid("patient", n + 1)
        await records.people((ACCOUNT, patient))
        await records.appointment(now - DAY, Status.NOSHOW, patient=patient)
        (penalty,) = await records.review(rules(rule), [patient], now=now)
        await records.appeal(penalty, key=f"k{n}", now=now + n * MINUTE)
    desk = staff_token(client, Role.MANAGER)
    first = await call(client, "GET", "/api/v1/desk/appeals?limit=2", desk)
    rest = await call(client, "GET", "/api/v1/desk/appeals", desk, params={"after": first.after})
    assert (len(first.appeals), len(rest.appeals), rest.after) == (2, 1, None)
    seen = [one["penalty"]["patient_id"] for one in first.appeals + rest.appeals]
    assert seen == [str(UUID(bytes=uid("patient", n + 1))) for n in range(3)]


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.PARTNER])
async def test_who_may_not_decide(client: Client, records: Records, role: Role) -> None:
    penalty = await penalised(records)
    token = staff_token(client, role)
    body = {"decision": "lift", "reason": "x"}
    for method, path, rest in (
        ("GET", "/api/v1/desk/appeals", {}),
        ("POST", f"/api/v1/desk/appeals/{penalty}/decision", {"json": body}),
    ):
        answer = await call(client, method, path, token, "k", **rest)
        assert (answer.http, answer.code) == (403, "forbidden")
        answer = await call(client, method, path, patient_token(client), "k", **rest)
        assert (answer.http, answer.code) == (401, "unauthenticated")


async def test_appeals_that_say_nothing(client: Client, records: Records) -> None:
    path = f"/api/v1/penalties/{await penalised(records)}/appeals"
    token = patient_token(client)
    bodies: list[dict[str, object]] = [
        {"text": ""},
        {"text": " \n "},
        {"text": "a\u0000b"},
        {"text": "x" * 1001},
        {"text": 7},
        {},
        {"text": "x", "more": 1},
    ]
    for body in bodies:
        answer = await call(client, "POST", path, token, "k", json=body)
        assert (answer.http, answer.code) == (422, "invalid_body"), body
    whole = await call(client, "POST", path, token, "k", json={"text": "x" * 1000})
    assert whole.http == 201  # the key was not used up


async def test_what_is_not_there(client: Client, records: Records) -> None:
    penalty = await penalised(records)
    stranger = uid("account", 8)
    await records.people((stranger, uid("patient", 8)))
    token = patient_token(client, stranger)
    assert (await call(client, "GET", "/api/v1/penalties", token)).penalties == []
    body = {"text": "x"}
    answer = await call(client, "POST", f"/api/v1/penalties/{penalty}/appeals", token, "k", json=body)
    assert (answer.http, answer.code) == (404, "no_such_penalty")
    desk = staff_token(client, Role.SCHEDULE_OFFICE)
    path = f"/api/v1/desk/appeals/{penalty}/decision"
    answer = await call(client, "POST", path, desk, "k", json={"decision": "lift", "reason": "x"})
    assert (answer.http, answer.code) == (409, "no_open_appeal")
    answer = await call(client, "POST", path, desk, json={"decision": "lift", "reason": "x"})
    assert (answer.http, answer.code) == (400, "missing_idempotency_key")
