//! Optimized programs in C, C++ and Rust, without frame pointers, symbolized when they are gone.

use nix::sys::signal::Signal;

use super::compile::Workshop;
use super::victim::capture_at;
use super::{frame_of, functions, line_of, symbolizer};

const C: &str = r#"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

volatile int depth = 3;

__attribute__((noinline)) static void fail(volatile char *buffer, int n) {
    buffer[n] = 1;
    *(volatile int *)0 = 1; /* the fault */
}

static inline __attribute__((always_inline)) void check(volatile char *buffer, int n) {
    fail(buffer, n); /* from the inlined check */
    buffer[0] = 2;
}

/* Realigns its stack, so that its frame is found through a register or an expression. */
__attribute__((noinline)) static int aligned(int n) {
    volatile char buffer[256] __attribute__((aligned(64)));
    buffer[0] = 0;
    check(buffer, n); /* the inlined check */
    return buffer[1];
}

__attribute__((noinline)) int variable(int n) {
    volatile char *buffer = __builtin_alloca(n * 16 + 16);
    buffer[0] = 1;
    int got = aligned(n); /* from variable */
    return got + buffer[n];
}

__attribute__((noinline)) int recurse(int n) {
    if (n == 0)
        return variable(7);
    return recurse(n - 1) + n * depth; /* from recurse */
}

int compare(const void *a, const void *b) {
    return recurse(depth) - *(const int *)a + *(const int *)b;
}

int main(void) {
    int numbers[2] = {depth, 1};
    qsort(numbers, 2, sizeof *numbers, compare);
    return numbers[0];
}
"#;

#[test]
fn an_optimized_c_program_without_frame_pointers_is_followed_through_the_c_library() {
    let workshop = Workshop::new();
    let flags = [
        "-O2",
        "-g",
        "-fomit-frame-pointer",
        "-fno-optimize-sibling-calls",
    ];
    let program = workshop.compile("sort.c", C, &flags);
    let capture = capture_at(&program, Signal::SIGSEGV);
    let stack = symbolizer().stack(&capture.mappings, &capture.registers, &capture.stack);
    let names = functions(&stack);
    assert_eq!(stack.truncated, None, "{names:#?}");
    assert_eq!(
        frame_of(&stack, "fail").line,
        Some(line_of(C, "/* the fault */"))
    );
    let check = frame_of(&stack, "check");
    assert!(check.inlined);
    assert_eq!(check.line, Some(line_of(C, "/* from the inlined check */")));
    assert_eq!(
        frame_of(&stack, "aligned").line,
        Some(line_of(C, "/* the inlined check */"))
    );
    assert_eq!(
        frame_of(&stack, "variable").line,
        Some(line_of(C, "/* from variable */"))
    );
    assert_eq!(names.iter().filter(|name| **name == "recurse").count(), 4);
    assert!(frame_of(&stack, "main").in_app);
    let own = stack.frames.iter().filter(|frame| frame.in_app);
    assert!(
        own.clone()
            .all(|frame| frame.module.as_deref() == Some(&program))
    );
    assert!(own.count() >= 8);
}

const CPP: &str = r#"
#include <stdexcept>
#include <string>
#include <vector>

namespace shop {
struct Order {
    std::string name;
    __attribute__((noinline)) void check(int total) const {
        if (total > 1)
            throw std::runtime_error("cannot check out " + name); // the throw
    }
};
template <typename T> __attribute__((noinline)) T checkout(const std::vector<Order> &orders, T total) {
    for (const auto &order : orders)
        order.check(total);
    return total;
}
}

int main(int argc, char **) {
    std::vector<shop::Order> orders(2);
    return shop::checkout<int>(orders, argc + 1);
}
"#;

#[test]
fn an_uncaught_exception_shows_the_throwing_function_below_the_cpp_runtime() {
    let workshop = Workshop::new();
    let program = workshop.compile("shop.cpp", CPP, &["-O2", "-g", "-fomit-frame-pointer"]);
    let capture = capture_at(&program, Signal::SIGABRT);
    let stack = symbolizer().stack(&capture.mappings, &capture.registers, &capture.stack);
    let names = functions(&stack);
    assert_eq!(stack.truncated, None, "{names:#?}");
    let first = stack
        .frames
        .iter()
        .find(|frame| frame.in_app)
        .expect("own code");
    assert_eq!(
        first.function.as_deref(),
        Some("shop::Order::check(int) const"),
        "{names:#?}"
    );
    assert_eq!(first.line, Some(line_of(CPP, "// the throw")));
    frame_of(&stack, "std::terminate()");
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("int shop::checkout<int>")
                || name.starts_with("shop::checkout<int>")),
        "{names:#?}"
    );
}

const RUST: &str = r#"
use std::hint::black_box;

mod billing {
    #[inline(always)]
    pub fn check(total: u64) {
        if total > 1 {
            super::give_up(total); // from the inlined check
        }
    }
    pub trait Priced: Send { fn price(&self) -> u64; }
    pub struct Order<T>(pub T);
    impl<T: Into<u64> + Copy + Send> Priced for Order<T> {
        #[inline(never)]
        fn price(&self) -> u64 {
            check(self.0.into()); // the inlined check
            1
        }
    }
}

#[inline(never)]
fn give_up(total: u64) {
    black_box(total);
    panic!("total {total}"); // the panic
}

fn main() {
    let order: Box<dyn billing::Priced> = Box::new(billing::Order(black_box(7_u32)));
    std::thread::Builder::new()
        .name("till".into())
        .spawn(move || black_box(black_box(order).price() + 1))
        .unwrap()
        .join()
        .unwrap();
}
"#;

#[test]
fn a_rust_panic_in_a_thread_shows_inlined_functions_and_the_threads_root() {
    let workshop = Workshop::new();
    let flags = [
        "--edition=2021",
        "-O",
        "-g",
        "-Cpanic=abort",
        "-Cforce-frame-pointers=no",
    ];
    let program = workshop.compile("till.rs", RUST, &flags);
    let capture = capture_at(&program, Signal::SIGABRT);
    let stack = symbolizer().stack(&capture.mappings, &capture.registers, &capture.stack);
    let names = functions(&stack);
    assert_eq!(stack.truncated, None, "{names:#?}");
    let own: Vec<_> = stack.frames.iter().filter(|frame| frame.in_app).collect();
    assert_eq!(
        own[0].function.as_deref(),
        Some("till::give_up"),
        "{names:#?}"
    );
    assert_eq!(own[0].line, Some(line_of(RUST, "// the panic")));
    assert_eq!(own[1].function.as_deref(), Some("till::billing::check"));
    assert!(own[1].inlined);
    assert_eq!(own[2].line, Some(line_of(RUST, "// the inlined check")));
    assert!(
        own[3]
            .function
            .as_deref()
            .is_some_and(|name| name.starts_with("till::main::{"))
    );
    assert_eq!(own.len(), 4, "{own:#?}");
    assert!(names.contains(&"__rustc::rust_panic"), "{names:#?}");
}
