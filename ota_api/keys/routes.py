"""Public keys, for anyone."""

from base64 import b64encode

from fastapi import APIRouter

from ota_api.auth import PUBLIC
from ota_api.keys.schemas import JsonWebKey, JsonWebKeySet, ReleaseKeys
from ota_api.resources import Opened

router = APIRouter(tags=["keys"], dependencies=PUBLIC)


@router.get("/.well-known/jwks.json")
async def get_token_keys(resources: Opened) -> JsonWebKeySet:
    """Keys with which brokers and other services verify our tokens."""
    return JsonWebKeySet(keys=[JsonWebKey(**jwk) for jwk in resources.token_keys.jwks()])


@router.get("/keys.json")
async def get_release_keys(resources: Opened) -> ReleaseKeys:
    """Release keys; a device verifies them with the root key pinned in it."""
    signed = resources.trusted_keys.load()
    return ReleaseKeys(
        keys=b64encode(signed.document).decode(), signature=b64encode(signed.signature).decode()
    )
