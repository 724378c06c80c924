//! Whose code a frame is in: the program's own, or a library's or language runtime's.
//!
//! A source file decides where it is known. Without debug information, the function's name does,
//! by the crates and namespaces that language runtimes keep to themselves.

use std::path::Path;

/// What is known about a frame's code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code<'a> {
    /// The mapped file, as the process names it.
    pub(super) module: &'a Path,
    /// Whether that is a program rather than a shared library.
    pub(super) is_executable: bool,
    /// Whether it is a program with Rust's start-up code.
    pub(super) has_rust_start: bool,
    /// The demangled function.
    pub(super) function: Option<&'a str>,
    /// The source file.
    pub(super) file: Option<&'a Path>,
}

/// Where distributions install libraries.
const LIBRARY_DIRECTORIES: [&str; 8] = [
    "/lib/",
    "/lib32/",
    "/lib64/",
    "/libx32/",
    "/usr/lib/",
    "/usr/lib32/",
    "/usr/lib64/",
    "/usr/libx32/",
];

/// Parts of the paths of sources that are not the program's own. The standard library's begin with
/// `/rustc/HASH/library` as built for release, and lie below `rustlib` or, in Debian's packages,
/// `/usr/src` where they were mapped back; its own dependencies lie in `/rust/deps`.
const FOREIGN_SOURCES: [&str; 9] = [
    "/lib/rustlib/src/rust/library/",
    "/cargo/registry/src/",
    "/.cargo/registry/src/",
    "/cargo/git/checkouts/",
    "/.cargo/git/checkouts/",
    "/rust/deps/",
    "/usr/src/rustc-",
    "/usr/include/",
    "/include/c++/",
];

/// Crates of Rust's standard library, and what the compiler makes up.
const RUST_RUNTIME_CRATES: [&str; 10] = [
    "std",
    "core",
    "alloc",
    "__rustc",
    "proc_macro",
    "panic_unwind",
    "panic_abort",
    "backtrace",
    "addr2line",
    "gimli",
];

/// Rust's built-in types: an implementation of a trait for them is the trait's crate's.
const RUST_PRIMITIVES: [&str; 19] = [
    "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64",
    "i128", "isize", "f32", "f64", "fn", "unsafe",
];

/// Namespaces of the C++ runtime (libstdc++, libc++).
const CPP_RUNTIME_NAMESPACES: [&str; 4] =
    ["std", "__gnu_cxx", "__cxxabiv1", "__gxx_personality_v0"];

/// Functions of the C library that end up in statically linked programs and have ordinary names.
/// The others begin with two underscores, which are reserved to the implementation (C17, 7.1.3).
const C_RUNTIME: [&str; 9] = [
    "_start",
    "_exit",
    "abort",
    "raise",
    "gsignal",
    "pthread_kill",
    "start_thread",
    "clone3",
    "_init",
];

/// Whether the code is the program's own.
pub(super) fn is_own(code: &Code<'_>) -> bool {
    let module = code.module.to_string_lossy();
    // Anonymous memory and the vDSO are the runtime's or the kernel's.
    if !module.starts_with('/') {
        return false;
    }
    if !code.is_executable
        && LIBRARY_DIRECTORIES
            .iter()
            .any(|lib| module.starts_with(lib))
    {
        return false;
    }
    match (code.file, code.function) {
        (Some(file), _) => is_own_source(&file.to_string_lossy()),
        (None, Some("main")) => !code.has_rust_start,
        (None, Some(function)) => !is_runtime_function(function),
        // Nothing speaks against it.
        (None, None) => true,
    }
}

fn is_own_source(file: &str) -> bool {
    let standard_library = file
        .strip_prefix("/rustc/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, rest)| rest.starts_with("library/"));
    !standard_library && !FOREIGN_SOURCES.iter().any(|part| file.contains(part))
}

fn is_runtime_function(function: &str) -> bool {
    if function.starts_with("__") || C_RUNTIME.contains(&function) {
        return true;
    }
    if function == "rust_begin_unwind"
        || function == "rust_panic"
        || function == "rust_eh_personality"
    {
        return true;
    }
    let owner = owner(function);
    RUST_RUNTIME_CRATES.contains(&owner) || CPP_RUNTIME_NAMESPACES.contains(&owner)
}

/// The crate or outermost namespace that a function belongs to.
///
/// In `<Type as Trait>::function` that is the type's, unless the type is built in or a reference,
/// whose implementations are the trait's crate's.
fn owner(function: &str) -> &str {
    // C++ writes a kind in front of some names: `virtual thunk to`, `vtable for`, `operator`.
    let name = function
        .rsplit_once(" to ")
        .map_or(function, |(_, name)| name);
    let Some(inner) = name.strip_prefix('<') else {
        return first_segment(name);
    };
    let (implementor, provided) = inner.split_once(" as ").unwrap_or((inner, ""));
    let implementor = implementor.trim_start_matches("dyn ");
    let segment = first_segment(implementor);
    let built_in = segment.is_empty() || RUST_PRIMITIVES.contains(&segment);
    if built_in && !provided.is_empty() {
        return first_segment(provided);
    }
    if implementor.starts_with('<') {
        owner(implementor)
    } else {
        segment
    }
}

/// The part before the first `::`, or what precedes anything that is no identifier.
fn first_segment(path: &str) -> &str {
    let end = path
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(path.len());
    path.get(..end).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a Rust program of the user's, without debug information.
    fn program(function: &str) -> Code<'_> {
        Code {
            module: Path::new("/srv/shop"),
            is_executable: true,
            has_rust_start: true,
            function: Some(function),
            file: None,
        }
    }

    fn in_source(file: &str) -> bool {
        is_own(&Code {
            file: Some(Path::new(file)),
            ..program("shop::checkout")
        })
    }

    #[test]
    fn the_source_file_decides_where_it_is_known() {
        assert!(in_source("/home/me/shop/src/billing.rs"));
        assert!(in_source("src/billing.rs"));
        assert!(in_source("/home/me/library/src/lib.rs"));
        assert!(!in_source(
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/panicking.rs"
        ));
        assert!(!in_source(
            "/home/dev/.rustup/toolchains/x/lib/rustlib/src/rust/library/std/src/rt.rs"
        ));
        assert!(!in_source(
            "/home/dev/.cargo/registry/src/index.crates.io-1949/tokio-1.0.0/src/lib.rs"
        ));
        assert!(!in_source(
            "/usr/local/cargo/registry/src/index.crates.io-1949/serde-1.0.0/src/lib.rs"
        ));
        assert!(!in_source("/rust/deps/hashbrown-0.15.2/src/raw.rs"));
        assert!(!in_source("/usr/include/c++/12/bits/stl_vector.h"));
    }

    #[test]
    fn without_a_source_file_the_runtimes_names_are_known() {
        for own in [
            "shop::billing::report_error",
            "<shop::Order as core::fmt::Display>::fmt",
            "<shop::Order>::total",
            "stdlib_of_mine::run",
            "checkout(int)",
            "shop::checkout(std::string const&)",
        ] {
            assert!(is_own(&program(own)), "{own}");
        }
        for foreign in [
            "std::panicking::panic_with_hook",
            "std::rt::lang_start::<()>",
            "std::rt::lang_start::<()>::{closure#0}",
            "core::panicking::panic_fmt",
            "alloc::alloc::handle_alloc_error",
            "__rustc::rust_begin_unwind",
            "<alloc::vec::Vec<shop::Order> as core::ops::drop::Drop>::drop",
            "<alloc::boxed::Box<dyn core::ops::FnOnce()> as core::ops::FnOnce<()>>::call_once",
            "<u32 as core::fmt::Display>::fmt",
            "<&shop::Order as core::fmt::Debug>::fmt",
            "<<std::thread::Builder>::spawn_unchecked_<F, T>::{closure#1} as core::ops::function::FnOnce<()>>::call_once::{shim:vtable#0}",
            "main",
            "_start",
            "__libc_start_call_main",
            "std::terminate()",
            "__gnu_cxx::__verbose_terminate_handler()",
            "__cxxabiv1::__terminate(void (*)())",
            "__cxa_throw",
            "abort",
        ] {
            assert!(!is_own(&program(foreign)), "{foreign}");
        }
    }

    #[test]
    fn main_is_the_users_unless_rust_put_it_there() {
        assert!(is_own(&Code {
            has_rust_start: false,
            ..program("main")
        }));
        assert!(is_own(&Code {
            file: Some(Path::new("/srv/main.c")),
            ..program("main")
        }));
    }

    #[test]
    fn system_libraries_are_not_the_programs_but_installed_programs_are() {
        let module = |path, is_executable| Code {
            module: Path::new(path),
            is_executable,
            file: Some(Path::new("./src/server.c")),
            ..program("serve")
        };
        assert!(!is_own(&module(
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            false
        )));
        assert!(!is_own(&module("/lib64/ld-linux-x86-64.so.2", false)));
        assert!(is_own(&module("/usr/lib/postgresql/15/bin/postgres", true)));
        assert!(is_own(&module("/opt/shop/libbilling.so", false)));
        assert!(!is_own(&module("[vdso]", false)));
        assert!(!is_own(&module("", false)));
    }
}
