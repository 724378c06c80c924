//! Makes known system calls and prints the truth about them as JSON: `syscalls MODE [NUMBER]…`.
//!
//! All calls are raw (`syscall(2)`), so that the C library adds none; the calls whose counts are
//! given exactly are calls that neither the loader nor Rust's runtime makes. Every mode but `idle`
//! exits with code 0.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a victim has nobody to report to"
)]

use std::ffi::CStr;
use std::thread;
use std::time::Duration;

use libc::{c_int, c_long};
use serde_json::json;

const NS_PER_S: u64 = 1_000_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let number = |at: usize, default: u64| {
        rest.get(at)
            .map_or(default, |text| text.parse().expect("a whole number"))
    };
    match mode.as_str() {
        "bimodal" => {
            bimodal(
                number(0, 200_000),
                number(1, 200_000_000),
                number(2, 2_000),
                number(3, 20),
            );
        }
        "counts" => counts(number(0, 1_000)),
        "in_flight" => in_flight(number(0, 300)),
        "hot" => hot(
            rest.first().map_or("getppid", String::as_str),
            number(1, 1_000_000),
        ),
        "threads" => threads(number(0, 4), number(1, 10_000)),
        "idle" => idle(),
        _ => {
            eprintln!("syscalls: no mode '{mode}'");
            std::process::exit(64);
        }
    }
}

/// Makes `count` calls.
fn repeat(count: u64, call: impl Fn() -> c_long) {
    for _ in 0..count {
        call();
    }
}

fn getppid() -> c_long {
    // SAFETY: getppid takes no arguments and always succeeds.
    unsafe { libc::syscall(libc::SYS_getppid) }
}

/// The monotonic clock in ns, read through the vDSO, hence without a system call.
fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap() * NS_PER_S + u64::try_from(time.tv_nsec).unwrap()
}

/// `nanosleep` in two modes: `short_calls` of `short_ns` and, spread among them, `long_calls` of
/// `long_ns`. Prints how long each call took, measured around it, ascending:
/// `{"call":"nanosleep","count":N,"durations_ns":[…]}`.
fn bimodal(short_ns: u64, long_ns: u64, short_calls: u64, long_calls: u64) {
    // The default slack of 50 µs would let the kernel end short sleeps together with others.
    // SAFETY: PR_SET_TIMERSLACK takes one integer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let every = (short_calls / long_calls.max(1)).max(1);
    let mut durations = Vec::new();
    let mut long_left = long_calls;
    for number in 1..=short_calls {
        durations.push(sleep_measured(short_ns));
        if number.is_multiple_of(every) && long_left > 0 {
            long_left -= 1;
            durations.push(sleep_measured(long_ns));
        }
    }
    durations.sort_unstable();
    let count = durations.len();
    println!(
        "{}",
        json!({"call": "nanosleep", "count": count, "durations_ns": durations})
    );
}

fn sleep_measured(ns: u64) -> u64 {
    let time = libc::timespec {
        tv_sec: i64::try_from(ns / NS_PER_S).unwrap(),
        tv_nsec: i64::try_from(ns % NS_PER_S).unwrap(),
    };
    let start = now();
    // SAFETY: `time` is valid for reading; a null remainder is allowed.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, 0_usize) };
    now() - start
}

/// `count` times each: getppid; readv of one byte from /dev/zero; truncate of a file that does not
/// exist (ENOENT); dup3 of a descriptor that is not open (EBADF); and half as often openat below
/// something that is no directory (ENOTDIR) and openat of a directory for writing (EISDIR). Prints
/// `{"calls":{CALL:{"count":N,"errors":{ERRNO:N}}}}`; of openat only the errors are exact, since
/// the loader opens files too, hence its count is null.
fn counts(count: u64) {
    let zero = open(c"/dev/zero", libc::O_RDONLY);
    assert!(zero >= 0, "/dev/zero must open");
    let mut byte = 0_u8;
    let part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };

    repeat(count, getppid);
    // SAFETY: `part` describes one writable byte that outlives the calls.
    repeat(count, || unsafe {
        libc::syscall(libc::SYS_readv, zero, &raw const part, 1)
    });
    let missing = c"/nonexistent/file";
    // SAFETY: a path that is NUL-terminated and a length.
    repeat(count, || unsafe {
        libc::syscall(libc::SYS_truncate, missing.as_ptr(), 0)
    });
    // SAFETY: dup3 of a descriptor that is not open only fails.
    repeat(count, || unsafe { libc::syscall(libc::SYS_dup3, -1, 0, 0) });
    repeat(count / 2, || open(c"/dev/null/below", libc::O_RDONLY));
    repeat(count / 2, || open(c"/", libc::O_WRONLY));

    let calls = json!({
        "getppid": {"count": count, "errors": {}},
        "readv": {"count": count, "errors": {}},
        "truncate": {"count": count, "errors": {"ENOENT": count}},
        "dup3": {"count": count, "errors": {"EBADF": count}},
        "openat": {"count": null, "errors": {"ENOTDIR": count / 2, "EISDIR": count / 2}},
    });
    println!("{}", json!({ "calls": calls }));
}

fn open(path: &CStr, flags: c_int) -> c_long {
    // SAFETY: the path is NUL-terminated; no flag that takes a mode is used.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) }
}

/// A thread blocks in readv of a pipe that nobody writes to, until the process exits after
/// `milliseconds`. Prints `{"calls":{"readv":{"count":0,"unfinished":1}}}`.
fn in_flight(milliseconds: u64) {
    let mut pipe = [0; 2];
    // SAFETY: `pipe` has room for both descriptors.
    assert_eq!(
        unsafe { libc::pipe(pipe.as_mut_ptr()) },
        0,
        "a pipe must open"
    );
    let [reader, _writer] = pipe;
    thread::spawn(move || {
        let mut byte = 0_u8;
        let part = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: `part` describes one writable byte that outlives the call.
        unsafe { libc::syscall(libc::SYS_readv, reader, &raw const part, 1) };
    });
    thread::sleep(Duration::from_millis(milliseconds));
    println!(
        "{}",
        json!({"calls": {"readv": {"count": 0, "unfinished": 1}}})
    );
}

/// Calls as fast as it can: `getppid`, or `read` of one byte from /dev/zero. Prints
/// `{"call":CALL,"count":N,"ns_per_call":NS}`.
fn hot(call: &str, count: u64) {
    let zero = open(c"/dev/zero", libc::O_RDONLY);
    let mut byte = 0_u8;
    let target = &raw mut byte;
    let start = now();
    match call {
        "getppid" => repeat(count, getppid),
        // SAFETY: `target` points to one writable byte that outlives the calls.
        "read" => repeat(count, || unsafe {
            libc::syscall(libc::SYS_read, zero, target, 1_usize)
        }),
        _ => panic!("no hot call '{call}'"),
    }
    let ns = (now() - start) as f64 / count as f64;
    println!(
        "{}",
        json!({"call": call, "count": count, "ns_per_call": ns})
    );
}

/// `count` getppid calls in each of `threads` threads at once. Prints
/// `{"calls":{"getppid":{"count":N,"errors":{}}}}`.
fn threads(threads: u64, count: u64) {
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| repeat(count, getppid));
        }
    });
    println!(
        "{}",
        json!({"calls": {"getppid": {"count": threads * count, "errors": {}}}})
    );
}

/// Sleeps until it is killed.
fn idle() {
    loop {
        // SAFETY: pause takes no arguments.
        unsafe { libc::syscall(libc::SYS_pause) };
    }
}
