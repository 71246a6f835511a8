"""Passwords: what fits, and how many are looked at."""

import asyncio

import pytest
from argon2 import PasswordHasher, Type, extract_parameters

from web import passwords
from web.passwords import Passwords, TooManySignIns, fits, hash_of, is_outdated


def test_the_right_one_fits_and_no_other() -> None:
    made = hash_of("correct horse")
    assert made.startswith("$argon2id$")
    assert fits("correct horse", made)
    assert not fits("correct horsf", made)
    assert not fits("", made)
    assert hash_of("correct horse") != made  # salted


def test_one_password_however_it_is_typed() -> None:
    made = hash_of("caf\u00e9 ａｂｃ")
    assert fits("cafe\u0301 abc", made)


def test_what_is_no_hash_fits_nothing() -> None:
    assert not fits("x", "")
    assert not fits("x", "$argon2id$v=19$nonsense")


def test_the_parameters_are_those_of_owasp() -> None:
    made = extract_parameters(hash_of("x"))
    assert (made.type, made.memory_cost, made.time_cost, made.parallelism) == (Type.ID, 19_456, 2, 1)
    assert not is_outdated(hash_of("x"))
    assert is_outdated(PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash("x"))


async def test_one_of_several() -> None:
    hashes = [hash_of("x"), hash_of("y")]
    assert await Passwords().fits_any("y", hashes)
    assert not await Passwords().fits_any("z", hashes)


def test_nobody_takes_as_long_as_somebody() -> None:
    assert extract_parameters(passwords._NOBODY) == extract_parameters(hash_of("x"))


async def test_nobody_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_NOBODY", hash_of("x"))
    assert not await Passwords().fits("x", None)
    assert await Passwords().fits("x", hash_of("x"))


async def test_turns_are_bounded_and_one_username_does_not_fill_them() -> None:
    door = Passwords()
    free = asyncio.Event()
    inside: list[str] = []

    async def sign_in(username: str) -> None:
        async with door.turn(username):
            inside.append(username)
            await free.wait()

    async def settled(count: int, username: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(sign_in(username)) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)
        return tasks

    tasks = await settled(passwords.SIGN_INS_EACH_MAX, "a")
    assert inside == ["a"]  # one at a time
    with pytest.raises(TooManySignIns):
        await sign_in("a")
    for username in "bcd":
        tasks += await settled(passwords.SIGN_INS_EACH_MAX, username)
    assert inside == ["a", "b", "c", "d"]
    with pytest.raises(TooManySignIns):
        await sign_in("e")
    free.set()
    await asyncio.gather(*tasks)
    assert len(inside) == passwords.SIGN_INS_MAX
    await sign_in("e")
    assert (door._turns, door._under_way) == ({}, 0)
