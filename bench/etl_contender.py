"""What the contenders of the `etl` bench share: where things lie, and how they are timed.

`python -m bench.etl_ours LAKE` does the steps of the day in a process of its own and prints one
JSON object: the seconds of each stage, their sum, and the most memory the process has had in use.

1. A lake is a folder of objects: bronze, rollups of the days before, and `reference/`.
2. Every contender writes the same objects: silver, hourly and daily rollups and features of DAY, as
   Parquet with zstd.
3. Every contender checks: each message once, rollups reconcile, no feature out of its range.
4. The clock runs from the first read to the last check; imports come before.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench.etl_day import DAY
from bench.process import BenchError, peak_rss_mib
from ml.features import MAX_DAYS_SINCE, WINDOW_DAYS
from zenthos_core import lake

THREADS: Final = 2
SILVER: Final = (lake.SILVER, "telemetry_cleaned")
HOURLY: Final = (lake.GOLD, "telemetry_hourly")
DAILY: Final = (lake.GOLD, "telemetry_daily")
FEATURES: Final = (lake.GOLD, "ml_features")

Place = tuple[str, str]


@dataclass
class Stages:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, work: Callable[[], None]) -> None:
        """Do a stage."""
        begin = time.perf_counter()
        work()
        self.seconds[name] = round(time.perf_counter() - begin, 3)


def path_of(folder: Path, place: Place, back: int = 0) -> Path:
    """The object of DAY, or of so many days before; its folder is made."""
    path = folder / place[0] / lake.day_key(place[1], DAY - timedelta(days=back))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def bronze_paths(folder: Path) -> list[Path]:
    """In the order of receipt."""
    return sorted((folder / lake.BRONZE / "telemetry").rglob("*.parquet"))


def hourly_paths(folder: Path) -> list[Path]:
    """The rollups that the features of DAY look at."""
    return [path_of(folder, HOURLY, back) for back in range(WINDOW_DAYS)]


def daily_paths(folder: Path) -> list[Path]:
    """The rollups in which rain is looked for."""
    return [path_of(folder, DAILY, back) for back in range(MAX_DAYS_SINCE + 1)]


def check(*, holds: bool, what: str) -> None:
    """Rule 3; BenchError where it does not hold."""
    if not holds:
        raise BenchError(f"a contender's own check failed: {what}")


def run(contend: Callable[[Path, Stages], None]) -> None:
    """The main of a contender."""
    stages = Stages()
    before = time.process_time()
    contend(Path(sys.argv[1]), stages)
    figures = {
        "seconds": round(sum(stages.seconds.values()), 3),
        "cpu_s": round(time.process_time() - before, 3),
        "peak_rss_mib": peak_rss_mib(os.getpid()),
        "stages": stages.seconds,
    }
    print(json.dumps(figures))
