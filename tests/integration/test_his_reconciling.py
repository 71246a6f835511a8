"""Two lists of one day: what a rule is clear for is healed, the rest is listed with both sides' words."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from engine.domain import schedule as s
from engine.records import his_differences
from integrations.his.his import Registration, Status
from tests.support.his_wired import Wired, stranger, wired_at
from tests.support.till import Payer


@pytest.fixture
async def house(database: str) -> AsyncIterator[Wired]:
    async with wired_at(database) as one:
        yield one


async def booked(house: Wired, clock: str = "0900", doctor: str = "D0001") -> tuple[Payer, str, str]:
    payer = await house.till.payer()
    number = await payer.hold(clock, doctor)
    await payer.good("POST", f"appointments/{number}/confirm")
    await house.deliver()
    return payer, number, UUID(number).hex


async def compared(house: Wired) -> tuple[int, int, int]:
    run = await house.reconciling.compare(house.till.day)
    return run.matched, run.healed, run.left_open


async def test_what_is_the_same_is_left_alone(house: Wired) -> None:
    await booked(house)
    await house.heard(house.his.register(stranger(1), "D0001", house.at()), "HIS/1")
    payer = await house.till.payer()
    await payer.hold("0930")  # held, and nobody over there need know
    assert await compared(house) == (2, 0, 0)
    assert await house.differences() == []
    assert len(house.his.ledger) == 1


async def test_what_they_lost_is_told_again(house: Wired) -> None:
    _, _, first = await booked(house)
    _, _, second = await booked(house, "0930")
    del house.his.had[first]
    house.his.had[second] = replace(house.his.had[second], starts_at=house.at("09:00"))
    assert await compared(house) == (0, 2, 0)
    assert sorted(await house.differences()) == [("missing_there", "healed"), ("time", "healed")]
    assert house.his.had[second].starts_at == house.at("09:30")
    assert await compared(house) == (2, 0, 0)
    await house.agreed()


async def test_what_we_missed_is_taken_in(house: Wired) -> None:
    """A registration at their window, its arrival, and a cancel, of which no notice came."""
    seen = house.his.register(stranger(1), "D0001", house.at())
    assert await compared(house) == (0, 1, 0)
    await house.deliver()
    assert not house.his.ledger
    house.his.had[seen.his_id] = replace(house.his.had[seen.his_id], status=Status.ARRIVED)
    assert await compared(house) == (0, 1, 0)
    assert await house.till.pool.fetchval("select status from appointment") == s.Status.ARRIVED
    other = house.his.register(stranger(2), "D0002", house.at())
    assert await compared(house) == (1, 1, 0)
    house.his.had[other.his_id] = replace(other, status=Status.CANCELLED)
    assert await compared(house) == (1, 1, 0)
    assert await compared(house) == (1, 0, 0)
    await house.deliver()
    assert not house.his.ledger
    await house.agreed()


async def test_a_cancel_they_never_heard_is_told_again(house: Wired) -> None:
    payer, number, id_ = await booked(house)
    was = house.his.had[id_]
    await payer.good("POST", f"appointments/{number}/cancel")
    await house.deliver()
    house.his.had[id_] = was
    assert await compared(house) == (0, 1, 0)
    assert not house.his.live


async def test_places_kept_for_nobody_are_given_back(house: Wired) -> None:
    await house.truth("cardio", is_theirs=True)
    lost = Registration("ab" * 16, "R9", "cardio", "D0001", house.at(), 109, Status.LOCKED)
    house.his.had["ab" * 16] = lost
    payer = await house.till.payer()
    body = {"slot_id": house.till.key().slot_id("0900"), "patient_id": payer.patient_id}
    held = (await payer.good("POST", "appointments", body))["id"]
    assert await compared(house) == (0, 1, 0)
    assert list(house.his.live) == [UUID(held).hex]


async def test_what_no_rule_is_clear_for_is_listed_until_a_person_has_seen_to_it(house: Wired) -> None:
    payer, number, id_ = await booked(house)
    house.his.had[id_] = replace(house.his.had[id_], status=Status.CANCELLED)
    orphan = Registration("cd" * 16, "R8", "cardio", "D0002", house.at(), 1, Status.BOOKED)
    house.his.had["cd" * 16] = orphan
    full = [house.his.register(stranger(n), "D0003", house.at()) for n in range(3)]
    assert await compared(house) == (0, 2, 3)
    assert await compared(house) == (2, 0, 3)
    found = {one for one in await house.differences() if one[1] == "open"}
    assert found == {("missing_here", "open"), ("refused_here", "open"), ("state", "open")}
    assert (await payer.number(number))["status"] == "booked"
    assert len(full) == 3
    pool = house.till.pool
    [state] = [
        one
        for one in await his_differences.differences(pool, house.till.day, True, None, 50)
        if one.kind == "state"
    ]
    assert state.subject == id_ and state.times == 2
    assert (state.evidence["ours"], state.evidence["their_status"]) == ("booked", "cancelled")
    assert "欧阳" not in str(state.evidence)
    now = datetime.now(UTC)
    assert await his_differences.settle(pool, state.id, "desk", "asked the patient", now) == house.till.day
    assert await his_differences.settle(pool, state.id, "desk", "again", now) is None


async def test_two_of_theirs_for_one_of_ours(house: Wired) -> None:
    _, _, id_ = await booked(house)
    house.his.had["twin"] = replace(house.his.had[id_], his_id="R777")
    matched, healed, left = await compared(house)
    assert (matched, healed, left) == (0, 0, 1)
    assert await house.differences() == [("doubled", "open")]
    del house.his.had["twin"]
    assert await compared(house) == (1, 0, 0)
    assert await house.differences() == [("doubled", "healed")]
