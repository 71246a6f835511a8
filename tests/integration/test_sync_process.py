"""The process beside an outside system: it starts whatever is away, and goes on whatever fails."""

import asyncio
from pathlib import Path

import pytest

import web.sync.process
from actors.lines import Lines
from engine.settings import Settings
from web.sync.app import SyncApp
from web.sync.config import SyncConfig, SystemsConfig
from web.sync.process import SyncProcess
from web.sync.systems import ALWAYS, MAKERS, systems_of
from web.systems_beside import DEMOS, Place, run, systems_beside

SECONDS_MAX = 30.0


async def no_others() -> list[object]:
    return []


def config(url: str, home: Path) -> SyncConfig:
    return SyncConfig(Settings(home=home), SystemsConfig(), url, b"s" * 32, None)


async def test_a_system_that_fails_is_tried_again_and_nobody_else_hears_of_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.sync.process, "AGAIN_SECONDS", 0.01)
    made: list[SyncApp] = []
    tries = 0
    runs = asyncio.Event()
    stopped = asyncio.Event()

    class Failing:
        async def run(self) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise KeyError("ours")
            if tries == 2:
                return
            runs.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    def make(app: SyncApp) -> Failing:
        made.append(app)
        if len(made) == 1:
            raise ValueError("not yet")
        return Failing()

    monkeypatch.setitem(MAKERS, "probe", make)
    process = SyncProcess("probe", config(database, tmp_path))
    assert await process.start(Lines(b"secret", shards=1), no_others) == "probe"  # type: ignore[arg-type]
    async with asyncio.timeout(SECONDS_MAX):
        await runs.wait()
    assert len(made) == 2
    assert made[0] is made[1], "the app is opened once"
    assert made[0].zone.key == "Asia/Shanghai"
    assert await made[0].pool.fetchval("select 1") == 1
    assert {one.name for one in process.metrics()} >= {"xinglin_loop_lag_seconds"}
    await process.stop()
    assert stopped.is_set()
    assert made[0].client.closed


async def test_without_a_database_it_waits(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness of the gateways never depends on it: `start` answers at once."""
    monkeypatch.setattr(web.sync.process, "AGAIN_SECONDS", 0.01)
    failed = asyncio.Event()
    monkeypatch.setattr(web.sync.process.log, "exception", lambda *_: failed.set())
    monkeypatch.setitem(MAKERS, "probe", lambda app: pytest.fail("there is no database"))
    process = SyncProcess("probe", config(f"{database}_nowhere", tmp_path))
    await process.start(Lines(b"secret", shards=1), no_others)  # type: ignore[arg-type]
    async with asyncio.timeout(SECONDS_MAX):
        await failed.wait()
    await process.stop()


def test_a_process_for_each_system_that_there_is() -> None:
    assert systems_of(SystemsConfig()) == [name for name in MAKERS if name in ALWAYS]
    assert "his" in systems_of(SystemsConfig(his=object()))
    assert "secret" not in repr(SystemsConfig(his="secret"))


async def test_a_demo_plays_what_is_not_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was asked for; without a demo nothing. Secrets are in no repr."""
    for settings in (Settings(demo=False), Settings(demo=True, demo_systems="")):
        async with systems_beside(settings, tmp_path) as systems:
            assert systems.config == SystemsConfig()
    assert "hush" not in repr(Place({"http": 1}, "hush", "", ""))
    assert set(Settings.model_fields["demo_systems"].default.split(",")) == set(DEMOS)


async def test_one_sandbox_that_does_not_start_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = asyncio.Event()

    class Playing:
        def __init__(self, place: Place) -> None:
            assert place.ports == {"http": 1}

        async def __aenter__(self) -> None:
            started.set()

        async def __aexit__(self, *_: object) -> None:
            return None

    def broken(place: Place) -> None:
        raise OSError("the port is taken")

    place = Place({"http": 1}, "hush", "", "")
    first, second = list(DEMOS)[:2]
    found = {DEMOS[first].runs: broken, DEMOS[second].runs: Playing}
    monkeypatch.setattr("web.systems_beside._sandbox", found.__getitem__)
    task = asyncio.create_task(run({first: place, second: place}))
    async with asyncio.timeout(SECONDS_MAX):
        await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
