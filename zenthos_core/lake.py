"""Layout of the data lake: which object holds which partition.

Bronze is partitioned by the hour of receipt and never rewritten: rows that come for an hour
already archived go to the next numbered part. Silver and gold are partitioned by the day of the
reading and replaced whole.
"""

from datetime import date, datetime
from typing import Final

BRONZE: Final = "zenthos-bronze"
SILVER: Final = "zenthos-silver"
GOLD: Final = "zenthos-gold"
FIRMWARE: Final = "zenthos-firmware"
LOGS: Final = "zenthos-logs"
"""Output of runs, where the lake is on S3."""
BUCKETS: Final = (BRONZE, SILVER, GOLD, FIRMWARE, LOGS)


def bronze_key(table: str, hour: datetime, part: int) -> str:
    """`telemetry/2026/11/23/05.parquet`, then `05.1.parquet` … for what came later."""
    suffix = f".{part}" if part else ""
    return f"{table}/{hour:%Y/%m/%d/%H}{suffix}.parquet"


def day_key(table: str, day: date) -> str:
    """`telemetry_cleaned/2026/11/23.parquet`."""
    return f"{table}/{day:%Y/%m/%d}.parquet"


def firmware_key(device_model: str, version: str, sha256: str, suffix: str) -> str:
    """`esp32-s3/v0.2.1-7d865e959b2466918c9863afca942d0f.zip`: half of the content's hash."""
    return f"{device_model}/{version}-{sha256[:32]}{suffix}"


def model_key(device_model: str, name: str, version: str, sha256: str) -> str:
    """`models/esp32-s3/irrigation/m-20261123-0a1b2c3-7d865e959b2466918c9863afca942d0f.tflite`."""
    return f"models/{device_model}/{name}/{version}-{sha256[:32]}.tflite"
