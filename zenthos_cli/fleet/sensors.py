"""What the devices read of weather and soil, and how their batteries fare; vectorised over devices.

Arrays are [devices].
"""

from dataclasses import dataclass

import numpy as np

from zenthos_cli.fleet.soil import DEPTHS_CM, Array, content
from zenthos_cli.fleet.weather import Weather

LOAD_PER_H = 0.0022
"""Share of the battery an hour: a 2,000 mAh cell and 4.4 mA on average."""
SOLAR_PER_H = 0.02
"""Share of the battery an hour of 1,000 W/m²: a panel of about 0.2 W behind a linear charger."""


@dataclass(frozen=True)
class Hardware:
    """How each device differs from a perfect one."""

    temperature_offset: Array
    shade: Array
    """Share of the light that reaches the sensor."""
    soil_offset: Array
    """[devices, layers], percentage points."""
    path_loss_dbm: Array
    load: Array
    """Consumption relative to LOAD_PER_H."""


def draw_hardware(devices: int, rng: np.random.Generator) -> Hardware:
    """Sensors and places of a fleet."""
    return Hardware(
        temperature_offset=rng.normal(0, 0.4, devices),
        shade=rng.uniform(0.6, 1.0, devices),
        soil_offset=rng.normal(0, 0.8, (devices, len(DEPTHS_CM))),
        path_loss_dbm=rng.uniform(-84, -55, devices),
        load=rng.uniform(0.8, 1.3, devices),
    )


def charge_after(charge: Array, hardware: Hardware, weather: Weather, hours: float) -> Array:
    """State of charge (0 to 1) after a step of sun and consumption."""
    gain = SOLAR_PER_H * hardware.shade * weather.radiation_w_m2 / 1000
    return np.clip(charge + (gain - LOAD_PER_H * hardware.load) * hours, 0.02, 1.0)


def battery_voltage(charge: Array, temperature: float) -> Array:
    """Of a lithium-ion cell: a flat middle with steep ends, and lower in the cold."""
    ends = 0.08 * np.log(charge / (1.02 - charge))
    cold = 0.004 * max(0.0, 20.0 - temperature)
    return np.clip(3.72 + 0.25 * (charge - 0.5) + ends - cold, 2.8, 4.2)


def read(
    hardware: Hardware,
    weather: Weather,
    water: Array,
    charge: Array,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """One reading of every sensor of every device, by its name on the wire, rounded as sent.

    Rain is what fell since the last reading; `signal_strength` (dBm) is among them.
    """
    n = len(charge)
    soil = 100 * content(water) + hardware.soil_offset + rng.normal(0, 0.15, (n, len(DEPTHS_CM)))
    soil = np.clip(soil, 0, 100).round(2)
    temperature = weather.temperature + hardware.temperature_offset + rng.normal(0, 0.15, n)
    humidity = np.clip(weather.humidity + rng.normal(0, 1.2, n), 0, 100)
    light = weather.light_lux * hardware.shade * np.exp(rng.normal(0, 0.03, n))
    rssi = hardware.path_loss_dbm + rng.normal(0, 2.5, n) - (3 if weather.wet else 0)
    gauge = weather.rain_mm * np.clip(rng.normal(1, 0.05, n), 0, None)
    return {
        "soil_moisture": soil[:, 0],
        "temperature": temperature.round(2),
        "humidity": humidity.round(1),
        "light_level": light.round(0),
        "battery_voltage": (battery_voltage(charge, weather.temperature)).round(3),
        "rainfall_mm": gauge.round(2),
        "soil_moisture_20cm": soil[:, 1],
        "soil_moisture_40cm": soil[:, 2],
        "signal_strength": np.clip(rssi, -110, -30).round(0),
    }
