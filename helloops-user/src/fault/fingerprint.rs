//! What makes two faults the same: a short text that is equal for faults with the same cause, in
//! every run and on every machine.

use super::record::{Fault, Kind};
use crate::symbol::Frame;

/// How many frames, from the innermost, tell one cause from another.
const FRAMES: usize = 5;

/// The fingerprint of a fault: 16 hexadecimal digits over its target, its kind, the build ID of the
/// module that its innermost in-app frame is in, and its innermost in-app frames.
///
/// Where no frame is in-app the innermost frames stand for them; where no frame can be named at
/// all, what the fault says: the exit code, the signal, or the message without its numbers, quoted
/// texts and addresses.
pub fn fingerprint(fault: &Fault) -> String {
    let mut hash = Fnv1a::new();
    hash.field(&fault.target);
    hash.field(kind_name(fault.kind));
    let mut frames = named_frames(fault, |frame| frame.in_app);
    if frames.is_empty() {
        frames = named_frames(fault, |_| true);
    }
    if frames.is_empty() {
        hash.field(&message_class(fault));
    } else {
        for (index, (frame, name)) in frames.iter().enumerate() {
            if index == 0 {
                hash.field(frame.build_id.as_deref().unwrap_or_default());
            }
            hash.field(name);
        }
    }
    format!("{:016x}", hash.0)
}

fn named_frames(fault: &Fault, wanted: impl Fn(&Frame) -> bool) -> Vec<(&Frame, String)> {
    fault
        .stack
        .iter()
        .filter(|frame| wanted(frame))
        .filter_map(|frame| Some((frame, name(frame)?)))
        .take(FRAMES)
        .collect()
}

/// The frame's function, or its place in its module; addresses differ from run to run.
fn name(frame: &Frame) -> Option<String> {
    if let Some(function) = &frame.function {
        return Some(function.clone());
    }
    let offset = frame.offset?;
    match (&frame.build_id, &frame.module) {
        (Some(build_id), _) => Some(format!("{build_id}+{offset:#x}")),
        (None, Some(module)) => Some(format!("{}+{offset:#x}", module.display())),
        (None, None) => None,
    }
}

fn message_class(fault: &Fault) -> String {
    match (fault.kind, fault.exit_code, &fault.signal) {
        (Kind::Exit, Some(code), _) => format!("code {code}"),
        (_, _, Some(signal)) => format!("signal {}", signal.number),
        _ => without_details(&fault.message),
    }
}

/// The message with each quoted text as `""`, and each word that holds a digit as `0`.
fn without_details(message: &str) -> String {
    let mut class = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let (_, after_first) = rest.split_at(first.len_utf8());
        let quoted = matches!(first, '"' | '\'' | '`').then(|| after_first.split_once(first));
        if let Some(Some((_, after))) = quoted {
            class.push_str("\"\"");
            rest = after;
        } else if first.is_alphanumeric() {
            let end = rest
                .find(|letter: char| !letter.is_alphanumeric())
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            class.push_str(if word.contains(|c: char| c.is_ascii_digit()) {
                "0"
            } else {
                word
            });
            rest = after;
        } else {
            class.push(first);
            rest = after_first;
        }
    }
    class
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Panic => "panic",
        Kind::Exception => "exception",
        Kind::Abort => "abort",
        Kind::Assert => "assert",
        Kind::Signal => "signal",
        Kind::Oom => "oom",
        Kind::Exit => "exit",
        Kind::Error => "error",
    }
}

/// The 64-bit FNV-1a hash, which is the same everywhere and for ever, unlike the standard library's
/// hasher (<http://www.isthe.com/chongo/tech/comp/fnv/>).
struct Fnv1a(u64);

impl Fnv1a {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a text and an end mark, which no UTF-8 text holds, so that fields cannot run together.
    fn field(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::sample;

    #[test]
    fn addresses_messages_and_outer_frames_do_not_matter() {
        let fault = sample::panic();
        let mut other = fault.clone();
        other.message = "order 48: price must be positive".to_owned();
        other.pid += 1;
        for frame in &mut other.stack {
            frame.address += 0x1000;
        }
        other.stack.pop();
        assert_eq!(fingerprint(&fault), fingerprint(&other));
        assert_eq!(fingerprint(&fault).len(), 16);
    }

    #[test]
    fn target_kind_build_and_functions_matter() {
        let fault = sample::panic();
        let changed = |change: fn(&mut Fault)| {
            let mut other = fault.clone();
            change(&mut other);
            fingerprint(&other)
        };
        let fingerprints = [
            fingerprint(&fault),
            changed(|fault| fault.target = "mail".to_owned()),
            changed(|fault| fault.kind = Kind::Abort),
            changed(|fault| {
                for frame in &mut fault.stack {
                    frame.build_id = Some("00ff".to_owned());
                }
            }),
            changed(|fault| {
                for frame in fault.stack.iter_mut().filter(|frame| frame.in_app).take(1) {
                    frame.function = Some("shop::other".to_owned());
                }
            }),
        ];
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            assert!(!fingerprints[..index].contains(fingerprint), "{index}");
        }
    }

    #[test]
    fn frames_without_a_function_count_by_their_place_in_the_module() {
        let mut fault = sample::panic();
        for frame in &mut fault.stack {
            frame.function = None;
        }
        let stripped = fingerprint(&fault);
        fault.stack[0].address += 0x1000;
        assert_eq!(fingerprint(&fault), stripped);
        for frame in &mut fault.stack {
            frame.offset = frame.offset.map(|offset| offset + 8);
        }
        assert_ne!(fingerprint(&fault), stripped);
    }

    #[test]
    fn without_a_stack_the_code_the_signal_or_the_message_tells() {
        let exit = |code| {
            let mut fault = sample::exit(code);
            fault.message = format!("ended with code {code} after {} ms", code * 7);
            fingerprint(&fault)
        };
        assert_eq!(exit(3), exit(3));
        assert_ne!(exit(3), exit(4));
        assert_eq!(
            without_details("order 47 'a b' at 0x7ffe12 of \"x\": can't be deadbeef0"),
            "order 0 \"\" at 0 of \"\": can't be 0"
        );
        assert_eq!(without_details("unclosed ' quote é1"), "unclosed ' quote 0");
    }
}
