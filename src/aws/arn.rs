//! Amazon Resource Names, and their parts that the operator reads.

use std::fmt;

/// An ARN: `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`. Keeps any text; the schema of a kind, or AWS, is
/// what checks it. A part that the text does not have is empty, like the Region of an ARN of IAM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arn(String);

impl Arn {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Partition: `aws`, `aws-cn`, `aws-us-gov`.
    pub fn partition(&self) -> &str {
        self.part(1)
    }

    pub fn region(&self) -> &str {
        self.part(3)
    }

    pub fn account(&self) -> &str {
        self.part(4)
    }

    fn part(&self, n: usize) -> &str {
        self.0.split(':').nth(n).unwrap_or_default()
    }
}

impl From<String> for Arn {
    fn from(text: String) -> Arn {
        Arn(text)
    }
}

impl From<&str> for Arn {
    fn from(text: &str) -> Arn {
        Arn(text.to_owned())
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_kept_and_missing_parts_are_empty() {
        for (text, partition, region, account) in [
            (
                "arn:aws-cn:lambda:us-east-1:999999999999:function:f:live",
                "aws-cn",
                "us-east-1",
                "999999999999",
            ),
            ("arn:aws:iam::123456789012:role/a", "aws", "", "123456789012"),
            ("arn:aws:apigateway:eu-west-1::/apis/a1", "aws", "eu-west-1", ""),
            ("arn:aws:acm:eu-west-1", "aws", "eu-west-1", ""),
            ("x", "", "", ""),
            ("", "", "", ""),
        ] {
            let arn = Arn::from(text);
            assert_eq!(
                (arn.partition(), arn.region(), arn.account()),
                (partition, region, account),
                "{text}"
            );
            assert_eq!((arn.as_str(), arn.to_string()), (text, text.to_owned()));
            assert_eq!(arn, Arn::from(text.to_owned()));
        }
    }
}
