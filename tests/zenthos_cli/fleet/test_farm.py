"""What a simulated farm must be like to be believed, and to be learnt from."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from zenthos_cli.fleet import soil, weather
from zenthos_cli.fleet.farm import Farm, IrrigationRule, Reading
from zenthos_core.messages import SENSOR_COLUMNS

START = 1_780_272_000
"""2026-06-01, midnight UTC."""
seeds = st.integers(0, 2**32 - 1)


def readings(seed: int, count: int, *, devices: int = 8, step_s: int = 3600) -> list[Reading]:
    return list(islice(Farm(devices, START, step_s, default_rng(seed)).readings(), count))


def series(found: list[Reading], name: str) -> np.ndarray:
    return np.array([reading.values[name] for reading in found])


@given(seeds, st.sampled_from([60, 900, 3600]))
@settings(max_examples=15, deadline=None)
def test_every_sensor_stays_within_nature(seed: int, step_s: int) -> None:
    found = readings(seed, 60, step_s=step_s)
    assert set(SENSOR_COLUMNS) < set(found[0].values)
    for name, (low, high) in {
        "soil_moisture": (0, 60),
        "soil_moisture_20cm": (0, 60),
        "soil_moisture_40cm": (0, 60),
        "temperature": (-30, 55),
        "humidity": (0, 100),
        "light_level": (0, 140_000),
        "battery_voltage": (2.8, 4.2),
        "rainfall_mm": (0, 60),
        "signal_strength": (-110, -30),
    }.items():
        values = series(found, name)
        assert np.isfinite(values).all()
        assert values.min() >= low, name
        assert values.max() <= high, name


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_the_same_seed_gives_the_same_farm(seed: int) -> None:
    for one, other in zip(readings(seed, 10), readings(seed, 10), strict=True):
        assert one.time == other.time
        assert all((one.values[name] == other.values[name]).all() for name in one.values)


def test_readings_begin_at_the_start_and_keep_the_interval() -> None:
    times = [reading.time for reading in readings(1, 5, step_s=900)]
    assert times == [START + 900 * i for i in range(5)]


@given(
    seeds,
    st.floats(0, 40),
    st.floats(0, 1.5),
    st.floats(0.01, 1),
)
@settings(max_examples=60, deadline=None)
def test_soil_neither_makes_nor_loses_water(
    seed: int, supply: float, demand: float, hours: float
) -> None:
    rng = default_rng(seed)
    ground = soil.draw_soil(5, rng)
    water = soil.initial_water(ground, rng)
    for _ in range(20):
        after, flows = soil.advance(ground, water, np.full(5, supply), demand, hours)
        out = flows.runoff + flows.evapotranspiration + flows.drainage
        np.testing.assert_allclose(water.sum(1) + supply - out, after.sum(1), atol=1e-8)
        content = soil.content(after)
        assert (content <= ground.saturation + 1e-9).all()
        assert (content >= ground.wilting_point - 1e-9).all()
        for flow in (flows.runoff, flows.evapotranspiration, flows.drainage):
            assert (flow >= 0).all()
        water = after


def test_rain_wets_the_top_and_sinks() -> None:
    rng = default_rng(3)
    ground = soil.draw_soil(20, rng)
    dry = ground.wilting_point * soil.THICKNESS_MM
    wet, _ = soil.advance(ground, dry, np.full(20, 30.0), 0.0, 1.0)
    assert (wet[:, 0] > dry[:, 0]).all()
    for _ in range(48):
        wet, _ = soil.advance(ground, wet, np.zeros(20), 0.0, 1.0)
    assert (wet[:, 1] > dry[:, 1]).all()


def test_soil_dries_between_rains() -> None:
    rng = default_rng(4)
    ground = soil.draw_soil(20, rng)
    water = ground.field_capacity * soil.THICKNESS_MM
    depletion = [soil.depletion(ground, water)]
    for _ in range(24 * 14):
        water, _ = soil.advance(ground, water, np.zeros(20), 0.25, 1.0)
        depletion.append(soil.depletion(ground, water))
    assert (np.diff(depletion, axis=0) >= -1e-9).all()
    assert (depletion[-1] > 0.3).all()


def test_days_are_warm_dry_and_bright_in_the_afternoon() -> None:
    found = readings(5, 24 * 30)
    climate = weather.Climate()
    hours = np.array([weather.local_hour(climate, reading.time) for reading in found])
    afternoon, night = (hours > 13) & (hours < 16), (hours > 2) & (hours < 5)
    mean = {name: series(found, name).mean(1) for name in found[0].values}
    assert mean["temperature"][afternoon].mean() > mean["temperature"][night].mean() + 5
    assert mean["humidity"][afternoon].mean() < mean["humidity"][night].mean() - 10
    assert mean["light_level"][night].max() == 0
    assert mean["light_level"][afternoon].mean() > 20_000
    assert np.corrcoef(mean["temperature"], mean["humidity"])[0, 1] < -0.4


@pytest.mark.parametrize(("latitude", "sign"), [(45.0, 1), (-45.0, -1)])
def test_july_is_summer_in_the_north_and_winter_in_the_south(latitude: float, sign: int) -> None:
    climate = replace(weather.Climate(), latitude=latitude, seasonal_amplitude=12.0)

    def mean_temperature(start: int) -> float:
        now, rng, total = weather.begin(climate, start), default_rng(1), 0.0
        for _ in range(24 * 20):
            now = weather.advance(climate, now, 3600, rng)
            total += now.temperature
        return total / (24 * 20)

    july, january = START + 35 * 86_400, START + 215 * 86_400
    assert sign * (mean_temperature(july) - mean_temperature(january)) > 10


@pytest.mark.parametrize("step_s", [300, 3600])
def test_rain_does_not_depend_on_the_interval(step_s: int) -> None:
    climate, rng = weather.Climate(), default_rng(11)
    now, total = weather.begin(climate, START), 0.0
    for _ in range(365 * 86_400 // step_s):
        now = weather.advance(climate, now, step_s, rng)
        total += now.rain_mm
    assert 350 < total < 1_500


def test_irrigation_waters_a_dry_farm_by_its_rule() -> None:
    farm = Farm(6, START, 3600, default_rng(2), rule=IrrigationRule(attention=1.0, depletion=0.3))
    found = list(islice(farm.readings(), 24 * 60))
    events = [(i, r.irrigation) for i, r in enumerate(found) if r.irrigation is not None]
    assert events
    moisture = series(found, "soil_moisture").mean(1)
    for i, event in events:
        assert event.time == found[i].time
        assert event.water_volume_liters == pytest.approx(28.0 * 20_000)
        hour = weather.local_hour(farm.climate, event.time)
        assert 5 <= hour < 6
    i = events[0][0]
    assert moisture[i + 4] > moisture[i - 1] + 3


def test_depletion_a_day_ahead_can_be_learnt_but_is_not_told_by_the_top_layer_alone() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    week, day = 24 * 7, 24
    found = readings(7, 24 * 150, devices=16)
    top, rain = series(found, "soil_moisture"), series(found, "rainfall_mm")
    warm = series(found, "temperature")
    root = (series(found, "soil_moisture_20cm") + series(found, "soil_moisture_40cm")) / 2
    full, empty = np.percentile(root, 75, axis=0), np.percentile(root, 1, axis=0)
    needs_water = (full - root) / (full - empty) > 0.5

    def mean(values: np.ndarray, hours: int) -> np.ndarray:
        total = np.vstack([np.zeros((1, values.shape[1])), values.cumsum(0)])
        return ((total[hours:] - total[:-hours]) / hours)[week - hours : -day]

    baseline = mean(top, week)
    features = np.stack(
        [baseline, mean(top, day), baseline - mean(top, day), mean(rain, week), mean(warm, week)]
    ).transpose(1, 2, 0)
    label = needs_water[week - 1 + day :]
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(features[:, :12].reshape(-1, 5), label[:, :12].ravel())
    score = model.predict_proba(features[:, 12:].reshape(-1, 5))[:, 1]
    told = roc_auc_score(label[:, 12:].ravel(), -baseline[:, 12:].ravel())
    learnt = roc_auc_score(label[:, 12:].ravel(), score)
    assert 0.1 < label.mean() < 0.9
    assert told < 0.92
    assert learnt > max(told, 0.8)
