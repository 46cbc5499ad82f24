//! Lengths and lists in the messages of conditions. Pure.

/// Maximum bytes of a text in a status, other than a condition's message: the maker of a certificate decides
/// how long its names are.
pub const MAX_TEXT: usize = 1024;
/// Maximum length of a condition's message, in bytes. Source: metav1.Condition.
pub(crate) const MAX_MESSAGE: usize = 32_768;

/// Cuts a text to [`MAX_TEXT`] bytes, for a status.
pub fn shown(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// Returns the text as it is, or, when it is longer than `most` bytes, its beginning and an ellipsis:
/// together `most` bytes at the most.
pub fn cut(text: &str, most: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len()));
    format!("{}{ELLIPSIS}", &text[..end])
}

/// Joins the first `most` parts of a message and counts the rest: a condition holds 32768 characters at the
/// most, and a reader wants fewer.
pub fn listed<'a>(parts: impl ExactSizeIterator<Item = &'a str>, most: usize) -> String {
    let more = parts.len().saturating_sub(most);
    let told = parts.take(most).collect::<Vec<_>>().join("; ");
    if more == 0 {
        told
    } else {
        format!("{told}; and {more} more")
    }
}

/// Maximum number of problems in a condition's message.
pub(crate) const MOST_TOLD: usize = 20;
