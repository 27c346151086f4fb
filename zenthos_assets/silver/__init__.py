"""Readings once each, typed, judged and placed, by day of the reading."""
