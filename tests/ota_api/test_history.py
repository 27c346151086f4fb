"""History of a device and summaries of farms, over both planes of a real database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from ota_api import analytical
from tests.conftest import migrated_database
from tests.ota_api.conftest import DEVICE_ID, make_ota_settings, running_ota
from tests.ota_api.planes import NOW, TODAY, Planes, ago, at
from tests.servers import PostgresServer
from zenthos_core.database import Database
from zenthos_core.tokens import Role

HOURLY, DAILY = "gold/telemetry_hourly", "gold/telemetry_daily"
HISTORICAL = "gold/telemetry_historical"


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Planes]:
    """For tests that each have devices, farms and days of their own."""
    urls = [
        migrated_database(postgres, database) for database in (Database.OPS, Database.ANALYTICS)
    ]
    settings = make_ota_settings(tmp_path_factory.mktemp("planes"), *urls)
    with running_ota(settings, clock=NOW.timestamp) as ota:
        yield Planes(ota)


def history(planes: Planes, device: str, **query: Any) -> dict[str, Any]:
    """From eight days ago to now, unless said otherwise."""
    params = {"start": at(ago(8), 0).isoformat(), "end": NOW.isoformat(), **query}
    answer = planes.ota.send("GET", f"/devices/{device}/history", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def summary(planes: Planes, farm: UUID, first: Any, last: Any = TODAY) -> dict[str, Any]:
    params = {"start_date": str(first), "end_date": str(last)}
    answer = planes.ota.send("GET", f"/analytics/farm/{farm}/summary", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_readings_of_both_planes_come_once_the_hot_one_preferred(planes: Planes) -> None:
    farm = planes.device("seam", "Seam")
    seam = at(ago(7), 1)
    old = planes.cold("seam", farm, at(ago(7), 0), soil_moisture=1)
    both = planes.hot("seam", farm, seam, soil_moisture=2)
    planes.cold("seam", farm, seam, message_id=both, soil_moisture=2.5)
    new = planes.hot("seam", farm, at(TODAY, 11), soil_moisture=3)
    found = history(planes, "seam", resolution="raw", fields="soil_moisture")
    assert [(i["message_id"], i["plane"], i["values"]) for i in found["items"]] == [
        (str(old), "analytical", {"soil_moisture": 1}),
        (str(both), "hot", {"soil_moisture": 2}),
        (str(new), "hot", {"soil_moisture": 3}),
    ]
    assert [(p["plane"], p["points"]) for p in found["parts"]] == [("analytical", 1), ("hot", 2)]
    assert found["next"] is None


def test_a_reading_whose_clock_is_suspect_comes_once_whatever_its_times(planes: Planes) -> None:
    """It takes the time of receipt, which is another each time that it arrives."""
    farm = planes.device("suspect", "Suspect")
    message = planes.hot("suspect", farm, at(ago(1), 9), clock_suspect=True)
    planes.cold("suspect", farm, at(ago(1), 8), message_id=message, quality="time,humidity")
    fast = planes.cold("suspect", farm, at(ago(1), 7), quality="time")
    found = history(planes, "suspect", resolution="raw")["items"]
    assert [(i["message_id"], i["plane"], i["clock_suspect"]) for i in found] == [
        (str(fast), "analytical", True),
        (str(message), "hot", True),
    ]


def test_late_readings_are_marked_and_in_their_place(planes: Planes) -> None:
    farm = planes.device("late", "Late")
    planes.hot("late", farm, at(ago(1), 10), received_at=at(ago(1), 10.1))
    planes.hot("late", farm, at(ago(1), 9), received_at=at(ago(1), 12), backlog=True)
    found = history(planes, "late", resolution="raw")["items"]
    assert [item["late"] for item in found] == [True, False]


def test_a_value_of_the_hot_plane_that_has_no_column(planes: Planes) -> None:
    farm = planes.device("extra", "Extra")
    planes.hot("extra", farm, at(TODAY, 1), extra='{"rainfall_mm": 1.5, "soil_moisture_20cm": "x"}')
    planes.hot("extra", farm, at(TODAY, 1.5), extra='{"rainfall_mm": 70}')
    fields = "rainfall_mm,soil_moisture_20cm"
    raw = history(planes, "extra", resolution="raw", fields=fields)["items"]
    assert raw[0]["values"] == {"rainfall_mm": 1.5, "soil_moisture_20cm": None}
    [hour] = history(planes, "extra", resolution="hourly", fields=fields)["items"]
    assert hour["values"] == {"rain_mm": 1.5, "soil_20cm_avg": None}, "70 mm is not plausible"
    assert hour["sample_count"] == 2


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_over_the_seam_hold_everything_once(planes: Planes, limit: int) -> None:
    device = f"paged-{limit}"
    farm = planes.device(device, device)
    expected = []
    for hour in range(10):
        moment = at(ago(7), hour)
        message = planes.hot(device, farm, moment) if hour % 3 else None
        if hour % 2:
            message = planes.cold(
                device, farm, moment, **({"message_id": message} if message else {})
            )
        expected += [str(message)] if message else []
    day = {"start": at(ago(7), 0).isoformat(), "end": at(ago(6), 0).isoformat()}
    seen, query = [], {**day, "limit": limit}
    for _ in range(30):
        page = history(planes, device, **query)
        seen += [item["message_id"] for item in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == expected


def test_hours_come_from_gold_and_from_the_hot_plane_where_gold_is_not(planes: Planes) -> None:
    farm = planes.device("hours", "Hours")
    planes.built(HOURLY, ago(2))
    planes.hourly("hours", farm, at(ago(2), 23), sample_count=4, soil_avg=10, soil_max=12)
    planes.hot("hours", farm, at(ago(2), 23.5), soil_moisture=99)  # is in gold already
    planes.hot("hours", farm, at(ago(1), 0), soil_moisture=20)
    planes.hot("hours", farm, at(ago(1), 0.5), soil_moisture=30)
    planes.hot("hours", farm, at(ago(1), 0.75), soil_moisture=130)  # not plausible
    planes.hot("hours", farm, at(TODAY, 0), soil_moisture=40)
    query = {"resolution": "hourly", "fields": "soil_moisture"}
    found = history(planes, "hours", **query)
    rows = [
        (i["time"], i["plane"], i["sample_count"], i["values"]["soil_avg"]) for i in found["items"]
    ]
    assert rows == [
        ("2026-11-26T23:00:00Z", "analytical", 4, 10),
        ("2026-11-27T00:00:00Z", "hot", 3, 25),
        ("2026-11-28T00:00:00Z", "hot", 1, 40),
    ]
    first = history(planes, "hours", **query, limit=2)
    again = {"start": first["start"], "end": first["end"], "after": first["next"]}
    rest = history(planes, "hours", **query, **again)
    assert [*first["items"], *rest["items"]] == found["items"]


def test_days_begin_at_midnight_utc_and_the_range_is_widened_to_them(planes: Planes) -> None:
    farm = planes.device("midnight", "Midnight")
    planes.built(DAILY, ago(3))
    planes.daily("midnight", farm, ago(3), temp_avg=5)
    planes.hot("midnight", farm, at(TODAY, 0) - timedelta(microseconds=1), temperature=1)
    planes.hot("midnight", farm, at(TODAY, 0), temperature=2)
    found = history(
        planes,
        "midnight",
        resolution="daily",
        start=at(ago(3), 13).isoformat(),
        fields="temperature",
    )
    assert (found["start"], found["end"]) == ("2026-11-25T00:00:00Z", "2026-11-29T00:00:00Z")
    assert [(i["time"][:10], i["plane"], i["values"]["temp_avg"]) for i in found["items"]] == [
        ("2026-11-25", "analytical", 5),
        ("2026-11-27", "hot", 1),
        ("2026-11-28", "hot", 2),
    ]


def test_what_retention_and_missing_builds_leave_out_is_named(planes: Planes) -> None:
    farm = planes.device("edge", "Edge")
    planes.archived(at(ago(91)), ago(91), ago(90), ago(12), ago(11))
    planes.built(HISTORICAL, ago(90), ago(12))
    planes.cold("edge", farm, at(ago(90), 0))
    planes.hot("edge", farm, at(ago(7), 0))
    start = at(ago(100), 0).isoformat()
    found = history(planes, "edge", resolution="raw", start=start)
    assert len(found["items"]) == 2
    assert [(m["first"], m["last"], m["reason"], m["export"]) for m in found["missing"]] == [
        (
            "2026-08-29", "2026-08-29", "retention",
            "/export/silver/telemetry_cleaned?from=2026-08-29&to=2026-08-29&device=edge",
        ),
        (
            "2026-11-17", "2026-11-17", "not_built",
            "/export/bronze/telemetry?from=2026-11-17&to=2026-11-17",
        ),
    ]  # fmt: skip


def test_moved_and_decommissioned_devices_keep_their_history(planes: Planes) -> None:
    before, after = planes.device("moved", "Before"), planes.device("stays", "After")
    planes.hot("moved", before, at(ago(1)))
    planes.ota.send("PATCH", "/devices/moved", json={"farm_id": str(after)})
    planes.hot("moved", after, at(TODAY, 1))
    planes.ota.send("POST", "/devices/moved/decommission")
    found = history(planes, "moved", resolution="raw")["items"]
    assert [item["farm_id"] for item in found] == [str(before), str(after)]
    assert summary(planes, before, ago(1))["readings"] == 1
    assert summary(planes, after, ago(1))["readings"] == 1
    assert summary(planes, before, ago(1))["device_count"] == 0


@pytest.mark.parametrize(
    "query",
    [
        {"start": "2026-11-02T00:00:00Z", "end": "2026-11-01T00:00:00Z"},
        {"start": "2025-01-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"},
        {"start": "0001-01-01T00:00:00+14:00"},
        {"start": "2026-11-01T00:00:00"},
        {"fields": "soil,moisture"},
        {"after": "raw.1." + "0" * 32},
        {"after": "x", "start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"},
        {
            "after": "hourly.1." + "0" * 32, "resolution": "raw",
            "start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z",
        },
        {"resolution": "weekly"},
        {"limit": 2001},
    ],
)  # fmt: skip
def test_bad_questions_are_refused(planes: Planes, query: dict[str, str]) -> None:
    planes.ota.register("bad-questions")
    answer = planes.ota.send("GET", "/devices/bad-questions/history", params=query)
    assert answer.status_code == 422, answer.text


def test_history_of_nobody_and_of_another_device(planes: Planes) -> None:
    assert planes.ota.send("GET", "/devices/nobody/history").status_code == 404
    planes.ota.register()
    answer = planes.ota.send("GET", "/devices/seam/history", Role.DEVICE)
    assert answer.status_code == 403


def test_a_summary_adds_gold_and_hot_and_counts_nothing_twice(planes: Planes) -> None:
    farm = planes.device("sum-1", "Sum")
    planes.device("sum-2", "Sum")
    planes.built(DAILY, ago(5))
    planes.daily("sum-1", farm, ago(5), sample_count=3, soil_avg=10, soil_min=8, battery_min=3.1)
    planes.daily("sum-2", farm, ago(5), sample_count=2, temp_avg=20, temp_max=25)
    planes.daily("sum-1", farm, TODAY, sample_count=1, soil_avg=99)  # the running day, in part
    planes.hot("sum-1", farm, at(ago(5)), soil_moisture=99)  # is in gold
    planes.hot("sum-1", farm, at(TODAY, 3), soil_moisture=50, temperature=10, battery_voltage=3)
    planes.hot("sum-1", farm, at(TODAY, 4), soil_moisture=101, temperature=-41)
    found = summary(planes, farm, ago(5))
    assert found["avg_soil_moisture"] == pytest.approx((3 * 10 + 50) / 4)
    assert found["avg_temperature"] == pytest.approx((2 * 20 + 10) / 3)
    assert (found["min_soil_moisture"], found["max_soil_moisture"]) == (8, 50)
    assert (found["min_temperature"], found["max_temperature"]) == (10, 25)
    assert (found["readings"], found["device_count"], found["devices_reporting"]) == (7, 2, 2)
    assert found["min_battery_voltage"] == 3


def test_a_summary_counts_alerts_and_irrigations_of_its_days(planes: Planes) -> None:
    farm = planes.device("events", "Events")
    for day in (ago(40), ago(39), ago(38)):
        planes.ops(
            "INSERT INTO irrigation_events (farm_id, timestamp) VALUES (%s, %s)", farm, at(day)
        )
        planes.ops(
            "INSERT INTO alerts (alert_type, severity, subject, device_id, message, created_at)"
            " VALUES ('t', 'info', %s, 'events', 'm', %s)", str(day), at(day),
        )  # fmt: skip
    planes.archived(at(ago(39)), ago(39))
    found = summary(planes, farm, ago(40), ago(39))
    assert (found["alerts_count"], found["irrigation_events"]) == (2, 2)
    assert found["avg_soil_moisture"] is None
    assert [m["reason"] for m in found["missing"]] == ["not_built"]


@pytest.mark.parametrize(
    "query",
    [
        {"start_date": "2026-11-02", "end_date": "2026-11-01"},
        {"start_date": "2025-01-01", "end_date": "2026-11-01"},
        {"start_date": "0001-01-01", "end_date": "0001-01-01"},
        {"start_date": "9999-12-31", "end_date": "9999-12-31"},
        {"start_date": "today", "end_date": "2026-11-01"},
        {"end_date": "2026-11-01"},
    ],
)
def test_bad_days_are_refused(planes: Planes, query: dict[str, str]) -> None:
    farm = planes.device("bad-days", "Bad days")
    answer = planes.ota.send("GET", f"/analytics/farm/{farm}/summary", params=query)
    assert answer.status_code == 422, answer.text


def test_a_summary_of_no_farm(planes: Planes) -> None:
    params = {"start_date": "2026-11-01", "end_date": "2026-11-02"}
    path = f"/analytics/farm/{UUID(int=1)}/summary"
    assert planes.ota.send("GET", path, params=params).status_code == 404


def test_without_the_analytical_database_the_rest_works(
    tmp_path_factory: pytest.TempPathFactory, ops_url: str
) -> None:
    settings = make_ota_settings(tmp_path_factory.mktemp("away"), ops_url)
    with running_ota(settings) as ota:
        farm = ota.register().json()["farm_id"]
        params = {"start_date": "2026-11-01", "end_date": "2026-11-02"}
        answer = ota.send("GET", f"/analytics/farm/{farm}/summary", params=params)
        assert answer.status_code == 503
        assert "ZENTHOS_ANALYTICS_DATABASE_URL" in answer.json()["detail"]
        assert ota.send("GET", "/health/ready", None).status_code == 200
        assert ota.send("GET", "/devices").status_code == 200


def test_an_analytical_database_that_is_away_holds_up_few(
    tmp_path_factory: pytest.TempPathFactory, ops_url: str
) -> None:
    """Whoever waits for it holds a connection that devices need."""
    settings = make_ota_settings(tmp_path_factory.mktemp("away"), ops_url)
    with running_ota(settings) as ota, ThreadPoolExecutor(24) as pool:
        ota.register()
        path = f"/devices/{DEVICE_ID}/history"
        answers = list(pool.map(lambda _: ota.send("GET", path), range(24)))
        assert {answer.status_code for answer in answers} == {503}
        told_to_wait = [a for a in answers if "ask again in a moment" in a.json()["detail"]]
        assert len(told_to_wait) >= 24 - 2 * analytical.WAITING_MAX
        assert told_to_wait[0].headers["retry-after"]


def test_an_analytical_database_without_tables(
    ops_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = make_ota_settings(tmp_path_factory.mktemp("empty"), ops_url, ops_url)
    with running_ota(settings) as ota:
        ota.register()
        answer = ota.send("GET", "/devices/field-sensor-001/history")
        assert answer.status_code == 503
        assert "not migrated" in answer.json()["detail"]
