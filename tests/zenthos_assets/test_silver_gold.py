"""From archived messages to rollups and features, on real databases."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import polars as pl

from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from zenthos_assets import parquet
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_core import lake

FIRST = datetime(2026, 11, 10, tzinfo=UTC)


def hourly_readings(days: int, device_id: str = "soil-1") -> list[bytes]:
    return [
        reading(
            device_id,
            FIRST + timedelta(hours=hour),
            sensors={
                "soil_moisture": 40.0 - hour / 24,
                "temperature": 20.0,
                "rainfall_mm": 5.0 if hour == 30 else 0.0,
                "co2": 400.0,
            },
        )
        for hour in range(24 * days)
    ]


def silver(yard: Farmyard, day: date) -> pl.DataFrame:
    return parquet.read_days(yard.store, lake.SILVER, "telemetry_cleaned", [day], SCHEMA)


def lake_bytes(yard: Farmyard) -> dict[tuple[str, str], bytes]:
    buckets = (lake.SILVER, lake.GOLD)
    return {(b, key): yard.store.get(b, key) for b in buckets for key in yard.store.keys(b)}


def test_readings_become_rollups_and_features(farmyard: Farmyard) -> None:
    farmyard.receive(hourly_readings(9))
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.run("daily", "2026-11-10", "2026-11-18").success
    rows = farmyard.query_analytics(
        "SELECT soil_7d_avg, soil_trend_slope, days_since_rain, days_since_irrigation"
        " FROM ml_features WHERE date = '2026-11-18'"
    )
    assert len(rows) == 1
    mean, slope, since_rain, since_irrigation = rows[0]
    assert abs(slope + 1.0) < 1e-9
    assert abs(mean - (40 - (48 + 215) / 2 / 24)) < 1e-9
    assert (since_rain, since_irrigation) == (7, None)
    assert farmyard.query_analytics("SELECT count(*) FROM telemetry_hourly") == [(216,)]
    assert farmyard.query_analytics(
        "SELECT rain_mm, sample_count FROM telemetry_daily WHERE day = '2026-11-11'"
    ) == [(5.0, 24)]


def test_irrigation_of_the_farm_counts_for_its_devices(farmyard: Farmyard) -> None:
    farmyard.receive(hourly_readings(5))
    farmyard.run("archive", HOUR_KEY)
    farmyard.execute(
        "INSERT INTO irrigation_events (farm_id, timestamp)"
        " SELECT id, '2026-11-12 23:30Z' FROM farms"
    )
    assert farmyard.run("daily", "2026-11-10", "2026-11-14").success
    rows = farmyard.query_analytics(
        "SELECT date, days_since_irrigation FROM ml_features ORDER BY date"
    )
    assert [since for _, since in rows] == [None, None, 0, 1, 2]


def test_a_rerun_gives_the_same_bytes_and_rows(farmyard: Farmyard) -> None:
    farmyard.receive(hourly_readings(3) + hourly_readings(2, "soil-2"))
    farmyard.run("archive", HOUR_KEY)
    farmyard.run("daily", "2026-11-10", "2026-11-12")
    before = lake_bytes(farmyard), farmyard.query_analytics("TABLE telemetry_hourly ORDER BY 1, 2")
    assert farmyard.run("daily", "2026-11-10", "2026-11-12").success
    after = lake_bytes(farmyard), farmyard.query_analytics("TABLE telemetry_hourly ORDER BY 1, 2")
    assert before == after


def test_a_day_alone_equals_the_day_in_a_range(farmyard: Farmyard) -> None:
    farmyard.receive(hourly_readings(8))
    farmyard.run("archive", HOUR_KEY)
    farmyard.run("daily", "2026-11-10", "2026-11-17")
    before = lake_bytes(farmyard)
    farmyard.run("daily", "2026-11-17")
    assert lake_bytes(farmyard) == before


def test_the_first_received_of_a_message_counts(farmyard: Farmyard) -> None:
    first = reading("soil-1", FIRST, sensors={"soil_moisture": 31.0})
    again = first.replace(b"31.0", b"55.0")
    farmyard.receive([again], at=RECEIVED + timedelta(hours=1))
    farmyard.receive([first, first])
    farmyard.run("archive", HOUR_KEY, "2026-11-20-06:00")
    assert farmyard.run("daily", "2026-11-10").success
    assert silver(farmyard, FIRST.date())["soil_moisture"].to_list() == [31.0]


def test_late_readings_go_to_their_day(farmyard: Farmyard) -> None:
    farmyard.receive([reading("soil-1", FIRST)])
    farmyard.run("archive", HOUR_KEY)
    farmyard.run("daily", "2026-11-10")
    late = FIRST + timedelta(hours=3)
    farmyard.receive([reading("soil-1", late)], at=RECEIVED + timedelta(days=2))
    farmyard.run("archive", "2026-11-22-05:00")
    assert farmyard.run("daily", "2026-11-10").success
    assert silver(farmyard, FIRST.date())["time"].to_list() == [FIRST, late]


def test_a_day_without_readings_is_built_empty(farmyard: Farmyard) -> None:
    assert farmyard.run("daily", "2026-11-10", "2026-11-11").success
    assert silver(farmyard, FIRST.date()).is_empty()
    assert farmyard.store.exists(lake.GOLD, "ml_features/2026/11/10.parquet")


def test_rows_that_vanished_from_a_day_leave_the_warehouse(farmyard: Farmyard) -> None:
    farmyard.receive([reading("soil-1", FIRST), reading("soil-2", FIRST)])
    farmyard.run("archive", HOUR_KEY)
    farmyard.run("daily", "2026-11-10")
    farmyard.execute("DELETE FROM bronze_days")
    assert farmyard.run("daily", "2026-11-10").success
    assert farmyard.query_analytics("SELECT count(*) FROM telemetry_hourly") == [(0,)]


def test_silver_keeps_what_the_wire_carries(farmyard: Farmyard) -> None:
    farmyard.receive(hourly_readings(1)[:1])
    farmyard.run("archive", HOUR_KEY)
    farmyard.run("daily", "2026-11-10")
    row = silver(farmyard, FIRST.date()).row(0, named=True)
    assert UUID(bytes=row["message_id"]).version == 5
    assert row["extra"] == '{"co2":400.0}'
    assert (row["device_model"], row["latitude"], row["quality"]) == ("esp32-s3", 39.1, "")
    assert row["received_at"] == RECEIVED


def failed_check(yard: Farmyard, job: str, key: str) -> set[str]:
    result = yard.run(job, key)
    assert not result.success
    return {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}


def test_check_bronze_object_that_was_changed(farmyard: Farmyard) -> None:
    farmyard.receive([reading("soil-1", FIRST)])
    farmyard.run("archive", HOUR_KEY)
    [(key,)] = farmyard.execute("SELECT object_key FROM bronze_objects")
    farmyard.store.put(lake.BRONZE, key, farmyard.store.get(lake.BRONZE, key)[:-1])
    assert failed_check(farmyard, "archive", HOUR_KEY) == {"archive_reads_back"}
    farmyard.store.path(lake.BRONZE, key).unlink()
    assert failed_check(farmyard, "archive", HOUR_KEY) == {"archive_reads_back"}


def test_check_ledger_that_does_not_balance(farmyard: Farmyard) -> None:
    farmyard.receive([reading("soil-1", FIRST)])
    farmyard.execute("UPDATE ledger SET stored = stored + 1")
    result = farmyard.run("archive", HOUR_KEY)
    failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert failed == {"ledger_balances"}


def test_check_values_out_of_range_warns(farmyard: Farmyard) -> None:
    farmyard.receive([reading("soil-1", FIRST, sensors={"soil_moisture": 130.0})])
    farmyard.run("archive", HOUR_KEY)
    result = farmyard.run("daily", "2026-11-10")
    assert result.success
    failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert "values_in_range" in failed
    assert silver(farmyard, FIRST.date())["quality"].to_list() == ["soil_moisture"]
    assert farmyard.query_analytics("SELECT soil_avg FROM telemetry_daily") == [(None,)]
