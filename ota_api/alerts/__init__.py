"""Alerts for people: list them, acknowledge them, resolve them."""
