//! What to watch: selectors, process life, mapped files, and the probe sites of a binary.

pub mod glob;
mod memory_map;
mod name_pattern;
pub mod process;
mod selector;
mod site;

pub use memory_map::{MemoryMaps, map_file};
pub use name_pattern::NamePattern;
pub use selector::{Selector, SelectorError, cgroup_id, cgroup2_root, compile_comm};
pub use site::{
    ArgumentType, PatternError, ProbePattern, Site, SiteError, runtime_sites, user_sites,
};
