//! Names as a person wrote them: Rust (both manglings) and C++.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// The longest symbol that is demangled, in bytes. Demangling can take time that grows much faster
/// than the symbol.
const MAX_SYMBOL: usize = 16 << 10;

/// The longest demangled name, in bytes. Back references let a short symbol stand for a name of
/// exponential length.
const MAX_NAME: usize = 64 << 10;

/// The most nesting that a C++ symbol may have; each level takes stack.
const MAX_NESTING: u32 = 64;

/// The name that a symbol stands for: a Rust path without its hash; a C++ function with its
/// parameters and without its return type; else the symbol itself, as C has it.
pub fn demangle(symbol: &str) -> String {
    // A dynamic symbol's version, as in `memcpy@@GLIBC_2.14`, is no part of its name.
    let symbol = symbol.split_once('@').map_or(symbol, |(name, _)| name);
    if symbol.len() > MAX_SYMBOL {
        return symbol.to_owned();
    }
    rust(symbol)
        .or_else(|| cpp(symbol))
        .unwrap_or_else(|| symbol.to_owned())
}

fn rust(symbol: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(symbol).ok()?;
    let mut name = Bounded::default();
    // The alternate form leaves out hashes.
    write!(name, "{demangled:#}").ok()?;
    Some(name.0)
}

fn cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") {
        return None;
    }
    let parsing = cpp_demangle::ParseOptions::default().recursion_limit(MAX_NESTING);
    let options = DemangleOptions::new()
        .no_return_type()
        .recursion_limit(MAX_NESTING);
    let parsed = Symbol::new_with_options(symbol.as_bytes(), &parsing).ok()?;
    let mut name = Bounded::default();
    parsed.structured_demangle(&mut name, &options).ok()?;
    Some(name.0)
}

/// A string that refuses to grow beyond [`MAX_NAME`].
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rust_names_lose_their_hashes() {
        assert_eq!(
            demangle("_ZN3std9panicking20rust_panic_with_hook17h0123456789abcdefE"),
            "std::panicking::rust_panic_with_hook"
        );
        assert_eq!(
            demangle("_RNvCsfLfy6EI15iL_7___rustc10rust_panic"),
            "__rustc::rust_panic"
        );
        assert_eq!(
            demangle("_RNvNtCs1234_4shop7billing12report_error"),
            "shop::billing::report_error"
        );
        assert_eq!(
            demangle("_ZN4shop7billing12report_error17h0123456789abcdefE.llvm.1234567"),
            "shop::billing::report_error"
        );
    }

    #[test]
    fn cpp_names_keep_their_parameters_and_no_return_type() {
        assert_eq!(demangle("_ZN4shop8checkoutEi"), "shop::checkout(int)");
        assert_eq!(demangle("_ZSt9terminatev"), "std::terminate()");
        assert_eq!(demangle("_Z5twiceIiET_S0_"), "twice<int>(int)");
        assert_eq!(
            demangle("_ZN10__cxxabiv111__terminateEPFvvE"),
            "__cxxabiv1::__terminate(void (*)())"
        );
    }

    #[test]
    fn c_names_lose_only_their_version() {
        assert_eq!(demangle("abort"), "abort");
        assert_eq!(demangle("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(demangle("parse_order.part.0"), "parse_order.part.0");
    }

    proptest! {
        #[test]
        fn any_symbol_demangles_to_something_bounded(
            symbol in "(_R|_ZN|_Z|)[A-Za-z0-9_$.]{0,80}"
        ) {
            let name = demangle(&symbol);
            prop_assert!(name.len() <= MAX_NAME);
        }
    }
}
