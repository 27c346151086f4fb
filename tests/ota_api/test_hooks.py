"""GitHub's webhook: what is believed, what is fetched from where, and that it happens once."""

import json
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from ota_api.hooks.bundles import AssetError, find_bundles
from ota_api.hooks.fetching import headers_for
from ota_api.hooks.hosts import Hosts, is_public
from ota_api.hooks.schemas import MAX_HOOK_BYTES, Asset
from ota_api.hooks.worker import ATTEMPTS
from ota_api.releases.repository import PUBLISH_LOCK
from tests.ota_api.conftest import Ota, running_ota
from tests.ota_api.github import (
    REPOSITORY,
    AssetServer,
    deliver,
    event,
    outcome,
    serving_assets,
    signed,
)
from tests.ota_api.releases import BINARY
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role


@pytest.fixture
def assets() -> Iterator[AssetServer]:
    with serving_assets() as server:
        yield server


@pytest.fixture
def hook_settings(ota_settings: Settings, assets: AssetServer) -> Settings:
    changes = {"github_asset_hosts": f"github.com,{assets.origin}", "github_retry_s": 0.01}
    return ota_settings.model_copy(update=changes)


@pytest.fixture
def hooked(hook_settings: Settings) -> Iterator[Ota]:
    with running_ota(hook_settings) as ota:
        yield ota


def model(ota: Ota, assets: AssetServer, **changes: Any) -> list[str]:
    """A model's assets, uploaded."""
    body = ota.signer.model(**{"version": "m-20261123-0a1b2c3", **changes})
    return assets.add(body, f"irrigation-{changes.get('version', 'm-20261123-0a1b2c3')}")


def firmware(ota: Ota, assets: AssetServer, **changes: Any) -> list[str]:
    return assets.add(ota.signer.firmware(**changes), "sensor-v1.0.0", ".zip")


def state_of(ota: Ota, answer: httpx.Response) -> tuple[str, str]:
    assert answer.status_code == 202, answer.text
    found = outcome(ota, answer.json()["delivery_id"])
    return found["state"], found["detail"]


def test_a_release_is_fetched_verified_and_published(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets) + firmware(hooked, assets)
    answer = deliver(hooked, event(assets.origin, [*names, "notes.txt"]))
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    state, detail = state_of(hooked, answer)
    assert (state, detail) == (
        "published",
        "published irrigation m-20261123-0a1b2c3, sensor v1.0.0",
    )
    path = "/models/esp32-s3/irrigation/m-20261123-0a1b2c3?download=true"
    assert hooked.send("GET", path).content == BINARY
    entries = hooked.send("GET", "/audit?action=release.publish").json()["items"]
    assert {entry["actor"] for entry in entries} == {f"github:{REPOSITORY}"}
    assert len(entries) == 2
    assert "/notes.txt" not in {path for path, _ in assets.asked}


def test_rule_1_the_hmac_decides_before_anything_is_read(hooked: Ota, assets: AssetServer) -> None:
    body = event(assets.origin, model(hooked, assets))
    wrong = [signed(body, "another"), "", "sha256=", signed(body)[7:], signed(body + b" "), "é"]
    for signature in wrong:
        answer = hooked.http.post(
            "/hooks/github-release",
            content=body,
            headers={b"X-GitHub-Event": b"release", b"X-Hub-Signature-256": signature.encode()},
        )
        assert answer.status_code == 401, signature
    assert hooked.http.post("/hooks/github-release", content=b"[" * 10_000).status_code == 401
    assert assets.asked == []


def test_a_secret_is_replaced_without_a_gap(hook_settings: Settings, assets: AssetServer) -> None:
    previous = {"github_webhook_previous_secret": SecretStr("older")}
    with running_ota(hook_settings.model_copy(update=previous)) as ota:
        for secret in ("older", "secret of the webhook"):
            body = event(assets.origin, [], tag=secret)
            assert deliver(ota, body, signature=signed(body, secret)).status_code == 200
        assert deliver(ota, body, signature=signed(body, "")).status_code == 401
    without = {"github_webhook_secret": SecretStr("")}
    with running_ota(hook_settings.model_copy(update=without)) as ota:
        answer = deliver(ota, body, signature=signed(body, ""))
        assert answer.status_code == 503
        assert "set ZENTHOS_GITHUB_WEBHOOK_SECRET" in answer.json()["detail"]


def test_rule_2_what_is_no_published_release_is_forgotten(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    for name, body, word in (
        ("ping", b'{"zen": "Design for failure."}', "ping"),
        ("push", b"{}", "push"),
        ("release", event(assets.origin, names, action="created"), "created"),
        ("release", event(assets.origin, ["firmware.bin"]), ".manifest.json"),
    ):
        answer = deliver(hooked, body, event_name=name)
        assert (answer.status_code, answer.json()["status"]) == (200, "ignored")
        assert word in answer.json()["detail"]
    assert hooked.send("GET", "/hooks/deliveries").json()["items"] == []


def test_rule_3_a_replay_does_nothing_twice(hooked: Ota, assets: AssetServer) -> None:
    body, delivery = event(assets.origin, model(hooked, assets)), str(uuid.uuid4())
    first = deliver(hooked, body, delivery=delivery)
    state, detail = state_of(hooked, first)
    asked = len(assets.asked)
    for again in (delivery, str(uuid.uuid4())):
        answer = deliver(hooked, body, delivery=again)
        assert answer.status_code == 200
        assert answer.json() == {"status": state, "detail": detail, "delivery_id": delivery}
    other = deliver(
        hooked, event(assets.origin, model(hooked, assets), tag="v2"), delivery=delivery
    )
    assert other.status_code == 409
    assert len(assets.asked) == asked
    assert len(hooked.rows("SELECT id FROM webhook_deliveries")) == 1


def test_two_deliveries_at_once(hooked: Ota, assets: AssetServer) -> None:
    body = event(assets.origin, model(hooked, assets))
    other = event(assets.origin, firmware(hooked, assets), tag="v2")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda b: deliver(hooked, b), [body, other] * 3))
    ids = {answer.json()["delivery_id"] for answer in answers}
    assert len(ids) == 2
    assert {outcome(hooked, found)["state"] for found in ids} == {"published"}
    assert hooked.rows("SELECT count(*) FROM releases") == [(2,)]


def test_bodies_that_github_does_not_send(hooked: Ota, assets: AssetServer) -> None:
    good = json.loads(event(assets.origin, ["a.manifest.json"]))
    bad = [
        b"",
        b"payload=%7B%7D",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        json.dumps({**good, "repository": {"full_name": "../../etc"}}).encode(),
        json.dumps({**good, "release": {**good["release"], "tag_name": "a\0b"}}).encode(),
    ]
    for body in bad:
        answer = deliver(hooked, body)
        assert answer.status_code == 422, body[:40]
        assert "application/json" in answer.json()["detail"]
    assert deliver(hooked, b" " * (MAX_HOOK_BYTES + 1)).status_code == 413
    named = deliver(hooked, json.dumps(good).encode(), delivery="1; DROP TABLE releases")
    assert named.status_code == 422


def test_what_cannot_be_published_fails_with_its_reason_and_an_alert(
    hooked: Ota, assets: AssetServer
) -> None:
    names = model(hooked, assets)
    wrong_key = assets.add(
        hooked.signer.model(key="firmware", version="m-20261123-1111111"),
        "irrigation-m-20261123-1111111",
    )
    misnamed = assets.add(hooked.signer.firmware(), "sensor-v9.9.9", ".zip")
    assets.files["/sensor-v9.9.8.sig"] = b"not base64!"
    unsigned = ["sensor-v9.9.8.manifest.json", "sensor-v9.9.8.sig", "sensor-v9.9.8.zip"]
    assets.files["/sensor-v9.9.8.zip"] = b"x"
    assets.files["/sensor-v9.9.8.manifest.json"] = assets.files["/sensor-v9.9.9.manifest.json"]
    for number, (given, reason) in enumerate([
        (names[:1] + names[2:], "comes without irrigation-m-20261123-0a1b2c3.sig: upload both"),
        (names[:2], "comes with 0 of irrigation-m-20261123-0a1b2c3.zip"),
        (names + wrong_key, "may not sign"),
        (misnamed, "holds the manifest of sensor-v1.0.0: name it so"),
        (unsigned, "holds the manifest of sensor-v1.0.0"),
        (["gone-v1.0.0.manifest.json", "gone-v1.0.0.sig", "gone-v1.0.0.bin"], "answers 404"),
    ]):  # fmt: skip
        answer = deliver(hooked, event(assets.origin, given, tag=f"t{number}"))
        state, detail = state_of(hooked, answer)
        assert (state, reason in detail) == ("failed", True), detail
    assert hooked.rows("SELECT count(*) FROM releases") == [(0,)], "all of a release, or nothing"
    alerts = hooked.rows("SELECT alert_type, subject FROM alerts ORDER BY subject")
    assert alerts == [("github_release_failed", f"github {REPOSITORY} t{n}") for n in range(6)]
    listed = hooked.send("GET", "/hooks/deliveries?state=failed&limit=4", Role.VIEWER).json()
    rest = hooked.send("GET", f"/hooks/deliveries?limit=4&after={listed['next']}").json()
    tags = [item["tag"] for item in listed["items"] + rest["items"]]
    assert tags == ["t5", "t4", "t3", "t2", "t1", "t0"]


def test_what_may_be_there_later_is_asked_for_again(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    binary, tries = assets.files[f"/{names[2]}"], iter([503, 429, 500])

    def fail_first(path: str) -> None:
        if path == f"/{names[2]}":
            assets.files[path] = next(tries, binary)

    assets.before = fail_first
    answer = deliver(hooked, event(assets.origin, names))
    assert state_of(hooked, answer)[0] == "published"
    assert hooked.rows("SELECT attempts FROM webhook_deliveries") == [(4,)]


def test_it_is_given_up_in_the_end(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    assets.files[f"/{names[0]}"] = 503
    state, detail = state_of(hooked, deliver(hooked, event(assets.origin, names)))
    assert (state, "answers 503" in detail) == ("failed", True)
    assert hooked.rows("SELECT attempts FROM webhook_deliveries") == [(ATTEMPTS,)]
    assert hooked.rows("SELECT evidence -> 'attempts' FROM alerts") == [(ATTEMPTS,)]


def test_a_publication_that_takes_long_is_waited_for(
    hook_settings: Settings, assets: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ota_api.resources.STATEMENT_TIMEOUT_MS", 200)
    with running_ota(hook_settings) as ota:
        url = ota.settings.database_url.get_secret_value()
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [PUBLISH_LOCK])
            delivery_id = deliver(ota, event(assets.origin, model(ota, assets))).json()[
                "delivery_id"
            ]
            count = "SELECT FROM webhook_deliveries WHERE attempts > 1"
            until = time.monotonic() + 60
            while not ota.rows(count) and time.monotonic() < until:
                time.sleep(0.02)
        assert outcome(ota, delivery_id)["state"] == "published"


def test_an_asset_name_is_no_path(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    renamed = [f"../../{name.replace('irrigation', 'stray')}" for name in names]
    for old, new in zip(names, renamed, strict=True):
        assets.files[f"/{new}"] = assets.files[f"/{old}"]
    state, _ = state_of(hooked, deliver(hooked, event(assets.origin, renamed)))
    assert state == "failed"
    assert list(Path(tempfile.gettempdir()).glob("stray*")) == []
    assert list(Path(tempfile.gettempdir()).parent.glob("stray*")) == []


def test_rule_3_what_has_failed_is_begun_anew(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    missing = assets.files.pop(f"/{names[2]}")
    body = event(assets.origin, names)
    assert state_of(hooked, deliver(hooked, body))[0] == "failed"
    assert hooked.rows("SELECT resolved_at IS NULL FROM alerts") == [(True,)]
    assets.files[f"/{names[2]}"] = missing
    assert state_of(hooked, deliver(hooked, body))[0] == "published"
    assert hooked.rows("SELECT state, attempts FROM webhook_deliveries") == [("published", 1)]
    assert hooked.rows("SELECT resolved_by FROM alerts") == [("system",)]
    assert deliver(hooked, body).status_code == 200


def test_a_restart_between_takes_up_what_was_left(
    hook_settings: Settings, assets: AssetServer
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(_: str) -> None:
        reached.set()
        go_on.wait(30)

    with running_ota(hook_settings) as ota:
        body = event(assets.origin, model(ota, assets))
        assets.before = wait
        delivery_id = deliver(ota, body).json()["delivery_id"]
        assert reached.wait(30)
    go_on.set()
    with running_ota(hook_settings) as ota:
        assert outcome(ota, delivery_id)["state"] == "published"
        assert ota.rows("SELECT attempts FROM webhook_deliveries") == [(2,)]
        ota.rows("UPDATE webhook_deliveries SET state = 'pending', attempts = 5 RETURNING id")
    with running_ota(hook_settings) as ota:
        assert "given up" in outcome(ota, delivery_id)["detail"]


def test_assets_come_from_allowed_places_alone(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    elsewhere = [
        "http://127.0.0.1:1",
        "http://github.com",
        "https://github.com:8443",
        "https://github.com.evil.example",
        "https://github.com@169.254.169.254",
        "http://169.254.169.254/latest/meta-data",
    ]
    for number, origin in enumerate(elsewhere):
        answer = deliver(hooked, event(origin, names, tag=f"direct-{number}"))
        state, detail = state_of(hooked, answer)
        assert (state, "ZENTHOS_GITHUB_ASSET_HOSTS" in detail) == ("failed", True), detail
        assets.files[f"/{names[0]}"] = f"{origin}/{names[0]}"
        answer = deliver(hooked, event(assets.origin, names, tag=f"redirect-{number}"))
        state, detail = state_of(hooked, answer)
        assert (state, "ZENTHOS_GITHUB_ASSET_HOSTS" in detail) == ("failed", True), detail
    assert hooked.rows("SELECT max(attempts) FROM webhook_deliveries") == [(1,)]


def test_a_redirect_within_allowed_places_is_followed_and_a_loop_is_not(
    hooked: Ota, assets: AssetServer
) -> None:
    names = model(hooked, assets)
    assets.files["/moved"] = assets.files[f"/{names[2]}"]
    assets.files[f"/{names[2]}"] = "/moved"
    assert state_of(hooked, deliver(hooked, event(assets.origin, names)))[0] == "published"
    assets.files["/moved"] = "/moved"
    answer = deliver(hooked, event(assets.origin, names, tag="again"))
    assert "redirects" in state_of(hooked, answer)[1]


def test_more_bytes_than_a_manifest_may_have(hooked: Ota, assets: AssetServer) -> None:
    names = model(hooked, assets)
    assets.files[f"/{names[0]}"] = b"x" * 5_000
    assert (
        "more than 4096 bytes" in state_of(hooked, deliver(hooked, event(assets.origin, names)))[1]
    )


async def test_a_name_with_a_private_address_is_refused() -> None:
    hosts = Hosts.parse("localhost, github.com")
    with pytest.raises(AssetError, match=r"localhost is at .* which is not public"):
        await hosts.locate(httpx.URL("https://localhost/asset"))
    explicit = Hosts.parse("https://localhost:443")
    assert await explicit.locate(httpx.URL("https://localhost/asset")) == "localhost"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("140.82.121.4", True),
        ("2606:50c0:8000::154", True),
        *((a, False) for a in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254")),
        *((a, False) for a in ("0.0.0.1", "100.64.0.1", "224.0.0.1", "::1", "fe80::1%eth0")),
        *((a, False) for a in ("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fd00::1")),
    ],
)
def test_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_rule_3_of_hosts_the_token_is_told_to_github_alone() -> None:
    told = {
        url: "Authorization" in headers_for(httpx.URL(url), "ghp_secret")
        for url in (
            "https://api.github.com/repos/a/b/releases/assets/1",
            "https://github.com/a/b",
            "http://api.github.com/a",
            "https://api.github.com:8443/a",
            "https://release-assets.githubusercontent.com/x",
            "https://api.github.com.evil.example/x",
            "https://evil.example/api.github.com",
        )
    }
    assert list(told.values()) == [True, True, False, False, False, False, False]
    assert "Authorization" not in headers_for(httpx.URL("https://github.com/a"), "")


def test_with_a_token_assets_come_from_the_api(
    hook_settings: Settings, assets: AssetServer
) -> None:
    token = {"github_token": SecretStr("ghp_secret")}
    with running_ota(hook_settings.model_copy(update=token)) as ota:
        names = model(ota, assets)
        assets.files = {f"/api{path}": content for path, content in assets.files.items()}
        assert state_of(ota, deliver(ota, event(assets.origin, names)))[0] == "published"
    assert {path for path, _ in assets.asked} == {f"/api/{name}" for name in names}
    assert not any("authorization" in headers for _, headers in assets.asked)
    assert all(headers["accept"] == "application/octet-stream" for _, headers in assets.asked)


def test_a_binary_is_one_of_three_kinds_and_alone() -> None:
    def asset(name: str) -> Asset:
        return Asset(name, "https://x", "https://x")

    names = ["a.manifest.json", "a.sig", "a.zip"]
    (bundle,) = find_bundles([asset(name) for name in [*names, "a.txt", "b.bin"]])
    assert (bundle.stem, bundle.binary.name) == ("a", "a.zip")
    with pytest.raises(AssetError, match="comes with 2 of"):
        find_bundles([asset(name) for name in [*names, "a.bin"]])
    assert find_bundles([asset("b.bin")]) == []
    with pytest.raises(AssetError, match="21 manifests"):
        find_bundles([asset(f"{n}.manifest.json") for n in range(21)])
