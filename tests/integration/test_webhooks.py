"""Webhooks over real journals and a receiver that checks signatures by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from engine.embedded_postgres import EmbeddedPostgres
from engine.records import event_feed
from engine.records import webhooks as records
from engine.settings import Settings
from engine.vault.vault import Vault
from integrations.webhooks.sandbox import Fault, Sandbox
from tests.support.copies import copied, migrated
from tests.support.eventful import Deliveries, Hospital, Receiver, events_app, receiver, webhook
from tests.support.stores import doctor
from web.events import dispatching
from web.events.systems import WebhookSystem
from web.sync.app import SyncApp


@dataclass(frozen=True, slots=True)
class Scene:
    hospital: Hospital
    deliveries: Deliveries
    vault: Vault

    async def go(self) -> None:
        await self.deliveries.queue()
        await self.deliveries.deliver()

    async def waiting(self, one: Receiver) -> tuple[int, int]:
        return (await records.counts(self.hospital.pool, [one.id])).get(one.id, (0, 0))

    async def tries(self, one: Receiver) -> list[records.Delivery]:
        return await records.deliveries(self.hospital.pool, one.id, None, 1000)


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def database(original: str) -> AsyncIterator[str]:
    async with copied(original) as url:
        yield url


@pytest.fixture
async def scene(database: str, vault: Vault) -> AsyncIterator[Scene]:
    hospital = await Hospital.open(database)
    source = await event_feed.source(hospital.pool)
    deliveries = Deliveries(hospital.pool, vault, source.id)
    try:
        yield Scene(hospital, deliveries, vault)
    finally:
        await deliveries.close()
        await hospital.close()


def in_order(sandbox: Sandbox) -> bool:
    """Within each stream, by the journal's numbers."""
    last: dict[str, int] = {}
    for got in sandbox.ledger:
        stream, seq = got.event["partitionkey"], int(got.event["sequence"])
        if seq <= last.get(stream, 0):
            return False
        last[stream] = seq
    return True


async def test_what_happens_arrives_signed_once_and_in_order(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with (
        receiver(pool, scene.vault) as all_,
        receiver(pool, scene.vault, ["appointment.booked"]) as booked,
    ):
        await scene.hospital.book(20, of=0)
        await scene.hospital.book(20, of=1)
        await scene.go()
        types = [got.event["type"] for got in all_.sandbox.ledger]
        assert types.count("appointment.held") == types.count("appointment.booked") == 40
        assert types.count("schedule.opened") == 2
        assert [got.event["type"] for got in booked.sandbox.ledger] == ["appointment.booked"] * 40
        assert in_order(all_.sandbox) and all_.sandbox.unsigned == 0
        assert await scene.waiting(all_) == (0, 0)
        told = await scene.tries(all_)
        assert len(told) == 82 and {(one.status, one.attempt, one.trouble) for one in told} == {(204, 1, "")}


async def test_failures_are_repeated_in_order_and_nothing_is_missing(scene: Scene) -> None:
    """Errors, a busy one, an answer that was lost after they took it: at least once, in order."""
    async with receiver(scene.hospital.pool, scene.vault) as one:
        await scene.hospital.book(10)
        one.sandbox.fail(Fault.ERROR, Fault.CUT, Fault.BUSY, Fault.REDIRECT)
        for _ in range(8):
            await scene.go()
            scene.deliveries.clock.advance(minutes=11)
        assert len(one.sandbox.ledger) == 21 and in_order(one.sandbox)
        assert len(one.sandbox.asked) == 25  # each failure was one try, and none more while it rested
        assert await scene.waiting(one) == (0, 0)
        assert (await webhook(scene.hospital.pool, one)).failing_since is None


async def test_one_that_is_down_costs_few_tries_and_holds_nobody_up(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with receiver(pool, scene.vault) as down, receiver(pool, scene.vault) as up:
        down.sandbox.is_down = True
        await scene.hospital.book(20)
        await scene.go()
        assert len(up.sandbox.ledger) == 41
        assert len(down.sandbox.asked) <= dispatching.AT_ONCE_MAX
        for _ in range(3):  # while it rests it is left alone; then one looks
            scene.deliveries.clock.advance(minutes=11)
            await scene.go()
        assert len(down.sandbox.asked) <= dispatching.AT_ONCE_MAX + 3
        assert (await webhook(pool, down)).failing_since is not None
        down.sandbox.is_down = False
        scene.deliveries.clock.advance(minutes=11)
        await scene.go()
        assert len(down.sandbox.ledger) == 41 and in_order(down.sandbox)


async def test_a_message_they_refuse_holds_its_own_stream_alone_and_is_dead_in_the_end(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with receiver(pool, scene.vault, ["appointment.booked"]) as one:
        await scene.hospital.book(2, of=0)
        one.sandbox.fail(Fault.REFUSE)
        await scene.go()
        assert len(one.sandbox.asked) == 1 and not one.sandbox.ledger  # what came after it waits
        await scene.hospital.book(1, of=0)
        await scene.hospital.book(2, of=1)
        await scene.go()
        assert {got.event["partitionkey"] for got in one.sandbox.ledger} == {doctor(2).stream}
        refused = one.sandbox.asked[0]
        for _ in dispatching.REFUSED_AGAIN:
            one.sandbox.fail(Fault.REFUSE)
            scene.deliveries.clock.advance(hours=1, seconds=1)
            await scene.go()
        assert await scene.waiting(one) == (0, 1)
        assert len(one.sandbox.ledger) == 4 and in_order(one.sandbox)
        assert one.sandbox.asked.count(refused) == len(dispatching.REFUSED_AGAIN) + 1


async def test_refused_for_good_then_redelivered(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with receiver(pool, scene.vault, ["appointment.booked"]) as one:
        await scene.hospital.book(1)
        one.sandbox.fail(*[Fault.REFUSE] * (len(dispatching.REFUSED_AGAIN) + 1))
        for _ in range(len(dispatching.REFUSED_AGAIN) + 1):
            await scene.go()
            scene.deliveries.clock.advance(hours=1, seconds=1)
        assert await scene.waiting(one) == (0, 1)
        async with events_app(pool, scene.vault) as app:
            admin = app.staff("system_admin")
            event_id = one.sandbox.asked[0]
            path = f"/admin/webhooks/{one.id.hex()}/deliveries/{event_id}/redeliver"
            status, told = await app.call("POST", path, admin)
            assert (status, told["waiting"], told["dead"]) == (202, 1, 0)
            assert (await app.call("POST", path.replace(event_id, "0-999999"), admin))[0] == 404
        await scene.deliveries.deliver()
        assert [got.id for got in one.sandbox.ledger] == [event_id]


async def test_gone_and_failing_for_days_are_disabled(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with receiver(pool, scene.vault) as gone, receiver(pool, scene.vault) as failing:
        gone.sandbox.fail(*[Fault.GONE] * dispatching.AT_ONCE_MAX)
        failing.sandbox.is_down = True
        await scene.hospital.book(3)
        await scene.go()
        assert (await webhook(pool, gone)).disabled_why == "gone"
        assert (await webhook(pool, failing)).disabled_at is None
        scene.deliveries.clock.advance(days=3, seconds=1)
        await scene.go()
        assert (await webhook(pool, failing)).disabled_why == "failing"
        tried = len(failing.sandbox.asked)
        scene.deliveries.clock.advance(hours=1)
        await scene.hospital.book(1)
        await scene.go()
        assert len(failing.sandbox.asked) == tried
        assert (await scene.waiting(failing))[0] == 7  # what came while it was disabled is not queued
        failing.sandbox.is_down = False
        async with pool.acquire() as connection, connection.transaction():
            await records.enable(connection, failing.id, scene.deliveries.clock())
        scene.deliveries.clock.advance(minutes=11)
        await scene.deliveries.deliver()
        assert len(failing.sandbox.ledger) == 7


async def test_a_rotated_secret_signs_with_both_for_a_day(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with (
        receiver(pool, scene.vault, ["appointment.booked"]) as one,
        events_app(pool, scene.vault) as app,
    ):
        admin = app.staff("system_admin")
        status, told = await app.call("POST", f"/admin/webhooks/{one.id.hex()}/secret", admin)
        assert status == 201 and told["secret"] != one.sandbox.secret
        await scene.hospital.book(1)
        await scene.go()
        assert [got.signatures for got in one.sandbox.ledger] == [2]  # believed by the one before
        one.sandbox.secret = told["secret"]
        scene.deliveries.clock.advance(days=1, seconds=1)
        await scene.hospital.book(1)
        await scene.go()
        assert [got.signatures for got in one.sandbox.ledger] == [2, 1]


async def test_secrets_are_sealed_and_another_process_does_not_deliver_meanwhile(
    scene: Scene, database: str
) -> None:
    pool = scene.hospital.pool
    async with receiver(pool, scene.vault) as one:
        row = await pool.fetchrow("select * from webhook")
        assert one.sandbox.secret.encode() not in bytes(row["secret"])
        first = asyncio.create_task(scene.deliveries.dispatcher.run(database))
        held = "select count(*) from pg_locks where locktype = 'advisory' and granted"
        async with asyncio.timeout(60):
            while not await pool.fetchval(held):
                await asyncio.sleep(0)
        assert not await pool.fetchval(dispatching._LOCK)
        first.cancel()


async def test_partners_have_their_own_and_nobody_elses(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with events_app(pool, scene.vault) as app, receiver(pool, scene.vault) as theirs:
        mine, other = await app.partner("one", "events.read"), await app.partner("two", "events.read")
        less = await app.partner("three", "lis.write")
        body = {"address": "https://example.com/hook", "types": ["appointment.*", "bill.paid"]}
        assert (await app.call("POST", "/partner/webhooks", less, body))[0] == 403
        status, made = await app.call("POST", "/partner/webhooks", mine, body)
        assert status == 201 and made["secret"].startswith("whsec_")
        path = f"/partner/webhooks/{made['id']}"
        assert [one["id"] for one in (await app.call("GET", "/partner/webhooks", mine))[1]["webhooks"]] == [
            made["id"]
        ]
        assert (await app.call("GET", "/partner/webhooks", other))[1]["webhooks"] == []
        for token in (other, less):
            assert (await app.call("DELETE", path, token))[0] in (403, 404)
        assert (await app.call("PUT", f"/partner/webhooks/{theirs.id.hex()}", mine, body))[0] == 404
        for address, why in (("http://example.com/", "scheme"), ("https://10.0.0.1/", "private")):
            status, told = await app.call("PUT", path, mine, {**body, "address": address})
            assert (status, told["code"], told["why"]) == (422, "webhook_address_refused", why)
        assert (await app.call("POST", "/partner/webhooks", mine, {**body, "types": ["nothing"]}))[0] == 422
        admin = app.staff("system_admin")
        assert len((await app.call("GET", "/admin/webhooks", admin))[1]["webhooks"]) == 2
        status, told = await app.call(
            "POST", f"/admin/webhooks/{made['id']}/state", admin, {"enabled": False}
        )
        assert (status, told["state"], told["disabled_why"]) == (200, "disabled", "asked")
        assert (await app.call("DELETE", path, mine))[0] == 204
        actions = await pool.fetch("select action, by_kind from audit_entry order by id")
        assert [tuple(one) for one in actions] == [
            ("webhook_added", "partner"),
            ("webhook_disabled", "staff"),
            ("webhook_removed", "partner"),
        ]
        assert (await app.call("GET", "/admin/webhooks", app.staff("doctor")))[0] == 403


async def test_a_ping_says_how_it_went(scene: Scene) -> None:
    pool = scene.hospital.pool
    async with events_app(pool, scene.vault) as app, receiver(pool, scene.vault) as one:
        admin = app.staff("system_admin")
        path = f"/admin/webhooks/{one.id.hex()}"
        status, told = await app.call("POST", f"{path}/ping", admin)
        assert (status, told["delivered"], told["status"]) == (200, True, 204)
        assert one.sandbox.ledger[0].event["type"] == "webhook.ping"
        one.sandbox.fail(Fault.ERROR)
        assert (await app.call("POST", f"{path}/ping", admin))[1]["status"] == 500
        status, told = await app.call("GET", f"{path}/deliveries", admin, limit=1)
        assert [each["trouble"] for each in told["deliveries"]] == ["status"]
        status, told = await app.call("GET", f"{path}/deliveries", admin, before=told["before"])
        assert [(each["type"], each["attempt"]) for each in told["deliveries"]] == [("webhook.ping", 0)]


async def test_the_process_beside_them_carries_what_happens_there(scene: Scene, database: str) -> None:
    """As it runs: its own outbox, its own lanes, and a webhook that was registered meanwhile."""
    pool, settings = scene.hospital.pool, Settings(webhooks=True, demo=True)
    app = SimpleNamespace(
        database_url=database, pool=pool, vault=scene.vault, settings=settings, registry=CollectorRegistry()
    )
    system = WebhookSystem(cast(SyncApp, app))
    working = asyncio.create_task(system.run())
    try:
        async with asyncio.timeout(60):
            while not await pool.fetchval("select count(*) from outbox_cursor where subscriber = 'webhooks'"):
                await asyncio.sleep(0.02)
            async with receiver(pool, scene.vault) as one:
                await scene.hospital.book(10)
                while len(one.sandbox.ledger) < 21 or (await scene.waiting(one))[0]:
                    await asyncio.sleep(0.02)
                assert in_order(one.sandbox) and one.sandbox.unsigned == 0
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
