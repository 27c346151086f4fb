"""Where the lake is on S3: its buckets, and Dagster's compute logs beside them."""

import json
from pathlib import Path
from typing import Final

from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.blobs.s3 import S3Store
from zenthos_core.settings import Settings

UPLOAD_EVERY_S: Final = 30
LOGS_FOLDER: Final = "compute_logs"


def create_buckets(settings: Settings) -> None:
    """Create the lake's buckets where S3 lacks them; a folder needs none.

    Raises:
        ZenthosError: where S3 cannot be used as the settings say.
    """
    store = store_of(settings)
    if isinstance(store, S3Store):
        store.create_buckets(lake.BUCKETS)


def compute_logs(settings: Settings, local_folder: Path) -> str:
    """The section of dagster.yaml that sends compute logs to S3; empty for a folder.

    Args:
        settings: name the store.
        local_folder: where the output of a running step is kept.
    """
    store = store_of(settings)
    if not isinstance(store, S3Store):
        return ""
    bucket, prefix = store.place.locate(lake.LOGS, LOGS_FOLDER)
    chosen = {"endpoint_url": settings.s3_endpoint_url, "region": settings.s3_region}
    config = {
        "bucket": bucket,
        "prefix": prefix,
        "local_dir": str(local_folder),
        "skip_empty_files": True,
        "upload_interval": UPLOAD_EVERY_S,
        **{name: value for name, value in chosen.items() if value},
    }
    section = {"module": "dagster_aws.s3", "class": "S3ComputeLogManager", "config": config}
    return f"\ncompute_logs: {json.dumps(section, indent=2)}\n"  # JSON is YAML


def aws_variables(settings: Settings) -> dict[str, str]:
    """The keys of the settings, as boto3 finds them by itself in Dagster's compute logs."""
    variables = {
        "AWS_ACCESS_KEY_ID": settings.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_access_key.get_secret_value(),
        "AWS_DEFAULT_REGION": settings.s3_region,
    }
    return {name: value for name, value in variables.items() if value}
