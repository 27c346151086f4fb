"""How small the archive is against the JSON it holds, byte for byte the same.

1. The messages are those of `zenthos simulate` and `zenthos replay`, taken where they would go to
   the broker.
2. Simulated ones arrive as they are sent, up to a second later; recorded ones as a replay sends
   them, 2,000 a second. Ingest commits four times a second.
3. An object holds what was received in an hour. The peer is the same rows as a plain Parquet file
   with zstd, in order of arrival.
4. A ratio is the bytes of the payloads by those of the objects, with everything that is in them.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from zenthos_assets import parquet
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.bronze.transforms import SCHEMA
from zenthos_cli.fleet import jobs, replay
from zenthos_cli.fleet.faults import FaultRates
from zenthos_cli.fleet.mapping import load_mapping
from zenthos_cli.fleet.messages import Device
from zenthos_cli.fleet.publisher import Publisher
from zenthos_cli.fleet.recordings import read_recordings
from zenthos_cli.fleet.session import Counters
from zenthos_cli.fleet.simulate import Simulation
from zenthos_core.mqtt import Message

ROOT: Final = Path(__file__).parent.parent
RECORDINGS: Final = ROOT.parent / "shared" / "data" / "kings_creek"
MAPPING: Final = ROOT / "examples" / "kings_creek" / "mapping.toml"
UNTIL: Final = datetime(2026, 11, 20, tzinfo=UTC)
FAULTS: Final = FaultRates(outages_per_day=0.05, duplicate=0.005, out_of_order=0.005)
REPLAY_RATE: Final = 2_000
COMMIT_S: Final = 0.25
SEED: Final = 0


@dataclass(frozen=True)
class Archived:
    """Bytes and seconds of the objects of some messages."""

    rows: int
    payload_bytes: int
    object_bytes: int
    peer_bytes: int
    encode_s: float
    decode_s: float
    read_s: float
    exact: bool

    @property
    def ratio(self) -> float:
        return self.payload_bytes / self.object_bytes

    @property
    def peer_ratio(self) -> float:
        return self.payload_bytes / self.peer_bytes


@dataclass(frozen=True)
class ArchiveResult:
    """What `zenthos bench archive` prints; None where there are no recordings."""

    rows: int
    byte_exact: bool
    ratio: float
    peer_ratio: float
    ratio_simulated: float
    peer_ratio_simulated: float
    ratio_real: float | None
    peer_ratio_real: float | None
    encode_rows_per_s: int
    decode_rows_per_s: int
    read_rows_per_s: int


class Collector(Publisher):
    """Keeps what it is to publish."""

    def __init__(self) -> None:
        super().__init__({}, Counters())
        self.messages: list[Message] = []

    async def publish(self, device_id: str, message: Message) -> None:
        self.messages.append(message)


def run_archive_bench(
    devices: int, interval_s: int, hours: float, recordings: Path = RECORDINGS
) -> ArchiveResult:
    """Archive a simulated stretch of time, and the recordings where they are."""
    sent = simulated(devices, interval_s, hours)
    made = archive(arrivals_as_sent(sent))
    _tell(f"simulated: {made.rows} messages, {made.ratio:.2f}:1, peer {made.peer_ratio:.2f}:1")
    real = None
    if recordings.is_dir():
        real = archive(arrivals_in_turn(recorded(recordings)))
        _tell(f"recorded: {real.rows} messages, {real.ratio:.2f}:1, peer {real.peer_ratio:.2f}:1")
    else:
        _tell(f"no recordings at {recordings}: simulated messages alone")
    return _result(made, real)


def simulated(devices: int, interval_s: int, hours: float) -> list[Message]:
    """What `zenthos simulate` sends of those hours, outages and duplicates included."""
    options = jobs.SimulateOptions(
        devices=devices, days=hours / 24, interval_s=interval_s, until=UNTIL, faults=FAULTS
    )
    collector = Collector()

    async def nothing(_: object) -> None:
        """Irrigation is no message."""

    async def run() -> None:
        plan = jobs.plan_simulation(options, UNTIL.timestamp())
        await Simulation(plan, collector, nothing, lambda _: None, asyncio.Event()).run()

    asyncio.run(run())
    return collector.messages


def recorded(folder: Path) -> list[Message]:
    """What `zenthos replay` sends of the recordings in a folder."""
    mapping = load_mapping(MAPPING)
    found = read_recordings(mapping, [folder])
    model = mapping.rules.device_model
    plan = replay.Plan(
        devices=tuple(Device(recording.device_id, model) for recording in found),
        recordings=tuple(found),
        salt="bench",
    )
    collector = Collector()
    asyncio.run(replay.replay(plan, collector, lambda _: None, asyncio.Event()))
    return collector.messages


class _Timed(msgspec.Struct):
    timestamp: float


def arrivals_as_sent(messages: list[Message]) -> pl.DataFrame:
    """Rows of the outbox: received up to a second after the newest reading yet (rule 2)."""
    rng = random.Random(SEED)
    timestamp = msgspec.json.Decoder(_Timed)
    now = 0.0
    received = []
    for message in messages:
        now = max(now, timestamp.decode(message.payload).timestamp)
        received.append(now + rng.random())
    return _outbox(messages, received)


def arrivals_in_turn(messages: list[Message]) -> pl.DataFrame:
    """Rows of the outbox, received at REPLAY_RATE (rule 2)."""
    rng = random.Random(SEED)
    start = UNTIL.timestamp()
    return _outbox(
        messages, [start + (n + rng.random()) / REPLAY_RATE for n in range(len(messages))]
    )


def _outbox(messages: list[Message], received: list[float]) -> pl.DataFrame:
    arrived = pl.from_epoch(pl.Series([int(s * 1e6) for s in received]), "us")
    batch = pl.col("received_at").dt.truncate(f"{int(COMMIT_S * 1000)}ms")
    return (
        pl.DataFrame(
            {
                "topic": [message.topic for message in messages],
                "payload": [message.payload for message in messages],
                "received_at": arrived.dt.replace_time_zone("UTC"),
            }
        )
        .with_columns(
            ingested_at=batch + timedelta(seconds=COMMIT_S),
            qos=pl.lit(1),
            retain=pl.lit(value=False),
            redelivered=pl.lit(value=False),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .sort("received_at", maintain_order=True)
    )


def archive(outbox: pl.DataFrame) -> Archived:
    """Encode, decode and read each hour of receipt (rules 3 and 4)."""
    parts = [_archive(hour) for hour in _hours(outbox)]
    return Archived(
        rows=sum(part.rows for part in parts),
        payload_bytes=sum(part.payload_bytes for part in parts),
        object_bytes=sum(part.object_bytes for part in parts),
        peer_bytes=sum(part.peer_bytes for part in parts),
        encode_s=sum(part.encode_s for part in parts),
        decode_s=sum(part.decode_s for part in parts),
        read_s=sum(part.read_s for part in parts),
        exact=all(part.exact for part in parts),
    )


def _hours(outbox: pl.DataFrame) -> Iterator[pl.DataFrame]:
    hour = outbox["received_at"].dt.truncate("1h")
    return iter(outbox.with_columns(hour=hour).partition_by("hour", include_key=False))


def _archive(frame: pl.DataFrame) -> Archived:
    started = time.perf_counter()
    data = codec.encode(frame)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    restored = time.perf_counter()
    parsed = read_telemetry(data)
    read = time.perf_counter()
    exact = decoded.equals(codec.in_order(frame).select(SCHEMA.names()))
    return Archived(
        rows=len(parsed.readings) + len(parsed.malformed),
        payload_bytes=int(frame["payload"].bin.size().sum()),
        object_bytes=len(data),
        peer_bytes=len(parquet.encode(frame)),
        encode_s=encoded - started,
        decode_s=restored - encoded,
        read_s=read - restored,
        exact=exact,
    )


def _result(made: Archived, real: Archived | None) -> ArchiveResult:
    sets = [made] if real is None else [made, real]
    worst = min(sets, key=lambda archived: archived.ratio)
    rows = sum(archived.rows for archived in sets)
    return ArchiveResult(
        rows=rows,
        byte_exact=all(archived.exact for archived in sets),
        ratio=round(worst.ratio, 2),
        peer_ratio=round(worst.peer_ratio, 2),
        ratio_simulated=round(made.ratio, 2),
        peer_ratio_simulated=round(made.peer_ratio, 2),
        ratio_real=None if real is None else round(real.ratio, 2),
        peer_ratio_real=None if real is None else round(real.peer_ratio, 2),
        encode_rows_per_s=round(rows / sum(archived.encode_s for archived in sets)),
        decode_rows_per_s=round(rows / sum(archived.decode_s for archived in sets)),
        read_rows_per_s=round(rows / sum(archived.read_s for archived in sets)),
    )


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
