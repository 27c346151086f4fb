"""The spool by its rules, for any messages, any cut and any clock."""

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.spool import BEGINNING, Position, Spool, pack, unpack
from tests.ingest.messages import publish, telemetry
from zenthos_core.mqtt import Publish

MIB = 2**20

MESSAGES = st.builds(
    Publish,
    st.binary(max_size=40),
    st.binary(max_size=60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.just(0),
    st.integers(0, 255),
)
BATCHES = st.lists(st.lists(MESSAGES, min_size=1, max_size=4), min_size=1, max_size=5)


@given(MESSAGES, st.binary(max_size=20), st.binary(max_size=20))
def test_a_record_is_read_as_it_was_written(message: Publish, before: bytes, after: bytes) -> None:
    record = pack(message)
    assert unpack(before + record + after, len(before)) == (message, len(before) + len(record))


@given(MESSAGES, st.data())
def test_a_record_that_is_cut_or_damaged_is_none(message: Publish, data: st.DataObject) -> None:
    record = pack(message)
    assert unpack(record[: data.draw(st.integers(0, len(record) - 1))], 0) is None
    at = data.draw(st.integers(0, len(record) - 1))
    damaged = bytearray(record)
    damaged[at] ^= data.draw(st.integers(1, 255))
    assert unpack(bytes(damaged), 0) is None


@given(st.binary(max_size=80))
@example(struct.pack(">II", 2**32 - 1, 0) + bytes(40))
def test_no_bytes_are_too_strange(noise: bytes) -> None:
    record = unpack(noise, 0)
    assert record is None or record[1] <= len(noise)


@given(BATCHES, st.data())
def test_what_is_kept_is_read_in_order_from_any_place(
    batches: list[list[Publish]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        for batch in batches:  # each process begins a segment
            with Spool(Path(folder), MIB) as spool:
                spool.append(batch, 1_000.0)
        kept = [message for batch in batches for message in batch]
        with Spool(Path(folder), MIB) as spool:
            entries = list(spool.read(BEGINNING))
            assert [entry.publish for entry in entries] == kept
            done = data.draw(st.integers(1, len(kept)))
            spool.remove(entries[done - 1].end)
            rest = [entry.publish for entry in spool.read(entries[done - 1].end)]
            assert rest == kept[done:]


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_a_segment_cut_at_any_byte_holds_what_is_whole(
    messages: list[Publish], data: st.DataObject
) -> None:
    ends = [sum(len(pack(m)) for m in messages[:n]) for n in range(len(messages) + 1)]
    cut = data.draw(st.integers(0, ends[-1]))
    with TemporaryDirectory() as folder:
        with Spool(Path(folder), MIB) as spool:
            spool.append(messages, 1.0)
        (segment,) = Path(folder).glob("*.spool")
        whole = segment.read_bytes()
        segment.write_bytes(whole[:cut])
        with Spool(Path(folder), MIB) as spool:
            read = [entry.publish for entry in spool.read(BEGINNING)]
            assert read == messages[: sum(end <= cut for end in ends[1:])]
        damaged = segment.with_suffix(".damaged")
        rest = damaged.read_bytes() if damaged.exists() else b""
        assert ends[len(read)] + len(rest) == cut
        assert whole[ends[len(read)] :].startswith(rest)


@pytest.mark.parametrize("later_s", [-50.0, 0.0, 50.0])
def test_a_clock_that_is_set_back_hides_nothing(tmp_path: Path, later_s: float) -> None:
    first, second = publish(telemetry(), packet_id=0), publish(telemetry(), packet_id=0)
    with Spool(tmp_path, MIB) as spool:
        spool.append([first], 1_000.0)
        (entry,) = spool.read(BEGINNING)
        spool.remove(entry.end)
        spool.append([second], 1_000.001 + later_s)
        assert [e.publish for e in spool.read(entry.end)] == [second]


def test_the_place_of_another_machine_hides_nothing(tmp_path: Path) -> None:
    message = publish(telemetry(), packet_id=0)
    with Spool(tmp_path, MIB) as spool:
        spool.append([message], 1_000.0)
        assert [e.publish for e in spool.read(Position(2_000_000, 1))] == [message]
