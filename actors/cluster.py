"""Shards and gateways as Ray actors. The only file that imports ray.

Ray places the processes and starts again what dies. It does not promise that only one of them lives; the
epoch in PostgreSQL does. Ray retries nothing for us (`max_task_retries=0`): the directory does, with ids.
What gateways and shards say to each other all day goes over actors/link.py.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray
from prometheus_client.core import Metric
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.followed_lines import FollowedLines
from actors.lines import Lines
from actors.link import Address
from actors.shard_process import ShardProcess
from engine.domain.policy import Policy
from engine.logs import LogFormat

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 * 1024 * 1024  # messages are small and travel inline; Ray's least is 75 MiB
# Ray heeds a soft strategy only for an actor that asks for some resource; one that asks for none is placed by
# lot. So ours ask for the least of one that every node has. Ray counts it; it limits nothing.
PLACED_BYTES = 1
PENDING_CALLS_MAX = 1_000
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0
AGAIN_SECONDS = 0.1


Others = Callable[[], Awaitable[list[Metric]]]
"""What every other process counted."""


class Gateway(Protocol):
    """What web/main.py hands in: an HTTP process without a word of Ray."""

    async def start(self, lines: Lines, others: Others) -> str:
        """Listens; gives the address."""

    async def stop(self) -> None:
        """Takes nothing new, answers what it took."""

    def metrics(self) -> list[Metric]: ...


@dataclass(frozen=True, slots=True)
class OwnShards:
    """The shards are of this very cluster: its supervisor says where each one is."""

    count: int
    secret: bytes = field(repr=False)
    """Of this run: gateways prove with it who they are."""


@dataclass(frozen=True, slots=True)
class OthersShards:
    """The shards are another service's: PostgreSQL says where they are (actors/followed_lines.py)."""

    database_url: str = field(repr=False)
    token_secret: bytes = field(repr=False)


class GatewayProcess:
    """A gateway inside its Ray actor: receives the routes, and otherwise leaves it alone."""

    def __init__(self, make: Callable[[], Gateway], shards: OwnShards | OthersShards) -> None:
        self._gateway = make()
        self._followed: FollowedLines | None = None
        if isinstance(shards, OthersShards):
            self._followed = FollowedLines(shards.database_url, shards.token_secret, self._end)
            self._lines = self._followed.lines
        else:
            self._lines = Lines(shards.secret, shards.count)
        self._others: list[Any] = []

    async def start(self, routes: dict[int, Address]) -> str:
        for shard_id, address in routes.items():
            self._lines.route(shard_id, address)
        try:
            if self._followed is not None:
                await self._followed.start()
            return await self._gateway.start(self._lines, self._metrics_of_others)
        except Exception:
            # Half started is not started: Ray brings a fresh process, and the supervisor asks it again.
            log.exception("the gateway does not start")
            logging.shutdown()
            os._exit(1)

    async def _end(self) -> None:
        """In good order, and for a fresh process in our place: what was made of the shards is wrong now."""
        await self._gateway.stop()
        logging.shutdown()
        os._exit(1)

    async def route(self, shard_id: int, address: Address) -> None:
        self._lines.route(shard_id, address)

    async def meet(self, others: list[Any]) -> None:
        self._others = others

    async def metrics(self) -> list[Metric]:
        return self._gateway.metrics()

    async def _metrics_of_others(self) -> list[Metric]:
        """One that is away says nothing."""
        asked = [_awaitable(each.metrics.remote()) for each in self._others]
        counted = await asyncio.gather(*asked, return_exceptions=True)
        return [m for metrics in counted if isinstance(metrics, list) for m in metrics]

    async def until_the_end(self) -> None:
        await asyncio.Event().wait()

    async def pid(self) -> int:
        return os.getpid()

    async def stop(self) -> None:
        await self._gateway.stop()
        if self._followed is not None:
            self._followed.stop()
        self._lines.close()


class SyncProcess(GatewayProcess):
    """The same, beside the gateways: its own name in the list of processes."""


class ShardActor(ShardProcess):
    """A shard's process that knows on which of the cluster's nodes it is."""

    def host(self) -> str:
        address: str = ray.util.get_node_ip_address()
        return address


def start_ray(address: str | None, folder: str | None) -> None:
    """A Ray of our own on this machine's loopback, or the running one at `address`. Blocks for seconds.

    actors/ray_environment.py must have been asked first: Ray reads its environment when it is imported.
    """
    assert os.environ.get("RAY_AUTH_MODE") == "token"
    if address is not None:
        ray.init(address=address, namespace="xinglin", log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        namespace="xinglin",
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )


def stop_ray() -> None:
    ray.shutdown()


@dataclass(slots=True)
class Member:
    """A shard process as the supervisor sees it."""

    name: str
    handle: Any
    shards: set[int] = field(default_factory=set)
    is_ready: bool = False


class Cluster:
    """Starts the processes, and gives a dead one's shards to a standby at once."""

    def __init__(
        self,
        database_url: str,
        shards: OwnShards | OthersShards,
        standbys: int,
        gateways: int,
        policy: Policy,
        make_gateway: Callable[[int], Gateway],
        log_level: str = "INFO",
        log_folder: Path | None = None,
        log_format: LogFormat = "text",
        beside: Sequence[Callable[[], Gateway]] = (),
    ) -> None:
        """No shards and no standbys are started where the shards are another service's.

        `beside`: processes for which nobody waits; they are made when the gateways listen."""
        own = shards if isinstance(shards, OwnShards) else None
        self._shards = own.count if own is not None else 0
        places = _places()
        self._members = (
            []
            if own is None
            else [
                Member(
                    name := f"shard-process-{n}",
                    _actor(ShardActor, places[n % len(places)]).remote(
                        name,
                        database_url,
                        own.count,
                        policy,
                        own.secret,
                        log_level,
                        log_folder and log_folder / f"{name}.log",
                        log_format,
                    ),
                )
                for n in range(own.count + standbys)
            ]
        )
        self._gateways = [
            _actor(GatewayProcess, places[n % len(places)]).remote(_maker(make_gateway, n), shards)
            for n in range(gateways)
        ]
        self._make_beside = [
            partial(_actor(SyncProcess, places[n % len(places)]).remote, make, shards)
            for n, make in enumerate(beside)
        ]
        self._beside: list[Any] = []
        self._serving: dict[int, Member] = {}
        self._routes: dict[int, Address] = {}
        self._orphans: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.deaths = 0

    async def start(self) -> list[str]:
        """Every shard served and every gateway listening; gives the gateways' addresses."""
        first = self._members[: self._shards]
        async with asyncio.timeout(START_SECONDS_MAX):
            await asyncio.gather(*(self._give(n, member) for n, member in enumerate(first)))
            addresses = await asyncio.gather(*(self._open_again(gateway) for gateway in self._gateways))
        self._tasks = [
            *(asyncio.create_task(self._watch(member)) for member in self._members),
            *(asyncio.create_task(self._watch_gateway(gateway)) for gateway in self._gateways),
            asyncio.create_task(self._start_beside()),
        ]
        return addresses

    async def stop(self) -> None:
        """Gateways first, so that nothing new comes; then the shards, which write what they took."""
        for task in self._tasks:
            task.cancel()
        for group in ([*self._gateways, *self._beside], [member.handle for member in self._members]):
            stops = [_awaitable(each.stop.remote()) for each in group]
            done = await asyncio.gather(
                *(asyncio.wait_for(stop, STOP_SECONDS_MAX) for stop in stops), return_exceptions=True
            )
            for failed in done:
                if isinstance(failed, Exception):
                    log.warning("a process did not stop in good order: %s", failed)

    async def gateway_pids(self) -> list[int]:
        return list(await asyncio.gather(*(g.pid.remote() for g in self._gateways)))

    async def shard_pids(self) -> dict[int, int]:
        """Shard id -> pid of the process that serves it."""
        return {n: await member.handle.pid.remote() for n, member in self._serving.items()}

    async def _watch(self, member: Member) -> None:
        """Waits for the process's end; then its shards move, and it comes back as a standby."""
        while True:
            try:
                await member.handle.ready.remote()
                member.is_ready = True
                await self._adopt()
                await member.handle.until_the_end.remote()
            except RayError as error:
                member.is_ready = False
                if member.shards:
                    self.deaths += 1
                    log.warning(
                        "%s ended (%s); its shards %s move", member.name, type(error).__name__, member.shards
                    )
                    self._orphans += sorted(member.shards)
                    member.shards.clear()
                    await self._adopt()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _watch_gateway(self, gateway: Any) -> None:
        while True:
            try:
                await gateway.until_the_end.remote()
            except RayError as error:
                log.warning("%s ended (%s) and is started again", self._word(gateway), type(error).__name__)
                await asyncio.sleep(AGAIN_SECONDS)
                await self._open_again(gateway)

    async def _start_beside(self) -> None:
        """One after another: what is served meanwhile needs the cores more."""
        for make in self._make_beside:
            each = make()
            self._beside.append(each)
            await self._open_again(each)
            self._tasks.append(asyncio.create_task(self._watch_gateway(each)))
        if self._beside:
            for gateway in self._gateways:
                with contextlib.suppress(RayError):  # it meets them when it is back
                    await gateway.meet.remote(self._others_of(gateway))

    async def _open_again(self, gateway: Any) -> str:
        """Until it listens: Ray may not have its process back yet, or the database may be away."""
        while True:
            try:
                return await self._open(gateway)
            except RayError as error:
                log.warning("%s does not start yet (%s)", self._word(gateway), type(error).__name__)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _open(self, gateway: Any) -> str:
        address: str = await gateway.start.remote(self._routes)
        await gateway.meet.remote(self._others_of(gateway))
        return address

    def _word(self, gateway: Any) -> str:
        return "a process beside the gateways" if gateway in self._beside else "a gateway"

    def _others_of(self, gateway: Any) -> list[Any]:
        beside = [*self._gateways, *self._beside]
        return [*(m.handle for m in self._members), *(each for each in beside if each is not gateway)]

    async def _adopt(self) -> None:
        """Gives each orphaned shard to a ready process: the one with the fewest shards."""
        while self._orphans:
            ready = [m for m in self._members if m.is_ready]
            if not ready:
                return  # the first to come back takes them
            member = min(ready, key=lambda m: len(m.shards))
            shard_id = self._orphans.pop(0)
            try:
                await self._give(shard_id, member)
            except RayError:
                member.is_ready = False
                self._orphans.append(shard_id)

    async def _give(self, shard_id: int, member: Member) -> None:
        member.shards.add(shard_id)
        try:
            address: Address = await member.handle.assign.remote(shard_id)
        except BaseException:
            member.shards.discard(shard_id)
            raise
        self._serving[shard_id] = member
        self._routes[shard_id] = address
        told = [g.route.remote(shard_id, address) for g in [*self._gateways, *self._beside]]
        await asyncio.gather(*(_awaitable(ref) for ref in told), return_exceptions=True)


def _places() -> list[Any]:
    """One strategy a node, to be taken in turn. Soft: when the node is gone, another will do."""
    ids = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
    return [NodeAffinitySchedulingStrategy(node_id=node_id, soft=True) for node_id in ids]


def _actor(kind: type, strategy: Any) -> Any:
    return ray.remote(
        num_cpus=0,
        memory=PLACED_BYTES,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=PENDING_CALLS_MAX,
        scheduling_strategy=strategy,
    )(kind)


def _maker(make: Callable[[int], Gateway], number: int) -> Callable[[], Gateway]:
    return lambda: make(number)


async def _awaitable(ref: Awaitable[Any]) -> Any:
    return await ref
