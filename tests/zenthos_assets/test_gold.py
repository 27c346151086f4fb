"""Gold assets on silver written by hand, on a real Postgres."""

from datetime import UTC, date, datetime, timedelta

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
from zenthos_assets.gold.assets import telemetry_hourly

TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=10)
TABLES = [
    "telemetry_hourly",
    "telemetry_daily",
    "ml_features",
    "weather_daily",
    "irrigation_response",
    "telemetry_trends",
    "telemetry_historical",
]


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
