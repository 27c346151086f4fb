"""Publishers share the messages between them, and none gets ahead of the database."""

from bench import publisher
from bench.process import Helper
from zenthos_core import mqtt
from zenthos_core.messages import Telemetry, parse_payload


class Told(Helper):
    """A helper that is no process and remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[object] = []

    def tell(self, line: object) -> None:
        self.lines.append(line)


def readings(messages: int, which: int) -> list[Telemetry]:
    data = b"".join(data for data, _ in publisher.encode_chunks(messages, 0, which))
    packets = mqtt.PacketReader().feed(data)
    assert all(isinstance(packet, mqtt.Publish) for packet in packets)
    parsed = [parse_payload("telemetry", p.payload) for p in packets if isinstance(p, mqtt.Publish)]
    return [reading for reading in parsed if isinstance(reading, Telemetry)]


def test_each_message_is_one_publishers_and_each_device_is_one_publishers() -> None:
    each = [readings(2_501, which) for which in range(publisher.PUBLISHERS)]
    ids = [str(reading.message_id).encode() for one in each for reading in one]
    assert sorted(ids) == sorted(publisher.published_ids(2_501, 0))
    assert len(set(ids)) == 2_501
    devices = [{reading.device_id for reading in one} for one in each]
    assert sum(map(len, devices)) == len(set.union(*devices)) == publisher.DEVICES


def test_a_devices_readings_are_counted_without_a_gap() -> None:
    counters: dict[str, list[int | None]] = {}
    for reading in readings(2_501, 0):
        counters.setdefault(reading.device_id, []).append(reading.seq)
    for seqs in counters.values():
        assert seqs[0] is not None
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_publishers_stay_within_the_window() -> None:
    helpers, messages = [Told(), Told()], 3 * publisher.WINDOW + 1
    fleet = publisher.Publishers(list(helpers), messages)
    fleet.start()
    fleet.stored(publisher.GRANT - 1)
    fleet.stored(publisher.GRANT)
    fleet.stored(messages)
    fleet.stored(messages)
    first = publisher.WINDOW // 2
    limits = [first, first + publisher.GRANT // 2, messages // 2 + 1]
    assert [helper.lines for helper in helpers] == [limits, limits]


def test_what_is_left_is_granted_however_little() -> None:
    helper = Told()
    fleet = publisher.Publishers([helper], publisher.WINDOW + 1)
    fleet.start()
    fleet.stored(1)
    assert helper.lines[-1] == publisher.WINDOW // 2 + 1
