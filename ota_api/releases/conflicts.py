"""Whether a signed release may stand beside those there are.

1. A version is new for each of its device models. The same binary under the same version again is
   the release there is, unless one of its device models has none of it that holds: each issue was
   withdrawn, has expired or its key is not trusted any more. Other bytes are a conflict.
2. A reissue is a version that its device models have, with the same bytes, kind and name, under a
   new counter. It is for the device models of one release, all or some. The same manifest again is
   the reissue there is, while that holds.
3. The release_counter exceeds that of every release for these models, of firmware or of models, by
   at most 1000 for each of them.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from ota_api.releases.publications import Publications, Taken
from ota_api.releases.repository import ReleaseRepository
from zenthos_core.errors import ConflictError, ManifestError, NotFoundError
from zenthos_core.manifest import MAX_COUNTER_STEP, Manifest, SignedManifest, verify_counter
from zenthos_core.signing import ReleaseKey, TrustedKeys, is_trusted


class Original(NamedTuple):
    """What a reissue reissues."""

    release_id: UUID
    keys: dict[str, str]
    """Objects by device model."""
    sha1: str | None
    md5: str | None


class Place(NamedTuple):
    """Where a publication belongs: it is there already, or goes behind what it reissues."""

    exists: bool
    original: Original | None = None


class Standing(NamedTuple):
    """By what it is told whether a release that is there still holds."""

    now: datetime
    keys: Sequence[ReleaseKey]
    """That keys.json lists now."""

    @classmethod
    def of(cls, trusted: TrustedKeys, now: float) -> "Standing":
        """`now` in epoch seconds."""
        return cls(datetime.fromtimestamp(now, UTC), trusted.keys)

    def holds(self, taken: Taken) -> bool:
        """Whether devices would take it."""
        return (
            taken.withdrawn_at is None
            and taken.expires_at > self.now
            and is_trusted(
                self.keys, taken.key_id, taken.kind, taken.device_models, now=self.now.timestamp()
            )
        )


async def find_place(
    publications: Publications,
    releases: ReleaseRepository,
    signed: SignedManifest,
    manifest: Manifest,
    standing: Standing,
    *,
    reissue: bool,
) -> Place:
    """Rules 1 to 3; `manifest` is what `signed` holds.

    Raises:
        ConflictError, ManifestError: where one is broken.
        NotFoundError: for a reissue of what there is not.
    """
    taken = await publications.taken(manifest)
    if reissue:
        place = _find_original(signed, manifest, taken, standing)
    else:
        place = Place(_is_same(manifest, taken, standing))
    if not place.exists:
        newest = await releases.newest_counters(manifest.device_models, manifest.kind)
        _check_counter(manifest, newest)
    return place


def _is_same(manifest: Manifest, taken: list[Taken], standing: Standing) -> bool:
    """Rule 1."""
    first = [t for t in taken if not t.reissue]
    if not first:
        return False
    models = ", ".join(t.device_model for t in first)
    same = all(_equals(manifest, t) for t in first)
    if not same or len(first) != len(manifest.device_models):
        difference = "for fewer device models" if same else "with other bytes, kind or name"
        raise ConflictError(
            f"{manifest.version} is published for {models} already, {difference}: "
            "a release never changes, publish under a new version"
        )
    held = {t.device_model for t in taken if standing.holds(t)}
    lost = [t for t in taken if t.device_model not in held]
    if not lost:
        return True
    named = f"{manifest.version} for {', '.join(sorted({t.device_model for t in lost}))}"
    if all(t.withdrawn_at for t in lost):
        raise ConflictError(
            f"{named} was withdrawn ({lost[0].withdrawal_reason}): publish a new"
            " version, or reissue this one if it is to be offered after all"
        )
    raise ConflictError(
        f"{named} is published and has expired, or its key is not trusted any more:"
        " reissue it (`zenthos release reissue`)"
    )


def _find_original(
    signed: SignedManifest, manifest: Manifest, taken: list[Taken], standing: Standing
) -> Place:
    """Rule 2."""
    first = {t.device_model: t for t in taken if not t.reissue}
    missing = [model for model in manifest.device_models if model not in first]
    if missing:
        raise NotFoundError(
            f"{manifest.version} was never published for {', '.join(missing)}: there is nothing"
            " to reissue, publish it with its binary"
        )
    if not all(_equals(manifest, t) for t in first.values()):
        raise ConflictError(
            f"{manifest.version} was published with other bytes, kind or name: a reissue changes"
            " nothing but the counter and the dates"
        )
    if len({t.release_id for t in first.values()}) != 1:
        raise ConflictError("these device models have releases of their own: reissue each alone")
    again = [t for t in taken if t.manifest == signed.manifest and standing.holds(t)]
    if {t.device_model for t in again} == set(manifest.device_models):
        return Place(True)
    one = next(iter(first.values()))
    keys = {model: t.object_key for model, t in first.items()}
    return Place(False, Original(one.release_id, keys, one.sha1, one.md5))


def _equals(manifest: Manifest, taken: Taken) -> bool:
    return (taken.sha256, taken.kind, taken.name) == (
        manifest.sha256,
        manifest.kind,
        manifest.name,
    )


def _check_counter(manifest: Manifest, newest: Mapping[str, int]) -> None:
    """Rule 3."""
    highest, lowest = max(newest.values()), min(newest.values())
    if manifest.release_counter <= highest:
        raise ConflictError(
            f"release_counter {manifest.release_counter} is taken: sign the manifest again with "
            f"{highest + 1}"
        )
    if highest - lowest >= MAX_COUNTER_STEP:
        raise ManifestError(
            f"the counters of {', '.join(newest)} are {MAX_COUNTER_STEP} apart, and devices take no"
            " larger step: release for each model alone"
        )
    verify_counter(manifest, newest.values())
