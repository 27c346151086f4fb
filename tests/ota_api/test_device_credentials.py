"""Tokens of devices, by the rules of ota_api.devices.credentials."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.ota_api.callers import random_secret
from tests.ota_api.conftest import DEVICE_ID, Ota, running_ota
from tests.ota_api.test_devices import connects
from tests.servers import MosquittoServer, TokenBroker, find_free_port
from tests.waiting import wait_until
from zenthos_core import tokens
from zenthos_core.settings import Settings
from zenthos_core.tokens import DEVICE_TOKEN_S, Role

SECRET = random_secret()


def claim(ota: Ota, secret: str = SECRET, device_id: str = DEVICE_ID) -> httpx.Response:
    return ota.http.post(f"/devices/{device_id}/claim", json={"factory_secret": secret})


def renew(ota: Ota, token: str, device_id: str = DEVICE_ID) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return ota.http.post(f"/devices/{device_id}/token", headers=headers)


def revoke(ota: Ota) -> None:
    assert ota.send("POST", f"/devices/{DEVICE_ID}/revoke", Role.OPERATOR).status_code == 204


def works(ota: Ota, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    status = ota.http.get(f"/devices/{DEVICE_ID}/status", headers=headers).status_code
    assert status in {200, 401}
    return status == 200


def wait_for_another_second() -> None:
    """Tokens are told apart by the second of their issue."""
    time.sleep(1.001 - time.time() % 1)


def token_of(answer: httpx.Response) -> str:
    assert answer.is_success, answer.text
    return str(answer.json()["jwt_token"])


def test_rule_1_registering_again_voids_earlier_tokens(ota: Ota) -> None:
    first = token_of(ota.register())
    wait_for_another_second()
    second = token_of(ota.register())
    assert not works(ota, first)
    assert works(ota, second)


def test_rule_1_a_token_lasts_30_days(ota: Ota) -> None:
    issued = time.time()
    token = token_of(ota.register())
    old = ota.token(Role.DEVICE, DEVICE_ID, now=issued - DEVICE_TOKEN_S - 1, valid_s=DEVICE_TOKEN_S)
    assert works(ota, token)
    assert not works(ota, old)


def test_rule_2_a_device_renews_its_token_and_the_old_one_lasts(ota: Ota) -> None:
    first = token_of(ota.register())
    wait_for_another_second()
    answer = renew(ota, first)
    assert answer.headers["cache-control"] == "no-store"
    second = token_of(answer)
    assert works(ota, first)
    assert works(ota, second)
    assert works(ota, token_of(renew(ota, first)))  # as if the answer had been lost
    public = ota.settings.token_public_key_file.read_bytes()
    issued = [tokens.verify(public, token).issued_at for token in (first, second)]
    assert issued[1] > issued[0]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.VIEWER])
def test_rule_2_nobody_else_renews_it(ota: Ota, role: Role) -> None:
    ota.register()
    other = token_of(ota.register("field-sensor-002"))
    assert ota.send("POST", f"/devices/{DEVICE_ID}/token", role).status_code == 403
    assert renew(ota, other).status_code == 403


def test_rule_3_a_factory_secret_is_good_for_one_claim(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    first = claim(ota)
    assert first.status_code == 200
    assert works(ota, token_of(first))
    assert claim(ota).status_code == 401
    assert works(ota, token_of(first))


def test_rule_3_of_many_claims_at_once_one_succeeds(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    answers: list[int] = []
    url = f"{ota.settings.ota_url}/devices/{DEVICE_ID}/claim"

    def use() -> None:
        answer = httpx.post(url, json={"factory_secret": SECRET}, timeout=30, trust_env=False)
        answers.append(answer.status_code)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [401] * 7


def test_rule_3_registering_again_sets_the_secret_anew(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    claim(ota)
    another = random_secret()
    assert ota.register(factory_secret=another).status_code == 200
    assert claim(ota).status_code == 401
    assert claim(ota, another).status_code == 200


def test_rule_1_claiming_voids_earlier_tokens(ota: Ota) -> None:
    shown_to_the_admin = token_of(ota.register(factory_secret=SECRET))
    wait_for_another_second()
    claimed = token_of(claim(ota))
    assert not works(ota, shown_to_the_admin)
    assert works(ota, claimed)


def test_rule_3_failed_claims_are_throttled_by_device(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    ota.register("field-sensor-002", factory_secret=SECRET)
    statuses = [claim(ota, random_secret()).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    refused = claim(ota)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert claim(ota, device_id="field-sensor-002").status_code == 200


def test_rule_3_failed_claims_are_throttled_by_address(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    statuses = [claim(ota, device_id=f"guess-{n // 8}").status_code for n in range(51)]
    assert statuses == [401] * 50 + [429]
    assert claim(ota).status_code == 429


def test_rule_4_every_refusal_is_the_same(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    ota.register("without-secret")
    answers = [
        claim(ota, random_secret()),
        claim(ota, device_id="without-secret"),
        claim(ota, device_id="no-such-device"),
    ]
    details = [{**answer.json(), "trace_id": ""} for answer in answers]
    assert all(detail == details[0] for detail in details)
    assert details[0]["status"] == 401


@pytest.mark.parametrize("secret", ["", "too short", "x" * 129, "ж" * 30, "a\nb" * 10, None, 5, []])
def test_secrets_that_are_not_valid(shared_ota: Ota, secret: Any) -> None:
    assert claim(shared_ota, secret).status_code == 422
    if secret is not None:
        answer = shared_ota.register("field-sensor-002", factory_secret=secret)
        assert answer.status_code == 422


def test_rule_5_revoking_voids_every_token_and_the_secret(ota: Ota) -> None:
    first = token_of(ota.register(factory_secret=SECRET))
    second = token_of(renew(ota, first))
    revoke(ota)
    assert not works(ota, first)
    assert not works(ota, second)
    assert renew(ota, second).status_code == 401
    assert claim(ota).status_code == 401
    assert works(ota, token_of(ota.register()))


@pytest.mark.parametrize("how", ["revoke", "register"])
def test_rule_8_of_two_servers_the_slower_voids_what_the_faster_has_issued(
    ota_settings: Settings, how: str
) -> None:
    port = find_free_port()
    other = {"ota_port": port, "ota_url": f"http://127.0.0.1:{port}"}
    faster_settings = ota_settings.model_copy(update=other)
    with (
        running_ota(ota_settings) as slower,
        running_ota(faster_settings, lambda: time.time() + 3) as faster,
    ):
        first = token_of(slower.register())
        ahead = token_of(renew(faster, first))
        assert works(slower, ahead)
        assert renew(slower, first).status_code == 200
        if how == "revoke":
            revoke(slower)
        else:
            slower.register()
        assert not works(slower, ahead)
        assert works(slower, token_of(slower.register()))


def test_rule_5_a_renewal_that_waits_for_a_revocation_is_refused(ota: Ota) -> None:
    token = token_of(ota.register())
    wait_for_another_second()
    answers: list[httpx.Response] = []
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute("SELECT FROM devices FOR UPDATE")
        renewing = threading.Thread(target=lambda: answers.append(renew(ota, token)))
        renewing.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not connection.execute(waits).fetchone():
            connection.execute("SELECT pg_stat_clear_snapshot()")
            assert renewing.is_alive()
        connection.execute("UPDATE devices SET tokens_valid_from = now()")
        connection.commit()
    renewing.join()
    assert answers[0].status_code == 401


def test_rule_7_secrets_are_stored_as_hashes(ota: Ota) -> None:
    ota.register(factory_secret=SECRET)
    ota.register("field-sensor-002", factory_secret=SECRET)
    assert SECRET not in str(ota.rows("SELECT * FROM devices"))
    hashes = ota.rows("SELECT factory_secret_hash FROM devices")
    assert len(set(hashes)) == 2


@pytest.fixture
def with_broker(ota_settings: Settings, token_broker: TokenBroker) -> Iterator[Ota]:
    """A server whose broker checks tokens."""
    keys = {
        "token_private_key_file": token_broker.keys / "token.pem",
        "token_public_key_file": token_broker.keys / "token.pub.pem",
        "mqtt_revocations_file": token_broker.revocations_file,
    }
    with running_ota(ota_settings.model_copy(update=keys)) as running:
        yield running


def test_renewed_tokens_overlap_at_the_broker(with_broker: Ota, token_broker: TokenBroker) -> None:
    first = token_of(with_broker.register())
    wait_for_another_second()
    second = token_of(renew(with_broker, first))
    for token in (first, second):
        assert connects(token_broker, DEVICE_ID, token)


@pytest.mark.parametrize("action", ["revoke", "decommission"])
def test_rule_6_the_broker_refuses_it(
    with_broker: Ota, token_broker: TokenBroker, action: str
) -> None:
    token = token_of(with_broker.register())
    assert connects(token_broker, DEVICE_ID, token)
    assert with_broker.send("POST", f"/devices/{DEVICE_ID}/{action}").is_success
    wait_until(lambda: not connects(token_broker, DEVICE_ID, token))
    if action == "revoke":
        again = token_of(with_broker.register())
        assert connects(token_broker, DEVICE_ID, again)


def test_rule_6_what_fails_in_between_leaves_the_next_token_good(
    with_broker: Ota, token_broker: TokenBroker
) -> None:
    token = token_of(with_broker.register())
    with psycopg.connect(with_broker.settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON audit_log"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    assert with_broker.send("POST", f"/devices/{DEVICE_ID}/revoke").status_code == 500
    with psycopg.connect(with_broker.settings.database_url.get_secret_value()) as connection:
        connection.execute("DROP TRIGGER refuse ON audit_log")
    wait_until(lambda: not connects(token_broker, DEVICE_ID, token))
    assert works(with_broker, token)
    wait_for_another_second()
    wait_until(lambda: connects(token_broker, DEVICE_ID, token_of(renew(with_broker, token))))


def test_a_broker_with_passwords_refuses_a_decommissioned_device(
    ota_settings: Settings, mosquitto: MosquittoServer
) -> None:
    accounts = {
        "mqtt_password_file": mosquitto.broker.password_file,
        "mqtt_pid_file": mosquitto.broker.pid_file,
    }
    with running_ota(ota_settings.model_copy(update=accounts)) as ota:
        token = token_of(ota.register())
        wait_until(lambda: connects(mosquitto, DEVICE_ID, token))
        ota.send("POST", f"/devices/{DEVICE_ID}/decommission")
        wait_until(lambda: not connects(mosquitto, DEVICE_ID, token))
