//! Puts a fault's events together again: the site's registers and texts, the pieces of its stack,
//! and a message that may come late.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    kernel::abi::{ABSENT, FaultEvent, SiteKind, TextEvent},
    symbol::{Registers, StackCopy},
};

/// How long a fault waits for its message. A panic hook prints a backtrace in between, which may
/// take a while; a later message still reaches the fault.
const MESSAGE_WAIT: Duration = Duration::from_millis(500);
/// How long a fault waits for the rest of its stack, which follows at once unless it was lost.
const STACK_WAIT: Duration = Duration::from_millis(200);

/// All that the kernel side captured of one fault.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The site, its registers and its texts.
    pub event: Box<FaultEvent>,
    /// The message, where it came after the fault.
    pub message: Option<String>,
    /// The stack, as far as it was copied.
    pub stack: StackCopy,
    /// Whether pieces of the stack are missing because they were lost.
    pub stack_lost: bool,
}

impl Capture {
    /// The registers as the symbol room takes them.
    pub fn registers(&self) -> Registers {
        let from = &self.event.registers;
        Registers {
            ip: from.ip,
            sp: from.sp,
            bp: from.bp,
            ax: from.ax,
            bx: from.bx,
            cx: from.cx,
            dx: from.dx,
            si: from.si,
            di: from.di,
            r8: from.r8,
            r9: from.r9,
            r10: from.r10,
            r11: from.r11,
            r12: from.r12,
            r13: from.r13,
            r14: from.r14,
            r15: from.r15,
        }
    }

    /// The kind of site; `None` for one that this version does not know.
    pub fn site_kind(&self) -> Option<SiteKind> {
        site_kind(self.event.cookie)
    }
}

/// The kind of site in an attach cookie.
fn site_kind(cookie: u64) -> Option<SiteKind> {
    const KINDS: [SiteKind; 10] = [
        SiteKind::RustPanicHook,
        SiteKind::RustPanic,
        SiteKind::RustAllocError,
        SiteKind::CppTerminate,
        SiteKind::Abort,
        SiteKind::AssertFail,
        SiteKind::StackCheckFail,
        SiteKind::FortifyFail,
        SiteKind::User,
        SiteKind::FatalSignal,
    ];
    let number = (cookie >> 32) as u32;
    KINDS.into_iter().find(|kind| *kind as u32 == number)
}

/// The text of an event: what was read of it, with `…` where it was cut off.
pub fn text(length: u32, truncated: u32, bytes: &[u8]) -> Option<String> {
    if length == ABSENT {
        return None;
    }
    let bytes = bytes.get(..length as usize)?;
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if truncated != 0 {
        // A character may have been cut in half.
        while text.ends_with(char::REPLACEMENT_CHARACTER) {
            text.pop();
        }
        text.push('…');
    }
    Some(text)
}

/// What became of a message that came in.
#[derive(Debug)]
pub enum Late {
    /// It completed this capture.
    Completed(Capture),
    /// Its fault still waits for its stack.
    Waits,
    /// Its fault was taken already.
    TooLate(Option<String>),
}

#[derive(Debug)]
struct Partial {
    capture: Capture,
    wants_message: bool,
    wants_stack: bool,
    since: Instant,
}

impl Partial {
    fn is_complete(&self) -> bool {
        !self.wants_message && !self.wants_stack
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.since);
        let limit = if self.wants_message {
            MESSAGE_WAIT
        } else {
            STACK_WAIT
        };
        waited > limit
    }
}

/// The faults whose events have not all come in yet.
#[derive(Debug, Default)]
pub struct Captures {
    partial: HashMap<u64, Partial>,
}

impl Captures {
    /// A fault begins.
    pub fn begin(&mut self, event: Box<FaultEvent>) {
        let wants_message = site_kind(event.cookie) == Some(SiteKind::RustPanicHook)
            && event.texts[1].length == ABSENT;
        let stack = StackCopy {
            base: event.registers.sp,
            bytes: Vec::new(),
        };
        self.partial.insert(
            event.id,
            Partial {
                capture: Capture {
                    event,
                    message: None,
                    stack,
                    stack_lost: false,
                },
                wants_message,
                wants_stack: true,
                since: Instant::now(),
            },
        );
    }

    /// A piece of a stack came in. Gives the fault if nothing else is missing.
    pub fn stack(&mut self, id: u64, address: u64, bytes: &[u8], last: bool) -> Option<Capture> {
        let partial = self.partial.get_mut(&id)?;
        let stack = &mut partial.capture.stack;
        // After an overflow the stack pointer is where there is no stack.
        if stack.bytes.is_empty() && address > stack.base {
            stack.base = address;
        }
        if stack.base.checked_add(stack.bytes.len() as u64) == Some(address) {
            stack.bytes.extend_from_slice(bytes);
        } else {
            partial.capture.stack_lost = true;
        }
        partial.wants_stack = !last;
        self.take_if_complete(id)
    }

    /// A message came in.
    pub fn message(&mut self, event: &TextEvent) -> Late {
        let message = text(event.length, event.truncated, &event.bytes);
        let Some(partial) = self.partial.get_mut(&event.id) else {
            return Late::TooLate(message);
        };
        partial.wants_message = false;
        partial.capture.message = message;
        match self.take_if_complete(event.id) {
            Some(capture) => Late::Completed(capture),
            None => Late::Waits,
        }
    }

    /// The faults of a process that ended: nothing more will come.
    pub fn of_process(&mut self, tgid: u32) -> Vec<Capture> {
        self.take(|partial| partial.capture.event.header.tgid == tgid)
    }

    /// The faults that have waited too long for what is missing.
    pub fn overdue(&mut self) -> Vec<Capture> {
        let now = Instant::now();
        self.take(|partial| partial.is_overdue(now))
    }

    /// Whether nothing is waited for.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    fn take_if_complete(&mut self, id: u64) -> Option<Capture> {
        if !self.partial.get(&id)?.is_complete() {
            return None;
        }
        self.partial.remove(&id).map(|partial| partial.capture)
    }

    fn take(&mut self, which: impl Fn(&Partial) -> bool) -> Vec<Capture> {
        let mut taken: Vec<Capture> = self
            .partial
            .extract_if(|_, partial| which(partial))
            .map(|(_, partial)| {
                let mut capture = partial.capture;
                capture.stack_lost |= partial.wants_stack;
                capture
            })
            .collect();
        taken.sort_by_key(|capture| capture.event.id);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_were_cut_off_say_so() {
        assert_eq!(text(ABSENT, 0, b""), None);
        assert_eq!(text(2, 0, b"okay").as_deref(), Some("ok"));
        assert_eq!(text(4, 1, "ab\u{20ac}".as_bytes()).as_deref(), Some("ab…"));
        assert_eq!(text(9, 0, b"short"), None);
    }
}
