"""Development keys, made once: tokens (ES256), and root, firmware, model and online (Ed25519).

What exists is kept, so that an interrupted start is completed by the next one.
"""

import os
from base64 import b64encode
from pathlib import Path
from typing import Final

from zenthos_core import signing, tokens
from zenthos_core.signing import CHECK_IN, ReleaseKey, TrustedKeys

KINDS: Final = {
    "firmware": ["firmware-bundle", "esp-image"],
    "model": ["model"],
    "online": [CHECK_IN],
}
"""Which key may sign what: the model key nothing but models, the online key no release at all."""

RELEASE_KEY_VALID_S: Final = 2 * 365 * 24 * 3600


def make_keys(folder: Path, *, now: float) -> None:
    """Make the key files that are missing, private ones readable by their owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    token_key = folder / "token.pem"
    if not token_key.exists():
        write_private(token_key, tokens.generate_private_key())
    _write_public(folder / "token.pub.pem", tokens.public_pem(token_key.read_bytes()))
    for name in ("root", *KINDS):
        private = folder / f"{name}.key"
        if not private.exists():
            signing.write_private_key(private, signing.generate_key())
        public = signing.public_half(signing.read_key(private))
        _write_public(folder / f"{name}.pub", b64encode(public) + b"\n")
    _trust(folder, now)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


def _write_public(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def _trust(folder: Path, now: float) -> None:
    """Have the root sign for the keys; for those that are missing in a list that is there."""
    listed = folder / "keys.json"
    root = signing.read_key(folder / "root.key")
    if not (folder / "keys.json.sig").exists():
        trusted = TrustedKeys(1, [_release_key(folder, name, now) for name in KINDS])
        signing.write_trusted_keys(listed, trusted, root)
        return
    trusted = signing.read_trusted_keys(listed, signing.public_half(root))
    if not any(CHECK_IN in key.kinds for key in trusted.keys):
        keys = [*trusted.keys, _release_key(folder, "online", now)]
        signing.write_trusted_keys(listed, TrustedKeys(trusted.version + 1, keys), root)


def _release_key(folder: Path, name: str, now: float) -> ReleaseKey:
    public = signing.read_key(folder / f"{name}.pub")
    return ReleaseKey(
        key_id=signing.key_id(public),
        public_key=b64encode(public).decode(),
        kinds=KINDS[name],
        device_models=["*"],
        expires=int(now) + RELEASE_KEY_VALID_S,
    )
