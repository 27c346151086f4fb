"""Signs releases as CI and the lineage do, and as attackers would like to."""

import hashlib
import io
import struct
import time
import zipfile
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import msgspec

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


def esp_image(version: str = "v1.0.0", *, chip_id: int = 9, content: bytes = b"code" * 64) -> bytes:
    """An application for an ESP32-S3, or another chip, with checksum and digest."""
    descriptor = struct.pack(
        "<II8x32s32s16s16s32s32s80x",
        0xABCD5432, 0, version.encode(), b"sensor", b"12:00:00", b"Nov 28 2026", b"v5.3", b"",
    )  # fmt: skip
    padded = content + bytes(-len(content) % 4)
    segments = [(0x3C000020, descriptor + bytes(16)), (0x42000020, padded)]
    image = struct.pack("<BBBBI", 0xE9, len(segments), 2, 0x2F, 0x40370000)
    image += struct.pack("<BBBBHBHH4xB", 0xEE, 0, 0, 0, chip_id, 0, 0, 0xFFFF, 1)
    checksum = 0xEF
    for address, data in segments:
        image += struct.pack("<II", address, len(data)) + data
        for byte in data:
            checksum ^= byte
    image += bytes(15 - len(image) % 16) + bytes([checksum])
    return image + hashlib.sha256(image).digest()


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

    def reissue(self, release: dict[str, Any], release_counter: int) -> dict[str, Any]:
        """The same version and bytes under a new counter; without the binary."""
        manifest = msgspec.json.decode(b64decode(release["manifest"]), type=Manifest)
        private = self.private_key("model" if manifest.kind == "model" else "firmware")
        changes = {"release_counter": release_counter, "created": int(time.time()) - 1}
        signed = sign_manifest(msgspec.structs.replace(manifest, **changes), private)
        return {
            "manifest": b64encode(signed.manifest).decode(),
            "signature": b64encode(signed.signature).decode(),
            "reissue": True,
        }

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
