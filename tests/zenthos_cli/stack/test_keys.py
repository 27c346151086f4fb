"""The keys that `zenthos up` makes."""

import stat
import time
from pathlib import Path

import pytest

from zenthos_cli.stack.keys import make_keys
from zenthos_core.errors import ManifestError
from zenthos_core.signing import (
    CHECK_IN,
    TrustedKeys,
    generate_key,
    key_id,
    public_half,
    read_key,
    read_trusted_keys,
    write_trusted_keys,
)
from zenthos_core.tokens import Role, issue, verify

NOW = 1_760_000_000.0
PRIVATE = ("token.pem", "root.key", "firmware.key", "model.key", "online.key")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", now=NOW)
    return tmp_path / "keys"


@pytest.mark.parametrize("name", PRIVATE)
def test_private_keys_are_their_owners_alone(keys: Path, name: str) -> None:
    assert stat.S_IMODE((keys / name).stat().st_mode) == 0o600


def test_release_keys_may_sign_their_kind_alone(keys: Path) -> None:
    trusted = read_trusted_keys(keys / "keys.json", read_key(keys / "root.pub"))
    model = trusted.find(key_id(public_half(read_key(keys / "model.key"))))
    firmware = trusted.find(key_id(public_half(read_key(keys / "firmware.key"))))
    assert model.may_sign("model", ["esp32-s3"])
    assert not model.may_sign("esp-image", ["esp32-s3"])
    assert firmware.may_sign("firmware-bundle", ["esp32-s3"])
    assert not firmware.may_sign("model", ["esp32-s3"])


def test_the_online_key_may_sign_no_release(keys: Path) -> None:
    trusted = read_trusted_keys(keys / "keys.json", read_key(keys / "root.pub"))
    online = trusted.find(key_id(read_key(keys / "online.pub")))
    assert online.kinds == [CHECK_IN]


def test_an_older_list_gets_the_online_key_under_a_higher_version(keys: Path) -> None:
    root, listed = read_key(keys / "root.key"), keys / "keys.json"
    whole = read_trusted_keys(listed, public_half(root))
    write_trusted_keys(listed, TrustedKeys(7, whole.keys[:2]), root)
    make_keys(keys, now=NOW)
    assert read_trusted_keys(listed, public_half(root)) == TrustedKeys(8, whole.keys)


def test_another_root_key_is_not_trusted(keys: Path) -> None:
    with pytest.raises(ManifestError):
        read_trusted_keys(keys / "keys.json", public_half(generate_key()))


def test_the_token_keys_belong_together(keys: Path) -> None:
    token = issue((keys / "token.pem").read_bytes(), "ana", Role.ADMIN, now=time.time(), valid_s=60)
    assert verify((keys / "token.pub.pem").read_bytes(), token).subject == "ana"


def test_keys_are_kept_and_what_is_missing_is_made(keys: Path) -> None:
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    for name in ("token.pub.pem", "root.pub", "keys.json", "keys.json.sig"):
        (keys / name).unlink()
    make_keys(keys, now=NOW)
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
