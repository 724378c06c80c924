//! Moves the ABI's types in and out of bytes and aya's maps.

use std::ptr;

use super::abi::Plain;

/// An ABI type as aya wants map keys and values: aya's marker trait cannot be implemented for
/// another crate's type.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Shared<T: Plain>(pub T);

// SAFETY: `Plain` promises initialised bytes and that any bit pattern is valid, which is all that
// `Pod` asks; `Shared` is transparent.
unsafe impl<T: Plain> aya::Pod for Shared<T> {}

/// Copies a value from the start of `bytes`, or `None` if they are too few.
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, alignment does not matter to read_unaligned, and any bit
    // pattern is a valid `Plain`.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}
