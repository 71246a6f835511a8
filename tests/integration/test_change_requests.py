"""Requests for consent in PostgreSQL: each is decided once, and one that was left half done can be ended."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from engine.records import change_requests as records
from engine.records.change_requests import NewRequest, RequestStatus
from engine.records.staff import NewStaff, Role, add_staff

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def staff(connection: asyncpg.Connection, username: str) -> bytes:
    new = NewStaff(username, username, "x", (Role.DESK,))
    return (await add_staff(connection, new, secrets.token_bytes(16), NOW)).id


def new(asked_by: bytes, **changes: Any) -> NewRequest:
    told: dict[str, Any] = {
        "id": secrets.token_bytes(16),
        "command": "suspend",
        "role": "manager",
        "target": "D0001-20261201",
        "practitioner_id": "D0001",
        "department_ids": ("0201",),
        "body": {"command": "suspend", "note": "开会"},
        "revision": "3",
        "note": "开会",
        "asked_by": asked_by,
        **changes,
    }
    return NewRequest(**told)


async def test_what_is_asked_is_kept_once(connection: asyncpg.Connection) -> None:
    desk = await staff(connection, "desk")
    asked = new(desk)
    first = await records.ask(connection, asked, NOW)
    assert (first.new, first.status, first.asked_by_name, first.asked_at) == (asked, "pending", "desk", NOW)
    again = new(desk, id=asked.id, note="别的")
    assert await records.ask(connection, again, NOW + timedelta(hours=1)) == first
    assert await records.request_of(connection, bytes(16)) is None
    later = await records.ask(connection, new(desk, target="D0002-20261201"), NOW + timedelta(seconds=1))
    waiting = [RequestStatus.PENDING, RequestStatus.EXECUTING]
    assert await records.requests(connection, waiting, None, 10) == [first, later]
    assert await records.requests(connection, waiting, first.asked_at, 10) == [later]
    assert await records.requests(connection, waiting, None, 10, asked.target) == [first]
    assert await records.requests(connection, [RequestStatus.APPROVED], None, 10) == []


async def test_it_is_decided_once(connection: asyncpg.Connection) -> None:
    desk, one, two = [await staff(connection, name) for name in ("desk", "one", "two")]
    asked = new(desk)
    await records.ask(connection, asked, NOW)
    assert await records.reject(connection, asked.id, one, "不必", NOW)
    assert await records.reject(connection, asked.id, one, "不必", NOW)  # a retry
    assert not await records.reject(connection, asked.id, two, "不必", NOW)
    assert not await records.claim(connection, asked.id, two, "好", NOW)
    found = await records.request_of(connection, asked.id)
    assert found is not None
    assert (found.status, found.decided_by, found.decided_by_name, found.reason) == (
        "rejected",
        one,
        "one",
        "不必",
    )


async def test_one_that_is_being_carried_out_can_be_ended_and_not_rejected(
    connection: asyncpg.Connection,
) -> None:
    desk, one, two = [await staff(connection, name) for name in ("desk", "one", "two")]
    asked = new(desk)
    await records.ask(connection, asked, NOW)
    assert await records.claim(connection, asked.id, one, "好", NOW)
    # The process of the first approver dies here: what it asked the actor for may have been done.
    assert not await records.reject(connection, asked.id, two, "不必", NOW)
    assert await records.claim(connection, asked.id, two, "好", NOW)
    await records.give_back(connection, asked.id, one)  # it is no longer theirs to give
    taken = await records.request_of(connection, asked.id)
    assert taken is not None and (taken.status, taken.decided_by) == ("executing", two)
    await records.done(connection, asked.id, two, "好", NOW)
    found = await records.request_of(connection, asked.id)
    assert found is not None and (found.status, found.decided_by) == ("approved", two)
    assert not await records.claim(connection, asked.id, one, "好", NOW)
    await records.give_back(connection, asked.id, two)  # too late to be undone
    assert (await records.request_of(connection, asked.id)) == found


async def test_what_was_refused_when_it_was_done_waits_again(connection: asyncpg.Connection) -> None:
    desk, one = [await staff(connection, name) for name in ("desk", "one")]
    asked = new(desk)
    first = await records.ask(connection, asked, NOW)
    assert await records.claim(connection, asked.id, one, "好", NOW)
    await records.give_back(connection, asked.id, one)
    assert await records.request_of(connection, asked.id) == first
    assert await records.reject(connection, asked.id, one, "算了", NOW)


async def test_what_was_done_is_done_whatever_another_approver_met(connection: asyncpg.Connection) -> None:
    desk, one, two = [await staff(connection, name) for name in ("desk", "one", "two")]
    asked = new(desk)
    await records.ask(connection, asked, NOW)
    assert await records.claim(connection, asked.id, one, "好", NOW)
    assert await records.claim(connection, asked.id, two, "行", NOW)
    await records.give_back(connection, asked.id, two)  # the actor was busy
    await records.done(connection, asked.id, one, "好", NOW)
    found = await records.request_of(connection, asked.id)
    assert found is not None and (found.status, found.decided_by, found.reason) == ("approved", one, "好")
