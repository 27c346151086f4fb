"""Devices: registration, and what is known of each."""
