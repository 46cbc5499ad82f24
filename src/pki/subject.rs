//! Rules for the parts of a subject, which a spec must keep. Pure.

/// Field that cannot be put into a certificate, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Path of the field in the spec: `subject.organizations[1]`.
    pub field: String,
    pub message: &'static str,
}

pub(crate) fn subject_part(field: &str, value: &str, longest: usize) -> Result<(), Problem> {
    let message = if value.is_empty() {
        "must not be empty"
    } else if value.chars().count() > longest {
        if longest == 64 {
            "must have at most 64 characters"
        } else {
            "must have at most 128 characters"
        }
    } else if value.contains(['=', ',']) {
        "must not contain = or , (they separate the parts of a subject string)"
    } else if value
        .chars()
        .any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}')
    {
        "must not contain line breaks or control characters"
    } else if value.trim() != value {
        "must not begin or end with a space"
    } else {
        return Ok(());
    };
    Err(Problem {
        field: field.to_owned(),
        message,
    })
}
