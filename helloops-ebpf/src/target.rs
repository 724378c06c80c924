//! Which processes are watched: the gate that every program asks first, and the selectors that
//! recognise new ones at exec.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_loop,
        bpf_probe_read_kernel_str,
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Stack},
};
use helloops_ebpf::abi::{
    COMM_BYTES, COMM_GLOBS, CommGlob, FILENAME_BYTES, FLAG_PER_PROCESS, GATE_WORDS, Inode, Loss,
    SCOPES, Watched,
};

use crate::{
    atomic,
    loss::{self, MMAPABLE, NO_PREALLOC},
};

/// One bit per process id: watched or not. A dense array, because a bystander's only cost is this
/// one look.
#[map]
static GATE: Array<u64> = Array::with_max_entries(GATE_WORDS, MMAPABLE);

/// The watched processes by tgid.
#[map]
static TARGETS: HashMap<u32, Watched> = HashMap::with_max_entries(65536, NO_PREALLOC);

/// Executables by file.
#[map]
static EXE_FILES: HashMap<Inode, Watched> = HashMap::with_max_entries(1024, NO_PREALLOC);

/// Executables by the path given to execve, for files that replaced one just now.
#[map]
static EXE_PATHS: HashMap<[u8; FILENAME_BYTES], Watched> =
    HashMap::with_max_entries(1024, NO_PREALLOC);

/// cgroup2 ids.
#[map]
static CGROUPS: HashMap<u64, Watched> = HashMap::with_max_entries(1024, NO_PREALLOC);

/// Patterns of thread names.
#[map]
static GLOBS: Array<CommGlob> = Array::with_max_entries(COMM_GLOBS, 0);

/// Histogram scopes that are free, for processes with one of their own.
#[map]
static FREE_SCOPES: Stack<u32> = Stack::with_max_entries(SCOPES, 0);

/// Whether a process is watched.
#[inline(always)]
pub fn is_watched(tgid: u32) -> bool {
    match GATE.get(tgid >> 6) {
        // Other CPUs change the word; one look at a bit of it is all that is needed.
        Some(word) => (*word >> (tgid & 63)) & 1 != 0,
        None => false,
    }
}

/// Opens or closes the gate for a process.
#[inline(always)]
fn set_gate(tgid: u32, open: bool) {
    if let Some(word) = GATE.get_ptr_mut(tgid >> 6) {
        let bit = 1u64 << (tgid & 63);
        // SAFETY: the pointer is a live, aligned element of an array map.
        unsafe {
            if open {
                atomic::or_u64(word, bit);
            } else {
                atomic::and_u64(word, !bit);
            }
        }
    }
}

/// The entry of a watched process.
#[inline(always)]
pub fn get(tgid: u32) -> Option<Watched> {
    // SAFETY: entries are replaced whole; a torn read could at worst mix two entries of one tgid.
    unsafe { TARGETS.get(tgid) }.copied()
}

/// Starts watching a process.
#[inline(always)]
pub fn insert(tgid: u32, watched: &Watched) -> bool {
    if TARGETS.insert(tgid, watched, 0).is_err() {
        loss::count(Loss::Target);
        return false;
    }
    set_gate(tgid, true);
    true
}

/// Stops watching a process. False if it was not watched, or another CPU was faster.
#[inline(always)]
pub fn remove(tgid: u32) -> bool {
    set_gate(tgid, false);
    TARGETS.remove(tgid).is_ok()
}

/// Gives a process its own histogram scope, where its target asks for that and one is left; else
/// its target's, which has the target's number, and not its parent's, which ends with the parent.
#[inline(always)]
pub fn own_scope(watched: &mut Watched) {
    watched.scope = watched.target;
    if watched.flags & FLAG_PER_PROCESS != 0
        && let Ok(Some(scope)) = FREE_SCOPES.pop()
    {
        watched.scope = scope;
    }
}

/// Finds the target that selects a program that starts; false if none does.
///
/// Apart from its caller, and with its result in memory: merged into one, the compiler folds the
/// cases into arithmetic that Linux 6.1's verifier cannot follow.
#[inline(never)]
pub fn select(file: &Inode, path: u64, comm: &[u8; COMM_BYTES], found: &mut Watched) -> bool {
    let selected = by_file(file)
        .or_else(|| by_path(path))
        .or_else(|| by_comm(comm))
        .or_else(by_cgroup);
    match selected {
        Some(watched) => {
            *found = watched;
            true
        }
        None => false,
    }
}

/// The target that selects this executable by its file, if any.
#[inline(always)]
fn by_file(file: &Inode) -> Option<Watched> {
    // SAFETY: as for `get`.
    unsafe { EXE_FILES.get(file) }.copied()
}

/// Room for a path: on the stack it would leave the callers too little of the 512 bytes that all
/// frames of a program share. A program at a tracepoint of exec has its CPU for itself.
#[map]
static PATH: PerCpuArray<[u8; FILENAME_BYTES]> = PerCpuArray::with_max_entries(1, 0);

/// The target that selects the path given to execve, if any.
#[inline(always)]
fn by_path(pointer: u64) -> Option<Watched> {
    let path = PATH.get_ptr_mut(0)?;
    // SAFETY: a live element that nobody else uses meanwhile; the helper checks the address and
    // bounds the copy by the element.
    let (path, read) = unsafe {
        // What an earlier path left behind the NUL would be part of the key.
        path.write([0; FILENAME_BYTES]);
        let room = path.cast();
        let read = bpf_probe_read_kernel_str(room, FILENAME_BYTES as u32, pointer as *const _);
        (&*path, read)
    };
    if read <= 1 {
        return None;
    }
    // SAFETY: as for `get`.
    unsafe { EXE_PATHS.get(path) }.copied()
}

/// The target that selects the current process's cgroup or one above it, if any.
#[inline(always)]
fn by_cgroup() -> Option<Watched> {
    // SAFETY: the helper has no preconditions.
    let own = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: as for `get`.
    if let Some(watched) = unsafe { CGROUPS.get(own) } {
        return Some(*watched);
    }
    for level in 0..12 {
        // SAFETY: the helper has no preconditions; it returns 0 below the process's own level.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 || id == own {
            return None;
        }
        // SAFETY: as for `get`.
        if let Some(watched) = unsafe { CGROUPS.get(id) } {
            return Some(*watched);
        }
    }
    None
}

/// A search among the name patterns.
struct CommSearch {
    comm: [u8; COMM_BYTES],
    found: u32,
}

/// The target that selects this thread name, if any.
#[inline(always)]
fn by_comm(comm: &[u8; COMM_BYTES]) -> Option<Watched> {
    let mut search = CommSearch {
        comm: *comm,
        found: COMM_GLOBS,
    };
    // SAFETY: the callback is given the context that it expects, which outlives the call.
    unsafe { bpf_loop(COMM_GLOBS, try_glob as *mut _, (&raw mut search).cast(), 0) };
    let glob = GLOBS.get(search.found)?;
    Some(Watched {
        target: glob.target,
        scope: glob.scope,
        flags: glob.flags,
        reserved: 0,
        start: 0,
    })
}

/// One step of the search; a callback, so that the verifier looks at it once and not per pattern.
unsafe extern "C" fn try_glob(index: u64, search: *mut CommSearch) -> i64 {
    const NEXT: i64 = 0;
    const STOP: i64 = 1;
    let Some(glob) = GLOBS.get(index as u32) else {
        return STOP;
    };
    // SAFETY: `by_comm` hands over its own search.
    let search = unsafe { &mut *search };
    if glob.accept != 0 && glob.matches(&search.comm) {
        search.found = index as u32;
        return STOP;
    }
    NEXT
}
