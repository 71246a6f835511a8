"""The key outside the database: who may read its file, and what is said when it is the wrong one."""

import base64
import os
import stat
from pathlib import Path

import pytest

from engine.settings import Settings
from engine.vault.failed import VaultFailed
from engine.vault.hsm import TokenUri
from engine.vault.kek import (
    PlainKek,
    add_key,
    make_key_file,
    new_outer_key,
    read_environment,
    read_key_file,
)
from engine.vault.opening import kek_of
from engine.vault.sealing import Profile

PLACE = b"\0vault_key.data\0\0\0\0\1"
SECRET = b"s" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "vault.key"
    make_key_file(file)
    return file


def test_a_made_key_is_its_owners_alone_and_wraps(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for profile in Profile:
        kek = read_key_file(file)
        assert read_key_file(file).unwrap(kek.wrap(SECRET, PLACE, profile), PLACE) == SECRET


def test_a_key_is_never_written_over(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(VaultFailed, match="may be the only key"):
        make_key_file(file)
    assert file.read_bytes() == before


def test_a_new_key_wraps_and_the_old_one_still_opens(file: Path) -> None:
    old = read_key_file(file)
    wrapped = old.wrap(SECRET, PLACE, Profile.AES)
    added = add_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    both = read_key_file(file)
    assert both.id == added.id != old.id and both.ids == {added.id, old.id}
    assert both.unwrap(wrapped, PLACE) == SECRET
    assert both.unwrap(both.wrap(SECRET, PLACE, Profile.SM4), PLACE) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(VaultFailed, match=rf"open to others \(mode {mode:o}\): chmod 600 it"):
        read_key_file(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(file, 65534, 65534)
    with pytest.raises(VaultFailed, match="belongs to somebody else"):
        read_key_file(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("xinglin-vault-1 00 abc\n", "line 1: no key"),
        (f"xinglin-backup-1 0000000000000000 {base64.b64encode(SECRET).decode()}\n", "line 1: no key"),
        (f"xinglin-vault-1 0000000000000000 {base64.b64encode(SECRET).decode()}\n", "line 1: no key"),
        ("\x00\xff", "line 1: no key"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    with pytest.raises(VaultFailed, match=said) as failed:
        read_key_file(file)
    assert base64.b64encode(SECRET).decode() not in str(failed.value) and "\n" not in str(failed.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VaultFailed, match="there is no vault key .*gone.key: bring back"):
        read_key_file(tmp_path / "gone.key")
    with pytest.raises(VaultFailed, match="is no file"):
        read_key_file(tmp_path)


def test_a_wrong_key_a_changed_wrap_and_another_place_are_one_clear_line(file: Path, tmp_path: Path) -> None:
    kek = read_key_file(file)
    wrapped = kek.wrap(SECRET, PLACE, Profile.AES)
    make_key_file(other := tmp_path / "other.key")
    with pytest.raises(
        VaultFailed, match="other.key is not the key that this database is sealed with"
    ) as failed:
        read_key_file(other).unwrap(wrapped, PLACE)
    assert "\n" not in str(failed.value)
    with pytest.raises(VaultFailed, match="not as it was wrapped"):
        kek.unwrap(wrapped, PLACE + b"2")
    for at in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[at] ^= 1
        with pytest.raises(VaultFailed):
            kek.unwrap(bytes(changed), PLACE)


def test_a_key_from_the_environment() -> None:
    key = new_outer_key()
    secret = base64.b64encode(key.secret).decode()
    older = new_outer_key()
    lines = ";".join(
        f"xinglin-vault-1 {one.id.hex()} {base64.b64encode(one.secret).decode()}" for one in (key, older)
    )
    assert read_environment("KEY", {"KEY": secret}).id == key.id
    assert read_environment("KEY", {"KEY": lines}).ids == {key.id, older.id}
    with pytest.raises(VaultFailed, match="environment variable KEY, which is not set"):
        read_environment("KEY", {})
    with pytest.raises(VaultFailed, match="KEY, line 1: no key"):
        read_environment("KEY", {"KEY": "secret"})


def test_settings_name_one_of_three_kinds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kek_of(Settings(vault_key=f"file:{file}")).id == read_key_file(file).id
    assert kek_of(Settings(home=file.parent)).id == read_key_file(file).id, "the home's, when none is named"
    monkeypatch.setenv("HOSPITAL_KEY", base64.b64encode(SECRET).decode())
    assert isinstance(kek_of(Settings(vault_key="env:HOSPITAL_KEY")), PlainKek)
    for wrong in ("file:", "vault.key", "https://keys", "env:", "pkcs11:"):
        with pytest.raises(VaultFailed, match="file:PATH, env:NAME or a pkcs11: URI"):
            kek_of(Settings(vault_key=wrong))


def test_the_uri_of_a_token() -> None:
    told = TokenUri.of("pkcs11:token=x%20y;object=a,b?module-path=/lib/x.so&pin-source=env:PIN")
    assert told == TokenUri("/lib/x.so", "x y", ("a", "b"), "env:PIN")
    for missing, uri in {
        "token": "pkcs11:object=a?module-path=/x&pin-source=env:P",
        "pin-source": "pkcs11:token=t;object=a?module-path=/x",
        "pin-value": "pkcs11:token=t;object=a?module-path=/x&pin-source=env:P&pin-value=1",
    }.items():
        with pytest.raises(VaultFailed, match=f"look at {missing}"):
            TokenUri.of(uri)


def test_the_pin_is_not_open_to_others(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("1234\n")
    pin.chmod(0o644)
    uri = f"pkcs11:token=t;object=a?module-path=/x&pin-source=file:{pin}"
    with pytest.raises(VaultFailed, match="open to others"):
        kek_of(Settings(vault_key=uri))
    pin.chmod(0o600)
    assert "1234" not in repr(kek_of(Settings(vault_key=uri)))
    with pytest.raises(VaultFailed, match="pin-source is"):
        kek_of(Settings(vault_key="pkcs11:token=t;object=a?module-path=/x&pin-source=1234"))
