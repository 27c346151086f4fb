"""Do the gold tables hold what silver holds?"""

import dagster as dg
import polars as pl

from ml.features import FEATURES

HOURLY_KEY = dg.AssetKey(["gold", "telemetry_hourly"])
DAILY_KEY = dg.AssetKey(["gold", "telemetry_daily"])
FEATURES_KEY = dg.AssetKey(["gold", "ml_features"])
RECONCILES = "reconciles_with_silver"
VALID = "features_valid"

FEATURE_RANGES = {
    "soil_7d_avg": (0.0, 100.0),
    "soil_7d_stddev": (0.0, 100.0),
    "temp_7d_avg": (-40.0, 60.0),
    "soil_trend_slope": (-100.0, 100.0),
    "temp_variability": (0.0, 30.0),
    "days_since_irrigation": (0.0, 30.0),
    "days_since_rain": (0.0, 30.0),
}


def reconciles_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Blocking: the samples behind the rollups are the readings of silver."""
    return dg.AssetCheckSpec(
        RECONCILES,
        asset=asset,
        blocking=True,
        description="Samples in the analytical database are the readings in silver.",
    )


def reconciles(samples: int, readings: int) -> dg.AssetCheckResult:
    """The outcome of `reconciles_spec`."""
    return dg.AssetCheckResult(
        check_name=RECONCILES,
        passed=samples == readings,
        metadata={"samples_in_gold": samples, "readings_in_silver": readings},
    )


FEATURES_SPEC = dg.AssetCheckSpec(
    VALID,
    asset=FEATURES_KEY,
    blocking=True,
    description="One row per device and day, every value in its range.",
)


def features_valid(features: pl.DataFrame) -> dg.AssetCheckResult:
    """The outcome of FEATURES_SPEC."""
    repeated = features.select("device_id", "date").is_duplicated().sum()
    outside = {
        name: features.filter(~pl.col(name).is_between(*FEATURE_RANGES[name])).height
        for name in FEATURES
    }
    return dg.AssetCheckResult(
        check_name=VALID,
        passed=not repeated and not any(outside.values()),
        metadata={"repeated_rows": int(repeated), "out_of_range": outside},
    )
