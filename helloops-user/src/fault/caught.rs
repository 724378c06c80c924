//! Tells from the stack of a Rust panic whether something will catch it.

use crate::symbol::Frame;

/// Whether a `catch_unwind` of the program, or of a library such as tokio, stands between the panic
/// and the root of its thread. `None` if the stack does not tell.
///
/// The standard library runs a program's `main` and each thread's closure under a function of its
/// own, `__rust_begin_short_backtrace`. What catches above that belongs to the runtime: there the
/// thread ends, and with the main thread the process.
pub fn is_caught(stack: &[Frame]) -> Option<bool> {
    for function in stack.iter().filter_map(|frame| frame.function.as_deref()) {
        if function.contains("__rust_begin_short_backtrace") {
            return Some(false);
        }
        let catches = [
            "panicking::catch_unwind",
            "panicking::try",
            "panic::catch_unwind",
        ]
        .iter()
        .any(|name| function.contains(name))
            || function == "__rust_try";
        if catches {
            return Some(true);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(functions: &[&str]) -> Vec<Frame> {
        functions
            .iter()
            .map(|function| Frame {
                address: 0,
                module: None,
                build_id: None,
                function: Some((*function).to_owned()),
                offset: None,
                file: None,
                line: None,
                column: None,
                inlined: false,
                in_app: false,
            })
            .collect()
    }

    #[test]
    fn what_catches_within_the_threads_own_code_counts() {
        let thread = "std::sys::backtrace::__rust_begin_short_backtrace::<shop::main, ()>";
        let uncaught = stack(&[
            "core::panicking::panic_fmt",
            "shop::f",
            thread,
            "std::panicking::try",
        ]);
        assert_eq!(is_caught(&uncaught), Some(false));
        let caught = stack(&[
            "shop::f",
            "std::panicking::catch_unwind::<(), f>",
            "shop::g",
            thread,
        ]);
        assert_eq!(is_caught(&caught), Some(true));
        assert_eq!(is_caught(&stack(&["shop::f"])), None);
    }
}
