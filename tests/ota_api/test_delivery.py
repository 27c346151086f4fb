"""Downloads from the folder store: blocks in memory, limits, clients that dawdle or go."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from ota_api.delivery.admission import MIN_PIECE_BYTES, Admission, Limits
from ota_api.delivery.blocks import BLOCK_BYTES, BlockCache, StoredFile
from ota_api.delivery.buckets import MAX_BUCKETS, Bucket, Buckets
from ota_api.delivery.response import BlobResponse
from ota_api.delivery.tally import ABORTED, CUT, FINISHED, TALLY
from ota_api.ranges import Part
from ota_api.server import OpenProtocol
from tests.ota_api.conftest import DEVICE_ID, Ota, running_ota
from tests.waiting import wait_until
from zenthos_core.blobs.folder import FolderStore
from zenthos_core.errors import ArchiveError, BlobNotFoundError, BusyError, ThrottledError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role

PATH = "/models/esp32-s3/irrigation/latest?download=true"
LARGE = random.Random(5).randbytes(12 * 1024 * 1024)
"""More than the kernel keeps for a client that does not read."""


def test_bucket_rule_1_a_burst_then_the_rate() -> None:
    bucket = Bucket(rate_per_s=100, burst=1_000)
    assert bucket.take(1_000, 5.0) == 0
    assert bucket.take(100, 5.0) == 1.0
    assert bucket.take(100, 7.0) == 0
    assert bucket.take(1_000, 1_000.0) == 0, "it holds no more than the burst, which is there again"
    assert bucket.take(1, 1_000.0) == pytest.approx(0.01)


def test_bucket_rule_2_who_comes_later_waits_longer() -> None:
    bucket = Bucket(rate_per_s=10, burst=0)
    assert [bucket.take(10, 0.0) for _ in range(3)] == [1.0, 2.0, 3.0]


def test_bucket_rule_3_a_clock_set_back_changes_nothing() -> None:
    bucket = Bucket(rate_per_s=10, burst=100)
    assert bucket.take(100, 50.0) == 0
    assert bucket.take(10, 10.0) == 1.0


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 10)), min_size=1, max_size=30))
def test_never_more_than_burst_and_rate(takes: list[tuple[int, float]]) -> None:
    bucket, now, sent = Bucket(rate_per_s=50, burst=200), 0.0, 0
    for amount, pause_s in takes:
        now += pause_s
        now += bucket.take(amount, now)
        sent += amount
        assert sent <= 200 + 50 * now + 1e-6


def test_names_are_forgotten_beyond_a_bound() -> None:
    buckets = Buckets(rate_per_s=1, burst=1)
    assert buckets.take("first", 2, 0.0) == 1.0
    for number in range(MAX_BUCKETS):
        buckets.take(str(number), 1, 0.0)
    assert len(buckets._buckets) == MAX_BUCKETS
    assert buckets.take("first", 1, 0.0) == 0


class CountingStore(FolderStore):
    """Counts what is opened."""

    opened = 0

    def open(self, bucket: str, key: str) -> BinaryIO:
        self.opened += 1
        return super().open(bucket, key)


def stored(store: FolderStore, content: bytes, size: int | None = None) -> StoredFile:
    store.put("b", "k", content)
    return StoredFile("b", "k", len(content) if size is None else size, "hash", True)


async def test_a_block_is_read_once_however_many_wait(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    content = LARGE[: BLOCK_BYTES * 3 + 7]
    file, cache = stored(store, content), BlockCache(store, BLOCK_BYTES * 10)
    waiting = [asyncio.create_task(cache.get(file, 3)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    blocks = await asyncio.gather(*waiting[1:])
    assert set(blocks) == {content[BLOCK_BYTES * 3 :]}
    assert await cache.get(file, 3) is blocks[0]
    assert store.opened == 1


async def test_memory_is_bounded_and_what_was_used_last_stays(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    file, cache = stored(store, LARGE[: BLOCK_BYTES * 4]), BlockCache(store, BLOCK_BYTES * 2)
    for number in (0, 1, 0, 2, 0):
        await cache.get(file, number)
    assert (store.opened, cache._held_bytes) == (3, BLOCK_BYTES * 2)
    without = BlockCache(store, 0)
    assert await without.get(file, 1) == await without.get(file, 1)
    assert without._held_bytes == 0


@pytest.mark.parametrize("size", [BLOCK_BYTES + 1, 5, 99])
async def test_a_file_of_another_length_is_not_sent(tmp_path: Path, size: int) -> None:
    store = FolderStore(tmp_path)
    file = stored(store, b"x" * 98, size)
    with pytest.raises(ArchiveError, match=f"98 bytes, {size} were published: restore it"):
        await BlockCache(store, 1_000).get(file, 0)


async def test_a_lost_file_is_an_error_each_time(tmp_path: Path) -> None:
    file = StoredFile("b", "gone", 5, "hash", True)
    cache = BlockCache(FolderStore(tmp_path), 1_000)
    for _ in range(2):
        with pytest.raises(BlobNotFoundError):
            await cache.get(file, 0)


def limits(**changes: float) -> Limits:
    none = dict.fromkeys(Limits.__dataclass_fields__, 0)
    return Limits(**{**none, **changes})  # type: ignore[arg-type]


def test_rule_1_so_many_at_once() -> None:
    admission = Admission(limits(downloads=3, device_downloads=2))
    with admission.admit("a"), admission.admit("a"):
        with pytest.raises(ThrottledError, match="a runs 2 downloads"), admission.admit("a"):
            pass
        with (
            admission.admit("b"),
            pytest.raises(BusyError, match="3 downloads are running"),
            admission.admit(None),
        ):
            pass
    with admission.admit("a"), admission.admit(None), admission.admit(None):
        pass
    assert (admission._running, dict(admission._running_of)) == (0, {})


def test_what_is_held_back_goes_in_small_pieces() -> None:
    assert Admission(limits()).piece_bytes("a") == BLOCK_BYTES
    slow = Admission(limits(device_bytes_per_s=20_000))
    assert (slow.piece_bytes("a"), slow.piece_bytes(None)) == (10_000, BLOCK_BYTES)
    assert Admission(limits(bytes_per_s=10)).piece_bytes("a") == MIN_PIECE_BYTES


@contextmanager
def serving_large(settings: Settings, **changes: Any) -> Iterator[Ota]:
    with running_ota(settings.model_copy(update=changes)) as ota:
        ota.register()
        assert ota.publish(ota.signer.model(LARGE)).status_code == 201
        yield ota


@contextmanager
def client_that_does_not_read(ota: Ota) -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", ota.settings.ota_port))
        token = ota.token(Role.DEVICE, DEVICE_ID)
        head = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(15, socket.MSG_WAITALL) == b"HTTP/1.1 200 OK"
        yield client


def test_a_second_download_of_a_device_waits_for_the_first_to_go(ota_settings: Settings) -> None:
    with serving_large(ota_settings, ota_device_downloads=1) as ota:
        before = TALLY.ended.copy()
        with client_that_does_not_read(ota):
            refused = ota.send("GET", PATH, Role.DEVICE)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert refused.headers["content-type"] == "application/problem+json"
            assert ota.send("GET", PATH, Role.ADMIN).content == LARGE
        wait_until(lambda: ota.send("HEAD", PATH, Role.DEVICE).status_code == 200)
        wait_until(lambda: TALLY.ended - before == {FINISHED: 1, ABORTED: 1})


def test_too_many_at_once_are_asked_to_come_again(ota_settings: Settings) -> None:
    with (
        serving_large(ota_settings, ota_downloads=1) as ota,
        client_that_does_not_read(ota),
    ):
        refused = ota.send("GET", PATH, Role.ADMIN)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


def test_a_client_that_stalls_is_cut(ota_settings: Settings) -> None:
    changes = {
        "ota_min_bytes_per_s": 1_000_000_000,
        "ota_slow_after_s": 0.2,
        "ota_device_downloads": 1,
    }
    before = TALLY.ended[CUT]
    with serving_large(ota_settings, **changes) as ota, client_that_does_not_read(ota) as client:
        wait_until(lambda: ota.send("HEAD", PATH, Role.DEVICE).status_code == 200)
        wait_until(lambda: not TALLY.active)  # the HEAD ends after its answer
        assert TALLY.ended[CUT] == before + 1
        received = 0
        while piece := client.recv(1024 * 1024):
            received += len(piece)
        assert received < len(LARGE)


REQUEST = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def one_file(folder: Path, admission: Admission, blocks: int) -> BlobResponse:
    """The answer to every request: a file of so many blocks, to the device `a`."""
    store, size = FolderStore(folder), blocks * BLOCK_BYTES
    store.put("b", "file", bytes(size))
    return BlobResponse(
        BlockCache(store, size), admission, StoredFile("b", "file", size, "s", True),
        Part(0, size), device="a", status=200, headers={"Content-Length": str(size)},
    )  # fmt: skip


@asynccontextmanager
async def connected(response: BlobResponse) -> AsyncIterator[tuple[socket.socket, ServerState]]:
    """A client of that answer, for whom the kernel keeps next to nothing."""
    config = uvicorn.Config(response, http=OpenProtocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    theirs.setblocking(False)
    with theirs:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: OpenProtocol(config=config, server_state=state, app_state={}), ours
        )
        yield theirs, state


async def test_a_client_that_does_not_take_the_last_piece_is_cut(tmp_path: Path) -> None:
    """A file of one piece has no other."""
    admission = Admission(limits(device_downloads=1, min_bytes_per_s=10**9, slow_after_s=0.2))
    before = TALLY.ended[CUT]
    async with connected(one_file(tmp_path, admission, 1)) as (client, state):
        client.sendall(REQUEST)
        async with asyncio.timeout(60):
            while TALLY.ended[CUT] == before or state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert (TALLY.active, admission._running) == (0, 0)


async def test_a_client_that_goes_in_the_last_piece_has_not_finished(tmp_path: Path) -> None:
    before = TALLY.ended.copy()
    async with connected(one_file(tmp_path, Admission(limits()), 1)) as (client, state):
        client.sendall(REQUEST)
        assert await asyncio.get_running_loop().sock_recv(client, 15) == b"HTTP/1.1 200 OK"
        client.close()
        async with asyncio.timeout(60):
            while state.connections or TALLY.active:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert TALLY.ended - before == {ABORTED: 1}


async def test_downloads_one_after_another_are_one_at_a_time(tmp_path: Path) -> None:
    """Of one connection, each asked for as soon as the last byte of the one before has come."""
    admission = Admission(limits(device_downloads=1))
    before = TALLY.ended.copy()
    async with connected(one_file(tmp_path, admission, 2)) as (client, _):
        for _ in range(10):
            await download(client, 2 * BLOCK_BYTES)
        async with asyncio.timeout(60):
            while TALLY.ended - before != {FINISHED: 10}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_steady_client_is_not_cut_for_what_it_asks_next(tmp_path: Path) -> None:
    """It takes several times the least rate; all of it takes longer than the last piece may."""
    admission = Admission(limits(min_bytes_per_s=BLOCK_BYTES // 2, slow_after_s=0.05))
    async with connected(one_file(tmp_path, admission, 6)) as (client, _):
        for _ in range(10):
            await download(client, 6 * BLOCK_BYTES)


async def download(client: socket.socket, size: int) -> None:
    """Ask, and read slowly what comes."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(client, 1)
    assert head.startswith(b"HTTP/1.1 200"), head
    received = 0
    while received < size:
        piece = await loop.sock_recv(client, min(BLOCK_BYTES // 8, size - received))
        assert piece, f"closed after {received} bytes of {size}"
        received += len(piece)
        await asyncio.sleep(1 / 128)


def test_a_rate_changes_the_pieces_and_not_the_bytes(ota_settings: Settings) -> None:
    changes = {"ota_device_bytes_per_s": 30_000_000, "ota_device_burst_bytes": 10_000_000}
    with serving_large(ota_settings, ota_cache_mb=0, **changes) as ota:
        assert ota.send("GET", PATH, Role.DEVICE).content == LARGE
        part = ota.send("GET", PATH, headers={"Range": "bytes=1000-9999999"})
        assert part.content == LARGE[1000:10_000_000]


def test_a_blob_that_ends_early_is_an_answer_and_no_half_a_file(ota_settings: Settings) -> None:
    with serving_large(ota_settings, ota_cache_mb=0) as ota:
        (path,) = Path(ota_settings.blob_url.removeprefix("file://")).rglob("*.tflite")
        path.write_bytes(LARGE[:-1])
        for method in ("GET", "HEAD"):
            assert ota.send(method, PATH, Role.DEVICE).status_code == 500
        path.unlink()
        assert ota.send("GET", PATH, Role.DEVICE).status_code == 500
