//! What to watch: selectors, process life, and the probe sites of a binary.

mod name_pattern;

pub use name_pattern::NamePattern;
