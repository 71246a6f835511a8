"""One HTTP process: reads from its own memory, sends writes to the shards."""

import asyncio
import logging
import socket
import time
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
from engine import database, logs
from engine.database import AWAY
from engine.domain.limits import ANSWER_MS_MAX
from engine.records.appointments import seats_taken
from engine.records.callbacks_seen import forget_old as forget_callbacks
from engine.records.catalog import load_catalog, load_schedules
from engine.records.catalog_changes import follow_catalog
from engine.records.conduct import review_recent
from engine.records.intake import forget_old as forget_messages
from engine.records.no_show_models import Nights
from engine.records.policies import load_policy, of_settings
from engine.records.policy_file import PolicyRefused
from engine.records.real_names import forget_guesses
from engine.records.request_keys import forget_keys
from engine.records.sessions import forget_ended
from engine.records.sign_ins import forget as forget_sign_ins
from engine.services import ALL, Service, names_of
from engine.settings import Settings
from engine.vault.memory import no_core_files
from engine.vault.opening import follow as follow_vault
from engine.vault.opening import kek_of, open_vault
from engine.views.availability import Availability
from integrations.hospital_billing.client import Billing, HospitalBillingClient
from integrations.oidc.client import OidcClient
from integrations.pacs.client import PacsClient
from integrations.real_name.client import RealNameClient, Register
from integrations.wechat.client import WeChatClient
from web import keys
from web.access_log import AccessLog
from web.admin.alerts import Alerts
from web.admission import Admission
from web.app import make_app
from web.attendance import mark_no_shows, release_unconfirmed
from web.auth import Tokens
from web.backup_figures import BackupFigures
from web.bills.callbacks import callbacks_of
from web.bills.figures import MONEY_SECONDS, count_money
from web.bills.merchants import Payments
from web.bills.providers import wired as wired_providers
from web.bills.work import BillWork
from web.desk.actors import ActorBoard
from web.desk.indicators import IndicatorBoard
from web.desk.what_if import BookedTimes
from web.door import Door, Patience
from web.erasing import erasures_of
from web.file_limit import OTHERS as OTHER_FILES
from web.file_limit import raise_file_limit
from web.his.truth import Truth
from web.hospital_billing.billing import HospitalBilling
from web.hospital_billing.errands import handlers as hospital_billing_handlers
from web.imaging.routes import Archive, Checked
from web.indicators_follower import STEP_SECONDS, Follower
from web.intake.figures import IntakeFigures
from web.intake.intake import LOOK_SECONDS as INTAKE_SECONDS
from web.intake.intake import Intake
from web.no_show_round import LOOK_SECONDS as LEARN_LOOK_SECONDS
from web.no_show_round import learn_nightly
from web.origins import Origins, origins_of
from web.partner.sight import Partners
from web.partner.tokens import PartnerTokens
from web.patient.express import HoldLane
from web.patient.pages import Pages
from web.patient.real_names import ROUND_SECONDS as REAL_NAMES_SECONDS
from web.patient.real_names import RealNames, verify_waiting
from web.patient.rights_followed import follow_rights
from web.privacy.rounds import rounds as privacy_rounds
from web.queues.arrivals import ARRIVALS_SECONDS, wait_by_themselves
from web.queues.copies import Copies
from web.queues.errands import Attending
from web.queues.feeds import Feeds
from web.queues.forecasts import Forecasts
from web.queues.notices import Noticing, follow_notices
from web.queues.screens import Screens
from web.rate_limits import limits_of
from web.reconciliation.figures import ReconciliationFigures
from web.reconciliation.night import LOOK_SECONDS as RECONCILE_LOOK_SECONDS
from web.reconciliation.night import ask_nightly
from web.reconciliation.reconciling import Reconciling
from web.results.receiving import Receiving
from web.services import errands_of, rounds_of
from web.sessions.cookies import Cookies
from web.sessions.following import Following
from web.sessions.terms import terms_of
from web.sign_in.oidc import oidc_of, provider_of
from web.sign_in.rules import rules_of
from web.stream import Stream
from web.suspension import Rehoming
from web.sync.config import SystemsConfig
from web.tls import context_of, follow
from web.waiting_time_round import LOOK_SECONDS as WAITING_TIME_LOOK_SECONDS
from web.waiting_time_round import learn_nightly as learn_waiting_times
from web.wish_errands import Wishes

log = logging.getLogger(__name__)

READ_CONNECTIONS = 4
READ_SECONDS_MAX = ANSWER_MS_MAX / 1000  # a database that hangs must not hold a patient's request
RETRY_SECONDS = 0.2
START_TRIES = 10  # at READ_SECONDS_MAX each
FEED_PAUSE_SECONDS = 0.1  # what changes meanwhile comes merged; nobody sees a tenth of a second
CLOSE_SECONDS_MAX = 5.0
UNREAD_SECONDS_MAX = 30.0
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
    register: Register | None
    billing: Billing | None  # the hospital's own
    payments: Payments | None
    log_folder: Path | None
    systems: SystemsConfig = SystemsConfig()


class HttpGateway:
    def __init__(self, number: int, config: GatewayConfig) -> None:
        self._number = number
        self._name = "-".join([*_name_of(config.settings.services), "gateway", str(number)])
        no_core_files()  # it will hold keys
        self._truth = Truth()
        self._config = config
        self._metrics = GatewayMetrics()
        self._tasks: list[asyncio.Task[None]] = []
        self._positions: dict[int, tuple[int, int]] = {}
        settings = config.settings
        self._policy = keys.PolicyInForce(of_settings(settings))
        self._fallback = self._policy.policy
        folder = config.log_folder
        logs.configure(
            settings.log_level, folder and folder / f"{self._name}.log", self._name, settings.log_format
        )
        self._access_log = AccessLog(
            settings.access_log, folder and folder / f"{self._name}.access.log", self._name
        )

    async def start(self, lines: Lines, others: Others) -> str:
        """Everything read and every feed joined before the first request is taken."""
        config = self._config
        settings = config.settings
        self._lines = lines
        self._pool = await _connected(config.database_url)
        async with self._pool.acquire() as connection:
            catalog = await load_catalog(connection)
            self._availability = Availability(catalog, [])
            vault = await open_vault(connection, settings)
            erasures = erasures_of(settings)  # of this machine's home: the others' are theirs
            await erasures.apply(connection, with_place=False)
        self._pages = Pages(self._availability, catalog.hospital.zone)
        raise_file_limit(settings.stream_connections_max)
        self._stream = Stream(
            self._availability,
            self._pages,
            catalog.hospital.zone,
            connections_max=settings.stream_connections_max,
        )
        self._rooms = Copies(self._pool, self._policy, lambda: int(time.time() * 1000))
        await self._read_catalog()
        await self._read_seats(None)
        self._directory = Directory(lines.send, lines.shards)
        self._client = ClientSession()
        app = make_app(settings.services)
        app[keys.SETTINGS] = settings
        app[keys.HIS_TRUTH] = self._truth
        if config.systems.his is not None:
            self._truth.connect(config.systems.his, self._client)
        app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(settings)
        app[keys.ORIGINS] = Origins(origins_of(settings.origins))
        app[keys.SIGN_IN_RULES] = rules_of(settings)
        sessions = Following(self._stream)
        app[keys.TOKENS] = Tokens(
            config.token_secret,
            settings.access_token_seconds,
            settings.refresh_token_seconds,
            revoked=sessions.revoked,
            seen=sessions.seen,
        )
        app[keys.COOKIES] = Cookies(config.token_secret)
        app[keys.SESSION_TERMS] = terms_of(settings)
        await sessions.read(self._pool)
        app[keys.POOL] = self._pool
        app[keys.PARTNERS] = Partners(
            PartnerTokens(config.token_secret),
            self._pool,
            settings.partner_requests_per_second,
            settings.partner_requests_burst,
        )
        app[keys.VAULT] = vault
        if config.systems.pacs is not None:
            app[keys.ARCHIVE] = Archive(PacsClient(self._client, config.systems.pacs), Checked())
        app[keys.INTAKE] = intake = Intake(self._pool, vault, self._metrics.registry)
        app[keys.RECEIVING_RESULTS] = Receiving(
            self._pool, vault, intake, lambda: catalog.hospital.zone, lambda: datetime.now(UTC)
        )
        app[keys.ERASURES] = erasures
        app[keys.ZONE] = catalog.hospital.zone
        app[keys.POLICY] = self._policy
        app[keys.DIRECTORY] = self._directory
        app[keys.CHANGES] = Changes(self._directory)
        app[keys.WISHES] = Wishes(app)
        app[keys.NIGHTS] = Nights(self._pool)
        app[keys.BOOKED_TIMES] = BookedTimes(self._pool)
        app[keys.AVAILABILITY] = self._availability
        app[keys.PAGES] = self._pages
        app[keys.STREAM] = self._stream
        app[keys.ROOMS] = self._rooms
        app[keys.ACTOR_BOARD] = actor_board = ActorBoard(
            lines.figures,
            lines.shards,
            self._stream,
            catalog.hospital.zone,
            lambda: int(time.time() * 1000),
        )
        app[keys.INDICATOR_BOARD] = indicator_board = IndicatorBoard(
            self._pool, self._availability, self._stream, catalog.hospital.zone
        )
        alerts = Alerts(self._pool, self._stream, catalog.hospital.zone)
        app.on_shutdown.append(_close_stream)
        app[keys.METRICS] = self._metrics
        app[keys.ACCESS_LOG] = self._access_log
        app[keys.OTHERS] = others
        app[keys.NAME] = self._name
        app[keys.FORECASTS] = forecasts = Forecasts(
            self._pool,
            self._rooms,
            self._availability,
            app[keys.NIGHTS],
            catalog.hospital.zone,
            lambda: int(time.time() * 1000),
        )
        app[keys.NOTICING] = self._noticing = Noticing(app, lambda: int(time.time() * 1000))
        app[keys.FEEDS] = feeds = Feeds(app)
        feeds.join(self._stream)
        app[keys.SCREENS] = screens = Screens(app, feeds, self._name)
        app[keys.HEALTH] = self._health = keys.Health()
        if config.wechat_address is not None:
            app_id, app_secret = config.wechat_app
            app[keys.WECHAT] = WeChatClient(self._client, config.wechat_address, app_id, app_secret)
        if config.register is not None:
            app[keys.REAL_NAMES] = RealNames(RealNameClient(self._client, config.register))
        if config.billing is not None:
            app[keys.HOSPITAL_BILLING] = HospitalBilling(HospitalBillingClient(self._client, config.billing))
        wired = wired_providers(self._client, config.payments or Payments())
        app[keys.PROVIDERS] = wired.providers
        app[keys.CALLBACKS] = callbacks_of(wired, self._pool)
        app[keys.RECONCILING] = Reconciling(app, config.database_url)
        if settings.oidc_issuer:
            client = OidcClient(self._client, provider_of(settings))
            app[keys.OIDC] = oidc_of(settings, client, config.token_secret)
        counted = self._metrics
        app[keys.ADMISSION] = Admission(settings.admitted_max, counted.shed, counted.admitted)
        app[keys.REQUESTS], app[keys.PAYMENTS] = (
            Admission(most, counted.shed_besides.labels(lane), counted.admitted_besides.labels(lane))
            for lane, most in (("requests", settings.requests_max), ("payments", settings.payments_max))
        )
        patience = Patience(
            settings.head_seconds_max,
            settings.body_seconds_max,
            settings.idle_seconds_max,
            # What is left of the files is for shards, PostgreSQL and logs.
            settings.stream_connections_max + OTHER_FILES // 2,
        )
        lane = HoldLane(app) if Service.BOOKING in settings.services else None
        self._runner = Door(
            app, lane, patience, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_SECONDS_MAX
        )
        await self._runner.setup()
        listening = _listen(settings.host, settings.port + (self._number if settings.port_each else 0))
        files = settings.tls_files
        tls = None if files is None else context_of(*files)
        await web.SockSite(self._runner, listening, backlog=1024, ssl_context=tls).start()
        self._tasks = [asyncio.create_task(self._follow(shard_id)) for shard_id in range(lines.shards)] + [
            asyncio.create_task(follow_catalog(config.database_url, self._read_catalog)),
            asyncio.create_task(sessions.run(config.database_url, self._pool)),
            asyncio.create_task(watch_lag(self._metrics.lag)),
            asyncio.create_task(self._access_log.run()),
            asyncio.create_task(follow_vault(vault, self._pool, partial(kek_of, settings))),
            asyncio.create_task(self._stream.run()),
            asyncio.create_task(feeds.run()),
            asyncio.create_task(forecasts.run()),
            asyncio.create_task(follow_notices(app, config.database_url)),
            asyncio.create_task(follow_rights(app, config.database_url)),
            asyncio.create_task(screens.run()),
            asyncio.create_task(wired.renew()),
            asyncio.create_task(actor_board.run()),
            asyncio.create_task(indicator_board.run()),
            asyncio.create_task(alerts.run(config.database_url)),
            asyncio.create_task(IntakeFigures(self._metrics.registry).follow(self._pool)),
            asyncio.create_task(ReconciliationFigures(self._metrics.registry).follow(self._pool)),
            asyncio.create_task(
                Errands(config.database_url, self._pool, errands_of(_handlers(app), settings.services)).run()
            ),
        ]
        for lock, rounds in rounds_of(_rounds(app, config.database_url), settings.services):
            self._tasks.append(asyncio.create_task(go(config.database_url, rounds, lock)))
        if settings.backup_to:
            figures = BackupFigures(self._metrics.registry)
            self._tasks.append(asyncio.create_task(figures.follow(self._pool)))
        if tls is not None and files is not None:
            self._tasks.append(asyncio.create_task(follow(tls, *files)))
        settle()
        self._health.is_serving = True
        host, port = listening.getsockname()[:2]
        return f"{'http' if tls is None else 'https'}://{host}:{port}"

    async def stop(self) -> None:
        """Readiness goes first, then the doors, then what was taken in is answered."""
        self._health.is_serving = False
        await self._runner.cleanup()
        await self._directory.close()
        for task in self._tasks:
            task.cancel()
        await self._truth.close()
        await self._client.close()
        await self._pool.close()
        self._access_log.close()

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
                    self._rooms.lost(partial(self._is_of, shard_id))
                else:
                    self._stream.heard(
                        self._availability.change(changes.remaining, changes.plans, changes.seq)
                    )
                    self._rooms.hear(changes.rooms)
                    self._noticing.hear(changes.rooms)
                    self._positions[shard_id] = (changes.epoch, changes.seq)
                    if changes.remaining or changes.plans or changes.rooms:
                        await asyncio.sleep(FEED_PAUSE_SECONDS)
            except ShardAway:
                await asyncio.sleep(RETRY_SECONDS)
            except AWAY as error:
                log.warning("free seats could not be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    def _is_of(self, shard_id: int, stream: str) -> bool:
        return shard_of(stream, self._lines.shards) == shard_id

    async def _read_seats(self, shard_id: int | None) -> None:
        """A snapshot from SQL: at the start, and where a feed has gone on without us."""
        taken = await seats_taken(self._pool)
        mine = None
        if shard_id is not None:
            shards = self._lines.shards
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
            await self._truth.read(connection)
            today = datetime.now(catalog.hospital.zone).date()
            rows = await load_schedules(connection, today - timedelta(days=1))
        self._stream.heard(self._availability.replace(catalog, rows, read_at, self._policy.policy))
        self._rooms.look_again()


def _name_of(services: frozenset[Service]) -> list[str]:
    """In logs and metrics: those of several services may come together in one place."""
    return [] if services == ALL else names_of(services)


def _handlers(app: web.Application) -> dict[str, Handle]:
    """Who does which errand."""
    return {
        **Rehoming(app).handlers(),
        **app[keys.WISHES].handlers(),
        **Attending(app).handlers(),
        **hospital_billing_handlers(app),
        **BillWork(app).handlers(),
        **app[keys.RECONCILING].handlers(),
    }


def _rounds(app: web.Application, database_url: str) -> list[Round]:
    async def review_conduct() -> None:
        async with app[keys.POOL].acquire() as connection:
            await review_recent(connection, app[keys.POLICY].policy, datetime.now(UTC))

    async def forget() -> None:
        async with app[keys.POOL].acquire() as connection:
            await forget_keys(connection, datetime.now(UTC))
            await forget_guesses(connection, datetime.now(UTC))
            await forget_ended(connection, datetime.now(UTC))
            await forget_sign_ins(connection, datetime.now(UTC))
            await forget_callbacks(connection, datetime.now(UTC))
            await forget_messages(connection, datetime.now(UTC))

    async def retry_messages() -> None:
        await app[keys.INTAKE].retry_waiting()

    return [
        Round("arrivals", ARRIVALS_SECONDS, partial(wait_by_themselves, app)),
        Round("no shows", NO_SHOW_SECONDS, partial(mark_no_shows, app)),
        Round("no-show model", LEARN_LOOK_SECONDS, partial(learn_nightly, app, database_url)),
        Round("real names", REAL_NAMES_SECONDS, partial(verify_waiting, app)),
        Round("unconfirmed", UNCONFIRMED_SECONDS, partial(release_unconfirmed, app)),
        Round("conduct", CONDUCT_SECONDS, review_conduct),
        Round("old keys", FORGET_SECONDS, forget),
        Round("intake", INTAKE_SECONDS, retry_messages),
        Round("open money", MONEY_SECONDS, partial(count_money, app)),
        Round("reconciliation", RECONCILE_LOOK_SECONDS, partial(ask_nightly, app, app[keys.RECONCILING])),
        Round("indicators", STEP_SECONDS, Follower(database_url).step),
        Round("waiting times", WAITING_TIME_LOOK_SECONDS, partial(learn_waiting_times, app, database_url)),
        *privacy_rounds(app),
        *app[keys.NOTICING].rounds(),
        *app[keys.WISHES].rounds(),
    ]


async def _connected(database_url: str) -> asyncpg.Pool:
    """A pool with a first connection. A machine that starts everything at once may be slow to give it."""
    for left in reversed(range(START_TRIES)):
        try:
            return await database.pool(
                database_url,
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
    # Who asks and then does not read the answer is gone after a while. Connections have it from here.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS_MAX * 1000))
    listening.bind((host, port))
    return listening
