"""Do the gold tables hold what silver holds, and can it be?

Problems are counted frame by frame and add up over the days of a run, those left as they were too.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from statistics import median
from typing import Final

import dagster as dg
import polars as pl

from ml.features import FEATURES
from zenthos_assets.silver.transforms import RANGES

HOURLY_KEY = dg.AssetKey(["gold", "telemetry_hourly"])
DAILY_KEY = dg.AssetKey(["gold", "telemetry_daily"])
FEATURES_KEY = dg.AssetKey(["gold", "ml_features"])
WEATHER_KEY = dg.AssetKey(["gold", "weather_daily"])
RESPONSE_KEY = dg.AssetKey(["gold", "irrigation_response"])
TRENDS_KEY = dg.AssetKey(["gold", "telemetry_trends"])
HISTORICAL_KEY = dg.AssetKey(["gold", "telemetry_historical"])

REBUILD: Final = "If it stays, build these days again with force: true."
USUAL_DAYS: Final = 28
USUAL_MIN_DAYS: Final = 7
UNUSUAL: Final = 2.0
"""A day has so many times more or fewer rows than the median of the days before."""
MIN_COVERAGE: Final = 0.5
MAX_SLOPE: Final = 25.0
"""% or °C a week: a mean that moves faster for four weeks leaves every plausible range."""

Ranges = Mapping[str, tuple[float, float]]

_SOIL: Final = RANGES["soil_moisture"]
_TEMPERATURE: Final = RANGES["temperature"]
ROLLUP_RANGES: Final[Ranges] = {
    **dict.fromkeys(["soil_avg", "soil_min", "soil_max", "soil_20cm_avg", "soil_40cm_avg"], _SOIL),
    **dict.fromkeys(["temp_avg", "temp_min", "temp_max"], _TEMPERATURE),
    "sample_count": (1, float("inf")),
    "soil_stddev": (0, 100),
    "temp_stddev": (0, 100),
    "humidity_avg": RANGES["humidity"],
    "light_avg": RANGES["light_level"],
    "battery_min": RANGES["battery_voltage"],
    "rain_mm": (0, float("inf")),
}
FEATURE_RANGES: Final[Ranges] = {
    "soil_7d_avg": (0.0, 100.0),
    "soil_7d_stddev": (0.0, 100.0),
    "temp_7d_avg": (-40.0, 60.0),
    "soil_trend_slope": (-100.0, 100.0),
    "temp_variability": (0.0, 30.0),
    "days_since_irrigation": (0.0, 30.0),
    "days_since_rain": (0.0, 30.0),
}
WEATHER_RANGES: Final[Ranges] = {
    **dict.fromkeys(["temp_min", "temp_avg", "temp_max"], _TEMPERATURE),
    "hour_count": (1, 24),
    "rain_mm": (0, float("inf")),
    "humidity_avg": RANGES["humidity"],
    "light_avg": RANGES["light_level"],
}
RESPONSE_RANGES: Final[Ranges] = {
    **dict.fromkeys(["soil_before", "soil_after_avg", "soil_after_max"], _SOIL),
    "soil_change": (-100, 100),
    "hours_before": (0, 6),
    "hours_after": (0, 24),
    "dry_again_hours": (1, 168),
}
TREND_RANGES: Final[Ranges] = {
    "soil_avg": _SOIL,
    "temp_avg": _TEMPERATURE,
    "soil_slope": (-MAX_SLOPE, MAX_SLOPE),
    "temp_slope": (-MAX_SLOPE, MAX_SLOPE),
    "soil_days": (0, 364),
    "temp_days": (0, 364),
}


def reconciles_spec(
    asset: dg.AssetKey, name: str = "reconciles_with_silver", *, description: str = ""
) -> dg.AssetCheckSpec:
    """Blocking: what is behind the rows is what silver holds."""
    said = description or "Samples in the analytical database are the readings in silver."
    return dg.AssetCheckSpec(name, asset=asset, blocking=True, description=said)


def reconciles(
    gold: float, silver: float, name: str = "reconciles_with_silver"
) -> dg.AssetCheckResult:
    """Whether a sum over gold is that over silver; up to the rounding of sums."""
    return dg.AssetCheckResult(
        check_name=name,
        passed=abs(gold - silver) <= 1e-9 * max(abs(gold), abs(silver)),
        description=f"gold has {gold:g}, silver {silver:g}. {REBUILD}" if gold != silver else None,
        metadata={"gold": gold, "silver": silver},
    )


def valid_spec(asset: dg.AssetKey, name: str, *, blocking: bool = True) -> dg.AssetCheckSpec:
    """No row is twice in, every value in its range."""
    return dg.AssetCheckSpec(
        name,
        asset=asset,
        blocking=blocking,
        description="No row is twice in, every value in its range.",
    )


def problems(frame: pl.DataFrame, key: Sequence[str], ranges: Ranges) -> Counter[str]:
    """Rows that are there more than once, and values outside, by column."""
    found = Counter({"repeated_rows": len(frame) - frame.n_unique(key) if len(frame) else 0})
    outside = frame.select(
        (~pl.col(name).is_between(low, high)).sum().alias(name)
        for name, (low, high) in ranges.items()
    )
    return found + Counter(outside.row(0, named=True))


def valid(found: Counter[str], name: str) -> dg.AssetCheckResult:
    """The outcome of a `valid_spec`."""
    wrong = {what: count for what, count in sorted(found.items()) if count}
    words = ", ".join(f"{what}: {count}" for what, count in wrong.items())
    return dg.AssetCheckResult(
        check_name=name,
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description=words or None,
        metadata={"out_of_range_or_repeated": wrong},
    )


COVERAGE_SPEC = dg.AssetCheckSpec(
    "windows_full",
    asset=FEATURES_KEY,
    description=f"At least {MIN_COVERAGE:.0%} of the rows have every statistic of their window.",
)


def full_windows(features: pl.DataFrame) -> Counter[str]:
    """Rows, and those whose windows hold enough hours; the days since may be unknown."""
    statistics = [name for name in FEATURES if not name.startswith("days_since")]
    full = features.select(pl.all_horizontal(pl.col(statistics).is_not_null()).sum()).item()
    return Counter(rows=len(features), full=int(full))


def coverage(windows: Counter[str]) -> dg.AssetCheckResult:
    """The outcome of COVERAGE_SPEC."""
    share = windows["full"] / windows["rows"] if windows["rows"] else 1.0
    return dg.AssetCheckResult(
        check_name=COVERAGE_SPEC.name,
        passed=share >= MIN_COVERAGE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"share": share, "rows": windows["rows"]},
    )


def usual_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Warns where a day has far more or fewer rows than the four weeks before."""
    return dg.AssetCheckSpec(
        "usual_row_count",
        asset=asset,
        description=f"No day has {UNUSUAL:g} times more or fewer rows than those before it.",
    )


def unusual_days(counts: Mapping[date, int], days: Collection[date]) -> dict[date, float]:
    """Of `days`, those that differ from the median of the days before, with their ratio to it."""
    found = {}
    for day in sorted(set(days) & counts.keys()):
        before = (day - timedelta(days=n) for n in range(1, USUAL_DAYS + 1))
        known = [counts[d] for d in before if counts.get(d)]
        if len(known) >= USUAL_MIN_DAYS:
            ratio = counts[day] / median(known)
            if not 1 / UNUSUAL < ratio < UNUSUAL:
                found[day] = ratio
    return found


def usual(unusual: Mapping[date, float]) -> dg.AssetCheckResult:
    """The outcome of a `usual_spec`."""
    return dg.AssetCheckResult(
        check_name="usual_row_count",
        passed=not unusual,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"unusual_days": {str(day): round(ratio, 2) for day, ratio in unusual.items()}},
    )
