//! Signals by name, and what their codes say.

use nix::sys::signal::Signal as Number;

use super::record::Signal;
use crate::kernel::abi::SignalRecord;

/// Describes a signal that was sent to process `tgid`.
pub fn describe(record: &SignalRecord, tgid: u32) -> Signal {
    let number = record.number.cast_signed();
    let other = record.sender_tgid != 0 && record.sender_tgid != tgid;
    Signal {
        number,
        name: name(number),
        code: code(number, record.code),
        // SIGILL, SIGTRAP, SIGBUS, SIGFPE and SIGSEGV from the hardware carry an address.
        address: (record.code > 0 && record.code < 0x80 && matches!(number, 4 | 5 | 7 | 8 | 11))
            .then_some(record.address),
        sender_pid: other.then_some(record.sender_tgid),
        sender_comm: other.then(|| comm(&record.sender_comm)),
    }
}

/// One line about a signal that ends a process.
pub fn message(signal: &Signal) -> String {
    let mut message = signal.name.clone();
    if let Some(code) = &signal.code {
        message = format!("{message} ({code})");
    }
    if let Some(address) = signal.address {
        message = format!("{message} at address {address:#x}");
    }
    if let Some(pid) = signal.sender_pid {
        let comm = signal.sender_comm.as_deref().unwrap_or_default();
        message = format!("{message} sent by {comm} (pid {pid})");
    }
    message
}

/// The name of a signal, such as `SIGSEGV` or `SIGRTMIN+3`.
pub fn name(number: i32) -> String {
    match Number::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        // The kernel's first real-time signal; the C library keeps two of them for itself.
        Err(_) if number >= 34 => format!("SIGRTMIN+{}", number - 34),
        Err(_) => format!("signal {number}"),
    }
}

/// A thread's name from its NUL-terminated bytes.
pub fn comm(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// `si_code` by name (include/uapi/asm-generic/siginfo.h).
fn code(number: i32, code: i32) -> Option<String> {
    let name = match (number, code) {
        (_, 0) => "SI_USER",
        (_, 0x80) => "SI_KERNEL",
        (_, -1) => "SI_QUEUE",
        (_, -2) => "SI_TIMER",
        (_, -6) => "SI_TKILL",
        (11, 1) => "SEGV_MAPERR",
        (11, 2) => "SEGV_ACCERR",
        (11, 3) => "SEGV_BNDERR",
        (11, 4) => "SEGV_PKUERR",
        (7, 1) => "BUS_ADRALN",
        (7, 2) => "BUS_ADRERR",
        (7, 3) => "BUS_OBJERR",
        (7, 4) => "BUS_MCEERR_AR",
        (7, 5) => "BUS_MCEERR_AO",
        (8, 1) => "FPE_INTDIV",
        (8, 2) => "FPE_INTOVF",
        (8, 3) => "FPE_FLTDIV",
        (8, 4) => "FPE_FLTOVF",
        (8, 5) => "FPE_FLTUND",
        (8, 6) => "FPE_FLTRES",
        (8, 7) => "FPE_FLTINV",
        (4, 1) => "ILL_ILLOPC",
        (4, 2) => "ILL_ILLOPN",
        (4, 5) => "ILL_PRVOPC",
        (5, 1) => "TRAP_BRKPT",
        (5, 2) => "TRAP_TRACE",
        (31, 1) => "SYS_SECCOMP",
        _ => return Some(format!("code {code}")),
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_hardware_has_an_address_and_a_kill_has_a_sender() {
        let record = SignalRecord {
            number: 11,
            code: 1,
            address: 0xdead,
            ..SignalRecord::NONE
        };
        let text = message(&describe(&record, 7));
        assert_eq!(text, "SIGSEGV (SEGV_MAPERR) at address 0xdead");

        let mut sender_comm = [0; 16];
        sender_comm[..4].copy_from_slice(b"bash");
        let record = SignalRecord {
            number: 15,
            sender_tgid: 9,
            sender_comm,
            ..SignalRecord::NONE
        };
        let text = message(&describe(&record, 7));
        assert_eq!(text, "SIGTERM (SI_USER) sent by bash (pid 9)");
        assert_eq!(message(&describe(&record, 9)), "SIGTERM (SI_USER)");
        assert_eq!(name(40), "SIGRTMIN+6");
    }
}
