"""The database dies under load: 503 with Retry-After, nothing half done, and on it goes after."""

import threading
import time
from collections import Counter

import httpx
import pytest
from pydantic import SecretStr

from tests.ota_api.conftest import DEVICE_ID, running_ota
from tests.servers import PostgresServer
from tests.waiting import wait_until
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role


@pytest.mark.fault
def test_database_killed_under_load(
    ota_settings: Settings, own_postgres: PostgresServer, own_ops_url: str
) -> None:
    settings = ota_settings.model_copy(update={"database_url": SecretStr(own_ops_url)})
    with running_ota(settings) as ota:
        ota.register()
        ota.publish(ota.signer.model())
        asked = {
            "status": ("GET", f"/devices/{DEVICE_ID}/status", Role.DEVICE),
            "check-in": ("GET", "/models/esp32-s3/irrigation/latest", Role.DEVICE),
            "list": ("GET", "/devices", Role.ADMIN),
        }
        stop = threading.Event()
        statuses: dict[str, Counter[int]] = {name: Counter() for name in asked}
        without_retry: list[str] = []

        def ask(name: str) -> None:
            while not stop.is_set():
                answer = ota.send(*asked[name])
                statuses[name][answer.status_code] += 1
                if answer.status_code == 503 and "retry-after" not in answer.headers:
                    without_retry.append(answer.text)

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                answer = ota.send("POST", "/farms", json={"name": f"Farm {number}"})
                if answer.status_code == 201:
                    created.append(f"Farm {number}")
                statuses["write"][answer.status_code] += 1

        statuses["write"] = Counter()
        created: list[str] = []
        threads = [threading.Thread(target=ask, args=(name,)) for name in asked]
        threads.append(threading.Thread(target=write))
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(counted[200] + counted[201] for counted in statuses.values()))
            own_postgres.kill()
            time.sleep(2)
            wait_until(lambda: any(counted[503] for counted in statuses.values()))
            own_postgres.start()
            wait_until_all_good(ota.http, {n: ota.headers(r, s) for n, r, s in _callers()})
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for name, counted in statuses.items():
            assert set(counted) <= {200, 201, 503}, (name, counted)
            assert counted[200] + counted[201] > 0
        assert sum(counted[503] for counted in statuses.values()) > 0
        assert without_retry == []
        kept = {name for (name,) in ota.rows("SELECT name FROM farms")}
        assert set(created) <= kept


def _callers() -> list[tuple[str, Role, str]]:
    return [
        (f"/devices/{DEVICE_ID}/status", Role.DEVICE, DEVICE_ID),
        ("/models/esp32-s3/irrigation/latest", Role.DEVICE, DEVICE_ID),
        ("/devices", Role.ADMIN, "someone"),
    ]


def wait_until_all_good(http: httpx.Client, asked: dict[str, dict[str, str]]) -> None:
    """Each path answers again, many times over: no connection of the pools is a dead one."""
    deadline = time.monotonic() + 60
    for path, headers in asked.items():
        good = 0
        while good < 30:
            good = good + 1 if http.get(path, headers=headers).status_code == 200 else 0
            assert time.monotonic() < deadline, path
