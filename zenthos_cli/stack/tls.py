"""A development CA and the broker's certificate for loopback. In production use a CA of your own.

The CA is made once, so that devices can pin it; the broker's certificate is made anew before it
expires.
"""

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zenthos_cli.stack.keys import write_private
from zenthos_cli.stack.launch import give_to_service_user
from zenthos_core import tokens
from zenthos_core.errors import ConfigurationError

CA_VALID: Final = dt.timedelta(days=3650)
BROKER_VALID: Final = dt.timedelta(days=397)
RENEW_BEFORE: Final = dt.timedelta(days=60)
NAMES: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
)
_EARLIER: Final = dt.timedelta(hours=1)
"""Certificates begin an hour before, for clients whose clock is behind."""


def make_certificates(folder: Path, *, now: float) -> None:
    """Make `ca.pem`, `broker.pem` and their keys where they are missing or about to expire."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    ca_key = _keep_key(folder / "ca.key")
    broker_key = _keep_key(folder / "broker.key")
    give_to_service_user(folder / "broker.key")
    ca, broker = folder / "ca.pem", folder / "broker.pem"
    new_ca = not _holds(ca, ca_key, moment)
    if new_ca:
        _write(ca, _ca_certificate(ca_key, moment))
    if new_ca or not _holds(broker, broker_key, moment):
        issuer = x509.load_pem_x509_certificate(ca.read_bytes())
        _write(broker, _broker_certificate(issuer, ca_key, broker_key, moment))


def _ca_certificate(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    name = _name("Zenthos development CA")
    usage = _key_usage(signs_certificates=True)
    public = key.public_key()
    return (
        _builder(name, name, public, now, CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _broker_certificate(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.Certificate:
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    valid = min(BROKER_VALID, ca.not_valid_after_utc - now)
    return (
        _builder(_name("Zenthos broker"), ca.subject, key.public_key(), now, valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(issued_by, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    valid: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + valid)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _keep_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        write_private(path, tokens.generate_private_key())
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path} is not an EC key: remove it, and `zenthos up` makes one")
    return key


def _holds(path: Path, key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> bool:
    """Whether there is a certificate of this key that is good for a while yet."""
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    same_key = certificate.public_key() == key.public_key()
    return same_key and certificate.not_valid_after_utc - now >= RENEW_BEFORE


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
