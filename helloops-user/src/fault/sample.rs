//! Made-up faults for the tests of everything that keeps, serves or shows faults.

use std::path::PathBuf;

use super::record::{Fault, Kind, Location, Runtime, Signal};
use crate::symbol::Frame;

/// A panic in a worker thread, with an inlined frame and runtime frames around the program's own.
pub fn panic() -> Fault {
    let frame = |index: u64, function: &str, file: &str, line, in_app| Frame {
        address: 0x5555_5555_0000 + index * 0x40,
        module: Some(PathBuf::from("/srv/shop/bin/shop")),
        build_id: Some("c0ffee0123456789".to_owned()),
        function: Some(function.to_owned()),
        offset: Some(0x1200 + index),
        file: Some(PathBuf::from(file)),
        line: Some(line),
        column: Some(9),
        inlined: false,
        in_app,
    };
    let std_panicking = "/rustc/1234/library/std/src/panicking.rs";
    let mut stack = vec![
        frame(
            0,
            "std::panicking::begin_panic_handler",
            std_panicking,
            697,
            false,
        ),
        frame(
            1,
            "core::panicking::panic_fmt",
            "/rustc/1234/library/core/src/panicking.rs",
            75,
            false,
        ),
        frame(2, "shop::billing::validate", "src/billing.rs", 42, true),
        frame(3, "shop::billing::charge", "src/billing.rs", 17, true),
        frame(
            4,
            "shop::checkout::{closure#0}",
            "src/checkout.rs",
            108,
            true,
        ),
        frame(
            5,
            "std::sys::backtrace::__rust_begin_short_backtrace",
            std_panicking,
            152,
            false,
        ),
        frame(
            6,
            "std::thread::lifecycle::spawn_unchecked::{closure#1}",
            std_panicking,
            60,
            false,
        ),
        frame(
            7,
            "std::sys::thread::unix::Thread::new::thread_start",
            std_panicking,
            118,
            false,
        ),
    ];
    stack[2].inlined = true;
    Fault {
        id: String::new(),
        kind: Kind::Panic,
        runtime: Runtime::Rust,
        message: "order 47: price must be positive".to_owned(),
        location: Some(Location {
            file: PathBuf::from("src/billing.rs"),
            line: 42,
            column: Some(9),
        }),
        target: "shop".to_owned(),
        pid: 4711,
        tid: 4715,
        comm: "worker-2".to_owned(),
        exe: PathBuf::from("/srv/shop/bin/shop"),
        time: "2026-11-22T21:00:03.123456789Z".parse().unwrap_or_default(),
        fingerprint: String::new(),
        count: 0,
        caught: None,
        arguments: Vec::new(),
        signal: None,
        exit_code: None,
        stack,
        stack_truncated: None,
    }
}

/// A process that ended with a code, which has no stack.
pub fn exit(code: i32) -> Fault {
    Fault {
        kind: Kind::Exit,
        runtime: Runtime::Unknown,
        message: format!("ended with code {code}"),
        location: None,
        target: "sh".to_owned(),
        pid: 900,
        tid: 900,
        comm: "sh".to_owned(),
        exe: PathBuf::from("/usr/bin/dash"),
        exit_code: Some(code),
        stack: Vec::new(),
        ..panic()
    }
}

/// A wild pointer in a C program without debug information.
pub fn segfault() -> Fault {
    let frame = |address: u64, function: Option<&str>, offset| Frame {
        address,
        module: Some(PathBuf::from("/usr/bin/victim")),
        build_id: None,
        function: function.map(str::to_owned),
        offset: Some(offset),
        file: None,
        line: None,
        column: None,
        inlined: false,
        in_app: true,
    };
    Fault {
        kind: Kind::Signal,
        runtime: Runtime::C,
        message: "SIGSEGV (SEGV_MAPERR) at 0xdeadbeef".to_owned(),
        location: None,
        caught: Some(false),
        signal: Some(Signal {
            number: 11,
            name: "SIGSEGV".to_owned(),
            code: Some("SEGV_MAPERR".to_owned()),
            address: Some(0xdead_beef),
            sender_pid: None,
            sender_comm: None,
        }),
        stack: vec![
            frame(0x40_1136, Some("crash"), 16),
            frame(0x40_1200, None, 0x1200),
        ],
        stack_truncated: Some("the copy of the stack ended here".to_owned()),
        ..panic()
    }
}
