"""A shard tells what its actors do: through the same bytes that gateways get."""

from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from engine.domain.refusal import Reason, Refusal
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    Died,
    PostgresWorld,
    Served,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)

KEY, OTHER = doctor(1), doctor(2)
PATIENTS = [uid("patient", n) for n in range(4)]


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    for key in (KEY, OTHER):
        await world.publish(key, plan(world.clock() + HOUR, 2))
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    yield world
    await world.close()


async def told(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = msgpack.unpackb(await served.shard.figures())
    return found


async def test_actors_are_counted_each_by_itself(world: PostgresWorld) -> None:
    served = await Served.open(world)
    replies = await served.ask(KEY, *(hold(uid("a", n), PATIENTS[n]) for n in range(3)))
    assert [r.reason for r in replies if isinstance(r, Refusal)] == [Reason.SLOT_FULL]
    await served.ask(KEY, confirm(uid("a", 0)))
    await served.ask(OTHER, hold(uid("a", 9), PATIENTS[3], seconds=900))
    found = await told(served)
    actors = {actor["actor"]: actor for actor in found["actors"]}
    assert (found["shard"], found["epoch"], found["hosts"], found["mailbox"]) == (0, 1, 2, 0)
    assert found["commands"] == 5
    mine, other = actors[KEY.stream], actors[OTHER.stream]
    assert (mine["commands"], mine["refused"], mine["holds"], mine["mailbox"]) == (4, {"slot_full": 1}, 1, 0)
    assert (other["commands"], other["refused"], other["holds"]) == (1, {}, 1)
    assert mine["flush_us"] > 0 and mine["is_alive"] and mine["unsettled"] == 0
    assert found["entries_per_second"] > 0 and found["flush_us"]["max"] > 0
    assert found["batch"]["max"] == 3
    await served.stop()


async def test_a_batch_whose_write_never_ends_is_seen_in_the_mailbox(world: PostgresWorld) -> None:
    served = await Served.open(world)
    looked: list[dict[str, Any]] = []
    journal = served.shard._journal
    append = journal.append

    async def slow(*given: Any) -> int:
        looked.append(await told(served))
        await append(*given)
        raise ConnectionError("nobody knows")

    journal.append = slow  # type: ignore[method-assign]
    with pytest.raises(Died):
        await served.ask(KEY, hold(uid("a"), PATIENTS[0]))
    (during,) = looked
    assert (during["mailbox"], during["actors"][0]["mailbox"], during["actors"][0]["unsettled"]) == (1, 1, 1)
