//! Name patterns, compiled for the kernel: both sides match with the same automaton.

use thiserror::Error;

use crate::kernel::abi::{COMM_BYTES, CommGlob};

/// Why a pattern cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GlobError {
    /// There is nothing in it.
    #[error("the name pattern is empty: give a thread name such as `nginx`, or one with * and ?")]
    Empty,
    /// It has more tokens than the kernel side takes.
    #[error(
        "the name pattern `{0}` is too long: the kernel keeps 15 bytes of a name, use * for the rest"
    )]
    TooLong(String),
    /// A `[` without its `]`.
    #[error("the name pattern `{0}` has a `[` without a `]`: write `[[]` for the character itself")]
    Unclosed(String),
}

/// The most tokens: one bit of 32 is the start, one is the end.
const TOKENS_MAX: usize = 30;

/// Compiles a pattern of literals, `*`, `?` and `[abc]`, `[a-z]`, `[!x]`. Target, scope and flags
/// are left 0 for the caller to fill.
///
/// # Errors
///
/// [`GlobError`]
pub fn compile(pattern: &str) -> Result<CommGlob, GlobError> {
    let mut glob = CommGlob {
        enter: [0; 256],
        stay: 0,
        accept: 0,
        target: 0,
        scope: 0,
        flags: 0,
        reserved: 0,
    };
    if pattern.is_empty() {
        return Err(GlobError::Empty);
    }
    let mut bytes = pattern.bytes().peekable();
    let mut tokens = 0;
    while let Some(byte) = bytes.next() {
        if byte == b'*' {
            glob.stay |= 1 << tokens;
            continue;
        }
        tokens += 1;
        if tokens > TOKENS_MAX {
            return Err(GlobError::TooLong(pattern.to_owned()));
        }
        let state = 1 << tokens;
        match byte {
            b'?' => enter(&mut glob, state, |_| true),
            b'[' => {
                let set =
                    class(&mut bytes).ok_or_else(|| GlobError::Unclosed(pattern.to_owned()))?;
                enter(&mut glob, state, |byte| set.contains(byte));
            }
            _ => enter(&mut glob, state, |other| other == byte),
        }
    }
    // A pattern that ends in `*` stays alive through the NULs.
    glob.accept = 1 << (tokens + 1);
    glob.enter[0] |= glob.accept;
    glob.stay |= glob.accept;
    Ok(glob)
}

/// Lets `state` be entered on the bytes that `matches` says, which are never NUL.
fn enter(glob: &mut CommGlob, state: u32, matches: impl Fn(u8) -> bool) {
    for (byte, states) in glob.enter.iter_mut().enumerate().skip(1) {
        if matches(byte as u8) {
            *states |= state;
        }
    }
}

/// A set of bytes.
struct Class {
    ranges: Vec<(u8, u8)>,
    negated: bool,
}

impl Class {
    fn contains(&self, byte: u8) -> bool {
        let listed = self
            .ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&byte));
        listed != self.negated
    }
}

/// Reads a set after its `[`. `None` if it does not end.
fn class(bytes: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Option<Class> {
    let negated = bytes.next_if(|byte| matches!(byte, b'!' | b'^')).is_some();
    let mut ranges = Vec::new();
    loop {
        let first = bytes.next()?;
        if first == b']' && !ranges.is_empty() {
            return Some(Class { ranges, negated });
        }
        let mut last = first;
        if bytes.next_if_eq(&b'-').is_some() {
            last = bytes.next()?;
            if last == b']' {
                ranges.push((first, first));
                ranges.push((b'-', b'-'));
                return Some(Class { ranges, negated });
            }
        }
        ranges.push((first, last));
    }
}

/// Whether a compiled pattern matches a thread name.
pub fn matches(glob: &CommGlob, name: &str) -> bool {
    let mut comm = [0; COMM_BYTES];
    for (to, from) in comm.iter_mut().zip(name.bytes().take(COMM_BYTES - 1)) {
        *to = from;
    }
    glob.matches(&comm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The textbook definition, as the truth to compare with.
    fn truth(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                truth(rest, name) || name.split_first().is_some_and(|(_, n)| truth(pattern, n))
            }
            (Some((b'?', rest)), Some((_, n))) => truth(rest, n),
            (Some((byte, rest)), Some((first, n))) => byte == first && truth(rest, n),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_automaton_agrees_with_the_definition(
            pattern in "[ab*?]{1,8}", name in "[ab]{0,15}"
        ) {
            let glob = compile(&pattern).unwrap();
            prop_assert_eq!(matches(&glob, &name), truth(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_pattern_compiles_or_is_refused(pattern in ".{0,40}", name in "[ -~]{0,15}") {
            if let Ok(glob) = compile(&pattern) {
                matches(&glob, &name);
            }
        }
    }

    #[test]
    fn sets_and_refusals() {
        let glob = |pattern| compile(pattern).unwrap();
        assert!(matches(&glob("worker-[0-9]"), "worker-7"));
        assert!(!matches(&glob("worker-[0-9]"), "worker-x"));
        assert!(matches(&glob("[!a]b"), "cb"));
        assert!(!matches(&glob("[!a]b"), "ab"));
        assert!(matches(&glob("x[a-]"), "x-"));
        assert!(matches(&glob("*"), ""));
        assert!(matches(
            &glob("a_name_of_15_by"),
            "a_name_of_15_bytes_and_more"
        ));
        assert_eq!(compile("").err(), Some(GlobError::Empty));
        assert_eq!(compile("[a").err(), Some(GlobError::Unclosed("[a".into())));
        assert!(compile(&"a".repeat(31)).is_err());
    }
}
