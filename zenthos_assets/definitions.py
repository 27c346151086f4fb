"""The code location. Built by a function that tests call with other resources."""

import dagster as dg

from zenthos_assets.automation import JOBS, SCHEDULES, SENSORS
from zenthos_assets.bronze.assets import BRONZE_ASSETS, MQTT_STREAM
from zenthos_assets.bronze.checks import bronze_checks
from zenthos_assets.bronze.telemetry_days import TELEMETRY_DAYS
from zenthos_assets.executors import executor_for
from zenthos_assets.gold.assets import (
    IRRIGATION_EVENTS,
    ml_features,
    telemetry_daily,
    telemetry_hourly,
)
from zenthos_assets.gold.farm_assets import irrigation_response, telemetry_trends, weather_daily
from zenthos_assets.gold.history_assets import telemetry_historical
from zenthos_assets.governance import RETRIES, governed
from zenthos_assets.maintenance.assets import MAINTENANCE_ASSETS
from zenthos_assets.models.assets import irrigation_model, irrigation_model_tflite, training_set
from zenthos_assets.release.assets import model_release
from zenthos_assets.resources import Platform
from zenthos_assets.rollouts.decisions import ROLLOUTS
from zenthos_assets.silver.assets import silver_assets
from zenthos_assets.silver.checks import freshness
from zenthos_core.settings import load_settings


def build_definitions(
    platform: Platform,
    *,
    shards: int = 1,
    retries: dg.RetryPolicy | None = None,
    executor: dg.ExecutorDefinition = dg.in_process_executor,
) -> dg.Definitions:
    """Every asset, check, job, schedule and sensor, on a platform."""
    definitions = dg.Definitions(
        assets=[
            MQTT_STREAM,
            IRRIGATION_EVENTS,
            *BRONZE_ASSETS,
            TELEMETRY_DAYS,
            *silver_assets(shards),
            telemetry_hourly,
            telemetry_daily,
            ml_features,
            weather_daily,
            irrigation_response,
            telemetry_trends,
            telemetry_historical,
            training_set,
            irrigation_model,
            irrigation_model_tflite,
            model_release,
            ROLLOUTS,
            *MAINTENANCE_ASSETS,
        ],
        asset_checks=[bronze_checks, freshness],
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={"platform": platform},
        executor=executor,
    )
    return governed(definitions, retries)


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads; what is not of the graph's shape is read when an asset runs."""
    settings = load_settings()
    executor = executor_for(settings)
    return build_definitions(Platform(), shards=settings.shards, retries=RETRIES, executor=executor)
