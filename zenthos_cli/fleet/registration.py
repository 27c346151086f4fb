"""Registers farm and devices through ota_api; keeps their tokens for the next run."""

import asyncio
import os
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from zenthos_core.errors import ConfigurationError

CONCURRENT_REQUESTS = 16
MIN_TOKEN_LIFE_S = 24 * 3600


@dataclass(frozen=True)
class NewDevice:
    """What the registry is told of a device."""

    device_id: str
    device_model: str
    device_type: str
    latitude: float | None = None
    longitude: float | None = None


class Registered(msgspec.Struct):
    """A farm and its devices' tokens, as kept on disk."""

    farm_id: str
    tokens: dict[str, str] = {}


async def register_fleet(
    ota_url: str,
    admin_token: str,
    farm: Mapping[str, object],
    devices: Iterable[NewDevice],
    cache_folder: Path,
) -> Registered:
    """Farm id and a valid token for each device; asks only for what is missing.

    Raises:
        ConfigurationError: where ota_api cannot be reached or refuses.
    """
    headers = {"Authorization": f"Bearer {admin_token}"}
    async with httpx.AsyncClient(base_url=ota_url, headers=headers, timeout=30) as client:
        farm_id = str((await _post(client, "/farms", farm))["id"])
        path = cache_folder / f"{farm_id}.json"
        fleet = _read(path, farm_id)
        missing = [d for d in devices if not _still_valid(fleet.tokens.get(d.device_id, ""))]
        if missing:
            await _register(client, fleet, missing)
            _write(path, fleet)
    return fleet


async def _register(client: httpx.AsyncClient, fleet: Registered, devices: list[NewDevice]) -> None:
    gate = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def register(device: NewDevice) -> None:
        body: dict[str, object] = {
            "device_id": device.device_id,
            "device_model": device.device_model,
            "device_type": device.device_type,
            "farm_id": fleet.farm_id,
        }
        if device.latitude is not None and device.longitude is not None:
            body["location"] = {"lat": device.latitude, "lon": device.longitude}
        async with gate:
            answer = await _post(client, "/devices/register", body)
        fleet.tokens[device.device_id] = str(answer["jwt_token"])

    try:
        async with asyncio.TaskGroup() as group:
            for device in devices:
                group.create_task(register(device))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _post(
    client: httpx.AsyncClient, path: str, body: Mapping[str, object]
) -> dict[str, object]:
    try:
        response = await client.post(path, json=body)
    except httpx.HTTPError as error:
        raise ConfigurationError(
            f"cannot reach ota_api at {client.base_url}: {error or type(error).__name__}; "
            "start the stack with `zenthos up`"
        ) from None
    if response.is_error:
        raise ConfigurationError(
            f"ota_api refused POST {path} ({response.status_code}): {response.text[:300]}"
        )
    return msgspec.json.decode(response.content, type=dict[str, object])


def _still_valid(token: str, now: float | None = None) -> bool:
    """Whether a token lasts for another day; its signature is the broker's to check."""
    try:
        _, claims, _ = token.split(".")
        text = urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        expires = float(msgspec.json.decode(text)["exp"])
    except (ValueError, KeyError, msgspec.DecodeError):
        return False
    return expires > (time.time() if now is None else now) + MIN_TOKEN_LIFE_S


def _read(path: Path, farm_id: str) -> Registered:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Registered)
    except FileNotFoundError:
        return Registered(farm_id)
    except msgspec.DecodeError:
        raise ConfigurationError(f"{path} is damaged: delete it and run again") from None


def _write(path: Path, fleet: Registered) -> None:
    """Readable by the owner alone: the tokens are passwords."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(fleet)))
    temporary.replace(path)
