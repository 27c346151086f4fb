"""Rate limits by their rules, in memory and on a real Redis; each with a server."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from ota_api.auth import read_token
from ota_api.limits import memory
from ota_api.limits.counters import RETRY_S, Counter, SharedStorage
from ota_api.limits.memory import BoundedMemory
from ota_api.limits.rates import RateLimits, asks_for_binary, network_of
from ota_api.throttle import Throttle
from tests.ota_api.clocks import Clock, run
from tests.ota_api.conftest import DEVICE_ID, Ota, make_ota_settings, running_ota
from tests.servers import RedisServer
from zenthos_core.errors import ThrottledError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Identity, Role

DEVICE = Identity("device-1", Role.DEVICE, frozenset({"read"}))
STATUS = f"/devices/{DEVICE_ID}/status"


def scope(path: str = "/firmware/esp32-s3/latest", query: bytes = b"", **more: object) -> dict:
    return {"type": "http", "path": path, "query_string": query, "headers": [], **more}


def limits(clock: Clock, **most: int) -> RateLimits:
    return RateLimits.of(Settings(**most), clock, None)


def passed(counted: RateLimits, identity: Identity, times: int, **asked: object) -> int:
    """How many of so many requests are let through."""
    through = 0
    for _ in range(times):
        try:
            run(counted.count(scope(**asked), identity))
            through += 1
        except ThrottledError:
            pass
    return through


def test_rule_1_binaries_of_a_device_are_counted_apart() -> None:
    counted = limits(Clock(1e9), limits_device_per_hour=3, limits_device_downloads_per_hour=300)
    assert passed(counted, DEVICE, 10) == 3
    assert passed(counted, DEVICE, 256, query=b"download=true") == 256
    assert passed(counted, DEVICE, 10, path="/devices/x/status", query=b"download=true") == 0
    other = Identity("device-2", Role.DEVICE)
    assert passed(counted, other, 10) == 3


@pytest.mark.parametrize(
    ("asked", "binary"),
    [
        ({}, False),
        ({"query": b"kind=model&download=1"}, True),
        ({"query": b"download=false"}, False),
        ({"query": b"x_download=1"}, False),
        ({"query": b"download=true&download=false"}, False),
        ({"query": b"download=false&download=YES"}, True),
        ({"headers": [(b"accept", b"application/octet-stream-x")]}, False),
        ({"headers": [(b"accept", b"text/html, application/octet-stream")]}, True),
        ({"headers": [(b"accept", b"Application/Octet-Stream;q=1")]}, True),
        ({"headers": [(b"accept", b"*/*"), (b"accept", b"application/octet-stream")]}, False),
        ({"path": "/t/controller/v1/d/softwaremodules/3/artifacts/a.bin"}, True),
        ({"path": "/auth/login", "query": b"download=1"}, False),
    ],
    ids=str,
)
def test_rule_1_what_is_a_binary(asked: dict, binary: bool) -> None:
    assert asks_for_binary(scope(**asked)) is binary


def test_rule_2_users_and_services() -> None:
    counted = limits(Clock(1e9), limits_user_per_minute=2, limits_service_per_minute=4)
    user = Identity("anna", Role.VIEWER, session="0b7e")
    assert passed(counted, user, 10) == 2
    assert passed(counted, Identity("ci", Role.OPERATOR), 10) == 4


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_rule_3_an_address_is_a_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_rule_4_windows_end_and_not_all_at_once() -> None:
    clock = Clock(1e9)
    counted = limits(clock, limits_device_per_hour=1)
    resets = set()
    for number in range(100):
        one = Identity(f"device-{number}", Role.DEVICE)
        run(counted.count(scope(), one))
        with pytest.raises(ThrottledError) as error:
            run(counted.count(scope(), one))
        assert 0 < error.value.retry_after_s <= 3600
        resets.add(error.value.retry_after_s // 60)
    assert len(resets) > 20
    with pytest.raises(ThrottledError) as error:
        run(counted.count(scope(), one))
    clock.now += error.value.retry_after_s - 2
    assert passed(counted, one, 1) == 0
    clock.now += 2
    assert passed(counted, one, 2) == 1


def test_rule_6_no_limit() -> None:
    assert passed(limits(Clock(1e9), limits_device_per_hour=0), DEVICE, 500) == 500


def test_memory_rule_2_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_KEYS", 10)
    counters = BoundedMemory(Clock(0))
    for number in range(100):
        run(counters.incr(str(number), 60))
    assert run(counters.get("99")) == 1
    assert run(counters.get("0")) == 0
    assert run(counters.reset()) == 10


def test_memory_rule_2_what_has_ended_does_not_pile_up() -> None:
    clock = Clock(0)
    counters = BoundedMemory(clock)
    for number in range(1000):
        clock.now = number
        run(counters.incr(str(number), 10))
    assert run(counters.reset()) <= 11


def test_memory_rule_3_a_clock_that_is_set_back() -> None:
    clock = Clock(1_000_000)
    counters = BoundedMemory(clock)
    assert [run(counters.incr("a", 60)) for clock.now in (1_000_000, 10, 20)] == [1, 1, 2]


def test_every_route_is_counted(shared_ota: Ota) -> None:
    """By its token, or as public; but for health, metrics and pages of the documentation."""
    from ota_api.app import create_app
    from ota_api.auth import PUBLIC

    def calls(dependant: object) -> Iterator[object]:
        yield getattr(dependant, "call", None)
        for below in getattr(dependant, "dependencies", []):
            yield from calls(below)

    counting = {read_token, PUBLIC[0].dependency}
    uncounted = set()
    for route in all_routes(create_app(shared_ota.settings).routes):
        dependant = getattr(route, "dependant", None)
        found = set(calls(dependant)) if dependant else set()
        by_name = any(getattr(call, "__name__", "") == "_controller" for call in found)
        if dependant and not found & counting and not by_name:
            uncounted.add(route.path)
    assert uncounted == {
        *("/health", "/health/ready", "/metrics", "/docs", "/docs/oauth2-redirect", "/redoc")
    }


def all_routes(routes: list) -> Iterator:
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is not None:
            yield from all_routes(router.routes)
        else:
            yield route


@pytest.fixture
def few(ota_settings: Settings) -> Settings:
    return ota_settings.model_copy(
        update={"limits_device_per_hour": 3, "limits_public_per_minute": 3}
    )


def test_rule_5_a_device_is_told(few: Settings) -> None:
    with running_ota(few, Clock(time.time())) as ota:
        ota.register()
        answers = [ota.send("GET", STATUS, Role.DEVICE) for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429]
        assert [a.headers["ratelimit"].split(";")[1] for a in answers] == [
            *("r=2", "r=1", "r=0", "r=0")
        ]
        assert answers[0].headers["ratelimit-policy"] == '"device";q=3;w=3600'
        refused = answers[3]
        assert refused.headers["content-type"] == "application/problem+json"
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        assert DEVICE_ID in refused.json()["detail"]
        assert "try again in" in refused.json()["detail"]
        assert ota.send("GET", STATUS).status_code == 200


def test_rule_3_strangers_and_bad_tokens_are_counted_together(few: Settings) -> None:
    with running_ota(few, Clock(time.time())) as ota:
        bad = {"Authorization": "Bearer a.b.c"}
        statuses = [
            ota.http.get("/keys.json").status_code,
            ota.http.get("/devices", headers=bad).status_code,
            ota.http.get("/devices").status_code,
            ota.http.get("/keys.json", headers=bad).status_code,
            ota.http.post("/auth/login", json={"username": "a", "password": "b"}).status_code,
        ]
        assert statuses == [200, 401, 401, 429, 429]
        assert {ota.http.get("/health").status_code for _ in range(9)} == {200}
        assert ota.http.get("/metrics").status_code == 200
        assert ota.send("GET", "/devices").status_code == 200


def test_rule_3_devices_of_one_address_do_not_use_up_each_others_requests(few: Settings) -> None:
    with running_ota(few, Clock(time.time())) as ota:
        ota.http.get("/keys.json")
        for number in range(5):
            ota.register(f"unit-{number}")
            mine = ota.headers(Role.DEVICE, f"unit-{number}")
            answer = ota.http.get("/keys.json", headers=mine)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"].startswith('"device"')


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is there may take its time."""
    monkeypatch.setattr("ota_api.limits.counters.TIMEOUT_S", 60.0)


@pytest.mark.usefixtures("patient")
async def test_more_at_once_than_there_are_connections_wait_for_one(
    redis_server: RedisServer,
) -> None:
    storage = SharedStorage(redis_server.url)
    counted = await asyncio.gather(*(storage.incr("many", 60, 1) for _ in range(300)))
    assert sorted(count or 0 for count in counted) == list(range(1, 301))
    await storage.close()


async def test_a_redis_that_is_silent_is_left_alone_by_all() -> None:
    asked = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clock = Clock(1e9)
    storage = SharedStorage(f"redis://127.0.0.1:{port}", clock)
    assert await storage.incr("a", 60, 1) is None
    tries = asked
    assert tries > 0
    assert await storage.get_expiry("a") is None
    await storage.clear("a")
    assert await storage.incr("a", 60, 1) is None
    assert asked == tries
    clock.now += RETRY_S + 1
    assert await storage.get_expiry("a") is None
    assert asked > tries
    await storage.close()
    server.close()


@pytest.mark.usefixtures("patient")
async def test_two_workers_count_together_in_redis(redis_server: RedisServer) -> None:
    both = [SharedStorage(redis_server.url) for _ in range(2)]
    counters = [Counter("logins", 60, time.time, storage) for storage in both]
    throttles = [Throttle("logins", 3, counter) for counter in counters]
    await throttles[0].begin("a")
    await throttles[1].begin("a")
    await throttles[0].succeed("a")
    await throttles[0].begin("a")
    await throttles[1].begin("a")
    for throttle in throttles:
        with pytest.raises(ThrottledError) as error:
            await throttle.begin("a")
        assert 0 < error.value.retry_after_s <= 60
    rates = [RateLimits.of(Settings(limits_device_per_hour=5), Clock(1e9), s) for s in both]
    results = await asyncio.gather(
        *(rates[n % 2].count(scope(), DEVICE) for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, ThrottledError) for result in results) == 15
    for storage in both:
        await storage.close()


@pytest.mark.fault
@pytest.mark.usefixtures("patient")
def test_redis_that_dies_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, ops_url: str, redis_server: RedisServer
) -> None:
    """Nobody is refused or kept waiting; limits hold in memory meanwhile."""
    update = {
        "limits_url": SecretStr(redis_server.url),
        "limits_device_per_hour": 10,
    }
    settings = make_ota_settings(tmp_path_factory.mktemp("ota"), ops_url).model_copy(update=update)
    with running_ota(settings, Clock(time.time())) as ota:
        ota.register()
        left = [remaining(ota) for _ in range(4)]
        assert left == [9, 8, 7, 6]
        redis_server.kill()
        began = time.monotonic()
        assert [remaining(ota) for _ in range(4)] == [9, 8, 7, 6]
        assert time.monotonic() - began < 10
        metrics = ota.http.get("/metrics").text
        assert "zenthos_ota_limits_storage_failures" in metrics or "zenthos_ota" not in metrics
        redis_server.start()
        deadline = time.monotonic() + 30
        ota.register("device-2-of-it")
        while "r=5" not in ota.send("GET", STATUS, Role.DEVICE).headers["ratelimit"]:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def remaining(ota: Ota) -> int:
    answer = ota.send("GET", STATUS, Role.DEVICE)
    assert answer.status_code == 200
    return int(answer.headers["ratelimit"].split("r=")[1].split(";")[0])
