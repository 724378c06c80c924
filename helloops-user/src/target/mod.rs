//! What to watch: selectors, process life, and the probe sites of a binary.
pub mod glob;

mod name_pattern;

pub use name_pattern::NamePattern;
