//! Lengths and lists in the messages of conditions. Pure.

/// Maximum bytes of a text in a status, other than a condition's message: the maker of a certificate decides
/// how long its names are.
pub const MAX_TEXT: usize = 1024;
/// Maximum bytes of a condition's message. A tenant decides how many parts of a spec it lists.
pub const MAX_MESSAGE: usize = 1024;
/// Maximum bytes of a list that is a whole message, without the count of the rest.
pub const WHOLE: usize = 1000;
/// Maximum bytes of a list within a sentence, without the count of the rest.
pub const WITHIN: usize = 600;

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

/// Joins the first parts of a message, `most` of them and `room` bytes at the most, and counts the rest. Cuts
/// the first part when it alone is longer.
pub fn listed<'a>(parts: impl ExactSizeIterator<Item = &'a str>, most: usize, room: usize) -> String {
    let all = parts.len();
    let (mut told, mut count) = (String::new(), 0);
    for part in parts.take(most) {
        if count == 0 {
            told = cut(part, room);
        } else if told.len() + SEPARATOR.len() + part.len() > room {
            break;
        } else {
            told += SEPARATOR;
            told += part;
        }
        count += 1;
    }
    and_more(told, all - count)
}

/// Cuts a condition's message to [`MAX_MESSAGE`] bytes: at the end of a part, with the count of the parts
/// that it leaves out, or within its first part.
pub(crate) fn message(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let mut parts: Vec<_> = text.split(SEPARATOR).collect();
    let counted = parts.last().and_then(|last| {
        let count = last.strip_prefix("and ")?.strip_suffix(" more")?;
        count.parse::<usize>().ok()
    });
    if counted.is_some() {
        parts.pop();
    }
    let all = parts.len();
    let mut end = 0;
    let fits = |part: &&&str| {
        end += part.len() + SEPARATOR.len();
        end - SEPARATOR.len() <= WHOLE
    };
    let count = parts.iter().take_while(fits).count();
    if count == 0 {
        return cut(text, MAX_MESSAGE);
    }
    and_more(
        parts[..count].join(SEPARATOR),
        all - count + counted.unwrap_or_default(),
    )
}

/// Separator between the parts of a message.
const SEPARATOR: &str = "; ";

fn and_more(told: String, more: usize) -> String {
    if more == 0 {
        told
    } else {
        format!("{told}{SEPARATOR}and {more} more")
    }
}

/// Maximum number of problems in a condition's message.
pub(crate) const MOST_TOLD: usize = 20;
