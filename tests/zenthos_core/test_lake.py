"""Object keys of the lake."""

from datetime import UTC, date, datetime

from zenthos_core import lake


def test_layout() -> None:
    hour = datetime(2026, 11, 3, 5, tzinfo=UTC)
    assert lake.bronze_key("telemetry", hour, 0) == "telemetry/2026/11/03/05.parquet"
    assert lake.bronze_key("telemetry", hour, 2) == "telemetry/2026/11/03/05.2.parquet"
    day = date(2026, 1, 9)
    assert lake.day_key("telemetry_cleaned", day) == "telemetry_cleaned/2026/01/09.parquet"
    sha256 = "0123456789abcdef" * 4
    key = lake.firmware_key("esp32-s3", "v0.2.1", sha256, ".zip")
    assert key == f"esp32-s3/v0.2.1-{sha256[:32]}.zip"
    key = lake.model_key("esp32-s3", "irrigation", "m-20261123-0a1b2c3", sha256)
    assert key == f"models/esp32-s3/irrigation/m-20261123-0a1b2c3-{sha256[:32]}.tflite"
    assert len({lake.BRONZE, lake.SILVER, lake.GOLD, lake.FIRMWARE}) == 4
