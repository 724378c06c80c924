//! Process life: exec, fork and exit of watched processes.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_comm, bpf_ktime_get_ns,
        generated::{bpf_get_current_task, bpf_probe_read_kernel_str},
    },
    macros::map,
    maps::{LruHashMap, RingBuf},
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use helloops_ebpf::abi::{
    ABSENT, EventKind, ExecEvent, ExitEvent, FILENAME_BYTES, FLAG_AWAITS_EXEC, FLAG_COMPAT,
    ForkEvent, Header, Inode, Loss, PID_LIMIT, SignalRecord, Watched,
};

use crate::{
    fault, loss, syscall, target,
    task::{self, layout},
};

/// All events, in the order in which they happened. User space sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 * 1024 * 1024, 0);

/// Processes that the out-of-memory killer chose.
#[map]
static OOM_VICTIMS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(256, 0);

/// `SIGNAL_GROUP_EXIT` (include/linux/sched/signal.h, 6.1 to 6.18): the group has one exit code.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// A program starts. Watches the process if it, or the program, is selected.
#[inline(always)]
pub fn exec(ctx: &RawTracePointContext) {
    let task: u64 = ctx.arg(0);
    let bprm: u64 = ctx.arg(2);
    let tgid = ctx.tgid();
    let comm = bpf_get_current_comm().unwrap_or_default();
    let layout = layout();

    let filename = task::read::<u64>(bprm, layout.bprm_filename).unwrap_or(0);
    let file = executable(bprm);

    let known = target::get(tgid);
    let mut selected = Watched {
        target: 0,
        scope: 0,
        flags: 0,
        reserved: 0,
        start: 0,
    };
    let is_selected = target::select(&file, filename, &comm, &mut selected);
    let mut watched = match known {
        // A process that `run` announced, or one that is followed, stays with its target unless
        // another target selects the new program.
        Some(known)
            if is_selected
                && known.flags & FLAG_AWAITS_EXEC == 0
                && selected.target != known.target =>
        {
            selected
        }
        Some(known) => known,
        None if is_selected => selected,
        None => return,
    };
    watched.flags &= !(FLAG_AWAITS_EXEC | FLAG_COMPAT);
    if is_32_bit(bprm) {
        watched.flags |= FLAG_COMPAT;
    }
    watched.start = task::process_start(task);
    let joins = known
        .is_none_or(|known| known.target != watched.target || known.flags & FLAG_AWAITS_EXEC != 0);
    if joins {
        target::own_scope(&mut watched);
    }
    // Other threads are gone, and this one may have taken over the leader's id and left its own.
    let old_tid: u64 = ctx.arg(1);
    syscall::forget(tgid);
    syscall::forget(old_tid as u32);
    fault::thread_exit(old_tid as u32);
    if !target::insert(tgid, &watched) {
        return;
    }
    debug!(
        ctx,
        "exec: process {} joins target {}", tgid, watched.target
    );

    let Some(mut entry) = EVENTS.reserve::<ExecEvent>(0) else {
        loss::count(Loss::Process);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours, and as large as the event; every field is written, but for what
    // lies behind the filename's NUL, which user space does not read.
    unsafe {
        (*event).header = header(EventKind::Exec, tgid, ctx.pid(), &watched);
        (*event).file = file;
        (*event).scope = watched.scope;
        (*event).flags = watched.flags;
        (*event).comm = comm;
        (*event).filename[0] = 0;
        bpf_probe_read_kernel_str(
            (&raw mut (*event).filename).cast(),
            FILENAME_BYTES as u32,
            filename as *const _,
        );
    }
    entry.submit(0);
}

/// The file of the program that starts; zeros where the kernel's layout is unknown.
#[inline(always)]
fn executable(bprm: u64) -> Inode {
    let layout = layout();
    let mut file = Inode {
        number: 0,
        device: 0,
        reserved: 0,
    };
    let inode = task::read::<u64>(bprm, layout.bprm_file)
        .and_then(|file| task::read::<u64>(file, layout.file_inode));
    if let Some(inode) = inode {
        file.number = task::read(inode, layout.inode_ino).unwrap_or(0);
        file.device = task::read::<u64>(inode, layout.inode_sb)
            .and_then(|sb| task::read(sb, layout.super_dev))
            .unwrap_or(0);
    }
    file
}

/// Whether the program is a 32-bit ELF file: `e_ident[EI_CLASS]` is `ELFCLASS32`.
#[inline(always)]
fn is_32_bit(bprm: u64) -> bool {
    let offset = layout().bprm_buf;
    if offset == ABSENT {
        return false;
    }
    task::read::<u64>(bprm, offset)
        .is_some_and(|ident| ident & 0xffff_ffff == 0x464c_457f && (ident >> 32) & 0xff == 1)
}

/// A process is created: a watched one's child is watched too.
#[inline(always)]
pub fn fork(ctx: &RawTracePointContext) {
    let parent_tgid = ctx.tgid();
    if !target::is_watched(parent_tgid) {
        return;
    }
    let child: u64 = ctx.arg(1);
    let layout = layout();
    let Some(tgid) = task::read::<u32>(child, layout.task_tgid) else {
        return;
    };
    if tgid == parent_tgid {
        return;
    }
    let Some(mut watched) = target::get(parent_tgid) else {
        return;
    };
    watched.start = task::read(child, layout.task_start_boottime).unwrap_or(0);
    target::own_scope(&mut watched);
    if !target::insert(tgid, &watched) {
        return;
    }
    debug!(
        ctx,
        "fork: process {} joins target {}", tgid, watched.target
    );
    let Some(mut entry) = EVENTS.reserve::<ForkEvent>(0) else {
        loss::count(Loss::Process);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours, and as large as the event; every field is written.
    unsafe {
        (*event).header = header(EventKind::Fork, tgid, tgid, &watched);
        (*event).parent_tgid = parent_tgid;
        (*event).scope = watched.scope;
    }
    entry.submit(0);
}

/// A thread ends; with the last one the process does.
#[inline(always)]
pub fn exit(ctx: &RawTracePointContext) {
    let tgid = ctx.tgid();
    // Whether the process is still watched or not: the last threads of a process end at the same
    // time, and the first of them to come here ends the watching.
    syscall::thread_exit(ctx.pid());
    fault::thread_exit(ctx.pid());
    if !target::is_watched(tgid) {
        return;
    }

    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let layout = layout();
    let signal = task::read::<u64>(task, layout.task_signal).unwrap_or(0);
    // do_exit() has already taken this thread off the count of live ones (kernel/exit.c).
    match task::read::<i32>(signal, layout.signal_live) {
        Some(0) => {}
        Some(_) => return,
        // Without type information the leader's end stands for the process's.
        None if ctx.pid() != tgid => return,
        None => {}
    }
    let Some(watched) = target::get(tgid) else {
        return;
    };
    // Several threads may see that none is alive; one of them reports it.
    if !target::remove(tgid) {
        return;
    }

    // As wait_task_zombie() does (kernel/exit.c): the group's code if the group was ended as one,
    // else the leader's.
    let flags = task::read::<u32>(signal, layout.signal_flags).unwrap_or(0);
    let leader = task::read::<u64>(task, layout.task_group_leader).unwrap_or(task);
    let status = if flags & SIGNAL_GROUP_EXIT != 0 {
        task::read::<u32>(signal, layout.signal_group_exit_code)
    } else {
        task::read::<u32>(leader, layout.task_exit_code)
    }
    .unwrap_or(0);

    let ended_by = fault::take_signal(tgid, status & 0x7f);
    let oom = OOM_VICTIMS.get_ptr(tgid).is_some();
    if oom {
        let _ = OOM_VICTIMS.remove(tgid);
    }
    debug!(ctx, "exit: process {} with status {}", tgid, status);
    let Some(mut entry) = EVENTS.reserve::<ExitEvent>(0) else {
        loss::count(Loss::Process);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours, and as large as the event; every field is written.
    unsafe {
        (*event).header = header(EventKind::Exit, tgid, ctx.pid(), &watched);
        (*event).status = status;
        (*event).scope = watched.scope;
        (*event).oom = u32::from(oom);
        (*event).has_signal = u32::from(ended_by.is_some());
        (*event).signal = ended_by.unwrap_or(SignalRecord::NONE);
        (*event).comm = bpf_get_current_comm().unwrap_or_default();
    }
    entry.submit(0);
}

/// The out-of-memory killer chose a process. Up to Linux 6.7 the tracepoint's argument is the
/// process id, from 6.8 on the task (include/trace/events/oom.h): no pointer is below the limit of
/// process ids.
#[inline(always)]
pub fn oom_victim(ctx: &RawTracePointContext) {
    let argument: u64 = ctx.arg(0);
    let tgid = if argument < u64::from(PID_LIMIT) {
        argument as u32
    } else {
        task::read(argument, layout().task_tgid).unwrap_or(0)
    };
    if target::is_watched(tgid) {
        // SAFETY: the helper has no preconditions.
        let _ = OOM_VICTIMS.insert(tgid, unsafe { bpf_ktime_get_ns() }, 0);
    }
}

/// The start of an event.
#[inline(always)]
pub fn header(kind: EventKind, tgid: u32, tid: u32, watched: &Watched) -> Header {
    Header {
        kind: kind as u32,
        target: watched.target,
        tgid,
        tid,
        // SAFETY: the helper has no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        start: watched.start,
    }
}
