//! Tells the consequences of a fault from faults of their own: a panic that aborts is one fault,
//! though its process then calls `abort`, gets a SIGABRT, and ends with it.

use std::collections::HashMap;

use super::{
    capture::Capture,
    record::{Caught, Fault, Kind},
};
use crate::{kernel::abi::SiteKind, symbol::StackCopy};

/// Faults of one thread that are remembered, innermost last. Panics nest at most a few levels deep
/// before the runtime gives up.
const DEPTH: usize = 8;

/// An earlier fault whose frame may still be on its thread's stack.
#[derive(Debug, Clone)]
struct Link {
    fault: String,
    kind: Kind,
    tid: u32,
    stack_pointer: u64,
    /// The word at the stack pointer: the return address, for a site at a function's start.
    top_word: u64,
    caught: Caught,
    signal: Option<i32>,
}

/// The faults of the living processes that something may yet follow from.
#[derive(Debug, Default)]
pub struct Chains {
    processes: HashMap<(u32, u64), Vec<Link>>,
}

impl Chains {
    /// The fault that this capture is a consequence of: an abort, a call of `std::terminate`, glibc's
    /// report of a smashed stack or a fatal signal, below whose frame on the same stack an earlier fault's frame still stands.
    pub fn cause(&self, capture: &Capture) -> Option<String> {
        let follows = matches!(
            capture.site_kind()?,
            SiteKind::Abort
                | SiteKind::CppTerminate
                | SiteKind::FortifyFail
                | SiteKind::FatalSignal
        );
        if !follows {
            return None;
        }
        let header = &capture.event.header;
        let links = self.processes.get(&(header.tgid, header.start))?;
        links
            .iter()
            .rev()
            .find(|link| {
                link.tid == header.tid && link.kind != Kind::Error && stands(link, capture)
            })
            .map(|link| link.fault.clone())
    }

    /// The latest panic of the capture's thread: the one for which destructors run, or which leaves
    /// a function that must not unwind.
    pub fn panic_under_way(&self, capture: &Capture) -> Option<String> {
        let header = &capture.event.header;
        let links = self.processes.get(&(header.tgid, header.start))?;
        links
            .iter()
            .rev()
            .find(|link| link.tid == header.tid && link.kind == Kind::Panic)
            .map(|link| link.fault.clone())
    }

    /// Remembers that a capture was recorded as `fault`, or as a part of it.
    pub fn add(&mut self, capture: &Capture, fault: &Fault) {
        let header = &capture.event.header;
        let links = self
            .processes
            .entry((header.tgid, header.start))
            .or_default();
        // What lay deeper in the stack than this has returned.
        let stack_pointer = capture.event.registers.sp;
        links.retain(|link| link.tid != header.tid || link.stack_pointer > stack_pointer);
        if links.len() >= DEPTH * 8 {
            links.remove(0);
        }
        links.push(Link {
            fault: fault.id.clone(),
            kind: fault.kind,
            tid: header.tid,
            stack_pointer,
            top_word: word(&capture.stack, stack_pointer).unwrap_or(0),
            caught: fault.caught,
            signal: fault.signal.as_ref().map(|signal| signal.number),
        });
    }

    /// Notes that a fault has led to a signal.
    pub fn signalled(&mut self, tgid: u32, start: u64, fault: &str, signal: i32) {
        for link in self.processes.get_mut(&(tgid, start)).into_iter().flatten() {
            if link.fault == fault {
                link.signal = Some(signal);
            }
        }
    }

    /// A process ended: the fault that it ended of, if one is known, and all is forgotten.
    ///
    /// It is the fault that led to the signal. An exit code belongs to the last panic of the main
    /// thread if nothing of the program catches it, be it that the runtime ends the process or a
    /// panic hook does; or if it is 101, which Rust's runtime uses for nothing else.
    pub fn ended(&mut self, tgid: u32, start: u64, status: u32) -> Option<String> {
        let links = self.processes.remove(&(tgid, start))?;
        let signal = (status & 0x7f).cast_signed();
        let code = status >> 8 & 0xff;
        let by_signal = |link: &&Link| link.signal == Some(signal);
        let by_code = |link: &&Link| {
            link.kind == Kind::Panic
                && link.tid == tgid
                && (code == 101 || code != 0 && link.caught == Some(false))
        };
        let mut latest = links.iter().rev();
        let cause = if signal != 0 {
            latest.find(by_signal)
        } else {
            latest.find(by_code)
        };
        cause.map(|link| link.fault.clone())
    }
}

/// Whether the earlier fault's frame is still on the stack that is seen now: further out than the
/// stack pointer, and with the same return address in it.
fn stands(link: &Link, capture: &Capture) -> bool {
    link.stack_pointer > capture.event.registers.sp
        && link.top_word != 0
        && word(&capture.stack, link.stack_pointer) == Some(link.top_word)
}

fn word(stack: &StackCopy, address: u64) -> Option<u64> {
    let start = usize::try_from(address.checked_sub(stack.base)?).ok()?;
    let bytes = stack.bytes.get(start..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
