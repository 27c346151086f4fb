"""The seven inputs of the irrigation model, per device and day.

A feature row of day D knows the readings up to the end of D and nothing later:

1. Windows hold the hourly means of the seven days D-6 to D, each hour with the same weight.
2. A statistic of a window is null where fewer than 84 of its 168 hours are there.
3. `temp_variability` is the coefficient of variation, standard deviation over mean. The mean of a
   Celsius scale crosses zero in winter, so the divisor is never taken below 5 °C.
4. A day is rainy from 1 mm (WMO's wet day). `days_since_rain` and `days_since_irrigation` are 0 on
   the day itself and null where nothing fell within 30 days; a null enters the model as 30.
"""

import hashlib
from datetime import date, timedelta
from typing import Final

import polars as pl

FEATURES: Final = (
    "soil_7d_avg",
    "soil_7d_stddev",
    "temp_7d_avg",
    "soil_trend_slope",
    "temp_variability",
    "days_since_irrigation",
    "days_since_rain",
)
"""%, %, °C, %/day, -, days, days: the order is the model's input contract, shape [1, 7]."""

WINDOW_DAYS: Final = 7
MIN_HOURS: Final = 84
MAX_DAYS_SINCE: Final = 30
WET_DAY_MM: Final = 1.0
MIN_TEMPERATURE_DIVISOR_C: Final = 5.0
DAY_S: Final = 86_400
_OF_SOIL: Final = ("soil_7d_avg", "soil_7d_stddev", "soil_trend_slope")
_OF_TEMPERATURE: Final = ("temp_7d_avg", "temp_variability")

SCHEMA: Final = pl.Schema(
    {
        "device_id": pl.String(),
        "date": pl.Date(),
        "soil_7d_avg": pl.Float64(),
        "soil_7d_stddev": pl.Float64(),
        "temp_7d_avg": pl.Float64(),
        "soil_trend_slope": pl.Float64(),
        "temp_variability": pl.Float64(),
        "days_since_irrigation": pl.Int32(),
        "days_since_rain": pl.Int32(),
    }
)


def feature_schema_hash() -> str:
    """Changes when the names, order or windows of the inputs do; signed into each release."""
    contract = "\n".join([*FEATURES, f"{WINDOW_DAYS}d", f"{MIN_HOURS}h", f"cap {MAX_DAYS_SINCE}"])
    return hashlib.sha256(contract.encode()).hexdigest()[:16]


def compute_features(
    hourly: pl.DataFrame, daily: pl.DataFrame, irrigation: pl.DataFrame, first: date, last: date
) -> pl.DataFrame:
    """One row for each device and day in [first, last] that has a reading in its window.

    Args:
        hourly: `device_id`, `bucket` (hour, UTC), `soil_avg` %, `temp_avg` °C; from six days
            before `first`, one row per device and hour.
        daily: `device_id`, `day`, `rain_mm`; from 30 days before `first`.
        irrigation: `device_id`, `day` of each irrigation; from 30 days before `first`.
        first: first day wanted.
        last: last day wanted.
    """
    windows = window_statistics(hourly, first, last)
    rain = daily.filter(pl.col("rain_mm") >= WET_DAY_MM).select("device_id", "day")
    return (
        windows.pipe(_with_days_since, irrigation, "days_since_irrigation")
        .pipe(_with_days_since, rain, "days_since_rain")
        .select(SCHEMA.names())
        .cast(SCHEMA)
        .sort("device_id", "date")
    )


def window_statistics(hourly: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """Mean, deviation and slope of the seven days that end with each `date` of a range."""
    soil, temperature = pl.col("soil_avg"), pl.col("temp_avg")
    variability = temperature.std() / pl.max_horizontal(
        temperature.mean().abs(), pl.lit(MIN_TEMPERATURE_DIVISOR_C)
    )
    rows = _window_rows(hourly, first, last)
    statistics = rows.group_by("window", maintain_order=True).agg(
        pl.col("device_id", "date").first(),
        soil_hours=soil.count(),
        temp_hours=temperature.count(),
        day_avg=pl.col("day").mean(),
        soil_7d_avg=soil.mean(),
        soil_7d_stddev=soil.std(),
        temp_7d_avg=temperature.mean(),
        temp_variability=variability,
    )
    statistics = statistics.hstack([_slopes(rows, statistics)])
    enough_soil, enough_temperature = (
        pl.col(f"{name}_hours") >= MIN_HOURS for name in ("soil", "temp")
    )
    return statistics.select(
        "device_id",
        "date",
        *(pl.when(enough_soil).then(pl.col(name)).alias(name) for name in _OF_SOIL),
        *(pl.when(enough_temperature).then(pl.col(name)).alias(name) for name in _OF_TEMPERATURE),
    )


def _window_rows(hourly: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """The hours of each window, together and in order; `window` numbers the windows.

    Polars' rolling kernels carry rounding errors along: here each window is summed by itself. Rows
    are sorted by one number, since text and times as keys take ten times as long.
    """
    columns = hourly.select("device_id", "bucket", "soil_avg", "temp_avg")
    of_day = pl.col("bucket").dt.date()
    seen = [
        columns.filter(of_day.is_between(first - ahead, last - ahead)).with_columns(
            date=of_day + ahead
        )
        for ahead in map(timedelta, range(WINDOW_DAYS))
    ]
    rows = pl.concat(seen)
    devices = rows.select("device_id").unique().with_row_index("device")
    days_wanted = (last - first).days + 1
    # Counted from the window's last day: a day's bytes do not depend on the range it is built in.
    day = (pl.col("bucket") - pl.col("date").cast(pl.Datetime("us", "UTC"))).dt.total_seconds()
    window = (
        pl.col("device").cast(pl.Int64) * days_wanted + (pl.col("date") - first).dt.total_days()
    )
    return (
        rows.join(devices, on="device_id", how="left", maintain_order="left")
        .with_columns(second=day, window=window)
        .sort(pl.col("window") * (WINDOW_DAYS * DAY_S) + pl.col("second"))
        .with_columns(
            pl.col("window").set_sorted(),
            day=pl.when(pl.col("soil_avg").is_not_null()).then(pl.col("second") / DAY_S),
        )
    )


def _slopes(rows: pl.DataFrame, statistics: pl.DataFrame) -> pl.Series:
    """Least squares through the hours with soil moisture, %/day."""
    means = statistics.select("day_avg", "soil_7d_avg")[rows["window"].rle_id()]
    day, soil = rows["day"] - means["day_avg"], rows["soil_avg"] - means["soil_7d_avg"]
    products = pl.DataFrame({"window": rows["window"], "both": day * soil, "squares": day * day})
    sums = products.group_by("window", maintain_order=True).agg(pl.col("both", "squares").sum())
    return (sums["both"] / sums["squares"]).alias("soil_trend_slope")


def _with_days_since(windows: pl.DataFrame, events: pl.DataFrame, name: str) -> pl.DataFrame:
    """Days from the device's newest event to each `date`, null beyond MAX_DAYS_SINCE."""
    newest = events.select("device_id", pl.col("day").cast(pl.Date)).unique()
    joined = windows.sort("date").join_asof(
        newest.sort("day"),
        left_on="date",
        right_on="day",
        by="device_id",
        strategy="backward",
        tolerance=f"{MAX_DAYS_SINCE}d",
        check_sortedness=False,
    )
    since = (pl.col("date") - pl.col("day")).dt.total_days()
    return joined.with_columns(since.alias(name)).drop("day")
