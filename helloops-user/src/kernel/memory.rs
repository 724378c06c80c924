//! The memory of a BPF array map, mapped into this process.

use std::{
    io,
    marker::PhantomData,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

use super::abi::Plain;

/// A map of type array with `BPF_F_MMAPABLE`, whose elements the kernel's programs and this
/// process change at the same time: hence only atomics are handed out.
pub struct ArrayMemory<T> {
    memory: NonNull<T>,
    length: usize,
    bytes: usize,
    elements: PhantomData<T>,
}

// SAFETY: the mapping belongs to the value, and is only accessed through atomics.
unsafe impl<T> Send for ArrayMemory<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for ArrayMemory<T> {}

impl<T: Plain> ArrayMemory<T> {
    /// Maps the `length` elements of the array map `fd`. Elements lie `size_of::<T>()` apart, which
    /// must be a multiple of 8, as the kernel rounds them up to that (kernel/bpf/arraymap.c).
    ///
    /// # Errors
    ///
    /// Whatever `mmap(2)` says.
    pub fn map(fd: BorrowedFd<'_>, length: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize;
        let length = length as usize;
        let bytes = (length * size_of::<T>()).next_multiple_of(page);
        let size = std::num::NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping of a file descriptor that lives; it outlives the descriptor.
        let memory = unsafe {
            nix::sys::mman::mmap(
                None,
                size,
                nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
                nix::sys::mman::MapFlags::MAP_SHARED,
                fd,
                0,
            )
        }?;
        Ok(Self {
            memory: memory.cast(),
            length,
            bytes,
            elements: PhantomData,
        })
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The 32-bit word at `word` (counted in words) of element `index`.
    pub fn word_u32(&self, index: usize, word: usize) -> Option<&AtomicU32> {
        if index >= self.length || word >= size_of::<T>() / 4 {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`, and aligned to 4.
        Some(unsafe {
            AtomicU32::from_ptr(self.memory.as_ptr().add(index).cast::<u32>().add(word))
        })
    }

    /// The 64-bit word at `word` (counted in words) of element `index`.
    pub fn word_u64(&self, index: usize, word: usize) -> Option<&AtomicU64> {
        if index >= self.length || word >= size_of::<T>() / 8 {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`, and aligned to 8.
        Some(unsafe {
            AtomicU64::from_ptr(self.memory.as_ptr().add(index).cast::<u64>().add(word))
        })
    }
}

impl<T> Drop for ArrayMemory<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and nothing refers to it any more.
        // There is nothing to do about a failure.
        let _ = unsafe { nix::sys::mman::munmap(self.memory.cast(), self.bytes) };
    }
}
