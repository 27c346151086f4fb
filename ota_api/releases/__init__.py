"""Releases: signed firmware and models, published once and fetched by devices."""
