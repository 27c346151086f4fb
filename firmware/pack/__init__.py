"""Packing for devices: bundles built, looked into and signed, on a developer's machine or in CI."""
