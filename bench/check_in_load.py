"""Requests over keep-alive connections, each the next once the last is answered, by one process.

`python -m bench.check_in_load`: each line of standard input is an Order as JSON, each line of
output its Outcome. It does as little as it can: it shares the machine with what it measures.
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from bench.process import READY

HOST: Final = "127.0.0.1"
_LENGTH: Final = b"content-length: "


@dataclass(frozen=True)
class Order:
    """All requests of a file (a JSON list of texts), once each, over so many connections."""

    port: int
    requests: str
    connections: int


@dataclass
class Outcome:
    """Of an order; latencies are from the request's last byte sent to the answer's last read."""

    seconds: float
    statuses: dict[str, int]
    p50_ms: float
    p99_ms: float
    cpu_s: float


@dataclass
class _Round:
    requests: Iterator[bytes]
    done: asyncio.Future[None]
    open_connections: int
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, round_: _Round) -> None:
        self._round = round_
        self._data = b""
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own has no base
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        head_end = self._data.find(b"\r\n\r\n")
        if head_end < 0:
            return
        at = self._data.find(_LENGTH) + len(_LENGTH)
        length = int(self._data[at : self._data.find(b"\r\n", at)]) if at >= len(_LENGTH) else 0
        if len(self._data) < head_end + 4 + length:
            return
        self._round.seconds.append(time.perf_counter() - self._asked)
        self._round.statuses[self._data[9:12].decode()] += 1
        self._data = b""
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._round.open_connections -= 1
        if not self._round.open_connections and not self._round.done.done():
            self._round.done.set_result(None)

    def _ask(self) -> None:
        request = next(self._round.requests, None)
        if request is None:
            self._transport.close()
            return
        self._asked = time.perf_counter()
        self._transport.write(request)


async def _carry_out(order: Order, texts: list[str]) -> Outcome:
    loop = asyncio.get_running_loop()
    round_ = _Round(
        iter([text.encode() for text in texts]), loop.create_future(), order.connections
    )
    cpu_before = _cpu_s()
    began = time.perf_counter()
    for _ in range(order.connections):
        await loop.create_connection(lambda: _Client(round_), HOST, order.port)
    await round_.done
    seconds = time.perf_counter() - began
    ordered = sorted(round_.seconds) or [0.0]
    return Outcome(
        seconds=seconds,
        statuses=dict(round_.statuses),
        p50_ms=1e3 * ordered[len(ordered) // 2],
        p99_ms=1e3 * ordered[len(ordered) * 99 // 100],
        cpu_s=_cpu_s() - cpu_before,
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Carry out orders until standard input ends."""
    print(READY, flush=True)
    for line in iter(sys.stdin.readline, ""):
        fields: dict[str, Any] = json.loads(line)
        order = Order(**fields)
        texts: list[str] = json.loads(Path(order.requests).read_text())
        outcome = uvloop.run(_carry_out(order, texts))
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
