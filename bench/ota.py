"""Check-ins of a fleet: our server against a FastAPI route that does one indexed SELECT.

Each round, 10,000 devices ask once for their latest release over 32 connections, each with a token
of its own; then as many requests go to the peer's routes, by the same generator, on the same
Postgres. Medians count. The first round is the warm-up, in which each device is offered its release
for the first time, which is written. Downloads: `bench.ota_download`.
"""

import json
import os
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import ota_download
from bench.check_in_load import Order, Outcome
from bench.ota_server import DEVICE_MODEL, MODEL_NAME, OtaServer, running_ota
from bench.process import BenchError, Helper, cpu_s, helpers, peak_rss_mib
from bench.servers import Server, free_port
from zenthos_cli.stack.probes import http_ok

DEVICES: Final = 10_000
CONNECTIONS: Final = 32
ROUNDS: Final = 5
RELEASES: Final = ((1, 100), (2, 100), (3, 10))
"""Counter and percentage: one device in ten is offered the third, the others the second."""
SEED: Final = 5
OURS, SIGNED, SELECT, BARE = "check-in", "check-in, signed", "one SELECT", "bare JSON"


@dataclass(frozen=True)
class CheckInResult:
    """Medians over the rounds; p99 is the worst round's."""

    checkin_per_s: int
    p50_ms: float
    p99_ms: float
    signed_per_s: int
    first_offer_per_s: int
    select_per_s: int
    bare_json_per_s: int
    vs_select: float
    cpu_us_per_checkin: float
    load_cpu_us_per_request: float
    checkin_rss_mib: float
    devices: int
    connections: int
    rounds: int


def run_ota_bench(*, rounds: int = ROUNDS, downloads: bool = True) -> dict[str, float]:
    """Check-ins, then downloads, each on servers of its own.

    Raises:
        BenchError: a request was answered with another status than 200.
    """
    with _folder() as folder:
        check_ins = _measure_check_ins(folder, rounds)
    figures: dict[str, float] = msgspec.to_builtins(check_ins)
    if downloads:
        with _folder() as folder:
            figures |= ota_download.run(folder)
    _print(figures)
    return figures


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zenthos-bench-") as name:
        yield Path(name)


def _measure_check_ins(folder: Path, rounds: int) -> CheckInResult:
    with (
        running_ota(folder, DEVICES, {"ZENTHOS_LOG_LEVEL": "INFO"}) as ota,
        _running_peer(folder, ota) as peer_port,
        helpers("bench.check_in_load", ()) as [load],
    ):
        _publish(ota)
        orders = _orders(folder, ota, peer_port)
        first = _carry_out(load, orders[OURS])
        for name in (SIGNED, SELECT, BARE):
            _carry_out(load, orders[name])
        outcomes: dict[str, list[Outcome]] = {name: [] for name in orders}
        used_s: list[float] = []
        for number in range(rounds):
            for name, order in orders.items():
                before = cpu_s(ota.server.pid)
                outcomes[name].append(_carry_out(load, order))
                if name == OURS:
                    used_s.append(cpu_s(ota.server.pid) - before)
            latest = {name: round(DEVICES / o[-1].seconds) for name, o in outcomes.items()}
            print(f"round {number + 1}: {latest}", file=sys.stderr)
        return _summarise(outcomes, first, used_s, peak_rss_mib(ota.server.pid))


def _publish(ota: OtaServer) -> None:
    """Releases of one model, and others that do not matter; devices run the first."""
    for counter, percentage in RELEASES:
        path = ota.publish(counter, b"weights" * counter, name=MODEL_NAME, percentage=percentage)
        if counter == 1:
            version = path.rsplit("/", 1)[1].partition("?")[0]
            with psycopg.connect(ota.database_url, autocommit=True) as connection:
                connection.execute("UPDATE devices SET model_version = %s", [version])
                connection.execute("VACUUM ANALYZE devices")
    for counter in range(10, 15):
        ota.publish(counter, b"others" * counter)


def _orders(folder: Path, ota: OtaServer, peer_port: int) -> dict[str, Order]:
    path = f"/models/{DEVICE_MODEL}/{MODEL_NAME}/latest"
    order = random.Random(SEED).sample(range(DEVICES), DEVICES)
    ours, signed, select = [], [], []
    for number in order:
        token = f"Authorization: Bearer {ota.device_token(number)}\r\n"
        ours.append(_request(path, token))
        signed.append(_request(f"{path}?nonce=nonce-of-device-{number:05}", token))
        select.append(_request(f"/select/bench-{number:05}", ""))
    requests = {
        OURS: (ota.port, ours),
        SIGNED: (ota.port, signed),
        SELECT: (peer_port, select),
        BARE: (peer_port, [_request("/bare", "")] * DEVICES),
    }
    orders = {}
    for number, (name, (port, texts)) in enumerate(requests.items()):
        file = folder / f"requests-{number}.json"
        file.write_text(json.dumps(texts))
        orders[name] = Order(port, str(file), CONNECTIONS)
    return orders


def _request(path: str, headers: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: ota\r\nAccept: application/json\r\n{headers}\r\n"


@contextmanager
def _running_peer(folder: Path, ota: OtaServer) -> Iterator[int]:
    port = free_port()
    peer = Server(
        "peer",
        [sys.executable, "-m", "bench.select_peer", str(port), ota.database_url],
        folder,
        is_ready=http_ok(f"http://127.0.0.1:{port}/bare"),
        stop_signal=signal.SIGTERM,
        environment=os.environ,
    )
    try:
        peer.start()
        yield port
    finally:
        peer.stop()


def _carry_out(load: Helper, order: Order) -> Outcome:
    load.tell(msgspec.json.encode(order).decode())
    outcome = msgspec.json.decode(load.read_line(), type=Outcome)
    if outcome.statuses != {"200": DEVICES}:
        raise BenchError(f"not all were answered with 200: {outcome.statuses}")
    return outcome


def _summarise(
    outcomes: Mapping[str, list[Outcome]], first: Outcome, used_s: list[float], rss_mib: float
) -> CheckInResult:
    rates = {
        name: statistics.median(DEVICES / outcome.seconds for outcome in each)
        for name, each in outcomes.items()
    }
    ours = outcomes[OURS]
    return CheckInResult(
        checkin_per_s=round(rates[OURS]),
        p50_ms=round(statistics.median(outcome.p50_ms for outcome in ours), 2),
        p99_ms=round(max(outcome.p99_ms for outcome in ours), 2),
        signed_per_s=round(rates[SIGNED]),
        first_offer_per_s=round(DEVICES / first.seconds),
        select_per_s=round(rates[SELECT]),
        bare_json_per_s=round(rates[BARE]),
        vs_select=round(rates[OURS] / rates[SELECT], 3),
        cpu_us_per_checkin=round(1e6 * statistics.median(used_s) / DEVICES, 1),
        load_cpu_us_per_request=round(
            1e6 * statistics.median(outcome.cpu_s for outcome in ours) / DEVICES, 1
        ),
        checkin_rss_mib=rss_mib,
        devices=DEVICES,
        connections=CONNECTIONS,
        rounds=len(ours),
    )


def _print(figures: Mapping[str, float]) -> None:
    table = Table("figure", "value", title="OTA")
    for name, value in figures.items():
        table.add_row(name, f"{value:g}")
    Console(stderr=False).print(table)
