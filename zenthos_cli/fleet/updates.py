"""Simulated devices that ask for updates while they send readings, and send as what they run."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from zenthos_cli.device import UpdateError
from zenthos_cli.fleet.messages import Device
from zenthos_cli.updating import Faults, ReportError, UpdatingDevice
from zenthos_core.settings import Settings
from zenthos_core.signing import read_key

MODEL = "irrigation"


class FleetUpdates:
    """Each device asks once in `every_s` seconds, one after the other."""

    def __init__(self, devices: Mapping[str, UpdatingDevice], every_s: float) -> None:
        self._devices = devices
        self._pause_s = every_s / len(devices)
        self.outcomes: Counter[str] = Counter()
        """How often which state came of asking; `refused` where the server did not answer."""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            for device in self._devices.values():
                await asyncio.sleep(self._pause_s)
                for model in (None, MODEL):
                    self.outcomes[await asyncio.to_thread(self._ask, device, model)] += 1

    def speaking(self, device: Device) -> Device:
        """The device as what it runs now."""
        kept = self._devices[device.device_id].kept
        return device._replace(
            firmware_version=kept.firmware_version, model_version=kept.model_version
        )

    @staticmethod
    def _ask(device: UpdatingDevice, model: str | None) -> str:
        try:
            return device.update(model)
        except (UpdateError, ReportError):
            return "refused"


def make_updates(
    settings: Settings,
    devices: Mapping[str, Device],
    tokens: Mapping[str, str],
    every_s: float,
    faults: Faults,
) -> FleetUpdates:
    """The devices, with what they kept of earlier runs in ZENTHOS_HOME."""
    root = read_key(settings.root_public_key_file)
    return FleetUpdates(
        {
            device_id: _made(settings, device, tokens[device_id], root, faults)
            for device_id, device in devices.items()
        },
        every_s,
    )


def _made(
    settings: Settings, device: Device, token: str, root: bytes, faults: Faults
) -> UpdatingDevice:
    folder: Path = settings.home / "fleet" / "flash" / device.device_id
    made = UpdatingDevice(
        settings.ota_url, device.device_id, device.device_model, token, root, folder, faults=faults
    )
    if made.runs(None) is None and device.firmware_version is not None:
        made.flash(device.firmware_version)
    return made
