"""Departments whose numbers the HIS owns: a place there before a promise here, and never different things."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from engine.domain import schedule as s
from integrations.his.his import Status
from tests.support.his_wired import Wired, wired_at
from tests.support.stores import uid
from tests.support.till import Payer, until


@pytest.fixture
async def house(database: str) -> AsyncIterator[Wired]:
    async with wired_at(database) as one:
        await one.truth("cardio", is_theirs=True)
        yield one


def asked(house: Wired, patient_id: str, clock: str = "0900") -> dict[str, str]:
    return {"slot_id": house.till.key().slot_id(clock), "patient_id": patient_id}


async def test_their_number_is_shown_and_becomes_their_booking(house: Wired) -> None:
    payer = await house.till.payer()
    held = await payer.good("POST", "appointments", asked(house, payer.patient_id), "k")
    assert held["number"] == 100
    assert house.his.had[UUID(held["id"]).hex].status is Status.LOCKED
    again = await payer.good("POST", "appointments", asked(house, payer.patient_id), "k")
    assert (again["id"], again["number"]) == (held["id"], 100)
    await house.deliver()
    assert len(house.his.ledger) == 1  # the outbox locks nothing twice
    await payer.good("POST", f"appointments/{held['id']}/confirm")
    await house.deliver()
    assert (await payer.number(held["id"]))["number"] == 100
    assert (await payer.good("GET", "appointments"))["appointments"][0]["number"] == 100
    there = house.his.had[UUID(held["id"]).hex]
    assert (there.status, there.number) == (Status.BOOKED, 100)
    await house.agreed()


async def test_no_place_there_is_no_place_here(house: Wired) -> None:
    house.his.places = 1
    first, second = await house.till.payer(), await house.till.payer()
    await first.good("POST", "appointments", asked(house, first.patient_id))
    answer = await second.ask("POST", "appointments", asked(house, second.patient_id), "k")
    assert (answer.status, answer["code"]) == (409, "slot_full")
    assert answer["alternatives"]
    again = await second.ask("POST", "appointments", asked(house, second.patient_id), "k")
    assert (again.status, again["code"]) == (409, "slot_full")
    taken = "select count(*) from appointment where status <= 4"
    assert await house.till.pool.fetchval(taken) == 1
    await house.deliver()
    assert len(house.his.live) == 1


async def test_lost_after_it_was_done_is_found(house: Wired) -> None:
    house.his.faults = ["lost"]
    payer = await house.till.payer()
    held = await payer.good("POST", "appointments", asked(house, payer.patient_id))
    assert held["number"] == 100
    assert [what for _, what, _ in house.his.ledger] == ["lock"]


async def test_unknown_at_the_deadline_is_settled_afterwards(house: Wired) -> None:
    payer = await house.till.payer()
    house.his.deaf = True
    answer = await payer.ask("POST", "appointments", asked(house, payer.patient_id), "k")
    assert (answer.status, answer["code"]) == (503, "outcome_unknown")
    house.his.deaf = False
    await house.deliver()
    held = await payer.good("POST", "appointments", asked(house, payer.patient_id), "k")
    assert held["number"] == 100
    assert list(house.his.live.values()) == [Status.LOCKED]


async def test_what_is_given_up_or_runs_out_is_unlocked(house: Wired) -> None:
    one, other = await house.till.payer(), await house.till.payer()
    held = await one.good("POST", "appointments", asked(house, one.patient_id))
    await other.good("POST", "appointments", asked(house, other.patient_id))
    await house.deliver()
    await one.good("POST", f"appointments/{held['id']}/cancel")
    house.till.expire()
    third = await house.till.payer()  # whoever comes next finds what has run out
    await third.good("POST", "appointments", asked(house, third.patient_id))
    await house.deliver()
    await _swept(house)
    assert len(house.his.live) == 1


async def _swept(house: Wired) -> None:
    async def is_so() -> bool:
        await house.deliver()
        return len(house.his.live) == 1

    await until(is_so, "places to be given back")


async def test_held_without_asking_first_is_asked_for_afterwards(house: Wired) -> None:
    """As the waiting list and families hold: without a place the hold is given back, or nothing is booked."""
    first, second, third = [await house.till.payer() for _ in range(3)]
    ids = [await _held(house, payer, n) for n, payer in enumerate((first, second))]
    await house.deliver()
    assert list(house.his.live.values()) == [Status.LOCKED, Status.LOCKED]
    house.his.places = 2
    ids.append(await _held(house, third, 2, "0930"))
    house.his.places = 0
    refused = await third.ask("POST", f"appointments/{ids[2]}/confirm")
    assert (refused.status, refused["code"]) == (409, "slot_full")
    assert (await third.number(ids[2]))["status"] == "cancelled"
    await first.good("POST", f"appointments/{ids[0]}/confirm")
    await second.good("POST", f"appointments/{ids[1]}/cancel")
    fourth = await house.till.payer()
    ids.append(await _held(house, fourth, 3))
    await house.deliver()
    assert (await fourth.number(ids[3]))["status"] == "cancelled"
    assert list(house.his.live.values()) == [Status.BOOKED]
    await house.agreed()


async def _held(house: Wired, payer: Payer, n: int, clock: str = "0900") -> str:
    id_ = uid("held", n)
    command = s.HoldSeat(id_, clock, UUID(payer.patient_id).bytes, payer.account_id)
    assert isinstance(await house.telling.ask(house.till.key().stream, command), s.Answer)
    return str(UUID(bytes=id_))


async def test_a_change_asks_first_and_keeps_the_old_number_where_there_is_no_place(house: Wired) -> None:
    payer = await house.till.payer()
    old = await payer.good("POST", "appointments", asked(house, payer.patient_id))
    await payer.good("POST", f"appointments/{old['id']}/confirm")
    await house.deliver()
    house.his.places = 0
    to = {"slot_id": house.till.key("D0002").slot_id("0900")}
    answer = await payer.ask("POST", f"appointments/{old['id']}/reschedule", to)
    assert (answer.status, answer["code"]) == (409, "slot_full")
    assert (await payer.number(old["id"]))["status"] == "booked"
    house.his.places = None
    new = await payer.good("POST", f"appointments/{old['id']}/reschedule", to)
    await house.deliver()
    assert list(house.his.live) == [UUID(new["id"]).hex]
    await house.agreed()


async def test_for_the_last_place_many_ask_and_one_has_it(house: Wired) -> None:
    house.his.places = 1
    payers = [await house.till.payer() for _ in range(6)]
    answers = await asyncio.gather(
        *(one.ask("POST", "appointments", asked(house, one.patient_id)) for one in payers)
    )
    assert sorted(one.status for one in answers) == [201, *[409] * 5]
    await house.deliver()
    assert len(house.his.live) == 1
