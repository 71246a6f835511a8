"""The hospital's own systems as a server knows them: those that are set up, and in a demo sandboxes of ours.

The sandboxes are independent small servers; together they take one process beside the server, so that what
they do costs no patient anything. Where each listens and with what secret is decided here, before it runs:
nothing waits for them. A process that dies is started again; what its sandboxes knew is gone then.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from engine import embedded_postgres
from engine.settings import Settings
from web.emr import beside as emr_demo
from web.his.configured import demo_at
from web.imaging import beside as pacs_demo
from web.own_process import child_environment
from web.payments_beside import own_address
from web.results.demo import demo_at as lis_demo_at
from web.sync.config import SystemsConfig
from web.sync.systems import systems_from

log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 2.0
STOP_SECONDS_MAX: Final = 5.0
_COMMAND: Final = (
    "from engine.logs import word_the_uncaught; word_the_uncaught();"
    " from web.systems_beside import run_here; run_here()"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sandbox is to be."""

    ports: dict[str, int]  # on 127.0.0.1, by what they are for
    secret: str  # of this run, for whatever both sides need one
    home: str  # the server's: what must survive a restart may lie there
    own_address: str  # the gateways', http://…

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ports})"


@dataclass(frozen=True, slots=True)
class Demo:
    ports: tuple[str, ...]
    at: Callable[[Place], Any]
    """What its connector is to be made of (a field of SystemsConfig)."""
    runs: str
    """module:function, an async context manager over its Place, for the process of the sandboxes."""
    page: Callable[[Place], str] | None = None
    """Where people may look at it."""


DEMOS: Final[dict[str, Demo]] = {
    "his": Demo(
        ("http", "mllp", "notices"),
        lambda place: demo_at(place.ports, place.secret),
        "web.his.configured:demo_running",
        lambda place: f"http://127.0.0.1:{place.ports['http']}/sandbox",
    ),
    "lis": Demo(
        ("http", "mllp"),
        lambda place: lis_demo_at(place.ports),
        "web.results.demo:demo_running",
        lambda place: f"http://127.0.0.1:{place.ports['http']}/sandbox/ledger",
    ),
    "pacs": Demo(
        ("http",),
        lambda place: pacs_demo.at(place.ports, place.secret),
        "web.imaging.beside:running",
        lambda place: f"http://127.0.0.1:{place.ports['http']}/sandbox",
    ),
    "emr": Demo(
        ("http",),
        lambda place: emr_demo.at(place.ports, place.secret),
        "web.emr.beside:running",
        lambda place: f"http://127.0.0.1:{place.ports['http']}/sandbox",
    ),
}


@dataclass(frozen=True, slots=True)
class Systems:
    config: SystemsConfig
    pages: dict[str, str]
    """Name -> address, of the sandboxes that people may look at."""


@contextlib.asynccontextmanager
async def systems_beside(settings: Settings, home: Path) -> AsyncIterator[Systems]:
    """For as long as the context lasts. A system that is set up has no sandbox beside it."""
    config = systems_from(settings)
    wanted = [name for name in settings.demo_systems.split(",") if name] if settings.demo else []
    names = [name for name in wanted if name in DEMOS and getattr(config, name) is None]
    if not names:
        yield Systems(config, {})
        return
    places = {name: _place(DEMOS[name], settings, home) for name in names}
    config = replace(config, **{name: DEMOS[name].at(place) for name, place in places.items()})
    pages = {name: page(places[name]) for name in names if (page := DEMOS[name].page) is not None}
    keeper = asyncio.create_task(_keep_running(places))
    try:
        yield Systems(config, pages)
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


def _place(demo: Demo, settings: Settings, home: Path) -> Place:
    ports = {name: embedded_postgres.free_port() for name in demo.ports}
    return Place(ports, secrets.token_urlsafe(32), str(home), own_address(settings))


async def _keep_running(places: dict[str, Place]) -> None:
    told = orjson.dumps({name: asdict(place) for name, place in places.items()})
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", _COMMAND),
            env=child_environment({}),
            stdin=asyncio.subprocess.PIPE,  # secrets are no arguments: those are for everybody to read
            start_new_session=True,  # Ctrl-C reaches us alone
            preexec_fn=embedded_postgres.die_with_parent,
        )
        try:
            await process.communicate(told)
        finally:
            await _ended(process)
        log.warning("the sandboxes ended with status %s and are started again", process.returncode)
        await asyncio.sleep(RESTART_SECONDS)


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def run_here() -> None:
    """The process of the sandboxes: their places come on standard input. SIGTERM ends it."""
    with contextlib.suppress(OSError):
        os.nice(5)  # play must not slow down what it plays with
    logging.basicConfig(level=logging.WARNING)
    told = orjson.loads(sys.stdin.buffer.read())
    asyncio.run(run({name: Place(**place) for name, place in told.items()}))


async def run(places: dict[str, Place]) -> None:
    """All of them, for as long as it is awaited; one that does not start leaves the others alone."""
    async with contextlib.AsyncExitStack() as stack:
        for name, place in places.items():
            try:
                await stack.enter_async_context(_sandbox(DEMOS[name].runs)(place))
            except Exception:
                log.exception("the sandbox %s does not start", name)
        await asyncio.Event().wait()


def _sandbox(named: str) -> Callable[[Place], contextlib.AbstractAsyncContextManager[object]]:
    module, _, function = named.partition(":")
    found: Callable[[Place], contextlib.AbstractAsyncContextManager[object]] = getattr(
        importlib.import_module(module), function
    )
    return found
