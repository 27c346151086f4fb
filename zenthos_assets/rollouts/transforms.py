"""The data quality of updated devices beside that of others; values in, values out.

1. A device should have sent a reading in each interval since its beginning, but the last, which
   may be on its way. Missing are those that have not come, or the numbers that its own counter
   skipped, whichever is more; a counter that goes back was reset and skipped nothing.
2. A counter cannot skip more than the device should have sent.
3. `gap_rate` is the share of missing readings in all that a cohort should have sent;
   `range_violation_rate` that of readings with a value out of the ranges of silver.
4. `battery_drop_v_per_day` is the median of the devices' slopes, each over six hours at least:
   noise of 10 mV in readings of a minute is a slope of 7 mV a day then, and of 100 in an hour.
5. `inference_confidence` is the mean of all predictions.
6. There is nothing to compare while a cohort has no device, or should have sent nothing yet.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

SHORTEST_SLOPE_S: Final = 6 * 3600.0


@dataclass(frozen=True)
class Measured:
    """What a device has sent since its beginning: its update, or the start of the window."""

    device_id: str
    seconds: float
    interval_s: float | None
    """Between its reports, as registered or else as seen; None where neither is known."""

    readings: int
    missing_seq: int
    violations: int
    """Readings with a value out of range."""

    slope_v_per_day: float | None
    slope_s: float
    """Seconds from the first battery reading to the last."""

    predictions: int
    confidence: float | None
    """Mean of the predictions."""


@dataclass(frozen=True)
class Cohort:
    """Devices taken together; a side of the comparison as the OTA server takes it."""

    devices: int
    readings: int
    gap_rate: float
    range_violation_rate: float
    battery_drop_v_per_day: float | None
    inference_confidence: float | None


@dataclass(frozen=True)
class Quality:
    """Both sides over the same time; the evidence of an evaluation."""

    measured_at: int
    window_s: int
    updated: Cohort
    control: Cohort

    def body(self) -> dict[str, Any]:
        """As `POST /rollouts/{id}/evaluate` takes it."""
        return {"quality": asdict(self)}


def compare(
    updated: Sequence[Measured], control: Sequence[Measured], *, now: float, window_s: float
) -> Quality | None:
    """Rules 1 to 6; None where there is nothing to compare yet."""
    if not _is_telling(updated) or not _is_telling(control):
        return None
    return Quality(round(now), round(window_s), summarise(updated), summarise(control))


def summarise(devices: Sequence[Measured]) -> Cohort:
    """Rules 3 to 5."""
    readings = sum(device.readings for device in devices)
    missing = sum(missing_readings(device) for device in devices)
    predictions = sum(device.predictions for device in devices)
    confidence = sum((device.confidence or 0) * device.predictions for device in devices)
    slopes = [
        device.slope_v_per_day
        for device in devices
        if device.slope_v_per_day is not None and device.slope_s >= SHORTEST_SLOPE_S
    ]
    return Cohort(
        devices=len(devices),
        readings=readings,
        gap_rate=_share(missing, readings + missing),
        range_violation_rate=_share(sum(device.violations for device in devices), readings),
        battery_drop_v_per_day=-median(slopes) if slopes else None,
        inference_confidence=confidence / predictions if predictions else None,
    )


def missing_readings(device: Measured) -> int:
    """Rules 1 and 2."""
    if device.interval_s is None:
        return device.missing_seq
    due = max(0, int(device.seconds / device.interval_s) - 1)
    return max(due - device.readings, min(device.missing_seq, due), 0)


def _is_telling(devices: Sequence[Measured]) -> bool:
    return any(device.readings or missing_readings(device) for device in devices)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
