"""Which store a URL names."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from zenthos_core.blobs.folder import FolderStore
from zenthos_core.blobs.s3 import S3Access, S3Store, parse_place
from zenthos_core.blobs.store import BlobStore
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings


def open_store(url: str, access: S3Access | None = None) -> BlobStore:
    """The store that a URL names; nothing is connected yet.

    Raises:
        ConfigurationError: for a URL that names none.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/"):
        return FolderStore(Path(url2pathname(parts.path)))
    if parts.scheme == "s3":
        return S3Store(parse_place(url), access or S3Access())
    raise ConfigurationError(
        f"ZENTHOS_BLOB_URL={url}: use file:///absolute/folder, s3://bucket/folder, or s3:// for"
        " buckets with the lake's own names (docs/reference/storage.md)"
    )


def store_of(settings: Settings) -> BlobStore:
    """The store that the settings name."""
    return open_store(settings.blob_url, s3_access(settings))


def s3_access(settings: Settings) -> S3Access:
    """How the settings say that S3 is reached.

    Raises:
        ConfigurationError: for half a pair of keys.
    """
    secret = settings.s3_secret_access_key
    if bool(settings.s3_access_key_id) != bool(secret.get_secret_value()):
        raise ConfigurationError(
            "set both ZENTHOS_S3_ACCESS_KEY_ID and ZENTHOS_S3_SECRET_ACCESS_KEY, or neither"
        )
    return S3Access(
        settings.s3_endpoint_url,
        settings.s3_region,
        settings.s3_access_key_id,
        secret,
        settings.s3_public_endpoint_url,
    )
