"""Farms and devices: registration, lists, status."""

import time
import uuid

import httpx
import paho.mqtt.client as mqtt
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota, running_ota, serving
from tests.ota_api.releases import Signer
from tests.servers import MosquittoServer, TokenBroker
from tests.waiting import wait_until
from zenthos_core import tokens
from zenthos_core.revocations import revoke_tokens
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role


def test_registering_gives_a_token_of_the_device(ota: Ota) -> None:
    answer = ota.register(location={"lat": 40.5, "lon": -74.25})
    assert answer.status_code == 201
    body = answer.json()
    assert body["device_id"] == DEVICE_ID
    assert body["mqtt_broker"] == ota.settings.mqtt_public_address
    public = ota.settings.token_public_key_file.read_bytes()
    identity = tokens.verify(public, body["jwt_token"])
    assert (identity.subject, identity.role) == (DEVICE_ID, Role.DEVICE)
    assert identity.scopes == {"read"}
    assert answer.headers["cache-control"] == "no-store"


def test_registering_makes_a_broker_account(ota: Ota) -> None:
    ota.register()
    assert ota.settings.mqtt_password_file is not None
    assert ota.settings.mqtt_password_file.read_text().startswith(f"{DEVICE_ID}:$7$")


def test_a_device_cannot_take_the_account_of_a_service(ota: Ota) -> None:
    answer = ota.register(device_id="svc-ingest")
    assert answer.status_code == 422
    assert "name services" in answer.text


def test_registering_again_gives_a_new_token(ota: Ota) -> None:
    first, second = ota.register(), ota.register()
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["jwt_token"] != second.json()["jwt_token"]
    assert ota.settings.mqtt_password_file is not None
    assert len(ota.settings.mqtt_password_file.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"device_model": "esp32-cam"},
        {"device_type": "camera"},
        {"farm_name": "South"},
        {"location": {"lat": 1, "lon": 2}},
    ],
)
def test_registering_with_other_data_is_a_conflict(ota: Ota, change: dict[str, object]) -> None:
    ota.register()
    answer = ota.register(**change)
    assert answer.status_code == 409
    assert DEVICE_ID in answer.json()["detail"]
    assert ota.rows("SELECT name FROM farms") == [("North",)]  # the transaction is undone


def test_a_conflict_leaves_the_old_account_in_place(ota: Ota) -> None:
    ota.register()
    assert ota.settings.mqtt_password_file is not None
    before = ota.settings.mqtt_password_file.read_bytes()
    ota.register(device_type="camera")
    assert ota.settings.mqtt_password_file.read_bytes() == before


def test_farm_may_be_named_by_id(ota: Ota) -> None:
    farm = ota.send("POST", "/farms", json={"name": "West"}).json()
    answer = ota.register(farm_id=farm["id"], farm_name=None)
    assert answer.status_code == 201
    assert answer.json()["farm_id"] == farm["id"]


def test_unknown_farm(ota: Ota) -> None:
    answer = ota.register(farm_id=str(uuid.uuid4()), farm_name=None)
    assert answer.status_code == 404
    assert "POST /farms" in answer.json()["detail"]


@pytest.mark.parametrize("farms", [{}, {"farm_id": str(uuid.uuid4()), "farm_name": "North"}])
def test_exactly_one_farm_is_named(ota: Ota, farms: dict[str, str]) -> None:
    answer = ota.register(**({"farm_name": None} | farms))
    assert answer.status_code == 422
    assert "farm_id or farm_name" in answer.json()["detail"]


def test_status_shows_what_ingest_wrote(ota: Ota) -> None:
    ota.register(location={"lat": 40.5, "lon": -74.25})
    for path in (f"/devices/{DEVICE_ID}/status", f"/device/{DEVICE_ID}/status"):
        answer = ota.send("GET", path, Role.VIEWER)
        assert answer.status_code == 200
        assert answer.json()["status"] is None
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "UPDATE devices SET status = 'online', battery_voltage = 3.85, last_seen = now(),"
            " firmware_version = 'v0.2.1'"
        )
    status = ota.send("GET", f"/devices/{DEVICE_ID}/status", Role.DEVICE).json()
    assert status["status"] == "online"
    assert status["battery_voltage"] == 3.85
    assert status["firmware_version"] == "v0.2.1"
    assert status["location"] == {"lat": 40.5, "lon": -74.25}


def test_unknown_device(ota: Ota) -> None:
    answer = ota.send("GET", "/devices/no-such-device/status")
    assert answer.status_code == 404


def test_a_device_sees_only_itself(ota: Ota) -> None:
    ota.register()
    ota.register("field-sensor-002")
    for path in ("/devices/field-sensor-002/status", "/device/field-sensor-002/status"):
        assert ota.send("GET", path, Role.DEVICE).status_code == 403


def test_devices_in_pages_and_filtered(ota: Ota) -> None:
    for number in range(7):
        model = "esp32-cam" if number == 3 else DEVICE_MODEL
        ota.register(f"field-{number}", device_model=model)
    seen: list[str] = []
    after = ""
    for _ in range(4):
        page = ota.send("GET", "/devices", Role.VIEWER, params={"limit": 2, "after": after}).json()
        seen += [device["device_id"] for device in page["items"]]
        after = page["next"]
    assert seen == [f"field-{number}" for number in range(7)]
    assert after is None
    cams = ota.send("GET", "/devices", params={"device_model": "esp32-cam"}).json()["items"]
    assert [device["device_id"] for device in cams] == ["field-3"]
    assert ota.send("GET", "/devices", params={"status": "online"}).json()["items"] == []
    assert ota.send("GET", "/devices", params={"farm_id": str(uuid.uuid4())}).json()["items"] == []


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 501}, {"limit": "many"}, {"farm_id": 1}])
def test_pages_have_bounds(ota: Ota, query: dict[str, object]) -> None:
    assert ota.send("GET", "/devices", params=query).status_code == 422


def test_farms_are_created_once(ota: Ota) -> None:
    farm = {"name": "North", "crop_type": "maize", "location": {"lat": 1.5, "lon": 2.5}}
    first, second = (ota.send("POST", "/farms", json=farm) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert ota.send("POST", "/farms", json={"name": "North"}).status_code == 200
    for status in (201, 200):
        answer = ota.send("POST", "/farms", json={"name": "South", "owner": None})
        assert answer.status_code == status
    other = ota.send("POST", "/farms", json={"name": "North", "crop_type": "rye"})
    assert other.status_code == 409
    assert "crop_type" in other.json()["detail"]


def test_farms_in_pages(ota: Ota) -> None:
    for name in ("b", "a", "c"):
        ota.send("POST", "/farms", json={"name": name})
    first = ota.send("GET", "/farms", Role.VIEWER, params={"limit": 2}).json()
    assert [farm["name"] for farm in first["items"]] == ["a", "b"]
    rest = ota.send("GET", "/farms", params={"limit": 2, "after": first["next"]}).json()
    assert ([farm["name"] for farm in rest["items"]], rest["next"]) == (["c"], None)


def connects(server: MosquittoServer, user: str, password: str) -> bool:
    answers: list[bool] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user, protocol=mqtt.MQTTv5)
    client.on_connect = lambda c, u, f, reason, p: answers.append(not reason.is_failure)
    client.username_pw_set(user, password)
    client.connect(server.host, server.port)
    deadline = time.monotonic() + 60
    while not answers and time.monotonic() < deadline:
        client.loop(0.05)
    client.disconnect()
    return answers == [True]


def test_the_broker_lets_a_registered_device_in(
    ota_settings: Settings, mosquitto: MosquittoServer
) -> None:
    accounts = {
        "mqtt_password_file": mosquitto.broker.password_file,
        "mqtt_pid_file": mosquitto.broker.pid_file,
    }
    settings = ota_settings.model_copy(update=accounts)
    with (
        serving(settings),
        httpx.Client(base_url=settings.ota_url, timeout=20, trust_env=False) as client,
    ):
        keys = settings.trusted_keys_file.parent
        ota = Ota(settings, keys, client, Signer(keys))
        first = ota.register().json()["jwt_token"]
        wait_until(lambda: connects(mosquitto, DEVICE_ID, first))
        second = ota.register().json()["jwt_token"]
        wait_until(lambda: connects(mosquitto, DEVICE_ID, second))
    assert not connects(mosquitto, DEVICE_ID, first)
    assert not connects(mosquitto, "field-sensor-002", second)
    assert connects(mosquitto, mosquitto.username, mosquitto.password)


def test_a_broker_that_checks_tokens_lets_it_in_at_once(
    ota_settings: Settings, token_broker: TokenBroker
) -> None:
    keys = {
        "token_private_key_file": token_broker.keys / "token.pem",
        "token_public_key_file": token_broker.keys / "token.pub.pem",
        "mqtt_revocations_file": token_broker.revocations_file,
    }
    settings = ota_settings.model_copy(update=keys)
    with running_ota(settings) as ota:
        first = ota.register().json()["jwt_token"]
        assert connects(token_broker, DEVICE_ID, first)
        assert token_broker.revocations_file.read_text() == ""
        time.sleep(1)  # tokens are told apart by the second of their issue
        second = ota.register().json()["jwt_token"]
        assert connects(token_broker, DEVICE_ID, second)
        wait_until(lambda: not connects(token_broker, DEVICE_ID, first))
        assert connects(token_broker, DEVICE_ID, second)
        revoke_tokens(token_broker.revocations_file, [DEVICE_ID], now=time.time())
        third = ota.register().json()["jwt_token"]
        wait_until(lambda: not connects(token_broker, DEVICE_ID, second))
        assert connects(token_broker, DEVICE_ID, third)
    assert settings.mqtt_password_file is not None
    assert not settings.mqtt_password_file.exists()
