"""The whole process beside the HIS, with its sandbox on real wires: outbox, listener, comparison."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from engine.embedded_postgres import free_port
from engine.records import his as records
from engine.records import his_differences
from engine.records.catalog import load_catalog
from engine.records.catalog_version import announce_change
from integrations.his.his_at import HisAt, make
from integrations.his.sandbox import Sandbox
from integrations.his.sandbox_hospital import Fault
from tests.support.one_process import SECRET
from tests.support.till import Payer, Till, till_at, until
from web import keys
from web.his.system import HisSystem
from web.sync.app import SyncApp
from web.sync.config import SyncConfig, SystemsConfig

CHANGED = {
    "rest": ["cancelled", "rescheduled"],
    "fhir": ["booked", "cancelled", "cancelled"],  # it has no word for a change
    "hl7v2": ["cancelled", "rescheduled"],
}


@dataclass
class House:
    till: Till
    sandbox: Sandbox
    system: HisSystem
    after_a_change: list[str]
    """What the form has of one that was changed and one that was cancelled."""

    @property
    def live(self) -> dict[str, str]:
        """our id, or theirs -> status"""
        return {
            one.booking or one.his_id: one.status
            for one in self.sandbox.hospital.registrations.values()
            if one.status != "cancelled"
        }

    async def there(self, wanted: dict[str, str]) -> None:
        async def is_so() -> bool:
            return self.live == wanted

        await until(is_so, f"the HIS to have {wanted}, which has {self.live}")

    def at(self, clock: str = "09:00") -> datetime:
        return datetime.fromisoformat(f"{self.till.day}T{clock}:00").replace(tzinfo=self.till.zone)


@pytest.fixture(params=["rest", "fhir", "hl7v2"])
async def house(database: str, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """In each form that it may speak; what it tells of its own accord is HL7 in all of them."""
    secret = secrets.token_bytes(16)
    listen = free_port()
    async with till_at(database) as till:
        sandbox = Sandbox("xinglin", secret, zone=till.zone, notices_port=listen)
        async with sandbox.running(), ClientSession() as client:
            at = HisAt(
                form=request.param,
                address=sandbox.address + ("/fhir" if request.param == "fhir" else ""),
                host="127.0.0.1",
                port=sandbox.mllp_port,
                zone=till.zone.key,
                seconds_max=1.0,
                secret=secret,
                listen_port=listen,
            )
            gateway = till.one.gateway
            app = gateway._runner.app
            gateway._truth.his = make(at, client)
            pool = till.pool
            async with pool.acquire() as connection:
                catalog = await load_catalog(connection)
            config = SyncConfig(app[keys.SETTINGS], SystemsConfig(his=at), database, SECRET, None)
            sync = SyncApp(
                "his",
                config,
                pool,
                app[keys.VAULT],
                gateway._directory,
                client,
                CollectorRegistry(),
                catalog,
                app[keys.POLICY].policy,
            )
            system = HisSystem(sync)
            running = asyncio.create_task(system.run())
            await until(lambda: _joined(pool), "the outbox to begin")
            try:
                yield House(till, sandbox, system, CHANGED[request.param])
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running


async def _joined(pool: object) -> bool:
    assert hasattr(pool, "fetchval")
    return bool(await pool.fetchval("select exists (select from outbox_cursor where subscriber = 'his')"))


async def booked(payer: Payer, clock: str = "0900", doctor: str = "D0001") -> str:
    number = await payer.hold(clock, doctor)
    await payer.good("POST", f"appointments/{number}/confirm")
    return number


async def test_bookings_arrive_and_windows_are_heard(house: House) -> None:
    house.sandbox.hospital.faults.ask("tell", Fault.APPLIED_THEN_TIMEOUT, Fault.BUSY, Fault.CUT)
    payer, other = await house.till.payer(), await house.till.payer()
    number, second = await booked(payer), await booked(other, "0930")
    await house.there({UUID(number).hex: "booked", UUID(second).hex: "booked"})
    slot = house.till.key("D0002").slot_id("0930")
    moved = (await payer.good("POST", f"appointments/{number}/reschedule", {"slot_id": slot}))["id"]
    await other.good("POST", f"appointments/{second}/cancel")
    await house.there({UUID(moved).hex: "booked"})
    events = [row["event"] for row in house.sandbox.hospital.ledger]
    assert events[:2] == ["booked", "booked"]
    assert sorted(events[2:]) == house.after_a_change, "each told once, though lines broke"
    person = {
        "his_id": "P000001", "name": "欧阳明月", "sex": "female", "birth_date": "1980-01-01",
        "id_type": "passport", "id_number": "H0000001", "phone": "13712345678",
    }  # fmt: skip
    his_id = house.sandbox.at_window("cardio", "D0001", house.at(), person)

    async def taken(status: int) -> bool:
        found = await house.till.pool.fetchval("select status from appointment where channel = 128")
        return bool(found == status)

    await until(lambda: taken(2), "the window's registration to be here")
    house.sandbox.move(his_id, "cancelled")
    await until(lambda: taken(5), "its cancel to be here")
    await house.there({UUID(moved).hex: "booked"})


async def test_a_place_is_asked_for_and_a_day_compared(house: House) -> None:
    async with house.till.pool.acquire() as connection, connection.transaction():
        await records.set_truth(connection, "cardio", True)
        await announce_change(connection)
    await house.till.one.gateway._truth.read(house.till.pool)
    hospital = house.sandbox.hospital
    hospital.departments = [{"code": "cardio", "name": "心内科", "parent": None}]
    hospital.practitioners = [{"code": "D0001", "name": "郝思涵", "title": "chief", "department": "cardio"}]
    house.sandbox.hospital.faults.ask("lock", Fault.APPLIED_THEN_CUT)
    payer = await house.till.payer()
    number = await booked(payer)
    await house.there({UUID(number).hex: "booked"})
    [there] = house.sandbox.hospital.registrations.values()
    assert (await payer.number(number))["number"] == there.number
    house.sandbox.hospital.forget(there.his_id)
    await records.ask_for(house.till.pool, house.till.day, "")

    async def compared() -> bool:
        return bool(await his_differences.runs(house.till.pool, house.till.day, 1))

    await until(compared, "the day to be compared")
    [run] = await his_differences.runs(house.till.pool, house.till.day, 1)
    assert (run.healed, run.left_open) == (1, 0)
    await house.there({UUID(number).hex: "booked"})
