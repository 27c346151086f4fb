"""What is sent to be published: JSON with the binary in base64, or a form with it as a file.

A form's file goes to disk as it comes; nothing here holds it whole.
"""

import io
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from anyio import to_thread
from fastapi import Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile

from ota_api.releases.schemas import Chosen, Publication
from zenthos_core.errors import InvalidInputError
from zenthos_core.manifest import MAX_MANIFEST_BYTES, SignedManifest

MULTIPART: Final = "multipart/form-data"
_SIGNATURE_BYTES: Final = 64
_MAX_SIGNATURE_FIELD: Final = 256
_SAID: Final = ("device_model", "version")
_PARTS: Final = {"manifest", "signature", "binary", *_SAID, *Chosen.model_fields}


@dataclass(frozen=True)
class Submission:
    """A signed release and what the publisher chose for it; a reissue needs no binary."""

    signed: SignedManifest
    binary: BinaryIO | None
    chosen: Chosen
    device_model: str | None = None
    version: str | None = None
    """What it is said to be, besides what is signed."""


@asynccontextmanager
async def read_submission(request: Request) -> AsyncIterator[Submission]:
    """The body; a file in it is gone afterwards.

    Raises:
        RequestValidationError, InvalidInputError: for what is no publication.
    """
    if request.headers.get("content-type", "").lower().startswith(MULTIPART):
        async with request.form(max_files=3, max_fields=len(_PARTS)) as form:
            yield await _of_form(form)
    else:
        yield await to_thread.run_sync(_of_json, await request.body())


def _of_json(body: bytes) -> Submission:
    try:
        sent = Publication.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None
    binary = None if sent.binary_data is None else io.BytesIO(sent.binary_data)
    chosen = Chosen.model_validate(sent.model_dump(include=set(Chosen.model_fields)))
    signed = SignedManifest(sent.manifest, sent.signature)
    return Submission(signed, binary, chosen, sent.device_model, sent.version)


async def _of_form(form: FormData) -> Submission:
    names = [name for name, _ in form.multi_items()]
    if unknown := set(names) - _PARTS:
        raise InvalidInputError(f"the form has no part {min(unknown)}: {', '.join(sorted(_PARTS))}")
    if len(names) != len(set(names)):
        raise InvalidInputError("a part of the form comes twice")
    manifest = await _small(form, "manifest", MAX_MANIFEST_BYTES)
    signature = _signature(await _small(form, "signature", _MAX_SIGNATURE_FIELD))
    binary = form.get("binary")
    if binary is not None and not isinstance(binary, FormFile):
        raise InvalidInputError('binary is sent as a file: give its part a "filename"')
    if binary is not None and not binary.size:
        raise InvalidInputError("binary is an empty file")
    values: dict[str, Any] = {
        name: form[name] for name in Chosen.model_fields if isinstance(form.get(name), str)
    }
    try:
        chosen = Chosen.model_validate(values)
    except ValidationError as error:
        raise _invalid(error) from None
    file = None if binary is None else binary.file
    said = (part if isinstance(part := form.get(name), str) else None for name in _SAID)
    return Submission(SignedManifest(manifest, signature), file, chosen, *said)


async def _small(form: FormData, name: str, most: int) -> bytes:
    """A part that may be a field or a file, exactly as it came."""
    part: UploadFile | FormFile | str | None = form.get(name)
    if part is None:
        raise InvalidInputError(f"the form lacks the part {name}")
    content = part.encode() if isinstance(part, str) else await part.read(most + 1)
    if not 1 <= len(content) <= most:
        raise InvalidInputError(f"{name} is empty, or longer than {most} bytes")
    return content


def _signature(sent: bytes) -> bytes:
    """64 bytes as they are, or in base64."""
    if len(sent) == _SIGNATURE_BYTES:
        return sent
    try:
        signature = b64decode(sent.strip(), validate=True)
    except ValueError:
        signature = b""
    if len(signature) != _SIGNATURE_BYTES:
        raise InvalidInputError("signature: send the 64 bytes of an Ed25519 signature, or base64")
    return signature


def _invalid(error: ValidationError) -> RequestValidationError:
    found = [{**e, "loc": ("body", *e["loc"])} for e in error.errors(include_url=False)]
    return RequestValidationError(found)
