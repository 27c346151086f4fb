"""Publishing releases.

A publication is accepted by these rules, in this order (1 to 3 in zenthos_core.manifest):

1. A release key that the root trusts signed the manifest, for this kind and these device models;
   the list of keys is the newest that was ever accepted.
2. The manifest is well-formed and has not expired.
3. The binary has the signed size and SHA-256.
4. The kind belongs to the route: firmware or model.
5. The binary is what its kind says (ota_api.releases.contents).
6. Version and release_counter are new, or it is a reissue (ota_api.releases.conflicts).
7. The binary is stored and read back whole before the rows that name it exist
   (ota_api.releases.uploads). Releases never change.
8. Where its rollout_percentage is above 0, a rollout to each of its device models begins.
"""

from datetime import UTC, datetime
from typing import Any, Final

from psycopg import AsyncConnection

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.releases.conflicts import Original, Standing, find_place
from ota_api.releases.publications import Publications
from ota_api.releases.repository import ReleaseRepository
from ota_api.releases.staging import Staged
from ota_api.releases.uploads import end_uploads
from ota_api.resources import Resources
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.schemas import NewRollout
from ota_api.rollouts.service import Rollouts
from zenthos_core.manifest import Manifest
from zenthos_core.tokens import Identity

LATEST: Final = "latest"


async def publish(
    resources: Resources,
    connection: AsyncConnection,
    staged: Staged,
    publisher: Identity,
    trail: AuditTrail,
) -> bool:
    """Insert what is staged; False where it is there already.

    Raises:
        ConflictError: by rule 6, or where the upload was cleared away meanwhile.
    """
    releases, publications = ReleaseRepository(connection), Publications(connection)
    manifest, chosen = staged.manifest, staged.chosen
    await releases.lock_publishing()
    standing = Standing.of(resources.trusted_keys.load().keys, resources.clock())
    place = await find_place(
        publications, releases, staged.signed, manifest, standing, reissue=chosen.reissue
    )
    if place.exists:
        return False
    if place.original is None:
        await end_uploads(connection, staged.keys.values())
    release_id = await publications.insert(
        staged.signed,
        manifest,
        {model: place.original.keys[model] for model in manifest.device_models}
        if place.original
        else staged.keys,
        {
            **chosen.model_dump(exclude={"reissue"}),
            "published_by": publisher.subject,
            "reissue_of": place.original.release_id if place.original else None,
            **_legacy_digests(staged, place.original),
        },
    )
    if chosen.rollout_percentage:
        now = datetime.fromtimestamp(resources.clock(), UTC)
        rollouts = Rollouts(RolloutRepository(connection), trail, now, resources.release_keys)
        phases = [float(chosen.rollout_percentage)]
        for model in manifest.device_models:
            await rollouts.create(
                NewRollout(release_id=release_id, device_model=model, phases=phases)
            )
    after = _brief(manifest) | ({"reissue": True} if chosen.reissue else {})
    subject = f"release {manifest.name} {manifest.version}"
    await trail.record(Action.RELEASE_PUBLISH, subject, after=after)
    return True


def _legacy_digests(staged: Staged, original: Original | None) -> dict[str, str | None]:
    """SHA-1 and MD5."""
    known = staged.digests or original
    return {"sha1": known.sha1, "md5": known.md5} if known else {}


def _brief(manifest: Manifest) -> dict[str, Any]:
    """What the audit log says of a release; its row holds the rest."""
    return {
        "kind": manifest.kind,
        "device_models": manifest.device_models,
        "release_counter": manifest.release_counter,
        "sha256": manifest.sha256,
        "key_id": manifest.key_id,
    }
