//! Attributes of a request that ask for extensions: the standard one (PKCS #9), and the one that Microsoft's
//! programs wrote before. Pure.

use x509_cert::der::{
    Decode, Tag, TagNumber, Tagged,
    asn1::{AnyRef, ObjectIdentifier},
};
use x509_parser::{
    cri_attributes::ExtensionRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use crate::pki::leaf::LeafRequest;

/// Reason why the alternative names of a request cannot be certified. Never quotes the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    #[error("it asks for alternative names other than DNS names, URIs and mail addresses: leave them out")]
    Other,
    #[error(
        "its alternative names cannot be read: write them in ASCII, internationalized DNS names in Punycode, \
         as in xn--mller-kva.example"
    )]
    Unreadable,
    #[error("it asks for two different lists of alternative names, in two attributes: make it with one")]
    TwoLists,
    #[error("its extension request (attribute {0}) cannot be read: make the request again")]
    Extensions(String),
    #[error("its attributes cannot be read: make the request again")]
    Attributes,
}

/// Attributes with extensions: `extensionRequest` of PKCS #9, and `rgExtensions` of certreq and CertEnroll.
const EXTENSION_REQUESTS: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.14"),
];

/// Adds the alternative names that the request (DER CertificationRequestInfo) asks for.
pub(crate) fn add_names(request: &mut LeafRequest, info: &[u8]) -> Result<(), NamesError> {
    let mut named: Option<LeafRequest> = None;
    for extensions in requested(info)? {
        let (rest, asked) = ExtensionRequest::from_der(extensions.1).map_err(|_| extensions.refused())?;
        if !rest.is_empty() {
            return Err(extensions.refused());
        }
        let Some(names) = names(&asked)? else { continue };
        if named.is_some_and(|before| before != names) {
            return Err(NamesError::TwoLists);
        }
        named = Some(names);
    }
    if let Some(names) = named {
        request.dns_names = names.dns_names;
        request.uris = names.uris;
        request.email_addresses = names.email_addresses;
    }
    Ok(())
}

/// Returns the alternative names of one list of extensions; `None` when it has no such extension.
fn names(asked: &ExtensionRequest<'_>) -> Result<Option<LeafRequest>, NamesError> {
    const SUBJECT_ALT_NAME: &str = "2.5.29.17";
    let mut found = None;
    let extensions = asked.extensions.iter();
    for extension in extensions.filter(|e| e.oid.to_id_string() == SUBJECT_ALT_NAME) {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            return Err(NamesError::Unreadable);
        };
        let request = found.get_or_insert_with(LeafRequest::default);
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => request.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => request.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(mail) => request.email_addresses.push((*mail).to_owned()),
                GeneralName::Invalid(..) => return Err(NamesError::Unreadable),
                _ => return Err(NamesError::Other),
            }
        }
    }
    Ok(found)
}

/// List of extensions of an attribute, with the attribute's type.
struct Extensions<'i>(ObjectIdentifier, &'i [u8]);

impl Extensions<'_> {
    fn refused(&self) -> NamesError {
        NamesError::Extensions(self.0.to_string())
    }
}

/// Returns the lists of extensions of all attributes. Ignores attributes of other types, such as
/// `challengePassword`.
fn requested(info: &[u8]) -> Result<Vec<Extensions<'_>>, NamesError> {
    let attributes = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(0),
    };
    let unreadable = |_| NamesError::Attributes;
    let mut found = Vec::new();
    for part in elements(AnyRef::from_der(info).map_err(unreadable)?.value())? {
        if part.tag() != attributes {
            continue;
        }
        for attribute in elements(part.value())? {
            let [kind, values] = elements(attribute.value())?[..] else {
                return Err(NamesError::Attributes);
            };
            let kind = kind.decode_as::<ObjectIdentifier>().map_err(unreadable)?;
            if EXTENSION_REQUESTS.contains(&kind) {
                found.push(Extensions(kind, values.value()));
            }
        }
    }
    Ok(found)
}

fn elements(mut der: &[u8]) -> Result<Vec<AnyRef<'_>>, NamesError> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (one, rest) = AnyRef::from_der_partial(der).map_err(|_| NamesError::Attributes)?;
        all.push(one);
        der = rest;
    }
    Ok(all)
}
