"""A farm in motion: shared weather, soil and batteries of its devices, and irrigation by rule."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from zenthos_cli.fleet import sensors, soil, weather
from zenthos_cli.fleet.soil import Array

LONGEST_STEP_S: Final = 3600
WARM_UP_DAYS: Final = 20
"""After as long, the soil has forgotten how it was drawn."""


@dataclass(frozen=True)
class IrrigationRule:
    """Water at dawn where the root zone is dry; the farmer attends to it on some days only."""

    depletion: float = 0.55
    """Mean over the devices at which it fires; 0 is field capacity, 1 wilting point."""
    hour: float = 5.0
    attention: float = 0.4
    amount_mm: float = 28.0
    duration_minutes: int = 150
    area_m2: float = 20_000.0


@dataclass(frozen=True)
class Irrigation:
    """One event of irrigation, as written to irrigation_events."""

    time: float
    duration_minutes: int
    water_volume_liters: float
    triggered_by: str = "simulated-rule"


@dataclass(frozen=True)
class Reading:
    """All sensors of all devices at `time`; `irrigation` where one began in this step."""

    time: float
    values: dict[str, Array]
    irrigation: Irrigation | None


class Farm:
    """Steps through time; the same seed gives the same farm."""

    def __init__(
        self,
        devices: int,
        start: float,
        step_s: int,
        rng: np.random.Generator,
        *,
        climate: weather.Climate | None = None,
        rule: IrrigationRule | None = None,
    ) -> None:
        """First reading at `start` (epoch seconds), then one every `step_s` seconds."""
        if not 1 <= step_s <= LONGEST_STEP_S:
            raise ValueError(f"a step has 1 to {LONGEST_STEP_S} seconds, not {step_s}")
        self.climate = climate or weather.Climate()
        self.rule = rule or IrrigationRule()
        self.soil = soil.draw_soil(devices, rng)
        self.hardware = sensors.draw_hardware(devices, rng)
        self.water = soil.initial_water(self.soil, rng)
        self.charge = rng.uniform(0.6, 1.0, devices)
        self._step_s = step_s
        self._rng = rng
        self._irrigated_until = float("-inf")
        self._checked_day = -1
        self.weather = weather.begin(self.climate, start - WARM_UP_DAYS * weather.DAY_S)
        while (left_s := start - step_s - self.weather.time) > 0:
            self._advance(min(LONGEST_STEP_S, left_s))

    def readings(self) -> Iterator[Reading]:
        """Readings without end."""
        while True:
            irrigation = self._advance(self._step_s)
            values = sensors.read(
                self.hardware,
                self.weather,
                self.water,
                self.charge,
                self._rng,
            )
            yield Reading(self.weather.time, values, irrigation)

    def _advance(self, step_s: float) -> Irrigation | None:
        self.weather = weather.advance(self.climate, self.weather, step_s, self._rng)
        irrigation = self._irrigate()
        supply = self.weather.rain_mm + self._watered(step_s)
        self.water, _ = soil.advance(
            self.soil,
            self.water,
            np.full(len(self.charge), supply),
            self.weather.evapotranspiration_mm,
            step_s / 3600,
        )
        self.charge = sensors.charge_after(self.charge, self.hardware, self.weather, step_s / 3600)
        return irrigation

    def _irrigate(self) -> Irrigation | None:
        """Decide once a day, at the first step after the rule's hour."""
        now, rule = self.weather.time, self.rule
        day = int((now + self.climate.longitude * 240 - rule.hour * 3600) // weather.DAY_S)
        if day == self._checked_day:
            return None
        self._checked_day = day
        attentive = self._rng.random() < rule.attention
        dry = soil.depletion(self.soil, self.water).mean() > rule.depletion
        if not (attentive and dry and not self.weather.wet):
            return None
        self._irrigated_until = now + rule.duration_minutes * 60
        return Irrigation(now, rule.duration_minutes, rule.amount_mm * rule.area_m2)

    def _watered(self, step_s: float) -> float:
        """mm that the sprinklers gave in the step that just ended."""
        rule, now = self.rule, self.weather.time
        began = self._irrigated_until - rule.duration_minutes * 60
        seconds = min(now, self._irrigated_until) - max(now - step_s, began)
        return rule.amount_mm * max(0.0, seconds) / (rule.duration_minutes * 60)
