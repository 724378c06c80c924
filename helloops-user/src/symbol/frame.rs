//! One frame of a symbolized stack, in the shape that the API and `--json` show.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One frame of a stack, innermost first. An address in inlined code gives several frames, each
/// but the last with `inlined` set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The instruction pointer, or the return address of a calling frame, in the process.
    pub address: u64,
    /// The file that is mapped at the address, as the process names it; `[vdso]` for the vDSO.
    pub module: Option<PathBuf>,
    /// The module's GNU build ID in lower-case hexadecimal.
    pub build_id: Option<String>,
    /// The demangled function name.
    pub function: Option<String>,
    /// Bytes from the start of the function; in a frame without a function, the address as the
    /// module's ELF file numbers it (its virtual address), so that it can be symbolized elsewhere.
    pub offset: Option<u64>,
    /// The source file as the compiler recorded it.
    pub file: Option<PathBuf>,
    /// The source line, from 1.
    pub line: Option<u32>,
    /// The source column, from 1.
    pub column: Option<u32>,
    /// Whether the compiler inlined this function into the next frame's.
    pub inlined: bool,
    /// Whether this is the program's own code, rather than a language runtime's or a library's.
    pub in_app: bool,
}
