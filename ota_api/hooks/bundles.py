"""Which assets of a GitHub release make a release of ours.

1. `X.manifest.json` announces one; `X.sig` (base64 of its Ed25519 signature) and one binary go with
   it: `X.zip`, `X.bin`, `X.tflite`, `X.swu` or `X.raucb`.
2. X is `<name>-<version>` of the manifest.
3. All that a GitHub release announces is published, or nothing.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ota_api.hooks.schemas import Asset
from zenthos_core.errors import ZenthosError
from zenthos_core.manifest import Manifest

MANIFEST_SUFFIX: Final = ".manifest.json"
BINARY_SUFFIXES: Final = (".zip", ".bin", ".tflite", ".swu", ".raucb")
MAX_BUNDLES: Final = 20


class AssetError(ZenthosError):
    """The assets of a GitHub release cannot be published as they are."""


class Bundle(NamedTuple):
    """Three assets; `stem` is X."""

    stem: str
    manifest: Asset
    signature: Asset
    binary: Asset


def find_bundles(assets: Sequence[Asset]) -> list[Bundle]:
    """By rule 1; empty where nothing is announced.

    Raises:
        AssetError: where one is not complete.
    """
    named = {asset.name: asset for asset in assets}
    stems = [n.removesuffix(MANIFEST_SUFFIX) for n in named if n.endswith(MANIFEST_SUFFIX)]
    if len(stems) > MAX_BUNDLES:
        raise AssetError(f"{len(stems)} manifests in one release: at most {MAX_BUNDLES}")
    return [_bundle(stem, named) for stem in sorted(stems)]


def check_stem(bundle: Bundle, manifest: Manifest) -> None:
    """Rule 2; AssetError."""
    stem = f"{manifest.name}-{manifest.version}"
    if bundle.stem != stem:
        raise AssetError(f"{bundle.manifest.name} holds the manifest of {stem}: name it so")


def _bundle(stem: str, named: dict[str, Asset]) -> Bundle:
    signature = named.get(f"{stem}.sig")
    binaries = [named[stem + suffix] for suffix in BINARY_SUFFIXES if stem + suffix in named]
    if signature is None:
        raise AssetError(f"{stem}{MANIFEST_SUFFIX} comes without {stem}.sig: upload both")
    if len(binaries) != 1:
        wanted = ", ".join(stem + suffix for suffix in BINARY_SUFFIXES)
        raise AssetError(
            f"{stem}{MANIFEST_SUFFIX} comes with {len(binaries)} of {wanted}: upload one"
        )
    return Bundle(stem, named[stem + MANIFEST_SUFFIX], signature, binaries[0])
