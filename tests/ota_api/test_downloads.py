"""Downloads: whole, in part, resumed, and by HEAD (RFC 9110)."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api.ranges import Part, UnsatisfiableRangeError, choose_part, matches_etag
from tests.ota_api.conftest import Ota
from tests.ota_api.releases import BINARY
from zenthos_core.tokens import Role

PATH = "/models/esp32-s3/irrigation/latest"
SIZE = len(BINARY)
ETAG = f'"{hashlib.sha256(BINARY).hexdigest()}"'


def test_whole_file(shared_ota: Ota) -> None:
    for options in (
        {"params": {"download": "true"}},
        {"headers": {"Accept": "application/octet-stream"}},
        {"headers": {"Accept": "text/html, Application/Octet-Stream;q=0.9"}},
    ):
        answer = shared_ota.send("GET", PATH, Role.DEVICE, **options)
        assert (answer.status_code, answer.content) == (200, BINARY)
        assert answer.headers["etag"] == ETAG
        assert answer.headers["content-length"] == str(SIZE)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes={SIZE - 1}-{SIZE * 9}", SIZE - 1, SIZE),
        ("BYTES= 5-9", 5, 10),
    ],
)
def test_part(shared_ota: Ota, asked: str, first: int, end: int) -> None:
    headers = {"Range": asked}
    answer = shared_ota.send("GET", f"{PATH}?download=true", Role.DEVICE, headers=headers)
    assert (answer.status_code, answer.content) == (206, BINARY[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - first)


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-5", "bytes=-", "bytes=a-b", "lines=0-5", "bytes=0-1,5-6", "0-5", "bytes=+1-2", ""],
)
def test_range_that_means_nothing_gets_the_whole(shared_ota: Ota, asked: str) -> None:
    answer = shared_ota.send("GET", f"{PATH}?download=true", headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={'9' * 900}-", "bytes=-0"])
def test_range_outside_the_file(shared_ota: Ota, asked: str) -> None:
    answer = shared_ota.send("GET", f"{PATH}?download=true", headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), ('"another"', 200), (f"W/{ETAG}", 200), ("Mon, 23 Nov 2026 00:00:00 GMT", 200)],
)
def test_if_range(shared_ota: Ota, if_range: str, status: int) -> None:
    headers = {"Range": "bytes=10-19", "If-Range": if_range}
    answer = shared_ota.send("GET", f"{PATH}?download=true", headers=headers)
    assert answer.status_code == status
    assert answer.content == (BINARY[10:20] if status == 206 else BINARY)


@pytest.mark.parametrize("known", [ETAG, f"W/{ETAG}", f'"x", {ETAG}', "*"])
def test_file_that_the_client_has(shared_ota: Ota, known: str) -> None:
    answer = shared_ota.send("GET", f"{PATH}?download=true", headers={"If-None-Match": known})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == ETAG


def test_head_has_the_headers_alone(shared_ota: Ota) -> None:
    headers = {"Range": "bytes=0-9"}
    answer = shared_ota.send("HEAD", f"{PATH}?download=true", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["etag"] == ETAG
    assert shared_ota.send("HEAD", PATH).status_code == 200


def test_only_what_never_changes_is_cached(shared_ota: Ota) -> None:
    version = shared_ota.send("GET", PATH).json()["version"]
    fixed = shared_ota.send("HEAD", f"/models/esp32-s3/irrigation/{version}?download=true")
    moving = shared_ota.send("HEAD", f"{PATH}?download=true")
    assert "immutable" in fixed.headers["cache-control"]
    assert moving.headers["cache-control"] == "no-cache"


@given(st.integers(1, 200), st.integers(0, 300), st.integers(0, 300))
def test_parts_lie_within_the_file(size: int, first: int, last: int) -> None:
    header = f"bytes={first}-{last}"
    if first > last:
        assert choose_part(size, "e", range_header=header, if_range=None) is None
    elif first >= size:
        with pytest.raises(UnsatisfiableRangeError):
            choose_part(size, "e", range_header=header, if_range=None)
    else:
        part = choose_part(size, "e", range_header=header, if_range=None)
        assert part == Part(first, min(last, size - 1) + 1)


@given(st.integers(1, 10_000), st.text(max_size=40))
def test_no_header_is_an_error(size: int, text: str) -> None:
    try:
        part = choose_part(size, '"e"', range_header=f"bytes={text}", if_range=None)
    except UnsatisfiableRangeError:
        return
    assert part is None or 0 <= part.first < part.end <= size


def test_no_header_matches_nothing() -> None:
    assert not matches_etag(None, '"e"')
    assert not matches_etag('"f", "g"', '"e"')
