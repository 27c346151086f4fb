"""Publishing, by the rules of ota_api/releases/service.py."""

import hashlib
import time
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ota_api.clocks import Clock
from tests.ota_api.conftest import DEVICE_MODEL, Ota, running_ota
from tests.ota_api.releases import BINARY, DAY_S, bundle, esp_image
from zenthos_core import lake
from zenthos_core.blobs import open_store
from zenthos_core.settings import Settings
from zenthos_core.signing import (
    ReleaseKey,
    TrustedKeys,
    generate_key,
    key_id,
    public_half,
    write_trusted_keys,
)
from zenthos_core.tokens import Role

OTHER = b"other weights " * 100
THIRD = b"third weights " * 100


def changed(release: dict[str, Any], field: str, edit: Any) -> dict[str, Any]:
    return release | {field: b64encode(edit(b64decode(release[field]))).decode()}


def flip_last_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def nothing_published(ota: Ota) -> bool:
    store = open_store(ota.settings.blob_url)
    stored = [k for k in store.keys(lake.FIRMWARE) if not k.startswith("health/")]
    return not stored and ota.rows("SELECT FROM releases") == []


def test_published_model_is_found(ota: Ota) -> None:
    release = ota.signer.model(release_counter=3)
    answer = ota.publish(release | {"release_notes": "first\nlight", "required": True})
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "published"
    for version in ("latest", f"m-20261123-{hashlib.sha256(BINARY).hexdigest()[:7]}"):
        found = ota.send("GET", f"/models/{DEVICE_MODEL}/irrigation/{version}", Role.VIEWER).json()
        assert b64decode(found["manifest"]) == b64decode(release["manifest"])
        assert found["signature"] == release["signature"]
        assert found["binary_url"] == answer.json()["url"]
        assert found["sha256"] == hashlib.sha256(BINARY).hexdigest()
        assert (found["size_bytes"], found["release_counter"]) == (len(BINARY), 3)
        assert (found["required"], found["rollout_percentage"]) == (True, 100)
        assert found["release_notes"] == "first\nlight"
    assert ota.rows("SELECT published_by FROM releases") == [("someone",)]
    headers = ota.headers(Role.ADMIN)
    assert ota.http.get(answer.json()["url"], headers=headers).content == BINARY


def test_published_firmware_is_found(ota: Ota) -> None:
    assert ota.publish(ota.signer.firmware(), path="/firmware/publish").status_code == 201
    image = ota.signer.firmware(
        esp_image("v1.1.0"), kind="esp-image", version="v1.1.0", release_counter=2
    )
    assert ota.publish(image, path="/firmware/publish").status_code == 201
    for path, kind in (
        ("latest", "esp-image"),
        ("latest?kind=firmware-bundle", "firmware-bundle"),
        ("v1.0.0", "firmware-bundle"),
        ("v1.1.0", "esp-image"),
    ):
        assert ota.send("GET", f"/firmware/{DEVICE_MODEL}/{path}").json()["kind"] == kind


def test_release_for_several_models(ota: Ota) -> None:
    release = ota.signer.model(device_models=["esp32-s3", "esp32-cam"])
    assert ota.publish(release).status_code == 201
    for model in ("esp32-s3", "esp32-cam"):
        assert ota.send("GET", f"/models/{model}/irrigation/latest").status_code == 200
    assert ota.send("GET", "/models/esp32-oled/irrigation/latest").status_code == 404


def test_latest_is_the_newest_counter_that_has_not_expired(ota_settings: Settings) -> None:
    clock = Clock(time.time())
    with running_ota(ota_settings, clock) as ota:
        soon = int(clock.now) + 60
        ota.publish(ota.signer.model(release_counter=1))
        ota.publish(ota.signer.model(OTHER, release_counter=2, expires=soon))
        path = f"/models/{DEVICE_MODEL}/irrigation/latest"
        assert ota.send("GET", path).json()["release_counter"] == 2
        clock.now = soon + 0.1
        assert ota.send("GET", path).json()["release_counter"] == 1


def test_counter_to_sign_next(ota: Ota) -> None:
    path = f"/release-counters/{DEVICE_MODEL}/model"
    assert ota.send("GET", path).json() == {
        "device_model": DEVICE_MODEL,
        "kind": "model",
        "newest": 0,
        "next": 1,
    }
    ota.publish(ota.signer.model(release_counter=7))
    assert ota.send("GET", path).json()["next"] == 8


@pytest.mark.parametrize("least", ["1.4.0", "latest", ""])
def test_a_demand_that_is_no_version(ota: Ota, least: str) -> None:
    release = ota.signer.model(requires={"min_firmware": least})
    answer = ota.publish(release)
    assert (answer.status_code, "min_firmware" in answer.json()["detail"]) == (422, True)


def test_firmware_has_one_counter_for_all_kinds(ota: Ota) -> None:
    publish = partial(ota.publish, path="/firmware/publish")
    image = esp_image("v1.4.0")
    first = ota.signer.firmware(image, kind="esp-image", version="v1.4.0", release_counter=5)
    assert publish(first).status_code == 201
    path = f"/release-counters/{DEVICE_MODEL}"
    assert ota.send("GET", f"{path}/firmware-bundle").json()["next"] == 6
    assert ota.send("GET", f"{path}/model").json()["next"] == 1
    bundled = {"version": "v1.6.0", "release_counter": 1}
    assert publish(ota.signer.firmware(**bundled)).status_code == 409
    assert publish(ota.signer.firmware(**bundled | {"release_counter": 6})).status_code == 201


def test_a_step_that_devices_of_one_model_would_refuse(ota: Ota) -> None:
    ota.publish(ota.signer.model(release_counter=1_000))
    both = ["esp32-s3", "esp32-cam"]
    answer = ota.publish(ota.signer.model(OTHER, device_models=both, release_counter=1_001))
    assert answer.status_code == 422
    assert "1000 apart" in answer.json()["detail"]
    alone = ota.signer.model(OTHER, device_models=both[1:], release_counter=700)
    assert ota.publish(alone).status_code == 201
    third = ota.signer.model(THIRD, device_models=both, release_counter=1_701)
    refused = ota.publish(third)
    assert refused.status_code == 422, "esp32-cam takes up to 1,700"
    assert "must be 1001 to 1700" in refused.json()["detail"]
    third = ota.signer.model(THIRD, device_models=both, release_counter=1_700)
    assert ota.publish(third).status_code == 201


def test_the_same_signed_anew_after_it_expired_is_told_to_be_reissued(
    ota_settings: Settings,
) -> None:
    clock = Clock(time.time())
    with running_ota(ota_settings, clock) as ota:
        soon = int(clock.now) + 60
        assert ota.publish(ota.signer.model(expires=soon)).status_code == 201
        clock.now = soon + 0.1
        anew = ota.publish(ota.signer.model(release_counter=2))
        assert (anew.status_code, "release reissue" in anew.json()["detail"]) == (409, True)
        again = {**ota.signer.model(release_counter=2), "reissue": True, "binary_data": None}
        assert ota.publish(again).status_code == 201


def test_what_is_said_beside_the_manifest_must_agree_with_it(ota: Ota) -> None:
    said = {"device_model": DEVICE_MODEL, "version": "v1.0.0"}
    body = ota.signer.firmware()
    for wrong in ({"device_model": "esp32-cam"}, {"version": "v1.0.1"}):
        refused = ota.publish({**body, **said, **wrong}, path="/firmware/publish")
        assert refused.status_code == 422
        assert next(iter(wrong.values())) in refused.json()["detail"]
    assert ota.publish({**body, **said}, path="/firmware/publish").status_code == 201


def test_same_again_is_answered_with_the_same(ota: Ota) -> None:
    release = ota.signer.model()
    first, second = ota.publish(release), ota.publish(release)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    again = ota.publish(ota.signer.model(release_counter=9))  # signed anew, the same binary
    assert (again.status_code, again.json()) == (200, first.json())
    assert ota.rows("SELECT count(*) FROM releases") == [(1,)]


@pytest.mark.parametrize("kind", ["model", "firmware"])
def test_same_version_with_other_bytes_is_a_conflict(ota: Ota, kind: str) -> None:
    path = {"model": "/models/publish", "firmware": "/firmware/publish"}[kind]
    version = {"model": "m-20261123-0a1b2c3", "firmware": "v1.2.3"}[kind]
    sign = getattr(ota.signer, kind)
    assert ota.publish(sign(version=version), path=path).status_code == 201
    other = OTHER if kind == "model" else bundle(OTHER)
    answer = ota.publish(sign(other, version=version, release_counter=2), path=path)
    assert answer.status_code == 409
    assert "new version" in answer.json()["detail"]
    stored = ota.send("GET", "/models/esp32-s3/irrigation/latest?download=true")
    if kind == "model":
        assert stored.content == BINARY


def test_firmware_version_means_one_thing(ota: Ota) -> None:
    ota.publish(ota.signer.firmware(), path="/firmware/publish")
    for binary, change in ((esp_image(), {"kind": "esp-image"}), (bundle(), {"name": "another"})):
        release = ota.signer.firmware(binary, release_counter=2, **change)
        assert ota.publish(release, path="/firmware/publish").status_code == 409


def test_same_version_for_more_models_is_a_conflict(ota: Ota) -> None:
    ota.publish(ota.signer.model())
    wider = ota.signer.model(device_models=["esp32-s3", "esp32-cam"], release_counter=2)
    answer = ota.publish(wider)
    assert answer.status_code == 409
    assert "fewer device models" in answer.json()["detail"]


@pytest.mark.parametrize("counter", [5, 4, 1])
def test_counter_that_is_taken_is_a_conflict(ota: Ota, counter: int) -> None:
    ota.publish(ota.signer.model(release_counter=5))
    answer = ota.publish(ota.signer.model(OTHER, release_counter=counter))
    assert answer.status_code == 409
    assert "sign the manifest again with 6" in answer.json()["detail"]


@pytest.mark.parametrize("counter", [0, -1, 1001])
def test_counter_out_of_bounds(ota: Ota, counter: int) -> None:
    assert ota.publish(ota.signer.model(release_counter=counter)).status_code in {409, 422}
    assert nothing_published(ota)


@pytest.mark.parametrize("key", ["firmware", "online", "root"])
def test_key_that_may_not_sign_models(ota: Ota, key: str) -> None:
    assert ota.publish(ota.signer.model(key=key)).status_code == 422
    assert nothing_published(ota)


def test_model_key_signs_no_firmware(ota: Ota) -> None:
    answer = ota.publish(ota.signer.firmware(key="model"), path="/firmware/publish")
    assert answer.status_code == 422
    assert "may not sign" in answer.json()["detail"]


def test_kind_belongs_to_its_route(ota: Ota) -> None:
    assert ota.publish(ota.signer.model(), path="/firmware/publish").status_code == 422
    assert ota.publish(ota.signer.firmware(), path="/models/publish").status_code == 422
    assert nothing_published(ota)


@pytest.mark.parametrize("field", ["manifest", "signature", "binary_data"])
def test_one_bit_changed(ota: Ota, field: str) -> None:
    answer = ota.publish(changed(ota.signer.model(), field, flip_last_bit))
    assert answer.status_code == 422
    assert nothing_published(ota)


def test_binary_longer_than_signed(ota: Ota) -> None:
    answer = ota.publish(changed(ota.signer.model(), "binary_data", lambda b: b + b"!"))
    assert answer.status_code == 422
    assert "the manifest says" in answer.json()["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "../../../etc/passwd"},
        {"version": "m-20261123-0a1b2c3/../x"},
        {"version": "v1.0.0"},
        {"version": "m-2026112\u0663-0a1b2c3"},
        {"name": "../irrigation"},
        {"name": ""},
        {"name": "irrigation\u0000"},
        {"device_models": []},
        {"device_models": ["../esp32"]},
        {"device_models": ["esp32-s3", "esp32-s3"]},
        {"kind": "firmware-bundle"},
        {"kind": "script"},
        {"spec_version": 2},
        {"expires": 1},
        {"expires": 10**15},
        {"expires": 10**30},
        {"release_counter": 2**70},
        {"created": 2_000_000_000, "expires": 1_999_999_999},
        {"input_shape": None},
        {"sha256": "0" * 64},
        {"size": 0},
        {"size": -1},
    ],
    ids=str,
)
def test_signed_but_not_acceptable(ota: Ota, fields: dict[str, Any]) -> None:
    answer = ota.publish(ota.signer.model(**fields))
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert nothing_published(ota)


def rewrite_keys(ota: Ota, **changes: Any) -> None:
    public = public_half(ota.signer.private_key("model"))
    key = ReleaseKey(
        **{
            "key_id": key_id(public),
            "public_key": b64encode(public).decode(),
            "kinds": ["model"],
            "device_models": ["*"],
            "expires": int(time.time()) + DAY_S,
            **changes,
        }
    )
    root = ota.signer.private_key("root")
    write_trusted_keys(ota.settings.trusted_keys_file, TrustedKeys(2, [key]), root)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 201),
        ({"expires": 1}, 422),
        ({"kinds": ["esp-image"]}, 422),
        ({"device_models": ["esp32-cam"]}, 422),
        ({"public_key": b64encode(bytes(32)).decode()}, 422),
    ],
)
def test_trusted_keys_are_read_again(ota: Ota, changes: dict[str, Any], status: int) -> None:
    assert ota.http.get("/keys.json").status_code == 200  # the old ones are loaded
    rewrite_keys(ota, **changes)
    assert ota.publish(ota.signer.model()).status_code == status


def test_keys_not_signed_by_the_root_change_nothing(ota: Ota) -> None:
    before = ota.http.get("/keys.json").json()
    public = public_half(ota.signer.private_key("model"))
    key = ReleaseKey(key_id(public), b64encode(public).decode(), ["model"], ["*"], 2**40)
    write_trusted_keys(ota.settings.trusted_keys_file, TrustedKeys(9, [key]), generate_key())
    assert ota.http.get("/keys.json").json() == before
    assert ota.publish(ota.signer.model()).status_code == 201  # the last good keys hold on
    ready = ota.http.get("/health/ready")
    assert ready.status_code == 503
    assert "not signed by the root" in ready.json()["checks"]["keys"]


def test_store_that_fails_leaves_no_row(ota: Ota) -> None:
    bucket = Path(ota.settings.blob_url.removeprefix("file://")) / lake.FIRMWARE
    (bucket / "models").write_text("a file where a folder must be: the store cannot write")
    assert ota.publish(ota.signer.model()).status_code == 500
    assert ota.rows("SELECT FROM releases") == []
    (bucket / "models").unlink()
    assert ota.publish(ota.signer.model()).status_code == 201


def test_binary_lost_by_the_store_is_our_fault(ota: Ota) -> None:
    ota.publish(ota.signer.model())
    bucket = Path(ota.settings.blob_url.removeprefix("file://")) / lake.FIRMWARE
    next((bucket / "models").rglob("*.tflite")).unlink()
    path = f"/models/{DEVICE_MODEL}/irrigation/latest"
    assert ota.send("GET", path).status_code == 200
    assert ota.send("GET", f"{path}?download=true").status_code == 500


@pytest.mark.parametrize("same", [True, False])
def test_two_at_once(ota: Ota, same: bool) -> None:
    version = "m-20261123-0a1b2c3"
    one = ota.signer.model(version=version)
    other = one if same else ota.signer.model(OTHER, version=version)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ota.publish, [one, other] * 4))
    codes = sorted(answer.status_code for answer in answers)
    if same:
        assert codes == [200] * 7 + [201]
        assert len({answer.json()["id"] for answer in answers}) == 1
    else:
        assert codes.count(201) == 1
        assert codes == [200] * 3 + [201] + [409] * 4
    found = ota.send("GET", f"/models/{DEVICE_MODEL}/irrigation/{version}").json()
    binary = ota.send("GET", f"/models/{DEVICE_MODEL}/irrigation/{version}?download=true").content
    assert hashlib.sha256(binary).hexdigest() == found["sha256"]
