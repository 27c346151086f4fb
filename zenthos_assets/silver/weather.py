"""The weather of each farm by the hour, from its own stations; values in, values out.

1. A farm's stations of a day are its devices whose type begins with `weather`. A farm that has none
   on that day has those of its devices that measure rain.
2. A value that is out of range, or of a clock that is suspect, says nothing. What a station sends
   twice for one moment counts once, as it was first received.
3. A station's hour is the sum of its rain and the mean of its other values; a farm's hour is the
   mean of its stations' hours, to four decimals.
4. `weather_condition` is the first of these that holds; what is not measured does not hold:
   `heavy_rain` from 4 mm in the hour (Met Office, Fact Sheet 3), `rain` from 0.2 mm (a tip of the
   usual gauge; WMO-No. 8), `frost` below 0 °C, `hot` above 30 °C (a hot day by the DWD), `fog` from
   97 %RH, `clear` from 30,000 lux (direct sun) and `overcast` below 10,000 lux (full daylight
   without sun) from 9 to 15 h by the sun, `dry` otherwise.
5. An hour in which no station measured anything has no row.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

import polars as pl

from zenthos_assets.silver.reference import WEATHER_SCHEMA
from zenthos_assets.silver.transforms import RANGES, place, placement_spans

STATION_PREFIX: Final = "weather"
DECIMALS: Final = 4
HEAVY_RAIN_MM: Final = 4.0
RAIN_MM: Final = 0.2
FROST_C: Final = 0.0
HOT_C: Final = 30.0
FOG_HUMIDITY: Final = 97.0
CLEAR_LUX: Final = 30_000
OVERCAST_LUX: Final = 10_000
DAYTIME_H: Final = (9, 15)
DEGREES_AN_HOUR: Final = 15
"""The sun's path over the longitudes."""

MEASURES: Final = {
    "rain_mm": "rainfall_mm",
    "temp_avg": "temperature",
    "humidity_avg": "humidity",
    "light_avg": "light_level",
}
STATION_HOURS: Final = pl.Schema(
    {
        "farm_id": pl.String(),
        "hour": pl.Datetime("us", "UTC"),
        "device_id": pl.String(),
        "longitude": pl.Float64(),
        **dict.fromkeys(MEASURES, pl.Float64()),
    }
)


def station_hours(
    readings: pl.DataFrame, placements: pl.DataFrame, days: Sequence[date]
) -> pl.DataFrame:
    """Rules 1 to 3 for the devices of a slice: a frame of STATION_HOURS."""
    plausible = [
        pl.when(pl.col(name).is_between(*RANGES[name])).then(pl.col(name)).alias(name)
        for name in MEASURES.values()
    ]
    day = pl.col("time").dt.date()
    is_station = pl.col("device_type").str.starts_with(STATION_PREFIX)
    return (
        readings.filter(day.is_in(list(days)) & ~pl.col("clock_suspect"))
        .select("device_id", "time", "received_at", *plausible)
        .pipe(place, placements, days)
        .with_columns(day=day, station=is_station)
        .join(farms_with_stations(placements, days), on=["farm_id", "day"], how="left")
        .filter(pl.col("station") | pl.col("has_station").is_null())
        .sort("received_at", maintain_order=True)
        .unique(["device_id", "time"], keep="first", maintain_order=True)
        .group_by("farm_id", "device_id", "station", hour=pl.col("time").dt.truncate("1h"))
        .agg(
            pl.col("longitude").last(),
            # the sum of nothing measured is not 0 mm
            rain_mm=pl.when(pl.col("rainfall_mm").count() > 0).then(pl.col("rainfall_mm").sum()),
            **{n: pl.col(of).mean() for n, of in MEASURES.items() if n != "rain_mm"},
        )
        .filter(pl.any_horizontal(pl.col(*MEASURES).is_not_null()))
        .filter(pl.col("station") | pl.col("rain_mm").is_not_null())
        .select(STATION_HOURS.names())
    )


def farms_with_stations(placements: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """`farm_id` and `day` where a farm has a station at some time of the day; `has_station`."""
    spans = placement_spans(placements, days).filter(
        pl.col("device_type").str.starts_with(STATION_PREFIX)
    )
    midnight = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    began = pl.col("begins").is_null() | (pl.col("begins") < midnight + pl.duration(days=1))
    lasts = pl.col("ends").is_null() | (pl.col("ends") > midnight)
    return (
        spans.join(pl.DataFrame({"day": days}, schema={"day": pl.Date}), how="cross")
        .filter(began & lasts)
        .select("farm_id", "day", has_station=True)
        .unique()
    )


def farm_weather(slices: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Rules 1, 3 and 4 for all slices together: a frame of WEATHER_SCHEMA by farm and hour."""
    hours = pl.concat([STATION_HOURS.to_frame(), *slices]).sort("farm_id", "hour", "device_id")
    return (
        hours.group_by("farm_id", "hour", maintain_order=True)
        .agg(pl.col("longitude").mean(), *(pl.col(n).mean().round(DECIMALS) for n in MEASURES))
        .with_columns(weather_condition=condition())
        .select(WEATHER_SCHEMA.names())
    )


def condition() -> pl.Expr:
    """Rule 4."""
    solar_hour = (pl.col("hour").dt.hour() + pl.col("longitude") / DEGREES_AN_HOUR) % 24
    # the middle of the hour
    daytime = (solar_hour + 0.5).is_between(*DAYTIME_H)
    rules = {
        "heavy_rain": pl.col("rain_mm") >= HEAVY_RAIN_MM,
        "rain": pl.col("rain_mm") >= RAIN_MM,
        "frost": pl.col("temp_avg") < FROST_C,
        "hot": pl.col("temp_avg") > HOT_C,
        "fog": pl.col("humidity_avg") >= FOG_HUMIDITY,
        "clear": daytime & (pl.col("light_avg") >= CLEAR_LUX),
        "overcast": daytime & (pl.col("light_avg") < OVERCAST_LUX),
    }
    named = [pl.when(holds).then(pl.lit(name)) for name, holds in rules.items()]
    return pl.coalesce(*named, pl.lit("dry"))
