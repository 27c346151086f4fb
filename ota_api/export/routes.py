"""Export: anyone who may look takes a table away, as one file."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from ota_api.auth import User
from ota_api.export.schemas import MEDIA_TYPES, ExportTable, Selection
from ota_api.export.service import begin_export, list_tables
from ota_api.pagination import Page
from ota_api.resources import Opened

router = APIRouter(tags=["export"])

_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}}
}


async def _slot(_: User, resources: Opened) -> AsyncIterator[AsyncExitStack]:
    """One of the server's exports, and what is closed once it has been sent, or given up."""
    with resources.exports.take():
        async with AsyncExitStack() as stack:
            yield stack


Slot = Annotated[AsyncExitStack, Depends(_slot)]


@router.get("/export")
async def get_export_tables(_: User) -> Page[ExportTable]:
    """The tables that may be exported."""
    return Page(items=list_tables(), next=None)


@router.get("/export/{table:path}", response_class=StreamingResponse, responses=_FILE)
async def get_export(
    slot: Slot, resources: Opened, table: str, selection: Annotated[Selection, Query()]
) -> StreamingResponse:
    """A table, or the days and devices selected, as a file that is written while it is sent.

    An answer that breaks off is no file: it has no length before, and ends with an empty chunk.
    """
    export = await to_thread.run_sync(
        begin_export, resources.settings, resources.store, table, selection
    )
    slot.callback(export.close)
    headers = {
        "Content-Disposition": f'attachment; filename="{export.filename}"',
        "Cache-Control": "no-store",
    }
    chunks = _in_threads(export.chunks)
    return StreamingResponse(chunks, headers=headers, media_type=MEDIA_TYPES[export.format])


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await to_thread.run_sync(next, chunks, b""):
        yield chunk
