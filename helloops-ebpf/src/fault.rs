//! Faults: probed sites and fatal signals, with registers, texts and a copy of the stack.

use aya_ebpf::{
    EbpfContext, Global,
    bindings::{pt_regs, task_struct},
    helpers::{
        bpf_get_current_comm, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{
            bpf_copy_from_user, bpf_get_attach_cookie, bpf_get_current_task,
            bpf_get_current_task_btf, bpf_loop, bpf_probe_read_user as raw_read_user,
            bpf_probe_read_user_str, bpf_task_pt_regs,
        },
    },
    macros::map,
    maps::{Array, HashMap, LruHashMap},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use helloops_ebpf::abi::{
    ABSENT, EventKind, FaultEvent, Loss, MESSAGE_BYTES, Registers, STACK_CHUNK, STACK_CHUNKS_MAX,
    SignalRecord, SiteArguments, SiteKind, StackEvent, TEXT_BYTES, TEXTS, Text, TextEvent, Watched,
};

use crate::{
    atomic,
    loss::{self, NO_PREALLOC},
    process::{EVENTS, header},
    target,
    task::{self, layout},
};

/// How many pages of the stack are copied at most.
#[unsafe(no_mangle)]
pub static STACK_CHUNKS: Global<u32> = Global::new(16);

/// How the arguments of the user's sites are read, by site number.
#[map]
static SITES: Array<SiteArguments> = Array::with_max_entries(4096, 0);

/// The number of the next fault.
#[map]
static FAULT_IDS: Array<u64> = Array::with_max_entries(1, 0);

/// A Rust panic whose message was not formatted yet when it was reported.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pending {
    /// The fault's number.
    id: u64,
    /// The panic's payload in the process.
    payload: u64,
}

/// The number of a panic that found no room in the ring buffer, and was counted as lost. It is not
/// reported again at the next site, so that reported and lost ones add up.
const LOST: u64 = u64::MAX;

/// Pending panics by thread id.
#[map]
static PENDING: HashMap<u32, Pending> = HashMap::with_max_entries(8192, NO_PREALLOC);

/// The last signal of each number sent to each watched process: tgid << 32 | number.
#[map]
static SIGNALS: LruHashMap<u64, SignalRecord> = LruHashMap::with_max_entries(8192, 0);

/// Signals that never end a process: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG
/// and SIGWINCH (arch/x86/include/uapi/asm/signal.h).
const HARMLESS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;
const SIGKILL: u32 = 9;
/// Signals with a faulting address: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV.
const ADDRESSED: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 11;
const SIGABRT: u32 = 6;

/// `_Unwind_Exception::exception_class` of g++'s exceptions, "GNUCC++" and a last byte that is 0,
/// or 1 for a dependent one (Itanium C++ ABI, and libstdc++'s unwind-cxx.h).
const GNU_CXX: u64 = 0x474e_5543_432b_2b00;
/// From `__cxa_exception::exceptionType` to `unwindHeader` (libstdc++'s unwind-cxx.h, 64-bit).
const TYPE_BEFORE_HEADER: u64 = 0x50;
/// From `unwindHeader` to the thrown object: the size of `_Unwind_Exception`.
const OBJECT_AFTER_HEADER: u64 = 0x20;
/// How many words of the stack are searched for an exception.
const SEARCHED_WORDS: u32 = 192;

/// A probed address is reached.
#[inline(always)]
pub fn site(ctx: &ProbeContext) {
    let tgid = ctx.tgid();
    if !target::is_watched(tgid) {
        return;
    }
    let Some(watched) = target::get(tgid) else {
        return;
    };
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let kind = (cookie >> 32) as u32;
    let tid = ctx.pid();
    // SAFETY: the context of a uprobe is a pt_regs, whose loads the verifier checks.
    let registers = registers(unsafe { &*ctx.regs });
    debug!(ctx, "site {} of process {}", cookie, tgid);

    if kind == SiteKind::RustPanic as u32 && complete_panic(tid, registers.di, &watched, tgid) {
        return;
    }
    if kind == SiteKind::Abort as u32 {
        process_exits(tid);
    }
    report::<_, true>(ctx, &watched, cookie, &registers, &SignalRecord::NONE);
}

/// A signal is sent to a process: remembers it, so that its end can be explained.
#[inline(always)]
pub fn signal_sent(ctx: &RawTracePointContext) {
    let number: u64 = ctx.arg(0);
    let number = number as u32;
    if number == 0 || number > 64 || (HARMLESS >> number) & 1 != 0 {
        return;
    }
    let info: u64 = ctx.arg(1);
    let task: u64 = ctx.arg(2);
    let layout = layout();
    let Some(tgid) = task::read::<u32>(task, layout.task_tgid) else {
        return;
    };
    if !target::is_watched(tgid) {
        return;
    }
    let sender = ctx.tgid();
    // SEND_SIG_NOINFO (0) comes from a process and SEND_SIG_PRIV (1) from the kernel; all else
    // points to a kernel_siginfo (include/linux/sched/signal.h), which begins as siginfo_t.
    let (code, address) = match info {
        0 => (0, 0),
        1 => (0x80, 0),
        _ => (
            task::read::<i32>(info, 8).unwrap_or(0),
            if (ADDRESSED >> number) & 1 != 0 {
                task::read::<u64>(info, 16).unwrap_or(0)
            } else {
                0
            },
        ),
    };
    // SI_USER, SI_QUEUE and SI_TKILL come from a process (include/uapi/asm-generic/siginfo.h). Timers
    // and I/O signal from interrupts, in which any process may be the current one.
    let from_process = code == 0 || code == -1 || code == -6;
    let key = signal_key(tgid, number);
    // A handler that has seen a hardware fault often raises the same signal again to die of it:
    // the first cause is the one to keep.
    if from_process
        && sender == tgid
        && let Some(first) = SIGNALS.get_ptr(key)
        // SAFETY: a live element; at worst it is being overwritten by a newer signal.
        && unsafe { (*first).code } > 0
    {
        return;
    }
    let record = SignalRecord {
        // SAFETY: the helper has no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        address: if from_process { 0 } else { address },
        number,
        code,
        sender_tgid: if from_process { sender } else { 0 },
        tid: task::read(task, layout.task_pid).unwrap_or(0),
        sender_comm: if from_process {
            bpf_get_current_comm().unwrap_or_default()
        } else {
            [0; 16]
        },
        from_self: u32::from(sender == tgid),
        reserved: 0,
    };
    let _ = SIGNALS.insert(key, record, 0);
}

/// A signal is about to act on the current thread: if its default action ends the process, this is
/// the last moment at which the stack can be seen.
#[inline(always)]
pub fn signal_delivered(ctx: &RawTracePointContext) {
    let tgid = ctx.tgid();
    if !target::is_watched(tgid) {
        return;
    }
    let number: u64 = ctx.arg(0);
    let number = number as u32;
    // All threads of a process that ends get a SIGKILL; the exit event tells of those.
    if number == 0 || number > 64 || number == SIGKILL || (HARMLESS >> number) & 1 != 0 {
        return;
    }
    let action: u64 = ctx.arg(2);
    // k_sigaction begins with sa_handler; SIG_DFL is 0 (include/linux/signal_types.h).
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_kernel(action as *const u64) } {
        Ok(0) => {}
        _ => return,
    }
    let Some(watched) = target::get(tgid) else {
        return;
    };
    let mut user = Registers::default();
    if !read_user_registers(&mut user) {
        return;
    }
    let signal = match SIGNALS.get_ptr(signal_key(tgid, number)) {
        // SAFETY: a live element; at worst it is being overwritten by a newer signal.
        Some(record) => unsafe { *record },
        None => SignalRecord {
            number,
            ..SignalRecord::NONE
        },
    };
    if number == SIGABRT {
        process_exits(ctx.pid());
    }
    let cookie = u64::from(SiteKind::FatalSignal as u32) << 32;
    report::<_, false>(ctx, &watched, cookie, &user, &signal);
}

/// The signal that ended a process, which is forgotten with it.
#[inline(always)]
pub fn take_signal(tgid: u32, number: u32) -> Option<SignalRecord> {
    if number == 0 {
        return None;
    }
    let key = signal_key(tgid, number);
    // SAFETY: a live element; at worst it is being overwritten by a newer signal.
    let record = unsafe { *SIGNALS.get_ptr(key)? };
    let _ = SIGNALS.remove(key);
    Some(record)
}

#[inline(always)]
fn signal_key(tgid: u32, number: u32) -> u64 {
    u64::from(tgid) << 32 | u64::from(number)
}

/// The thread's process is about to end: a panic hook that ends it itself never reaches
/// `rust_panic`, so the message is read now, if it has been formatted.
#[inline(always)]
pub fn process_exits(tid: u32) {
    if let Some(pending) = PENDING.get_ptr(tid) {
        // SAFETY: the element is only changed by the thread itself, which is here.
        let pending = unsafe { *pending };
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task() };
        let tgid = task::read::<u32>(task, layout().task_tgid).unwrap_or(0);
        if let Some(watched) = target::get(tgid) {
            complete_panic(tid, pending.payload, &watched, tgid);
        }
    }
}

/// Drops what is kept of a thread.
#[inline(always)]
pub fn thread_exit(tid: u32) {
    let _ = PENDING.remove(tid);
}

/// Sends the message of a panic that was reported without one. False if there is no such panic.
#[inline(never)]
fn complete_panic(tid: u32, payload: u64, watched: &Watched, tgid: u32) -> bool {
    let Some(pending) = PENDING.get_ptr(tid) else {
        return false;
    };
    // SAFETY: the element is only changed by the thread itself, which is here.
    let id = unsafe { (*pending).id };
    let _ = PENDING.remove(tid);
    if id == LOST {
        return true;
    }
    let Some(mut entry) = EVENTS.reserve::<TextEvent>(0) else {
        loss::count(Loss::Message);
        return true;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours, and as large as the event; every field is written.
    unsafe {
        (*event).header = header(EventKind::Text, tgid, tid, watched);
        (*event).id = id;
        let (length, truncated) = match rust_message(payload) {
            // It was just formatted, so it is in memory.
            Some((pointer, length)) => read_bytes::<_, false>(
                &raw mut (*event).bytes,
                pointer,
                length,
                MESSAGE_BYTES as u64,
            ),
            None => (ABSENT, 0),
        };
        (*event).length = length;
        (*event).truncated = truncated;
    }
    entry.submit(0);
    true
}

/// Remembers a panic until its message has been formatted.
#[inline(always)]
fn expect_message(tid: u32, id: u64, registers: &Registers) {
    let pending = Pending {
        id,
        payload: registers.di,
    };
    let _ = PENDING.insert(tid, pending, 0);
}

/// Sends a fault with its texts, and then its stack. It tells its caller nothing: what a caller
/// did on success was measured not to run on Linux 6.1, though the program loaded there.
#[inline(never)]
fn report<C: EbpfContext, const IS_SITE: bool>(
    ctx: &C,
    watched: &Watched,
    cookie: u64,
    registers: &Registers,
    signal: &SignalRecord,
) {
    let id = next_id();
    let chunks = STACK_CHUNKS.load().min(STACK_CHUNKS_MAX);
    let is_panic_hook = IS_SITE && (cookie >> 32) as u32 == SiteKind::RustPanicHook as u32;
    let Some(mut entry) = EVENTS.reserve::<FaultEvent>(0) else {
        loss::count(Loss::Fault);
        if is_panic_hook {
            expect_message(ctx.pid(), LOST, registers);
        }
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours, and as large as the event; every field that user space reads is
    // written, and of a text only as many bytes as its length says are read.
    unsafe {
        (*event).header = header(EventKind::Fault, ctx.tgid(), ctx.pid(), watched);
        (*event).id = id;
        (*event).cookie = cookie;
        (*event).registers = *registers;
        (*event).stack_chunks = chunks;
        (*event).reserved = 0;
        (*event).comm = bpf_get_current_comm().unwrap_or_default();
        (*event).signal = *signal;
        (*event).numbers = [0; TEXTS];
        let mut n = 0;
        while n < TEXTS {
            (*event).texts[n].length = ABSENT;
            (*event).texts[n].truncated = 0;
            n += 1;
        }
        // Its reads may sleep, which a tracepoint's program may not; a signal has no texts.
        if IS_SITE {
            details(event, cookie, registers);
        }
    }
    // Without a flag the kernel wakes the reader by the first record that it has not seen, and not
    // again by those behind it (bpf_ringbuf_commit, kernel/bpf/ringbuf.c). So that one must do it:
    // a later one would wake nobody, or find no room.
    entry.submit(0);
    if is_panic_hook {
        expect_message(ctx.pid(), id, registers);
    }
    copy_stack(ctx, watched, id, registers.sp, chunks);
}

/// Fills what is particular to the kind of site.
///
/// # Safety
///
/// `event` is a reserved entry of the ring buffer.
#[inline(always)]
unsafe fn details(event: *mut FaultEvent, cookie: u64, registers: &Registers) {
    let kind = (cookie >> 32) as u32;
    // SAFETY: as the caller promises.
    unsafe {
        let texts = &raw mut (*event).texts;
        let numbers = &raw mut (*event).numbers;
        if kind == SiteKind::RustPanicHook as u32 {
            // panic_with_hook(payload, vtable, location, …); Location is {pointer, length, line, column}.
            let location = registers.dx;
            let pointer = constant_word(location);
            let length = user_word(location + 8);
            read_text(&raw mut (*texts)[0], pointer, length);
            let position = user_word(location + 16);
            (*numbers)[0] = position & 0xffff_ffff;
            (*numbers)[1] = position >> 32;
            if let Some((pointer, length)) = rust_message(registers.di) {
                read_text(&raw mut (*texts)[1], pointer, length);
            }
        } else if kind == SiteKind::RustPanic as u32 {
            if let Some((pointer, length)) = rust_message(registers.di) {
                read_text(&raw mut (*texts)[1], pointer, length);
            }
        } else if kind == SiteKind::RustAllocError as u32 {
            (*numbers)[0] = registers.di;
            (*numbers)[1] = registers.si;
        } else if kind == SiteKind::AssertFail as u32 {
            // __assert_fail(expression, file, line, function)
            read_string(&raw mut (*texts)[0], registers.di);
            read_string(&raw mut (*texts)[1], registers.si);
            (*numbers)[0] = registers.dx & 0xffff_ffff;
            read_string(&raw mut (*texts)[2], registers.cx);
        } else if kind == SiteKind::FortifyFail as u32 {
            read_string(&raw mut (*texts)[0], registers.di);
        } else if kind == SiteKind::CppTerminate as u32 || kind == SiteKind::Abort as u32 {
            exception(event, registers);
        } else if kind == SiteKind::User as u32 {
            arguments(event, cookie as u32, registers);
        }
    }
}

/// The message of a Rust panic's payload, as pointer and length.
///
/// The payload's type is not known here, but its words tell: a formatted message is a `String`
/// {capacity, pointer, length}; a literal is a `&str` {pointer, length}. A message that is not
/// formatted yet has a capacity with the highest bit set.
#[inline(always)]
fn rust_message(payload: u64) -> Option<(u64, u64)> {
    let (first, second, third) = (
        user_word(payload),
        user_word(payload + 8),
        user_word(payload + 16),
    );
    if is_string(first, second, third) {
        return Some((second, third));
    }
    if is_pointer(first) && second != 0 && second < 1 << 24 {
        return Some((first, second));
    }
    None
}

#[inline(always)]
fn is_string(capacity: u64, pointer: u64, length: u64) -> bool {
    capacity < 1 << 32 && is_pointer(pointer) && length != 0 && length <= capacity
}

/// Whether a word can be an address of user memory on x86-64, above what is never mapped.
#[inline(always)]
fn is_pointer(word: u64) -> bool {
    (1 << 16..1 << 47).contains(&word)
}

/// Looks for the C++ exception that is being thrown. The callers of terminate and abort still hold
/// its address in a register or near the top of the stack, and its header carries a magic number.
///
/// # Safety
///
/// `event` is a reserved entry of the ring buffer.
#[inline(always)]
unsafe fn exception(event: *mut FaultEvent, registers: &Registers) {
    let mut header = 0;
    let candidates = [
        registers.bx,
        registers.bp,
        registers.r12,
        registers.r13,
        registers.r14,
        registers.r15,
        registers.di,
    ];
    for candidate in candidates {
        if header == 0 {
            header = exception_header(candidate);
        }
    }
    if header == 0 {
        let mut search = StackSearch {
            sp: registers.sp,
            header: 0,
        };
        // SAFETY: the callback is given the context that it expects, which outlives the call.
        unsafe {
            bpf_loop(
                SEARCHED_WORDS,
                try_word as *mut _,
                (&raw mut search).cast(),
                0,
            )
        };
        header = search.header;
    }
    if header == 0 {
        return;
    }
    let object = header + OBJECT_AFTER_HEADER;
    // std::type_info is {vtable, name}.
    let name = constant_word(user_word(header - TYPE_BEFORE_HEADER) + 8);
    let first = user_word(object);
    let second = user_word(object + 8);
    // SAFETY: as the caller promises.
    unsafe {
        let numbers = &raw mut (*event).numbers;
        (*numbers)[0] = 1;
        (*numbers)[1] = first;
        (*numbers)[2] = second;
        let texts = &raw mut (*event).texts;
        read_string(&raw mut (*texts)[0], name);
        // std::logic_error and std::runtime_error keep a pointer to their text behind the vtable.
        read_string(&raw mut (*texts)[1], second);
        read_string(&raw mut (*texts)[2], first);
        // A thrown std::string is {pointer, length, …}.
        if is_pointer(first) && second != 0 && second < 1 << 24 {
            read_text(&raw mut (*texts)[3], first, second);
        }
    }
}

/// A search for an exception on the stack.
struct StackSearch {
    sp: u64,
    header: u64,
}

/// One step of the search; a callback, so that the verifier looks at it once and not per word.
unsafe extern "C" fn try_word(index: u64, search: *mut StackSearch) -> i64 {
    // SAFETY: `exception` hands over its own search.
    let search = unsafe { &mut *search };
    search.header = exception_header(user_word(search.sp + index * 8));
    i64::from(search.header != 0)
}

/// The unwind header that `candidate` points to, directly or as the exception object behind it; 0
/// if it is none.
#[inline(always)]
fn exception_header(candidate: u64) -> u64 {
    if !is_pointer(candidate) || candidate & 7 != 0 {
        return 0;
    }
    if user_word(candidate) & !1 == GNU_CXX {
        return candidate;
    }
    let before = candidate - OBJECT_AFTER_HEADER;
    if user_word(before) & !1 == GNU_CXX {
        return before;
    }
    0
}

/// Reads the arguments of a user's site.
///
/// # Safety
///
/// `event` is a reserved entry of the ring buffer.
#[inline(always)]
unsafe fn arguments(event: *mut FaultEvent, site: u32, registers: &Registers) {
    let Some(arguments) = SITES.get(site) else {
        return;
    };
    // The integer argument registers of the System V ABI for x86-64, and a seventh that is never
    // the start of an argument.
    let values = [
        registers.di,
        registers.si,
        registers.dx,
        registers.cx,
        registers.r8,
        registers.r9,
        0,
    ];
    // SAFETY: as the caller promises; the loop stays within the arrays.
    unsafe {
        let numbers = &raw mut (*event).numbers;
        let texts = &raw mut (*event).texts;
        let mut n = 0;
        while n < TEXTS {
            (*numbers)[n] = values[n];
            match arguments.kinds[n] {
                2 => read_string(&raw mut (*texts)[n], values[n]),
                3 => read_text(&raw mut (*texts)[n], values[n], values[n + 1]),
                _ => {}
            }
            n += 1;
        }
    }
}

/// Copies the stack from the stack pointer upwards, a page at a time, until memory ends, `chunks`
/// pages are taken, or the main thread's arguments and environment begin, which stay private.
#[inline(always)]
fn copy_stack<C: EbpfContext>(ctx: &C, watched: &Watched, id: u64, sp: u64, chunks: u32) {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let layout = layout();
    let top = task::read::<u64>(task, layout.task_mm)
        .and_then(|mm| task::read::<u64>(mm, layout.mm_start_stack))
        .unwrap_or(0);
    let mut address = stack_begin(sp);
    let mut n = 0;
    while n < STACK_CHUNKS_MAX {
        if n >= chunks {
            return;
        }
        let Some(mut entry) = EVENTS.reserve::<StackEvent>(0) else {
            loss::count(Loss::Stack);
            return;
        };
        let mut wanted = STACK_CHUNK as u64 - (address & (STACK_CHUNK as u64 - 1));
        if top > address && top - address < wanted {
            wanted = top - address;
        }
        let event = entry.as_mut_ptr();
        // SAFETY: the entry is ours, and as large as the event; the size is within the buffer.
        let length = unsafe {
            (*event).header = header(EventKind::Stack, ctx.tgid(), ctx.pid(), watched);
            (*event).id = id;
            (*event).address = address;
            let size = core::hint::black_box(wanted).min(STACK_CHUNK as u64) as u32;
            let failed = raw_read_user((&raw mut (*event).bytes).cast(), size, address as *const _);
            if failed == 0 { u64::from(size) } else { 0 }
        };
        address += length;
        let last = length == 0 || n + 1 >= chunks || (top != 0 && address == top);
        // SAFETY: as above.
        unsafe {
            (*event).length = length as u32;
            (*event).last = u32::from(last);
        }
        entry.submit(0);
        if last {
            return;
        }
        n += 1;
    }
}

/// Where the stack begins: at the stack pointer, or with the next page, for an overflow leaves the
/// stack pointer below the stack. Compilers that check for overflows go down by at most a page
/// before they touch it (gcc's `-fstack-clash-protection`, LLVM's `__probestack`).
///
/// Told before the loop, since Linux 6.1's verifier follows each of its ways through it on its own.
#[inline(always)]
fn stack_begin(sp: u64) -> u64 {
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user(sp as *const u8) } {
        Ok(_) => sp,
        Err(_) => (sp | (STACK_CHUNK as u64 - 1)).wrapping_add(1),
    }
}

/// Brings a page of the process into memory: constants that were never used are not there yet, and
/// there is no helper that both reads a NUL-terminated text and may wait for it.
#[inline(always)]
fn fault_in(address: u64) {
    let mut byte = 0u8;
    // SAFETY: the helper checks the address; one byte is copied into one.
    unsafe { bpf_copy_from_user((&raw mut byte).cast(), 1, address as *const _) };
}

/// A word of the process's constants; 0 if it cannot be read.
#[inline(always)]
fn constant_word(address: u64) -> u64 {
    fault_in(address);
    user_word(address)
}

/// A word of the process's memory, if it is there; else 0.
#[inline(always)]
fn user_word(address: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}

/// Reads a NUL-terminated text.
///
/// # Safety
///
/// `text` lies in a reserved entry of the ring buffer.
#[inline(always)]
unsafe fn read_string(text: *mut Text, address: u64) {
    if !is_pointer(address) {
        return;
    }
    fault_in(address);
    // SAFETY: as the caller promises; the helper bounds the copy by the buffer.
    unsafe {
        let read = bpf_probe_read_user_str(
            (&raw mut (*text).bytes).cast(),
            TEXT_BYTES as u32,
            address as *const _,
        );
        if read > 0 {
            // The NUL is counted too. One that fills the buffer may have been cut off.
            (*text).length = (read - 1) as u32;
            (*text).truncated = u32::from(read == TEXT_BYTES as i64);
        }
    }
}

/// Reads a text of a known length.
///
/// # Safety
///
/// `text` lies in a reserved entry of the ring buffer.
#[inline(always)]
unsafe fn read_text(text: *mut Text, address: u64, length: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        let (length, truncated) =
            read_bytes::<_, true>(&raw mut (*text).bytes, address, length, TEXT_BYTES as u64);
        (*text).length = length;
        (*text).truncated = truncated;
    }
}

/// Copies `length` bytes, or as many as fit, and returns how many, and whether that is not all.
///
/// # Safety
///
/// `buffer` lies in a reserved entry of the ring buffer, and `N` is `limit`.
#[inline(always)]
unsafe fn read_bytes<const N: usize, const MAY_SLEEP: bool>(
    buffer: *mut [u8; N],
    address: u64,
    length: u64,
    limit: u64,
) -> (u32, u32) {
    let size = core::hint::black_box(length).min(limit) as u32;
    // SAFETY: as the caller promises; the size is within the buffer.
    let failed = unsafe {
        if MAY_SLEEP {
            bpf_copy_from_user(buffer.cast(), size, address as *const _)
        } else {
            raw_read_user(buffer.cast(), size, address as *const _)
        }
    };
    if failed == 0 {
        (size, u32::from(length > limit))
    } else {
        (ABSENT, 0)
    }
}

/// Numbers a fault.
#[inline(always)]
fn next_id() -> u64 {
    match FAULT_IDS.get_ptr_mut(0) {
        // SAFETY: a live, aligned element of an array map.
        Some(counter) => unsafe { atomic::fetch_add_u64(counter, 1) + 1 },
        None => 0,
    }
}

/// Reads the registers with which the current thread entered the kernel. Apart from its caller,
/// since all frames of a program that are there at once share 512 bytes. False if it cannot.
#[inline(never)]
fn read_user_registers(into: &mut Registers) -> bool {
    // SAFETY: the helpers have no preconditions; the first one's result is the current task.
    let user = unsafe {
        let task: *mut task_struct = bpf_get_current_task_btf();
        bpf_task_pt_regs(task) as *const pt_regs
    };
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_kernel(user) } {
        Ok(user) => {
            *into = registers(&user);
            true
        }
        Err(_) => false,
    }
}

/// The registers of user code.
#[inline(always)]
fn registers(regs: &pt_regs) -> Registers {
    Registers {
        ax: regs.rax,
        bx: regs.rbx,
        cx: regs.rcx,
        dx: regs.rdx,
        si: regs.rsi,
        di: regs.rdi,
        bp: regs.rbp,
        sp: regs.rsp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        ip: regs.rip,
        flags: regs.eflags,
    }
}
