//! This test process's own stack, captured where the test stands.

use std::arch::asm;
use std::cell::Cell;
use std::path::Path;
use std::process;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use super::{frame_of, functions, line_of, symbolizer};
use crate::symbol::{Mapping, Registers, Stack, StackCopy};

const THIS_FILE: &str = include_str!("own_process.rs");

/// How much of the stack is copied, in bytes; test threads have 2 MiB.
const STACK: usize = 32 << 10;

/// The registers here, and the stack from here upwards.
#[inline(never)]
fn capture() -> (Registers, StackCopy) {
    let mut kept = [0_u64; 8];
    // SAFETY: stores registers into the array that is passed, and clobbers one scratch register.
    unsafe {
        asm!(
            "mov [{kept}], rsp",
            "mov [{kept} + 8], rbp",
            "mov [{kept} + 16], rbx",
            "mov [{kept} + 24], r12",
            "mov [{kept} + 32], r13",
            "mov [{kept} + 40], r14",
            "mov [{kept} + 48], r15",
            "lea {scratch}, [rip]", // captured here
            "mov [{kept} + 56], {scratch}",
            kept = in(reg) kept.as_mut_ptr(),
            scratch = out(reg) _,
        );
    }
    let [sp, bp, bx, r12, r13, r14, r15, ip] = kept;
    let mut bytes = Vec::with_capacity(STACK);
    let top = stack_top(sp).min(sp + STACK as u64);
    for address in (sp..top).step_by(8) {
        // SAFETY: the word lies in the mapping of this thread's stack, above its stack pointer.
        let word = unsafe { std::ptr::read_volatile(address as *const u64) };
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let registers = Registers {
        ip,
        sp,
        bp,
        bx,
        r12,
        r13,
        r14,
        r15,
        ..Registers::default()
    };
    (registers, StackCopy { base: sp, bytes })
}

/// The end of the mapping that the address is in.
fn stack_top(sp: u64) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("own maps");
    let mut ends = maps.lines().filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        range.contains(&sp).then_some(range.end)
    });
    ends.next().expect("the stack is mapped")
}

fn symbolized((registers, stack): &(Registers, StackCopy)) -> Stack {
    let mappings = Mapping::of_process(process::id()).expect("own maps");
    symbolizer().stack(&mappings, registers, stack)
}

#[inline(always)]
fn inlined_into_caller() -> (Registers, StackCopy) {
    capture() // from the inlined function
}

#[inline(never)]
fn calls_inlined() -> (Registers, StackCopy) {
    inlined_into_caller() // the inlined call
}

#[test]
fn this_stack_shows_functions_lines_and_inlining_up_to_its_root() {
    let stack = symbolized(&calls_inlined());
    let file = |name: &str| frame_of(&stack, name).file.clone().expect("a file");
    assert_eq!(stack.truncated, None, "{:#?}", functions(&stack));

    let innermost = &stack.frames[0];
    assert!(
        innermost
            .function
            .as_deref()
            .is_some_and(|f| f.ends_with("own_process::capture"))
    );
    assert!(innermost.build_id.is_some() || innermost.module.is_some());
    assert!(innermost.offset.is_some_and(|offset| offset > 0));

    let inlined = frame_of(&stack, "inlined_into_caller");
    assert!(inlined.inlined && inlined.in_app);
    assert_eq!(
        inlined.line,
        Some(line_of(THIS_FILE, "// from the inlined function"))
    );
    assert_eq!(inlined.offset, None);
    let caller = frame_of(&stack, "calls_inlined");
    assert!(!caller.inlined && caller.in_app);
    assert_eq!(caller.line, Some(line_of(THIS_FILE, "// the inlined call")));
    assert_eq!(caller.column, Some(5));
    assert_eq!(inlined.address, caller.address);
    assert!(file("calls_inlined").ends_with("symbol/tests/own_process.rs"));

    let root = stack.frames.last().expect("frames");
    assert!(!root.in_app);
    let module = root
        .module
        .as_deref()
        .and_then(Path::file_name)
        .expect("a module");
    assert!(module.to_string_lossy().starts_with("libc"), "{root:#?}");
    for frame in &stack.frames {
        let function = frame.function.as_deref().unwrap_or_default();
        if function.starts_with("std::") || function.starts_with("core::") {
            assert!(!frame.in_app, "{frame:#?}");
        }
    }
}

thread_local! {
    static IN_HANDLER: Cell<Option<(Registers, StackCopy)>> = const { Cell::new(None) };
}

extern "C" fn captures_in_handler(_: nix::libc::c_int) {
    IN_HANDLER.set(Some(capture()));
}

#[inline(never)]
fn raises_a_signal() {
    raise(Signal::SIGUSR1).expect("the signal is raised");
}

#[test]
fn a_stack_is_followed_through_a_signal_handler_to_what_was_interrupted() {
    let action = SigAction::new(
        SigHandler::Handler(captures_in_handler),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler allocates, which is sound here since the signal comes from `raise`, not
    // out of the middle of an allocation.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("the handler is installed");
    raises_a_signal();
    let stack = symbolized(&IN_HANDLER.take().expect("the handler ran"));
    let names = functions(&stack);
    assert_eq!(stack.truncated, None, "{names:#?}");
    let place = |part: &str| names.iter().position(|name| name.contains(part));
    let handler = place("captures_in_handler").expect("the handler");
    let raiser = place("raises_a_signal").expect("the interrupted function");
    assert!(handler < raiser, "{names:#?}");
}

#[test]
fn a_stack_copy_that_ends_early_says_so() {
    let (registers, mut stack) = calls_inlined();
    stack.bytes.truncate(8);
    let stack = symbolized(&(registers, stack));
    assert!(!stack.frames.is_empty());
    let reason = stack.truncated.expect("a reason");
    assert!(reason.contains("only 8 bytes of the stack"), "{reason}");
}

#[test]
fn a_call_to_a_wild_pointer_shows_its_caller() {
    let (mut registers, stack) = calls_inlined();
    // As if the code had just called address 8: its own address is on top of the stack.
    let mut pushed = registers.ip.to_le_bytes().to_vec();
    pushed.extend_from_slice(&stack.bytes);
    registers.ip = 8;
    registers.sp -= 8;
    let stack = symbolized(&(
        registers,
        StackCopy {
            base: registers.sp,
            bytes: pushed,
        },
    ));
    assert_eq!(stack.frames[0].address, 8);
    assert_eq!(stack.frames[0].module, None);
    frame_of(&stack, "calls_inlined");
}
