"""Rollups and model features, by day, in the lake and the analytical database."""
