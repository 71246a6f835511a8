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
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path

import asyncpg
from aiohttp import web as http

from actors.cluster import START_SECONDS_MAX, Cluster, start_ray, stop_ray
from engine import database, embedded_postgres, logs
from engine.audit.signing_key import KeyFailed, SigningKey, key_of
from engine.backup.failed import BackupFailed
from engine.embedded_postgres import EmbeddedPostgres
from engine.records.catalog import NOT_IMPORTED, load_catalog, publish_schedules
from engine.records.erasure import Clock, erase_again
from engine.records.hospital_file import read_hospital
from engine.records.hospital_import import import_hospital
from engine.records.plain_rows import seal_plain_rows
from engine.records.policies import of_settings
from engine.records.policy_file import PolicyRefused
from engine.settings import Settings
from engine.vault.erasures import ErasureFailed
from engine.vault.failed import VaultFailed
from engine.vault.memory import no_core_files
from engine.vault.opening import open_vault
from integrations.wechat.sandbox import sandbox_app
from web import backup_beside
from web.audit_notary import notarised
from web.auth import SECRET_BYTES_MIN
from web.bills.merchants import MerchantFailed
from web.demo_staff import DEMO_PASSWORD, DEMO_STAFF, close_demo_staff, open_demo_staff
from web.erasing import erasures_of
from web.gateway import GatewayConfig, HttpGateway
from web.hospital_billing_beside import billing_of, sandbox_page
from web.payments_beside import payments_of
from web.real_name_beside import register_of
from web.tls import TlsFailed, context_of

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 60.0
WATCH_SECONDS = 0.1
_LOCK = "select pg_try_advisory_lock(hashtext('xinglin.serve'))"
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
        if not await connection.fetchval(_LOCK):  # before the fence: the other one must not feel this
            raise _another(url)
        await database.check_durable(connection)
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
    async with (
        _alone(url, stopping),
        backup_beside.archiving(settings, home),
        notarised(url, home, _audit_key(settings, home), settings),
        _sandbox(settings) as wechat_address,
        register_of(settings) as register,
        billing_of(settings) as billing,
        payments_of(settings, home) as payments,
    ):
        working = _working_url(settings, server, url, home)
        log_folder = None if settings.ray_address else home / "logs"
        config = GatewayConfig(
            settings.model_copy(update={"home": home}),  # gateways have another working directory
            working,
            _secret(home),
            wechat_address,
            (settings.wechat_app_id or "sandbox", settings.wechat_app_secret.get_secret_value() or "sandbox"),
            register,
            billing,
            payments,
            log_folder,
        )
        cluster = Cluster(
            working,
            settings.shards,
            settings.standbys,
            settings.gateways,
            of_settings(settings),
            partial(HttpGateway, config=config),
            settings.log_level,
            log_folder,
            settings.log_format,
        )
        tasks = [asyncio.create_task(_publish_daily(url, settings))]
        if server is not None:
            tasks.append(asyncio.create_task(_keep_running(server)))
        try:
            try:
                addresses = await cluster.start()
            except TimeoutError:
                raise CannotStart(
                    f"not everything was up after {START_SECONDS_MAX:.0f} s: see the logs of {home}"
                ) from None
            _greet(settings, home, addresses, payments.pay_page, sandbox_page(settings, billing))
            await stopping.wait()
            print("draining: nothing that was answered is lost …", flush=True)
        finally:
            for task in tasks:
                task.cancel()
            await cluster.stop()
    print("stopped", flush=True)


async def _keep_running(server: EmbeddedPostgres) -> None:
    """Starts the embedded server again when it dies. Blocks this process's loop meanwhile, and nobody else's:
    the server is tied to this very thread."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if not server.is_running:
            log.warning("PostgreSQL ended with status %s and is started again", server.process.returncode)
            server.start_again()


def _another(url: str) -> CannotStart:
    return CannotStart(
        f"another xinglin serves from {database.address_of(url)}: stop it, or use another database"
    )


@contextlib.asynccontextmanager
async def _alone(url: str, stopping: asyncio.Event) -> AsyncIterator[None]:
    """Two of us on one database would fence each other off for ever: the second one stays out."""
    connection = await database.connect(url)
    try:
        if not await connection.fetchval(_LOCK):
            raise _another(url)
    except BaseException:
        await connection.close()
        raise
    keeper = asyncio.create_task(_stay_alone(url, connection, stopping))
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def _stay_alone(url: str, connection: asyncpg.Connection, stopping: asyncio.Event) -> None:
    """The lock goes with its connection: after a lost one it is taken again, or we stop."""
    try:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if connection.is_closed():
                try:
                    connection = await database.connect(url)
                except database.DatabaseFailed:
                    continue
                if not await connection.fetchval(_LOCK):
                    log.critical("another xinglin took over while the database was away: this one stops")
                    stopping.set()
    finally:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await connection.close(timeout=2)


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
        except (
            database.DatabaseFailed,
            PolicyRefused,
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as error:
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
    try:
        return file.read_bytes()
    except FileNotFoundError:
        made = secrets.token_bytes(SECRET_BYTES_MIN)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(made)
        return made


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


def _greet(settings: Settings, home: Path, addresses: list[str], pay_page: str, billing: str) -> None:
    address = addresses[0]
    lines = [
        "",
        f"  Xinglin 杏林 serves at {address}",
        f"    API        {address}/docs   (OpenAPI 3.1: {address}/openapi.json)",
        f"    health     {address}/healthz   {address}/readyz   {address}/metrics",
        f"    home       {home}   ({settings.gateways} gateways, {settings.shards} shards)",
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
    lines += ["  Ctrl-C drains and stops.", ""]
    print("\n".join(lines), flush=True)
