"""Sends an object of the blob store, whole or in part, in chunks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO, Final

from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from ota_api.problems import problem
from ota_api.ranges import Part, UnsatisfiableRangeError, choose_part, matches_etag
from zenthos_core.blobs import BlobStore

CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class StoredFile:
    """An object that never changes under its key."""

    bucket: str
    key: str
    size: int
    sha256: str
    immutable_url: bool
    """Whether the URL asked for will always name this file; `latest` will not."""

    @property
    def etag(self) -> str:
        """Strong: the content's hash."""
        return f'"{self.sha256}"'

    @property
    def headers(self) -> dict[str, str]:
        """What every answer about this file carries."""
        fresh = "private, max-age=31536000, immutable" if self.immutable_url else "no-cache"
        name = self.key.replace("/", "-")
        return {
            "ETag": self.etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": fresh,
            "Vary": "Accept, Authorization",
            "Content-Disposition": f'attachment; filename="{name}"',
        }


async def send_file(request: Request, store: BlobStore, file: StoredFile) -> Response:
    """Answer 200, 206, 304 or 416.

    Raises:
        BlobNotFoundError: where the store has lost it.
    """
    asked = request.headers
    if matches_etag(asked.get("if-none-match"), file.etag):
        return Response(None, HTTPStatus.NOT_MODIFIED, file.headers)
    range_header = asked.get("range") if request.method == "GET" else None
    try:
        part = choose_part(
            file.size, file.etag, range_header=range_header, if_range=asked.get("if-range")
        )
    except UnsatisfiableRangeError:
        return problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"the file has {file.size} bytes: ask for a range within them",
            headers={"Content-Range": f"bytes */{file.size}"},
        )
    return await _send_part(request, store, file, part)


async def _send_part(
    request: Request, store: BlobStore, file: StoredFile, part: Part | None
) -> Response:
    first, end = part or Part(0, file.size)
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    headers = file.headers | {"Content-Length": str(end - first)}
    if part is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{file.size}"
    source = await to_thread.run_sync(store.open, file.bucket, file.key)
    if request.method == "HEAD":
        source.close()
        return Response(None, status, headers, "application/octet-stream")
    chunks = _read_chunks(source, first, end)
    return StreamingResponse(chunks, status, headers, "application/octet-stream")


async def _read_chunks(source: BinaryIO, first: int, end: int) -> AsyncIterator[bytes]:
    with source:
        await to_thread.run_sync(source.seek, first)
        left = end - first
        while left > 0:
            chunk = await to_thread.run_sync(source.read, min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError(f"the object ends {left} bytes early")
            left -= len(chunk)
            yield chunk


def wants_binary(request: Request, download: bool) -> bool:
    """Whether the client asks for the file rather than for what is known of it."""
    accepted = (part.partition(";")[0] for part in request.headers.get("accept", "").split(","))
    return download or "application/octet-stream" in (a.strip().lower() for a in accepted)
