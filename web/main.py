"""The composition root: starts everything, in the right order, and stops it the other way round."""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path

from aiohttp import web as http

from actors.cluster import START_SECONDS_MAX, Cluster, OthersShards, OwnShards, start_ray, stop_ray
from engine import database, embedded_postgres, logs
from engine.audit.signing_key import KeyFailed, SigningKey, key_of
from engine.backup.failed import BackupFailed
from engine.database import AWAY
from engine.embedded_postgres import EmbeddedPostgres
from engine.records.catalog import NOT_IMPORTED, load_catalog, publish_schedules
from engine.records.erasure import Clock, erase_again
from engine.records.hospital_file import read_hospital
from engine.records.hospital_import import import_hospital
from engine.records.plain_rows import seal_plain_rows
from engine.records.policies import of_settings
from engine.records.policy_file import PolicyRefused
from engine.records.shard_routes import begin
from engine.services import ALL, Service, names_of
from engine.settings import Settings
from engine.vault.erasures import ErasureFailed
from engine.vault.failed import VaultFailed
from engine.vault.memory import no_core_files
from engine.vault.opening import open_vault
from integrations.wechat.sandbox import sandbox_app
from web import backup_beside
from web.audit_notary import notarised
from web.auth import SECRET_BYTES_MIN
from web.bills.merchants import MerchantFailed, Payments
from web.demo_staff import DEMO_PASSWORD, DEMO_STAFF, close_demo_staff, open_demo_staff
from web.erasing import erasures_of
from web.gateway import GatewayConfig, HttpGateway
from web.his.configured import HisFileRefused
from web.hospital_billing_beside import billing_of, sandbox_page
from web.payments_beside import payments_of
from web.real_name_beside import register_of
from web.services import systems_of as systems_here
from web.serving import locks
from web.serving.joining import CannotJoin, joined
from web.serving.locks import Taken
from web.sync.config import SyncConfig
from web.sync.process import SyncProcess
from web.sync.systems import systems_of
from web.systems_beside import systems_beside
from web.tls import TlsFailed, context_of

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 60.0
WATCH_SECONDS = 0.1
DEMO_HOSPITAL = resources.files("web") / "demo" / "hospital"


class CannotStart(Exception):
    """One line that says what is wrong and what to do."""


def serve(settings: Settings) -> None:
    """Runs until SIGTERM or Ctrl-C, then drains. Raises CannotStart with one clear line."""
    home = settings.home.resolve()
    logs.configure("WARNING", None, "main", settings.log_format)
    no_core_files()
    for number in range(settings.gateways if settings.port_each else 1):
        _check_port(settings.host, settings.port + number)
    if settings.tls_files is not None:
        try:
            context_of(*settings.tls_files)
        except TlsFailed as failed:
            raise CannotStart(str(failed)) from None
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"cannot use {home} as home: {error.strerror}; choose another --home") from None
    if settings.ray_address is not None and settings.database_url is None:
        raise CannotStart("a cluster needs a database that all its nodes reach: pass --database-url")
    if settings.services != ALL and settings.database_url is None:
        raise CannotStart(
            "services started apart need a database that all of them reach: pass --database-url"
        )
    try:
        asyncio.run(backup_beside.check(settings))
    except BackupFailed as failed:
        raise CannotStart(str(failed)) from None
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_postgres(home)) if settings.database_url is None else None
            url = server.url if server else settings.database_url.get_secret_value()  # type: ignore[union-attr]
            stack.enter_context(_ray(settings, prepare=partial(_prepare, url, settings)))
            asyncio.run(_run(settings, server, url, home))
        except (
            embedded_postgres.PostgresFailed,
            database.DatabaseFailed,
            VaultFailed,
            ErasureFailed,
            MerchantFailed,
            HisFileRefused,
            CannotJoin,
            Taken,
        ) as failed:
            raise CannotStart(str(failed)) from None
        except PolicyRefused as refused:
            raise CannotStart(
                f"the policy in force cannot be read ({refused.errors[0]}): put a right one in force with"
                " `xinglin policy apply`"
            ) from None


@contextlib.contextmanager
def _postgres(home: Path) -> Iterator[EmbeddedPostgres]:
    """A server of our own, for as long as the context lasts."""
    server = embedded_postgres.start(home)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _ray(settings: Settings, prepare: partial[None]) -> Iterator[None]:
    """Ray takes seconds to start; the database is prepared beside it."""
    failed: list[Exception] = []

    def beside() -> None:
        try:
            prepare()
        except Exception as error:
            failed.append(error)

    helper = threading.Thread(target=beside)
    helper.start()
    folder = None if settings.ray_address else tempfile.mkdtemp(prefix="xl-")
    try:
        start_ray(settings.ray_address, folder)
        helper.join()
        if failed:
            raise failed[0]
        yield
    finally:
        helper.join()
        stop_ray()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(url: str, settings: Settings) -> None:
    asyncio.run(_prepare_database(url, settings))


async def _prepare_database(url: str, settings: Settings) -> None:
    """The schema, the fence around earlier runs, and something to book."""
    if settings.database_url is None:
        await database.create_if_missing(url)
    connection = await database.connect(url)
    try:
        # Before the fence: the other one must not feel this.
        await locks.take(connection, url, settings.services)
        await database.check_durable(connection)
        if Service.BOOKING not in settings.services:
            return  # the rest is another's: web/serving/joining.py waits for it
        if settings.database_url is None:
            await database.keep_rows_out_of_the_log(connection)
        await database.migrate(connection)
        if settings.database_url is None:
            await database.let_app_in(connection, embedded_postgres.app_password(settings.home.resolve()))
        vault = await open_vault(connection, settings)  # before anybody writes about a person
        await seal_plain_rows(connection, vault)
        erasures = erasures_of(settings)
        await erasures.apply(connection)
        # Whatever process of an earlier run still lives, it writes no more; a run may have other shards.
        await connection.execute("update shard set epoch = epoch + 1")
        catalog = await load_catalog(connection)
        await erase_again(connection, erasures, Clock(datetime.now(UTC), catalog.hospital.zone))
        today = datetime.now(catalog.hospital.zone).date()
        if settings.demo and catalog.hospital == NOT_IMPORTED:
            with resources.as_file(DEMO_HOSPITAL) as folder:
                await import_hospital(connection, read_hospital(folder), today, settings.publish_days)
        else:
            await publish_schedules(connection, today, settings.publish_days)
        if settings.demo:
            await open_demo_staff(connection, await load_catalog(connection))
        else:
            await close_demo_staff(connection)
    finally:
        await connection.close()


async def _run(settings: Settings, server: EmbeddedPostgres | None, url: str, home: Path) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    secret = _secret(home)
    has_shards = Service.BOOKING in settings.services
    takes_money = Service.PAYMENT in settings.services
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(locks.held(url, settings.services, stopping))
        working = _working_url(settings, server, url, home)
        shards: OwnShards | OthersShards = OthersShards(working, secret)
        if has_shards:
            shards = await _own_shards(url, settings, secret)
            await enter(backup_beside.archiving(settings, home))
            await enter(notarised(url, home, _audit_key(settings, home), settings))
        elif not await joined(url, settings, secret, stopping):
            return
        wechat_address = await enter(_sandbox(settings))
        register = await enter(register_of(settings)) if has_shards else None
        billing = await enter(billing_of(settings)) if takes_money else None
        payments = await enter(payments_of(settings, home)) if takes_money else Payments()
        # Sandboxes are beside the service that speaks with them; systems that are set up are known to all.
        plays = Service.INTEGRATION in settings.services
        systems = await enter(
            systems_beside(settings if plays else settings.model_copy(update={"demo_systems": ""}), home)
        )
        log_folder = None if settings.ray_address else home / "logs"
        config = GatewayConfig(
            settings.model_copy(update={"home": home}),  # gateways have another working directory
            working,
            secret,
            wechat_address,
            (settings.wechat_app_id or "sandbox", settings.wechat_app_secret.get_secret_value() or "sandbox"),
            register,
            billing,
            payments,
            log_folder,
            systems.config,
        )
        cluster = Cluster(
            working,
            shards,
            settings.standbys,
            settings.gateways,
            of_settings(settings),
            partial(HttpGateway, config=config),
            settings.log_level,
            log_folder,
            settings.log_format,
            _beside(config),
        )
        tasks = [asyncio.create_task(_publish_daily(url, settings))] if has_shards else []
        if server is not None:
            tasks.append(asyncio.create_task(_keep_running(server)))
        try:
            try:
                addresses = await cluster.start()
            except TimeoutError:
                raise CannotStart(
                    f"not everything was up after {START_SECONDS_MAX:.0f} s: see the logs of {home}"
                ) from None
            _greet(
                settings, home, addresses, payments.pay_page, sandbox_page(settings, billing), systems.pages
            )
            await stopping.wait()
            print("draining: nothing that was answered is lost …", flush=True)
        finally:
            for task in tasks:
                task.cancel()
            await cluster.stop()
    print("stopped", flush=True)


def _beside(config: GatewayConfig) -> list[partial[SyncProcess]]:
    """A process for each outside system that these services speak with."""
    sync = SyncConfig(
        config.settings, config.systems, config.database_url, config.token_secret, config.log_folder
    )
    names = systems_here(systems_of(config.systems), config.settings.services)
    return [partial(SyncProcess, name, sync) for name in names]


async def _keep_running(server: EmbeddedPostgres) -> None:
    """Starts the embedded server again when it dies. Blocks this process's loop meanwhile, and nobody else's:
    the server is tied to this very thread."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if not server.is_running:
            log.warning("PostgreSQL ended with status %s and is started again", server.process.returncode)
            server.start_again()


async def _own_shards(url: str, settings: Settings, secret: bytes) -> OwnShards:
    """Says to the other services that a new run begins."""
    connection = await database.connect(url)
    try:
        run = await begin(connection, settings.shards, secret)
        return OwnShards(run.shards, run.link_secret(secret))
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _sandbox(settings: Settings) -> AsyncIterator[str | None]:
    """Where sign-in codes are checked: WeChat, or in a demo a server of ours that speaks its wire."""
    if settings.wechat_app_id:
        yield settings.wechat_address
        return
    if not settings.demo:
        yield None
        return
    runner = http.AppRunner(sandbox_app())
    await runner.setup()
    site = http.TCPSite(runner, "127.0.0.1", port := embedded_postgres.free_port())
    await site.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def _publish_daily(url: str, settings: Settings) -> None:
    """Each new day of the hospital opens one more day to book."""
    published = None
    while True:
        try:
            connection = await database.connect(url)
            try:
                zone = (await load_catalog(connection)).hospital.zone
                today = datetime.now(zone).date()
                if today != published:
                    await publish_schedules(connection, today, settings.publish_days)
                    published = today
            finally:
                await connection.close()
        except (PolicyRefused, *AWAY) as error:
            log.warning("the next day could not be published yet: %s", error)
        await asyncio.sleep(PUBLISH_SECONDS)


def _working_url(settings: Settings, server: EmbeddedPostgres | None, url: str, home: Path) -> str:
    """With which gateways and shards connect: they may add to journal and audit, and not change them."""
    if server is not None:
        return server.url_of(database.APP_ROLE, embedded_postgres.app_password(home))
    if settings.app_database_url is not None:
        return settings.app_database_url.get_secret_value()
    return database.as_app(url)


def _audit_key(settings: Settings, home: Path) -> SigningKey:
    try:
        return key_of(home, settings.audit_key.get_secret_value())
    except KeyFailed as failed:
        raise CannotStart(str(failed)) from None


def _secret(home: Path) -> bytes:
    """The key of our tokens: made once, readable to nobody else."""
    given = os.environ.get("XINGLIN_TOKEN_SECRET")
    if given:
        return given.encode()
    home.mkdir(parents=True, exist_ok=True)
    file = home / "token.key"
    if not file.exists():
        # Whole or not at all, and the first one counts: services of one home may start together.
        made = home / f"token.key.{os.getpid()}"
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_bytes(SECRET_BYTES_MIN))
        with contextlib.suppress(FileExistsError):
            os.link(made, file)
        made.unlink()
    return file.read_bytes()


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
            ) from None


def _greet(
    settings: Settings,
    home: Path,
    addresses: list[str],
    pay_page: str,
    billing: str,
    systems: Mapping[str, str],
) -> None:
    address = addresses[0]
    services = settings.services
    what = "" if services == ALL else f"{', '.join(names_of(services))} "
    shards = f", {settings.shards} shards" if Service.BOOKING in services else ""
    lines = [
        "",
        f"  Xinglin 杏林 serves {what}at {address}",
        f"    API        {address}/docs   (OpenAPI 3.1: {address}/openapi.json)",
        f"    health     {address}/healthz   {address}/readyz   {address}/metrics",
        f"    home       {home}   ({settings.gateways} gateways{shards})",
    ]
    if settings.demo and not settings.wechat_app_id:
        lines += [
            '    demo login {"grant":"wechat","code":"sandbox:demo"}   (any sandbox:<name> is a person)',
            f"      curl -s {address}/api/v1/sessions -H 'Content-Type: application/json' \\",
            """           -d '{"grant":"wechat","code":"sandbox:demo"}'""",
        ]
    if settings.demo:
        lines += [
            f"    demo staff {', '.join(username for username, _, _ in DEMO_STAFF)}",
            f'      {{"grant":"password","username":"{DEMO_STAFF[0][0]}","password":"{DEMO_PASSWORD}"}}',
        ]
    if pay_page:
        lines.append(f"    demo pay   {pay_page}   (WeChat Pay and Alipay in a sandbox: pay, fail, be late)")
    if billing:
        lines.append(f"    demo HIS   {billing}   (drugs and examinations: docs/HOSPITAL_BILLING.md)")
    lines += [f"    demo {name.upper():5} {page}" for name, page in systems.items()]
    lines += ["  Ctrl-C drains and stops.", ""]
    print("\n".join(lines), flush=True)
