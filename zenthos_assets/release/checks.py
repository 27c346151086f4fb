"""Can a device get what was published, and will it accept it?"""

from base64 import b64decode

import dagster as dg
import httpx

from zenthos_core.errors import ManifestError
from zenthos_core.manifest import Manifest, SignedManifest, verify_binary, verify_manifest
from zenthos_core.signing import TrustedKeys

RELEASE_KEY = dg.AssetKey(["ota", "model_release"])

VERIFIES_SPEC = dg.AssetCheckSpec(
    "fetched_back_and_verified",
    asset=RELEASE_KEY,
    blocking=True,
    description="Metadata and binary, fetched as a device does, pass the manifest's rules 1 to 7.",
)


def fetch_and_verify(
    ota: httpx.Client, published: Manifest, trusted: TrustedKeys, *, now: float
) -> dg.AssetCheckResult:
    """The outcome of VERIFIES_SPEC for every device model of a release."""
    problems = {
        model: problem
        for model in published.device_models
        if (problem := _problem(ota, model, published, trusted, now))
    }
    return dg.AssetCheckResult(
        check_name=VERIFIES_SPEC.name, passed=not problems, metadata={"problems": problems}
    )


def _problem(
    ota: httpx.Client, model: str, published: Manifest, trusted: TrustedKeys, now: float
) -> str:
    path = f"/models/{model}/{published.name}/{published.version}"
    metadata = ota.get(path)
    binary = ota.get(path, params={"download": "true"}, follow_redirects=True)
    if metadata.is_error or binary.is_error:
        return f"{path} answers {metadata.status_code}, its binary {binary.status_code}"
    body = metadata.json()
    signed = SignedManifest(b64decode(body["manifest"]), b64decode(body["signature"]))
    try:
        manifest = verify_manifest(signed, trusted, now=now)
        verify_binary(manifest, binary.content)
    except ManifestError as error:
        return str(error)
    return "" if manifest == published else "the published manifest is another"
