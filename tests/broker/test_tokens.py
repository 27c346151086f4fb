"""Who is let in: rules 1 to 5 of the plugin, each attack of its own."""

import json
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.broker.clients import ACCEPTED, NOT_AUTHORIZED, Client, answer
from tests.broker.forging import altered, claims, decode, public_pem, signed
from tests.servers import TokenBroker
from zenthos_core.tokens import DEVICE_TOKEN_S, Role

DEVICE = "field-sensor-001"
Forge = Callable[[TokenBroker], str]


def private_key(broker: TokenBroker) -> ec.EllipticCurvePrivateKey:
    pem = (broker.keys / "token.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def our_pem(broker: TokenBroker) -> bytes:
    return (broker.keys / "token.pub.pem").read_bytes()


def ours(body: dict[str, object] | bytes, header: dict[str, object] | str = "ES256") -> Forge:
    """Signed with the right key and algorithm, whatever it says."""
    return lambda broker: signed(header, body, private_key(broker), sign="ES256")


def test_a_device_comes_in_with_its_token(shared_broker: TokenBroker) -> None:
    assert answer(shared_broker, DEVICE, shared_broker.token(DEVICE)) == ACCEPTED


def test_a_token_made_by_hand_is_as_good(shared_broker: TokenBroker) -> None:
    """So that the forgeries below fail by what is wrong with them alone."""
    assert answer(shared_broker, DEVICE, ours(claims(DEVICE))(shared_broker)) == ACCEPTED


FORGERIES: dict[str, Forge] = {
    "alg none": lambda broker: signed("none", claims(DEVICE)) + "AAAA",
    "alg None": lambda broker: signed("None", claims(DEVICE)) + "AAAA",
    "alg none, empty signature": lambda broker: signed("none", claims(DEVICE)),
    "alg none over a good signature": ours(claims(DEVICE), "none"),
    "no alg": ours(claims(DEVICE), {"typ": "JWT"}),
    "alg of another type": ours(claims(DEVICE), {"typ": "JWT", "alg": ["ES256"]}),
    "HS256, public key as secret": lambda b: signed("HS256", claims(DEVICE), our_pem(b)),
    "HS384, public key as secret": lambda b: signed("HS384", claims(DEVICE), our_pem(b)),
    "HS512, public key as secret": lambda b: signed("HS512", claims(DEVICE), our_pem(b)),
    "HS256, public key without its last line end": (
        lambda b: signed("HS256", claims(DEVICE), our_pem(b).rstrip())
    ),
    "HS256, empty secret": lambda broker: signed("HS256", claims(DEVICE), b""),
    "HS256 in name, ES256 in truth": ours(claims(DEVICE), "HS256"),
    "ES384 in name, ES256 in truth": ours(claims(DEVICE), "ES384"),
    "ES256 in name, HS256 in truth": (
        lambda b: signed("ES256", claims(DEVICE), our_pem(b), sign="HS256")
    ),
    "RS256": lambda broker: signed("RS256", claims(DEVICE), rsa.generate_private_key(65537, 2048)),
    "ES384": (
        lambda broker: signed("ES384", claims(DEVICE), ec.generate_private_key(ec.SECP384R1()))
    ),
    "another P-256 key": (
        lambda broker: signed("ES256", claims(DEVICE), ec.generate_private_key(ec.SECP256R1()))
    ),
    "the key in its own header": lambda broker: own_key_in_header(),
    "signature of zeros": lambda b: ".".join([*b.token(DEVICE).split(".")[:2], "A" * 86]),
    "signature altered": lambda broker: altered(broker.token(DEVICE), 2, 10),
    "claims altered": lambda broker: altered(broker.token(DEVICE), 1, -2),
    "header altered": lambda broker: altered(broker.token(DEVICE), 0, -3),
    "another device's claims under our signature": lambda broker: ".".join(
        (
            broker.token(DEVICE).split(".")[0],
            broker.token("field-sensor-002").split(".")[1],
            broker.token(DEVICE).split(".")[2],
        )
    ),
    "expired": lambda broker: broker.token(DEVICE, now=time.time() - 7200),
    "expired this second": lambda broker: signed(
        "ES256", claims(DEVICE, exp=int(time.time())), private_key(broker)
    ),
    "no expiry": ours(claims(DEVICE, exp=None)),
    "expiry as text": ours(claims(DEVICE, exp="9999999999")),
    "expiry as a fraction": ours(claims(DEVICE, exp=9999999999.5)),
    "expiry beyond 64 bits": lambda broker: signed(
        "ES256",
        json.dumps(claims(DEVICE)).encode().replace(b'"exp": 1', b'"exp": 1' + b"0" * 30),
        private_key(broker),
    ),
    "no time of issue": ours(claims(DEVICE, iat=None)),
    "issued in the future": lambda broker: broker.token(DEVICE, now=time.time() + 600),
    "issued before the epoch": ours(claims(DEVICE, iat=-(2**63))),
    "valid for longer than a device's token": (
        lambda broker: broker.token(DEVICE, valid_s=DEVICE_TOKEN_S + 1)
    ),
    "another issuer": ours(claims(DEVICE, iss="someone")),
    "no issuer": ours(claims(DEVICE, iss=None)),
    "another device's": lambda broker: broker.token("field-sensor-002"),
    "no subject": ours(claims(DEVICE, sub=None)),
    "subject of another type": ours(claims(DEVICE, sub=[DEVICE])),
    "subject with a NUL": ours(claims(DEVICE, sub=f"{DEVICE}\0")),
    "an admin's": lambda broker: broker.token(DEVICE, Role.ADMIN),
    "an operator's": lambda broker: broker.token(DEVICE, Role.OPERATOR),
    "a viewer's": lambda broker: broker.token(DEVICE, Role.VIEWER),
    "no role": ours(claims(DEVICE, role=None)),
    "claims that are no object": ours(b"[1, 2, 3]"),
    "claims that are no JSON": ours(b"\xff\xfe{"),
    "claims nested deep": ours(b'{"a":' * 500 + b"1" + b"}" * 500),
    "empty": lambda broker: "",
    "two dots": lambda broker: "..",
    "two parts": lambda broker: broker.token(DEVICE).rpartition(".")[0],
    "four parts": lambda broker: broker.token(DEVICE) + ".AAAA",
    "a space at its end": lambda broker: broker.token(DEVICE) + " ",
    "above 4 KiB, though well signed": ours(claims(DEVICE, scope="x" * 3500)),
    "64 KiB": lambda broker: "A" * 65_535,
}


def own_key_in_header() -> str:
    """RFC 7515 lets a header carry `jwk`; to believe it is the classic mistake."""
    key = ec.generate_private_key(ec.SECP256R1())
    header = {"typ": "JWT", "alg": "ES256", "jwk": {"pem": public_pem(key).decode()}}
    return signed(header, claims(DEVICE), key)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_bad_token_is_refused(shared_broker: TokenBroker, forgery: str) -> None:
    assert answer(shared_broker, DEVICE, FORGERIES[forgery](shared_broker)) == NOT_AUTHORIZED


def test_no_password_is_refused(shared_broker: TokenBroker) -> None:
    assert answer(shared_broker, DEVICE, None) == NOT_AUTHORIZED


def test_the_longest_token_is_4_kib(shared_broker: TokenBroker) -> None:
    padded = [ours(claims(DEVICE, scope="x" * n))(shared_broker) for n in range(2750, 2950)]
    fitting = max((token for token in padded if len(token) <= 4096), key=len)
    too_long = min((token for token in padded if len(token) > 4096), key=len)
    assert len(too_long) - len(fitting) < 5
    assert answer(shared_broker, DEVICE, fitting) == ACCEPTED
    assert answer(shared_broker, DEVICE, too_long) == NOT_AUTHORIZED


def test_nobody_comes_in_without_a_name(shared_broker: TokenBroker) -> None:
    assert answer(shared_broker, None, None, client_id=DEVICE) == NOT_AUTHORIZED


@pytest.mark.parametrize("name", ["ab", "-ab", "Field-1", "field_1", "a" * 64, "+", "#", "a/b"])
def test_a_name_that_no_device_can_have_is_refused(shared_broker: TokenBroker, name: str) -> None:
    assert answer(shared_broker, name, shared_broker.token(name)) == NOT_AUTHORIZED


@pytest.mark.parametrize("client_id", ["field-sensor-002", f"{DEVICE}-2", "zenthos-ingest-1", ""])
def test_a_device_may_not_use_another_client_id(shared_broker: TokenBroker, client_id: str) -> None:
    token = shared_broker.token(DEVICE)
    assert answer(shared_broker, DEVICE, token, client_id=client_id) == NOT_AUTHORIZED


def test_nobody_throws_out_another_device_by_its_client_id(shared_broker: TokenBroker) -> None:
    thief = shared_broker.token("field-sensor-002")
    with Client(shared_broker, DEVICE, shared_broker.token(DEVICE)) as victim:
        refused = answer(shared_broker, "field-sensor-002", thief, client_id=DEVICE)
        assert refused == NOT_AUTHORIZED
        time.sleep(0.3)
        assert victim.connected


def test_services_come_in_by_password_alone(shared_broker: TokenBroker) -> None:
    name = shared_broker.username
    assert answer(shared_broker, name, shared_broker.password, "anything") == ACCEPTED
    assert answer(shared_broker, name, "wrong") == NOT_AUTHORIZED
    assert answer(shared_broker, name, None) == NOT_AUTHORIZED
    assert answer(shared_broker, name, shared_broker.token(name)) == NOT_AUTHORIZED
    assert answer(shared_broker, "svc-x", shared_broker.token("svc-x")) == NOT_AUTHORIZED


def test_an_account_in_the_password_file_makes_no_device(token_broker: TokenBroker) -> None:
    name, password = token_broker.username, token_broker.password
    assert answer(token_broker, name, password) == ACCEPTED  # it listens to signals, too
    token_broker.add_account(DEVICE, "word")
    time.sleep(0.3)
    assert answer(token_broker, DEVICE, "word") == NOT_AUTHORIZED


def test_neither_tokens_nor_passwords_are_logged(token_broker: TokenBroker) -> None:
    good, bad = token_broker.token(DEVICE), altered(token_broker.token(DEVICE), 2, 3)
    answer(token_broker, DEVICE, good)
    answer(token_broker, DEVICE, bad)
    answer(token_broker, DEVICE, "secret-word")
    answer(token_broker, token_broker.username, token_broker.password)
    log = token_broker.log
    assert f"{DEVICE} refused: not signed by our key" in log
    secrets = [good, bad, *good.split("."), "secret-word", token_broker.password]
    assert [secret for secret in secrets if secret in log] == []
    assert decode(good.split(".")[0]).startswith(b"{")  # they are what a log would show
