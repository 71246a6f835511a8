"""候补 through a running server: who waits, who is offered what, and how a wish ends."""

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import pytest

from benchmarks.check import database_url
from engine.journal.codec import unpack_event
from engine.records import wishes as records
from engine.records.catalog import publish_schedules
from engine.records.wishes import NewWish, Wanted
from tests.integration.test_api import ZONE, Answer, Hospital, Json, Person, until
from tests.support.system import System, run, started, xinglin

T = TypeVar("T")
OFFER_SECONDS = 30  # in the department of those who let an offer lapse
OFFERED_SECONDS_MAX = 2.0
SECONDS_MAX = 15.0
SLOW, SHORT = "0304", "0303"
POLICY = f"""\
conduct:
  - preset: three_in_three_months
suspension: {{order: [waitlisted, refunded]}}
departments:
  "{SLOW}":
    waitlist: {{offer: {OFFER_SECONDS}s}}
  "{SHORT}":
    waitlist: {{length_max: 1}}
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with started() as system:
        file = tmp_path_factory.mktemp("policy") / "policy.yaml"
        file.write_text(POLICY)
        applied = run("policy", "apply", str(file), "--home", str(system.home), "--who", "test")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        yield system


@pytest.fixture(scope="module")
def hospital(system: System) -> Hospital:
    return Hospital(system)


# Who waits.


@dataclass(slots=True)
class Full:
    """A slot that nobody can book: somebody has each of its seats."""

    hospital: Hospital
    day: Json
    slot: Json
    owners: list[tuple[Person, str]]

    @property
    def schedule_id(self) -> str:
        found: str = self.day["id"]
        return found

    def wish(self, **changes: object) -> Json:
        """For just this slot."""
        start = datetime.fromisoformat(self.slot["start"])
        return {
            "department": self.day["department"],
            "practitioners": [self.day["practitioner_id"]],
            "from": self.day["date"],
            "to": self.day["date"],
            "not_before": f"{start:%H:%M}",
            "not_after": f"{start:%H:%M}",
            **changes,
        }

    def give_back(self, seats: int = 1) -> None:
        for _ in range(seats):
            person, appointment_id = self.owners.pop()
            person.change(appointment_id, "cancel").good()


def full_slot(hospital: Hospital, department: str | None = None) -> Full:
    """The first slot, at eight, of a day that nobody else of these tests is at."""

    def suits(day: Json) -> bool:
        first = day["sessions"][0]
        place = hospital.departments[first["department_id"]]
        return (
            (place["sex"], place["age_min"], place["age_max"]) == (None, None, None)
            and "T08:00" in first["start"]
            and all(session["period"] != "night" for session in day["sessions"])
            and (place["id"] == department if department else place["id"] not in (SLOW, SHORT))
        )

    day = next(hospital.free_days(suits))
    return fill(hospital, day, day["slots"][0])


def fill(hospital: Hospital, day: Json, slot: Json) -> Full:
    owners = []
    for _ in range(slot["remaining"]):
        person = hospital.person()
        held = person.hold(slot["id"]).good(201)
        person.change(held["id"], "confirm").good()
        owners.append((person, held["id"]))

    def is_seen() -> bool:
        return not next(s for s in hospital.slots(day["id"]) if s["id"] == slot["id"])["remaining"]

    until(is_seen, SECONDS_MAX, "everybody sees that it is full")
    return Full(hospital, day, slot, owners)


def join(person: Person, wish: Json, key: str | None = None, patients: list[str] | None = None) -> Answer:
    body = {"patient_ids": patients or [person.patient_id], **wish}
    return person.hospital.post("/api/v1/waitlist", person.token, body, key or str(uuid4()))


def read(person: Person, wish_id: str) -> Json:
    found: Json = person.hospital.get(f"/api/v1/waitlist/{wish_id}", person.token).good()
    return found


def withdraw(person: Person, wish_id: str) -> Json:
    path = f"/api/v1/waitlist/{wish_id}/withdraw"
    found: Json = person.hospital.post(path, person.token, key=str(uuid4())).good()
    return found


def comes_to(person: Person, wish_id: str, status: str, seconds: float = SECONDS_MAX, **members: Any) -> Json:
    found: list[Json] = []

    def came() -> bool:
        found.append(read(person, wish_id))
        return found[-1]["status"] == status and {k: found[-1][k] for k in members} == members

    try:
        until(came, seconds, f"{status} {members}")
    except AssertionError:
        raise AssertionError(f"not {status} {members} but {found[-1]}") from None
    return found[-1]


def events(system: System, schedule_id: str) -> list[tuple[datetime, Any]]:
    """What happened on a day, and when, by the journal."""

    async def load() -> list[tuple[datetime, Any]]:
        connection = await asyncpg.connect(database_url(system.home))
        try:
            rows = await connection.fetch(
                "select type, data, at from event where stream = $1 order by version",
                f"schedule/{schedule_id[:-9]}/{schedule_id[-8:-4]}-{schedule_id[-4:-2]}-{schedule_id[-2:]}",
            )
            return [(row["at"], unpack_event(row["type"], row["data"])) for row in rows]
        finally:
            await connection.close()

    return asyncio.run(load())


def of(person: Person) -> bytes:
    return UUID(person.patient_id).bytes


# Offers.


def test_the_first_in_line_is_offered_what_comes_back_within_two_seconds(
    hospital: Hospital, system: System
) -> None:
    full = full_slot(hospital)
    first, second = hospital.person(), hospital.person()
    one = join(first, full.wish()).good(201)
    two = join(second, full.wish()).good(201)
    assert [place["position"] for place in one["places"] + two["places"]] == [1, 2]
    assert (one["status"], one["position"], two["position"]) == ("waiting", 1, 2)
    assert 0 < two["chance"] < one["chance"] < 1
    full.give_back()
    offered = comes_to(first, one["id"], "offered")
    assert read(second, two["id"])["status"] == "waiting"
    (offer,) = offered["offers"]
    assert (offer["slot_id"], offer["status"]) == (full.slot["id"], "pending")
    # Nobody else can have it meanwhile.
    hospital.person().hold(full.slot["id"]).problem(409, "slot_full")
    first.change(offer["appointment_id"], "confirm").good()
    comes_to(first, one["id"], "met", reason="met")
    past = events(system, full.schedule_id)
    released = next(at for at, event in past if type(event).__name__ == "SeatReleased")
    held = next(at for at, e in past if type(e).__name__ == "SeatHeld" and e.patient_id == of(first))
    assert timedelta(0) <= held - released <= timedelta(seconds=OFFERED_SECONDS_MAX)
    assert comes_to(second, two["id"], "waiting", position=1)["places"][0]["length"] == 1
    withdraw(second, two["id"])


def test_what_is_declined_or_lapses_goes_to_the_next(hospital: Hospital) -> None:
    full = full_slot(hospital, SLOW)
    people = [hospital.person() for _ in range(3)]
    wishes = [join(person, full.wish()).good(201)["id"] for person in people]
    full.give_back()
    offer = comes_to(people[0], wishes[0], "offered")["offers"][0]
    people[0].change(offer["appointment_id"], "cancel").good()
    comes_to(people[1], wishes[1], "offered")
    # Who declined this slot waits on: there may be others. Who says nothing does not.
    assert read(people[0], wishes[0])["status"] == "waiting"
    offer = comes_to(people[2], wishes[2], "offered", OFFER_SECONDS + SECONDS_MAX)["offers"][0]
    comes_to(people[1], wishes[1], "ended", reason="lapsed")
    people[2].change(offer["appointment_id"], "confirm").good()
    comes_to(people[2], wishes[2], "met")


def test_a_free_seat_is_offered_at_once(hospital: Hospital) -> None:
    full = full_slot(hospital)
    full.give_back()
    person = hospital.person()
    wish = join(person, full.wish()).good(201)
    comes_to(person, wish["id"], "offered")
    withdraw(person, wish["id"])


def test_a_family_gets_all_its_seats_or_none(hospital: Hospital) -> None:
    full = full_slot(hospital)
    mother, single = hospital.person(), hospital.person()
    child = mother.add(relation="child")["id"]
    family = join(mother, full.wish(), patients=[mother.patient_id, child]).good(201)
    alone = join(single, full.wish()).good(201)
    assert (family["position"], alone["position"]) == (1, 2)
    full.give_back()
    # One seat is of no use to the family, and does not wait for it.
    offer = comes_to(single, alone["id"], "offered")["offers"][0]
    assert read(mother, family["id"])["offers"] == []
    single.change(offer["appointment_id"], "confirm").good()
    full.give_back(2)
    offers = comes_to(mother, family["id"], "offered")["offers"]
    assert {offer["patient_id"] for offer in offers} == {mother.patient_id, child}
    mother.change(offers[0]["appointment_id"], "confirm").good()
    comes_to(mother, family["id"], "met", reason="met")
    until(lambda: no_errands(hospital), SECONDS_MAX, "all errands done")
    # The wish is off the lists, and the other number is the family's to confirm still.
    mother.change(offers[1]["appointment_id"], "confirm").good()
    told = read(mother, family["id"])
    assert [offer["status"] for offer in told["offers"]] == ["booked", "booked"]


def no_errands(hospital: Hospital) -> bool:
    async def count() -> int:
        connection = await asyncpg.connect(database_url(hospital.system.home))
        try:
            return int(await connection.fetchval("select count(*) from errand where kind like '%wish%'"))
        finally:
            await connection.close()

    return asyncio.run(count()) == 0


def test_an_earlier_slot_is_taken_in_exchange(hospital: Hospital) -> None:
    day = full_slot(hospital)
    person = hospital.person()
    later = hospital.slots(day.schedule_id)[-1]
    held = person.hold(later["id"]).good(201)
    person.change(held["id"], "confirm").good()
    wish = day.wish(instead_of=held["id"])
    earlier = join(person, wish).good(201)
    assert (earlier["status"], earlier["instead_of"]) == ("waiting", held["id"])
    day.give_back()
    offer = comes_to(person, earlier["id"], "offered")["offers"][0]
    assert person.read(held["id"]).good()["status"] == "booked"
    person.change(offer["appointment_id"], "confirm").good()
    comes_to(person, earlier["id"], "met")
    assert person.read(held["id"]).good()["status"] == "cancelled"
    assert person.read(offer["appointment_id"]).good()["status"] == "booked"
    # Nothing is earlier than the day's first slot.
    again = day.wish(instead_of=offer["appointment_id"])
    join(person, again).problem(409, "wish_impossible", rule="not_earlier")
    stranger = hospital.person()
    join(stranger, again).problem(404, "no_such_appointment")


# How a wish ends.


def test_a_withdrawn_wish_gives_back_what_it_was_offered(hospital: Hospital) -> None:
    full = full_slot(hospital)
    first, second = hospital.person(), hospital.person()
    one, two = join(first, full.wish()).good(201), join(second, full.wish()).good(201)
    full.give_back()
    offer = comes_to(first, one["id"], "offered")["offers"][0]
    told = withdraw(first, one["id"])
    assert (told["status"], told["reason"]) == ("ended", "withdrawn")
    comes_to(second, two["id"], "offered")
    assert first.read(offer["appointment_id"]).good()["status"] == "cancelled"
    assert withdraw(first, one["id"])["reason"] == "withdrawn"
    withdraw(second, two["id"])


def test_a_wish_that_was_met_elsewhere_ends_by_itself(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    wish = join(person, full.wish(not_before=None, not_after="08:00")).good(201)
    other = next(
        slot
        for slot in hospital.slots(full.schedule_id)
        if slot["remaining"] and slot["id"] != full.slot["id"]
    )
    held = person.hold(other["id"]).good(201)
    person.change(held["id"], "confirm").good()
    comes_to(person, wish["id"], "met", reason="met", places=[])
    until(lambda: no_errands(hospital), SECONDS_MAX, "all errands done")
    next_one = hospital.person()
    one = join(next_one, full.wish()).good(201)
    assert one["places"][0] == {"schedule_id": full.schedule_id, "position": 1, "length": 1}
    full.give_back()
    comes_to(next_one, one["id"], "offered")
    withdraw(next_one, one["id"])


def test_a_wish_ends_when_its_time_is_over(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    end = datetime.now(ZONE) + timedelta(seconds=2)
    wish = join(person, full.wish(until=end.isoformat())).good(201)
    comes_to(person, wish["id"], "ended", reason="closed")
    past = datetime.now(ZONE) - timedelta(seconds=1)
    refused = join(hospital.person(), full.wish(until=past.isoformat()))
    refused.problem(409, "wish_impossible", rule="over")


def test_a_wish_whose_days_are_over_ends(hospital: Hospital, system: System) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    old = wish_of(system, person, full, priority=0)
    yesterday = datetime.now(ZONE).date() - timedelta(1)
    old = replace(old, places={}, wanted=replace(old.wanted, first_day=yesterday, last_day=yesterday))

    async def add(pool: asyncpg.Pool) -> None:
        async with pool.acquire() as connection, connection.transaction():
            assert await records.add_wish(connection, old)

    with_database(system, add)
    comes_to(person, str(UUID(bytes=old.id)), "ended", reason="closed")


def test_who_earns_a_penalty_waits_no_more(hospital: Hospital, system: System) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    wish = join(person, full.wish()).good(201)

    async def punish() -> None:
        connection = await asyncpg.connect(database_url(system.home))
        try:
            await connection.execute(
                "insert into penalty (id, subject_kind, subject, rule, offence, begins, ends, evidence,"
                "                     created_at)"
                " values (gen_random_uuid(), 'patient', $1, 'missed three', 'no_show', now(),"
                "         now() + interval '90 days', array[gen_random_uuid()], now())",
                UUID(person.patient_id),
            )
        finally:
            await connection.close()

    asyncio.run(punish())
    comes_to(person, wish["id"], "ended", reason="penalty")
    refused = join(person, full.wish()).problem(403, "not_eligible", rule="missed three")
    assert refused["until"]


def test_who_may_no_longer_book_for_somebody_waits_no_more_for_him(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    child = person.add(relation="child")["id"]
    wish = join(person, full.wish(), patients=[child]).good(201)
    hospital.call("DELETE", f"/api/v1/patients/{child}", person.token).good()
    comes_to(person, wish["id"], "ended", reason="delegation_ended")


# What can never be.


def test_a_wish_that_can_never_be_met_says_why(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    today = datetime.now(ZONE).date()
    yesterday = {"from": str(today - timedelta(9)), "to": str(today - timedelta(1))}
    join(person, full.wish(**yesterday)).problem(409, "wish_impossible", rule="over")
    never = full.wish(not_before="03:00", not_after="03:30")
    join(person, never).problem(409, "wish_impossible", rule="not_at_these_times")
    join(person, full.wish(department="nowhere")).problem(404, "no_such_department")
    join(person, full.wish(practitioners=["D9999"])).problem(404, "no_such_practitioner")
    weekday = date.fromisoformat(full.day["date"]).isoweekday()
    others = [d for d in range(3, 10) if (today + timedelta(d)).isoweekday() != weekday]
    idle = [
        today + timedelta(d)
        for d in others
        if not hospital.get(
            f"/api/v1/schedules?practitioner={full.day['practitioner_id']}"
            f"&from={today + timedelta(d)}&to={today + timedelta(d)}"
        ).good()["schedules"]
    ]
    if idle:
        off = full.wish(**{"from": str(idle[0]), "to": str(idle[0])})
        join(person, off).problem(409, "wish_impossible", rule="no_session")
    stranger = hospital.person()
    join(person, full.wish(), patients=[stranger.patient_id]).problem(
        403, "not_eligible", rule="patient_of_another_account"
    )
    owner, _ = full.owners[0]
    join(owner, full.wish()).problem(409, "wish_impossible", rule="booked_each_day")
    grown_up = hospital.resident(date(1980, 1, 1), "male")
    children = next(d for d in hospital.departments.values() if d["age_max"] and d["parent_id"])
    days = {"from": str(today + timedelta(1)), "to": str(today + timedelta(5))}
    join(grown_up, {"department": children["id"], **days}).problem(403, "not_eligible", rule="department_age")
    assert hospital.get("/api/v1/waitlist", person.token).good() == {"wishes": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"from": "2026-12-24", "to": "2026-12-23"},
        {"from": "2026-12-01", "to": "2027-01-01"},
        {"not_before": "12:00", "not_after": "11:59"},
        {"not_before": "24:00"},
        {"priority": 1},
        {"patient_ids": []},
    ],
)
def test_bad_wishes_are_refused_by_field(hospital: Hospital, changes: Json) -> None:
    person = hospital.person()
    days = {"from": "2026-12-01", "to": "2026-12-02"}
    body = {"patient_ids": [person.patient_id], "department": SLOW, **days, **changes}
    hospital.post("/api/v1/waitlist", person.token, body, str(uuid4())).problem(422, "invalid_body")


def test_an_account_has_a_bounded_number_of_open_wishes(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    wishes = [join(person, full.wish()).good(201)["id"] for _ in range(5)]
    refused = join(person, full.wish()).problem(403, "not_eligible", rule="wishes_max", limit=5)
    assert "5" in refused["detail"]
    withdraw(person, wishes[0])
    wishes[0] = join(person, full.wish()).good(201)["id"]
    for wish_id in wishes:
        withdraw(person, wish_id)


def test_a_wish_that_is_too_wide_is_refused(hospital: Hospital) -> None:
    today = datetime.now(ZONE).date()
    days = {"from": str(today + timedelta(1)), "to": str(today + timedelta(13))}
    refused = join(hospital.person(), {"department": "03", **days}).problem(422, "wish_too_wide", limit=60)
    assert refused["found"] > 60


def test_a_retry_finds_the_same_wish_and_another_body_is_refused(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    first = join(person, full.wish(), "again").good(201)
    assert join(person, full.wish(), "again").good(201)["id"] == first["id"]
    join(person, full.wish(title="chief"), "again").problem(422, "key_reused")
    listed = hospital.get("/api/v1/waitlist", person.token).good()["wishes"]
    assert [wish["id"] for wish in listed] == [first["id"]]
    stranger = hospital.person()
    hospital.get(f"/api/v1/waitlist/{first['id']}", stranger.token).problem(404, "no_such_wish")
    path = f"/api/v1/waitlist/{first['id']}/withdraw"
    hospital.post(path, stranger.token, key="x").problem(404, "no_such_wish")
    withdraw(person, first["id"])


def test_the_same_request_sent_many_times_at_once_is_one_wish(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person = hospital.person()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: join(person, full.wish(), "at-once"), range(8)))
    assert len({answer.good(201)["id"] for answer in answers}) == 1
    told = comes_to(person, answers[0].body["id"], "waiting", position=1)
    assert [place["length"] for place in told["places"]] == [1]
    withdraw(person, told["id"])


def test_a_crowd_waits_in_its_order(hospital: Hospital, system: System) -> None:
    full = full_slot(hospital)
    seats = len(full.owners)
    people = [hospital.person() for _ in range(seats + 3)]
    wishes = [join(person, full.wish()).good(201)["id"] for person in people]
    with ThreadPoolExecutor(seats) as pool:
        list(pool.map(lambda owner: owner[0].change(owner[1], "cancel").good(), full.owners))
    for person, wish in zip(people[:seats], wishes[:seats], strict=True):
        comes_to(person, wish, "offered")
    assert [read(p, w)["status"] for p, w in zip(people[seats:], wishes[seats:], strict=True)] == [
        "waiting"
    ] * 3
    # Each seat was offered within the time, counted from when it came back, by the journal.
    past = events(system, full.schedule_id)
    released = [at for at, event in past if type(event).__name__ == "SeatReleased"]
    held = [at for at, event in past if type(event).__name__ == "SeatHeld" and event.wish_id]
    assert len(released) == len(held) == seats
    late = max(after - before for before, after in zip(released, held, strict=True))
    assert late <= timedelta(seconds=OFFERED_SECONDS_MAX)
    for person, wish in reversed(list(zip(people, wishes, strict=True))):
        withdraw(person, wish)


def test_a_wish_for_several_doctors_waits_at_each_and_is_offered_once(hospital: Hospital) -> None:
    one = full_slot(hospital)
    mates = [
        day
        for day in hospital.schedules
        if day["date"] == one.day["date"]
        and day["practitioner_id"] != one.day["practitioner_id"]
        and day["sessions"][0]["department_id"] == one.day["department"]
    ]
    if not mates:
        pytest.skip("nobody else has a clinic there on that day")
    other_day = {**random.choice(mates), "department": one.day["department"]}
    slots = hospital.slots(other_day["id"])
    two = fill(hospital, other_day, slots[0])
    person = hospital.person()
    doctors = [one.day["practitioner_id"], other_day["practitioner_id"]]
    clocks = sorted(datetime.fromisoformat(x.slot["start"]).strftime("%H:%M") for x in (one, two))
    wish = join(person, one.wish(practitioners=doctors, not_before=clocks[0], not_after=clocks[0])).good(201)
    where = {place["schedule_id"] for place in wish["places"]}
    one.give_back()
    two.give_back()
    told = comes_to(person, wish["id"], "offered")
    assert len(told["offers"]) == 1
    assert where <= {one.schedule_id, two.schedule_id}
    withdraw(person, wish["id"])


# What only the hospital brings about.


def with_database(system: System, work: Callable[[asyncpg.Pool], Awaitable[T]]) -> T:
    async def done() -> T:
        async with asyncpg.create_pool(database_url(system.home), min_size=1, max_size=2) as pool:
            return await work(pool)

    return asyncio.run(done())


def account_of(system: System, person: Person) -> bytes:
    async def found(pool: asyncpg.Pool) -> bytes:
        account: UUID = await pool.fetchval(
            "select account_id from account_patient where patient_id = $1", UUID(person.patient_id)
        )
        return UUID(str(account)).bytes

    return with_database(system, found)


def wish_of(system: System, person: Person, full: Full, priority: int) -> NewWish:
    day = date.fromisoformat(full.day["date"])
    wanted = Wanted(full.day["department"], day, day, (full.day["practitioner_id"],))
    places = {full.schedule_id: [full.slot["id"][-4:]]}
    now = int(time.time() * 1000)
    account, patient = account_of(system, person), UUID(person.patient_id).bytes
    return NewWish(uuid4().bytes, account, (patient,), wanted, places, now + 86_400_000, now, priority)


def test_a_gateway_that_died_after_the_commit_loses_no_wish_and_priority_goes_first(
    hospital: Hospital, system: System
) -> None:
    full = full_slot(hospital)
    early, late = hospital.person(), hospital.person()
    wish = join(early, full.wish()).good(201)
    privileged = wish_of(system, late, full, priority=1)

    async def add(pool: asyncpg.Pool) -> None:
        """All that its maker did before he died."""
        async with pool.acquire() as connection, connection.transaction():
            assert await records.add_wish(connection, privileged)

    with_database(system, add)
    wish_id = str(UUID(bytes=privileged.id))
    assert read(late, wish_id)["position"] == 1
    assert read(early, wish["id"])["position"] == 2
    until(lambda: no_errands(hospital), SECONDS_MAX, "the errand put it on the list")
    full.give_back()
    comes_to(late, wish_id, "offered")
    assert read(early, wish["id"])["status"] == "waiting"
    withdraw(late, wish_id)
    comes_to(early, wish["id"], "offered")
    withdraw(early, wish["id"])


def test_what_every_actor_refuses_is_refused_and_never_waited(hospital: Hospital) -> None:
    full = full_slot(hospital, SHORT)
    first, second = hospital.person(), hospital.person()
    one = join(first, full.wish()).good(201)
    for _ in range(2):  # the same key finds the same answer
        join(second, full.wish(), "full").problem(409, "waitlist_full", limit=1)
    assert hospital.get("/api/v1/waitlist", second.token).good() == {"wishes": []}
    withdraw(first, one["id"])
    until(lambda: no_errands(hospital), SECONDS_MAX, "the list is empty")
    again = join(second, full.wish()).good(201)
    assert again["places"] == [{"schedule_id": full.schedule_id, "position": 1, "length": 1}]
    withdraw(second, again["id"])


def test_a_session_that_is_opened_later_is_offered_to_who_waits_for_such_a_one(hospital: Hospital) -> None:
    full = full_slot(hospital)
    doctor, department = full.day["practitioner_id"], full.day["department"]
    days = {
        day["date"] for day in hospital.get(f"/api/v1/schedules?practitioner={doctor}").good()["schedules"]
    }
    free = next(
        day for n in range(3, 12) if (day := str(datetime.now(ZONE).date() + timedelta(n))) not in days
    )
    person = hospital.person()
    wish = full.wish(**{"from": min(free, full.day["date"]), "to": max(free, full.day["date"])})
    # The clinics that there are in between are full, or at other times.
    wish |= {"not_before": "03:00", "not_after": "03:30"}
    join(person, wish).problem(409, "wish_impossible", rule="not_at_these_times")
    wish |= {"not_before": None, "not_after": "08:00"}
    clinics = f"/api/v1/schedules?practitioner={doctor}&from={wish['from']}&to={wish['to']}"
    for day in hospital.get(clinics).good()["schedules"]:
        for slot in hospital.slots(day["id"]):
            if slot["remaining"] and slot["id"][-4:] <= "0800":
                fill(hospital, day, slot)
    made = join(person, wish).good(201)
    assert made["status"] == "waiting"
    token = hospital.post(
        "/api/v1/sessions",
        body={"grant": "password", "username": "demo-office", "password": "xinglin-demo"},
    ).good(201)["access_token"]
    schedule_id = f"{doctor}-{free.replace('-', '')}"
    body = {
        "revision": 0,
        "note": "加开",
        "period": "morning",
        "starts": "08:00",
        "ends": "09:00",
        "capacity": 1,
        "number_class_id": "expert",
        "department_id": department,
    }
    hospital.post(f"/api/v1/desk/schedules/{schedule_id}/sessions", token, body, str(uuid4())).good()
    offer = comes_to(person, made["id"], "offered")["offers"][0]
    assert offer["slot_id"] == f"{schedule_id}-0800"
    withdraw(person, made["id"])


def test_a_day_that_is_published_later_is_a_place_from_then_on(hospital: Hospital, system: System) -> None:
    full = full_slot(hospital)
    day = date.fromisoformat(full.day["date"])
    while day <= datetime.now(ZONE).date() + timedelta(13):
        day += timedelta(7)
    person = hospital.person()
    wish = full.wish(**{"from": str(day), "to": str(day)})
    made = join(person, wish).good(201)
    assert (made["status"], made["places"], made["position"], made["chance"]) == ("waiting", [], None, 0.0)

    async def publish(pool: asyncpg.Pool) -> None:
        async with pool.acquire() as connection:
            await publish_schedules(connection, datetime.now(ZONE).date(), 21)

    with_database(system, publish)
    offer = comes_to(person, made["id"], "offered")["offers"][0]
    assert offer["slot_id"] == f"{full.day['practitioner_id']}-{day:%Y%m%d}-{full.slot['id'][-4:]}"
    withdraw(person, made["id"])


def test_who_was_booked_in_a_session_that_is_called_off_waits_first_in_line(hospital: Hospital) -> None:
    full = full_slot(hospital)
    person, appointment_id = full.owners[0]
    token = hospital.post(
        "/api/v1/sessions",
        body={"grant": "password", "username": "demo-office", "password": "xinglin-demo"},
    ).good(201)["access_token"]
    path = f"/api/v1/desk/schedules/{full.schedule_id}/suspend"
    hospital.post(path, token, {"revision": 0, "period": "all", "reason": "doctor_ill"}, str(uuid4())).good()
    until(
        lambda: person.read(appointment_id).good()["fate"] in ("waitlisted", "refunded"),
        SECONDS_MAX,
        "looked after",
    )
    told = person.read(appointment_id).good()
    assert told["fate"] == "waitlisted"
    (wish,) = hospital.get("/api/v1/waitlist", person.token).good()["wishes"]
    assert wish["id"] == told["replaced_by"]
    assert wish["practitioners"] == [full.day["practitioner_id"]]

    def places() -> set[str]:
        (wish,) = hospital.get("/api/v1/waitlist", person.token).good()["wishes"]
        return {place["schedule_id"] for place in wish["places"]}

    # The gateway hears of the session's end a moment after the one who asked for it.
    until(lambda: full.schedule_id not in places(), SECONDS_MAX, "the called-off session to be no place")
    for owner, _ in full.owners:
        until(
            lambda owner=owner: hospital.get("/api/v1/waitlist", owner.token).good()["wishes"] != [],  # type: ignore[misc]
            SECONDS_MAX,
            "each of them waits",
        )
        for each in hospital.get("/api/v1/waitlist", owner.token).good()["wishes"]:
            withdraw(owner, each["id"])


# Restarts.


def test_a_restart_keeps_the_queue() -> None:
    with started() as system:
        hospital = Hospital(system)
        full = full_slot(hospital)
        people = [hospital.person() for _ in range(2)]
        wishes = [join(person, full.wish()).good(201)["id"] for person in people]
        system.process.send_signal(signal.SIGTERM)
        assert system.process.wait(60) == 0
        arguments = ["serve", "--demo", "--home", str(system.home), "--port", str(system.port)]
        again = subprocess.Popen(xinglin(arguments), cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
        try:
            until(lambda: is_ready(hospital), 90, "serves again")
            assert [read(p, w)["position"] for p, w in zip(people, wishes, strict=True)] == [1, 2]
            full.give_back()
            offer = comes_to(people[0], wishes[0], "offered")["offers"][0]
            people[0].change(offer["appointment_id"], "cancel").good()
            comes_to(people[1], wishes[1], "offered")
        finally:
            again.send_signal(signal.SIGTERM)
            assert again.wait(60) == 0


def is_ready(hospital: Hospital) -> bool:
    with suppress(OSError):
        return hospital.get("/readyz").status == 200
    time.sleep(0.1)
    return False
