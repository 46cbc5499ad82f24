//! Partitions of AWS: to which one a Region belongs, and what its ARNs and host names look like. Source:
//! botocore's `partitions.json`.

/// Prefixes of Region codes with the partition's name, as ARNs have it, and the suffix of its host names. A
/// prefix comes before any shorter one that it begins with.
const PARTITIONS: [(&str, &str, &str); 16] = [
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
    ("us-", "aws", "amazonaws.com"),
    ("eu-", "aws", "amazonaws.com"),
    ("ap-", "aws", "amazonaws.com"),
    ("sa-", "aws", "amazonaws.com"),
    ("ca-", "aws", "amazonaws.com"),
    ("me-", "aws", "amazonaws.com"),
    ("af-", "aws", "amazonaws.com"),
    ("il-", "aws", "amazonaws.com"),
    ("mx-", "aws", "amazonaws.com"),
];

/// Region of no known partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no known partition of AWS has a Region {0:?}: write a Region's code, as in eu-west-1, or use a version of \
     mtls-operator that knows the Region"
)]
pub struct UnknownRegion(pub String);

fn find(region: &str) -> Option<(&'static str, &'static str)> {
    let of = PARTITIONS.iter().find(|(prefix, ..)| region.starts_with(prefix));
    of.map(|(_, name, suffix)| (*name, *suffix))
}

/// Checks a Region where it enters the program: flags, the environment, specs.
///
/// # Errors
/// [`UnknownRegion`].
pub fn check(region: &str) -> Result<(), UnknownRegion> {
    find(region)
        .map(|_| ())
        .ok_or_else(|| UnknownRegion(region.to_owned()))
}

/// Returns the partition of a Region, as it begins an ARN; of a placeholder for any Region the common one.
pub fn partition(region: &str) -> &'static str {
    find(region).map_or("aws", |(name, _)| name)
}

/// Returns the suffix of host names in a Region.
pub fn dns_suffix(region: &str) -> &'static str {
    find(region).map_or("amazonaws.com", |(_, suffix)| suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_the_partition_of_its_prefix() {
        for (region, name, suffix) in [
            ("eu-west-1", "aws", "amazonaws.com"),
            ("ap-southeast-7", "aws", "amazonaws.com"),
            ("mx-central-1", "aws", "amazonaws.com"),
            ("cn-northwest-1", "aws-cn", "amazonaws.com.cn"),
            ("us-gov-east-1", "aws-us-gov", "amazonaws.com"),
            ("eusc-de-east-1", "aws-eusc", "amazonaws.eu"),
            ("us-iso-west-1", "aws-iso", "c2s.ic.gov"),
            ("us-isob-east-1", "aws-iso-b", "sc2s.sgov.gov"),
            ("eu-isoe-west-1", "aws-iso-e", "cloud.adc-e.uk"),
            ("us-isof-south-1", "aws-iso-f", "csp.hci.ic.gov"),
        ] {
            assert_eq!(check(region), Ok(()), "{region}");
            assert_eq!(
                (partition(region), dns_suffix(region)),
                (name, suffix),
                "{region}"
            );
        }
    }

    #[test]
    fn a_region_of_no_partition_is_refused_with_its_name() {
        for region in ["", "moon-east-1", "*", "eu", "local"] {
            let error = check(region).unwrap_err();
            assert!(error.to_string().contains(&format!("{region:?}")), "{error}");
        }
        assert_eq!((partition("*"), dns_suffix("*")), ("aws", "amazonaws.com"));
    }

    #[test]
    fn no_prefix_hides_a_longer_one() {
        for (at, (prefix, ..)) in PARTITIONS.iter().enumerate() {
            let earlier = PARTITIONS[..at]
                .iter()
                .find(|(short, ..)| prefix.starts_with(short));
            assert_eq!(earlier, None, "{prefix}");
        }
    }
}
