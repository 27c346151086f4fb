"""What is odd about a day: findings from statistics, one rule at a time."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from zenthos_assets.runs import Build
from zenthos_assets.silver.checks import SILVER_CHECKS, newest_due, silver_results
from zenthos_assets.silver.day_runs import Outcome
from zenthos_assets.silver.errors import OPEN_SCHEMA, UNREGISTERED
from zenthos_assets.silver.examine import Findings, examine
from zenthos_assets.silver.statistics import SCHEMA, SENSORS
from zenthos_assets.silver.views import hours_covered, pictures

DAY = date(2026, 11, 18)
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def row(days_before: int = 0, device_id: str = "soil-1", **changed: Any) -> dict[str, Any]:
    """A device's good day: 24 readings, each value between 10 and 20."""
    midnight = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) - timedelta(days=days_before)
    usual: dict[str, Any] = {
        "day": midnight.date(),
        "device_id": device_id,
        "farm_id": "north",
        "readings": 24,
        "first_time": midnight,
        "last_time": midnight + timedelta(hours=23),
        "interval_s": 3600.0,
        "longest_gap_s": 3600.0,
        "missing_seq": 0,
        "clock_suspect": 0,
        "implausible": 0,
        "readings_by_hour": [1] * 24,
        **{f"{name}_missing": 0 for name in SENSORS},
        **{f"{name}_min": 10.0 for name in SENSORS},
        **{f"{name}_max": 20.0 for name in SENSORS},
    }
    return usual | changed


def found(*rows: dict[str, Any], now: datetime = NOW, interval_s: float | None = None) -> Findings:
    frame = pl.DataFrame(list(rows), schema=SCHEMA, orient="row")
    return examine(frame, [DAY], now=now, intervals_s={"soil-1": interval_s})


def week(**changed: Any) -> list[dict[str, Any]]:
    return [row(n, **changed) for n in range(1, 8)]


def test_a_day_like_those_before_has_nothing_odd() -> None:
    usual = found(row(), *week())
    assert usual.device_days == 1
    for frame in (usual.odd_counts, usual.missing_values, usual.implausible):
        assert frame.is_empty()
    assert usual.gappy.is_empty()
    assert usual.stuck.is_empty()
    assert found().device_days == 0


@pytest.mark.parametrize(("readings", "odd"), [(11, True), (12, False), (48, False), (49, True)])
def test_rule_2_counts_against_the_median(readings: int, odd: bool) -> None:
    findings = found(row(readings=readings), *week(), row(3, "soil-2", readings=900))
    assert findings.odd_counts.is_empty() is not odd


def test_rule_2_wants_four_days_and_lets_the_running_day_be() -> None:
    few = [row(n) for n in range(1, 4)]
    assert found(row(readings=1), *few).odd_counts.is_empty()
    today = datetime(2026, 11, 18, 6, tzinfo=UTC)
    assert found(row(readings=1), *week(), now=today).odd_counts.is_empty()
    assert found(row(readings=99), *week(), now=today).odd_counts.height == 1


def test_rule_3_a_sensor_that_goes_missing() -> None:
    gone = found(row(temperature_missing=24, humidity_missing=12), *week(humidity_missing=8))
    assert gone.missing_values.select("sensor", "share", "usual").rows() == [
        ("temperature", 1.0, 0.0)
    ]
    assert found(
        row(temperature_missing=24), *week(temperature_missing=24)
    ).missing_values.is_empty()
    assert found(row(temperature_missing=24)).missing_values.is_empty()


def test_rule_4_too_many_implausible_values() -> None:
    assert found(row(implausible=4)).implausible.is_empty()
    assert found(row(implausible=5)).implausible["share"].to_list() == [5 / 24]


def test_rule_5_a_device_that_sends_too_little() -> None:
    assert found(row(readings=19), *week()).gappy["coverage"].to_list() == [19 / 24]
    assert found(row(readings=20), *week()).gappy.is_empty()
    assert found(row(), *week(), interval_s=1800.0).gappy["coverage"].to_list() == [0.5]


def test_rule_5_a_new_device_is_expected_from_its_first_reading() -> None:
    noon = datetime(2026, 11, 18, 12, tzinfo=UTC)
    half = row(readings=12, first_time=noon)
    assert found(half).gappy.is_empty()
    assert found(half, row(1)).gappy.height == 1
    assert found(half, row(8)).gappy.is_empty()


def test_rule_5_the_running_day_is_expected_until_now() -> None:
    six = datetime(2026, 11, 18, 6, tzinfo=UTC)
    assert found(row(readings=6), row(1), now=six).gappy.is_empty()


def test_rule_6_a_sensor_that_no_longer_moves() -> None:
    still: dict[str, Any] = {"temperature_min": 15.0, "temperature_max": 15.0}
    found_stuck = found(row(**still), row(1, **still), row(2)).stuck
    assert found_stuck.rows() == [(DAY, "soil-1", "temperature", 15.0)]
    assert found(row(**still), row(1, **still)).stuck.is_empty()  # it has not moved lately
    assert found(row(**still, readings=11), row(1)).stuck.is_empty()
    assert found(row(**still), row(8)).stuck.is_empty()


def test_rule_6_soil_may_rest_for_two_days() -> None:
    dry: dict[str, Any] = {"soil_moisture_min": 15.0, "soil_moisture_max": 15.0}
    assert found(row(**dry), row(1, **dry), row(2)).stuck.is_empty()
    third = found(row(**dry), row(1, **dry), row(2, **dry), row(3)).stuck
    assert third.rows() == [(DAY, "soil-1", "soil_moisture", 15.0)]
    other: dict[str, Any] = {"soil_moisture_min": 16.0, "soil_moisture_max": 16.0}
    assert found(row(**dry), row(1, **dry), row(2, **other), row(3)).stuck.is_empty()


def test_rule_6_a_value_may_rest_at_its_limit() -> None:
    fog: dict[str, Any] = {"humidity_min": 100.0, "humidity_max": 100.0}
    assert found(row(**fog), row(1)).stuck.is_empty()


def test_findings_of_ranges_add_up() -> None:
    both = found(row(implausible=9)) + found(row(implausible=9))
    assert (both.device_days, both.implausible.height) == (2, 2)


def results(findings: Findings, outcome: Outcome, unusable: pl.DataFrame) -> set[str]:
    checked = silver_results(outcome, findings, unusable)
    assert [r.check_name for r in checked] == [spec.name for spec in SILVER_CHECKS]
    return {str(r.check_name) for r in checked if not r.passed}


def test_checks_name_what_is_wrong() -> None:
    none = OPEN_SCHEMA.to_frame()
    built = Outcome({DAY: Build(str(DAY), "", "", 200, 199, 0, 1, 0.0)})
    assert results(found(row()), built, none) == set()
    assert results(found(row()), Outcome(repeated=2), none) == {"message_id_unique"}
    assert results(found(row()), Outcome(lost={DAY: "gone"}), none) == {"nothing_lost"}
    strangers = pl.DataFrame([(UNREGISTERED, "x", 2)], schema=OPEN_SCHEMA, orient="row")
    assert results(found(row()), built, strangers) == {"devices_registered"}
    broken = pl.DataFrame([("malformed_json", "x", 3)], schema=OPEN_SCHEMA, orient="row")
    assert results(found(row()), built, broken) == {"few_unusable"}
    still: dict[str, Any] = {"light_level_min": 9.0, "light_level_max": 9.0}
    odd = found(
        row(readings=12, implausible=9, temperature_missing=12, **still), *week(readings=30)
    )
    assert results(odd, built, none) == {
        "values_in_range",
        "null_rates",
        "few_gaps",
        "sensors_move",
        "usual_row_count",
    }


def test_a_day_is_due_an_hour_after_the_nightly_build() -> None:
    assert newest_due(datetime(2026, 11, 25, 2, 59, tzinfo=UTC)) == date(2026, 11, 23)
    assert newest_due(datetime(2026, 11, 25, 3, tzinfo=UTC)) == date(2026, 11, 24)


def test_the_heat_map_shows_the_gappiest_devices_first() -> None:
    gaps = row(device_id="soil-9", readings=12, readings_by_hour=[2, 0] * 12)
    frame = pl.DataFrame([row(), gaps, row(device_id="x", interval_s=None)], schema=SCHEMA)
    covered = hours_covered(frame)
    assert list(covered) == ["soil-9", "soil-1"]
    assert covered["soil-9"][:3] == [1.0, 0.0, 1.0]


def test_pictures_of_an_empty_day_are_pictures() -> None:
    images = pictures(SCHEMA.to_frame(), [], DAY)
    assert images.keys() == {"readings_by_hour", "gaps"}
    assert all("data:image/png;base64," in str(image.value) for image in images.values())
