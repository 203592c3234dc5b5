//! Which trace a request belongs to, as it stands in headers (W3C Trace Context,
//! <https://www.w3.org/TR/trace-context/>). Pure: random bytes come from outside.

use std::fmt;

/// The header that names the trace and the caller's span.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what other programs along the way noted about the trace; it is handed on and not read.
pub const TRACESTATE: &str = "tracestate";
/// Longest `tracestate` that is handed on, all its headers together: section 3.3.1.5 wants at least so much.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Bytes of a `traceparent` of version 00.
const HEADER_BYTES: usize = 55;
/// The bit of the flags that says that the caller's span is recorded. The others mean nothing in version 00.
const SAMPLED: u8 = 1;

/// A trace, and a span of it that others are children of. Neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

impl TraceParent {
    /// Of ids; none when one of them is zero, which names nothing.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            sampled,
        })
    }

    /// Reads a header; none for what the standard calls invalid (section 3.2.2). Of a later version the part that is
    /// known is read.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, rest) = header.split_at_checked(HEADER_BYTES)?;
        let [version] = bytes_of(&known[..2])?;
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|&byte| byte == b'-'),
        };
        if !ends || [2, 35, 52].iter().any(|&at| known[at] != b'-') {
            return None;
        }
        let [flags] = bytes_of(&known[53..])?;
        Self::new(
            bytes_of(&known[3..35])?,
            bytes_of(&known[36..52])?,
            flags & SAMPLED != 0,
        )
    }

    /// The same trace with another span.
    pub fn with_span(self, span_id: [u8; 8]) -> Option<Self> {
        Self::new(self.trace_id, span_id, self.sampled)
    }

    /// The trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the span is recorded.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceParent {
    /// The header, of version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (hex::encode(self.trace_id), hex::encode(self.span_id));
        write!(f, "00-{trace_id}-{span_id}-{:02x}", u8::from(self.sampled) * SAMPLED)
    }
}

/// Bytes of their hex digits, which are lower case here.
fn bytes_of<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !digits.iter().any(u8::is_ascii_uppercase);
    (lower && hex::decode_to_slice(digits, &mut bytes).is_ok()).then_some(bytes)
}

/// What a caller says about the trace of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The trace and the caller's span.
    pub parent: TraceParent,
    /// What is handed on with it.
    pub state: Option<String>,
}

impl Caller {
    /// Of the values of a request's headers `traceparent` and `tracestate`. None when there is no valid parent, or more
    /// than one: then the state says nothing either. A state that is too long, or no text, is left out.
    pub fn read<'a>(
        parents: impl IntoIterator<Item = &'a [u8]>,
        states: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let mut parents = parents.into_iter();
        let (parent, None) = (TraceParent::parse(parents.next()?)?, parents.next()) else {
            return None;
        };
        Some(Self {
            parent,
            state: joined(states),
        })
    }
}

/// Several headers are one list, in their order (RFC 9110, section 5.3).
fn joined<'a>(states: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let mut list = String::new();
    for state in states {
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
        let text = std::str::from_utf8(state).ok().filter(|_| state.iter().all(is_text))?;
        let comma = if list.is_empty() || text.is_empty() { "" } else { "," };
        if list.len() + comma.len() + text.len() > TRACESTATE_BYTES_MAX {
            return None;
        }
        list.push_str(comma);
        list.push_str(text);
    }
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parents: &[&str], states: &[&str]) -> Option<Caller> {
        let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let (parents, states) = (bytes(parents), bytes(states));
        Caller::read(parents.iter().map(Vec::as_slice), states.iter().map(Vec::as_slice))
    }

    #[test]
    fn the_standards_example_is_read_and_written_alike() {
        let parent = TraceParent::parse(VALID.as_bytes()).unwrap();
        assert_eq!(hex::encode(parent.trace_id()), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(hex::encode(parent.span_id()), "00f067aa0ba902b7");
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), VALID);
        let other = parent.with_span([1; 8]).unwrap();
        assert_eq!(
            other.to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0101010101010101-01"
        );
        assert_eq!(parent.with_span([0; 8]), None);
    }

    #[test]
    fn only_the_flag_that_is_known_counts() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let header = format!("{}{flags}", &VALID[..53]);
            let parent = TraceParent::parse(header.as_bytes()).unwrap();
            assert_eq!(parent.is_sampled(), sampled, "{flags}");
            assert!(parent.to_string().ends_with(if sampled { "-01" } else { "-00" }));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = VALID.replacen("00", "cc", 1);
        for header in [later.clone(), format!("{later}-"), format!("{later}-what-will-be")] {
            let parent = TraceParent::parse(header.as_bytes()).map(|parent| parent.to_string());
            assert_eq!(parent.as_deref(), Some(VALID), "{header}");
        }
        assert_eq!(TraceParent::parse(format!("{later}.").as_bytes()), None);
    }

    #[test]
    fn what_the_standard_calls_invalid_is_none() {
        let zeros = |from: usize, to: usize| format!("{}{}{}", &VALID[..from], "0".repeat(to - from), &VALID[to..]);
        for header in [
            String::new(),
            "-".repeat(55),
            VALID[..54].to_owned(),
            format!("{VALID}-00"),
            format!("{VALID} "),
            format!(" {VALID}"),
            format!("{VALID},{VALID}"),
            VALID.to_uppercase(),
            VALID.replacen("00", "ff", 1),
            VALID.replacen("00", "0x", 1),
            VALID.replace('-', "_"),
            VALID.replace("4bf9", "4bg9"),
            VALID.replace("0e47", "\u{e9}47"),
            zeros(3, 35),
            zeros(36, 52),
        ] {
            assert_eq!(TraceParent::parse(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn a_caller_has_one_parent_and_its_state_goes_on_unchanged() {
        let state = |states: &[&str]| read(&[VALID], states).unwrap().state;
        assert_eq!(state(&[]), None);
        assert_eq!(state(&["", ""]), None);
        assert_eq!(
            state(&["rojo=00f067aa0ba902b7 ,\tcongo=t61"]).as_deref(),
            Some("rojo=00f067aa0ba902b7 ,\tcongo=t61")
        );
        assert_eq!(state(&["a=1", "", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["a=\u{e9}"]), None);
        let longest = "a".repeat(TRACESTATE_BYTES_MAX);
        assert_eq!(state(&[&longest]), Some(longest.clone()));
        assert_eq!(state(&[&longest, "b"]), None);
        assert_eq!(read(&[VALID, VALID], &["a=1"]), None);
        assert_eq!(read(&["00-0-0-00"], &["a=1"]), None);
        assert_eq!(read(&[], &["a=1"]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) {
            let parent = TraceParent::new(trace_id, span_id, sampled);
            prop_assert_eq!(parent.is_none(), trace_id == [0; 16] || span_id == [0; 8]);
            if let Some(parent) = parent {
                prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
            }
        }

        #[test]
        fn whatever_is_sent_is_read_or_refused(header in prop::collection::vec(any::<u8>(), 0..80)) {
            // Random bytes are no parent, and no reason to panic.
            prop_assert_eq!(TraceParent::parse(&header), None);
        }

        #[test]
        fn one_wrong_byte_is_refused_or_says_another_thing(at in 0usize..55, byte: u8) {
            let mut header = VALID.as_bytes().to_vec();
            header[at] = byte;
            if let Some(parent) = TraceParent::parse(&header) {
                // What is read is what stands there, but for a later version and flags that mean nothing.
                let read = parent.to_string();
                prop_assert_eq!(&read.as_bytes()[3..53], &header[3..53]);
                let is_digit = byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase();
                prop_assert!(is_digit || byte == VALID.as_bytes()[at]);
            }
        }

        #[test]
        fn a_state_is_handed_on_whole_or_not_at_all(states in prop::collection::vec("[ -~\t]{0,200}", 0..5)) {
            let texts: Vec<&str> = states.iter().map(String::as_str).collect();
            let whole = states.iter().filter(|state| !state.is_empty()).cloned().collect::<Vec<_>>().join(",");
            let wanted = (!whole.is_empty() && whole.len() <= TRACESTATE_BYTES_MAX).then_some(whole);
            prop_assert_eq!(read(&[VALID], &texts).unwrap().state, wanted);
        }
    }
}
