//! Where a binary shows its faults: the functions that language runtimes call when something goes
//! wrong, and those that the user named.
//!
//! This races against the start of the process that is to be watched, so symbols are compared as
//! they stand in the table, and demangled only where the raw bytes leave a chance.

mod pattern;

use std::collections::HashSet;
use std::path::PathBuf;

use memchr::memmem;

use crate::kernel::abi::SiteKind;
use crate::symbol::{FunctionSymbol, Image, SymbolTableKind, demangle};

pub use pattern::{ArgumentType, PatternError, ProbePattern};

/// The most functions that one pattern may name.
const MAX_MATCHES: usize = 64;

/// How many names an error shows.
const SHOWN: usize = 3;

/// How alike a name must be to be suggested, from 0 to 1.
const LIKENESS: f64 = 0.75;

/// `endbr64`: marks where indirect calls may land (Intel SDM, volume 2A).
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];


/// A place in a binary to put a probe at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What it means that it is reached.
    pub kind: SiteKind,
    /// The function, demangled.
    pub function: String,
    /// The function as in the symbol table.
    pub symbol: String,
    /// Where the probe goes, in bytes from the start of the file.
    pub file_offset: u64,
    /// The virtual address of the same place: the function's first instruction, or the one behind
    /// an `endbr64`. Arguments and stack pointer are as at the function's entry.
    pub virtual_address: u64,
    /// Whether the binary is a shared library, which any process may load, rather than a program.
    pub in_library: bool,
}

/// Why a pattern gives no sites.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The file names no functions.
    #[error(
        "{path} has no symbols to find `{pattern}` among: it was stripped; build it without \
         stripping symbols (in Cargo, `strip = \"debuginfo\"` or less)"
    )]
    NoSymbols {
        /// The binary.
        path: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// No function has the name.
    #[error("no function in {path} matches `{pattern}`{}", suggest(.nearest))]
    NoMatch {
        /// The binary.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// The most similar names, the best first.
        nearest: Vec<String>,
    },
    /// Too many functions have the name.
    #[error(
        "`{pattern}` matches {count} functions in {path}, more than {MAX_MATCHES}; narrow it \
         (among them: {})", .first.join(", ")
    )]
    TooMany {
        /// The binary.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// How many match.
        count: usize,
        /// The first few.
        first: Vec<String>,
    },
}

fn suggest(nearest: &[String]) -> String {
    match nearest {
        [] => "; list its functions with `nm -C`".to_owned(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

/// The functions that language runtimes and the C library call on a fault, as far as the binary
/// defines them; those that it only imports are sites of the library that defines them.
pub fn runtime_sites(image: &Image) -> Vec<Site> {
    let mut seen = HashSet::new();
    functions(image)
        .filter_map(|function| Some((runtime_kind(unversioned(function.name))?, function)))
        .filter(|(_, function)| seen.insert(function.address))
        .filter_map(|(kind, function)| site(image, kind, &function))
        .collect()
}

/// The functions that the pattern names in the binary.
///
/// # Errors
/// None or too many match, or the binary has no symbols.
pub fn user_sites(image: &Image, pattern: &ProbePattern) -> Result<Vec<Site>, SiteError> {
    let literal = pattern.literal().map(memmem::Finder::new);
    let mut seen = HashSet::new();
    let matching: Vec<FunctionSymbol<'_>> = functions(image)
        .filter(|function| {
            literal
                .as_ref()
                .is_none_or(|l| l.find(function.name).is_some())
        })
        .filter(|function| {
            str::from_utf8(unversioned(function.name)).is_ok_and(|symbol| pattern.matches(symbol))
        })
        .filter(|function| seen.insert(function.address))
        .collect();
    let path = image.path().to_owned();
    let text = pattern.to_string();
    if matching.len() > MAX_MATCHES {
        let first = matching
            .iter()
            .take(SHOWN)
            .map(|function| demangled(function))
            .collect();
        return Err(SiteError::TooMany {
            path,
            pattern: text,
            count: matching.len(),
            first,
        });
    }
    let sites: Vec<Site> = matching
        .iter()
        .filter_map(|function| site(image, SiteKind::User, function))
        .collect();
    if !sites.is_empty() {
        return Ok(sites);
    }
    if functions(image).next().is_none() {
        return Err(SiteError::NoSymbols {
            path,
            pattern: text,
        });
    }
    Err(SiteError::NoMatch {
        path,
        pattern: text,
        nearest: nearest(image, pattern),
    })
}

/// All functions that the binary defines and that can be probed; those in both tables come twice.
fn functions(image: &Image) -> impl Iterator<Item = FunctionSymbol<'_>> {
    image
        .functions(SymbolTableKind::Full)
        .chain(image.functions(SymbolTableKind::Dynamic))
        .filter(|function| !function.indirect)
}

fn site(image: &Image, kind: SiteKind, function: &FunctionSymbol<'_>) -> Option<Site> {
    let virtual_address = probe_address(image, function.address);
    Some(Site {
        kind,
        function: demangled(function),
        symbol: String::from_utf8_lossy(function.name).into_owned(),
        file_offset: image.offset_of_code(virtual_address)?,
        virtual_address,
        in_library: !image.is_executable(),
    })
}

/// Behind an `endbr64` that a `push` follows. The kernel emulates a probed `push` but has to
/// single-step an `endbr64`, which takes some ten times as long.
fn probe_address(image: &Image, function: u64) -> u64 {
    let code = image.code_at(function, ENDBR64.len() + 2);
    let pushes = |code: &[u8]| matches!(code, [0x50..=0x57, ..] | [0x41, 0x50..=0x57, ..]);
    match code.strip_prefix(&ENDBR64) {
        Some(next) if pushes(next) => function + ENDBR64.len() as u64,
        _ => function,
    }
}

/// The symbol without the version that some tables append to it, as in `abort@@GLIBC_2.2.5`.
fn unversioned(symbol: &[u8]) -> &[u8] {
    match memchr::memchr(b'@', symbol) {
        Some(at) => symbol.get(..at).unwrap_or(symbol),
        None => symbol,
    }
}

fn demangled(function: &FunctionSymbol<'_>) -> String {
    demangle(&String::from_utf8_lossy(function.name))
}

/// Which of the runtimes' functions this is.
///
/// Rust's symbols contain hashes that change with each toolchain, in v0 mangling (`_R…`) before
/// the crate's name, in legacy mangling (`_ZN…17h…E`) at the end.
fn runtime_kind(symbol: &[u8]) -> Option<SiteKind> {
    if let Some(rest) = symbol.strip_prefix(b"_R") {
        // Link-time optimization may append `.llvm.` and a number.
        let path = rest.split(|byte| *byte == b'.').next()?;
        let ends_with = |ends: &[&[u8]]| ends.iter().any(|end| path.ends_with(end));
        return if ends_with(&[
            b"_3std9panicking15panic_with_hook",
            b"_3std9panicking20rust_panic_with_hook",
        ]) {
            Some(SiteKind::RustPanicHook)
        } else if path.ends_with(b"_7___rustc10rust_panic") {
            Some(SiteKind::RustPanic)
        } else if path.ends_with(b"_5alloc5alloc18handle_alloc_error") {
            Some(SiteKind::RustAllocError)
        } else {
            None
        };
    }
    if let Some(rest) = symbol.strip_prefix(b"_ZN") {
        let starts_with = |starts: &[&[u8]]| starts.iter().any(|start| rest.starts_with(start));
        return if starts_with(&[
            b"3std9panicking15panic_with_hook17h",
            b"3std9panicking20rust_panic_with_hook17h",
        ]) {
            Some(SiteKind::RustPanicHook)
        } else if rest.starts_with(b"5alloc5alloc18handle_alloc_error17h") {
            Some(SiteKind::RustAllocError)
        } else if rest == b"10__cxxabiv111__terminateEPFvvE" {
            Some(SiteKind::CppTerminate)
        } else {
            None
        };
    }
    match symbol {
        b"rust_panic" => Some(SiteKind::RustPanic),
        b"_ZSt9terminatev" => Some(SiteKind::CppTerminate),
        b"abort" => Some(SiteKind::Abort),
        b"__assert_fail" | b"__assert_perror_fail" => Some(SiteKind::AssertFail),
        b"__stack_chk_fail" => Some(SiteKind::StackCheckFail),
        b"__fortify_fail" => Some(SiteKind::FortifyFail),
        _ => None,
    }
}

/// The names most like the one that was looked for.
fn nearest(image: &Image, pattern: &ProbePattern) -> Vec<String> {
    let mut scored: Vec<(f64, String)> = functions(image)
        .filter_map(|function| {
            let symbol = str::from_utf8(unversioned(function.name)).ok()?;
            let name = pattern::path_of(symbol);
            let likeness = pattern.likeness(&name);
            (likeness >= LIKENESS).then_some((likeness, name))
        })
        .collect();
    scored.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then_with(|| a_name.cmp(b_name)));
    scored.dedup_by(|(_, a), (_, b)| a == b);
    scored
        .into_iter()
        .take(SHOWN)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests;
