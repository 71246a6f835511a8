"""What is sealed opens in its own place with its own key, and nowhere else."""

import hashlib
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.masking import ERASED_NAME, masked
from engine.records.sealed_people import id_index, name_of
from engine.vault import vault as module
from engine.vault.failed import Erased, SealBroken, VaultBehind
from engine.vault.sealing import NONCE_BYTES, Profile
from engine.vault.vault import DataKey, Master, Masters, Vault, made_masters
from tests.support.stores import uid

WHO, OTHER = uid("patient"), uid("another")
KEY, NAME, NUMBER = "patient.record_key", "patient.name", "patient.id_number"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=200)
PROFILES = pytest.mark.parametrize("profile", list(Profile))
HEAD = 2 + module.KEY_ID_BYTES


def opened(profile: Profile = Profile.AES) -> Vault:
    return Vault(made_masters(profile), profile)


AES, SM4 = opened(), opened(Profile.SM4)


@PROFILES
@given(text=TEXTS, row=st.binary(min_size=16, max_size=16))
def test_what_is_sealed_opens_again(profile: Profile, text: str, row: bytes) -> None:
    vault = AES if profile is Profile.AES else SM4
    key = vault.new_key(KEY, row)
    sealed = vault.seal(key, NAME, row, text)
    assert vault.open(key, NAME, row, sealed) == text
    assert sealed[1] == profile and key.wrapped is not None and key.wrapped[1] == profile
    if len(text) > 3:
        assert text.encode() not in sealed


@PROFILES
@given(data=st.data(), text=TEXTS)
def test_no_changed_byte_opens(profile: Profile, data: st.DataObject, text: str) -> None:
    vault = AES if profile is Profile.AES else SM4
    key = vault.new_key(KEY, WHO)
    sealed = vault.seal(key, NAME, WHO, text)
    at, bit = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(sealed)
    changed[at] ^= 1 << bit
    with pytest.raises(SealBroken):
        vault.open(key, NAME, WHO, bytes(changed))
    with pytest.raises(SealBroken):
        vault.open(key, NAME, WHO, sealed[: data.draw(st.integers(0, len(sealed) - 1))])
    with pytest.raises(SealBroken):
        vault.open(key, NAME, WHO, sealed + b"\0")


@PROFILES
@given(data=st.data())
def test_no_changed_byte_of_a_key_unwraps(profile: Profile, data: st.DataObject) -> None:
    vault = AES if profile is Profile.AES else SM4
    key = vault.new_key(KEY, WHO)
    sealed = vault.seal(key, NAME, WHO, "张伟")
    assert key.wrapped is not None
    changed = bytearray(key.wrapped)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((SealBroken, VaultBehind)):  # behind: the version is one that is not known here
        vault.open(replace(key, wrapped=bytes(changed)), NAME, WHO, sealed)


def test_nothing_opens_in_another_place() -> None:
    key, others = AES.new_key(KEY, WHO), AES.new_key(KEY, OTHER)
    sealed = AES.seal(key, NAME, WHO, "张伟")
    theirs = AES.seal(others, NAME, OTHER, "李娜")
    again = AES.new_key(KEY, WHO)  # a later key of the same row
    assert key.wrapped is not None and others.wrapped is not None
    moved = {
        "to another column": (key, NUMBER, WHO, sealed),
        "to another table": (key, "staff.name", WHO, sealed),
        "to another row": (key, NAME, OTHER, sealed),
        "to another row with its key": (DataKey(KEY, OTHER, key.wrapped), NAME, OTHER, sealed),
        "from another row": (key, NAME, WHO, theirs),
        "from another row with its key": (DataKey(KEY, WHO, others.wrapped), NAME, WHO, theirs),
        "under another key of the row": (again, NAME, WHO, sealed),
        "under the key of another column": (
            DataKey("patient.contact_key", WHO, key.wrapped),
            NAME,
            WHO,
            sealed,
        ),
        "a key in the place of a text": (key, NAME, WHO, key.wrapped),
    }
    for what, (by, field, row, value) in moved.items():
        with pytest.raises(SealBroken):
            AES.open(by, field, row, value)
            pytest.fail(what)
    with pytest.raises(SealBroken) as broken:
        AES.open(key, NAME, OTHER, sealed)
    assert str(broken.value) == f"patient.name of {UUID(bytes=OTHER)} does not hold what was sealed for it"


def test_the_parts_of_a_place_do_not_run_into_one_another() -> None:
    key = AES.new_key(KEY, WHO)
    sealed = AES.seal(key, "patient.name", b"x" * 4, "张伟")
    with pytest.raises(SealBroken):
        AES.open(key, "patient.namex", b"x" * 3, sealed)


def test_key_versions_are_not_exchanged() -> None:
    masters = made_masters()
    two = Master(2, b"2" * 32, Profile.AES, 0.0)
    vault = Vault(Masters({**masters.data, 2: two}, masters.index), Profile.AES)
    old = Vault(masters, Profile.AES)
    key = old.new_key(KEY, WHO)
    assert key.wrapped is not None and (key.version, vault.new_key(KEY, WHO).version) == (1, 2)
    lying = key.wrapped[:2] + (2).to_bytes(4, "big") + key.wrapped[6:]
    with pytest.raises(SealBroken):
        vault.open(DataKey(KEY, WHO, lying), NAME, WHO, old.seal(key, NAME, WHO, "张伟"))


def test_a_key_cannot_be_given_another_name() -> None:
    """The ledger of erasures goes by it."""
    key = AES.new_key(KEY, WHO)
    sealed = AES.seal(key, NAME, WHO, "张伟")
    assert key.wrapped is not None
    other = bytes(module.KEY_ID_BYTES)
    renamed = DataKey(KEY, WHO, key.wrapped[:6] + other + key.wrapped[6 + len(other) :])
    with pytest.raises(SealBroken, match="does not hold this row's key"):
        AES.open(renamed, NAME, WHO, sealed[:2] + other + sealed[2 + len(other) :])
    with pytest.raises(SealBroken):
        AES.rewrapped(renamed)


def test_another_vault_opens_nothing() -> None:
    key = AES.new_key(KEY, WHO)
    with pytest.raises(SealBroken):
        opened().open(key, NAME, WHO, AES.seal(key, NAME, WHO, "张伟"))


def test_a_nonce_is_never_used_twice() -> None:
    key = AES.new_key(KEY, WHO)
    nonces = {AES.seal(key, NAME, WHO, "同一个")[HEAD : HEAD + NONCE_BYTES] for _ in range(5_000)}
    assert len(nonces) == 5_000
    wraps = {AES.rewrapped(key).wrapped for _ in range(1_000)}
    assert len(wraps) == 1_000


def test_sm4_reads_what_aes_has_sealed_and_the_other_way_round() -> None:
    masters = made_masters()
    before, after = Vault(masters, Profile.AES), Vault(masters, Profile.SM4)
    key = before.new_key(KEY, WHO)
    old, new = before.seal(key, NAME, WHO, "张伟"), after.seal(key, NAME, WHO, "张伟")
    assert (old[1], new[1]) == (Profile.AES, Profile.SM4)
    assert after.open(key, NAME, WHO, old) == before.open(key, NAME, WHO, new) == "张伟"
    lying = bytes((old[0], Profile.SM4)) + old[2:]
    with pytest.raises(SealBroken):
        after.open(key, NAME, WHO, lying)


def test_what_is_erased_is_gone_and_says_so() -> None:
    key = AES.new_key(KEY, WHO)
    sealed = AES.seal(key, NAME, WHO, "张伟")
    gone = replace(key, wrapped=None)
    assert AES.open(gone, NAME, WHO, sealed) is None and AES.open(key, NAME, WHO, None) is None
    with pytest.raises(Erased):
        AES.seal(gone, NAME, WHO, "张伟")
    with pytest.raises(Erased):
        AES.rewrapped(gone)
    assert name_of(AES, WHO, None, sealed) == ERASED_NAME == masked(ERASED_NAME)


def test_a_new_master_key_is_used_when_its_time_has_come_and_the_old_one_still_opens() -> None:
    masters, now = made_masters(), [100.0]
    vault = Vault(masters, Profile.AES, lambda: now[0])
    key = vault.new_key(KEY, WHO)
    sealed = vault.seal(key, NAME, WHO, "张伟")
    vault.learn(Masters({2: Master(2, b"2" * 32, Profile.SM4, 110.0)}, masters.index))
    assert vault.new_key(KEY, WHO).version == vault.version == 1, "announced, not yet in use"
    now[0] = 110.0
    newer = vault.rewrapped(key)
    assert (newer.version, newer.id) == (2, key.id), "the same key in another wrap"
    assert vault.open(newer, NAME, WHO, sealed) == vault.open(key, NAME, WHO, sealed) == "张伟"
    with pytest.raises(VaultBehind):
        Vault(masters, Profile.AES).open(newer, NAME, WHO, sealed)


def test_keys_that_were_not_used_for_long_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_KEYS_MAX", 3)
    vault = opened()
    keys = [vault.new_key(KEY, uid("row", n)) for n in range(10)]
    sealed = [vault.seal(key, NAME, key.row, key.row.hex()) for key in keys]
    for _ in range(2):
        assert [vault.open(k, NAME, k.row, s) for k, s in zip(keys, sealed, strict=True)] == [
            key.row.hex() for key in keys
        ]
    assert len(vault._open) == 3


def test_the_index_is_one_for_one_identity_and_nobody_elses() -> None:
    assert id_index(AES, "passport", "E123") == id_index(AES, "passport", "E123")
    assert len({id_index(AES, "passport", "E123"), id_index(AES, "passport", "E124")}) == 2
    assert id_index(AES, "resident_id", "E123") != id_index(AES, "passport", "E123")
    assert AES.index("a", "b") != AES.index("c", "b"), "a column of its own"


def test_who_has_the_dump_and_this_program_but_no_key_cannot_confirm_a_guess() -> None:
    """All that could be tried with what is in the database and in the source: nothing gives the index."""
    kept = id_index(AES, "resident_id", "11010519491231002X")
    without_key = Vault(Masters(made_masters().data, b""), Profile.AES)
    assert id_index(without_key, "resident_id", "11010519491231002X") != kept
    for text in ("resident_id/11010519491231002X", "11010519491231002X"):
        for field in ("", "patient.id_number\0"):
            for make in (hashlib.sha256, hashlib.blake2b, hashlib.sha512, hashlib.sha1, hashlib.md5):
                assert make((field + text).encode()).digest()[:32] != kept


def test_nothing_prints_a_key() -> None:
    masters = made_masters()
    for secret in (masters.index, masters.data[1].secret):
        for shown in (repr(masters), repr(masters.data[1]), repr(AES)):
            assert repr(secret)[2:-1] not in shown and secret.hex() not in shown
