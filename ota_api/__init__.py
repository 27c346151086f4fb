"""HTTP server for devices, operators and CI: identity, registry, signed releases."""
