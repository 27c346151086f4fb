"""What S3 says when it refuses, and what to do then."""

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from zenthos_core.errors import BlobNotFoundError, BlobStoreError

_ABSENT: Final = {"404", "NoSuchKey", "NotFound"}
_ADVICE: Final = {
    "NoSuchBucket": "create it (`zenthos up` does), or correct ZENTHOS_BLOB_URL",
    "BucketAlreadyExists": "another account has a bucket of that name: choose a bucket or prefix"
    " of your own in ZENTHOS_BLOB_URL",
    "InvalidAccessKeyId": "correct ZENTHOS_S3_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct ZENTHOS_S3_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session's keys have expired: renew them",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "the bucket is in another region: set ZENTHOS_S3_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set ZENTHOS_S3_REGION",
    "IllegalLocationConstraintException": "set ZENTHOS_S3_REGION to the bucket's region",
    "PreconditionFailed": "the object was replaced while it was read: read it again",
}
_DENIED: Final = (
    "the account may not do that: allow it what docs/reference/storage.md lists, for this bucket"
)
_NO_KEYS: Final = (
    "no credentials were found: set ZENTHOS_S3_ACCESS_KEY_ID and ZENTHOS_S3_SECRET_ACCESS_KEY, or"
    " give this machine a role or profile"
)


def explain(
    error: BotoCoreError | ClientError, where: str, bucket: str, key: str
) -> BlobNotFoundError | BlobStoreError:
    """Our error for one of boto3's; `where` is the endpoint."""
    name = f"{bucket}/{key}" if key else bucket
    if isinstance(error, ClientError):
        code = str(error.response["Error"]["Code"])
        if code in _ABSENT and key:
            return BlobNotFoundError(f"no object {name}")
        advice = _DENIED if code in {"403", "AccessDenied"} else _ADVICE.get(code, str(error))
        return BlobStoreError(f"{where} refused {name} ({code}): {advice}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return BlobStoreError(f"{where}: {_NO_KEYS}")
    return BlobStoreError(
        f"{where} failed at {name}: {error}; is it up, and ZENTHOS_S3_ENDPOINT_URL right?"
    )
