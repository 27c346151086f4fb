"""Water in the soil under each device: a bucket a layer, vectorised over devices.

Arrays are [devices, layers]; layers are those whose middle carries a sensor. Water is in mm, water
content in m³/m³. Nothing is created or lost: storage after = storage before + rain + irrigation
- runoff - evapotranspiration - drainage.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEPTHS_CM: Final = (5, 20, 40)
THICKNESS_MM: Final[Array] = np.array([100.0, 200.0, 200.0])


@dataclass(frozen=True)
class Soil:
    """What the ground under each device is like; water contents [devices, layers] in m³/m³."""

    wilting_point: Array
    field_capacity: Array
    saturation: Array
    drainage_per_h: Array
    roots: Array
    """Share of the plants' demand that each layer meets; rows sum to 1."""
    crop_factor: Array
    """[devices]: evapotranspiration of this stand relative to the reference."""


@dataclass(frozen=True)
class Flows:
    """What crossed the borders of the soil in a step, [devices], mm."""

    runoff: Array
    evapotranspiration: Array
    drainage: Array


def draw_soil(devices: int, rng: np.random.Generator) -> Soil:
    """Soils from sandy to silty clay loam (ranges of Rawls et al. 1982), rooted differently."""
    fine = rng.uniform(0, 1, (devices, 1)) + rng.normal(0, 0.08, (devices, len(DEPTHS_CM)))
    fine = np.clip(fine, 0, 1)
    shallow = rng.uniform(0.25, 0.5, devices)
    middle = (1 - shallow) * rng.uniform(0.5, 0.75, devices)
    return Soil(
        wilting_point=0.06 + 0.13 * fine,
        field_capacity=0.20 + 0.16 * fine,
        saturation=0.42 + 0.06 * fine,
        drainage_per_h=0.35 - 0.28 * fine,
        roots=np.stack([shallow, middle, 1 - shallow - middle], axis=1),
        crop_factor=rng.uniform(0.8, 1.15, devices),
    )


def initial_water(soil: Soil, rng: np.random.Generator) -> Array:
    """Storage in mm somewhere in the upper half between wilting point and field capacity."""
    share = rng.uniform(0.5, 0.95, (len(soil.wilting_point), 1))
    span = soil.field_capacity - soil.wilting_point
    water: Array = (soil.wilting_point + share * span) * THICKNESS_MM
    return water


def content(water: Array) -> Array:
    """Volumetric water content in m³/m³ of storage in mm."""
    theta: Array = water / THICKNESS_MM
    return theta


def depletion(soil: Soil, water: Array) -> Array:
    """[devices]: 0 at field capacity, 1 at wilting point, over the root zone of 20 and 40 cm."""
    theta, full = content(water)[:, 1:].mean(axis=1), soil.field_capacity[:, 1:].mean(axis=1)
    share: Array = (full - theta) / (full - soil.wilting_point[:, 1:].mean(axis=1))
    return share


def advance(
    soil: Soil, water: Array, supply_mm: Array, demand_mm: float, hours: float
) -> tuple[Array, Flows]:
    """Storage a step later: infiltrate, drain, then transpire.

    `supply_mm` [devices] is rain and irrigation of the step, `demand_mm` its reference
    evapotranspiration.
    """
    water, runoff = _infiltrate(soil, water, supply_mm)
    water, drainage = _drain(soil, water, hours)
    water = _equalise(soil, water, hours)
    water, evapotranspiration = _transpire(soil, water, demand_mm)
    return water, Flows(runoff, evapotranspiration, drainage)


def _infiltrate(soil: Soil, water: Array, supply_mm: Array) -> tuple[Array, Array]:
    """Into the top layer until it is saturated; the rest runs off."""
    room = soil.saturation[:, 0] * THICKNESS_MM[0] - water[:, 0]
    taken = np.minimum(supply_mm, np.maximum(room, 0))
    water = water.copy()
    water[:, 0] += taken
    return water, supply_mm - taken


def _drain(soil: Soil, water: Array, hours: float) -> tuple[Array, Array]:
    """What exceeds field capacity sinks, as fast as the soil lets it and the next layer has room.

    From the bottom up, so that water sinks at most one layer a step.
    """
    water = water.copy()
    share = 1 - np.exp(-soil.drainage_per_h * hours)
    excess = np.maximum(water - soil.field_capacity * THICKNESS_MM, 0) * share
    lost = excess[:, -1]
    water[:, -1] -= lost
    for layer in reversed(range(len(DEPTHS_CM) - 1)):
        room = soil.saturation[:, layer + 1] * THICKNESS_MM[layer + 1] - water[:, layer + 1]
        sunk = np.minimum(excess[:, layer], np.maximum(room, 0))
        water[:, layer] -= sunk
        water[:, layer + 1] += sunk
    return water, lost


def _equalise(soil: Soil, water: Array, hours: float) -> Array:
    """Capillary flow from wetter to drier layers, slow: about 1 % of the difference an hour."""
    span = (soil.field_capacity - soil.wilting_point) * THICKNESS_MM
    water = water.copy()
    for layer in range(len(DEPTHS_CM) - 1):
        filled = (water - soil.wilting_point * THICKNESS_MM) / span
        difference = np.clip(filled[:, layer + 1] - filled[:, layer], -1, 1)
        flow = difference * np.minimum(span[:, layer], span[:, layer + 1]) * 0.01 * hours
        source = np.where(flow > 0, layer + 1, layer)
        rows = np.arange(len(water))
        spare = water[rows, source] - soil.wilting_point[rows, source] * THICKNESS_MM[source]
        flow = np.sign(flow) * np.minimum(np.abs(flow), np.maximum(spare, 0))
        water[:, layer] += flow
        water[:, layer + 1] -= flow
    return water


def _transpire(soil: Soil, water: Array, demand_mm: float) -> tuple[Array, Array]:
    """Plants take what they need until half of the available water is gone, then ever less."""
    available = np.maximum(water - soil.wilting_point * THICKNESS_MM, 0)
    span = (soil.field_capacity - soil.wilting_point) * THICKNESS_MM
    ease = np.clip(2 * available / span, 0, 1)
    wanted = demand_mm * soil.crop_factor[:, None] * soil.roots * ease
    taken = np.minimum(wanted, available)
    return water - taken, taken.sum(axis=1)
