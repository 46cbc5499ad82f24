//! Ownership tags in AWS, the other tags and metadata that the operator writes there, and AWS's rules for
//! tags that users demand.

use std::{collections::BTreeMap, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters of a URL query that are escaped: all but the unreserved ones (RFC 3986, 2.3).
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Ownership tag on AWS resources: names the MtlsDomain that owns them.
pub const OWNER_TAG: &str = "mtls-operator.io/owner";
/// Tag on a domain beside the ownership tag: the domain existed before, and was taken over.
pub const ADOPTED_TAG: &str = "mtls-operator.io/adopted";
/// Tag on a certificate beside the ownership tag: the token of the request that ACM answered with it.
pub const REQUEST_TAG: &str = "mtls-operator.io/request";
/// Metadata key of the ownership tag on truststore objects. S3 keeps metadata keys in lower case and without
/// `/`.
pub const OWNER_METADATA: &str = "owner";
/// Metadata key on truststore objects: the KMS key that the spec named when the object was stored.
pub const KMS_KEY_METADATA: &str = "kms-key";
/// Metadata key on truststore objects: the encryption that the spec named, without a KMS key, when the object
/// was stored.
pub const ENCRYPTION_METADATA: &str = "encryption";
/// Metadata key on truststore objects: the fingerprints of the object's tags, which a read of the object does
/// not return.
pub const TAGS_METADATA: &str = "tags";
/// Tag on an API between a change and the deployment, or touched stage, that makes the change effective.
pub const PENDING_TAG: &str = "mtls-operator.io/pending-deployment";
/// Value of [`PENDING_TAG`] once a REST API is deployed and until its endpoint is seen refusing callers, so
/// that the operator deploys only once while that takes effect. Until then the value is the ownership tag.
pub const DEPLOYED: &str = "deployed";

/// Tags that users demand on the resources of an MtlsDomain, by key.
pub type Tags = BTreeMap<String, String>;

/// Maximum number of these tags. AWS allows a resource 50 (AWS Tagging User Guide, "Tag naming limits"), of
/// which the operator's own tags and tags of other writers need some.
pub const MOST: usize = 40;
/// Maximum number of tags on an S3 object (S3 User Guide, "Categorizing your objects using tags").
pub const MOST_ON_OBJECT: usize = 10;
/// Prefixes of the keys that no user may set, in any case: AWS's and the operator's own.
pub const RESERVED: [&str; 2] = ["aws:", "mtls-operator.io/"];

/// Tag from a flag, `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Tag, String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
        match problem_of_key(key).or_else(|| problem_of_value(value)) {
            Some(problem) => Err(problem),
            None => Ok(Tag {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
        }
    }
}

/// Returns the tags of the flag, by key.
///
/// # Errors
/// Returns a text that names the flag when it gives a key twice, or too many tags.
pub fn of_flag(all: Vec<Tag>) -> Result<Tags, String> {
    let mut tags = Tags::new();
    for Tag { key, value } in all {
        if tags.insert(key.clone(), value).is_some() {
            return Err(format!("--aws-tags: {key} is given twice"));
        }
    }
    match tags.len() {
        0..=MOST => Ok(tags),
        n => Err(format!("--aws-tags: {n} tags, and at most {MOST} are possible")),
    }
}

/// Returns why AWS or the operator refuses the key of a tag, and the valid form. Source: AWS Tagging User
/// Guide, "Tag naming limits and requirements".
pub fn problem_of_key(key: &str) -> Option<String> {
    let lower = key.to_lowercase();
    if let Some(reserved) = RESERVED.iter().find(|reserved| lower.starts_with(**reserved)) {
        return Some(format!("{key:?}: leave out keys that begin with {reserved}"));
    }
    let is_right = (1..=128).contains(&key.chars().count()) && key.chars().all(is_of_tag);
    (!is_right).then(|| {
        format!("{key:?}: write a key of 1 to 128 letters, digits, spaces and _.:/=+-@, as in cost-center")
    })
}

fn problem_of_value(value: &str) -> Option<String> {
    let is_right = value.chars().count() <= 256 && value.chars().all(is_of_tag);
    (!is_right)
        .then(|| format!("{value:?}: write a value of at most 256 letters, digits, spaces and _.:/=+-@"))
}

fn is_of_tag(c: char) -> bool {
    c.is_alphanumeric() || " _.:/=+-@".contains(c)
}

/// Returns the tags that are not there, or have another value.
pub fn missing(wanted: &Tags, there: &Tags) -> Tags {
    let lacks = |(key, value): &(&String, &String)| there.get(*key) != Some(*value);
    wanted
        .iter()
        .filter(lacks)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Returns the tags of an S3 object: the first by key, as many as S3 allows.
pub fn of_object(tags: &Tags) -> Tags {
    tags.iter()
        .take(MOST_ON_OBJECT)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Returns tags as the URL query that S3 takes.
pub fn as_query(tags: &Tags) -> String {
    let pairs: Vec<_> = tags
        .iter()
        .map(|(key, value)| {
            let [key, value] = [key, value].map(|text| utf8_percent_encode(text, &ESCAPED));
            format!("{key}={value}")
        })
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(all: &[(&str, &str)]) -> Tags {
        all.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_tag_that_aws_refuses_is_refused_with_the_valid_form() {
        let long = |n: usize| "k".repeat(n);
        for (text, says) in [
            ("CostCenter=4711".to_owned(), ""),
            ("a b/c:d_e.f+g-h@i=j=k".to_owned(), ""),
            ("Größe=Müller".to_owned(), ""),
            ("empty=".to_owned(), ""),
            (format!("{}=v", long(128)), ""),
            (format!("k={}", long(256)), ""),
            (format!("{}=v", long(129)), "1 to 128"),
            (format!("k={}", long(257)), "at most 256"),
            ("=v".to_owned(), "1 to 128"),
            ("k".to_owned(), "KEY=VALUE"),
            ("a*=v".to_owned(), "letters, digits"),
            ("k=a;b".to_owned(), "letters, digits"),
            ("aws:x=v".to_owned(), "begin with aws:"),
            ("AwS:x=v".to_owned(), "begin with aws:"),
            (
                "mtls-operator.io/owner=v".to_owned(),
                "begin with mtls-operator.io/",
            ),
            ("MTLS-Operator.io/x=v".to_owned(), "begin with mtls-operator.io/"),
        ] {
            let parsed = text.parse::<Tag>();
            match says {
                "" => assert!(parsed.is_ok(), "{text}: {parsed:?}"),
                says => assert!(
                    parsed.as_ref().is_err_and(|e| e.contains(says)),
                    "{text}: {parsed:?}"
                ),
            }
        }
        let flag = |all: &[&str]| of_flag(all.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(flag(&["a=1", "b=2"]), Ok(tags(&[("a", "1"), ("b", "2")])));
        assert!(flag(&["a=1", "a=1"]).unwrap_err().contains("a is given twice"));
        let many: Vec<_> = (0..=MOST).map(|n| format!("k{n}=v")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(flag(&many[..MOST]).is_ok());
        assert!(flag(&many).unwrap_err().contains("at most 40"));
    }

    #[test]
    fn tags_of_others_are_not_missing_and_objects_have_the_first_ten() {
        let wanted = tags(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let there = tags(&[("a", "1"), ("b", "other"), ("theirs", "x")]);
        assert_eq!(missing(&wanted, &there), tags(&[("b", "2"), ("c", "3")]));
        let many: Tags = (0..40).map(|n| (format!("k{n:02}"), String::new())).collect();
        let keys: Vec<_> = of_object(&many).into_keys().collect();
        assert_eq!((keys.len(), &*keys[0], &*keys[9]), (10, "k00", "k09"));
    }

    #[test]
    fn tags_of_objects_are_a_url_query() {
        assert_eq!(
            as_query(&tags(&[("a b", "c&d=e"), ("ü", "")])),
            "a%20b=c%26d%3De&%C3%BC="
        );
    }
}
