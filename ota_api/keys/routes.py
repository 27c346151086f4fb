"""Public keys, for anyone."""

from base64 import b64encode

from fastapi import APIRouter

from ota_api.keys.schemas import JsonWebKey, JsonWebKeySet, ReleaseKeys
from ota_api.resources import Opened
from zenthos_core.tokens import public_jwk

router = APIRouter(tags=["keys"])


@router.get("/.well-known/jwks.json")
async def get_token_keys(resources: Opened) -> JsonWebKeySet:
    """Keys with which brokers and other services verify our tokens."""
    jwk = public_jwk(resources.token_keys.public_pem)
    return JsonWebKeySet(keys=[JsonWebKey(**jwk)])


@router.get("/keys.json")
async def get_release_keys(resources: Opened) -> ReleaseKeys:
    """Release keys; a device verifies them with the root key pinned in it."""
    signed = resources.trusted_keys.load()
    return ReleaseKeys(
        keys=b64encode(signed.document).decode(), signature=b64encode(signed.signature).decode()
    )
