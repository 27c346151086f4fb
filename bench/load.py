"""A fleet at a steady rate, every device with a connection of its own.

`python -m bench.load PORT LOAD FILE` takes the load as JSON, opens the connections, says that it
is ready, starts when released and ends when the broker has acknowledged everything. FILE is then
what COPY reads: message id, time of publication, phase. The last line of output is a `LoadReport`.

Rules:

1. Message k of the steady load is due at k / rate and belongs to device k mod connections, so that
   devices are spread evenly over the interval. A spike is spread evenly over its second.
2. The time of publication is read after the packet is made, just before the socket gets it.
3. Nobody waits for an acknowledgement; they are read every 50 ms.
"""

import gc
import heapq
import select
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.messages import count_acknowledgements, device_id, fill, message_ids, packet_template
from bench.process import helpers, wait_for_release
from bench.publisher import connect
from zenthos_core import mqtt

SPIKE_S: Final = 1.0
WARM_UP, STEADY, SPIKE = "warm-up", "steady", "spike"
LEAD_S: Final = 0.1
READ_EVERY_S: Final = 0.05
SILENCE_S: Final = 60.0
MARGIN_S: Final = 120.0
"""For the broker to acknowledge what was sent, and for the generator to write down when."""

_READ_BYTES: Final = 4096
_BATCH: Final = 1_000


class Load(msgspec.Struct, frozen=True):
    """What to send: each device a message an interval, and a spike in the middle."""

    connections: int
    interval_s: float
    warm_up_s: float
    seconds: float
    spike: int = 0
    seed: int = 0

    @property
    def rate_per_s(self) -> float:
        """Messages of the steady load a second."""
        return self.connections / self.interval_s

    @property
    def spike_at_s(self) -> float:
        """When the spike begins."""
        return self.warm_up_s + self.seconds / 2

    def ids(self) -> Iterator[bytes]:
        """The ids of its messages, in the order of `schedule`."""
        return message_ids(f"load/{self.seed}", sum(1 for _ in schedule(self)))


class Send(NamedTuple):
    """One message: when it is due, seconds from the start, by which device, in which phase."""

    due_s: float
    device: int
    phase: str


class LoadReport(msgspec.Struct, frozen=True):
    """How well the load was sent."""

    started: float
    """Epoch seconds of the schedule's zero."""
    messages: int
    send_lateness_p99_ms: float
    cpu_us_per_message: float


def schedule(load: Load) -> Iterator[Send]:
    """All messages in order of time, by rule 1."""
    return heapq.merge(_steady(load), _spike(load))


def _steady(load: Load) -> Iterator[Send]:
    for k in range(int((load.warm_up_s + load.seconds) * load.rate_per_s)):
        due_s = k / load.rate_per_s
        phase = WARM_UP if due_s < load.warm_up_s else STEADY
        yield Send(due_s, k % load.connections, phase)


def _spike(load: Load) -> Iterator[Send]:
    for k in range(load.spike):
        yield Send(load.spike_at_s + k * SPIKE_S / load.spike, k % load.connections, SPIKE)


class Fleet:
    """The devices' connections."""

    def __init__(self, port: int, devices: int) -> None:
        self._templates = [packet_template(number) for number in range(devices)]
        self._sent = array("q", [0]) * devices
        self._sockets = [connect(port, device_id(number)) for number in range(devices)]
        self._by_descriptor = {each.fileno(): each for each in self._sockets}
        self._rests: dict[int, bytes] = {}
        self._epoll = select.epoll()
        for each in self._sockets:
            each.setblocking(False)
            self._epoll.register(each, select.EPOLLIN)
        self.acknowledged = 0

    def send(self, device: int, message_id: bytes) -> float:
        """Publish one message; returns when, by rule 2."""
        sent, now_s = self._sent[device], int(time.time())
        packet = fill(self._templates[device], sent, message_id, now_s, sent)
        self._sent[device] = sent + 1
        published = time.time()
        if self._sockets[device].send(packet) < len(packet):
            raise TimeoutError(f"the broker has stopped reading from {device_id(device)}")
        return published

    def read(self, timeout_s: float = 0.0) -> bool:
        """Take in the acknowledgements that have come; False where there were none."""
        ready = self._epoll.poll(timeout_s, _BATCH)
        for descriptor, _ in ready:
            with suppress(BlockingIOError):
                data = self._by_descriptor[descriptor].recv(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the broker closed a device's connection")
                count, rest = count_acknowledgements(self._rests.pop(descriptor, b"") + data)
                self.acknowledged += count
                if rest:
                    self._rests[descriptor] = rest
        return bool(ready)

    def close(self) -> None:
        """Leave in good order."""
        self._epoll.close()
        for each in self._sockets:
            with suppress(OSError):  # whoever is gone has left already
                each.send(mqtt.DISCONNECT)
            each.close()


def send_all(fleet: Fleet, sends: list[Send], ids: list[bytes]) -> tuple[float, "array[float]"]:
    """Send by the schedule; returns its start and each message's time of publication."""
    published = array("d")
    started = time.time() + LEAD_S
    read_at = started
    for (due_s, device, _), message_id in zip(sends, ids, strict=True):
        due = started + due_s
        while (wait_s := due - time.time()) > 0:
            if time.time() >= read_at:
                fleet.read()
                read_at = time.time() + READ_EVERY_S
            else:
                time.sleep(min(wait_s, READ_EVERY_S))
        published.append(fleet.send(device, message_id))
    while fleet.acknowledged < len(sends):
        if not fleet.read(SILENCE_S):
            raise TimeoutError(f"the broker acknowledged nothing for {SILENCE_S} s")
    return started, published


def send_load(port: int, load: Load, file: Path) -> LoadReport:
    """Run the generator; `file` then says when each message was published, for COPY."""
    arguments = (port, msgspec.json.encode(load).decode(), file)
    with helpers("bench.load", arguments) as [generator]:
        output = generator.finish(load.warm_up_s + load.seconds + MARGIN_S)
    return msgspec.json.decode(output, type=LoadReport)


def main() -> None:
    """Connect, report ready, wait for the start, send, report."""
    port, load = int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Load)
    sends, ids = list(schedule(load)), list(load.ids())
    fleet = Fleet(port, load.connections)
    gc.freeze()
    gc.disable()
    wait_for_release()
    cpu_before = time.process_time()
    started, published = send_all(fleet, sends, ids)
    cpu_s = time.process_time() - cpu_before
    fleet.close()
    lines = [
        f"{message_id.decode()}\t{at:.6f}\t{send.phase}\n"
        for message_id, at, send in zip(ids, published, sends, strict=True)
    ]
    Path(sys.argv[3]).write_text("".join(lines))
    late = sorted(at - started - send.due_s for at, send in zip(published, sends, strict=True))
    report = LoadReport(
        started=started,
        messages=len(sends),
        send_lateness_p99_ms=round(1e3 * late[len(late) * 99 // 100], 2),
        cpu_us_per_message=round(1e6 * cpu_s / len(sends), 1),
    )
    print(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
