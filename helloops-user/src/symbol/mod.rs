//! From captured registers and stack bytes to functions and source lines.
//!
//! The kernel side hands over the registers of a faulting thread and a copy of its stack. By the
//! time that they are looked at, the process may be gone; what is left are the files that were
//! mapped into it:
//!
//! ```text
//!  Registers, StackCopy          RawStack                    Stack
//!  ────────────────────→ unwind ──────────→ resolve ───────────────────────→
//!                           │                  │        functions, lines, inlining,
//!                      cfi  ↓    symbols,      ↓        whose code it is
//!                       module ← debug_info ─ Image ← open ← Mapping
//! ```
//!
//! - [`Mapping`] says which file lay where; `open` opens that file and no other.
//! - [`Image`] is one ELF file, memory-mapped. A module is an image with what is known about it,
//!   each part found out when first needed: call frame information, symbols, debug information.
//! - `unwind` walks the stack; no frame pointers are needed.
//! - `resolve` turns each address into one [`Frame`] per function inlined there; `demangle` and
//!   `origin` make them readable, and tell the program's own code from the rest.
//!
//! [`Symbolizer`] does it all. Nothing is global, and everything kept is bounded, by [`Options`].
//! Files come from watched processes and are not trusted.

mod capture;
mod cfi;
mod debug_info;
mod demangle;
mod frame;
mod image;
mod mapping;
mod module;
mod open;
mod origin;
mod resolve;
mod symbols;
mod unwind;

#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

use gimli::UnwindContext;

pub use capture::{CodeAddress, RawStack, Registers, Stack, StackCopy};
pub use demangle::demangle;
pub use frame::Frame;
pub use image::{BuildId, FunctionSymbol, Image, ImageError, SymbolTableKind};
pub use mapping::{Mapping, VDSO};
pub use open::OpenError;
pub use unwind::Truncation;

use module::Modules;
use resolve::Resolved;

/// Where to look for debug files, and how much to keep.
#[derive(Debug, Clone)]
pub struct Options {
    /// The roots of trees of separate debug files, laid out as gdb has them.
    pub debug_directories: Vec<PathBuf>,
    /// How many modules (binaries, libraries) stay open; the least recently used is closed first.
    /// An open module costs address space, 16 to 32 bytes per symbol once it had to be symbolized,
    /// and its parsed debug information.
    pub modules: usize,
    /// How many addresses' results are kept, at roughly half a KiB each.
    pub results: usize,
    /// How many frames of a stack are kept; the innermost ones.
    pub frames: usize,
    /// The most memory that one module's compressed debug sections may take inflated, in bytes.
    pub inflated_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_directories: vec![PathBuf::from("/usr/lib/debug")],
            modules: 64,
            results: 16_384,
            frames: 256,
            inflated_bytes: 1 << 30,
        }
    }
}

/// Unwinds and symbolizes stacks. It can be sent to another thread, and lives well in a worker.
#[derive(Debug)]
pub struct Symbolizer {
    modules: Modules,
    resolved: Resolved,
    unwind_context: Box<UnwindContext<usize>>,
    frames: usize,
}

impl Symbolizer {
    /// Makes one that has nothing open yet.
    pub fn new(options: Options) -> Self {
        Self {
            resolved: Resolved::new(options.results),
            unwind_context: Box::new(UnwindContext::new()),
            frames: options.frames.max(1),
            modules: Modules::new(options),
        }
    }

    /// Walks the stack of a thread that had these registers. `mappings` are the executable mappings
    /// of its process at that time.
    pub fn unwind(
        &mut self,
        mappings: &[Mapping],
        registers: &Registers,
        stack: &StackCopy,
    ) -> RawStack {
        self.modules.begin();
        unwind::unwind(
            &mut self.modules,
            &mut self.unwind_context,
            mappings,
            registers,
            stack,
            self.frames,
        )
    }

    /// Symbolizes addresses of a process: at least one frame for each, in order, with the functions
    /// inlined there first. What cannot be found out stays `None` in the frame.
    pub fn symbolize(&mut self, mappings: &[Mapping], addresses: &[CodeAddress]) -> Vec<Frame> {
        self.modules.begin();
        let looked_up = self.resolved.looked_up();
        let mut frames = Vec::with_capacity(addresses.len());
        for address in addresses {
            let mapping = mapping::find(mappings, address.lookup());
            self.resolved
                .frames(&mut self.modules, mapping, *address, &mut frames);
        }
        if self.resolved.looked_up() > looked_up {
            self.modules.release_pages();
        }
        frames
    }

    /// Opens the files of these mappings while they can be opened: their names may be gone, or
    /// another file's, when a stack in them is to be symbolized.
    pub fn preload(&mut self, mappings: &[Mapping]) {
        self.modules.begin();
        for mapping in mappings {
            self.modules.get(mapping);
        }
    }

    /// Unwinds and symbolizes.
    pub fn stack(
        &mut self,
        mappings: &[Mapping],
        registers: &Registers,
        stack: &StackCopy,
    ) -> Stack {
        let raw = self.unwind(mappings, registers, stack);
        Stack {
            frames: self.symbolize(mappings, &raw.frames),
            truncated: raw.truncated.map(|truncation| truncation.to_string()),
        }
    }
}
