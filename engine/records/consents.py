"""Texts that one can agree to, and who has agreed to what. Rows are only added; nothing is overwritten.

A text is in force from its moment on until the next version of its kind is. Where the next one says `renew`,
what was agreed to before does not count any more; else it stays good, and is told as not the newest. What
stands is kept as bits in account and account_patient (settle_consents), because every booking reads it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import asyncpg

from engine.domain.consents import ConsentKind, missing

How = Literal["app", "desk", "kiosk", "law"]
Act = Literal["given", "withdrawn"]
LANGUAGES: Final = ("zh", "en")


@dataclass(frozen=True, slots=True)
class ConsentText:
    title: str
    text: str

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(f"{self.title}\n{self.text}".encode()).digest()


@dataclass(frozen=True, slots=True)
class ConsentVersion:
    kind: ConsentKind
    version: str
    valid_from: datetime
    renew: bool
    texts: Mapping[str, ConsentText]
    """By language; zh is always there."""

    def in_(self, language: str) -> tuple[str, ConsentText]:
        """In that language, or in Chinese: what the hospital has published counts."""
        found = language if language in self.texts else "zh"
        return found, self.texts[found]


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody agreed, or took it back."""

    patient_id: bytes | None  # None: for all whom the account acts for
    kind: ConsentKind
    act: Act
    version: str
    language: str
    text_sha256: bytes
    at: datetime
    how: How
    by_staff: bool


@dataclass(frozen=True, slots=True)
class Stand:
    """What an account has said last of one kind, for one patient or for all."""

    said: Said
    counts: bool  # given, and no later text has asked for it anew


class NotSaid(Exception):
    """Nothing was written. `code` is of web/faults.py."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


async def in_force(connection: asyncpg.Connection, now: datetime) -> dict[ConsentKind, ConsentVersion]:
    """Of each kind that has a text, the version that holds now."""
    rows = await connection.fetch(
        "select distinct on (kind) kind, version, valid_from, renew from consent_version"
        " where valid_from <= $1 order by kind, valid_from desc",
        now,
    )
    return {one.kind: one for one in await _with_texts(connection, rows)}


async def all_versions(connection: asyncpg.Connection) -> list[ConsentVersion]:
    """By kind, the latest first; also those to come."""
    rows = await connection.fetch(
        "select kind, version, valid_from, renew from consent_version order by kind, valid_from desc"
    )
    return await _with_texts(connection, rows)


async def _with_texts(connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> list[ConsentVersion]:
    texts: dict[tuple[str, str], dict[str, ConsentText]] = {}
    for row in await connection.fetch(
        "select kind, version, language, title, text from consent_text where version = any ($1::text[])",
        [row["version"] for row in rows],
    ):
        of = texts.setdefault((row["kind"], row["version"]), {})
        of[row["language"]] = ConsentText(row["title"], row["text"])
    return [
        ConsentVersion(
            ConsentKind(row["kind"]),
            row["version"],
            row["valid_from"],
            row["renew"],
            texts[row["kind"], row["version"]],
        )
        for row in rows
    ]


async def publish(
    connection: asyncpg.Connection, versions: Sequence[ConsentVersion], who: str, now: datetime
) -> list[ConsentVersion]:
    """Those that were not there yet, within the caller's transaction. The same once more is nothing new.

    Raises NotSaid: consent_version_taken where a version is there with other words or another moment, and
    consent_version_late where one would hold from a moment that is over and a later version already holds.
    """
    new = []
    for one in versions:
        known = await connection.fetchrow(
            "select valid_from, renew from consent_version where kind = $1 and version = $2",
            one.kind.value,
            one.version,
        )
        if known is not None:
            (before,) = await _with_texts(
                connection, [{"kind": one.kind.value, "version": one.version, **known}]
            )
            # What says no day holds from when it was first published on.
            if (before.renew, before.texts) != (one.renew, one.texts) or (
                one.valid_from != now and one.valid_from != before.valid_from
            ):
                raise NotSaid("consent_version_taken")
            continue
        later = await connection.fetchval(
            "select max(valid_from) from consent_version where kind = $1", one.kind.value
        )
        if later is not None and one.valid_from <= later:
            raise NotSaid("consent_version_late")
        await connection.execute(
            "insert into consent_version (kind, version, valid_from, renew, who, at)"
            " values ($1, $2, $3, $4, $5, $6)",
            one.kind.value,
            one.version,
            one.valid_from,
            one.renew,
            who,
            now,
        )
        await connection.executemany(
            "insert into consent_text (kind, version, language, title, text, sha256)"
            " values ($1, $2, $3, $4, $5, $6)",
            [
                (one.kind.value, one.version, language, text.title, text.text, text.sha256)
                for language, text in one.texts.items()
            ],
        )
        new.append(one)
    await take_effect(connection, now)
    return new


async def take_effect(connection: asyncpg.Connection, now: datetime) -> int:
    """What became valid by now and asks anew ends what was agreed to before. How many texts that were."""
    async with connection.transaction():
        due = await connection.fetch(
            "update consent_version set settled_at = $1 where settled_at is null and valid_from <= $1"
            " returning renew",
            now,
        )
        if any(row["renew"] for row in due):
            await connection.execute("select settle_consents(null, $1)", now)
    return len(due)


async def give(
    connection: asyncpg.Connection,
    account_id: bytes,
    patient_id: bytes | None,
    kind: ConsentKind,
    version: str,
    language: str,
    now: datetime,
    *,
    how: How = "app",
    by: bytes | None = None,
) -> bool:
    """Agrees to the version in force, within the caller's transaction. False: that stands already.

    Raises NotSaid: no_such_consent (no such text), consent_outdated (it is not the one in force, so it cannot
    be what was shown), consent_of_whom (a guardian's is for one child), no_such_patient (not of the account).
    """
    await _lock(connection, account_id)
    text = (await in_force(connection, now)).get(kind)
    if text is None:
        raise NotSaid("no_such_consent")
    if text.version != version:
        raise NotSaid("consent_outdated")
    if patient_id is None and kind is ConsentKind.GUARDIAN:
        raise NotSaid("consent_of_whom")
    if patient_id is not None and not await _acts_for(connection, account_id, patient_id, now):
        raise NotSaid("no_such_patient")
    last = await _last(connection, account_id, patient_id, kind)
    if last is not None and last["act"] == "given" and last["version"] == version:
        return False
    language, words = text.in_(language)
    await _say(
        connection, account_id, patient_id, kind, "given", version, language, words.sha256, now, how, by
    )
    return True


async def withdraw(
    connection: asyncpg.Connection,
    account_id: bytes,
    patient_id: bytes | None,
    kind: ConsentKind,
    now: datetime,
    *,
    how: How = "app",
    by: bytes | None = None,
) -> bool:
    """Takes back what was given for one patient or (None) for all. False: there is nothing to take back."""
    await _lock(connection, account_id)
    last = await _last(connection, account_id, patient_id, kind)
    if last is None or last["act"] != "given":
        return False
    await _say(
        connection,
        account_id,
        patient_id,
        kind,
        "withdrawn",
        last["version"],
        last["language"],
        last["text_sha256"],
        now,
        how,
        by,
    )
    return True


async def withdraw_all(
    connection: asyncpg.Connection, account_id: bytes | None, patient_id: bytes | None, now: datetime
) -> int:
    """Of an account that is erased, or of a patient who is, whoever agreed; how many stood."""
    rows = await connection.fetch(
        "select distinct account_id, patient_id, kind from consent where account_id = $1 or patient_id = $2",
        None if account_id is None else UUID(bytes=account_id),
        None if patient_id is None else UUID(bytes=patient_id),
    )
    ended = 0
    for row in rows:
        whom = None if row["patient_id"] is None else row["patient_id"].bytes
        ended += await withdraw(
            connection, row["account_id"].bytes, whom, ConsentKind(row["kind"]), now, how="law"
        )
    return ended


async def stands_of(connection: asyncpg.Connection, account_id: bytes, now: datetime) -> list[Stand]:
    """What the account has said last, of each kind and patient."""
    rows = await connection.fetch(
        f"select * from (select distinct on (c.patient_id, c.kind) {_SAID}, c.id,"
        "   c.act = 'given' and not exists (select from consent_version n where n.kind = c.kind and n.renew"
        "     and n.valid_from > v.valid_from and n.valid_from <= $2) as counts"
        "   from consent c join consent_version v using (kind, version)"
        "  where c.account_id = $1 order by c.patient_id, c.kind, c.id desc) last order by id",
        UUID(bytes=account_id),
        now,
    )
    return [Stand(_said(row), row["counts"]) for row in rows]


async def history_of(connection: asyncpg.Connection, account_id: bytes) -> list[Said]:
    """All that the account has said, the first first."""
    rows = await connection.fetch(
        f"select {_SAID} from consent c where c.account_id = $1 order by c.id", UUID(bytes=account_id)
    )
    return [_said(row) for row in rows]


async def missing_of(
    connection: asyncpg.Connection, account_id: bytes, required: Sequence[ConsentKind]
) -> tuple[ConsentKind, ...]:
    """What an account must agree to before it adds somebody.

    A guardian's consent is for one child, who must be there first: it is asked for before a booking.
    """
    standing = await connection.fetchval("select consents from account where id = $1", UUID(bytes=account_id))
    return missing(required, standing or 0, None)


_SAID: Final = "c.patient_id, c.kind, c.act, c.version, c.language, c.text_sha256, c.at, c.how, c.by"


def _said(row: asyncpg.Record) -> Said:
    return Said(
        None if row["patient_id"] is None else row["patient_id"].bytes,
        ConsentKind(row["kind"]),
        row["act"],
        row["version"],
        row["language"],
        bytes(row["text_sha256"]),
        row["at"],
        row["how"],
        row["by"] is not None,
    )


async def _lock(connection: asyncpg.Connection, account_id: bytes) -> None:
    """One at a time for an account, so that what was said last is one thing."""
    await connection.execute("select from account where id = $1 for update", UUID(bytes=account_id))


async def _acts_for(
    connection: asyncpg.Connection, account_id: bytes, patient_id: bytes, now: datetime
) -> bool:
    return bool(
        await connection.fetchval(
            "select true from account_patient where account_id = $1 and patient_id = $2"
            " and revoked_at is null and (expires_at is null or expires_at > $3)",
            UUID(bytes=account_id),
            UUID(bytes=patient_id),
            now,
        )
    )


async def _last(
    connection: asyncpg.Connection, account_id: bytes, patient_id: bytes | None, kind: ConsentKind
) -> asyncpg.Record | None:
    return await connection.fetchrow(
        "select act, version, language, text_sha256 from consent"
        " where account_id = $1 and patient_id is not distinct from $2 and kind = $3"
        " order by id desc limit 1",
        UUID(bytes=account_id),
        None if patient_id is None else UUID(bytes=patient_id),
        kind.value,
    )


async def _say(
    connection: asyncpg.Connection,
    account_id: bytes,
    patient_id: bytes | None,
    kind: ConsentKind,
    act: Act,
    version: str,
    language: str,
    sha256: bytes,
    now: datetime,
    how: How,
    by: bytes | None,
) -> None:
    await connection.execute(
        "insert into consent (account_id, patient_id, kind, act, version, language, text_sha256, at, how, by)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        UUID(bytes=account_id),
        None if patient_id is None else UUID(bytes=patient_id),
        kind.value,
        act,
        version,
        language,
        sha256,
        now,
        how,
        None if by is None else UUID(bytes=by),
    )
    await connection.execute("select settle_consents($1, $2)", UUID(bytes=account_id), now)
