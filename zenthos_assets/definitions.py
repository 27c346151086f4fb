"""The code location. Built by a function that tests call with other resources."""

import dagster as dg

from zenthos_assets.automation import JOBS, SCHEDULES, SENSORS
from zenthos_assets.bronze.assets import BRONZE_ASSETS, MQTT_STREAM
from zenthos_assets.bronze.checks import bronze_checks
from zenthos_assets.bronze.telemetry_days import TELEMETRY_DAYS
from zenthos_assets.gold.assets import (
    IRRIGATION_EVENTS,
    ml_features,
    telemetry_daily,
    telemetry_hourly,
)
from zenthos_assets.models.assets import irrigation_model, irrigation_model_tflite, training_set
from zenthos_assets.release.assets import model_release
from zenthos_assets.resources import Platform
from zenthos_assets.silver.assets import telemetry_cleaned


def build_definitions(platform: Platform) -> dg.Definitions:
    """Every asset, check, job, schedule and sensor, on a platform."""
    return dg.Definitions(
        assets=[
            MQTT_STREAM,
            IRRIGATION_EVENTS,
            *BRONZE_ASSETS,
            TELEMETRY_DAYS,
            telemetry_cleaned,
            telemetry_hourly,
            telemetry_daily,
            ml_features,
            training_set,
            irrigation_model,
            irrigation_model_tflite,
            model_release,
        ],
        asset_checks=[bronze_checks],
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={"platform": platform},
        # the multiprocess default takes 20 s where this takes 0.4
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads; settings are read when an asset runs."""
    return build_definitions(Platform())
