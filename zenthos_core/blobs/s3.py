"""S3, or what speaks it (MinIO, Ceph, R2 …), as object store.

boto3 takes a quarter of a second to load: it is loaded by the first store that is used.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, Final, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from zenthos_core.blobs.s3_reader import open_reader
from zenthos_core.blobs.store import check_key
from zenthos_core.errors import ConfigurationError

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 60
ATTEMPTS: Final = 5
CONNECTIONS: Final = 32
PART_BYTES: Final = 8 * 1024 * 1024
PARTS_AT_A_TIME: Final = 2
"""Of an upload: as many are in memory."""


@dataclass(frozen=True)
class S3Access:
    """Endpoint, region and keys; what is empty is found as boto3 finds it."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: SecretStr = field(default_factory=lambda: SecretStr(""))
    public_endpoint_url: str = ""
    """The endpoint as others reach it, in presigned URLs; where empty, the same."""


class Place(NamedTuple):
    """Where the lake's buckets are: folders of one bucket, or buckets whose names have a prefix."""

    bucket: str
    """Empty where each is a bucket of its own."""
    prefix: str

    def locate(self, bucket: str, key: str = "") -> tuple[str, str]:
        """Bucket and key on S3."""
        if not self.bucket:
            return self.prefix + bucket, key
        return self.bucket, "/".join(part for part in (self.prefix, bucket) if part) + "/" + key


def parse_place(url: str) -> Place:
    """`s3://bucket/folder`, `s3://` or `s3://?prefix=acme-`.

    Raises:
        ConfigurationError: for anything else.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    folder = parts.path.strip("/")
    if parts.netloc and not query:
        return Place(parts.netloc, folder)
    if not parts.netloc and not folder and query.keys() <= {"prefix"}:
        return Place("", query.get("prefix", [""])[-1])
    raise ConfigurationError(
        f"ZENTHOS_BLOB_URL={url}: use s3://bucket/folder for one bucket that holds everything, or"
        " s3://?prefix=acme- for a bucket each (docs/reference/storage.md)"
    )


class _KeptOpen:
    """A file that boto3 reads from here to its end, and does not close or seek."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class S3Store:
    """The lake's buckets on S3; safe to use from several threads."""

    presigns = True

    def __init__(self, place: Place, access: S3Access) -> None:
        self.place = place
        self.access = access

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Atomic on S3, which compares a checksum of what arrives with ours."""
        at = self._at(bucket, key)
        with self._explained(at):
            self._client.put_object(**at, Body=data)

    def put_file(self, bucket: str, key: str, file: BinaryIO) -> None:
        """In parts, which become an object once all have come; what failed leaves none behind."""
        from boto3.s3.transfer import TransferConfig

        at = self._at(bucket, key)
        parts = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=PARTS_AT_A_TIME,
        )
        with self._explained(at):
            self._client.upload_fileobj(_KeptOpen(file), **at, Config=parts)

    def delete(self, bucket: str, key: str) -> None:
        at = self._at(bucket, key)
        with self._explained(at):
            self._client.delete_object(**at)

    def get(self, bucket: str, key: str) -> bytes:
        at = self._at(bucket, key)
        with self._explained(at):
            return self._read(at)

    def open(self, bucket: str, key: str) -> BinaryIO:
        at = self._at(bucket, key)
        with self._explained(at):
            head = self._client.head_object(**at)
        unchanged = {**at, "IfMatch": head["ETag"]}

        def read(first: int, end: int) -> bytes:
            with self._explained(at):
                return self._read({**unchanged, "Range": f"bytes={first}-{end - 1}"})

        return open_reader(head["ContentLength"], read)

    def exists(self, bucket: str, key: str) -> bool:
        check_key(key)
        return next((k == key for k in self.keys(bucket, key)), False)

    def presign(self, bucket: str, key: str, *, expires_s: int, filename: str) -> str:
        """Made here, from the account's keys: S3 is not asked."""
        at = self._at(bucket, key)
        as_file = {
            "ResponseContentDisposition": f'attachment; filename="{filename}"',
            "ResponseContentType": "application/octet-stream",
        }
        with self._explained(at):
            url: str = self._public_client.generate_presigned_url(
                "get_object", Params=at | as_file, ExpiresIn=expires_s
            )
        return url

    def keys(self, bucket: str, prefix: str = "") -> Iterator[str]:
        name, begin = self.place.locate(bucket, prefix)
        skipped = len(begin) - len(prefix)
        with self._explained({"Bucket": name, "Key": begin}):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=name, Prefix=begin
            )
            for page in pages:
                yield from (found["Key"][skipped:] for found in page.get("Contents", ()))

    def create_buckets(self, buckets: Iterable[str]) -> None:
        """Create those of the lake's buckets that are missing.

        Raises:
            BlobStoreError: where that is not allowed, or a name belongs to somebody else.
        """
        for name in sorted({self.place.locate(bucket)[0] for bucket in buckets}):
            with self._explained({"Bucket": name}):
                self._create_bucket(name)

    def _create_bucket(self, name: str) -> None:
        from botocore.exceptions import ClientError

        region = self._client.meta.region_name
        elsewhere = region not in {None, "aws-global", "us-east-1"}  # these take no constraint
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}} if elsewhere else {}
        try:
            self._client.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            self._client.create_bucket(Bucket=name, **where)

    def _at(self, bucket: str, key: str) -> dict[str, Any]:
        check_key(key)
        name, whole = self.place.locate(bucket, key)
        return {"Bucket": name, "Key": whole}

    def _read(self, request: dict[str, Any]) -> bytes:
        """A whole answer. botocore repeats a request, but not the reading of what was cut off."""
        from botocore.exceptions import BotoCoreError

        for attempts_left in reversed(range(ATTEMPTS)):
            # As a context manager, botocore's body is the raw one, whose checksum nobody verifies.
            with closing(self._client.get_object(**request)["Body"]) as body:
                try:
                    return cast(bytes, body.read())
                except BotoCoreError:
                    if not attempts_left:
                        raise
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _explained(self, at: dict[str, Any]) -> Iterator[None]:
        """Turn boto3's errors into ours."""
        from botocore.exceptions import BotoCoreError, ClientError

        from zenthos_core.blobs.s3_errors import explain

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            where = self.access.endpoint_url or "AWS S3"
            raise explain(error, where, at["Bucket"], at.get("Key", "")) from error

    @cached_property
    def _client(self) -> Any:
        return self._new_client(self.access.endpoint_url)

    @cached_property
    def _public_client(self) -> Any:
        """Signs for the host that others ask: the signature covers its name."""
        return self._new_client(self.access.public_endpoint_url or self.access.endpoint_url)

    def _new_client(self, endpoint_url: str) -> Any:  # boto3 makes its classes at run time
        from boto3.session import Session
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            signature_version="s3v4",  # else presigned URLs of some regions have the old one
        )
        return Session().client(
            "s3",
            endpoint_url=endpoint_url or None,
            region_name=self.access.region or None,
            aws_access_key_id=self.access.access_key_id or None,
            aws_secret_access_key=self.access.secret_access_key.get_secret_value() or None,
            config=config,
        )
