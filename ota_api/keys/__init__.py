"""Public keys: of tokens (JWKS) and of releases (keys.json)."""
