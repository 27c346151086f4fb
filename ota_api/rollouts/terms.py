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

    def refused(self, keys: Sequence[ReleaseKey], now: datetime) -> Reason | None:
        """Why devices are refused it at `now` by the keys that are trusted; None where they are
        not. The same words as in an answer to a device (`ota_api.releases.entitlement`)."""
        if self.withdrawn:
            return Reason("withdrawn", f"{self.version} is withdrawn: publish another")
        if self.expires_at <= now:
            return Reason(
                "expired",
                f"{self.version} expired at {self.expires_at:%Y-%m-%d %H:%M} UTC, devices refuse"
                " it: reissue it (`zenthos release reissue`) and roll that out",
            )
        if not is_trusted(keys, self.key_id, self.kind, self.device_models, now=now.timestamp()):
            return Reason(
                "key_not_trusted",
                f"{self.version} is signed by key {self.key_id}, which keys.json does not trust"
                " now: sign and publish it anew with a key that it lists",
            )
        return None
