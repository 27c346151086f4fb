"""How a binary of a release gets to whoever may have it.

1. Who has it already is told so (304), and a range that lies outside it is refused (416).
2. Where the store can be reached by others, they are sent there (302), with a URL that is good for
   this object and a short while.
3. Else it is sent from here: whole (200), or the part asked for (206).
"""

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from anyio import to_thread
from fastapi import Request, Response
from opentelemetry import metrics

from ota_api.delivery.admission import Admission, Limits
from ota_api.delivery.blocks import BlockCache, StoredFile
from ota_api.delivery.response import BlobResponse
from ota_api.problems import problem
from ota_api.ranges import Part, UnsatisfiableRangeError, choose_part, matches_etag
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import BlobStoreError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Identity, Role

_redirects = metrics.get_meter(__name__).create_counter(
    "zenthos.ota.downloads_redirected", description="Downloads sent to S3 by presigned URL."
)


@dataclass(frozen=True)
class Deliveries:
    """What downloads share."""

    store: BlobStore
    blocks: BlockCache
    admission: Admission
    url_expires_s: int

    @classmethod
    def of(cls, settings: Settings, store: BlobStore) -> "Deliveries":
        """As the settings say."""
        blocks = BlockCache(store, settings.ota_cache_mb * 1024 * 1024)
        admission = Admission(Limits.of(settings))
        return cls(store, blocks, admission, settings.ota_url_expires_s)


async def send_file(
    request: Request,
    deliveries: Deliveries,
    file: StoredFile,
    identity: Identity,
    *,
    redirect: bool = True,
) -> Response:
    """The answer, by rules 1 to 3; without rule 2 for clients that cannot follow."""
    asked = request.headers
    if matches_etag(asked.get("if-none-match"), file.etag):
        return Response(None, HTTPStatus.NOT_MODIFIED, _headers(file))
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
    if redirect and deliveries.store.presigns:
        if request.method == "HEAD":  # a URL that is signed for GET is good for nothing else
            return Response(None, headers=_headers(file) | {"Content-Length": str(file.size)})
        return await _redirect(deliveries, file)
    return _send_part(deliveries, file, part, identity)


async def _redirect(deliveries: Deliveries, file: StoredFile) -> Response:
    """Rule 2. boto3 may have to fetch new keys of its own first."""
    presign = partial(
        deliveries.store.presign, expires_s=deliveries.url_expires_s, filename=file.name
    )
    url = await to_thread.run_sync(presign, file.bucket, file.key)
    if url is None:
        raise BlobStoreError("the store gives no URLs to others")
    _redirects.add(1)
    headers = {"Location": url, "Cache-Control": "no-store", "Vary": "Accept, Authorization"}
    return Response(None, HTTPStatus.FOUND, headers)


def _send_part(
    deliveries: Deliveries, file: StoredFile, part: Part | None, identity: Identity
) -> Response:
    """Rule 3."""
    first, end = part or Part(0, file.size)
    headers = _headers(file) | {"Content-Length": str(end - first)}
    if part is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{file.size}"
    return BlobResponse(
        deliveries.blocks,
        deliveries.admission,
        file,
        Part(first, end),
        device=identity.subject if identity.role is Role.DEVICE else None,
        status=HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT,
        headers=headers,
    )


def _headers(file: StoredFile) -> dict[str, str]:
    """What every answer about this file carries."""
    fresh = "private, max-age=31536000, immutable" if file.immutable_url else "no-cache"
    return {
        "ETag": file.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": fresh,
        "Vary": "Accept, Authorization",
        "Content-Disposition": f'attachment; filename="{file.name}"',
    }


def wants_binary(request: Request, download: bool) -> bool:
    """Whether the client asks for the file rather than for what is known of it."""
    accepted = (part.partition(";")[0] for part in request.headers.get("accept", "").split(","))
    return download or "application/octet-stream" in (a.strip().lower() for a in accepted)
