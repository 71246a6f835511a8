"""The key outside the database in a token: SoftHSM, as Debian ships it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pkcs11
import pytest

from engine.settings import Settings
from engine.vault import masters
from engine.vault.failed import VaultFailed
from engine.vault.opening import kek_of, open_vault
from engine.vault.sealing import Profile
from tests.support.debian import need

PIN = "kl93-mx"
PLACE = b"\0vault_key.data\0\0\0\0\1"
SECRET = b"s" * 32


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a token with the keys one, two and short; its PIN is in the environment."""
    util = need("softhsm2-util")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    modules = [*Path("/usr/lib").glob("**/libsofthsm2.so"), *Path("/usr/local/lib").glob("**/libsofthsm2.so")]
    before = dict(os.environ)
    # Read by the library, once in a process: so no other test may use another configuration.
    os.environ |= {"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "XINGLIN_TEST_PIN": PIN}
    command = [util, "--init-token", "--free", "--label", "xinglin", "--pin", PIN, "--so-pin", "88888888"]
    subprocess.run(command, check=True, capture_output=True)
    library = pkcs11.lib(str(modules[0]))
    with library.get_token(token_label="xinglin").open(rw=True, user_pin=PIN) as session:
        for label, bits in {"one": 256, "two": 256, "short": 128}.items():
            session.generate_key(pkcs11.KeyType.AES, bits, label=label, store=True)
    yield f"pkcs11:token=xinglin;object=one?module-path={modules[0]}&pin-source=env:XINGLIN_TEST_PIN"
    os.environ.clear()
    os.environ.update(before)


def test_a_token_wraps_and_the_key_stays_in_it(token: str) -> None:
    kek = kek_of(Settings(vault_key=token))
    wrapped = kek.wrap(SECRET, PLACE, Profile.SM4)
    assert kek.unwrap(wrapped, PLACE) == SECRET and SECRET not in wrapped
    assert wrapped[1] == Profile.AES, "a token encrypts what it can"
    assert kek.wrap(SECRET, PLACE, Profile.AES) != wrapped
    for changed in (wrapped[:-1] + bytes((wrapped[-1] ^ 1,)), wrapped[:-1], b"\3\2" + wrapped[2:]):
        with pytest.raises(VaultFailed, match="not as it was wrapped"):
            kek.unwrap(changed, PLACE)
    with pytest.raises(VaultFailed, match="not as it was wrapped"):
        kek.unwrap(wrapped, PLACE + b"2")


def test_what_a_token_does_not_give_is_one_line(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = kek_of(Settings(vault_key=token)).wrap(SECRET, PLACE, Profile.AES)
    for wrong in (token.replace("object=one", "object=two"), token.replace("token=xinglin", "token=other")):
        with pytest.raises(VaultFailed, match="is not the key that this database is sealed with"):
            kek_of(Settings(vault_key=wrong)).unwrap(wrapped, PLACE)
    for part, wrong, said in (
        ("object=one", "object=none", r"does not give the key none \(NoSuchKey\)"),
        ("object=one", "object=short", "short in the token xinglin is no AES key of 256 bits"),
        ("token=xinglin", "token=other", r"the token other does not give the key one \(NoSuchToken\)"),
        ("module-path=/", "module-path=/none/", "does not give the key one"),
    ):
        with pytest.raises(VaultFailed, match=said) as failed:
            kek_of(Settings(vault_key=token.replace(part, wrong))).wrap(SECRET, PLACE, Profile.AES)
        assert "\n" not in str(failed.value) and PIN not in str(failed.value)
    monkeypatch.setenv("XINGLIN_TEST_PIN", "0000")
    with pytest.raises(VaultFailed, match="PinIncorrect"):
        kek_of(Settings(vault_key=token)).unwrap(wrapped, PLACE)


async def test_a_database_is_sealed_under_a_token_and_moves_to_its_next_key(
    token: str, database: str
) -> None:
    connection = await asyncpg.connect(database)
    settings = Settings(vault_key=token)
    vault = await open_vault(connection, settings)
    key = vault.new_key("patient.record_key", b"1" * 16)
    sealed = vault.seal(key, "patient.name", b"1" * 16, "张伟")
    both = Settings(vault_key=token.replace("object=one", "object=two,one"))
    assert await masters.rekek(connection, kek_of(both), Profile.AES) == 2
    assert await masters.rekek(connection, kek_of(both), Profile.AES) == 0
    with pytest.raises(VaultFailed):
        await open_vault(connection, settings)
    again = await open_vault(connection, Settings(vault_key=token.replace("object=one", "object=two")))
    assert again.open(key, "patient.name", b"1" * 16, sealed) == "张伟"
    assert again.index("a", "b") == vault.index("a", "b")
    await connection.close()
