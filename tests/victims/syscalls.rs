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
use std::sync::atomic::{AtomicU64, Ordering};
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
        "in_flight_before" => in_flight_before(number(0, 100)),
        "interrupted" => interrupted(
            rest.first().is_some_and(|how| how == "restart"),
            number(1, 20),
        ),
        "processes" => processes(number(0, 3), number(1, 1_000)),
        "batches" => batches(number(0, 1_000), number(1, 500)),
        "one_sleep" => {
            sleep_measured(number(0, 1_000) * 1_000_000);
        }
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
/// `long_ns`. Prints how long each call took, measured around it, ascending, and how long a call
/// that does nothing takes measured so, which is what the measuring itself and the way in and out of
/// the kernel add: `{"call":"nanosleep","count":N,"durations_ns":[…],"overhead_ns":NS}`.
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
        json!({
            "call": "nanosleep",
            "count": count,
            "durations_ns": durations,
            "overhead_ns": measured_overhead(),
        })
    );
}

/// The median of what measuring getppid gives.
fn measured_overhead() -> u64 {
    let mut durations: Vec<u64> = (0..1_001)
        .map(|_| {
            let start = now();
            getppid();
            now() - start
        })
        .collect();
    durations.sort_unstable();
    durations[500]
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
    let (reader, _writer) = pipe();
    thread::spawn(move || readv_byte(reader));
    thread::sleep(Duration::from_millis(milliseconds));
    println!(
        "{}",
        json!({"calls": {"readv": {"count": 0, "unfinished": 1}}})
    );
}

/// A pipe: its reading and its writing end.
fn pipe() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for both descriptors.
    let result = unsafe { libc::pipe(ends.as_mut_ptr()) };
    assert_eq!(result, 0, "a pipe must open");
    (ends[0], ends[1])
}

/// Reads a byte by readv. 1, or -1 if it failed.
fn readv_byte(from: c_int) -> c_long {
    let mut byte = 0_u8;
    let part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: `part` describes one writable byte that outlives the call.
    unsafe { libc::syscall(libc::SYS_readv, from, &raw const part, 1) }
}

fn write_byte(to: c_int) {
    // SAFETY: one readable byte.
    let written = unsafe { libc::write(to, [0_u8].as_ptr().cast(), 1) };
    assert_eq!(written, 1, "a pipe must take a byte");
}

/// Blocks SIGUSR1 in this thread and in those that it starts from now on.
fn hold_go() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut go = std::mem::zeroed();
        libc::sigemptyset(&raw mut go);
        libc::sigaddset(&raw mut go, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const go, std::ptr::null_mut());
        go
    }
}

fn wait_for_go(go: &libc::sigset_t) {
    let mut received = 0;
    // SAFETY: the set is initialised.
    unsafe { libc::sigwait(go, &raw mut received) };
}

/// A thread is blocked in readv when this waits for SIGUSR1. Then that call returns, and the
/// thread makes `count` more, which the truth is about: `{"calls":{"readv":{"count":N,"errors":{}}}}`.
fn in_flight_before(count: u64) {
    // First, so that the other thread blocks it too: the kernel may let such a thread's call restart
    // while it looks for one to give the signal to.
    let go = hold_go();
    let (reader, writer) = pipe();
    let (tell, told) = std::sync::mpsc::channel();
    let reading = thread::spawn(move || {
        tell.send(own_tid()).unwrap();
        for _ in 0..=count {
            readv_byte(reader);
        }
    });
    until_blocked(told.recv().unwrap());
    wait_for_go(&go);
    for _ in 0..=count {
        write_byte(writer);
    }
    reading.join().unwrap();
    println!(
        "{}",
        json!({"calls": {"readv": {"count": count, "errors": {}}}})
    );
}

fn own_tid() -> libc::pid_t {
    // SAFETY: gettid takes no arguments and always succeeds.
    unsafe { libc::gettid() }
}

/// Waits until a thread sleeps in a readv.
fn until_blocked(tid: libc::pid_t) {
    let readv = format!("{} ", libc::SYS_readv);
    loop {
        let call = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap();
        if call.starts_with(&readv) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A thread's readv is interrupted by a signal with a handler, `times` times, until a byte comes.
/// With `restart` (SA_RESTART) that is one call for the program, which the kernel takes up again;
/// without, each is a call that fails with EINTR, and the thread makes a new one. Prints
/// `{"calls":{"readv":{"count":N,"errors":{…}}}}`.
fn interrupted(restart: bool, times: u64) {
    static HANDLED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handle(_: c_int) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: the action is initialised, and its handler is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(c_int) as libc::sighandler_t;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
    }
    let (reader, writer) = pipe();
    let (tell, told) = std::sync::mpsc::channel();
    let reading = thread::spawn(move || {
        tell.send(own_tid()).unwrap();
        let mut calls = 1_u64;
        while readv_byte(reader) < 0 {
            calls += 1;
        }
        calls
    });
    let tid = told.recv().unwrap();
    for number in 0..times {
        until_blocked(tid);
        // SAFETY: the thread is alive, for no byte has come yet.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR2) };
        while HANDLED.load(Ordering::SeqCst) == number {
            thread::sleep(Duration::from_millis(1));
        }
    }
    until_blocked(tid);
    write_byte(writer);
    let calls = reading.join().unwrap();
    let errors = match calls {
        1 => json!({}),
        _ => json!({"EINTR": calls - 1}),
    };
    println!(
        "{}",
        json!({"calls": {"readv": {"count": calls, "errors": errors}}})
    );
}

/// Waits for SIGUSR1; then `processes` children make `count` getppid calls, twice and three times as
/// many and so on, and this process a hundred times as many as the first. Prints
/// `{"getppid":{PID:N,…}}`.
fn processes(processes: u64, count: u64) {
    wait_for_go(&hold_go());
    let mut calls = serde_json::Map::new();
    for number in 1..=processes {
        // SAFETY: this process has one thread, so that the child may go on as it likes.
        let child = unsafe { libc::fork() };
        if child == 0 {
            repeat(count * number, getppid);
            // SAFETY: always possible.
            unsafe { libc::_exit(0) };
        }
        assert!(child > 0, "a child must start");
        calls.insert(child.to_string(), json!(count * number));
    }
    repeat(count * 100, getppid);
    calls.insert(std::process::id().to_string(), json!(count * 100));
    for _ in 0..processes {
        // SAFETY: a null status is allowed.
        unsafe { libc::wait(std::ptr::null_mut()) };
    }
    println!("{}", json!({ "getppid": calls }));
}

/// `first` getppid calls; and when SIGUSR1 came, `second` more. Lives on until another comes.
fn batches(first: u64, second: u64) {
    repeat(first, getppid);
    let go = hold_go();
    wait_for_go(&go);
    repeat(second, getppid);
    wait_for_go(&go);
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
