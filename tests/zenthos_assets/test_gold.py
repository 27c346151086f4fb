"""Gold assets on silver written by hand, on a real Postgres."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.waiting import DAY_S, begin_within
from tests.zenthos_assets.conftest import Farmyard
from tests.zenthos_assets.lake import (
    GOLD,
    at,
    build,
    failed_checks,
    hourly,
    objects,
    put_silver,
    put_weather,
    unchanged,
)
from zenthos_assets.gold.assets import ml_features, telemetry_daily, telemetry_hourly
from zenthos_assets.gold.farm_assets import irrigation_response, telemetry_trends, weather_daily
from zenthos_assets.gold.history_assets import telemetry_historical

DAY = datetime.now(UTC).date() - timedelta(days=10)
TABLES = [
    "telemetry_hourly",
    "telemetry_daily",
    "ml_features",
    "weather_daily",
    "irrigation_response",
    "telemetry_trends",
    "telemetry_historical",
]


@pytest.fixture
def today() -> date:
    """The day of the test, from its beginning to its end."""
    begin_within(DAY_S)
    return datetime.now(UTC).date()


def rows(yard: Farmyard) -> dict[str, list[object]]:
    return {table: sorted(map(repr, yard.query_analytics(f"TABLE {table}"))) for table in TABLES}


def fill(yard: Farmyard, days: int) -> date:
    for number in range(days):
        day = DAY + timedelta(days=number)
        put_silver(yard, day, hourly(day) + hourly(day, 12, device_id="soil-2"))
        put_weather(yard, day, [{"hour": at(day, 3), "rain_mm": 2.0, "weather_condition": "rain"}])
    return DAY + timedelta(days=days - 1)


def test_everything_is_built_and_checked(farmyard: Farmyard) -> None:
    last = fill(farmyard, 3)
    result = build(farmyard, *GOLD, first=DAY, last=last)
    assert result.success
    assert failed_checks(result) == {"windows_full"}
    counts = {table: len(found) for table, found in rows(farmyard).items()}
    assert counts == {
        "telemetry_hourly": 108,
        "telemetry_daily": 6,
        "ml_features": 6,
        "weather_daily": 3,
        "irrigation_response": 0,
        "telemetry_trends": counts["telemetry_trends"],
        "telemetry_historical": 108,
    }


def test_unchanged_input_is_skipped_unless_forced(farmyard: Farmyard) -> None:
    last = fill(farmyard, 2)
    assert build(farmyard, *GOLD, first=DAY, last=last).success
    before = rows(farmyard), objects(farmyard)
    again = build(farmyard, *GOLD, first=DAY, last=last)
    assert all(unchanged(again, telemetry_hourly).values())
    forced = build(farmyard, *GOLD, first=DAY, last=last, force=True)
    assert not any(unchanged(forced, telemetry_hourly).values())
    assert again.success
    assert forced.success
    assert (rows(farmyard), objects(farmyard)) == before


def irrigate(yard: Farmyard, moment: datetime) -> None:
    yard.execute(
        "INSERT INTO irrigation_events (id, farm_id, timestamp, duration_minutes)"
        " SELECT gen_random_uuid(), id, %s, 30 FROM farms WHERE name = 'north'",
        moment,
    )


def farm_of(yard: Farmyard) -> str:
    [(farm,)] = yard.execute("SELECT id::text FROM farms WHERE name = 'north'")
    return str(farm)


# irrigation


def test_a_response_is_completed_by_the_days_after_it(farmyard: Farmyard) -> None:
    farm = farm_of(farmyard)
    irrigate(farmyard, at(DAY, 12))
    put_silver(farmyard, DAY, hourly(DAY, farm_id=farm))
    assert build(farmyard, telemetry_hourly, telemetry_historical, first=DAY).success
    assert build(farmyard, irrigation_response).success
    query = (
        "SELECT hours_before, hours_after, soil_change, dry_again_hours FROM irrigation_response"
    )
    assert farmyard.query_analytics(query) == [(6, 12, 0.0, None)]
    later = DAY + timedelta(days=1)
    wet = [r | {"soil_moisture": 45.0} for r in hourly(later, 3, farm_id=farm)]
    put_silver(farmyard, later, wet + hourly(later, farm_id=farm)[3:])
    assert build(farmyard, telemetry_hourly, telemetry_historical, first=later).success
    result = build(farmyard, irrigation_response)
    assert not failed_checks(result)
    assert farmyard.query_analytics(query) == [(6, 24, 15.0, 15)]
    again = build(farmyard, irrigation_response)
    assert unchanged(again, irrigation_response) == {"None": True}


def test_an_event_that_was_deleted_has_no_response(farmyard: Farmyard) -> None:
    irrigate(farmyard, at(DAY, 12))
    put_silver(farmyard, DAY, hourly(DAY, farm_id=farm_of(farmyard)))
    assert build(farmyard, telemetry_hourly, irrigation_response, first=DAY).success
    assert len(rows(farmyard)["irrigation_response"]) == 1
    farmyard.execute("DELETE FROM irrigation_events")
    assert build(farmyard, irrigation_response).success
    assert rows(farmyard)["irrigation_response"] == []


def test_irrigation_counts_for_the_devices_that_stood_there_then(farmyard: Farmyard) -> None:
    irrigate(farmyard, at(DAY, 6))
    farmyard.execute("UPDATE device_placements SET valid_from = '2026-01-01'")
    farmyard.execute("INSERT INTO farms (name) VALUES ('south')")
    farmyard.execute(
        "INSERT INTO device_placements (device_id, valid_from, farm_id, device_type, device_model)"
        " SELECT 'soil-1', %s, id, 'soil', 'esp32-s3' FROM farms WHERE name = 'south'",
        at(DAY, 12),
    )
    irrigate(farmyard, at(DAY + timedelta(days=1), 6))
    last = fill(farmyard, 2)
    assets = (telemetry_historical, telemetry_hourly, telemetry_daily, ml_features)
    assert build(farmyard, *assets, first=DAY, last=last).success
    since = "SELECT device_id, days_since_irrigation FROM ml_features ORDER BY device_id, date"
    assert farmyard.query_analytics(since) == [
        ("soil-1", 0),
        ("soil-1", 1),
        ("soil-2", 0),
        ("soil-2", 0),
    ]


def test_features_are_built_again_when_irrigation_becomes_known(farmyard: Farmyard) -> None:
    last = fill(farmyard, 2)
    assets = (telemetry_hourly, telemetry_daily, ml_features)
    assert build(farmyard, telemetry_historical, *assets, first=DAY, last=last).success
    irrigate(farmyard, at(last, 6))
    result = build(farmyard, *assets, first=DAY, last=last)
    assert unchanged(result, ml_features) == {str(DAY): True, str(last): False}
    assert all(unchanged(result, telemetry_hourly).values())


# trends


def test_trends_of_weeks_that_are_over_and_of_those_whose_days_changed(
    farmyard: Farmyard, today: date
) -> None:
    monday = today - timedelta(days=today.weekday() + 28)
    span = [monday + timedelta(days=n) for n in range(28)]
    for number, day in enumerate(span):
        put_silver(farmyard, day, hourly(day, 1, soil_moisture=20 + number / 7))
    daily = (telemetry_historical, telemetry_daily)
    assert build(farmyard, *daily, first=span[0], last=span[-1]).success
    result = build(farmyard, telemetry_trends)
    assert not failed_checks(result)
    query = "SELECT week, weeks, soil_days, round(soil_slope::numeric, 6) FROM telemetry_trends"
    found = farmyard.query_analytics(f"{query} WHERE weeks = 4 ORDER BY week")
    assert [(week, days) for week, _, days, _ in found] == [
        (monday + timedelta(days=7 * n), 7 * n + 7) for n in range(4)
    ]
    assert [slope for *_, slope in found] == [None, 1, 1, 1]
    put_silver(farmyard, span[15], hourly(span[15], 1, soil_moisture=90.0))
    assert build(farmyard, *daily, first=span[15]).success
    again = build(farmyard, telemetry_trends)
    [event] = again.asset_materializations_for_node(telemetry_trends.op.name)
    assert event.metadata["rebuilt"].value == [str(span[14]), str(span[21])]


# weather


def test_weather_is_that_of_silvers_hours(farmyard: Farmyard) -> None:
    put_weather(
        farmyard,
        DAY,
        [
            {"hour": at(DAY, n), "rain_mm": 0.5, "temp_avg": 10.0 + n, "weather_condition": "rain"}
            for n in range(4)
        ],
    )
    result = build(farmyard, weather_daily, first=DAY)
    assert not failed_checks(result)
    query = "SELECT hour_count, rain_mm, temp_min, temp_max, weather_condition FROM weather_daily"
    assert farmyard.query_analytics(query) == [(4, 2.0, 10.0, 13.0, "rain")]
    farmyard.store.path("zenthos-gold", f"weather_daily/{DAY:%Y/%m/%d}.parquet").unlink()
    assert build(farmyard, weather_daily, first=DAY).success


# the readings as a table


def partitions(yard: Farmyard) -> list[date]:
    names = yard.query_analytics(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'telemetry_historical'::regclass"
    )
    return sorted(datetime.strptime(name[-8:], "%Y%m%d").date() for (name,) in names)


def keep(yard: Farmyard, days: int) -> None:
    file = Path(str(yard.platform.directory)) / ".env"
    kept = [line for line in file.read_text().splitlines() if "HISTORICAL" not in line]
    file.write_text("\n".join([*kept, f"ZENTHOS_HISTORICAL_DAYS={days}", ""]))


def test_readings_are_kept_as_silver_has_them(farmyard: Farmyard) -> None:
    row = hourly(DAY, 1)[0] | {
        "quality": "",
        "firmware_version": 'v"1,0\\N',
        "model_version": "\\N",
        "weather_condition": "rain",
        "irrigation_event": True,
        "humidity": None,
        "rainfall_mm": 1e-7,
    }
    put_silver(farmyard, DAY, [row, hourly(DAY, 2)[1] | {"quality": "soil_moisture"}])
    assert not failed_checks(build(farmyard, telemetry_historical, first=DAY))
    found = farmyard.query_analytics(
        "SELECT time, quality, firmware_version, model_version, weather_condition,"
        " irrigation_event, humidity, rainfall_mm FROM telemetry_historical ORDER BY time"
    )
    assert found == [
        (at(DAY), "", 'v"1,0\\N', "\\N", "rain", True, None, 1e-7),
        (at(DAY, 1), "soil_moisture", None, None, None, False, None, None),
    ]


def test_days_past_the_retention_leave_and_come_back_when_it_is_raised(
    farmyard: Farmyard, today: date
) -> None:
    last = fill(farmyard, 3)
    span = [DAY + timedelta(days=n) for n in range(3)]
    assert build(farmyard, telemetry_historical, first=DAY, last=last).success
    assert partitions(farmyard) == span
    keep(farmyard, (today - last).days)
    assert build(farmyard, telemetry_historical, first=last).success
    assert partitions(farmyard) == span[2:]
    result = build(farmyard, telemetry_historical, first=DAY, last=last)
    assert not failed_checks(result)
    assert partitions(farmyard) == span[2:]
    keep(farmyard, 90)
    result = build(farmyard, telemetry_historical, first=DAY, last=last)
    assert not failed_checks(result)
    assert unchanged(result, telemetry_historical)[str(last)]
    assert partitions(farmyard) == span
    assert len(rows(farmyard)["telemetry_historical"]) == 108


def test_days_that_were_dropped_come_back(farmyard: Farmyard) -> None:
    last = fill(farmyard, 2)
    assert build(farmyard, telemetry_historical, first=DAY, last=last).success
    farmyard.analyse(f"DROP TABLE telemetry_historical_{DAY:%Y%m%d}")
    result = build(farmyard, telemetry_historical, first=DAY, last=last)
    assert not failed_checks(result)
    assert unchanged(result, telemetry_historical) == {str(DAY): False, str(last): True}


def test_a_day_that_is_being_read_is_dropped_by_the_next_run(
    farmyard: Farmyard, today: date
) -> None:
    last = fill(farmyard, 2)
    assert build(farmyard, telemetry_historical, first=DAY, last=last).success
    keep(farmyard, (today - last).days)
    with psycopg.connect(farmyard.analytics_url) as reader:
        reader.execute("SELECT count(*) FROM telemetry_historical")
        assert build(farmyard, telemetry_historical, first=last).success
    assert partitions(farmyard) == [DAY, last]
    assert build(farmyard, telemetry_historical, first=last).success
    assert partitions(farmyard) == [last]
