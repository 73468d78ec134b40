//! The headers of a message, and the lists of words in some of them.

/// Names and values, in order.
pub(super) type Fields<'b> = [(&'b str, &'b [u8])];

/// The values of every header of this name.
pub(super) fn values<'f, 'b>(
    fields: &'f Fields<'b>,
    name: &'f str,
) -> impl Iterator<Item = &'b [u8]> + use<'f, 'b> {
    fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The words of a list such as `Connection` and `Upgrade` have (RFC 9110, section 5.6.1).
pub(super) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// Whether a word is this one, in either case.
pub(super) fn is_word(word: &[u8], known: &str) -> bool {
    word.eq_ignore_ascii_case(known.as_bytes())
}
