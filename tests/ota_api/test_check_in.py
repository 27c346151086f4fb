"""Check-ins over HTTP on a real database: who gets what, what is written, what is signed."""

import hashlib
import json
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ota_api.releases.schemas import ReleaseMetadata
from ota_api.releases.seen import SeenDevices
from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota, running_ota
from tests.ota_api.releases import bundle, esp_image
from zenthos_core.settings import Settings
from zenthos_core.signing import public_half, verifies
from zenthos_core.tokens import Role

LATEST = f"/models/{DEVICE_MODEL}/irrigation/latest"
NONCE = "nonce-of-this-question"


@pytest.fixture
def field(ota: Ota) -> Ota:
    """With a registered device and a model for all."""
    ota.register()
    ota.publish(ota.signer.model())
    return ota


def ask(ota: Ota, path: str = LATEST, **options: Any) -> httpx.Response:
    return ota.send("GET", path, Role.DEVICE, **options)


def execute(ota: Ota, query: str, *values: object) -> None:
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute(query.encode(), values)


def newer(ota: Ota, counter: int = 2, percentage: int = 100, **changes: Any) -> str:
    """Publish another model; gives its version."""
    body = ota.signer.model(b"newer" * counter, release_counter=counter, **changes)
    answer = ota.publish({**body, "rollout_percentage": percentage})
    assert answer.status_code == 201, answer.text
    return str(json.loads(b64decode(body["manifest"]))["version"])


def deployments(ota: Ota) -> list[tuple[Any, ...]]:
    return ota.rows(
        "SELECT r.release_counter, d.state, d.reason FROM deployments d"
        " JOIN rollouts o ON o.id = d.rollout_id JOIN releases r ON r.id = o.release_id ORDER BY 1"
    )


def test_metadata_is_as_documented(field: Ota) -> None:
    answer = ask(field)
    told = ReleaseMetadata.model_validate(answer.json())
    [(deployment_id, rollout)] = field.rows("SELECT id, rollout_id FROM deployments")
    assert (told.deployment_id, told.rollout) == (deployment_id, rollout)
    assert told.sha256 == hashlib.sha256(field.http.get(
        told.binary_url, headers=field.headers(Role.DEVICE, DEVICE_ID)
    ).content).hexdigest()  # fmt: skip
    assert answer.headers["cache-control"] == "private, no-cache"
    user = ReleaseMetadata.model_validate(field.send("GET", LATEST).json())
    assert (user.deployment_id, user.rollout) == (None, None)


@pytest.mark.parametrize("query", ["", "?download=false", "?x=1"])
def test_both_ways_of_reading_a_request_answer_the_same(field: Ota, query: str) -> None:
    assert ask(field, LATEST + query).content == ask(field).content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/esp32-s3/irrigation/newest", 422),
        ("/models/ESP/irrigation/latest", 422),
        ("/models/esp32-s3/-/latest", 422),
        ("/firmware/esp32-s3/m-20261123-0a1b2c3", 422),
        (f"{LATEST}?nonce=short", 422),
        (f"{LATEST}?nonce={'x' * 65}", 422),
        (f"{LATEST}?download=maybe", 422),
        ("/models/esp32-cam/irrigation/latest", 403),
        ("/models/esp32-s3/frost/latest", 404),
    ],
)
def test_what_is_not_plain_is_refused_as_documented(
    shared_ota: Ota, path: str, status: int
) -> None:
    answer = ask(shared_ota, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_etag_changes_with_what_is_told(field: Ota) -> None:
    first = ask(field)
    known = {"If-None-Match": first.headers["etag"]}
    again = ask(field, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert field.send("GET", LATEST, headers=known).status_code == 200
    newer(field)
    assert ask(field, headers=known).status_code == 200


def test_first_offer_is_recorded_once(field: Ota) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(field), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["deployment_id"] for answer in answers}) == 1
    assert deployments(field) == [(1, "pending", None)]
    assert field.rows("SELECT state FROM deployment_events") == [("pending",)]


def test_newer_offer_supersedes_and_a_withdrawal_brings_back(field: Ota) -> None:
    ask(field)
    newer(field)
    ask(field)
    assert deployments(field) == [(1, "aborted", "superseded"), (2, "pending", None)]
    execute(field, "UPDATE releases SET withdrawn_at = now() WHERE release_counter = 2")
    assert ask(field).json()["release_counter"] == 1
    assert deployments(field)[0] == (1, "pending", None)


def test_resumed_newer_offer_supersedes_what_was_offered_meanwhile(field: Ota) -> None:
    newer(field)
    ask(field)
    path = f"/rollouts/{field.rows('SELECT id FROM rollouts ORDER BY created_at DESC')[0][0]}"
    field.send("POST", f"{path}/pause", json={})
    execute(field, "UPDATE deployments SET state = 'aborted', reason = 'superseded'")
    assert ask(field).json()["release_counter"] == 1
    field.send("POST", f"{path}/resume")
    execute(field, "UPDATE deployments SET state = 'pending' WHERE reason IS NOT NULL")
    assert ask(field).json()["release_counter"] == 2
    assert deployments(field)[0][:2] == (1, "aborted")
    assert deployments(field)[1][:2] == (2, "pending")


def test_device_that_has_it_already(field: Ota) -> None:
    version = newer(field)
    execute(field, "UPDATE devices SET model_version = %s", version)
    assert ask(field).status_code == 200
    assert deployments(field) == [(2, "already-installed", None)]


def test_paused_a_moment_ago_counts(field: Ota) -> None:
    """The catalogue in memory is not believed once its version has changed."""
    newer(field)
    execute(field, "UPDATE rollouts SET state = 'paused' WHERE release_id IN"
            " (SELECT id FROM releases WHERE release_counter = 2)")  # fmt: skip
    assert ask(field).json()["release_counter"] == 1
    execute(field, "UPDATE rollouts SET state = 'aborted'")
    denied = ask(field)
    assert (denied.status_code, denied.json()["reason"]) == (403, "rollout_aborted")


def test_standing_is_read_each_time(field: Ota) -> None:
    assert ask(field).status_code == 200
    execute(field, "UPDATE devices SET tokens_valid_from = now() + INTERVAL '1 hour'")
    assert ask(field).status_code == 401
    execute(field, "UPDATE devices SET tokens_valid_from = NULL, decommissioned_at = now()")
    assert ask(field).status_code == 403


def test_refusal_says_why(field: Ota) -> None:
    newer(field, requires={"min_firmware": "v1.4.0"})
    execute(field, "UPDATE rollouts SET state = 'aborted' WHERE release_id IN"
            " (SELECT id FROM releases WHERE release_counter = 1)")  # fmt: skip
    execute(field, "UPDATE devices SET firmware_version = 'v1.2.0'")
    denied = ask(field).json()
    assert denied["reason"] == "needs_firmware"
    assert "needs firmware v1.4.0 first; the device runs v1.2.0" in denied["detail"]
    newer(field, counter=3, percentage=0)
    assert ask(field).json()["reason"] == "no_rollout"


def signed(ota: Ota, answer: httpx.Response) -> dict[str, Any]:
    """What the online key signed."""
    document = b64decode(answer.json()["checkin"])
    signature = b64decode(answer.json()["checkin_signature"])
    assert verifies(public_half(ota.signer.private_key("online")), document, signature)
    content: dict[str, Any] = json.loads(document)
    assert abs(content.pop("issued_at") - time.time()) < 60
    return content


def test_answer_is_signed_over_the_nonce(field: Ota) -> None:
    answer = ask(field, f"{LATEST}?nonce={NONCE}")
    manifest = b64decode(answer.json()["manifest"])
    assert signed(field, answer) == {
        "device_id": DEVICE_ID,
        "nonce": NONCE,
        "asked": LATEST,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
    }
    known = {"If-None-Match": answer.headers["etag"]}
    assert ask(field, f"{LATEST}?nonce={NONCE}", headers=known).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [(LATEST, 403), (f"/models/{DEVICE_MODEL}/frost/latest", 404)],
)
def test_refusal_is_signed_too(field: Ota, path: str, status: int) -> None:
    execute(field, "UPDATE rollouts SET state = 'aborted'")
    answer = ask(field, f"{path}?nonce={NONCE}")
    assert answer.status_code == status
    content = signed(field, answer)
    assert (content["manifest_sha256"], content["asked"]) == ("", path)


def test_nothing_is_signed_for_users_or_for_one_version(field: Ota) -> None:
    """A user may bear the name of a device; an older version is no answer to what is the latest."""
    headers = field.headers(Role.VIEWER, DEVICE_ID)
    answer = field.http.get(f"{LATEST}?nonce={NONCE}", headers=headers)
    assert (answer.status_code, answer.json().get("checkin")) == (200, None)
    version = ask(field).json()["version"]
    one = ask(field, f"{LATEST.removesuffix('latest')}{version}?nonce={NONCE}")
    assert (one.status_code, one.json().get("checkin")) == (200, None)


def test_connections_that_died_are_replaced(field: Ota) -> None:
    assert ask(field).status_code == 200
    execute(
        field,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'zenthos-ota-api' AND datname = current_database()",
    )
    assert ask(field).status_code == 200


def test_many_at_once_each_get_their_own(field: Ota) -> None:
    names = [f"many-{number:02}" for number in range(24)]
    for name in names:
        assert field.register(name).status_code == 201
    execute(field, "UPDATE devices SET decommissioned_at = now() WHERE id = 'many-07'")

    def ask_as(name: str) -> tuple[int, int | None]:
        answer = field.http.get(LATEST, headers=field.headers(Role.DEVICE, name))
        return answer.status_code, answer.json().get("deployment_id")

    with ThreadPoolExecutor(12) as pool:
        answers = dict(zip(names, pool.map(ask_as, names), strict=True))
    assert answers.pop("many-07") == (403, None)
    found = dict(field.rows("SELECT device_id, id FROM deployments"))
    assert {name: (200, found[name]) for name in answers} == answers


def test_when_devices_asked_is_written_at_the_end(ota_settings: Settings) -> None:
    with running_ota(ota_settings) as ota:
        ota.register()
        ota.publish(ota.signer.model())
        ask(ota)
        asked_at = time.time()
    [(firmware, at)] = ota.rows(
        "SELECT checked_in_at, extract(epoch FROM model_checked_in_at)::float8 FROM devices"
    )
    assert firmware is None, "it has asked for the model alone"
    assert abs(at - asked_at) < 60


def test_never_back_to_firmware_of_another_kind(ota: Ota) -> None:
    ota.register()
    image = ota.signer.firmware(esp_image(), kind="esp-image", version="v1.0.0")
    newest = ota.signer.firmware(bundle(b"new"), version="v2.0.0", release_counter=2)
    for body in (image, newest):
        assert ota.publish(body, path="/firmware/publish").status_code == 201
    execute(ota, "UPDATE devices SET firmware_version = 'v2.0.0'")
    answer = ask(ota, f"/firmware/{DEVICE_MODEL}/latest?kind=esp-image")
    assert (answer.status_code, answer.json()["reason"]) == (403, "older_than_running")


def test_asking_for_one_version_is_no_check_in(ota_settings: Settings) -> None:
    with running_ota(ota_settings) as ota:
        ota.register()
        ota.publish(ota.signer.model())
        version = ask(ota).json()["version"]
    ota.rows("UPDATE devices SET model_checked_in_at = NULL RETURNING id")
    with running_ota(ota_settings) as ota:
        assert ask(ota, LATEST.replace("latest", version)).status_code == 200
    assert ota.rows("SELECT model_checked_in_at FROM devices") == [(None,)]


async def test_a_row_that_is_being_written_is_not_waited_for(ops_url: str) -> None:
    add = "INSERT INTO farms (name) VALUES ('f');"
    devices = (
        "INSERT INTO devices (id, farm_id, device_model, device_type)"
        " SELECT unnest(ARRAY['one', 'two']), id, 'esp32-s3', 'soil' FROM farms;"
    )
    async with AsyncConnectionPool[AsyncConnection](ops_url, open=False) as pool:
        seen = SeenDevices(pool)
        with psycopg.connect(ops_url) as connection:
            connection.execute(f"{add}{devices}".encode())
            connection.commit()
            connection.execute("UPDATE devices SET last_seen = now() WHERE id = 'one'")
            seen.note("one", 1_795_000_000.0)
            seen.note("two", 1_795_000_001.0)
            assert await seen.flush() == 1
        assert await seen.flush() == 1
        assert await seen.flush() == 0
