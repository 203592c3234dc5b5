//! A request with a body, as one input says it.

/// Content type, body, and the size of the pieces in which it comes: the first byte is that size, what is left of the first line the type.
pub fn of(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let (step, rest) = bytes.split_first()?;
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (content_type, body) = rest.split_at(at);
    let step = usize::from(*step) * 8 + 1;
    Some((content_type, body.get(1..).unwrap_or_default(), step))
}
