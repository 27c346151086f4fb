"""The rollout that a publication begins by itself."""

from datetime import datetime
from uuid import UUID

from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.schemas import DEFAULT_TIMEOUT_S


async def begin_implicit(
    rollouts: RolloutRepository,
    release_id: UUID,
    device_models: list[str],
    percentage: float,
    *,
    by: str,
    now: datetime,
) -> None:
    """To that percentage of each device model at once; none for 0: an operator creates one."""
    if percentage <= 0:
        return
    for device_model in device_models:
        await rollouts.insert(
            {
                "release_id": release_id,
                "device_model": device_model,
                "phases": [float(percentage)],
                "success_threshold": 0.9,
                "error_threshold": 0.1,
                "min_devices": 1,
                "timeout_s": DEFAULT_TIMEOUT_S,
                "state": "running",
                "created_by": by,
                "created_at": now,
                "started_at": now,
                "phase_started_at": now,
            }
        )
