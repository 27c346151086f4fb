"""GitHub's signature of a delivery: HMAC-SHA-256 over the exact body, with a secret of the hook."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from zenthos_core.errors import AuthenticationError, ConfigurationError
from zenthos_core.settings import Settings

_PREFIX: Final = "sha256="


def hook_secrets(settings: Settings) -> list[bytes]:
    """The one in use, and the one before it while that is set.

    Raises:
        ConfigurationError: where there is none.
    """
    secret = settings.github_webhook_secret.get_secret_value()
    if not secret:
        raise ConfigurationError(
            "releases are not taken from GitHub: set ZENTHOS_GITHUB_WEBHOOK_SECRET to the webhook's"
        )
    previous = settings.github_webhook_previous_secret.get_secret_value()
    return [value.encode() for value in (secret, previous) if value]


def check_signature(secrets: Iterable[bytes], body: bytes, signature: str | None) -> None:
    """Compare in constant time, before anything of the body is read.

    Raises:
        AuthenticationError: for a signature that is missing or made with another secret.
    """
    given = (signature or "").encode()
    matches = [hmac.compare_digest(_sign(secret, body), given) for secret in secrets]
    if not any(matches):
        raise AuthenticationError(
            "X-Hub-Signature-256 is missing or of another secret: give the webhook the secret of"
            " ZENTHOS_GITHUB_WEBHOOK_SECRET"
        )


def _sign(secret: bytes, body: bytes) -> bytes:
    return (_PREFIX + hmac.new(secret, body, hashlib.sha256).hexdigest()).encode()
