"""The second place as an operator names it: a directory, or s3://bucket/prefix?endpoint=https://…&region=…"""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import aiohttp

from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys, read_key_file
from engine.backup.places import Directory, Place
from engine.settings import Settings
from integrations.object_store.client import Bucket, ObjectStore
from integrations.object_store.place import StorePlace
from integrations.object_store.signing import Credentials

REGION_DEFAULT: Final = "us-east-1"


def keys_of(settings: Settings) -> Keys:
    if settings.backup_key_file is None:
        raise BackupFailed(
            "backups need a key: make one with `xinglin backup key FILE`, and name it with --key-file or"
            " XINGLIN_BACKUP_KEY_FILE"
        )
    return read_key_file(settings.backup_key_file)


@contextlib.asynccontextmanager
async def place_of(settings: Settings) -> AsyncIterator[Place]:
    """Raises BackupFailed when the name means nothing or the place is not there."""
    if not settings.backup_to:
        raise BackupFailed("where to? name the second place with --to, --from or XINGLIN_BACKUP_TO")
    parts = urlsplit(settings.backup_to)
    if parts.scheme != "s3":
        if "://" in settings.backup_to:
            raise BackupFailed(
                f"{parts.scheme}:// is no place for backups: name a directory, or s3://bucket/prefix"
            )
        directory = Directory(Path(settings.backup_to))
        await directory.names("-")  # says so when it is not there
        yield directory
        return
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    region = query.pop("region", REGION_DEFAULT)
    endpoint = query.pop("endpoint", f"https://s3.{region}.amazonaws.com")
    secret = settings.backup_s3_secret_key.get_secret_value()
    if not parts.hostname or query or parts.username or urlsplit(endpoint).scheme not in ("http", "https"):
        raise BackupFailed(
            "the place is s3://bucket/prefix?endpoint=https://host&region=name, and nothing else"
        )
    if not settings.backup_s3_access_key or not secret:
        raise BackupFailed(
            "an object store needs XINGLIN_BACKUP_S3_ACCESS_KEY and XINGLIN_BACKUP_S3_SECRET_KEY"
        )
    async with aiohttp.ClientSession() as session:
        store = ObjectStore(
            session,
            Bucket(endpoint, parts.netloc),
            Credentials(settings.backup_s3_access_key, secret, region),
            lambda: datetime.now(UTC),
        )
        yield StorePlace(store, f"s3://{parts.netloc}{parts.path} at {endpoint}", parts.path)


def same_disk(settings: Settings) -> bool:
    """Whether the second place would be lost together with the home."""
    if "://" in settings.backup_to:
        return False
    home = settings.home.resolve()
    while not home.exists():  # it is made later
        home = home.parent
    with contextlib.suppress(OSError):
        return Path(settings.backup_to).stat().st_dev == home.stat().st_dev
    return False
