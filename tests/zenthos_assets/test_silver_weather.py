"""The weather of a farm, one rule at a time, and against a naive implementation."""

import json
from datetime import UTC, date, datetime, timedelta
from statistics import fmean

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zenthos_assets.conftest import RECEIVED, reading, topic_of
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.bronze.transforms import to_frame
from zenthos_assets.silver.reference import PLACEMENTS_SCHEMA, WEATHER_SCHEMA
from zenthos_assets.silver.weather import condition, farm_weather, station_hours

START = datetime(2026, 11, 18, tzinfo=UTC)
DAY = START.date()


def placements(*rows: tuple[str, datetime, str, str]) -> pl.DataFrame:
    """Rows (device, valid_from, farm, device type)."""
    full = [(*row, "esp32-s3", 39.1, 0.0) for row in rows]
    return pl.DataFrame(full, schema=PLACEMENTS_SCHEMA, orient="row")


SOIL = placements(("soil-1", START, "north", "soil"), ("soil-2", START, "north", "soil"))


def readings(*payloads: bytes, at: datetime = RECEIVED) -> pl.DataFrame:
    rows = [(topic_of(p, "telemetry"), p, at, at, 1, False, False) for p in payloads]
    return read_telemetry(codec.encode(to_frame(rows))).readings


def sent(device_id: str, minutes: int, **sensors: float) -> bytes:
    return reading(device_id, START + timedelta(minutes=minutes), sensors=sensors)


def weather(
    *payloads: bytes, table: pl.DataFrame = SOIL, days: tuple[date, ...] = (DAY,)
) -> pl.DataFrame:
    found = farm_weather([station_hours(readings(*payloads), table, days)])
    assert found.schema == WEATHER_SCHEMA
    return found


def test_rule_1_without_a_station_those_that_measure_rain() -> None:
    found = weather(
        sent("soil-1", 0, temperature=10.0, rainfall_mm=0.0), sent("soil-2", 0, temperature=30.0)
    )
    assert found["temp_avg"].to_list() == [10.0]


def test_rule_1_a_station_speaks_for_its_farm_from_the_day_it_is_there() -> None:
    station = ("station", START + timedelta(hours=30), "north", "weather_station")
    soil = ("soil-1", START, "north", "soil")
    table = pl.concat(
        [placements(soil, ("station", START, "south", "weather")), placements(station)]
    )
    payloads = [
        sent(device, minutes, temperature=value, rainfall_mm=0.0)
        for device, value in (("soil-1", 10.0), ("station", 20.0))
        for minutes in (0, 31 * 60)
    ]
    next_day = DAY + timedelta(days=1)
    found = weather(*payloads, table=table, days=(DAY, next_day))
    assert found.select("farm_id", "temp_avg").rows() == [
        ("north", 10.0),
        ("north", 20.0),
        ("south", 20.0),
    ]
    alone = [weather(*payloads, table=table, days=(day,)) for day in (DAY, next_day)]
    assert pl.concat(alone).sort("farm_id", "hour").equals(found)


def test_rule_2_implausible_values_and_suspect_clocks_say_nothing() -> None:
    undated = json.loads(sent("soil-1", 0, rainfall_mm=9.0)) | {"timestamp": 0}
    found = weather(
        sent("soil-1", 0, rainfall_mm=61.0, temperature=10.0),
        sent("soil-1", 1, rainfall_mm=1.0),
        json.dumps(undated).encode(),
        days=(DAY, RECEIVED.date()),
    )
    assert found.select("rain_mm", "temp_avg").rows() == [(1.0, 10.0)]


def test_rule_2_a_moment_counts_once() -> None:
    twice = [sent("soil-1", 0, rainfall_mm=1.0), sent("soil-1", 0, rainfall_mm=1.0)]
    assert weather(*twice)["rain_mm"].to_list() == [1.0]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 170), st.floats(0, 20)),
        min_size=1,
        unique_by=lambda row: row[:2],
    )
)
def test_rule_3_rain_is_summed_and_averaged(rows: list[tuple[int, int, float]]) -> None:
    found = weather(*(sent(f"soil-{d}", m, rainfall_mm=v, humidity=v) for d, m, v in rows))
    stations: dict[int, dict[int, list[float]]] = {}
    for device, minute, value in rows:
        stations.setdefault(minute // 60, {}).setdefault(device, []).append(value)
    for hour, rain, humidity in found.select("hour", "rain_mm", "humidity_avg").rows():
        of_hour = stations.pop((hour - START) // timedelta(hours=1))
        assert rain == pytest.approx(fmean(sum(v) for v in of_hour.values()), abs=1e-4)
        assert humidity == pytest.approx(fmean(fmean(v) for v in of_hour.values()), abs=1e-4)
    assert not stations


@pytest.mark.parametrize(
    ("measured", "hour", "name"),
    [
        ({"rain_mm": 4.0, "temp_avg": -1.0}, 12, "heavy_rain"),
        ({"rain_mm": 0.2}, 12, "rain"),
        ({"rain_mm": 0.1, "temp_avg": -0.1}, 12, "frost"),
        ({"temp_avg": 30.1, "light_avg": 90_000.0}, 12, "hot"),
        ({"humidity_avg": 97.0}, 12, "fog"),
        ({"light_avg": 30_000.0}, 12, "clear"),
        ({"light_avg": 9_999.0}, 12, "overcast"),
        ({"light_avg": 20_000.0}, 12, "dry"),
        ({"light_avg": 0.0}, 0, "dry"),
        ({"temp_avg": 15.0}, 12, "dry"),
    ],
)
def test_rule_4_conditions(measured: dict[str, float], hour: int, name: str) -> None:
    schema = pl.Schema({**WEATHER_SCHEMA, "longitude": pl.Float64()})
    row = {"hour": START + timedelta(hours=hour), "longitude": 0.0, **measured}
    frame = pl.DataFrame([row], schema=schema)
    assert frame.select(condition()).item() == name


def test_rule_4_noon_is_by_the_sun() -> None:
    schema = pl.Schema({**WEATHER_SCHEMA, "longitude": pl.Float64()})
    rows = [
        {"hour": START + timedelta(hours=12), "longitude": longitude, "light_avg": 0.0}
        for longitude in (0.0, 179.0, -179.0)
    ]
    found = pl.DataFrame(rows, schema=schema).select(condition()).to_series().to_list()
    assert found == ["overcast", "dry", "dry"]


def test_rule_5_an_hour_without_a_measure_has_no_row() -> None:
    assert weather(sent("soil-1", 0, soil_moisture=10.0)).is_empty()
    assert farm_weather([]).is_empty()
