//! Symbolizes real stacks: this process's own, and those of compiled victims; and false ones.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

pub(crate) mod compile;
mod hostile;
mod own_process;
mod separate_debug_file;
pub(crate) mod victim;
mod victims;

use super::{Frame, Options, Stack, Symbolizer};

/// The functions of the frames, innermost first; `?` where unknown.
fn functions(stack: &Stack) -> Vec<&str> {
    stack
        .frames
        .iter()
        .map(|frame| frame.function.as_deref().unwrap_or("?"))
        .collect()
}

/// The one frame of the function with the name or, after `::`, the last part of it.
fn frame_of<'a>(stack: &'a Stack, function: &str) -> &'a Frame {
    let is_meant = |frame: &&Frame| {
        frame.function.as_deref().is_some_and(|name| {
            name == function
                || name
                    .strip_suffix(function)
                    .is_some_and(|path| path.ends_with("::"))
        })
    };
    let found: Vec<&Frame> = stack.frames.iter().filter(is_meant).collect();
    assert_eq!(found.len(), 1, "{function} in {:#?}", functions(stack));
    found[0]
}

/// The line of the first source line that contains the text.
fn line_of(source: &str, text: &str) -> u32 {
    let index = source
        .lines()
        .position(|line| line.contains(text))
        .expect("the text is there");
    u32::try_from(index + 1).expect("a line number")
}

fn symbolizer() -> Symbolizer {
    Symbolizer::new(Options::default())
}

/// The symbolizer is to live in a worker thread.
#[test]
fn a_symbolizer_can_be_sent_to_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    sendable(&symbolizer());
}
