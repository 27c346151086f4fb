"""Dagster code location: from the raw messages to the published model."""
