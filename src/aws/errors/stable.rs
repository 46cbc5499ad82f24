//! AWS's messages without secrets, and without the parts that change from call to call.

/// Texts before the parts of a message that quote the request: for a wrong signature AWS returns the request
/// as it was signed, with the session token.
const QUOTES: [&str; 8] = [
    "the canonical string",
    "the string-to-sign",
    "canonicalrequest",
    "stringtosign",
    "x-amz-security-token",
    "aws4-hmac-sha256",
    "authorization header:",
    "authorization=",
];

/// Labels of values that differ between calls. A longer label comes before the label that it contains.
const LABELS: [&str; 9] = [
    "encoded authorization failure message",
    "s3 extended request id",
    "extended request id",
    "request id",
    "requestid",
    "request-id",
    "host id",
    "hostid",
    "host-id",
];

/// Returns the end of the part of the message that quotes nothing of the request.
fn unquoted(message: &str) -> &str {
    let lower = message.to_ascii_lowercase(); // same length
    if lower.contains("not a valid key=value pair") {
        return ""; // of the Authorization header, which the message begins with
    }
    let end = QUOTES.iter().filter_map(|quote| lower.find(quote)).min();
    end.map_or(message, |end| {
        message[..end].trim_end_matches(|c: char| c.is_whitespace() || "'\"([:,".contains(c))
    })
}

/// True when the message quotes the request, so that the whole message must not be shown.
pub(super) fn quotes_request(message: &str) -> bool {
    unquoted(message).len() < message.len()
}

/// Returns AWS's message without a quoted request and without the parts that differ between calls: request
/// ids, times, and the session name in an assumed role's ARN, which changes with every renewal of the
/// credentials.
pub(super) fn stable(message: &str) -> String {
    let mut text = unquoted(message).to_owned();
    while let Some((start, end)) = request_id(&text) {
        text.replace_range(start..end, "");
    }
    let word = |word: &str| match word.split_once(":assumed-role/") {
        _ if is_time(word) => word.replacen(core(word), "(time)", 1),
        _ if word.starts_with("date/time") => "date/time".to_owned(),
        Some((account, role)) => {
            let (role, session) = role.split_once('/').unwrap_or((role, ""));
            let end =
                session.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c));
            format!("{account}:assumed-role/{role}{end}")
        }
        None => word.to_owned(),
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Returns the range of a value that differs between calls, with its label: the whole bracket around it, or
/// `RequestId: <id>`.
fn request_id(text: &str) -> Option<(usize, usize)> {
    let lower = text.to_ascii_lowercase(); // same length
    let (at, label) = LABELS
        .iter()
        .find_map(|label| Some((lower.find(label)?, label)))?;
    if let Some(open) = text[..at]
        .rfind('(')
        .filter(|open| !text[*open..at].contains(')'))
        && let Some(close) = text[at..].find(')')
    {
        return Some((open, at + close + 1));
    }
    let value = at + label.len();
    let skipped = text[value..].find(|c| !matches!(c, ':' | '=' | ' '));
    let value = skipped.map_or(text.len(), |skipped| value + skipped);
    let end = text[value..].find(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ')'));
    Some((at, end.map_or(text.len(), |end| value + end)))
}

/// True for `20261124T120000Z`, `2026-11-24T12:00:00Z`, `12:00:00` or seconds since 1970, as errors about
/// signatures and tokens contain them.
fn is_time(word: &str) -> bool {
    let word = core(word);
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let rest: String = word.chars().filter(|c| c.is_ascii_alphabetic()).collect();
    let is_date = digits >= 14 && (rest == "TZ" || (rest == "T" && word.contains(':')));
    let is_clock = word.len() == 8 && digits == 6 && word.matches(':').count() == 2;
    is_date || is_clock || (matches!(digits, 10 | 13) && word.len() == digits)
}

/// Returns the word without the punctuation around it.
fn core(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
}
