//! Names: of system calls and errnos, and which calls wait rather than work.

use std::borrow::Cow;

use syscalls::{Errno, x86, x86_64};

/// Where the numbers of 32-bit (i386) calls start; x86-64's own end below 512.
const I386: u32 = 512;

/// A system call: its x86-64 number or, from 512 on, 512 plus its i386 number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call(pub u32);

impl Call {
    /// The call's name, such as `openat`, or `syscall_4000` for a number that has none.
    pub fn name(self) -> Cow<'static, str> {
        let number = self.0 as usize;
        let name = match self.0.checked_sub(I386) {
            None => x86_64::Sysno::new(number).map(|call| call.name()),
            Some(number) => x86::Sysno::new(number as usize).map(|call| call.name()),
        };
        match name {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("syscall_{number}")),
        }
    }

    /// Whether the call waits for something to happen, so that its latency says more about the
    /// world outside than about the call.
    ///
    /// `read`, the `recv` family, `flock`, `fcntl` or `io_uring_enter` are not among them although
    /// they can wait: the same calls also do work (a file's bytes, a full socket buffer), and the
    /// number alone does not tell which it was. Neither are i386's multiplexers `socketcall` and
    /// `ipc`.
    pub fn waits(self) -> bool {
        let name = self.name();
        WAITS.contains(&name.strip_suffix("_time64").unwrap_or(&name))
    }
}

/// Calls that exist in order to wait; i386's twins with 64-bit times (`futex_time64`) are meant by
/// the plain name. `restart_syscall` goes on with one of them after a signal.
const WAITS: [&str; 29] = [
    "_newselect",
    "accept",
    "accept4",
    "clock_nanosleep",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "futex",
    "futex_wait",
    "futex_waitv",
    "io_getevents",
    "io_pgetevents",
    "mq_timedreceive",
    "msgrcv",
    "nanosleep",
    "pause",
    "poll",
    "ppoll",
    "pselect6",
    "restart_syscall",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "select",
    "semop",
    "semtimedop",
    "sigsuspend",
    "wait4",
    "waitid",
    "waitpid",
];

/// The name of a (positive) errno, such as `ENOENT`, or `errno_4000` for a number that has none.
///
/// A raw tracepoint also sees the kernel's own numbers 512 to 531, which no program ever does.
/// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND` and `ERESTART_RESTARTBLOCK` among them say that
/// a signal interrupted the call and the kernel will start it again, or return `EINTR` once the
/// handler has run: restarts, not failures (include/linux/errno.h).
pub fn errno_name(errno: i32) -> Cow<'static, str> {
    match Errno::new(errno).name() {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("errno_{errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_kernels_names() {
        assert_eq!(Call(0).name(), "read");
        assert_eq!(Call(257).name(), "openat");
        assert_eq!(Call(512 + 3).name(), "read");
        assert_eq!(Call(512 + 5).name(), "open");
        assert_eq!(Call(400).name(), "syscall_400");
        assert_eq!(Call(u32::MAX).name(), format!("syscall_{}", u32::MAX));
    }

    #[test]
    fn waiting_is_told_from_working() {
        assert!(Call(232).waits(), "epoll_wait");
        assert!(Call(202).waits(), "futex");
        assert!(Call(512 + 422).waits(), "futex_time64");
        assert!(!Call(0).waits(), "read");
        assert!(!Call(45).waits(), "recvfrom");
    }

    #[test]
    fn every_waiting_call_exists() {
        let known: Vec<_> = (0..1024).map(|number| Call(number).name()).collect();
        for wait in WAITS {
            assert!(known.iter().any(|name| name == wait), "{wait} is no call");
        }
    }

    #[test]
    fn errnos_have_the_kernels_names() {
        assert_eq!(errno_name(1), "EPERM");
        assert_eq!(errno_name(11), "EAGAIN");
        assert_eq!(errno_name(512), "ERESTARTSYS");
        assert_eq!(errno_name(4000), "errno_4000");
        assert_eq!(errno_name(-1), "errno_-1");
    }
}
