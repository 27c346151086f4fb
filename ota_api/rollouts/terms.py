"""What a release says of itself, and whether devices may take it at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ota_api.rollouts.policy import Reason
from zenthos_core.signing import ReleaseKey, is_trusted


@dataclass(frozen=True)
class Terms:
    """Of a release."""

    kind: str
    name: str
    version: str
    release_counter: int
    key_id: str
    expires_at: datetime
    withdrawn: bool
    device_models: list[str]

    def refused(self, keys: Sequence[ReleaseKey] | None, now: datetime) -> Reason | None:
        """Why devices are refused it at `now`, in the words of an answer to one
        (`ota_api.releases.entitlement`); `keys` are those that are trusted, None where that is not
        known: then its own is not judged."""
        if self.withdrawn:
            text = f"{self.version} is withdrawn: publish another, or reissue it"
            return Reason("withdrawn", text)
        if self.expires_at <= now:
            return Reason(
                "expired",
                f"{self.version} expired at {self.expires_at:%Y-%m-%d %H:%M} UTC, devices refuse"
                " it: reissue it (`zenthos release reissue`) and roll that out",
            )
        models, moment = self.device_models, now.timestamp()
        if keys is not None and not is_trusted(keys, self.key_id, self.kind, models, now=moment):
            return Reason(
                "key_not_trusted",
                f"{self.version} is signed by key {self.key_id}, which keys.json does not trust"
                " now: reissue it (`zenthos release reissue`) with one that it lists",
            )
        return None
