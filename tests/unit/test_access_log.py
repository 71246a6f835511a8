"""Which requests get a line, what stands in it, and that noting one never waits for the disk."""

import asyncio
from pathlib import Path

import orjson
import pytest

from web.access_log import WAITING_MAX, AccessLog, Which

ASKED = [
    ("GET /api/v1/departments", 200),
    ("POST /api/v1/appointments", 201),
    ("DELETE /api/v1/patients/{id}", 204),
    ("GET /api/v1/schedules", 503),
    ("none", 404),
    ("none", 500),
]


@pytest.mark.parametrize(
    ("which", "lines"),
    [("off", []), ("errors", [3, 5]), ("writes", [1, 2, 3, 5]), ("all", [0, 1, 2, 3, 4, 5])],
)
def test_what_gets_a_line(tmp_path: Path, which: Which, lines: list[int]):
    file = tmp_path / "access.log"
    log = AccessLog(which, file, "gateway-0")
    for number, (route, status) in enumerate(ASKED):
        log.note(route, status, 0.01, str(number))
    log.close()
    written = file.read_text().splitlines() if file.exists() else []
    assert [int(orjson.loads(line)["request_id"]) for line in written] == lines


def test_a_line_has_the_route_and_never_the_path(tmp_path: Path):
    file = tmp_path / "access.log"
    log = AccessLog("all", file, "gateway-3")
    log.note("DELETE /api/v1/patients/{id}", 204, 0.01234, "ab" * 16)
    log.note("none", 404, 0.5, None)
    log.close()
    first, second = map(orjson.loads, file.read_text().splitlines())
    assert first.pop("ts").endswith("Z")
    assert first == {
        "process": "gateway-3",
        "method": "DELETE",
        "route": "/api/v1/patients/{id}",
        "status": 204,
        "ms": 12.3,
        "request_id": "ab" * 16,
    }
    assert second["method"] is None and second["route"] is None and second["status"] == 404


def test_without_a_file_nothing_is_kept():
    log = AccessLog("all", None, "gateway-0")
    log.note("POST /api/v1/appointments", 201, 0.01, None)
    assert log._lines == []
    log.close()


async def test_what_waits_is_written_beside_the_loop_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("web.access_log.WRITE_SECONDS", 0)
    file = tmp_path / "access.log"
    log = AccessLog("writes", file, "gateway-0")
    for _ in range(WAITING_MAX + 7):
        log.note("POST /api/v1/appointments", 201, 0.01, None)
    told = "7 access lines were left out"
    task = asyncio.create_task(log.run())
    async with asyncio.timeout(30):
        while not (file.exists() and file.read_bytes().count(b"\n") == WAITING_MAX and told in caplog.text):
            await asyncio.sleep(0)
    task.cancel()
    log.close()


def test_the_last_lines_are_written_at_the_end(tmp_path: Path):
    file = tmp_path / "access.log"
    log = AccessLog("writes", file, "gateway-0")
    log.note("POST /api/v1/appointments", 201, 0.01, None)
    assert not file.exists() or not file.read_text()
    log.close()
    assert len(file.read_text().splitlines()) == 1
