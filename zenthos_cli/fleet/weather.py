"""Weather of one farm, step by step: pure, with the random generator handed in.

Correct in kind rather than in detail: days are warm at three in the afternoon, summers in July
(January south of the equator), clouds dim the light and damp the swing of temperature, rain comes
in spells, and relative humidity follows from temperature and dew point.
"""

from dataclasses import dataclass, replace
from math import asin, cos, exp, pi, radians, sin, sqrt
from typing import Final

import numpy as np

DAY_S: Final = 86_400
YEAR_DAYS: Final = 365.25
LUX_PER_W_M2: Final = 120.0
"""Luminous efficacy of daylight, 105 to 130 lm/W (Littlefair 1985)."""
SOLAR_CONSTANT_W_M2: Final = 1361.0
LATENT_HEAT_MJ_KG: Final = 2.45


@dataclass(frozen=True)
class Climate:
    """What a place is like over the years. Temperatures in °C, spells in hours, rain in mm/h.

    The default is like the Bajío of Mexico: warm and semi-arid, so that soil dries in any month.
    """

    latitude: float = 20.6
    longitude: float = -100.4
    mean_temperature: float = 19.0
    seasonal_amplitude: float = 5.0
    diurnal_amplitude: float = 8.0
    dry_spell_h: float = 110.0
    wet_spell_h: float = 5.0
    rain_intensity: float = 2.0
    rain_shape_per_h: float = 0.8


@dataclass(frozen=True)
class Weather:
    """Weather at `time` (epoch seconds); `rain_mm` fell since the step before."""

    time: float
    temperature: float
    humidity: float
    radiation_w_m2: float
    rain_mm: float
    evapotranspiration_mm: float
    cloud: float
    wet: bool
    anomaly: float

    @property
    def light_lux(self) -> float:
        """Illuminance of a sensor that sees the whole sky."""
        return self.radiation_w_m2 * LUX_PER_W_M2


def begin(climate: Climate, time: float) -> Weather:
    """A dry, fair start; a few days later nothing remembers it."""
    blank = Weather(time, climate.mean_temperature, 60.0, 0.0, 0.0, 0.0, 0.3, False, 0.0)
    return replace(blank, radiation_w_m2=_radiation(climate, time, blank.cloud))


def advance(climate: Climate, before: Weather, step_s: float, rng: np.random.Generator) -> Weather:
    """The weather `step_s` seconds (at most an hour) later."""
    time, hours = before.time + step_s, step_s / 3600
    wet = _next_spell(climate, before.wet, hours, rng)
    cloud = float(
        np.clip(
            _drift(before.cloud, hours, rng, mean=0.9 if wet else 0.3, spread=0.12, memory_h=6),
            0,
            1,
        )
    )
    anomaly = _drift(before.anomaly, hours, rng, mean=0.0, spread=3.0, memory_h=72)
    radiation = _radiation(climate, time, cloud)
    temperature = _temperature(climate, time, cloud) + anomaly - (2.0 if wet else 0.0)
    shape = climate.rain_shape_per_h * hours
    rain = float(rng.gamma(shape, climate.rain_intensity / climate.rain_shape_per_h)) if wet else 0
    return Weather(
        time=time,
        temperature=temperature,
        humidity=_humidity(temperature, _dew_point(climate, time, cloud) + anomaly),
        radiation_w_m2=radiation,
        rain_mm=rain,
        evapotranspiration_mm=_evapotranspiration(temperature, radiation, step_s),
        cloud=cloud,
        wet=wet,
        anomaly=anomaly,
    )


def local_hour(climate: Climate, time: float) -> float:
    """Hour of the day by the sun, 12 when it stands highest."""
    return (time / 3600 + climate.longitude / 15) % 24


def _next_spell(climate: Climate, wet: bool, hours: float, rng: np.random.Generator) -> bool:
    """Two-state Markov chain; the mean length of a spell does not depend on the step."""
    mean_h = climate.wet_spell_h if wet else climate.dry_spell_h
    return wet != bool(rng.random() < 1 - exp(-hours / mean_h))


def _drift(
    value: float,
    hours: float,
    rng: np.random.Generator,
    *,
    mean: float,
    spread: float,
    memory_h: float,
) -> float:
    """An Ornstein-Uhlenbeck step: back to `mean` in `memory_h`, standard deviation `spread`."""
    keep = exp(-hours / memory_h)
    return mean + (value - mean) * keep + spread * sqrt(1 - keep**2) * float(rng.standard_normal())


def _year_angle(time: float, peak_day: float) -> float:
    return 2 * pi * ((time / DAY_S) % YEAR_DAYS - peak_day) / YEAR_DAYS


def _radiation(climate: Climate, time: float, cloud: float) -> float:
    """Global radiation in W/m²: clear sky as in Meinel 1976, clouds as in Kasten & Czeplak 1980."""
    declination = radians(23.44) * cos(_year_angle(time, 172))
    latitude = radians(climate.latitude)
    hour_angle = radians(15 * (local_hour(climate, time) - 12))
    height = sin(latitude) * sin(declination)
    height += cos(latitude) * cos(declination) * cos(hour_angle)
    if height <= 0:
        return 0.0
    air_mass = 1 / (height + 0.50572 * (asin(height) * 180 / pi + 6.07995) ** -1.6364)
    clear = SOLAR_CONSTANT_W_M2 * 0.7 ** (air_mass**0.678) * height
    return float(clear * (1 - 0.75 * cloud**3.4))


def _season(climate: Climate, time: float) -> float:
    """-1 in the depth of winter, 1 in high summer."""
    return cos(_year_angle(time, 200)) * (1 if climate.latitude >= 0 else -1)


def _temperature(climate: Climate, time: float, cloud: float) -> float:
    swing = climate.diurnal_amplitude * (1 - 0.5 * cloud)
    daily = swing * cos(2 * pi * (local_hour(climate, time) - 15) / 24)
    return climate.mean_temperature + climate.seasonal_amplitude * _season(climate, time) + daily


def _dew_point(climate: Climate, time: float, cloud: float) -> float:
    """Near the night's temperature; closer to the day's where it is overcast."""
    mean = climate.mean_temperature + climate.seasonal_amplitude * _season(climate, time)
    return mean - (1 - 0.7 * cloud) * (climate.diurnal_amplitude + 2)


def _humidity(temperature: float, dew_point: float) -> float:
    """Relative humidity in %, Magnus formula (Alduchov & Eskridge 1996)."""
    saturation = _vapour_pressure(temperature)
    return float(np.clip(100 * _vapour_pressure(dew_point) / saturation, 5, 100))


def _vapour_pressure(temperature: float) -> float:
    return 6.1094 * exp(17.625 * temperature / (temperature + 243.04))


def _evapotranspiration(temperature: float, radiation_w_m2: float, step_s: float) -> float:
    """Reference evapotranspiration in mm over the step (Hargreaves 1975)."""
    radiation_mm = radiation_w_m2 * step_s / 1e6 / LATENT_HEAT_MJ_KG
    return max(0.0, 0.0135 * (temperature + 17.8) * radiation_mm)
