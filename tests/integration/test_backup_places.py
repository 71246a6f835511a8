"""The two kinds of second place keep one contract; the object store is one that checks signatures."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from engine.backup.failed import BackupFailed
from engine.backup.places import Directory, Place
from engine.settings import Settings
from integrations.connector import Refused, TryAgain
from integrations.object_store.client import TRIES, Bucket, ObjectStore
from integrations.object_store.place import StorePlace
from integrations.object_store.sandbox import Sandbox
from integrations.object_store.signing import Credentials
from web.backup_place import place_of

CREDENTIALS = Credentials("backup", "an-object-store-secret", "cn-north-1")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def sandbox() -> AsyncIterator[tuple[Sandbox, str]]:
    """The store and its address."""
    sandbox = Sandbox("hospital", CREDENTIALS, now, page=3)
    async with TestServer(sandbox.app()) as server:
        yield sandbox, f"http://127.0.0.1:{server.port}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def store(
    address: str, session: aiohttp.ClientSession, credentials: Credentials = CREDENTIALS
) -> ObjectStore:
    return ObjectStore(session, Bucket(address, "hospital"), credentials, now, pause_seconds=0)


@pytest.fixture(params=["directory", "store"])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sandbox: tuple[Sandbox, str],
    session: aiohttp.ClientSession,
) -> Place:
    if request.param == "directory":
        return Directory(tmp_path)
    return StorePlace(store(sandbox[1], session), "s3://hospital/backups", "/backups/")


async def test_a_place_keeps_what_it_is_given(place: Place) -> None:
    await place.begin("a")
    await place.begin("b c")
    content = bytes(range(256)) * 5000
    for name in ("a/chain", "a/base-1.00000", "a/wal-01", "a/wal-01.00002000", "b c/chain~"):
        await place.put(name, content + name.encode())
    await place.put("a/chain", b"replaced")
    assert await place.get("a/chain") == b"replaced"
    assert await place.get("b c/chain~") == content + b"b c/chain~"
    assert await place.names("a") == ["a/base-1.00000", "a/chain", "a/wal-01", "a/wal-01.00002000"]
    assert await place.names() == [*await place.names("a"), "b c/chain~"]
    await place.delete("a/wal-01")
    await place.delete("a/wal-01")
    assert "a/wal-01" not in await place.names("a")
    assert await place.names("nothing") == []


async def test_what_is_missing_is_named(place: Place) -> None:
    await place.begin("a")
    with pytest.raises(BackupFailed, match="a/wal-01 is missing in"):
        await place.get("a/wal-01")


async def test_a_disk_that_is_not_mounted_is_not_written_to(tmp_path: Path) -> None:
    mounted, empty = tmp_path / "mounted", tmp_path / "empty"
    mounted.mkdir()
    place = Directory(mounted)
    await place.begin("a")
    await place.put("a/chain", b"1")
    mounted.rename(tmp_path / "elsewhere")
    with pytest.raises(BackupFailed, match="there is no directory"):
        await place.put("a/wal-01", b"2")
    mounted.symlink_to(empty)
    empty.mkdir()  # the mount point without its disk
    with pytest.raises(BackupFailed, match="No such file"):
        await place.put("a/wal-01", b"2")
    assert list(empty.iterdir()) == []


async def test_files_are_nobody_elses_and_whole(tmp_path: Path) -> None:
    place = Directory(tmp_path)
    await place.begin("a")
    await place.put("a/chain", b"1")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a/chain").stat().st_mode & 0o777 == 0o600
    (tmp_path / "a/wal-01.new").write_bytes(b"half")  # what a crash in the middle leaves
    assert await place.names("a") == ["a/chain"]


async def test_a_store_that_is_busy_is_asked_again(
    sandbox: tuple[Sandbox, str], session: aiohttp.ClientSession
) -> None:
    held, address = sandbox
    held.down = TRIES - 1
    await store(address, session).put("x", b"1")
    assert held.objects == {"x": b"1"}
    held.down = TRIES
    with pytest.raises(TryAgain, match="SlowDown"):
        await store(address, session).put("y", b"1")
    assert held.down == 0


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        (Credentials("backup", "not-the-secret", "cn-north-1"), "SignatureDoesNotMatch"),
        (Credentials("somebody", "an-object-store-secret", "cn-north-1"), "InvalidAccessKeyId"),
        (Credentials("backup", "an-object-store-secret", "us-east-1"), "AuthorizationHeaderMalformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_wrong_credentials_are_refused_once_and_not_quoted(
    sandbox: tuple[Sandbox, str], session: aiohttp.ClientSession, credentials: Credentials, code: str
) -> None:
    held, address = sandbox
    with pytest.raises(Refused, match=code) as refused:
        await store(address, session, credentials).put("x", b"1")
    assert held.asked == 1 and held.objects == {}
    assert credentials.secret_key not in str(refused.value)


async def test_a_clock_that_is_wrong_is_told_apart(
    sandbox: tuple[Sandbox, str], session: aiohttp.ClientSession
) -> None:
    late = ObjectStore(
        session, Bucket(sandbox[1], "hospital"), CREDENTIALS, lambda: now() - timedelta(hours=1)
    )
    with pytest.raises(Refused, match="RequestTimeTooSkewed"):
        await late.get("x")


async def test_nobody_there_is_one_line(session: aiohttp.ClientSession) -> None:
    place = StorePlace(store("http://127.0.0.1:1", session), "s3://hospital", "")
    with pytest.raises(BackupFailed, match="cannot be listed at s3://hospital: object store:"):
        await place.names()


async def test_a_place_by_its_name(sandbox: tuple[Sandbox, str]) -> None:
    held, address = sandbox
    settings = Settings(
        backup_to=f"s3://hospital/xinglin?endpoint={address}&region=cn-north-1",
        backup_s3_access_key="backup",
        backup_s3_secret_key=CREDENTIALS.secret_key,  # type: ignore[arg-type]
    )
    async with place_of(settings) as place:
        await place.put("a/chain", b"1")
        assert CREDENTIALS.secret_key not in place.address
    assert held.objects == {"xinglin/a/chain": b"1"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "where to"),
        ("/nowhere/at/all", "there is no directory /nowhere/at/all"),
        ("ftp://host/x", "ftp:// is no place"),
        ("s3://", "the place is s3://bucket"),
        ("s3://b/p?endpoint=host", "the place is s3://bucket"),
        ("s3://b/p?secret=x", "the place is s3://bucket"),
        ("s3://b/p", "needs XINGLIN_BACKUP_S3_ACCESS_KEY"),
    ],
)
async def test_a_name_that_means_nothing_is_one_line(name: str, says: str) -> None:
    with pytest.raises(BackupFailed, match=says) as failed:
        async with place_of(Settings(backup_to=name)):
            raise AssertionError("it was taken for a place")
    assert "\n" not in str(failed.value)
