"""Coverage-guided search for bytes that break what decode promises: `fuzz_decode.py [SECONDS]`.

Whatever the topic and the payload are, decode() raises nothing but InvalidMessageError, and what it
takes makes a batch in which it ends once. A crash prints the input and ends with another exit code
than 0.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ingest", "zenthos_core"]):
    from ingest.batch import build_batch
    from ingest.decode import is_downward
    from zenthos_core.mqtt import MqttError, PacketReader

from tests.ingest import messages

SECONDS = 60
MOST_BYTES = 2_048


def one_input(data: bytes) -> None:
    """The first byte says how long the topic is; the rest is the payload."""
    size = data[0] if data else 0
    topic, payload = data[1 : 1 + size], data[1 + size :]
    batch = build_batch([messages.publish(payload, topic)], messages.REGISTRY, 7)
    counted = 0 if is_downward(topic) and not batch.raw else 1
    if batch.received != counted:
        raise AssertionError(f"counted {batch.received} times: {data.hex()}")
    try:
        PacketReader().feed(data)
    except MqttError:
        return


def write_corpus(folder: Path) -> None:
    """Good messages of each type, and every kind of bad one."""
    good = {
        "telemetry": messages.telemetry(),
        "status": messages.status(),
        "inference": messages.inference(),
        "logs": messages.log(),
    }
    seeds = [(messages.topic(kind), payload) for kind, payload in good.items()]
    seeds += [(topic, payload) for _, topic, payload in messages.BAD.values()]
    for number, (topic, payload) in enumerate(seeds):
        if len(payload) < MOST_BYTES:
            (folder / str(number)).write_bytes(bytes((len(topic),)) + topic + payload)


def main() -> None:
    """Search for as many seconds as the argument says."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else str(SECONDS)
    with tempfile.TemporaryDirectory() as corpus:
        write_corpus(Path(corpus))
        options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], f"-artifact_prefix={corpus}/", *options, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
