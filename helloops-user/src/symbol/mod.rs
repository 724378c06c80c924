//! From addresses to source lines: ELF, DWARF, unwinding, demangling.

mod frame;

pub use frame::Frame;
