//! The entry points of HelloOps's BPF programs. What they do is in one module per topic.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    reason = "aya's macros drop the documentation of entry points"
)]

mod atomic;
mod fault;
mod loss;
mod process;
mod syscall;
mod target;
mod task;

use aya_ebpf::{
    macros::{raw_tracepoint, uprobe},
    programs::{ProbeContext, RawTracePointContext},
};

/// A watched process, a selected executable, or neither starts a program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    process::exec(&ctx);
    0
}

/// A process or thread is created.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    process::fork(&ctx);
    0
}

/// A thread ends.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    process::exit(&ctx);
    0
}

/// A system call is entered.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn syscall_enter(ctx: RawTracePointContext) -> i32 {
    syscall::enter(&ctx);
    0
}

/// A system call returns.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_exit(ctx: RawTracePointContext) -> i32 {
    syscall::exit(&ctx);
    0
}

/// A signal is sent.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_sent(ctx: RawTracePointContext) -> i32 {
    fault::signal_sent(&ctx);
    0
}

/// A signal is about to act.
#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn signal_delivered(ctx: RawTracePointContext) -> i32 {
    fault::signal_delivered(&ctx);
    0
}

/// The out-of-memory killer chose a process.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn oom_victim(ctx: RawTracePointContext) -> i32 {
    process::oom_victim(&ctx);
    0
}

/// A probed address is reached. The program may sleep (Linux 6.0 and later), for the texts that it
/// reads may lie in pages that the process has not touched yet.
#[uprobe(sleepable)]
pub fn site(ctx: ProbeContext) -> u32 {
    fault::site(&ctx);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no program panics: the verifier refuses one that could reach this.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The kernel reads this; its GPL-only helpers need the GPL here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
