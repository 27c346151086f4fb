"""Binaries of releases on their way to devices."""
