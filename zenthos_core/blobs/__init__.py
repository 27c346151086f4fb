"""Object storage: the lake's buckets, in a folder or on S3, chosen by ZENTHOS_BLOB_URL."""

from zenthos_core.blobs.folder import FolderStore
from zenthos_core.blobs.opening import open_store, store_of
from zenthos_core.blobs.store import BlobStore

__all__ = ["BlobStore", "FolderStore", "open_store", "store_of"]
