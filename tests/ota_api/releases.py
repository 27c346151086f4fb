"""Signs releases as CI and the lineage do, and as attackers would like to."""

import hashlib
import io
import time
import zipfile
from base64 import b64encode
from pathlib import Path
from typing import Any

from zenthos_core.manifest import Manifest, sign_manifest
from zenthos_core.signing import key_id, public_half, read_key

BINARY = b"TFL3 weights " * 500
DAY_S = 86_400


def bundle(content: bytes = BINARY) -> bytes:
    """A firmware bundle that holds `content`; the same content, the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("app/main.mpy", (2026, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


class Signer:
    """Makes publish bodies, signed with one of the release keys of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def private_key(self, name: str) -> bytes:
        """root, firmware, model or online."""
        return read_key(self._folder / f"{name}.key")

    def model(
        self, binary: bytes = BINARY, *, key: str = "model", **changes: Any
    ) -> dict[str, Any]:
        """A model release."""
        fields = {
            "kind": "model",
            "name": "irrigation",
            "version": f"m-20261123-{hashlib.sha256(binary).hexdigest()[:7]}",
            "input_shape": [1, 7],
            "output_classes": ["irrigate", "skip"],
            "quantization": {"input": [0.1, 0]},
        }
        return self._body(binary, key, {**fields, **changes})

    def firmware(
        self, binary: bytes = bundle(), *, key: str = "firmware", **changes: Any
    ) -> dict[str, Any]:
        """A firmware release; a bundle unless the kind says otherwise."""
        fields = {"kind": "firmware-bundle", "name": "sensor", "version": "v1.0.0"}
        return self._body(binary, key, {**fields, **changes})

    def _body(self, binary: bytes, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        private = self.private_key(key)
        now = int(time.time())
        manifest = Manifest(
            **{
                "spec_version": 1,
                "device_models": ["esp32-s3"],
                "chip": "esp32s3",
                "release_counter": 1,
                "size": len(binary),
                "sha256": hashlib.sha256(binary).hexdigest(),
                "created": now - 10,
                "expires": now + 30 * DAY_S,
                "key_id": key_id(public_half(private)),
                **fields,
            }
        )
        signed = sign_manifest(manifest, private)
        return {
            "manifest": b64encode(signed.manifest).decode(),
            "signature": b64encode(signed.signature).decode(),
            "binary_data": b64encode(binary).decode(),
        }
