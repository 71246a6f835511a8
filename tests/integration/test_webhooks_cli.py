"""`xinglin webhooks`, over a database of the test's own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner, Result

from engine.embedded_postgres import EmbeddedPostgres
from tests.support.copies import migrated
from web.cli import main


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


def test_registered_listed_disabled_and_enabled_at_the_machine(database: str, tmp_path: Path) -> None:
    def said(*words: str) -> Result:
        at = ["--home", str(tmp_path), "--database-url", database]
        return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["webhooks", *words, *at])

    assert said("add", "https://10.0.0.1/hook").exit_code == 1
    assert said("add", "https://example.com/hook", "--type", "nothing").exit_code == 1
    made = said("add", "https://example.com/hook", "--type", "appointment.*")
    assert made.exit_code == 0, made.output
    id_, secret = made.output.split()[0], made.output.split()[2]
    assert secret.startswith("whsec_")
    listed = said("list").output
    assert id_ in listed and "appointment.*" in listed and secret not in listed
    assert said("disable", id_).exit_code == 0
    assert "disabled: asked" in said("list").output
    assert said("enable", id_).exit_code == 0
    assert "0 to be sent again" in said("redeliver", id_).output
    assert said("redeliver", id_, "0-1").exit_code == 1
    assert said("enable", "00000000-0000-0000-0000-000000000000").exit_code == 1

    async def audited() -> list[str]:
        connection = await asyncpg.connect(database)
        rows = await connection.fetch("select action from audit_entry where by_kind = 'operator' order by id")
        await connection.close()
        return [row["action"] for row in rows]

    assert asyncio.run(audited()) == [
        "webhook_added",
        "webhook_disabled",
        "webhook_enabled",
        "webhook_redelivery_asked",
    ]
