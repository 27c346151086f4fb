"""From a prediction back to the readings behind it.

1. Its inputs were made on the device, of what the device had measured: at most its readings of the
   seven days up to the prediction.
2. Its model is the release that the device named, for the device's model; the release's signed
   manifest names the training set.
3. The training set was made of the readings that ota_api/lineage/partitions.py has for its days.
"""

from datetime import date, timedelta
from uuid import UUID

from psycopg import AsyncConnection

from ota_api.lineage import repository
from ota_api.lineage.partitions import WINDOW_DAYS, TrainingDays, readings_behind
from ota_api.lineage.schemas import (
    BronzeObject,
    Days,
    PredictingRelease,
    Prediction,
    PredictionTrace,
    Readings,
)
from zenthos_core.errors import ConflictError, NotFoundError


async def trace_prediction(
    connection: AsyncConnection, message_id: UUID, device_id: str | None
) -> PredictionTrace:
    """Rules 1 to 3.

    Raises:
        NotFoundError: where there is no such prediction.
        ConflictError: where several devices have used that message id.
    """
    found = await repository.find_predictions(connection, message_id, device_id)
    if not found:
        raise NotFoundError(f"no prediction {message_id}: its id is that of the device's message")
    prediction = Prediction.model_validate(found[0])
    if len({row["device_id"] for row in found}) > 1:
        raise ConflictError(f"several devices have a prediction {message_id}: add ?device_id=")
    row = await repository.release_of(connection, prediction.device_id, prediction.model_version)
    training = None
    if row is not None:
        training = TrainingDays.parse(row["lineage"].get("dataset_partitions"))
    return PredictionTrace(
        prediction=prediction,
        release=PredictingRelease.model_validate(row) if row else None,
        inputs=await _inputs(connection, prediction),
        training=await _training(connection, training) if training else None,
    )


async def _inputs(connection: AsyncConnection, prediction: Prediction) -> Readings:
    """Rule 1."""
    last = prediction.time.date()
    first = last - timedelta(days=WINDOW_DAYS)
    device = prediction.device_id
    history = (
        f"/devices/{device}/history?start={first}T00:00:00Z"
        f"&end={last + timedelta(days=1)}T00:00:00Z&resolution=raw"
    )
    export = f"/export/silver/telemetry_cleaned?from={first}&to={last}&device={device}"
    return await _readings(connection, first, last, [history, export])


async def _training(connection: AsyncConnection, training: TrainingDays) -> Readings:
    """Rule 3."""
    first, last = readings_behind(training)
    features = f"/export/gold/ml_features?from={training.first}&to={training.last}"
    return await _readings(
        connection,
        first,
        last,
        [features, f"/export/silver/telemetry_cleaned?from={first}&to={last}"],
    )


async def _readings(
    connection: AsyncConnection, first: date, last: date, links: list[str]
) -> Readings:
    archived, objects, some = await repository.archived(connection, first, last)
    return Readings(
        days=Days(first=first, last=last),
        archived=archived,
        objects=objects,
        first_objects=[BronzeObject.model_validate(row) for row in some],
        links=links,
    )
