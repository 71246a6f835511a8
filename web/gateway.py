"""One HTTP process: reads from its own memory, sends writes to the shards."""

import asyncio
import logging
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncpg
from aiohttp import ClientSession, web
from prometheus_client.core import Metric

from actors.changes import Changes
from actors.cluster import Others
from actors.directory import Directory, ShardAway, shard_of
from actors.errands import Errands, Handle
from actors.feed import Changes as Feed
from actors.interpreter import settle
from actors.lines import Lines
from actors.metrics import GatewayMetrics, samples, watch_lag
from actors.rounds import Round, go
from engine import logs
from engine.domain.limits import ANSWER_MS_MAX
from engine.records.appointments import seats_taken
from engine.records.catalog import load_catalog, load_schedules
from engine.records.catalog_changes import follow_catalog
from engine.records.conduct import review_recent
from engine.records.policies import load_policy, of_settings
from engine.records.policy_file import PolicyRefused
from engine.records.request_keys import forget_keys
from engine.settings import Settings
from engine.views.availability import Availability
from integrations.wechat.client import WeChatClient
from web import keys
from web.admission import Admission
from web.app import make_app
from web.attendance import mark_no_shows, release_unconfirmed
from web.auth import Tokens
from web.door import Door
from web.patient.express import HoldLane
from web.patient.pages import Pages
from web.stream import Stream
from web.suspension import Rehoming
from web.wish_errands import Wishes

log = logging.getLogger(__name__)

READ_CONNECTIONS = 4
READ_SECONDS_MAX = ANSWER_MS_MAX / 1000  # a database that hangs must not hold a patient's request
RETRY_SECONDS = 0.2
START_TRIES = 10  # at READ_SECONDS_MAX each
FEED_PAUSE_SECONDS = 0.1  # what changes meanwhile comes merged; nobody sees a tenth of a second
CLOSE_SECONDS_MAX = 5.0
NO_SHOW_SECONDS = 60.0
UNCONFIRMED_SECONDS = 5.0
CONDUCT_SECONDS = 60.0
FORGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    settings: Settings
    database_url: str
    token_secret: bytes
    wechat_address: str | None
    wechat_app: tuple[str, str]
    log_file: Path | None


class HttpGateway:
    def __init__(self, number: int, config: GatewayConfig) -> None:
        self._name = f"gateway-{number}"
        self._config = config
        self._metrics = GatewayMetrics()
        self._tasks: list[asyncio.Task[None]] = []
        self._positions: dict[int, tuple[int, int]] = {}
        settings = config.settings
        self._policy = keys.PolicyInForce(of_settings(settings))
        self._fallback = self._policy.policy
        logs.configure(config.settings.log_level, config.log_file)

    async def start(self, lines: Lines, others: Others) -> str:
        """Everything read and every feed joined before the first request is taken."""
        config = self._config
        settings = config.settings
        self._lines = lines
        self._pool = await _connected(config.database_url)
        async with self._pool.acquire() as connection:
            catalog = await load_catalog(connection)
            self._availability = Availability(catalog, [])
        self._pages = Pages(self._availability, catalog.hospital.zone)
        self._stream = Stream(self._availability, self._pages, catalog.hospital.zone)
        await self._read_catalog()
        await self._read_seats(None)
        self._directory = Directory(lines.send, settings.shards)
        self._client = ClientSession()
        app = make_app()
        app[keys.SETTINGS] = settings
        app[keys.TOKENS] = Tokens(
            config.token_secret, settings.access_token_seconds, settings.refresh_token_seconds
        )
        app[keys.POOL] = self._pool
        app[keys.ZONE] = catalog.hospital.zone
        app[keys.POLICY] = self._policy
        app[keys.DIRECTORY] = self._directory
        app[keys.CHANGES] = Changes(self._directory)
        app[keys.WISHES] = Wishes(app)
        app[keys.AVAILABILITY] = self._availability
        app[keys.PAGES] = self._pages
        app[keys.STREAM] = self._stream
        app.on_shutdown.append(_close_stream)
        app[keys.METRICS] = self._metrics
        app[keys.OTHERS] = others
        app[keys.NAME] = self._name
        app[keys.HEALTH] = self._health = keys.Health()
        if config.wechat_address is not None:
            app_id, app_secret = config.wechat_app
            app[keys.WECHAT] = WeChatClient(self._client, config.wechat_address, app_id, app_secret)
        app[keys.ADMISSION] = Admission(settings.admitted_max, self._metrics.shed, self._metrics.admitted)
        self._runner = Door(app, HoldLane(app), access_log=None, handle_signals=False)
        await self._runner.setup()
        listening = _listen(settings.host, settings.port)
        await web.SockSite(self._runner, listening, backlog=1024, shutdown_timeout=CLOSE_SECONDS_MAX).start()
        self._tasks = [asyncio.create_task(self._follow(shard_id)) for shard_id in range(settings.shards)] + [
            asyncio.create_task(follow_catalog(config.database_url, self._read_catalog)),
            asyncio.create_task(watch_lag(self._metrics.lag)),
            asyncio.create_task(self._stream.run()),
            asyncio.create_task(Errands(config.database_url, self._pool, _handlers(app)).run()),
            asyncio.create_task(go(self._pool, _rounds(app))),
        ]
        settle()
        self._health.is_serving = True
        host, port = listening.getsockname()[:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Readiness goes first, then the doors, then what was taken in is answered."""
        self._health.is_serving = False
        await self._runner.cleanup()
        await self._directory.close()
        for task in self._tasks:
            task.cancel()
        await self._client.close()
        await self._pool.close()

    def metrics(self) -> list[Metric]:
        return samples(self._metrics.registry, self._name)

    async def _follow(self, shard_id: int) -> None:
        """One shard's feed of free seats, for as long as this gateway lives."""
        while True:
            epoch, seq = self._positions.get(shard_id, (0, 0))
            try:
                changes = Feed.unpack(await self._lines.changes(shard_id, epoch, seq))
                if changes.remaining is None:
                    self._metrics.feed_resets.inc()
                    await self._read_seats(shard_id)
                else:
                    self._stream.heard(
                        self._availability.change(changes.remaining, changes.plans, changes.seq)
                    )
                    self._positions[shard_id] = (changes.epoch, changes.seq)
                    if changes.remaining or changes.plans:
                        await asyncio.sleep(FEED_PAUSE_SECONDS)
            except ShardAway:
                await asyncio.sleep(RETRY_SECONDS)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("free seats could not be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _read_seats(self, shard_id: int | None) -> None:
        """A snapshot from SQL: at the start, and where a feed has gone on without us."""
        taken = await seats_taken(self._pool)
        mine = None
        if shard_id is not None:
            shards = self._config.settings.shards
            mine = frozenset(
                row.id
                for row in (*self._availability.schedules(), *taken.rows)
                if shard_of(row.key.stream, shards) == shard_id
            )
        version = max((seq for _, seq in taken.seqs.values()), default=0)
        if shard_id is not None:
            version = taken.seqs.get(shard_id, (0, 0))[1]
        self._stream.heard(self._availability.reset(mine, taken, version))
        for number, position in taken.seqs.items():
            if shard_id is None or number == shard_id:
                self._positions[number] = position

    async def _read_catalog(self) -> None:
        async with self._pool.acquire() as connection:
            read_at = self._availability.changes  # what the feeds bring from here on is newer
            catalog = await load_catalog(connection)
            try:
                self._policy.policy = await load_policy(connection, self._fallback)
            except PolicyRefused as error:
                log.error("the policy in force cannot be read, so the one before it stays: %s", error)
            today = datetime.now(catalog.hospital.zone).date()
            rows = await load_schedules(connection, today - timedelta(days=1))
        self._stream.heard(self._availability.replace(catalog, rows, read_at, self._policy.policy))


def _handlers(app: web.Application) -> dict[str, Handle]:
    """Who does which errand."""
    return {**Rehoming(app).handlers(), **app[keys.WISHES].handlers()}


def _rounds(app: web.Application) -> list[Round]:
    async def review_conduct() -> None:
        async with app[keys.POOL].acquire() as connection:
            await review_recent(connection, app[keys.POLICY].policy, datetime.now(UTC))

    async def forget() -> None:
        async with app[keys.POOL].acquire() as connection:
            await forget_keys(connection, datetime.now(UTC))

    return [
        Round("no shows", NO_SHOW_SECONDS, partial(mark_no_shows, app)),
        Round("unconfirmed", UNCONFIRMED_SECONDS, partial(release_unconfirmed, app)),
        Round("conduct", CONDUCT_SECONDS, review_conduct),
        Round("old keys", FORGET_SECONDS, forget),
        *app[keys.WISHES].rounds(),
    ]


async def _connected(database_url: str) -> asyncpg.Pool:
    """A pool with a first connection. A machine that starts everything at once may be slow to give it."""
    for left in reversed(range(START_TRIES)):
        try:
            return await asyncpg.create_pool(
                database_url,
                min_size=1,
                max_size=READ_CONNECTIONS,
                timeout=READ_SECONDS_MAX,
                command_timeout=READ_SECONDS_MAX,
            )
        except TimeoutError:
            if not left:
                raise
    raise AssertionError


async def _close_stream(app: web.Application) -> None:
    """Before the server waits for its connections: those of the stream would stay for hours."""
    await app[keys.STREAM].close()


def _listen(host: str, port: int) -> socket.socket:
    """Gateways share the port; the kernel spreads connections over them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind((host, port))
    return listening
