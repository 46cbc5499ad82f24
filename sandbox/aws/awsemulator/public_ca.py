"""The public CA of the local world, in Amazon's place: it signs the certificates that ACM issues and those of the
default endpoints. New in each process; its key never leaves it.

All certificates with one key algorithm have the same key, because keys take long to make.
"""

import datetime
from functools import cache
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = 86400
#: longest common name [RFC 5280, ub-common-name]
_COMMON_NAME = 64


class Material(NamedTuple):
    """Certificate with its chain, and its private key, in PEM."""

    pem: str
    chain: str
    key: str


@cache
def _key(algorithm: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    kind, _, size = algorithm.partition("_")
    if kind == "RSA":
        return rsa.generate_private_key(65537, int(size))
    curves = {"prime256v1": ec.SECP256R1, "secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}
    return ec.generate_private_key(curves[size]())


@cache
def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = _name("mtls-operator sandbox public CA")
    usage = x509.KeyUsage(*(n in ("key_cert_sign", "crl_sign") for n in _USAGES))
    builder = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               # An account's clock may be ahead, so that its certificates last longer.
               .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=7300))
               .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
               .add_extension(usage, critical=True)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False))
    return builder.sign(key, hashes.SHA256()), key


_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def certificate() -> str:
    """Returns the CA's certificate in PEM."""
    return _pem(_authority()[0])


def issue(names: list[str], algorithm: str, serial: int, not_before: float, not_after: float) -> Material:
    """Issues a server certificate; dates are seconds since 1970."""
    authority, signer = _authority()
    key = _key(algorithm)
    subject = next((n for n in names if len(n) <= _COMMON_NAME), "")
    dates = [datetime.datetime.fromtimestamp(int(at), datetime.timezone.utc) for at in (not_before, not_after)]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    usages = ("digital_signature", "key_encipherment") if algorithm.startswith("RSA") else ("digital_signature",)
    builder = (x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(authority.subject)
               .public_key(key.public_key()).serial_number(serial)
               .not_valid_before(dates[0]).not_valid_after(max(dates))
               .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=not subject)
               .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
               .add_extension(x509.KeyUsage(*(n in usages for n in _USAGES)), critical=True)
               .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
               .add_extension(issuer_key, critical=False))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    return Material(_pem(builder.sign(signer, hashes.SHA256())), certificate(), private.decode())


@cache
def default_endpoint(parent: str) -> Material:
    """Returns the certificate of all default endpoints below this name."""
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    return issue([f"*.{parent}"], "EC_prime256v1", x509.random_serial_number(), now - _DAY, now + 365 * _DAY)
