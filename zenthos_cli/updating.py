"""A simulated device's whole update: asks, verifies, installs, reboots, and reports each step.

Rules:

1. What a device keeps over a restart lies in its folder, as in NVS: the versions it runs, the
   newest counter it accepted, the last report counter. A report counter is never used twice.
2. It reports downloading, installing, rebooting and success, each under the deployment that the
   answer names; a failure with its stage and reason. A deployment that it is done with is not
   reported on again.
3. It runs the new version from the reboot on; success is what it reports after that boot, with the
   hash of what it has on its flash. A version that it runs already is already-installed, and moves
   the newest counter.
4. It misbehaves only as its `Faults` say.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import httpx
import msgspec

from zenthos_cli.device import (
    CHIPS,
    SPACE_BYTES,
    TIMEOUT_S,
    UpdateError,
    _download,
    _fetch_keys,
    _get_json,
    _verify_offer,
)
from zenthos_core.errors import InvalidInputError, ZenthosError

FIRMWARE: Final = ("firmware-bundle", "esp-image")
FINAL: Final = frozenset({"success", "failure", "already-installed"})
"""What a device reports last."""

Stage = Literal["download", "install", "reboot"]


@dataclass(frozen=True)
class Faults:
    """What goes wrong on a device; by default nothing."""

    fails_at: Stage | None = None
    silent_from: str | None = None
    """The first state that it does not report, nor any after it."""

    wrong_hash: bool = False
    """It reports another hash than that of what it has."""


def updates_fail_at(stage: str | None) -> Faults:
    """Of a device that fails at a stage.

    Raises:
        InvalidInputError: for a word that is no stage.
    """
    if stage is None:
        return Faults()
    for known in get_args(Stage):
        if stage == known:
            return Faults(fails_at=known)
    raise InvalidInputError(f"no stage {stage}: take {', '.join(get_args(Stage))}")


class Kept(msgspec.Struct):
    """What lies in the device's non-volatile storage."""

    firmware_version: str | None = None
    model_version: str | None = None
    newest_counters: dict[str, int] = {}
    """By slot: `firmware` or the model's name."""

    hashes: dict[str, str] = {}
    """SHA-256 of what runs, by slot."""

    report_counter: int = 0
    done_with: int | None = None
    """The deployment of the last final report."""


@dataclass
class UpdatingDevice:
    """One device; `firmware` names the application that it takes."""

    ota_url: str
    device_id: str
    device_model: str
    token: str
    root_public_key: bytes
    folder: Path
    firmware: str = "sensor"
    faults: Faults = Faults()
    clock: Callable[[], float] = time.time
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "nvs.json"
        self.kept = msgspec.json.decode(file.read_bytes(), type=Kept) if file.exists() else Kept()

    def flash(self, version: str, binary: bytes = b"", counter: int = 0) -> None:
        """Give it firmware as the factory does: over the wire, not over the air."""
        sha256 = hashlib.sha256(binary).hexdigest()
        self.install({"version": version, "release_counter": counter, "sha256": sha256}, None)

    def update(self, model: str | None = None) -> str:
        """Ask once for firmware, or for a model by name; returns the state that it ends in.

        `idle` where nothing is offered, `silent` where its faults let it fall silent.

        Raises:
            UpdateError: where the server cannot be asked.
            ReportError: where it does not take a report.
        """
        headers = {
            "Authorization": f"Bearer {self.token}",
            "User-Agent": f"zenthos-device/{self.device_id}",
        }
        with httpx.Client(
            base_url=self.ota_url, headers=headers, timeout=TIMEOUT_S, trust_env=False
        ) as http:
            return _Update(self, http, model).run()

    def runs(self, model: str | None) -> str | None:
        """The version of its firmware, or of its model."""
        return self.kept.model_version if model else self.kept.firmware_version

    def install(self, manifest: dict[str, Any], model: str | None) -> None:
        """Rule 3: what was verified is what runs from now on."""
        slot = model or "firmware"
        self.kept.newest_counters[slot] = manifest["release_counter"]
        self.kept.hashes[slot] = manifest["sha256"]
        if model is None:
            self.kept.firmware_version = manifest["version"]
        else:
            self.kept.model_version = manifest["version"]
        self._keep()

    def count_report(self) -> int:
        """Rule 1."""
        self.kept.report_counter += 1
        self._keep()
        return self.kept.report_counter

    def finish(self, deployment: int) -> None:
        """Rule 2."""
        self.kept.done_with = deployment
        self._keep()

    def _keep(self) -> None:
        partial = self.folder / ".nvs.json"
        partial.write_bytes(msgspec.json.encode(self.kept))
        partial.replace(self.folder / "nvs.json")


class ReportError(ZenthosError):
    """The server did not take a report."""


class _SilentError(Exception):
    """The device says nothing more."""


class _Update:
    """One check-in and what follows from it."""

    def __init__(self, device: UpdatingDevice, http: httpx.Client, model: str | None) -> None:
        self._device = device
        self._http = http
        self._model = model
        slot = (
            f"models/{device.device_model}/{model}" if model else f"firmware/{device.device_model}"
        )
        self._path = f"/{slot}"
        self._deployment: int | None = None

    def run(self) -> str:
        offer = self._ask()
        if offer is None:
            return "idle"
        self._deployment = offer.get("deployment_id")
        same = offer["version"] == self._device.runs(self._model)
        if same and (self._deployment in {None, self._device.kept.done_with}):
            return "idle"
        try:
            return self._take_or_fail(offer)
        except _SilentError:
            return "silent"

    def _take_or_fail(self, offer: dict[str, Any]) -> str:
        try:
            return self._take(offer)
        except UpdateError as error:
            return self._report("failure", stage=error.stage, reason=error.reason)

    def _ask(self) -> dict[str, Any] | None:
        try:
            return _get_json(self._http, f"{self._path}/latest")
        except UpdateError as error:
            if "answered with 403" in error.reason or "answered with 404" in error.reason:
                return None
            raise

    def _take(self, offer: dict[str, Any]) -> str:
        """Rules 2 and 3."""
        device, faults = self._device, self._device.faults
        keys = _fetch_keys(self._http, device.root_public_key)
        if offer["version"] == device.runs(self._model):
            return self._have_it_already(offer, keys)
        manifest = _verify_offer(offer, keys, self._describe(), int(device.clock()))
        self._report("downloading")
        if faults.fails_at == "download":
            raise UpdateError("download", "no space left on the flash")
        query = f"?kind={manifest['kind']}&download=true" if not self._model else "?download=true"
        url = f"{self._path}/{manifest['version']}{query}"
        path, _ = _download(self._http, url, manifest, device.folder)
        self._report("installing")
        if faults.fails_at == "install":
            raise UpdateError("install", "the slot could not be written")
        self._report("rebooting")
        if faults.fails_at == "reboot":
            raise UpdateError("reboot", "the new slot did not confirm in time: back in the old one")
        device.install(manifest, self._model)
        sha256 = hashlib.sha256(path.read_bytes() + b"." * faults.wrong_hash).hexdigest()
        return self._report("success", version=manifest["version"], sha256=sha256)

    def _have_it_already(self, offer: dict[str, Any], keys: dict[str, Any]) -> str:
        """Rule 3; the hash is that of what it runs, whatever was offered under the version."""
        device, slot = self._device, self._model or "firmware"
        sha256 = device.kept.hashes.get(slot)
        if offer["release_counter"] > self._newest():
            manifest = _verify_offer(offer, keys, self._describe(), int(device.clock()))
            if manifest["sha256"] == sha256:
                device.install(manifest, self._model)
        return self._report("already-installed", version=offer["version"], sha256=sha256)

    def _describe(self) -> dict[str, Any]:
        device = self._device
        return {
            "device_model": device.device_model,
            "chip": CHIPS.get(device.device_model, device.device_model),
            "kinds": ["model"] if self._model else list(FIRMWARE),
            "name": self._model or device.firmware,
            "newest_counter": self._newest(),
            "space_bytes": SPACE_BYTES,
            "firmware_version": device.kept.firmware_version,
        }

    def _newest(self) -> int:
        return self._device.kept.newest_counters.get(self._model or "firmware", 0)

    def _report(self, state: str, **more: str | None) -> str:
        """Returns the state once the server has taken it."""
        if self._device.faults.silent_from == state:
            raise _SilentError
        if self._deployment is None:
            return state
        body = {
            "deployment_id": self._deployment,
            "report_counter": self._device.count_report(),
            "state": state,
            **{name: value for name, value in more.items() if value is not None},
        }
        try:
            answer = self._http.post(f"/devices/{self._device.device_id}/update-status", json=body)
        except httpx.TransportError as error:
            raise ReportError(f"{state}: {error or type(error).__name__}") from None
        if answer.is_error:
            raise ReportError(f"{state}: {answer.status_code}: {answer.text[:300]}")
        if state in FINAL:
            self._device.finish(self._deployment)
        return state
