"""What a person may choose when starting a run. Settings of the platform do not belong here."""

import dagster as dg


class BuildConfig(dg.Config):
    """For assets that skip partitions whose input has not changed."""

    force: bool = False
    """Build them all the same."""
