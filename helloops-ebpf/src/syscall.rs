//! System-call latencies, counted into log-linear buckets.
//!
//! The way of a watched call: at entry an array lookup by thread writes down when; at exit the same
//! lookup, three more and one atomic addition count it. The rest is for first times, and for
//! threads whose ids share a place.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, Stack},
    programs::RawTracePointContext,
};
use helloops_ebpf::abi::{
    CALL_NUMBERS, CALL_PLACES, COMPAT_NUMBER, Call, ERRNO_SLOTS, FLAG_COMPAT, Loss,
    PAGES_PER_SERIES, Page, SCOPES, SLOTS_PER_PAGE, Series, bucket_slot,
};

use crate::{
    atomic, fault,
    loss::{self, MMAPABLE, NO_PREALLOC},
    target,
};

/// The threads of watched processes that have made calls, each at the lower bits of its id. The
/// first thread at a place owns it until it ends.
#[map]
static CALLS: Array<Call> = Array::with_max_entries(CALL_PLACES, 0);

/// The threads whose place in `CALLS` another one owns, by thread id.
#[map]
static MORE_CALLS: HashMap<u32, Call> = HashMap::with_max_entries(65536, NO_PREALLOC);

/// Per scope and call number: its index in `SERIES`, or 0 when it has none yet.
#[map]
static SERIES_INDEX: Array<u32> = Array::with_max_entries(SCOPES * CALL_NUMBERS, MMAPABLE);

/// The counters of each call number of each scope. Index 0 stays unused. User space sets the size.
#[map]
static SERIES: Array<Series> = Array::with_max_entries(2, MMAPABLE);

/// Buckets. Index 0 stays unused. User space sets the size.
#[map]
static PAGES: Array<Page> = Array::with_max_entries(2, MMAPABLE);

/// Indices of `SERIES` that are free; filled by user space.
#[map]
static FREE_SERIES: Stack<u32> = Stack::with_max_entries(2, 0);

/// Indices of `PAGES` that are free; filled by user space.
#[map]
static FREE_PAGES: Stack<u32> = Stack::with_max_entries(2, 0);

/// x86-64 call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
const RT_SIGRETURN: u32 = 15;
const RESTART_SYSCALL: u32 = 219;
const EXIT: u32 = 60;
const EXIT_GROUP: u32 = 231;
const EINTR: u32 = 4;

/// The current process and thread, by one call of the helper.
#[inline(always)]
fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// A call is entered.
#[inline(always)]
pub fn enter(ctx: &RawTracePointContext) {
    let (tgid, tid) = current();
    if !target::is_watched(tgid) {
        return;
    }
    let number: u64 = ctx.arg(1);
    // -1 stands for a call that a tracer or seccomp took away.
    if number >= u64::from(COMPAT_NUMBER) {
        return;
    }
    let number = number as u32;
    if number == EXIT_GROUP {
        fault::process_exits(tid);
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(call) = call_of(tid).or_else(|| first_call(tgid, tid)) else {
        return;
    };
    // SAFETY: the element is only written by the thread itself, which is here.
    let call = unsafe { &mut *call };
    if call.interrupted != 0 && resume(call, number) {
        return;
    }
    call.number = number;
    call.since = now;
}

/// The thread's place, if it has one.
#[inline(always)]
fn call_of(tid: u32) -> Option<*mut Call> {
    let call = CALLS.get_ptr_mut(tid & (CALL_PLACES - 1))?;
    // SAFETY: an aligned word of a live element; another thread's claim shows as another id.
    if unsafe { (&raw const (*call).tid).read_volatile() } == tid {
        return Some(call);
    }
    MORE_CALLS.get_ptr_mut(tid)
}

/// Gives a thread its place.
#[inline(never)]
fn first_call(tgid: u32, tid: u32) -> Option<*mut Call> {
    let watched = target::get(tgid)?;
    let new = Call {
        since: 0,
        interrupted: 0,
        number: 0,
        scope: watched.scope,
        number_base: if watched.flags & FLAG_COMPAT != 0 {
            COMPAT_NUMBER
        } else {
            0
        },
        tid,
    };
    let place = CALLS.get_ptr_mut(tid & (CALL_PLACES - 1))?;
    // SAFETY: an aligned word of a live element of an array map.
    if unsafe { atomic::claim_u32(&raw mut (*place).tid, tid) } == 0 {
        // SAFETY: the place is this thread's now.
        unsafe { *place = new };
        return Some(place);
    }
    if MORE_CALLS.insert(tid, new, 0).is_err() {
        loss::count(Loss::Call);
        return None;
    }
    MORE_CALLS.get_ptr_mut(tid)
}

/// Decides what became of a call that came back with an ERESTART code, now that the thread enters
/// call `number`. True if the earlier call goes on.
#[inline(always)]
fn resume(call: &mut Call, number: u32) -> bool {
    if number == RT_SIGRETURN {
        // A handler ends; whether the call is restarted shows next.
        return true;
    }
    let until = call.interrupted;
    call.interrupted = 0;
    if number == call.number || number == RESTART_SYSCALL {
        return true;
    }
    record(call, until, EINTR);
    false
}

/// A call returns.
#[inline(always)]
pub fn exit(ctx: &RawTracePointContext) {
    let (tgid, tid) = current();
    if !target::is_watched(tgid) {
        return;
    }
    let Some(call) = call_of(tid) else {
        return;
    };
    // SAFETY: the element is only written by the thread itself, which is here.
    let call = unsafe { &mut *call };
    if call.since == 0 {
        return;
    }
    if call.interrupted != 0 {
        // Only rt_sigreturn can return here, with what the interrupted call is to return: EINTR, or
        // its own number, for the call is restarted (handle_signal, arch/x86/kernel/signal.c).
        if ctx.arg::<u64>(1) as i64 == -i64::from(EINTR) {
            let until = call.interrupted;
            call.interrupted = 0;
            record(call, until, EINTR);
        }
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let result: i64 = ctx.arg::<u64>(1) as i64;
    let mut errno = 0;
    if (-4095..0).contains(&result) {
        errno = -result as u32;
        // ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND and ERESTART_RESTARTBLOCK
        // (include/linux/errno.h) never reach the program: the call is restarted, or fails with
        // EINTR.
        if errno == 512 || errno == 513 || errno == 514 || errno == 516 {
            call.interrupted = now;
            return;
        }
    }
    record(call, now, errno);
}

/// Counts a call that ended at `until`.
#[inline(always)]
fn record(call: &mut Call, until: u64, errno: u32) {
    let latency = until.wrapping_sub(call.since);
    call.since = 0;
    let Some(series) = series(call) else {
        loss::count(Loss::Histogram);
        return;
    };
    // SAFETY: the pointer is a live element of an array map; all its users go by atomics.
    let series = unsafe { &mut *series };
    let (page_number, slot) = bucket_slot(latency);
    let page_number = page_number as usize;
    if page_number >= PAGES_PER_SERIES {
        return;
    }
    let entry = &raw mut series.pages[page_number];
    // SAFETY: a plain read of an aligned word.
    let mut index = unsafe { entry.read_volatile() };
    if index == 0 {
        index = allocate_page(entry);
        if index == 0 {
            loss::count(Loss::Histogram);
            return;
        }
    }
    let Some(page) = PAGES.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: slot is masked below the array's length.
    let counter = unsafe {
        (&raw mut (*page).counts)
            .cast::<u32>()
            .add(slot as usize & (SLOTS_PER_PAGE - 1))
    };
    // SAFETY: a live, aligned element of an array map, which user space too changes by atomics only.
    unsafe { atomic::increment_u32(counter) };
    mark(series, 1 << page_number);
    if errno != 0 {
        count_error(series, errno);
    }
}

/// Counts a failed call. Apart from `record`, which most calls go through.
#[inline(never)]
fn count_error(series: &mut Series, errno: u32) {
    // The black box keeps the compiler from comparing one copy of the number and using another,
    // whose bounds the verifier then does not know.
    let mut slot = core::hint::black_box(errno as usize);
    if slot >= ERRNO_SLOTS {
        slot = 0;
    }
    // SAFETY: as for the counts in `record`.
    unsafe { atomic::increment_u32(&raw mut series.errors[slot]) };
    mark(series, 1 << 63);
}

/// Tells user space that counters have changed. It takes the mark before the counts, so what is
/// counted before the mark is seen is never missed.
#[inline(always)]
fn mark(series: &mut Series, bit: u64) {
    if series.dirty & bit == 0 {
        // SAFETY: an aligned word of a live element of an array map.
        unsafe { atomic::or_u64(&raw mut series.dirty, bit) };
    }
}

/// The counters of the call, made at its first time.
#[inline(always)]
fn series(call: &Call) -> Option<*mut Series> {
    let number = (call.number + call.number_base) & (CALL_NUMBERS - 1);
    let key = call.scope * CALL_NUMBERS + number;
    let entry = SERIES_INDEX.get_ptr_mut(key)?;
    // SAFETY: a plain read of an aligned word.
    let mut index = unsafe { entry.read_volatile() };
    if index == 0 {
        index = allocate_series(entry, key);
    }
    if index == 0 {
        return None;
    }
    SERIES.get_ptr_mut(index)
}

/// Takes a free series and enters it, unless another CPU was faster. 0 if none is left.
#[inline(never)]
fn allocate_series(entry: *mut u32, key: u32) -> u32 {
    let Ok(Some(index)) = FREE_SERIES.pop() else {
        return 0;
    };
    let Some(series) = SERIES.get_ptr_mut(index) else {
        return 0;
    };
    // SAFETY: the series is ours until it is entered below.
    unsafe { (*series).key = key + 1 };
    // SAFETY: an aligned element of an array map.
    match unsafe { atomic::claim_u32(entry, index) } {
        0 => index,
        theirs => {
            // SAFETY: as above; nobody has seen it.
            unsafe { (*series).key = 0 };
            let _ = FREE_SERIES.push(index, 0);
            theirs
        }
    }
}

/// Takes a free page and enters it, unless another CPU was faster. 0 if none is left.
#[inline(never)]
fn allocate_page(entry: *mut u32) -> u32 {
    let Ok(Some(index)) = FREE_PAGES.pop() else {
        return 0;
    };
    // SAFETY: an aligned word of a live element of an array map.
    match unsafe { atomic::claim_u32(entry, index) } {
        0 => index,
        theirs => {
            let _ = FREE_PAGES.push(index, 0);
            theirs
        }
    }
}

/// A thread ends: the call that it is in never returns, and its place is given back, lest a later
/// thread with its id take it for its own.
#[inline(always)]
pub fn thread_exit(tid: u32) {
    if let Some(call) = call_of(tid) {
        // SAFETY: the element is only written by the thread itself, which is here.
        let call = unsafe { &mut *call };
        // exit and exit_group never return by design.
        let ends = call.number_base == 0 && (call.number == EXIT || call.number == EXIT_GROUP);
        if call.since != 0
            && !ends
            && let Some(series) = series(call)
        {
            // SAFETY: as in `record`.
            let series = unsafe { &mut *series };
            // SAFETY: as in `record`.
            unsafe { atomic::increment_u32(&raw mut series.unfinished) };
            mark(series, 1 << 63);
        }
    }
    forget(tid);
}

/// Drops a thread's call, and gives its place back.
#[inline(always)]
pub fn forget(tid: u32) {
    release(tid);
    let _ = MORE_CALLS.remove(tid);
}

#[inline(always)]
fn release(tid: u32) {
    if let Some(call) = CALLS.get_ptr_mut(tid & (CALL_PLACES - 1)) {
        // SAFETY: an aligned word of a live element; if it is this thread's, no other writes it.
        unsafe {
            let owner = &raw mut (*call).tid;
            if owner.read_volatile() == tid {
                owner.write_volatile(0);
            }
        }
    }
}
