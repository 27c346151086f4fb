"""Devices listed by filters, changed, taken out of use: rules of devices.service and filters."""

import math
import uuid
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ota_api.devices.filters import EARTH_RADIUS_KM, DeviceFilter, Near
from tests.ota_api.conftest import DEVICE_ID, Ota
from zenthos_core.tokens import Role


def listed(ota: Ota, **filters: Any) -> list[str]:
    answer = ota.send("GET", "/devices", Role.VIEWER, params=filters)
    assert answer.status_code == 200, answer.text
    return [device["device_id"] for device in answer.json()["items"]]


def patch(ota: Ota, changes: dict[str, Any], device_id: str = DEVICE_ID) -> Any:
    return ota.send("PATCH", f"/devices/{device_id}", Role.OPERATOR, json=changes)


def connect(ota: Ota) -> psycopg.Connection:
    return psycopg.connect(ota.settings.database_url.get_secret_value(), autocommit=True)


def test_rule_1_every_filter_that_is_given_must_hold(ota: Ota) -> None:
    ota.register("field-1", tags=["north", "pilot"])
    ota.register("field-2", tags=["north"])
    ota.register("field-3", device_model="esp32-cam", tags=["pilot"], farm_name="South")
    with connect(ota) as connection:
        connection.execute(
            "UPDATE devices SET firmware_version = 'v1.2.3', status = 'online' WHERE id = 'field-2'"
        )
    assert listed(ota, tag="north") == ["field-1", "field-2"]
    assert listed(ota, tag="north", firmware_version="v1.2.3") == ["field-2"]
    assert listed(ota, tag="pilot", device_model="esp32-cam") == ["field-3"]
    assert listed(ota, tag="pilot", status="online") == []
    [(south,)] = ota.rows("SELECT id FROM farms WHERE name = 'South'")
    assert listed(ota, farm_id=str(south)) == ["field-3"]
    assert listed(ota, tag="nort") == []


def test_filters_go_with_pages(ota: Ota) -> None:
    for number in range(6):
        ota.register(f"field-{number}", tags=["even"] if number % 2 == 0 else [])
    first = ota.send("GET", "/devices", params={"tag": "even", "limit": 2}).json()
    assert [device["device_id"] for device in first["items"]] == ["field-0", "field-2"]
    assert listed(ota, tag="even", limit=2, after=first["next"]) == ["field-4"]


def test_rule_2_near_a_point(ota: Ota) -> None:
    places = {"berlin": (52.52, 13.405), "potsdam": (52.39, 13.066), "fiji": (-17.7, 179.9)}
    for name, (lat, lon) in places.items():
        ota.register(name, location={"lat": lat, "lon": lon})
    ota.register("nowhere")
    near_berlin = {"near_lat": 52.5, "near_lon": 13.4}
    assert listed(ota, **near_berlin, radius_km=10) == ["berlin"]
    assert listed(ota, **near_berlin, radius_km=50) == ["berlin", "potsdam"]
    assert listed(ota, **near_berlin, radius_km=20_037) == ["berlin", "fiji", "potsdam"]
    assert listed(ota, near_lat=-17.7, near_lon=-179.9, radius_km=30) == ["fiji"]


def test_rule_2_numbers_next_to_nothing(ota: Ota) -> None:
    ota.register(location={"lat": 1e-310, "lon": -5e-324})
    tiny = {"near_lat": 5e-324, "near_lon": 1e-200, "radius_km": 1e-320}
    assert listed(ota, **tiny) == [DEVICE_ID]


degrees = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def arc_km(here: tuple[float, float], there: tuple[float, float]) -> float:
    """By the angle between two vectors from the Earth's centre."""
    vectors = []
    for lat, lon in (here, there):
        phi, lam = math.radians(lat), math.radians(lon)
        vectors.append(
            (math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi))
        )
    a, b = vectors
    cross = math.dist(
        (a[1] * b[2], a[2] * b[0], a[0] * b[1]), (a[2] * b[1], a[0] * b[2], a[1] * b[0])
    )
    return EARTH_RADIUS_KM * math.atan2(cross, sum(map(math.prod, zip(a, b, strict=True))))


@settings(max_examples=200, deadline=None)
@given(points=st.lists(degrees, min_size=1, max_size=20), centre=degrees, radius=st.floats(1, 2e4))
def test_rule_2_against_vectors(
    shared_ota: Ota, points: list[tuple[float, float]], centre: tuple[float, float], radius: float
) -> None:
    wanted = DeviceFilter(near=Near(*centre, radius_km=radius))
    condition = wanted.conditions()[-1]
    rows = ", ".join(
        f"({lat!r}::float8, {lon!r}::float8, {n})" for n, (lat, lon) in enumerate(points)
    )
    query = f"SELECT n FROM (VALUES {rows}) p (latitude, longitude, n) WHERE {condition}"
    with connect(shared_ota) as connection:
        found = {n for (n,) in connection.execute(query.encode(), wanted.parameters())}
    for number, point in enumerate(points):
        distance = arc_km(centre, point)
        if not math.isclose(distance, radius, rel_tol=1e-6, abs_tol=1e-3):
            assert (number in found) == (distance <= radius)


@pytest.mark.parametrize(
    "query",
    [
        {"near_lat": 1, "near_lon": 2},
        {"radius_km": 5},
        {"near_lat": 91, "near_lon": 0, "radius_km": 1},
        {"near_lat": 0, "near_lon": 181, "radius_km": 1},
        {"near_lat": 0, "near_lon": 0, "radius_km": 0},
        {"near_lat": 0, "near_lon": 0, "radius_km": "nan"},
        {"near_lat": "nan", "near_lon": 0, "radius_km": 1},
        {"near_lat": 0, "near_lon": 0, "radius_km": 1e9},
        {"tag": "a b"},
        {"tag": "'; DROP TABLE devices; --"},
        {"firmware_version": "a\x00b"},
        {"decommissioned": "perhaps"},
    ],
    ids=str,
)
def test_filters_that_are_not_valid(shared_ota: Ota, query: dict[str, object]) -> None:
    answer = shared_ota.send("GET", "/devices", params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_not_sent_stays(ota: Ota) -> None:
    ota.register(tags=["a"], location={"lat": 1, "lon": 2}, report_interval_s=60)
    changed = patch(ota, {"tags": ["c", "b", "b"]}).json()
    assert changed["tags"] == ["b", "c"]
    assert changed["location"] == {"lat": 1, "lon": 2}
    assert changed["report_interval_s"] == 60
    cleared = patch(ota, {"location": None, "report_interval_s": None}).json()
    assert (cleared["location"], cleared["report_interval_s"]) == (None, None)
    assert cleared["tags"] == ["b", "c"]


def test_rule_2_a_move_leaves_the_past_where_it_was(ota: Ota) -> None:
    ota.register(location={"lat": 1, "lon": 2})
    farm = ota.send("POST", "/farms", json={"name": "South"}).json()["id"]
    moved = patch(ota, {"farm_id": farm, "location": {"lat": 3, "lon": 4}})
    assert moved.status_code == 200
    assert moved.json()["farm_id"] == farm
    placements = ota.rows(
        "SELECT name, p.latitude FROM device_placements p JOIN farms f ON f.id = p.farm_id"
        " ORDER BY valid_from"
    )
    assert placements == [("North", 1), ("South", 3)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"farm_id": None},
        {"tags": None},
        {"tags": ["a b"]},
        {"tags": [f"tag-{n}" for n in range(21)]},
        {"location": {"lat": 91, "lon": 0}},
        {"report_interval_s": 0},
        {"device_model": "esp32-cam"},
        {"status": "online"},
    ],
    ids=str,
)
def test_changes_that_are_not_valid(shared_ota: Ota, changes: dict[str, object]) -> None:
    assert patch(shared_ota, changes).status_code == 422


def test_changing_what_is_not_there(ota: Ota) -> None:
    assert patch(ota, {"tags": []}).status_code == 404
    ota.register()
    answer = patch(ota, {"farm_id": str(uuid.uuid4())})
    assert answer.status_code == 404
    assert "POST /farms" in answer.json()["detail"]


def test_registering_with_other_tags_is_a_conflict(ota: Ota) -> None:
    ota.register(tags=["a", "b"])
    assert ota.register(tags=["b", "a"]).status_code == 200
    assert ota.register().status_code == 200  # says nothing of tags
    conflict = ota.register(tags=["c"])
    assert conflict.status_code == 409
    assert f"PATCH /devices/{DEVICE_ID}" in conflict.json()["detail"]


def test_rule_3_a_decommissioned_device_keeps_its_history(ota: Ota) -> None:
    token = ota.register().json()["jwt_token"]
    ota.register("field-2")
    gone = ota.send("POST", f"/devices/{DEVICE_ID}/decommission")
    assert gone.status_code == 200
    assert gone.json()["decommissioned_at"] is not None
    assert ota.send("GET", f"/devices/{DEVICE_ID}/status").json() == gone.json()
    assert listed(ota) == ["field-2"]
    assert listed(ota, decommissioned=True) == [DEVICE_ID]
    again = ota.send("POST", f"/devices/{DEVICE_ID}/decommission")
    assert again.json() == gone.json()
    headers = {"Authorization": f"Bearer {token}"}
    assert ota.http.get(f"/devices/{DEVICE_ID}/status", headers=headers).status_code == 403


def test_rule_3_its_id_is_never_used_again(ota: Ota) -> None:
    ota.register(factory_secret="x" * 22)
    ota.send("POST", f"/devices/{DEVICE_ID}/decommission")
    assert ota.register().status_code == 409
    assert patch(ota, {"tags": []}).status_code == 409
    assert ota.send("POST", f"/devices/{DEVICE_ID}/revoke").status_code == 409
    claim = ota.http.post(f"/devices/{DEVICE_ID}/claim", json={"factory_secret": "x" * 22})
    assert claim.status_code == 401


@pytest.mark.parametrize("action", ["decommission", "revoke"])
def test_acting_on_what_is_not_there(ota: Ota, action: str) -> None:
    answer = ota.send("POST", f"/devices/no-such-device/{action}")
    assert answer.status_code == 404
