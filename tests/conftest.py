"""One PostgreSQL for the whole run, and a fresh, migrated database for each test that asks."""

import re
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from engine import embedded_postgres
from engine.vault.sealing import Profile
from engine.vault.vault import Vault, made_masters
from tests.support.copies import copied, migrated

_ROOT = Path(__file__).parent.parent
_STARTS_A_SYSTEM = re.compile(r"tests\.support\.(system|two_nodes)|two_nodes|benchmarks\.serving|tests/chaos")


class InTurn(LoadScopeScheduling):
    """With two workers, whole systems start one after another in one of them; of the rest, each file is one
    worker's, so that its fixtures are made once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "whole systems" if _starts_a_system(file) else file


@cache
def _starts_a_system(file: str) -> bool:
    return bool(_STARTS_A_SYSTEM.search(file + (_ROOT / file).read_text()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with whole systems first: together they take longest."""
    items.sort(key=lambda item: not _starts_a_system(item.nodeid.partition("::")[0]))


def pytest_make_parametrize_id(val: object) -> str | None:
    """A worker tells the names of its tests as UTF-8; half a surrogate pair is none. None: pytest's own."""
    if isinstance(val, str) and not val.isascii():
        return val.encode("ascii", "backslashreplace").decode()
    return None


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """So it tells what a test logged and how it failed: half a pair in there would end the worker."""
    return _utf8((yield))


def _utf8(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_utf8(key): _utf8(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_utf8, data))
    return data


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> InTurn:
    return InTurn(config, log)


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded_postgres.EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="xinglin-test-") as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.start(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def original(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    """Migrated once a run; nobody connects to it."""
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def database(original: str) -> AsyncIterator[str]:
    """The URL of a database of this test's own, with the schema in it."""
    async with copied(original) as url:
        yield url


@pytest.fixture
def vault() -> Vault:
    """One of this test's own: no database knows its keys."""
    return Vault(made_masters(), Profile.AES)
