//! Panics in every way that Rust offers: `rust_panics MODE [NUMBER]`.
//!
//! Built twice: as `rust_panics` (unwinding) and as `rust_panics_abort` (panic=abort, so that each
//! panic, caught or not, ends the process by SIGABRT). The outcomes below are those of the
//! unwinding build; an uncaught panic of the main thread exits with code 101.
//! `rust_panics wait MODE [NUMBER]` waits for SIGUSR1 first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this program fails on purpose"
)]

use std::hint::black_box;
use std::panic;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut mode = arguments.next().unwrap_or_default();
    if mode == "start_then_panic" {
        panic!("at once");
    }
    if mode == "wait" {
        wait_for_go();
        mode = arguments.next().unwrap_or_default();
    }
    let number = arguments
        .next()
        .map_or(1, |text| text.parse().expect("a number"));
    match mode.as_str() {
        "main" => in_main(),
        "named_thread" => in_named_thread(),
        "inlined" => through_inlined_functions(number),
        "caught" => caught(),
        "resume_unwind" => resume_unwind(),
        "panic_any" => any_payload(),
        "literal" => literal(),
        "formatted" => formatted(number),
        "nested" => nested(),
        "exit_hook" => exit_hook(),
        "deep" => deep(black_box(200)),
        "index" => index(black_box(7)),
        "unwrap" => unwrap_an_error(),
        "tokio_task" => in_tokio_task(),
        "many" => many(number),
        "many_threads" => many_threads(number),
        "processes" => processes(number),
        "alloc_error" => alloc_error(),
        _ => {
            eprintln!("rust_panics: no mode '{mode}'");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn wait_for_go() {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut go = std::mem::zeroed();
        let mut received = 0;
        libc::sigemptyset(&raw mut go);
        libc::sigaddset(&raw mut go, libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const go, std::ptr::null_mut());
        libc::sigwait(&raw const go, &raw mut received);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const go, std::ptr::null_mut());
    }
}

/// `main panicked`; exit code 101.
#[inline(never)]
fn in_main() {
    panic!("main panicked");
}

/// `invoice 42 has no customer` in the thread `billing-worker`; the main thread joins it and exits
/// with code 0.
fn in_named_thread() {
    let worker = thread::Builder::new()
        .name("billing-worker".into())
        .spawn(|| bill(42))
        .unwrap();
    assert!(worker.join().is_err(), "the worker must have panicked");
}

#[inline(never)]
fn bill(invoice: u32) {
    panic!("invoice {invoice} has no customer");
}

/// `innermost got N`, with `innermost` inlined into `middle`, into `outermost`, into
/// `through_inlined_functions`; exit code 101.
#[inline(never)]
fn through_inlined_functions(number: u64) {
    outermost(number);
}

#[inline(always)]
fn outermost(number: u64) {
    middle(number + 1);
}

#[inline(always)]
fn middle(number: u64) {
    innermost(number * 2);
}

#[inline(always)]
fn innermost(number: u64) {
    if number > 0 {
        panic!("innermost got {number}");
    }
}

/// `caught on purpose`; caught, exit code 0.
fn caught() {
    let result = panic::catch_unwind(|| fail_with("caught on purpose"));
    assert!(result.is_err(), "must have panicked");
}

#[inline(never)]
fn fail_with(message: &str) {
    panic!("{message}");
}

/// `first panic`, caught, and its payload thrown on by `resume_unwind`, which calls no hook; exit
/// code 101.
fn resume_unwind() {
    if let Err(payload) = panic::catch_unwind(|| fail_with("first panic")) {
        panic::resume_unwind(payload);
    }
}

/// A payload that is no string (a number); exit code 101.
#[inline(never)]
fn any_payload() {
    panic::panic_any(4711_u32);
}

/// `a literal without arguments`; exit code 101.
#[inline(never)]
fn literal() {
    panic!("a literal without arguments");
}

/// `N items, 2.50 each, "tea"`; exit code 101.
#[inline(never)]
fn formatted(number: u64) {
    panic!("{number} items, {:.2} each, {:?}", 2.5, black_box("tea"));
}

/// `the first of two`, then `the second, in drop` from a destructor that runs for the first: the
/// runtime aborts, SIGABRT.
fn nested() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the second, in drop");
        }
    }
    let _bomb = Bomb;
    fail_with("the first of two");
}

/// `left by the hook`: the program's own hook exits with code 3 and prints nothing.
fn exit_hook() {
    panic::set_hook(Box::new(|_| std::process::exit(3)));
    fail_with("left by the hook");
}

/// `bottom reached` under 200 frames of `deep`; exit code 101.
#[inline(never)]
fn deep(frames: u32) {
    if frames == 0 {
        panic!("bottom reached");
    }
    deep(black_box(frames - 1));
    black_box(frames);
}

/// `index out of bounds: the len is 3 but the index is 7`; exit code 101.
#[inline(never)]
fn index(at: usize) {
    let items = black_box([1, 2, 3].as_slice());
    black_box(items[at]);
}

/// ``called `Result::unwrap()` on an `Err` value: ParseIntError…``, located at the caller of
/// `unwrap`; exit code 101.
#[inline(never)]
fn unwrap_an_error() {
    black_box(black_box("twelve").parse::<u32>().unwrap());
}

/// `task 9 failed` in a task on the thread `tokio-rt-worker`; the runtime catches it, exit code 0.
fn in_tokio_task() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async { tokio::spawn(work_on_task(9)).await });
    assert!(
        outcome.is_err_and(|error| error.is_panic()),
        "the task must have panicked"
    );
}

async fn work_on_task(number: u32) {
    tokio::task::yield_now().await;
    if black_box(number) > 0 {
        panic!("task {number} failed");
    }
}

/// `panic I of N` for I from 1, all caught in the main thread; exit code 0.
fn many(count: u64) {
    for number in 1..=count {
        let result = panic::catch_unwind(|| fail_with(&format!("panic {number} of {count}")));
        assert!(result.is_err(), "must have panicked");
    }
}

/// `panic I of N` for I from 1, each in a thread of its own named `worker-I`; exit code 0.
fn many_threads(count: u64) {
    let workers: Vec<_> = (1..=count)
        .map(|number| {
            let name = format!("worker-{number}");
            let work = move || fail_with(&format!("panic {number} of {count}"));
            thread::Builder::new().name(name).spawn(work).unwrap()
        })
        .collect();
    for worker in workers {
        assert!(worker.join().is_err(), "each worker must have panicked");
    }
}

/// `count` processes at once, each of which runs this program anew, panics with `at once` and exits
/// with code 101; then exit code 0.
fn processes(count: u64) {
    let program = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..count)
        .map(|_| {
            let mut child = Command::new(&program);
            child.arg("start_then_panic").stderr(Stdio::null());
            child.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(101), "must panic");
    }
}

/// `memory allocation of 4611686018427387903 bytes failed` from `handle_alloc_error`, which does
/// not panic: SIGABRT.
#[inline(never)]
fn alloc_error() {
    let more_than_the_address_space = isize::MAX as usize / 2;
    black_box(Vec::<u8>::with_capacity(black_box(
        more_than_the_address_space,
    )));
}
