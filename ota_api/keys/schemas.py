"""Public keys on the wire."""

from pydantic import BaseModel, Field


class JsonWebKey(BaseModel):
    """One public key (RFC 7517)."""

    kty: str
    crv: str
    x: str
    y: str
    kid: str
    use: str
    alg: str


class JsonWebKeySet(BaseModel):
    """The keys with which our tokens verify."""

    keys: list[JsonWebKey]


class ReleaseKeys(BaseModel):
    """keys.json as the root signed it."""

    keys: str = Field(description="Base64 of the exact signed bytes of keys.json.")
    signature: str = Field(description="Base64 of the root key's Ed25519 signature.")
