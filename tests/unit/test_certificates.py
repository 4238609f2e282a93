"""Certificates: issuer, purpose, lifetime, and when a new one is issued."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stackbus.bus.names import consumer_user
from stackbus.expose import certificates as certs
from stackbus.expose.certificates import Pair
from stackbus.expose.credentials import (
    Endpoint,
    Generations,
    prepare_credentials,
)
from stackbus.expose.deployment import Deployment, Topic
from stackbus.expose.kinds.user import hash_password, is_password
from stackbus.expose.secrets import FolderStore

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CA = certs.new_ca(NOW)
HOSTS = ("rabbit.example.org", "10.0.0.5", "::1")


def read(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_client_certificate_can_do_client_auth_only_and_names_its_user() -> None:
    pair = certs.issue_client(CA, "siem.g1", NOW, 30)
    certificate = read(pair.certificate)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "siem.g1"
    certificate.verify_directly_issued_by(read(CA.certificate))
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    assert certs.expires(pair.certificate) == NOW + timedelta(days=30)


def test_the_server_certificate_names_every_host() -> None:
    pair = certs.issue_server(CA, HOSTS, NOW, 30)
    names = (
        read(pair.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    )
    assert names.get_values_for_type(x509.DNSName) == ["rabbit.example.org"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "::1"]
    assert certs.is_server_good(pair, CA, HOSTS, NOW, 5)
    assert not certs.is_server_good(pair, CA, HOSTS[:1], NOW, 5)
    assert not certs.is_server_good(certs.issue_client(CA, "x", NOW, 30), CA, HOSTS, NOW, 5)


@pytest.mark.parametrize(
    ("days_later", "is_good"), [(0, True), (19, True), (21, False), (31, False)]
)
def test_a_certificate_is_good_until_it_expires_soon(days_later: int, is_good: bool) -> None:
    pair = certs.issue_client(CA, "u", NOW, 30)
    later = NOW + timedelta(days=days_later)
    assert certs.is_client_good(pair, CA, "u", later, 30) is is_good


def test_another_user_another_ca_and_another_key_are_not_good() -> None:
    pair = certs.issue_client(CA, "u", NOW, 30)
    second = certs.issue_client(CA, "u", NOW, 30)
    assert not certs.is_client_good(pair, CA, "v", NOW, 1)
    assert not certs.is_client_good(pair, certs.new_ca(NOW), "u", NOW, 1)
    assert not certs.is_client_good(Pair(pair.certificate, second.key), CA, "u", NOW, 1)
    assert not certs.is_client_good(Pair("", ""), CA, "u", NOW, 1)
    assert not certs.is_client_good(Pair("x", "y"), CA, "u", NOW, 1)


def test_a_renewed_ca_verifies_certificates_of_the_old_one() -> None:
    pair = certs.issue_client(CA, "u", NOW, 10_000)
    later = NOW + timedelta(days=3640)
    assert not certs.is_ca_good(CA, later, 60)
    renewed_ca = certs.new_ca(later, CA)
    assert certs.is_ca_good(renewed_ca, later, 60)
    assert certs.is_client_good(pair, renewed_ca, "u", later, 60)


def test_openssl_loads_the_pairs(tmp_path: Path) -> None:
    for name, pair in (
        ("c", certs.issue_client(CA, "u", NOW, 30)),
        ("s", certs.issue_server(CA, HOSTS, NOW, 30)),
    ):
        path = tmp_path / name
        path.write_text(pair.certificate + pair.key)
        ssl.create_default_context(cadata=CA.certificate).load_cert_chain(path)


def test_user_names_fit_a_certificate_and_are_unique() -> None:
    assert consumer_user("siem", 3) == "siem.g3"
    long = ["x" * 229, "x" * 228, "x" * 227 + "y", "a." * 100 + "a"]
    names = [consumer_user(topic, generation) for topic in long for generation in (1, 12)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 for name in names)


def test_passwords_are_hashed_as_rabbitmq_does() -> None:
    # The example of RabbitMQ's guide "Password Hashing": salt 908D C60A, password test12.
    password_hash = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert is_password("test12", password_hash)
    assert not is_password("test13", password_hash)
    assert is_password("geheim", hash_password("geheim"))
    assert hash_password("geheim") != hash_password("geheim")
    assert not is_password("x", "no base64!")


def test_only_certificates_that_expire_soon_are_issued_again(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    deployment = Deployment("d", "openstack", None, (Topic("a"), Topic("b")))
    endpoint = Endpoint(("h",), 5672, 5671, "v")

    def credentials(
        now: datetime, days: float = 397, to: Endpoint = endpoint
    ) -> dict[str, dict[str, str]]:
        credentials = prepare_credentials(
            store, deployment, {"b": Generations(4)}, to, now, certificate_days=days, renew_days=60
        )
        for secret in credentials.secrets():
            store.write(secret)
        return {secret.name: dict(secret.data) for secret in credentials.secrets()}

    before = credentials(NOW)
    assert before["openstack-b-notifications"]["username"] == "b.g4"
    assert credentials(NOW + timedelta(days=300)) == before
    later = credentials(NOW + timedelta(days=340))
    changed = {
        (name, key)
        for name in before
        for key in before[name]
        if before[name][key] != later[name][key]
    }
    assert changed == {
        ("stackbus-server", "tls.crt"),
        ("stackbus-server", "tls.key"),
        *((f"openstack-{t}-notifications", k) for t in "ab" for k in ("client_cert", "client_key")),
    }
    moved = credentials(NOW + timedelta(days=340), to=Endpoint(("h2",), 5672, 5671, "v"))
    assert moved["stackbus-server"]["tls.crt"] != later["stackbus-server"]["tls.crt"]
    assert moved["openstack-a-notifications"]["hosts"] == "h2"
    assert (
        moved["openstack-a-notifications"]["client_cert"]
        == later["openstack-a-notifications"]["client_cert"]
    )
