"""What is done at the HIS's windows is done here by the same actors: never overbooked, never used twice."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from engine.domain import schedule as s
from engine.records import his_codes
from engine.records.patient_numbers import patient_by_number
from integrations.his.his import (
    MasterHeard,
    PersonHeard,
    Registration,
    RegistrationHeard,
    ScheduleHeard,
    Status,
)
from tests.support.his_wired import Wired, stranger, wired_at
from tests.support.till import Payer, until
from web.his.heard import body_of, registration_of
from web.his.listening import verdict_on
from web.intake.intake import Outcome

POLICY = "suspension: {order: [refunded], offer: 24h, within: 7d}\n"


@pytest.fixture
async def house(database: str) -> AsyncIterator[Wired]:
    async with wired_at(database, policy=POLICY) as one:
        yield one


async def rows(house: Wired) -> list[tuple[object, ...]]:
    found = await house.till.pool.fetch(
        "select channel, status, number, slot_id from appointment order by created_at, id"
    )
    return [tuple(row) for row in found]


async def booked(payer: Payer, clock: str = "0900", doctor: str = "D0001") -> str:
    number = await payer.hold(clock, doctor)
    await payer.good("POST", f"appointments/{number}/confirm")
    return number


async def test_a_window_registration_takes_a_seat_once_and_is_not_told_back(house: Wired) -> None:
    one = house.his.register(stranger(1), "D0001", house.at())
    taken = await house.heard(one, "HIS/1")
    assert (taken.outcome, verdict_on(taken).code) == (Outcome.ACCEPTED, "AA")
    assert (await house.heard(one, "HIS/1")).outcome is Outcome.DUPLICATE
    assert (await house.heard(one, "HIS/2")).outcome is Outcome.ACCEPTED  # said again, and nothing new
    assert await rows(house) == [(128, 2, 1, house.till.key().slot_id("0900"))]
    await house.deliver()
    assert not house.his.ledger
    async with house.till.pool.acquire() as connection:
        assert await patient_by_number(connection, house.hearing.vault, "his", "P000001") is not None
    await house.agreed()


async def test_a_window_registration_is_cancelled_moved_and_attended(house: Wired) -> None:
    first = house.his.register(stranger(1), "D0001", house.at())
    second = house.his.register(stranger(2), "D0001", house.at())
    for n, one in enumerate((first, second)):
        await house.heard(one, f"HIS/{n}")
    moved = replace(second, starts_at=house.at("09:30"), practitioner="D0002")
    house.his.had[second.his_id] = moved
    assert (await house.heard(moved, "HIS/3")).is_good
    gone = replace(first, status=Status.CANCELLED)
    house.his.had[first.his_id] = gone
    assert (await house.heard(gone, "HIS/4")).is_good
    arrived = replace(moved, status=Status.ARRIVED)
    house.his.had[second.his_id] = arrived
    assert (await house.heard(arrived, "HIS/5")).is_good
    await house.deliver()
    assert not house.his.ledger
    live = [row for row in await rows(house) if row[1] in (2, 3, 4)]
    assert [(row[1], row[3]) for row in live] == [(3, house.till.key("D0002").slot_id("0930"))]
    await house.agreed()


async def test_we_cancel_what_they_registered_and_they_are_told(house: Wired) -> None:
    one = house.his.register(stranger(1), "D0001", house.at())
    await house.heard(one, "HIS/1")
    row = await house.till.pool.fetchrow("select id, account_id from appointment")
    cancel = s.CancelAppointment(row["id"].bytes, row["account_id"].bytes, "system")
    await house.telling.ask(house.till.key().stream, cancel)
    house.his.had[row["id"].hex] = house.his.had.pop(one.his_id)  # they know it by our id from now on
    await house.deliver()
    assert not house.his.live


async def test_they_cancel_ours(house: Wired) -> None:
    payer = await house.till.payer()
    number = await booked(payer)
    await house.deliver()
    there = replace(house.his.had[UUID(number).hex], status=Status.CANCELLED)
    house.his.had[UUID(number).hex] = there
    assert (await house.heard(there, "HIS/1")).is_good
    assert (await payer.number(number))["status"] == "cancelled"
    await house.deliver()
    assert len(house.his.ledger) == 1
    await house.agreed()


async def test_an_old_word_of_ours_changes_nothing(house: Wired) -> None:
    """Their echo of what we told comes after we told them something else."""
    payer = await house.till.payer()
    number = await booked(payer)
    await house.deliver()
    echo = house.his.had[UUID(number).hex]
    at = datetime.now(UTC) - timedelta(minutes=1)
    assert (await house.heard(replace(echo, starts_at=house.at("09:30")), "HIS/1", at)).is_good
    await payer.good("POST", f"appointments/{number}/cancel")
    await house.deliver()
    assert (await house.heard(echo, "HIS/2", at)).is_good
    assert [row[1] for row in await rows(house)] == [5]
    await house.agreed()


async def test_the_last_seat_is_sold_once(house: Wired) -> None:
    payers = [await house.till.payer() for _ in range(3)]
    theirs = [house.his.register(stranger(n), "D0001", house.at()) for n in range(3)]
    body = {"slot_id": house.till.key().slot_id("0900")}
    holds = [payer.ask("POST", "appointments", {**body, "patient_id": payer.patient_id}) for payer in payers]
    heard = [house.heard(one, f"HIS/{n}") for n, one in enumerate(theirs)]
    done = await asyncio.gather(*holds, *heard)
    here = sum(one.status == 201 for one in done[:3])  # type: ignore[union-attr]
    there = [one.outcome for one in done[3:]]  # type: ignore[union-attr]
    assert here + there.count(Outcome.ACCEPTED) == 2
    refused = there.count(Outcome.QUARANTINED)
    assert refused == 3 - there.count(Outcome.ACCEPTED)
    assert await house.differences() == [("refused_here", "open")] * refused
    assert await house.till.pool.fetchval("select count(*) from appointment where status <= 4") == 2
    verdicts = [verdict_on(one) for one in done[3:]]  # type: ignore[arg-type]
    assert [one.why for one in verdicts if one.code == "AE"] == ["refused slot_full"] * refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"department": "999"}, ("registration.department", "unknown_code")),
        ({"practitioner": "D9999"}, ("registration.practitioner", "unknown_code")),
        ({"practitioner": ""}, ("registration.practitioner", "missing")),
    ],
)
async def test_unknown_codes_are_kept_aside(
    house: Wired, changes: dict[str, str], reason: tuple[str, str]
) -> None:
    one = replace(house.his.register(stranger(1), "D0001", house.at()), **changes)  # type: ignore[arg-type]
    taken = await house.heard(one, "HIS/1")
    assert taken.outcome is Outcome.QUARANTINED
    assert (taken.reasons[0].field, taken.reasons[0].rule) == reason
    assert await rows(house) == []


async def test_a_mapped_code_mends_what_was_kept_aside(house: Wired) -> None:
    one = replace(house.his.register(stranger(1), "D0001", house.at()), practitioner="777")
    assert (await house.heard(one, "HIS/1")).outcome is Outcome.QUARANTINED
    async with house.till.pool.acquire() as connection:
        await his_codes.set_code(connection, "practitioner", "777", "D0001")
    assert (await house.heard(one, "HIS/1")).outcome is Outcome.ACCEPTED
    assert [row[1] for row in await rows(house)] == [2]
    master = MasterHeard("HIS/2", datetime.now(UTC), "practitioner", "777", "D0001")
    assert (await house.hearing.hear(master)).is_good
    stray = replace(master, message_id="HIS/3", code="D0001")
    assert not (await house.hearing.hear(stray)).is_good  # it would be two of theirs


async def test_no_clinic_at_that_time_and_nobody_we_could_know(house: Wired) -> None:
    late = house.his.register(stranger(1), "D0001", house.at("15:00"))
    taken = await house.heard(late, "HIS/1")
    assert [one.rule for one in taken.reasons] == ["no_such_slot"]
    nobody = house.his.register(stranger(2, id_number="?"), "D0001", house.at())
    taken = await house.heard(nobody, "HIS/2")
    assert [one.rule for one in taken.reasons] == ["invalid_id_number"]
    assert await rows(house) == []


async def test_a_day_is_made_larger_and_smaller_called_off_and_taken_up(house: Wired) -> None:
    payer, other = await house.till.payer(), await house.till.payer()
    number = await booked(payer)
    await house.deliver()
    now = datetime.now(UTC)
    larger = ScheduleHeard("HIS/1", now, "D0001", "cardio", house.till.day, None, "capacity", 7)
    assert (await house.hearing.hear(larger)).is_good
    assert (await house.hearing.hear(replace(larger, message_id="HIS/2"))).is_good
    assert await _capacity(house) == 7
    smaller = replace(larger, message_id="HIS/3", capacity=1)
    assert (await house.hearing.hear(smaller)).is_good
    assert await _capacity(house) == 1
    # What was kept aside of a day is in the way of what comes after it: so with another doctor.
    night = await house.hearing.hear(
        replace(larger, message_id="HIS/4", practitioner="D0002", period="night")
    )
    assert [one.rule for one in night.reasons] == ["no_such_session"]
    off = replace(larger, message_id="HIS/5", what="suspended", capacity=None, reason="病")
    assert (await house.hearing.hear(off)).is_good
    body = {"slot_id": house.till.key().slot_id("0930"), "patient_id": other.patient_id}
    assert (await other.ask("POST", "appointments", body))["code"] == "session_suspended"

    async def looked_after() -> bool:
        return bool((await payer.number(number))["fate"] == "refunded")

    await until(looked_after, "the patient to be looked after")
    await house.deliver()
    assert not house.his.live
    assert (await house.hearing.hear(replace(off, message_id="HIS/6", what="resumed"))).is_good
    small = await house.hearing.hear(replace(larger, message_id="HIS/7", capacity=2))
    assert small.is_good
    await other.good("POST", "appointments", {**body, "slot_id": house.till.key().slot_id("0900")})
    below = await house.hearing.hear(replace(smaller, message_id="HIS/8", capacity=0))
    assert [one.expected for one in below.reasons] == ["below_sold"]


async def _capacity(house: Wired) -> int:
    state = await house.hearing._day(house.till.key())
    return sum(slot.capacity - slot.blocked.bit_count() for slot in state.slots.values())


async def test_two_of_their_numbers_become_one_person(house: Wired) -> None:
    await house.heard(house.his.register(stranger(1), "D0001", house.at()), "HIS/1")
    now = datetime.now(UTC)
    merge = PersonHeard("HIS/2", now, stranger(1, his_id="P000009"), "P000001")
    assert (await house.hearing.hear(merge)).is_good
    vault = house.hearing.vault
    async with house.till.pool.acquire() as connection:
        old = await patient_by_number(connection, vault, "his", "P000001")
        assert await patient_by_number(connection, vault, "his", "P000009") == old is not None
    await house.heard(house.his.register(stranger(2), "D0002", house.at()), "HIS/3")
    wrong = PersonHeard("HIS/4", now, stranger(2), "P000001")
    taken = await house.hearing.hear(wrong)
    assert [one.rule for one in taken.reasons] == ["two_people"]


def test_what_is_heard_survives_being_kept() -> None:
    one = Registration(None, "R1", "a", "b", datetime.now(UTC), None, Status.ARRIVED, stranger(1))
    assert registration_of(body_of(RegistrationHeard("m", datetime.now(UTC), one))) == one
