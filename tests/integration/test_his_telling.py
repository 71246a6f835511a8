"""Our numbers reach the HIS, whatever goes wrong on the way, and nothing else does."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from engine.domain import schedule as s
from engine.domain.by import HIS
from engine.records import his_codes
from integrations.his.his import Kind, Status
from tests.support.his_wired import Wired, wired_at
from tests.support.till import Payer

POLICY = "suspension: {order: [refunded], offer: 24h, within: 7d}\n"


@pytest.fixture
async def house(database: str) -> AsyncIterator[Wired]:
    async with wired_at(database, policy=POLICY) as one:
        yield one


async def booked(payer: Payer, clock: str = "0900", doctor: str = "D0001") -> str:
    number = await payer.hold(clock, doctor)
    await payer.good("POST", f"appointments/{number}/confirm")
    return number


def hexed(number: str) -> str:
    return UUID(number).hex


async def test_a_booked_number_is_told_and_a_held_one_is_not(house: Wired) -> None:
    payer, other = await house.till.payer(), await house.till.payer()
    number = await booked(payer)
    await other.hold()
    async with house.till.pool.acquire() as connection:
        await his_codes.set_code(connection, "department", "301", "cardio")
    await house.deliver()
    [there] = house.his.had.values()
    assert (there.booking_id, there.status, there.number) == (hexed(number), Status.BOOKED, 1)
    assert (there.department, there.practitioner, there.starts_at) == ("301", "D0001", house.at())
    assert there.person is not None
    assert (there.person.name, there.person.phone) == ("欧阳明月", "13712345678")
    await payer.good("POST", f"appointments/{number}/cancel")
    await house.deliver()
    assert not house.his.live
    assert [kind for _, kind, _ in house.his.ledger] == [Kind.BOOKED, Kind.CANCELLED]


async def test_what_was_given_up_before_they_came_back_is_never_told(house: Wired) -> None:
    payer = await house.till.payer()
    number = await booked(payer)
    await payer.good("POST", f"appointments/{number}/cancel")
    again = await booked(payer)
    await house.deliver()
    assert list(house.his.live) == [hexed(again)]
    assert len(house.his.ledger) == 1


async def test_a_change_is_told_as_a_change(house: Wired) -> None:
    payer = await house.till.payer()
    old = await booked(payer)
    await house.deliver()
    slot = house.till.key("D0002").slot_id("0930")
    new = (await payer.good("POST", f"appointments/{old}/reschedule", {"slot_id": slot}))["id"]
    await house.deliver()
    assert [kind for _, kind, _ in house.his.ledger] == [Kind.BOOKED, Kind.RESCHEDULED]
    there = house.his.had[hexed(new)]
    assert (there.practitioner, there.starts_at) == ("D0002", house.at("09:30"))
    assert list(house.his.live) == [hexed(new)]
    await house.agreed()


@pytest.mark.parametrize("restart", [False, True])
async def test_what_is_lost_busy_or_cut_off_is_told_once(house: Wired, restart: bool) -> None:
    house.his.faults = ["lost", "busy", "gone", "lost", None, "gone", "lost"] * 3
    payers = [await house.till.payer() for _ in range(2)]
    first, second = [await booked(payer) for payer in payers]
    await house.deliver(restart)
    await payers[0].good("POST", f"appointments/{first}/cancel")
    slot = house.till.key().slot_id("0930")
    moved = (await payers[1].good("POST", f"appointments/{second}/reschedule", {"slot_id": slot}))["id"]
    await house.deliver(restart)
    assert house.his.live == {hexed(moved): Status.BOOKED}
    assert len(house.his.ledger) == 4  # nothing twice
    await house.agreed()


async def test_cancelled_while_nobody_knew_whether_it_was_told(house: Wired) -> None:
    """The process died between their doing it and our noting it, and knows of no try."""
    payer = await house.till.payer()
    number = await booked(payer)
    house.his.faults = ["lost"]
    with pytest.raises(AssertionError):
        await _one_try(house)
    assert list(house.his.live) == [hexed(number)]
    await payer.good("POST", f"appointments/{number}/cancel")
    house.tries_max = 40
    await house.deliver(restart=True)
    assert not house.his.live
    await house.agreed()


async def _one_try(house: Wired) -> None:
    house.tries_max = 1
    await house.deliver(restart=True)


async def test_who_comes_and_whose_session_is_called_off(house: Wired) -> None:
    payer, other = await house.till.payer(), await house.till.payer()
    number, lost = await booked(payer), await booked(other, doctor="D0002")
    await house.deliver()
    ask = house.telling.ask
    key = house.till.key()
    await ask(key.stream, s.RecordAttendance(UUID(number).bytes, s.Status.ARRIVED, "system"))
    await ask(key.stream, s.RecordAttendance(UUID(number).bytes, s.Status.FULFILLED, "system"))
    off = s.SetSessionStatus(b"c" * 16, -1, HIS, "", "morning", "suspended", "ill")
    await ask(house.till.key("D0002").stream, off)
    await ask(house.till.key("D0002").stream, s.DecideFate(UUID(lost).bytes, "refunded"))
    await house.deliver()
    assert house.his.had[hexed(number)].status is Status.FULFILLED
    assert house.his.had[hexed(lost)].status is Status.CANCELLED
    await house.agreed()
