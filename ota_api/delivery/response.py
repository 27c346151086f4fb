"""A stored binary as the answer to a request: straight from blocks in memory to the connection.

Nothing waits in a thread for a client, and a client holds no file: one that is slow holds one
block. A download ends once its connection has taken all of it, and not before: no next request of
the same connection is looked at until then. Whether the connection still stands, the server says
(ota_api/server.py); where it does not say, a client that has gone is sent to as if it were there.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from ota_api.delivery.admission import Admission
from ota_api.delivery.blocks import BLOCK_BYTES, BlockCache, StoredFile
from ota_api.delivery.tally import ABORTED, CUT, FAILED, FINISHED, TALLY
from ota_api.ranges import Part

CONNECTION: Final = "zenthos:connection"
"""The ASGI extension that holds the connection's transport."""


class BlobResponse(Response):
    """Part of a file, or all of it; for HEAD its headers."""

    media_type = "application/octet-stream"

    def __init__(
        self,
        blocks: BlockCache,
        admission: Admission,
        file: StoredFile,
        part: Part,
        *,
        device: str | None,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(None, status, headers)
        self._blocks = blocks
        self._admission = admission
        self._file = file
        self._part = part
        self._device = device

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            BusyError, ThrottledError, BlobNotFoundError, ArchiveError: before anything is sent.
        """
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        with self._admission.admit(self._device):
            await self._blocks.get(self._file, self._part.first // BLOCK_BYTES)
            await send(start)
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            await self._send_part(scope, receive, send)

    async def _send_part(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: asyncio.Transport | None = scope.get("extensions", {}).get(CONNECTION)
        outcome, position = FAILED, self._part.first
        try:
            _hold_back(connection, 0)
            while position < self._part.end:
                piece = await self._next_piece(position)
                position += len(piece)
                message = _body(piece, more=True)
                if connection is not None and not connection.get_write_buffer_size():
                    await send(message)  # there is nothing to wait for: no clock is needed
                else:
                    async with asyncio.timeout(self._admission.patience_s(len(piece))):
                        await send(message)
                if position < self._part.end and connection and connection.is_closing():
                    outcome = ABORTED
                    return
            async with asyncio.timeout(self._admission.patience_s(BLOCK_BYTES)):
                await send(_body(b"", more=True))  # waits for the last piece to be taken
            if connection and connection.is_closing():
                outcome = ABORTED
                return
            await send(_body(b"", more=False))
            _hold_back(connection, None)
            outcome = FINISHED
        except TimeoutError:
            outcome = CUT
            await _cut(connection, receive)
        finally:
            TALLY.ended[outcome] += 1
            TALLY.sent_bytes += position - self._part.first

    async def _next_piece(self, position: int) -> bytes | memoryview:
        block = await self._blocks.get(self._file, position // BLOCK_BYTES)
        begin = position % BLOCK_BYTES
        most = min(self._admission.piece_bytes(self._device), self._part.end - position)
        piece = block if most >= len(block) and not begin else memoryview(block)[begin:][:most]
        await self._admission.pace(self._device, len(piece))
        return piece


def _hold_back(connection: asyncio.Transport | None, most_bytes: int | None) -> None:
    """Have each send wait while more than so many bytes are left of those before."""
    if connection is not None and not connection.is_closing():
        connection.set_write_buffer_limits(most_bytes)


def _body(piece: bytes | memoryview, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def _cut(connection: asyncio.Transport | None, receive: Receive) -> None:
    """Throw away what the client has not taken, and wait until the server has noticed."""
    if connection is None:
        raise TimeoutError("the client takes less than ZENTHOS_OTA_MIN_BYTES_PER_S")
    connection.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
