//! Tells a thread that sleeps in `poll(2)` to stop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A flag, and a descriptor that becomes readable when the flag is set.
#[derive(Debug)]
pub struct Stop {
    flag: AtomicBool,
    wake: EventFd,
}

impl Stop {
    /// One that is not set.
    ///
    /// # Errors
    ///
    /// When there are too many open files.
    pub fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            flag: AtomicBool::new(false),
            wake,
        })
    }

    /// Sets it.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Release);
        // It cannot fail short of 2^64 calls.
        let _ = self.wake.write(1);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
