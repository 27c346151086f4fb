"""Rules of ingest/spool.py, on a real disk."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.spool import BEGINNING, Position, Spool, SpoolFullError, pack, unpack
from tests.ingest.messages import NOW, publish, telemetry
from zenthos_core.errors import ConfigurationError
from zenthos_core.mqtt import Publish

MIB = 2**20


def messages(count: int, first: int = 0) -> list[Publish]:
    return [
        publish(telemetry(seq=n), received_at=NOW + n, packet_id=0)
        for n in range(first, first + count)
    ]


def read(spool: Spool, after: Position = BEGINNING) -> list[Publish]:
    return [entry.publish for entry in spool.read(after)]


@given(st.binary(max_size=60), st.binary(max_size=200), st.floats(0, 4e9), st.integers(0, 255))
def test_a_record_is_read_as_it_was_packed(
    topic: bytes, payload: bytes, received_at: float, flags: int
) -> None:
    message = Publish(topic, payload, received_at, 0, flags)
    record = pack(message)
    assert unpack(b"before" + record, 6) == (message, 6 + len(record))
    for cut in (0, 1, len(record) // 2, len(record) - 1):
        assert unpack(record[:cut], 0) is None


@given(st.binary(max_size=100))
def test_noise_is_no_record(noise: bytes) -> None:
    found = unpack(noise, 0)
    assert found is None or pack(found[0]) == noise[: found[1]]


def test_messages_are_read_in_order_from_any_position(tmp_path: Path) -> None:
    sent = messages(10)
    with Spool(tmp_path, MIB) as spool:
        spool.append(sent[:4], NOW)
        spool.append(sent[4:], NOW)
        entries = list(spool.read(BEGINNING))
        assert [entry.publish for entry in entries] == sent
        for index, entry in enumerate(entries):
            assert read(spool, entry.end) == sent[index + 1 :]


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    with Spool(tmp_path, MIB) as spool:
        spool.append(messages(3), NOW)
    with Spool(tmp_path, MIB) as spool:
        spool.append(messages(3, first=3), NOW)
        assert [m.received_at for m in read(spool)] == [NOW + n for n in range(6)]


def test_segments_are_removed_once_they_are_replayed(tmp_path: Path) -> None:
    with Spool(tmp_path, MIB, segment_bytes=1_000) as spool:
        for message in messages(20):
            spool.append([message], NOW)
        entries = list(spool.read(BEGINNING))
        segments = {entry.end.segment for entry in entries}
        assert len(segments) > 3
        spool.remove(entries[9].end)
        assert read(spool, entries[9].end) == [entry.publish for entry in entries[10:]]
        assert len(list(tmp_path.glob("*.spool"))) < len(segments)
        spool.clear()
        assert spool.size_bytes == 0
        assert list(tmp_path.glob("*.spool")) == []
        spool.append(messages(1), NOW - 3_600)  # a clock set back: numbers begin anew
        assert len(read(spool)) == 1


def test_numbers_grow_though_the_clock_is_set_back(tmp_path: Path) -> None:
    with Spool(tmp_path, MIB) as spool:
        spool.append(messages(1), NOW)
    with Spool(tmp_path, MIB) as spool:
        spool.append(messages(1, first=1), NOW - 3_600)
        assert [m.received_at for m in read(spool)] == [NOW, NOW + 1]


def test_at_its_bound_it_refuses_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    with Spool(tmp_path, 2_000) as spool:
        spool.append(messages(3), NOW)
        with pytest.raises(SpoolFullError, match="SPOOL_MAX_MB"):
            spool.append(messages(10, first=3), NOW)
        assert len(read(spool)) == 3


@pytest.mark.parametrize("kept_bytes", [1, 20, 150])
def test_a_record_cut_short_by_a_crash_ends_the_segment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept_bytes: int
) -> None:
    with Spool(tmp_path, MIB) as spool:
        spool.append(messages(2), NOW)
    (segment,) = tmp_path.glob("*.spool")
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole[:kept_bytes])
    with Spool(tmp_path, MIB) as spool:
        spool.append(messages(1, first=2), NOW)
        assert [m.received_at for m in read(spool)] == [NOW, NOW + 1, NOW + 2]
    assert "are no record" in caplog.text


def test_a_damaged_record_is_set_aside_with_what_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = messages(3)
    with Spool(tmp_path, MIB) as spool:
        spool.append(sent, NOW)
    (segment,) = tmp_path.glob("*.spool")
    data = bytearray(segment.read_bytes())
    second = len(pack(sent[0]))
    data[second + 40] ^= 1
    segment.write_bytes(data)
    with Spool(tmp_path, MIB) as spool:
        assert read(spool) == sent[:1]
        spool.clear()
    assert segment.with_suffix(".damaged").read_bytes() == bytes(data[second:])
    assert caplog.records[0].levelname == "ERROR"


def test_two_workers_cannot_share_a_folder(tmp_path: Path) -> None:
    with Spool(tmp_path, MIB), pytest.raises(ConfigurationError, match="WORKER_ID"):
        Spool(tmp_path, MIB)
    Spool(tmp_path, MIB).__exit__()


def test_a_disk_that_takes_no_more_keeps_what_was_there(tmp_path: Path) -> None:
    """The limit of a file's size stands in for a full disk: the write ends half-way."""
    program = (
        "import sys; from pathlib import Path;"
        " from ingest.spool import BEGINNING, Spool, SpoolFullError;"
        " from tests.ingest.test_spool import messages, read\n"
        "with Spool(Path(sys.argv[1]), 2**20) as spool:\n"
        "    spool.append(messages(3), 0.0)\n"
        "    try:\n"
        "        spool.append(messages(50), 0.0)\n"
        "    except SpoolFullError as error:\n"
        "        print(error)\n"
        "    print(len(read(spool)))\n"
        "    spool.append(messages(1), 0.0)\n"
        "    print(len(read(spool)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    refusal, before, after = done.stdout.splitlines()
    assert "File too large" in refusal
    assert (before, after) == ("3", "4")
