"""What lies in the second place: read back as it was written, or refused."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backup.encrypted import CHUNK_BYTES, seal, unseal
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys, add_key, make_key_file, new_key, read_key_file

KEY = new_key()
KEYS = Keys.of(KEY)
NAME = "chain/base-20261123T030000Z.00000"
HEADER, STEP = 48, CHUNK_BYTES + 16
THREE = os.urandom(2 * CHUNK_BYTES + 1000)


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5]
)
def test_what_was_sealed_is_what_comes_out(size: int) -> None:
    data = os.urandom(size)
    assert unseal(KEYS, NAME, seal(KEY, NAME, data)) == data


def test_nothing_of_it_can_be_seen_and_no_two_are_alike() -> None:
    data = b"110101199003078030" * 1000
    first, second = seal(KEY, NAME, data), seal(KEY, NAME, data)
    assert b"110101199003078030" not in first
    assert first[HEADER:] != second[HEADER:], "the same key and nonce for two files"
    chunks = [first[HEADER + n * STEP :][:64] for n in range(2)]
    assert chunks[0] != chunks[1:]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_flipped_bit_anywhere_is_found(data: st.DataObject) -> None:
    sealed = bytearray(_SMALL)
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BackupFailed):
        unseal(KEYS, NAME, bytes(sealed))


_SMALL = seal(KEY, NAME, b"a booking")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, HEADER + 2 * STEP + 1000 + 16 - 1))
def test_cut_off_anywhere_is_found(length: int) -> None:
    with pytest.raises(BackupFailed):
        unseal(KEYS, NAME, _THREE_SEALED[:length])


_THREE_SEALED = seal(KEY, NAME, THREE)


@pytest.mark.parametrize("length", [HEADER, HEADER + STEP, HEADER + 2 * STEP, HEADER + STEP + 16])
def test_cut_off_between_chunks_is_found(length: int) -> None:
    with pytest.raises(BackupFailed, match="cut off"):
        unseal(KEYS, NAME, _THREE_SEALED[:length])


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (0, 0, 1, 2), (0, 1, 2, 2), (0, 2, 1), (1, 2)], ids=str)
def test_chunks_swapped_left_out_or_doubled_are_found(order: tuple[int, ...]) -> None:
    chunks = [_THREE_SEALED[HEADER + n * STEP :][:STEP] for n in range(3)]
    with pytest.raises(BackupFailed, match="does not authenticate"):
        unseal(KEYS, NAME, _THREE_SEALED[:HEADER] + b"".join(chunks[n] for n in order))


def test_more_behind_its_end_is_found() -> None:
    with pytest.raises(BackupFailed):
        unseal(KEYS, NAME, _THREE_SEALED + b"\0")


def test_a_file_in_anothers_place_is_found() -> None:
    with pytest.raises(BackupFailed, match="does not authenticate"):
        unseal(KEYS, "chain/base-20261124T030000Z.00000", _SMALL)


def test_a_chunk_of_another_file_of_the_same_key_is_found() -> None:
    other = seal(KEY, NAME, THREE)
    with pytest.raises(BackupFailed, match="chunk 1 of 3"):
        unseal(KEYS, NAME, _THREE_SEALED[:HEADER] + other[HEADER:])


def test_the_wrong_key_says_which_one_is_needed() -> None:
    other = new_key()
    with pytest.raises(BackupFailed, match=f"needs the key {KEY.id.hex()}.*holds {other.id.hex()}"):
        unseal(Keys.of(other), NAME, _SMALL)


def test_a_key_file_is_read_as_it_was_made_and_never_made_twice(tmp_path: Path) -> None:
    file = tmp_path / "backup.key"
    key = make_key_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key_file(file).current == key
    with pytest.raises(BackupFailed, match="left as it is"):
        make_key_file(file)
    assert read_key_file(file).current == key


def test_after_a_change_of_keys_the_old_backups_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "backup.key"
    sealed = seal(make_key_file(file), NAME, b"old")
    newer = add_key(file)
    keys = read_key_file(file)
    assert keys.current == newer
    assert unseal(keys, NAME, sealed) == b"old"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_that_others_may_touch_is_not_used(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "backup.key"
    make_key_file(file)
    file.chmod(mode)
    with pytest.raises(BackupFailed, match="chmod 600"):
        read_key_file(file)


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "xinglin-backup-1 00 AAAA\n", "-----BEGIN PRIVATE KEY-----\n", "xinglin-backup-1\n"],
)
def test_a_file_that_holds_no_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    file = tmp_path / "backup.key"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(BackupFailed) as failed:
        read_key_file(file)
    assert "AAAA" not in str(failed.value)


def test_a_key_of_which_a_letter_was_lost_is_noticed_at_once(tmp_path: Path) -> None:
    file = tmp_path / "backup.key"
    make_key_file(file)
    word, id_, secret = file.read_text().split()
    swapped = ("B" if secret[0] == "A" else "A") + secret[1:]
    file.write_text(f"{word} {id_} {swapped}\n")
    with pytest.raises(BackupFailed, match="line 1: the key is not the one"):
        read_key_file(file)


def test_a_key_does_not_show_itself() -> None:
    assert KEY.secret.hex() not in repr(KEY) + repr(KEYS)
    assert repr(KEY.secret)[2:10] not in repr(KEYS).replace(repr(KEY.id), "")
