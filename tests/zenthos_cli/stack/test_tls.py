"""The development CA and the broker's certificate."""

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from zenthos_cli.stack.tls import BROKER_VALID, make_certificates
from zenthos_core.tokens import generate_private_key

NAMES = ("ca.pem", "ca.key", "broker.pem", "broker.key")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_they_are_made_once(tmp_path: Path) -> None:
    make_certificates(tmp_path, now=time.time())
    before = contents(tmp_path)
    make_certificates(tmp_path, now=time.time() + 3600)
    assert contents(tmp_path) == before


def test_keys_are_private(tmp_path: Path) -> None:
    make_certificates(tmp_path, now=time.time())
    for name in ("ca.key", "broker.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_ca_vouches_for_the_broker_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path, now=time.time())
    ca, broker = certificate(tmp_path / "ca.pem"), certificate(tmp_path / "broker.pem")
    broker.verify_directly_issued_by(ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    leaf = broker.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not leaf.value.ca
    assert isinstance(broker.public_key(), ec.EllipticCurvePublicKey)


def test_the_broker_gets_another_before_its_own_expires(tmp_path: Path) -> None:
    make_certificates(tmp_path, now=time.time())
    before = contents(tmp_path)
    make_certificates(tmp_path, now=time.time() + BROKER_VALID.total_seconds() - 3600)
    after = contents(tmp_path)
    assert after["broker.pem"] != before["broker.pem"]
    assert {**after, "broker.pem": b""} == {**before, "broker.pem": b""}
    certificate(tmp_path / "broker.pem").verify_directly_issued_by(certificate(tmp_path / "ca.pem"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_lost_is_made_anew_and_fits(tmp_path: Path, name: str) -> None:
    make_certificates(tmp_path, now=time.time())
    (tmp_path / name).unlink()
    make_certificates(tmp_path, now=time.time())
    ca, broker = certificate(tmp_path / "ca.pem"), certificate(tmp_path / "broker.pem")
    broker.verify_directly_issued_by(ca)


def test_a_key_that_was_exchanged_gets_a_certificate_of_its_own(tmp_path: Path) -> None:
    make_certificates(tmp_path, now=time.time())
    before = contents(tmp_path)
    (tmp_path / "broker.key").write_bytes(generate_private_key())
    make_certificates(tmp_path, now=time.time())
    assert contents(tmp_path)["broker.pem"] != before["broker.pem"]
    assert contents(tmp_path)["ca.pem"] == before["ca.pem"]
