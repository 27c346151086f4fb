"""What sensors can plausibly say."""

from typing import Final

PLAUSIBLE: Final[dict[str, tuple[float, float]]] = {
    "soil_moisture": (0, 100),
    "soil_moisture_20cm": (0, 100),
    "soil_moisture_40cm": (0, 100),
    "temperature": (-40, 60),
    "humidity": (0, 100),
    "light_level": (0, 200_000),
    "battery_voltage": (0, 30),
    "rainfall_mm": (0, 60),
}
"""%, °C, %RH, lux, V, mm. More than 60 mm between two readings is a gauge's fault."""
