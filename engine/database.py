"""Connections to PostgreSQL, and the schema that they need."""

import asyncio
import re
from importlib import resources
from typing import Final

import asyncpg

CONNECT_SECONDS_MAX = 5.0
APP_ROLE: Final = "xinglin_app"


class DatabaseFailed(Exception):
    """One line that says what is wrong and what to do."""


class DatabaseAway(DatabaseFailed):
    """The server does not answer now; it may later. What else is wrong with a database stays so."""


AWAY: Final = (
    DatabaseAway,
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that was dropped amid a statement
)
"""What whoever asks again and again waits out: the database is not there, or could not do it just now."""

# For connections that only look things up by key. A plan made while a table was small would else read it all
# for ever after: plans are kept, and tables here grow from nothing to millions of rows within an hour.
BY_KEY: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}


async def connect(url: str, settings: dict[str, str] | None = None) -> asyncpg.Connection:
    """One connection, or DatabaseAway saying which server did not answer and why."""
    try:
        return await asyncpg.connect(url, timeout=CONNECT_SECONDS_MAX, server_settings=settings)
    except AWAY as error:
        raise DatabaseAway(f"PostgreSQL at {address_of(url)} does not answer: {_why(error)}") from None


async def pool(
    url: str,
    *,
    max_size: int,
    timeout: float = CONNECT_SECONDS_MAX,
    command_timeout: float | None = None,
    settings: dict[str, str] | None = None,
) -> asyncpg.Pool:
    """Connections for short work, one of them open already. Whoever needs a session's own state (a lock, a
    channel, a setting) opens a connection of his own with `connect`: so nothing has to be taken back when one
    returns, and asyncpg's second round trip for that, as dear as the work itself, falls away."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=max_size,
        timeout=timeout,
        command_timeout=command_timeout,
        server_settings=settings,
        reset=_as_it_is,
    )


async def _as_it_is(connection: asyncpg.Connection) -> None:
    """asyncpg itself has ended an open transaction and forgotten listeners by now."""


async def create_if_missing(url: str) -> None:
    """The database that `url` names, made by way of the server's `postgres` database."""
    server, _, name = url.rpartition("/")
    connection = await connect(f"{server}/postgres")
    try:
        if not await connection.fetchval("select 1 from pg_database where datname = $1", name):
            quoted = '"' + name.replace('"', '""') + '"'
            await connection.execute(f"create database {quoted}")
    finally:
        await connection.close()


async def migrate(connection: asyncpg.Connection) -> list[str]:
    """Brings the schema up to date, each step in its own transaction; gives the names of the steps done."""
    done = []
    async with connection.transaction():
        # One migration at a time, however many processes start together.
        await connection.execute("select pg_advisory_xact_lock(hashtext('xinglin.migrate'))")
        if not await connection.fetchval("select to_regclass('migration') is not null"):
            await connection.execute(
                "create table migration (name text primary key, at timestamptz not null default now())"
            )
        have = {row["name"] for row in await connection.fetch("select name from migration")}
        for name, sql in _steps():
            if name not in have:
                try:
                    await connection.execute(sql)
                except asyncpg.InsufficientPrivilegeError as error:
                    raise DatabaseFailed(f"the step {name} of the schema is not allowed: {error}") from None
                await connection.execute("insert into migration (name) values ($1)", name)
                done.append(name)
        if done:
            await connection.execute("select grant_app_rights()")
        _must_not_be_newer(have)
    return done


async def missing_steps(connection: asyncpg.Connection) -> list[str]:
    """What `migrate` would do. Raises DatabaseFailed where the schema is newer than this program."""
    have = set[str]()
    if await connection.fetchval("select to_regclass('migration') is not null"):
        have = {row["name"] for row in await connection.fetch("select name from migration")}
    _must_not_be_newer(have)
    return [name for name, _ in _steps() if name not in have]


def _must_not_be_newer(have: set[str]) -> None:
    if unknown := sorted(have - {name for name, _ in _steps()}):
        raise DatabaseFailed(f"the database is newer than this program (it has {unknown[-1]}): upgrade first")


async def check_durable(connection: asyncpg.Connection) -> None:
    """Law 2: no server that may forget an acknowledged booking."""
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        value = await connection.fetchval("select current_setting($1)", name)
        if value == "off":
            raise DatabaseFailed(f"the database has {name}=off, so a crash may lose bookings: turn it on")


async def keep_rows_out_of_the_log(connection: asyncpg.Connection) -> None:
    """For the server that is our own: its log does not tell this role's errors.

    Their messages may repeat what somebody typed; whoever asked gets them, and our log words them. What the
    server's own processes have to say (checkpoints, vacuum, a damaged page) is still written. New sessions.
    """
    await connection.execute("alter role current_user set log_min_messages = 'log'")


async def wait_for(url: str, seconds: float) -> asyncpg.Connection:
    """Keeps trying for so long; a restarting server refuses connections for a moment."""
    ends = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await connect(url)
        except DatabaseAway:
            if asyncio.get_running_loop().time() >= ends:
                raise
            await asyncio.sleep(0.1)


async def let_app_in(connection: asyncpg.Connection, password: str) -> None:
    """The app's role signs in by itself, so that it cannot become the owner again. For our own server."""
    quoted = await connection.fetchval("select quote_literal($1)", password)
    await connection.execute(f"alter role {APP_ROLE} login password {quoted}")
    await connection.execute(f"alter role {APP_ROLE} set log_min_messages = 'log'")


def as_app(url: str) -> str:
    """The same database for gateways and shards: as a role that can add to the journal and to the audit, and
    can neither change nor remove what is there (engine/migrations/0025_audit.sql)."""
    return f"{url}{'&' if '?' in url else '?'}role={APP_ROLE}"


def address_of(url: str) -> str:
    """The URL without its password, fit for a log."""
    return re.sub(r"//([^:@/]*):[^@/]*@", r"//\1@", url)


def _steps() -> list[tuple[str, str]]:
    folder = resources.files("engine") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(f.name.removesuffix(".sql"), f.read_text()) for f in files]


def _why(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
