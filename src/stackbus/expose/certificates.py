"""Certificates: the CA's, the server's, and one client certificate for each consumer.

``credentials.py`` issues and checks them here, and puts them into Secrets. From there the server's
certificate goes to RabbitMQ, and a client certificate to its consumer. PEM texts in, PEM texts out;
the clock is an argument; every key is ECDSA P-256. A client certificate is for clientAuth only. Its
CN is the name of a RabbitMQ user, and the EXTERNAL mechanism maps one to the other, so a
certificate is of no use once its user is deleted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CA_DAYS = 3650
_BACKDATED = timedelta(minutes=5)
"""How long before its creation a certificate is valid, since clocks differ."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, each a PEM text."""

    certificate: str
    key: str


def new_ca(now: datetime, old: Pair | None = None) -> Pair:
    """Create a self-signed CA; with ``old``, a new certificate for that CA's key.

    The new certificate verifies what ``old`` signed: subject and key are the same.
    """
    key = _key(old.key) if old else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stackbus CA")])
    builder = (
        _builder(name, name, key, now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
    )
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue_server(ca: Pair, hosts: tuple[str, ...], now: datetime, days: float) -> Pair:
    """Issue the server's certificate; ``hosts`` (names and addresses) are its SANs."""
    return _issue(
        ca, "stackbus server", ExtendedKeyUsageOID.SERVER_AUTH, now, days, alternatives=hosts
    )


def issue_client(ca: Pair, username: str, now: datetime, days: float) -> Pair:
    """Issue a client certificate whose CN is ``username`` (64 characters at most, X.520)."""
    return _issue(ca, username, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)


def expires(certificate: str) -> datetime:
    """Return when a PEM certificate expires. Raises ValueError for any other text."""
    return _certificate(certificate).not_valid_after_utc


def is_ca_good(ca: Pair, now: datetime, renew_days: float) -> bool:
    """Return whether the CA may stay: its key fits, and it does not expire soon."""
    try:
        certificate = _certificate(ca.certificate)
        return _fits(certificate, ca.key) and not _expires_soon(certificate, now, renew_days)
    except ValueError:
        return False


def can_sign(ca: Pair) -> bool:
    """Return whether the CA has a usable key, so that its certificate can be renewed."""
    try:
        _key(ca.key)
    except (ValueError, TypeError):
        return False
    return True


def is_server_good(
    pair: Pair, ca: Pair, hosts: tuple[str, ...], now: datetime, renew_days: float
) -> bool:
    """Return whether a server certificate is of ``ca``, for ``hosts``, and does not expire soon."""
    try:
        certificate = _certificate(pair.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    alternatives = [_alternative(host) for host in hosts]
    return list(names) == alternatives and _is_good(certificate, pair, ca, now, renew_days)


def is_client_good(pair: Pair, ca: Pair, username: str, now: datetime, renew_days: float) -> bool:
    """Return whether a client certificate is of ``ca``, for this user, and does not expire soon."""
    try:
        certificate = _certificate(pair.certificate)
    except ValueError:
        return False
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [name.value for name in names] == [username] and _is_good(
        certificate, pair, ca, now, renew_days
    )


def _issue(
    ca: Pair,
    common_name: str,
    purpose: x509.ObjectIdentifier,
    now: datetime,
    days: float,
    alternatives: tuple[str, ...] = (),
) -> Pair:
    issuer = _certificate(ca.certificate)
    signer = _key(ca.key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(name, issuer.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if alternatives:
        names = x509.SubjectAlternativeName([_alternative(host) for host in alternatives])
        builder = builder.add_extension(names, critical=False)
    return Pair(_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_good(
    certificate: x509.Certificate, pair: Pair, ca: Pair, now: datetime, renew_days: float
) -> bool:
    try:
        certificate.verify_directly_issued_by(_certificate(ca.certificate))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return _fits(certificate, pair.key) and not _expires_soon(certificate, now, renew_days)


def _fits(certificate: x509.Certificate, key: str) -> bool:
    try:
        return certificate.public_key() == _key(key).public_key()
    except (ValueError, TypeError):
        return False


def _expires_soon(certificate: x509.Certificate, now: datetime, renew_days: float) -> bool:
    # With a lifetime below renew_days, every apply would issue a new certificate.
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < min(timedelta(days=renew_days), lifetime / 3)


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an EC key")
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
