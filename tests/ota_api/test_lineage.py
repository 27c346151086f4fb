"""From bad partitions to devices, and from a prediction back: rules, then published models."""

from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest

from ota_api.lineage.partitions import (
    TOUCHES,
    TrainingDays,
    parse_partition,
    readings_behind,
    touched_by,
)
from tests.ota_api.conftest import DEVICE_MODEL, make_ota_settings, running_ota
from tests.ota_api.planes import NOW, Planes, ago, at
from zenthos_assets.models.transforms import partitions_in_words
from zenthos_core.errors import InvalidInputError
from zenthos_core.manifest import Lineage

DAY = date(2026, 11, 23)
SILVER, FEATURES = "silver/telemetry_cleaned", "gold/ml_features"


def span(first: date, last: date) -> set[date]:
    return {first + timedelta(days=n) for n in range((last - first).days + 1)}


def test_rule_1_a_partition_is_a_day_or_an_hour_of_bronze() -> None:
    hour = parse_partition("bronze/telemetry", "2026-11-23-05:00")
    assert (hour.start, hour.end) == (at(DAY, 5), at(DAY, 6))
    assert parse_partition("bronze/telemetry", "2026-11-23T05") == hour
    day = parse_partition(SILVER, "2026-11-23")
    assert (day.start, day.end, day.days) == (at(DAY, 0), at(DAY, 24), [DAY])


@pytest.mark.parametrize(
    ("asset", "partition"),
    [
        (SILVER, "2026-11-23-05:00"),
        (SILVER, "2026-02-30"),
        (SILVER, "yesterday"),
        (SILVER, "0001-01-01"),
        (SILVER, "9999-12-31"),
        ("bronze/telemetry", "2026-11-23-24:00"),
    ],
)
def test_rule_1_anything_else_is_refused(asset: str, partition: str) -> None:
    with pytest.raises(InvalidInputError, match="2026-11-23"):
        parse_partition(asset, partition)


@pytest.mark.parametrize(
    ("asset", "before", "after"),
    [
        ("bronze/telemetry", 1, 30),
        (SILVER, 1, 30),
        ("gold/telemetry_hourly", 1, 6),
        ("gold/telemetry_daily", 0, 30),
        (FEATURES, 0, 0),
    ],
)
def test_rule_2_training_days_that_a_day_touches(asset: str, before: int, after: int) -> None:
    expected = span(DAY - timedelta(days=before), DAY + timedelta(days=after))
    assert touched_by(asset, [DAY]) == expected


def test_rule_2_is_what_the_lineage_reads() -> None:
    from ml.features import MAX_DAYS_SINCE, WINDOW_DAYS

    assert TOUCHES["gold/telemetry_hourly"] == (1, WINDOW_DAYS - 1)
    assert TOUCHES["gold/telemetry_daily"] == (0, MAX_DAYS_SINCE)


def test_rule_3_weather_and_logs_touch_none() -> None:
    assert touched_by("gold/weather_daily", [DAY]) == set()
    assert touched_by("bronze/logs", [DAY]) == set()


def test_rule_4_overlap_and_certainty() -> None:
    whole = TrainingDays(DAY, DAY + timedelta(days=9), 10)
    gaps = TrainingDays(DAY, DAY + timedelta(days=9), 7)
    one, four = [DAY], sorted(span(DAY, DAY + timedelta(days=3)))
    assert whole.overlap([DAY - timedelta(days=1), DAY]) == one
    assert whole.certainly_hold_one_of(one)
    assert not gaps.certainly_hold_one_of(one), "three days are missing: it may be one of them"
    assert gaps.certainly_hold_one_of(four)


def test_training_days_are_read_as_the_lineage_writes_them() -> None:
    text = partitions_in_words([DAY, DAY + timedelta(days=2)])
    assert TrainingDays.parse(text) == TrainingDays(DAY, DAY + timedelta(days=2), 2)
    for other in (
        None,
        partitions_in_words([]),
        "gold/ml_features[2026-13-01...2026-13-02] (1 days)",
    ):
        assert TrainingDays.parse(other) is None
    assert readings_behind(TrainingDays(DAY, DAY, 1)) == (
        DAY - timedelta(days=30),
        DAY + timedelta(days=1),
    )


@pytest.fixture
def planes(tmp_path: Any, ops_url: str, analytics_url: str) -> Any:
    with running_ota(
        make_ota_settings(tmp_path, ops_url, analytics_url), clock=NOW.timestamp
    ) as ota:
        yield Planes(ota)


def publish(
    planes: Planes, counter: int, first: date, last: date, **options: Any
) -> dict[str, Any]:
    """A model trained on the days from `first` to `last`; its release's id and version."""
    days = sorted(span(first, last))
    lineage = Lineage(
        dataset_partitions=partitions_in_words(days),
        dataset_sha256=f"{counter:064}",
        mlflow_model=f"models:/irrigation/{counter}",
    )
    body = planes.ota.signer.model(
        f"weights {counter}".encode(), release_counter=counter, lineage=lineage
    )
    answer = planes.ota.publish({**body, **options})
    assert answer.status_code == 201, answer.text
    [(version,)] = planes.ops("SELECT version FROM releases WHERE id = %s", answer.json()["id"])
    return {"id": answer.json()["id"], "version": version}


def impact(planes: Planes, **query: Any) -> dict[str, Any]:
    answer = planes.ota.send("GET", "/lineage/impact", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def runs(planes: Planes, device: str, version: str) -> None:
    """The device says that it runs the model, and has predicted with it once."""
    planes.device(device, "North")
    planes.ops("UPDATE devices SET model_version = %s WHERE id = %s", version, device)
    predicts(planes, device, version)


def predicts(planes: Planes, device: str, version: str, *, message: Any = None) -> str:
    message = message or uuid4()
    planes.ops(
        "INSERT INTO inference_results (time, message_id, device_id, model_version, result,"
        " confidence, features, received_at) VALUES (%s, %s, %s, %s, %s, 0.9, %s, %s)",
        at(ago(1)), message, device, version, '{"class": "irrigate"}', [1.5, 2.0], at(ago(1)),
    )  # fmt: skip
    return str(message)


def test_impact_of_a_bad_day_on_releases_rollouts_devices_and_predictions(planes: Planes) -> None:
    old = publish(planes, 1, ago(100), ago(60), rollout_percentage=0)
    hit = publish(planes, 2, ago(50), ago(20), rollout_percentage=50)
    also = publish(planes, 3, ago(40), ago(10), rollout_percentage=0)
    planes.ops(
        "UPDATE releases SET withdrawn_at = now(), withdrawn_by = 'x' WHERE id = %s", also["id"]
    )
    for device in ("field-c", "field-a", "field-b"):
        runs(planes, device, hit["version"])
    runs(planes, "another", old["version"])
    runs(planes, "gone", hit["version"])
    planes.ota.send("POST", "/devices/gone/decommission")
    planes.built(FEATURES, ago(30))

    found = impact(planes, asset=FEATURES, partition=str(ago(30)), limit=2)
    assert [(r["version"], r["state"]) for r in found["releases"]] == [
        (also["version"], "withdrawn"),
        (hit["version"], "offered"),
    ]
    release = found["releases"][1]
    assert release["certain"]
    assert release["days"] == [{"first": str(ago(30)), "last": str(ago(30))}]
    assert release["dataset"]["sha256"] == f"{2:064}"
    assert [(o["state"], o["device_model"]) for o in release["open_rollouts"]] == [
        ("running", DEVICE_MODEL)
    ]
    assert (release["devices_running"], release["predictions"]) == (3, 4)
    assert release["first_prediction"] == at(ago(1)).isoformat().replace("+00:00", "Z")
    assert [build["output_checksum"] for build in found["builds"]] == [f"out of {ago(30)}"]

    assert found["devices_running"] == 3
    assert [d["device_id"] for d in found["devices"]["items"]] == ["field-a", "field-b"]
    rest = impact(
        planes, asset=FEATURES, start=ago(30), end=ago(30), limit=2, after=found["devices"]["next"]
    )
    assert [d["device_id"] for d in rest["devices"]["items"]] == ["field-c"]
    assert rest["devices"]["next"] is None


def test_impact_of_a_bronze_hour_goes_through_the_days_of_its_readings(planes: Planes) -> None:
    publish(planes, 1, ago(50), ago(45))
    planes.archived(at(ago(3), 5), ago(70), ago(3))
    planes.archived(at(ago(3), 6), ago(47))
    found = impact(planes, asset="bronze/telemetry", partition=f"{ago(3)}-05:00")
    assert [day["first"] for day in found["reading_days"]] == [str(ago(70)), str(ago(3))]
    [release] = found["releases"]
    assert release["days"] == [{"first": str(ago(50)), "last": str(ago(45))}], "30 days of rain"
    assert impact(planes, asset="bronze/telemetry", partition=f"{ago(3)}-07:00")["releases"] == []
    assert impact(planes, asset="gold/telemetry_hourly", partition=str(ago(57)))["releases"] == []
    assert impact(planes, asset="gold/telemetry_hourly", partition=str(ago(56)))["releases"] != []
    assert impact(planes, asset="gold/weather_daily", partition=str(ago(47)))["releases"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"asset": "gold/unknown", "partition": "2026-11-23"},
        {"asset": SILVER},
        {"asset": SILVER, "partition": "2026-11-23", "start": "2026-11-23"},
        {"asset": SILVER, "start": "2026-11-23"},
        {"asset": SILVER, "start": "2026-11-23", "end": "2026-11-22"},
        {"asset": SILVER, "start": "2020-11-23", "end": "2026-11-22"},
        {"asset": SILVER, "partition": "x"},
    ],
)
def test_bad_questions(planes: Planes, query: dict[str, str]) -> None:
    assert planes.ota.send("GET", "/lineage/impact", params=query).status_code == 422


def test_a_prediction_back_to_its_readings(planes: Planes) -> None:
    model = publish(planes, 1, ago(50), ago(45))
    runs(planes, "field", model["version"])
    message = predicts(planes, "field", model["version"])
    first, second = (
        planes.archived(at(ago(2)), ago(46), ago(2)),
        planes.archived(at(ago(1)), ago(4)),
    )
    planes.archived(at(ago(90)), ago(90))
    found = planes.ota.send("GET", f"/lineage/prediction/{message}").json()
    assert found["prediction"]["features"] == [1.5, 2.0]
    assert found["release"]["version"] == model["version"]
    assert found["release"]["lineage"]["mlflow_model"] == "models:/irrigation/1"
    training, inputs = found["training"], found["inputs"]
    assert training["days"] == {"first": str(ago(80)), "last": str(ago(44))}
    assert [o["object_key"] for o in training["first_objects"]] == [first]
    assert (training["archived"], training["objects"]) == (1, 1)
    assert {o["object_key"] for o in inputs["first_objects"]} == {first, second}
    for link in inputs["links"][:1]:
        assert planes.ota.send("GET", link).status_code == 200, link


def test_a_prediction_of_a_model_that_was_never_published(planes: Planes) -> None:
    planes.device("field", "North")
    message = predicts(planes, "field", "m-unknown")
    found = planes.ota.send("GET", f"/lineage/prediction/{message}").json()
    assert (found["release"], found["training"]) == (None, None)


def test_a_message_id_of_two_devices(planes: Planes) -> None:
    message = uuid4()
    for device in ("one", "two"):
        planes.device(device, "North")
        predicts(planes, device, "m", message=message)
    path = f"/lineage/prediction/{message}"
    assert planes.ota.send("GET", path).status_code == 409
    found = planes.ota.send("GET", path, params={"device_id": "two"}).json()
    assert found["prediction"]["device_id"] == "two"
    assert planes.ota.send("GET", f"/lineage/prediction/{uuid4()}").status_code == 404
