"""Farms: where devices stand."""
