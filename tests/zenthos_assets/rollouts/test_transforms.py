"""Rules of zenthos_assets/rollouts/transforms.py, by number."""

from typing import Any

import pytest

from zenthos_assets.rollouts.transforms import Measured, compare, missing_readings, summarise

NOW = 1_790_000_000.0


def measured(**changes: Any) -> Measured:
    values = {
        "device_id": "soil-1",
        "seconds": 600.0,
        "interval_s": 60.0,
        "readings": 10,
        "missing_seq": 0,
        "violations": 0,
        "slope_v_per_day": None,
        "slope_s": 0.0,
        "predictions": 0,
        "confidence": None,
    }
    return Measured(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, 0),
        ({"readings": 9}, 0),  # the last may be on its way
        ({"readings": 5}, 4),
        ({"readings": 0}, 9),
        ({"readings": 30}, 0),
        ({"seconds": 90.0, "readings": 0}, 0),
        ({"missing_seq": 3}, 3),
        ({"readings": 5, "missing_seq": 3}, 4),
        ({"interval_s": None, "readings": 2, "missing_seq": 5}, 5),
        ({"interval_s": None, "readings": 0}, 0),
    ],
)
def test_rule_1_missing_by_interval_or_counter(changes: dict[str, Any], missing: int) -> None:
    assert missing_readings(measured(**changes)) == missing


def test_rule_2_a_counter_cannot_skip_more_than_was_due() -> None:
    assert missing_readings(measured(missing_seq=10**12)) == 9


def test_rule_3_rates_of_a_cohort() -> None:
    cohort = summarise([measured(readings=6, violations=3), measured(readings=9)])
    assert (cohort.devices, cohort.readings) == (2, 15)
    assert cohort.gap_rate == pytest.approx(3 / 18)
    assert cohort.range_violation_rate == pytest.approx(3 / 15)
    silent = summarise([measured(readings=0)])
    assert (silent.gap_rate, silent.range_violation_rate) == (1, 0)


def test_rule_4_the_median_drop_of_batteries() -> None:
    slopes = [(-0.1, 25e3), (-0.3, 25e3), (-9.0, 25e3), (-99.0, 2e4), (None, 0.0)]
    devices = [measured(slope_v_per_day=slope, slope_s=seconds) for slope, seconds in slopes]
    assert summarise(devices).battery_drop_v_per_day == pytest.approx(0.3)
    assert summarise(devices[3:]).battery_drop_v_per_day is None


def test_rule_5_the_mean_of_all_predictions() -> None:
    devices = [measured(predictions=3, confidence=0.9), measured(predictions=1, confidence=0.5)]
    assert summarise([*devices, measured()]).inference_confidence == pytest.approx(0.8)
    assert summarise([measured()]).inference_confidence is None


def test_rule_6_nothing_to_compare() -> None:
    early = measured(seconds=10.0, readings=0)
    for updated, control in [([], [measured()]), ([measured()], []), ([early], [measured()])]:
        assert compare(updated, control, now=NOW, window_s=600) is None
    silent = compare([measured(readings=0)], [measured()], now=NOW, window_s=600.4)
    assert silent is not None
    assert silent.body() == {
        "quality": {
            "measured_at": int(NOW),
            "window_s": 600,
            "updated": {
                "devices": 1,
                "readings": 0,
                "gap_rate": 1.0,
                "range_violation_rate": 0.0,
                "battery_drop_v_per_day": None,
                "inference_confidence": None,
            },
            "control": {
                "devices": 1,
                "readings": 10,
                "gap_rate": 0.0,
                "range_violation_rate": 0.0,
                "battery_drop_v_per_day": None,
                "inference_confidence": None,
            },
        }
    }
