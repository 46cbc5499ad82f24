"""Reading certificates: one place that knows the `cryptography` package."""

import datetime
import re
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
_WEAK_HASHES = ("md5", "sha1")


def split(pem: bytes) -> list[bytes]:
    return _PEM.findall(pem)


def load(pem: bytes) -> x509.Certificate | None:
    """The certificate, or None when it cannot be parsed."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None


def names(cert: x509.Certificate) -> list[str]:
    """The common name, then the DNS names of the certificate, without repetition."""
    found = [str(a.value) for a in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    with suppress(x509.ExtensionNotFound):
        alternatives = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += alternatives.get_values_for_type(x509.DNSName)
    return list(dict.fromkeys(found))


def weaknesses(cert: x509.Certificate) -> list[str]:
    """What API Gateway does not take in a truststore: validity, SHA-256 or better, RSA-2048 or ECDSA-256 or better."""
    found, now, key = [], datetime.datetime.now(datetime.timezone.utc), cert.public_key()
    if now > cert.not_valid_after_utc:
        found.append("has expired")
    if now < cert.not_valid_before_utc:
        found.append("is not yet valid")
    if cert.signature_hash_algorithm is None or cert.signature_hash_algorithm.name in _WEAK_HASHES:
        found.append("has an unsupported signature algorithm")
    if not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048
            or isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= 256):
        found.append("has an unsupported key")
    return found


def is_issuer(issuer: x509.Certificate, cert: x509.Certificate) -> bool:
    """Whether `issuer` signed `cert`: name chaining and key chaining."""
    try:
        cert.verify_directly_issued_by(issuer)
    except Exception:  # other name, other key, or a key type that cannot verify
        return False
    return True
