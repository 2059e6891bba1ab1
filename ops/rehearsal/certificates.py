"""Certificates for servers on loopback, signed by a CA that only the rehearsal trusts."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_LIFETIME: Final = timedelta(days=1)  # a rehearsal takes minutes
_CLOCK_SKEW: Final = timedelta(minutes=5)

_Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, both PEM."""

    certificate: Path
    key: Path


def create_ca(folder: Path) -> Certificate:
    """Creates a CA in the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("rehearsal CA")
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _write(folder, "ca", builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def create_certificate(ca: Certificate, file: str, names: list[str]) -> Certificate:
    """Creates a server certificate in the folder of the CA.

    Args:
        ca: signs it.
        file: the name of its files, without extension.
        names: the DNS names and IP addresses that it is for.
    """
    signer = x509.load_pem_x509_certificate(ca.certificate.read_bytes())
    signing_key = serialization.load_pem_private_key(ca.key.read_bytes(), None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = rsa.generate_private_key(65537, 2048)  # a classic load balancer takes no ECDSA from ACM
    builder = _builder(_name(names[0]), signer.subject, key).add_extension(
        x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
    )
    return _write(ca.certificate.parent, file, builder.sign(signing_key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: _Key) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(folder: Path, file: str, created: x509.Certificate, key: _Key) -> Certificate:
    written = Certificate(folder / f"{file}.crt", folder / f"{file}.key")
    written.certificate.write_bytes(created.public_bytes(serialization.Encoding.PEM))
    written.key.touch(mode=0o600)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    written.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return written
