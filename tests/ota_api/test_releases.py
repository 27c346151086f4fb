"""Uploads as forms, what is left of failed ones, reissues, withdrawals, versions of keys.json."""

import random
import subprocess
import sys
import time
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psycopg
import pytest

from ota_api.keys.service import TrustedKeyFile
from ota_api.releases.uploads import KEEP_S, sweep
from ota_api.resources import open_resources
from tests.ota_api.conftest import DEVICE_MODEL, Ota
from tests.ota_api.releases import Signer, bundle, esp_image
from tests.ota_api.test_service import environment
from tests.waiting import wait_until
from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings
from zenthos_core.signing import TrustedKeys, read_key, read_trusted_keys, write_trusted_keys
from zenthos_core.tokens import Role

FIRMWARE = "/firmware/publish"


def send_form(
    ota: Ota, release: dict[str, Any], binary: Any, path: str = FIRMWARE, **fields: str
) -> httpx.Response:
    parts = {
        "manifest": b64decode(release["manifest"]),
        "signature": ("s", b64decode(release["signature"])),
        "binary": ("b.zip", binary),
    }
    files = [(n, p if isinstance(p, tuple) else (n, p)) for n, p in parts.items()]
    return ota.send("POST", path, Role.OPERATOR, files=files, data=fields)


def objects(ota: Ota) -> list[str]:
    found = store_of(ota.settings).keys(lake.FIRMWARE)
    return [key for key in found if not key.startswith("health/")]


def swept(settings: Settings, after_s: float) -> list[str]:
    async def run() -> list[str]:
        async with open_resources(settings, lambda: time.time() + after_s) as resources:
            return await sweep(resources)

    return anyio.run(run)


def test_a_form_with_a_file(ota: Ota) -> None:
    release = ota.signer.firmware()
    fields = {"required": "true", "rollout_percentage": "5", "release_notes": "two\nlines"}
    wrong = send_form(ota, release, bundle(), version="v1.0.1")
    assert (wrong.status_code, "v1.0.1" in wrong.json()["detail"]) == (422, True)
    fields["version"] = "v1.0.0"
    answer = send_form(ota, release, bundle(), **fields)
    assert answer.status_code == 201, answer.text
    assert send_form(ota, release, bundle()).status_code == 200
    assert objects(ota) == [ota.rows("SELECT object_key FROM release_targets")[0][0]]
    found = ota.send("GET", f"/releases/{answer.json()['id']}").json()
    assert found["release_notes"] == "two\nlines"
    assert (found["required"], found["rollout_percentage"]) == (True, 5)
    assert len(found["sha1"]) == 40
    assert len(found["md5"]) == 32
    assert ota.rows("SELECT phases, state FROM rollouts") == [([5.0], "running")]
    assert ota.rows("SELECT FROM uploads") == []


@pytest.mark.parametrize(
    "fields",
    [{"colour": "red"}, {"rollout_percentage": "101"}, {"required": "perhaps"}],
    ids=str,
)
def test_a_form_that_is_none(ota: Ota, fields: dict[str, str]) -> None:
    assert send_form(ota, ota.signer.firmware(), bundle(), **fields).status_code == 422
    assert objects(ota) == []


@pytest.mark.parametrize(
    ("binary", "changes", "words"),
    [
        (b"anything", {}, "a firmware-bundle is"),
        (esp_image("v1.0.0", chip_id=0), {"kind": "esp-image"}, "chip id 0"),
        (esp_image("v1.0.1"), {"kind": "esp-image"}, "says it is version"),
        (esp_image()[:-40], {"kind": "esp-image"}, "cut off|SHA-256|checksum"),
        (bundle(), {"release_counter": 1001}, "must be 1 to"),
        (bundle(), {"expires": 1}, "expired"),
    ],
)
def test_what_is_refused_before_the_upload(
    ota: Ota, binary: bytes, changes: dict[str, Any], words: str
) -> None:
    answer = send_form(ota, ota.signer.firmware(binary, **changes), binary)
    assert answer.status_code == 422
    assert any(word in answer.json()["detail"] for word in words.split("|"))
    assert objects(ota) == []
    assert ota.rows("SELECT FROM uploads") == []


def test_a_database_that_fails_after_the_upload(ota: Ota) -> None:
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON releases"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    release = ota.signer.model()
    assert ota.publish(release).status_code == 500
    assert ota.rows("SELECT FROM releases") == []
    assert len(objects(ota)) == 1
    assert swept(ota.settings, KEEP_S - 60) == []
    assert swept(ota.settings, KEEP_S + 60) != []
    assert objects(ota) == []
    assert ota.rows("SELECT FROM uploads") == []


def test_a_server_that_is_killed_between_upload_and_row(ota_settings: Settings) -> None:
    database = ota_settings.database_url.get_secret_value()
    with started(ota_settings) as (ota, process):
        release = ota.signer.model()
        with psycopg.connect(database) as connection, ThreadPoolExecutor(1) as executor:
            connection.execute("LOCK TABLE releases IN SHARE MODE")
            answer = executor.submit(ota.publish, release)
            while not objects(ota):
                assert not answer.done(), answer.result().text
                time.sleep(0.05)
            process.kill()
            process.wait()
            assert isinstance(answer.exception(), httpx.TransportError)
    with started(ota_settings) as (ota, _):
        assert ota.rows("SELECT FROM releases") == []
        (left,) = objects(ota)
        assert swept(ota.settings, KEEP_S + 60) == [left]
        assert objects(ota) == []
        assert ota.publish(release).status_code == 201
        assert objects(ota) == [ota.rows("SELECT object_key FROM release_targets")[0][0]]


def test_what_a_release_names_is_never_swept(ota: Ota) -> None:
    ota.publish(ota.signer.model())
    key = ota.rows("SELECT object_key FROM release_targets")[0][0]
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute("INSERT INTO uploads VALUES (%s, now())", (key,))
    assert swept(ota.settings, KEEP_S + 60) == []
    assert objects(ota) == [key]
    assert ota.rows("SELECT FROM uploads") == []


def test_a_reissue_is_the_way_back(ota: Ota) -> None:
    first = ota.signer.firmware()
    original = ota.publish(first, path=FIRMWARE).json()["id"]
    second = ota.signer.firmware(bundle(b"two"), version="v1.1.0", release_counter=2)
    ota.publish(second, path=FIRMWARE)
    again = ota.signer.reissue(first, 3)
    answers = [ota.publish(again, path=FIRMWARE) for _ in range(2)]
    assert [a.status_code for a in answers] == [201, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"] != original
    assert ota.rows("SELECT reissue_of::text FROM releases WHERE release_counter = 3") == [
        (original,)
    ]
    assert len(objects(ota)) == 2
    found = ota.send("GET", f"/firmware/{DEVICE_MODEL}/v1.0.0").json()
    assert found["release_counter"] == 3
    path = f"/firmware/{DEVICE_MODEL}/v1.0.0?download=true"
    assert ota.send("GET", path).content == bundle()


def test_a_reissue_changes_nothing_but_the_counter(ota: Ota) -> None:
    first = ota.signer.firmware()
    assert ota.publish(ota.signer.reissue(first, 1), path=FIRMWARE).status_code == 404
    ota.publish(first, path=FIRMWARE)
    other = ota.signer.reissue(ota.signer.firmware(bundle(b"other")), 2)
    assert ota.publish(other, path=FIRMWARE).status_code == 409
    assert ota.publish(ota.signer.reissue(first, 1), path=FIRMWARE).status_code == 409
    unsent = {k: v for k, v in ota.signer.reissue(first, 2).items() if k != "reissue"}
    assert ota.publish(unsent, path=FIRMWARE).status_code == 422
    assert ota.rows("SELECT count(*) FROM releases") == [(1,)]


def test_published_again_where_one_model_has_nothing_that_holds(ota: Ota) -> None:
    """Of two device models, one has a reissue; the release itself was withdrawn, or has expired."""
    both = ["esp32-s3", "esp32-cam"]
    first = ota.signer.firmware(device_models=both)
    release_id = ota.publish(first, path=FIRMWARE).json()["id"]
    ota.send("POST", f"/releases/{release_id}/withdraw", json={"reason": "cold"})
    one = ota.signer.firmware(device_models=both[:1])
    assert ota.publish(ota.signer.reissue(one, 2), path=FIRMWARE).status_code == 201
    again = ota.publish(first, path=FIRMWARE)
    assert again.status_code == 409
    assert "v1.0.0 for esp32-cam was withdrawn (cold)" in again.json()["detail"]
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "UPDATE releases SET withdrawn_at = NULL, expires_at = now() WHERE id = %s",
            [release_id],
        )
    again = ota.publish(first, path=FIRMWARE)
    assert again.status_code == 409
    assert "v1.0.0 for esp32-cam is published and has expired" in again.json()["detail"]
    assert ota.publish(ota.signer.reissue(first, 3), path=FIRMWARE).status_code == 201
    assert ota.publish(first, path=FIRMWARE).status_code == 200


def test_a_reissue_is_there_already_only_as_it_was_signed_and_while_it_holds(ota: Ota) -> None:
    first = ota.signer.firmware()
    ota.publish(first, path=FIRMWARE)
    reissue = ota.signer.reissue(first, 2)
    release_id = ota.publish(reissue, path=FIRMWARE).json()["id"]
    otherwise = ota.signer.reissue(ota.signer.firmware(chip="esp32"), 2)
    refused = ota.publish(otherwise, path=FIRMWARE)
    assert refused.status_code == 409
    assert "sign the manifest again with 3" in refused.json()["detail"]
    assert ota.publish(reissue, path=FIRMWARE).status_code == 200
    ota.send("POST", f"/releases/{release_id}/withdraw", json={"reason": "cold"})
    assert ota.publish(reissue, path=FIRMWARE).status_code == 409


def test_withdrawing(ota: Ota) -> None:
    release = ota.signer.firmware()
    release_id = ota.publish(release, path=FIRMWARE).json()["id"]
    path = f"/releases/{release_id}"
    assert len(ota.send("GET", path).json()["open_rollouts"]) == 1
    for reason in ("it drains batteries", "another reason"):
        answer = ota.send("POST", f"{path}/withdraw", json={"reason": reason})
        assert answer.status_code == 200
        assert answer.json()["withdrawal_reason"] == "it drains batteries"
    assert answer.json()["open_rollouts"] == []
    assert ota.rows("SELECT state FROM rollouts") == [("aborted",)]
    log = ota.rows("SELECT count(*) FROM audit_log WHERE action = 'release.withdraw'")
    assert log == [(1,)]
    assert ota.publish(release, path=FIRMWARE).status_code == 409
    listed = ota.send("GET", "/releases", params={"withdrawn": "true"}).json()["items"]
    assert [item["id"] for item in listed] == [release_id]
    assert ota.send("GET", "/releases", params={"withdrawn": "false"}).json()["items"] == []


def resign(ota: Ota, version: int, names: set[str]) -> None:
    """keys.json of a version, with the keys of these kinds alone."""
    root = ota.signer.private_key("root")
    public = read_key(ota.settings.root_public_key_file)
    now = read_trusted_keys(ota.keys / "keys.json", public)
    kept = [key for key in now.keys if names & set(key.kinds)]
    write_trusted_keys(ota.settings.trusted_keys_file, TrustedKeys(version, kept), root)


def test_a_revoked_key_stays_revoked(ota: Ota) -> None:
    wait_until(lambda: ota.rows("SELECT version FROM trusted_key_versions") == [(1,)])
    old = [(ota.keys / n).read_bytes() for n in ("keys.json", "keys.json.sig")]
    resign(ota, 2, {"firmware-bundle"})
    assert ota.publish(ota.signer.model()).status_code == 422
    assert ota.publish(ota.signer.firmware(), path=FIRMWARE).status_code == 201
    for name, content in zip(("keys.json", "keys.json.sig"), old, strict=True):
        (ota.keys / name).write_bytes(content)
    assert ota.publish(ota.signer.model()).status_code == 422
    assert "version 1, but 2" in ota.http.get("/health/ready").json()["checks"]["keys"]
    assert ota.rows("SELECT version FROM trusted_key_versions ORDER BY 1") == [(1,), (2,)]


def test_two_lists_of_one_version(ota: Ota) -> None:
    assert ota.http.get("/keys.json").status_code == 200
    resign(ota, 1, {"model"})
    assert "is not the one accepted" in ota.http.get("/health/ready").json()["checks"]["keys"]
    assert ota.publish(ota.signer.firmware(), path=FIRMWARE).status_code == 201


def test_another_list_of_the_version_that_was_accepted_elsewhere(ota: Ota) -> None:
    keys = TrustedKeyFile(ota.settings.trusted_keys_file, ota.settings.root_public_key_file)
    version = keys.load().keys.version
    keys.learn((version, bytes(32)))
    with pytest.raises(ConfigurationError, match="is not the one accepted"):
        keys.load()


def test_a_list_that_cannot_be_read_leaves_the_last_good_one(ota: Ota) -> None:
    path = ota.settings.trusted_keys_file
    keys = TrustedKeyFile(path, ota.settings.root_public_key_file)
    good = keys.load()
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    assert keys.load() is good
    assert keys.problem is not None
    path.rmdir()
    path.write_bytes(content)
    assert keys.load().document == content
    assert keys.problem is None


def high_water_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def test_100_mib_in_bounded_memory(ota_settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    piece = random.Random(0).randbytes(1024 * 1024)
    with zipfile.ZipFile(path, "w") as archive, archive.open("image", "w") as entry:
        for _ in range(99):
            entry.write(piece)
    with started(ota_settings) as (ota, process):
        small = ota.signer.firmware(bundle(b"small"))
        assert send_form(ota, small, bundle(b"small")).status_code == 201
        before = high_water_kib(process.pid)
        release = ota.signer.firmware(path.read_bytes(), version="v2.0.0", release_counter=2)
        with path.open("rb") as file:
            answer = send_form(ota, release, file)
        assert answer.status_code == 201, answer.text
        assert high_water_kib(process.pid) - before < 32 * 1024


@contextmanager
def started(settings: Settings) -> Iterator[tuple[Ota, subprocess.Popen[bytes]]]:
    """`python -m ota_api`, answering."""
    process = subprocess.Popen([sys.executable, "-m", "ota_api"], env=environment(settings))
    try:
        with httpx.Client(base_url=settings.ota_url, timeout=60, trust_env=False) as http:
            keys = settings.trusted_keys_file.parent
            wait_for(http)
            yield Ota(settings, keys, http, Signer(keys)), process
    finally:
        process.terminate()
        process.wait()


def wait_for(http: httpx.Client) -> None:
    for _ in range(300):
        try:
            http.get("/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server did not start")
