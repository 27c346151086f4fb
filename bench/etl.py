"""The lineage's transforms against DuckDB and pandas: bronze to silver, gold and features of a day.

Each contender is a process of its own on the same objects, one after the other; what they write is
compared, and a difference ends the bench. The whole day is contended with DuckDB; the day of a
tenth of the devices also with pandas, and with DuckDB on the same messages as JSON texts.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl
from rich.console import Console

from bench.etl_contender import DAILY, FEATURES, HOURLY, SILVER, THREADS, path_of
from bench.etl_day import Fleet, prepare
from bench.process import BenchError
from ml.features import SCHEMA as FEATURES_SCHEMA
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA
from zenthos_assets.silver.transforms import SCHEMA as SILVER_SCHEMA

OURS: Final = "zenthos"
DUCKDB: Final = "duckdb"
DUCKDB_JSON: Final = "duckdb on JSON"
PANDAS: Final = "pandas"
PANDAS_JSON: Final = "pandas on JSON"
TENTH: Final = 10
TOLERANCE: Final = 1e-9
"""Of sums, relative: each adds up in an order of its own."""

_COMMANDS: Final = {
    OURS: ("bench.etl_ours",),
    DUCKDB: ("bench.etl_duckdb",),
    DUCKDB_JSON: ("bench.etl_duckdb", "--json"),
    PANDAS: ("bench.etl_pandas",),
    PANDAS_JSON: ("bench.etl_pandas", "--json"),
}
_TABLES: Final = {
    "silver": (SILVER, SILVER_SCHEMA),
    "hourly": (HOURLY, HOURLY_SCHEMA),
    "daily": (DAILY, DAILY_SCHEMA),
    "features": (FEATURES, FEATURES_SCHEMA),
}
_LIMIT_S: Final = 3_600


@dataclass(frozen=True)
class Contest:
    """One contender, once."""

    seconds: float
    cpu_s: float
    peak_rss_mib: float
    stages: dict[str, float]


@dataclass(frozen=True)
class EtlResult:
    """Medians over the runs; memory is the worst run's. Rows are the readings kept in silver."""

    rows: int
    seconds: float
    peak_rss_mib: float
    vs_duckdb: float
    vs_pandas: float
    vs_duckdb_json: float
    vs_pandas_json: float
    """The last three on the tenth."""
    growth_10x: float
    """Seconds of the whole by those of the tenth."""
    rows_per_s: int
    runs: int
    contenders: dict[str, Contest]
    tenth_rows: int
    tenth: dict[str, Contest]
    load_before: float
    """Processes that wanted a core before the bench began: beside others, times mean little."""
    same_results: bool = field(default=True)


def run_etl_bench(devices: int = 10_000, *, runs: int = 1, folder: Path | None = None) -> EtlResult:
    """Measure the whole day and a tenth of it, `runs` times each.

    Args:
        devices: each sends a message a minute; a multiple of ten.
        runs: of each contender, in turn.
        folder: keeps the day for the next bench; a temporary one without.

    Raises:
        BenchError: a contender failed, or its results differ from ours.
    """
    if devices % TENTH:
        raise BenchError("choose a multiple of ten for the devices: a tenth of them runs, too")
    load = os.getloadavg()[0]
    with _lakes(folder) as lakes:
        small, tenth_rows = _contests(
            lakes, devices // TENTH, (OURS, DUCKDB, PANDAS, DUCKDB_JSON, PANDAS_JSON), runs
        )
        large, rows = _contests(lakes, devices, (OURS, DUCKDB), runs)
    seconds = large[OURS].seconds
    return EtlResult(
        rows=rows,
        seconds=seconds,
        peak_rss_mib=large[OURS].peak_rss_mib,
        vs_duckdb=round(large[DUCKDB].seconds / seconds, 2),
        vs_pandas=round(small[PANDAS].seconds / small[OURS].seconds, 2),
        vs_duckdb_json=round(small[DUCKDB_JSON].seconds / small[OURS].seconds, 2),
        vs_pandas_json=round(small[PANDAS_JSON].seconds / small[OURS].seconds, 2),
        growth_10x=round(seconds / small[OURS].seconds, 2),
        rows_per_s=round(rows / seconds),
        runs=runs,
        contenders=large,
        tenth_rows=tenth_rows,
        tenth=small,
        load_before=round(load, 2),
    )


@contextmanager
def _lakes(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="zenthos-bench-") as temporary:
        yield Path(temporary)


def _contests(
    lakes: Path, devices: int, names: tuple[str, ...], runs: int
) -> tuple[dict[str, Contest], int]:
    """The medians of each contender, and how many readings are in silver."""
    console = Console(stderr=True)
    lake = lakes / f"devices-{devices}"
    console.print(f"preparing the day of {devices} devices")
    prepare(lake, Fleet(devices), raw=DUCKDB_JSON in names)
    found: dict[str, list[Contest]] = {name: [] for name in names}
    results: dict[str, dict[str, float]] = {}
    for number in range(runs):
        for name in names:
            console.print(f"run {number + 1} of {runs}: {name}")
            with _copy_of(lake) as copy:
                found[name].append(_contend(copy, name))
                results[name] = summary(copy)
            if different := differences(results[name], results[OURS]):
                raise BenchError(f"{name} did not do the same work: {'; '.join(different[:5])}")
    return {name: _median(each) for name, each in found.items()}, int(results[OURS]["silver rows"])


@contextmanager
def _copy_of(lake: Path) -> Iterator[Path]:
    """A lake of hard links, in which a contender adds its objects."""
    with tempfile.TemporaryDirectory(prefix="contest-", dir=lake.parent) as temporary:
        for path in lake.rglob("*.parquet"):
            link = Path(temporary) / path.relative_to(lake)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
        yield Path(temporary)


def _contend(lake: Path, name: str) -> Contest:
    module, *options = _COMMANDS[name]
    done = subprocess.run(
        [sys.executable, "-m", module, str(lake), *options],
        env=os.environ | {"POLARS_MAX_THREADS": str(THREADS)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    if done.returncode:
        raise BenchError(f"{name} failed; its error is above")
    return Contest(**json.loads(done.stdout.splitlines()[-1]))


def _median(contests: list[Contest]) -> Contest:
    stages = {
        stage: round(statistics.median(c.stages[stage] for c in contests), 3)
        for stage in contests[0].stages
    }
    return Contest(
        seconds=round(statistics.median(c.seconds for c in contests), 3),
        cpu_s=round(statistics.median(c.cpu_s for c in contests), 3),
        peak_rss_mib=max(c.peak_rss_mib for c in contests),
        stages=stages,
    )


def summary(lake: Path) -> dict[str, float]:
    """Rows, nulls and sums of all that a contender has written; texts by sums of their hashes."""
    found: dict[str, float] = {}
    for table, (place, schema) in _TABLES.items():
        rows = pl.scan_parquet(path_of(lake, place))
        sums = [_sum(pl.col(name).cast(dtype), dtype).alias(name) for name, dtype in schema.items()]
        nulls = [pl.col(name).null_count().alias(f"{name} nulls") for name in schema]
        values = rows.select(pl.len().alias("rows"), *sums, *nulls).collect(engine="streaming")
        found |= {f"{table} {name}": float(v) for name, v in values.row(0, named=True).items()}
    return found


def _sum(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_numeric():
        return column.sum()
    if dtype.is_temporal():
        return column.cast(pl.Datetime("us")).dt.epoch("s").sum()
    if dtype == pl.Boolean():
        return column.sum()
    return (column.cast(pl.Binary).hash() % 2**31).filter(column.is_not_null()).sum()


def differences(theirs: dict[str, float], ours: dict[str, float]) -> list[str]:
    """What of two summaries is not the same, up to the rounding of sums."""
    return [
        f"{what}: {theirs.get(what)} instead of {value}"
        for what, value in ours.items()
        if abs(theirs.get(what, float("inf")) - value) > TOLERANCE * max(1.0, abs(value))
    ]
