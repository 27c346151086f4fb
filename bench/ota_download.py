"""Downloads from the folder store: our server against Starlette's FileResponse, and slow clients.

Both serve the same bytes to the same generator with the same `Range`, in turns; medians count. Ours
also verifies a device's token, asks the database whether it holds, and looks the release up.
"""

import json
import os
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.ota_load import Order, Outcome
from bench.ota_server import OtaServer, running_ota
from bench.process import BenchError, Helper, cpu_s, helpers, peak_rss_mib
from bench.servers import Server, free_port
from zenthos_cli.stack.probes import port_open

CLIENTS: Final = 100
REPEAT: Final = 10
ROUNDS: Final = 5
BODY_BYTES: Final = 1_000_000
SLOW_CLIENTS: Final = 1_000
SLOW_RELEASES: Final = 4
SLOW_BODY_BYTES: Final = 4 * 1024 * 1024
SLOW_S: Final = 20.0
SLOW_BYTES_PER_S: Final = 4096
_MIB: Final = 1024 * 1024


def run(folder: Path) -> dict[str, float]:
    """The figures, measured in a folder of its own.

    Raises:
        BenchError: a download failed or broke off.
    """
    with running_ota(folder, SLOW_CLIENTS) as ota, helpers("bench.ota_load", ()) as h:
        try:
            figures = _measure_speed(folder, ota, h[0])
            held = _hold_slow_clients(ota, h[0])
        except BenchError as error:
            raise BenchError(f"{error}; the server's log ends: {ota.server.log_tail()}") from None
        return {
            **figures,
            "slow_clients_held": held,
            "peak_rss_mib": peak_rss_mib(ota.server.pid),
        }


def _measure_speed(folder: Path, ota: OtaServer, load: Helper) -> dict[str, float]:
    binary = random.Random(1).randbytes(BODY_BYTES)
    (folder / "files").mkdir()
    (folder / "files/blob").write_bytes(binary)
    path = ota.publish(1, binary)
    ours = [_request(path, ota.device_token(number)) for number in range(SLOW_CLIENTS)]
    port = free_port()
    peer = _peer(port, folder)
    try:
        peer.start()
        theirs = [_request("/files/blob", "")]
        speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
        costs: dict[str, list[float]] = {"ours": [], "theirs": []}
        pids = {"ours": ota.server.pid, "theirs": peer.pid}
        for round_number in range(ROUNDS + 1):
            for name, at, requests in (("ours", ota.port, ours), ("theirs", port, theirs)):
                order = Order(at, requests, CLIENTS, REPEAT, BODY_BYTES)
                before = cpu_s(pids[name])
                outcome = _carry_out(load, order)
                if round_number:  # the first warms both up
                    speeds[name].append(outcome.bodies * BODY_BYTES / _MIB / outcome.seconds)
                    costs[name].append((cpu_s(pids[name]) - before) * 1000 / outcome.bodies)
    finally:
        peer.stop()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "download_mib_s": round(medians["ours"], 1),
        "fileresponse_mib_s": round(medians["theirs"], 1),
        "vs_fileresponse": round(medians["ours"] / medians["theirs"], 2),
        "cpu_ms_per_mb": round(statistics.median(costs["ours"]), 2),
        "fileresponse_cpu_ms_per_mb": round(statistics.median(costs["theirs"]), 2),
    }


def _hold_slow_clients(ota: OtaServer, load: Helper) -> int:
    """How many clients that read a little at a time got all they asked for."""
    binaries = [random.Random(2 + n).randbytes(SLOW_BODY_BYTES) for n in range(SLOW_RELEASES)]
    paths = [ota.publish(2 + n, binary) for n, binary in enumerate(binaries)]
    requests = [
        _request(paths[number % len(paths)], ota.device_token(number))
        for number in range(SLOW_CLIENTS)
    ]
    order = Order(
        ota.port, requests, SLOW_CLIENTS, 1, SLOW_BODY_BYTES, SLOW_S, SLOW_BYTES_PER_S
    )  # fmt: skip
    return _carry_out(load, order).bodies


def _carry_out(load: Helper, order: Order) -> Outcome:
    load.tell(json.dumps(asdict(order)))
    answer: Mapping[str, Any] = json.loads(load.read_line())
    outcome = Outcome(**answer)
    if outcome.errors:
        raise BenchError(f"{len(outcome.errors)} downloads failed, such as: {outcome.errors[0]}")
    return outcome


def _request(path: str, token: str) -> str:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nRange: bytes=0-\r\n{authorization}\r\n"


def _peer(port: int, folder: Path) -> Server:
    return Server(
        "peer",
        [sys.executable, "-m", "bench.ota_peer", str(port), str(folder / "files")],
        folder,
        is_ready=port_open(port),
        stop_signal=signal.SIGTERM,
        environment=dict(os.environ),
    )


def main() -> None:
    """Print the figures as one JSON object."""
    with tempfile.TemporaryDirectory(prefix="zenthos-bench-") as folder:
        print(json.dumps(run(Path(folder))))


if __name__ == "__main__":
    main()
