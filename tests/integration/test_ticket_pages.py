"""A ticket is never shown older than its row, though this gateway's copy of the waiting room is behind."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.refusal import Reason
from engine.domain.room_plan import GENERAL
from engine.records.tickets import TicketRecord, ticket
from engine.vault.vault import Vault
from tests.support.people import add_person
from tests.support.rooms import ask_room, publish_room
from tests.support.stores import DAY, LAVISH, PostgresWorld, Served, doctor, uid
from web import keys
from web.errors import Problem
from web.queues.copies import Copies
from web.queues.ticket_pages import look_at

HERE = RoomKey("cardio", DAY)
PATIENT, COMMAND = uid("patient"), uid("take")


@pytest.fixture
async def world(database: str, vault: Vault) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    await publish_room(world, HERE, doctor(1).practitioner_id)
    pool = await world.pool()
    await add_person(pool, vault, PATIENT, name="张伟")
    yield world
    await world.close()


@pytest.fixture
async def served(world: PostgresWorld) -> AsyncIterator[Served]:
    served = await Served.open(world, policy=LAVISH)
    yield served
    await served.stop()


async def test_what_another_gateway_has_just_written_is_seen(
    world: PostgresWorld, served: Served, vault: Vault
) -> None:
    app = web.Application()
    pool = await world.pool()
    app[keys.POOL] = pool
    # Nobody tells these copies anything: as if the feed were always too late.
    app[keys.ROOMS] = Copies(pool, keys.PolicyInForce(LAVISH), world.clock)
    assert (await app[keys.ROOMS].look(HERE)).room.tickets == {}

    async def row() -> TicketRecord:
        found = await ticket(pool, vault, ticket_id(COMMAND))
        assert found is not None
        return found

    [told] = await ask_room(served, HERE, w.TakeNumber(COMMAND, PATIENT, "desk", GENERAL))
    assert isinstance(told, w.Told)
    first = await row()
    assert (first.label, first.patient_name, first.version) == (told.label, "张伟", 1)
    copy, seen = await look_at(app, first)
    assert (seen.label, seen.status, copy.version) == (told.label, w.Status.WAITING, told.seen)

    open_room = w.OpenRoom(uid("open"), "R1", (GENERAL,), by="nurse")
    call = w.CallNext(uid("call"), "R1", "nurse")
    assert all(isinstance(reply, w.Told) for reply in await ask_room(served, HERE, open_room, call))
    _, seen = await look_at(app, first)
    assert seen.status is w.Status.WAITING, "no newer than it was asked for"
    _, seen = await look_at(app, await row())
    assert (seen.status, seen.standing.room_id) == (w.Status.CALLED, "R1")


async def test_a_row_without_its_events_is_no_ticket(
    world: PostgresWorld, served: Served, vault: Vault
) -> None:
    """It cannot be, and if it is, nobody waits for ever."""
    pool = await world.pool()
    app = web.Application()
    app[keys.ROOMS] = Copies(pool, keys.PolicyInForce(LAVISH), world.clock)
    await ask_room(served, HERE, w.TakeNumber(COMMAND, PATIENT, "desk", GENERAL))
    found = await ticket(pool, vault, ticket_id(COMMAND))
    assert found is not None
    await pool.execute("set session_replication_role = replica; delete from event")
    with pytest.raises(Problem) as caught:
        await look_at(app, found)
    assert caught.value.code is Reason.NO_SUCH_TICKET
