"""Keeping the databases fit, and proving that backups restore."""
