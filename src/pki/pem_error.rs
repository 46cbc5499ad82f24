//! Kinds of PEM blocks, and the errors of a text with their remedies. Pure.

use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest, prelude::FromDer,
    revocation_list::CertificateRevocationList, x509::SubjectPublicKeyInfo,
};

/// Kind of a block or of DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Certificate,
    Request,
    RevocationList,
    Pkcs7,
    Cms,
    Pkcs12,
    JavaKeystore,
    PrivateKey,
    PublicKey,
    Other,
}

/// Maximum length of one source of certificates, in bytes: the Kubernetes API takes no more in one object.
pub const MAX_SOURCE_BYTES: usize = 1024 * 1024;

/// Maximum number of certificates in one source.
pub const MAX_SOURCE_CERTIFICATES: usize = 500;

/// Reason why a text cannot be read. Names the line and the way out, and never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("it is not PEM: there is no -----BEGIN CERTIFICATE----- line")]
    NotPem,
    #[error("it holds no certificate")]
    Empty,
    #[error(
        "it holds a private key, which does not belong here: take it out, and replace the key if others could read it"
    )]
    PrivateKey,
    #[error("it has more than {MAX_SOURCE_BYTES} bytes: split it into several authorities")]
    TooLong,
    #[error("it holds more than {MAX_SOURCE_CERTIFICATES} certificates: split it into several authorities")]
    TooMany,
    #[error("line {line}: UTF-16, not UTF-8: iconv -f {from} -t UTF-8 FILE converts it")]
    Utf16 { line: usize, from: &'static str },
    #[error("line {line}: a zero byte: this is neither PEM nor DER. Export the certificates as PEM")]
    NotText { line: usize },
    #[error("line {line}: {kind} in binary form, not PEM: {} converts it", kind.conversion("FILE"))]
    Der { line: usize, kind: Kind },
    #[error(
        "line {line}: base64 of PEM, encoded once too often: base64 -d FILE decodes it (data of a Secret is \
         encoded once, stringData not at all)"
    )]
    EncodedPem { line: usize },
    #[error(
        "line {line}: {kind} in base64 without -----BEGIN and -----END lines: base64 -d FILE >DER && {} \
         converts it",
        kind.conversion("DER")
    )]
    EncodedDer { line: usize, kind: Kind },
    #[error("line {line}: base64 outside of a block: the -----BEGIN line before it is missing or damaged")]
    Unframed { line: usize },
    #[error(
        "line {line}: a damaged boundary: write -----BEGIN CERTIFICATE-----, with five hyphens on each side"
    )]
    Begin { line: usize },
    #[error(
        "line {line}: -----BEGIN after other text: begin a new line with it, or delete the block if it is commented out"
    )]
    BeginAmongText { line: usize },
    #[error("line {line}: the block that begins here is cut off: it has no -----END line")]
    NoEnd { line: usize },
    #[error("line {line}: the block that begins here has a damaged -----END line, or one of another kind")]
    End { line: usize },
    #[error(
        "line {line}: an -----END line without a block: the -----BEGIN line before it is missing or damaged"
    )]
    EndAlone { line: usize },
    #[error(
        "line {line}: the block that begins here is damaged: it is empty or not all base64. Copy it again"
    )]
    Base64 { line: usize },
    #[error("line {line}: the block that begins here is called a certificate and holds {kind}: {}", kind.way_out())]
    Mislabelled { line: usize, kind: Kind },
    #[error(
        "line {line}: the block that begins here is damaged: its content is not an X.509 certificate. Copy it again"
    )]
    NotCertificate { line: usize },
    #[error(
        "line {line}: the certificate that begins here is not as RFC 5280 demands (a date that does not exist, or \
         without a time zone, for example): have it issued again"
    )]
    Irregular { line: usize },
    #[error(
        "line {line}: the settings of this TRUSTED CERTIFICATE exclude TLS clients (clientAuth): leave it \
         out, or remove the settings with openssl x509 -in FILE -out NEW"
    )]
    NotTrusted { line: usize },
    #[error("line {line}: {kind} where a certificate belongs: {}", kind.way_out())]
    Misplaced { line: usize, kind: Kind },
}

impl Kind {
    /// Recognizes DER (or BER) by a parser, or by its first elements.
    pub(crate) fn of_der(der: &[u8]) -> Option<Kind> {
        if der.starts_with(b"\xfe\xed\xfe\xed") || der.starts_with(b"\xce\xce\xce\xce") {
            return Some(Kind::JavaKeystore);
        }
        let content = match der {
            [0x30, 0x81, _, content @ ..]
            | [0x30, 0x82, _, _, content @ ..]
            | [0x30, 0x83, _, _, _, content @ ..] => content,
            [0x30, length, content @ ..] if *length <= 0x80 => content,
            _ => return None,
        };
        const PKCS7: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07";
        const PKCS5: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05";
        const PKCS12_PASSWORD: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01";
        let encrypted = |content: &[u8]| {
            let inner = content.get(2..).unwrap_or_default();
            content.first() == Some(&0x30) && (inner.starts_with(PKCS5) || inner.starts_with(PKCS12_PASSWORD))
        };
        match content {
            [0x02, 0x01, 0x03, ..] => Some(Kind::Pkcs12),
            [0x02, 0x01, 0x00 | 0x01, ..] => Some(Kind::PrivateKey),
            _ if content.starts_with(PKCS7) => Some(Kind::Pkcs7),
            _ if encrypted(content) => Some(Kind::PrivateKey),
            _ if X509Certificate::from_der(der).is_ok() => Some(Kind::Certificate),
            _ if X509CertificationRequest::from_der(der).is_ok() => Some(Kind::Request),
            _ if CertificateRevocationList::from_der(der).is_ok() => Some(Kind::RevocationList),
            _ if SubjectPublicKeyInfo::from_der(der).is_ok() => Some(Kind::PublicKey),
            _ => None,
        }
    }

    /// Returns the command that converts a file from DER to PEM.
    fn conversion(self, file: &str) -> String {
        match self {
            Kind::Certificate | Kind::Other => format!("openssl x509 -inform DER -in {file} -out NEW"),
            Kind::Request => format!("openssl req -inform DER -in {file} -out NEW"),
            Kind::RevocationList => format!("openssl crl -inform DER -in {file} -out NEW"),
            Kind::Pkcs7 | Kind::Cms => format!("openssl pkcs7 -inform DER -in {file} -print_certs -out NEW"),
            Kind::Pkcs12 => format!("openssl pkcs12 -in {file} -nokeys -out NEW"),
            Kind::JavaKeystore => format!("keytool -exportcert -rfc -keystore {file} -alias ALIAS -file NEW"),
            Kind::PrivateKey => format!("openssl pkey -inform DER -in {file} -out NEW"),
            Kind::PublicKey => format!("openssl pkey -pubin -inform DER -in {file} -out NEW"),
        }
    }

    /// Returns the remedy for a PEM block of this kind in place of a certificate.
    fn way_out(self) -> &'static str {
        match self {
            Kind::Pkcs7 => "openssl pkcs7 -in FILE -print_certs -out NEW writes its certificates as PEM",
            Kind::Cms => {
                "openssl cms -cmsout -noout -inform PEM -in FILE -certsout NEW writes its certificates as PEM"
            }
            Kind::Request => "put here the certificate that the authority issued for it",
            Kind::RevocationList => {
                "API Gateway does not read these. Take it out, or keep the certificates with \
                 openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 -print_certs -out NEW"
            }
            Kind::PublicKey => "a public key alone identifies no caller. Put the certificate here",
            _ => {
                "keep the certificates with openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 \
                 -print_certs -out NEW"
            }
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Certificate => "a certificate",
            Kind::Request => "a certificate signing request (PKCS #10)",
            Kind::RevocationList => "a revocation list (X509 CRL)",
            Kind::Pkcs7 => "a PKCS #7 bundle",
            Kind::Cms => "a CMS bundle",
            Kind::Pkcs12 => "a PKCS #12 keystore",
            Kind::JavaKeystore => "a Java keystore",
            Kind::PrivateKey => "a private key",
            Kind::PublicKey => "a public key",
            Kind::Other => "a block of another kind",
        })
    }
}
