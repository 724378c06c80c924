//! Runs a victim under ptrace up to its fault, takes what the kernel side would take, and ends it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::symbol::{Mapping, Registers, StackCopy};

/// What is captured of a fault.
pub(crate) struct Capture {
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) registers: Registers,
    pub(crate) stack: StackCopy,
}

/// How much of the stack is copied, in bytes.
const STACK: usize = 64 << 10;

/// Runs the program until it gets the signal, and kills it then: what is returned is all that is
/// left of it.
pub(crate) fn capture_at(program: &Path, signal: Signal) -> Capture {
    let mut command = Command::new(program);
    // SAFETY: the closure makes one system call and touches no memory of the parent's.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = command.spawn().expect("the victim starts");
    let main_thread = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let thread = run_until(main_thread, signal);
    let raw = ptrace::getregs(thread).expect("registers");
    let mappings = Mapping::of_process(child.id()).expect("mappings");
    let memory = File::open(format!("/proc/{}/mem", child.id())).expect("memory");
    let mut bytes = Vec::new();
    while bytes.len() < STACK {
        let mut page = [0; 256];
        if memory
            .read_exact_at(&mut page, raw.rsp + bytes.len() as u64)
            .is_err()
        {
            break;
        }
        bytes.extend_from_slice(&page);
    }
    child.kill().expect("the victim is killed");
    child.wait().expect("the victim is reaped");
    let registers = Registers {
        ip: raw.rip,
        sp: raw.rsp,
        bp: raw.rbp,
        ax: raw.rax,
        bx: raw.rbx,
        cx: raw.rcx,
        dx: raw.rdx,
        si: raw.rsi,
        di: raw.rdi,
        r8: raw.r8,
        r9: raw.r9,
        r10: raw.r10,
        r11: raw.r11,
        r12: raw.r12,
        r13: raw.r13,
        r14: raw.r14,
        r15: raw.r15,
    };
    Capture {
        mappings,
        registers,
        stack: StackCopy {
            base: raw.rsp,
            bytes,
        },
    }
}

/// Lets all threads run until one is about to get the signal, and returns that one, stopped.
fn run_until(main_thread: Pid, signal: Signal) -> Pid {
    let mut threads = vec![main_thread];
    let mut options_set = false;
    loop {
        let mut started = Vec::new();
        // Each is waited for by its own number: other tests have children too.
        for thread in &threads {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
            let passed_on = match waitpid(*thread, Some(flags)).expect("a thread is waited for") {
                WaitStatus::StillAlive => continue,
                WaitStatus::Stopped(_, stopped_by) if stopped_by == signal => return *thread,
                WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP) => {
                    if !options_set {
                        ptrace::setoptions(*thread, Options::PTRACE_O_TRACECLONE)
                            .expect("options are set");
                        options_set = true;
                    }
                    None
                }
                WaitStatus::Stopped(_, other) => Some(other),
                WaitStatus::PtraceEvent(..) => {
                    let started_thread = ptrace::getevent(*thread).expect("the new thread");
                    started.push(Pid::from_raw(i32::try_from(started_thread).expect("a tid")));
                    None
                }
                end => panic!("the victim ended without {signal}: {end:?}"),
            };
            ptrace::cont(*thread, passed_on).expect("the victim goes on");
        }
        threads.append(&mut started);
        thread::sleep(Duration::from_millis(1));
    }
}
