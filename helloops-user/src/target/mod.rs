//! What to watch: selectors, process life, and the probe sites of a binary.

mod site;

pub use site::{
    ArgumentType, PatternError, ProbePattern, Site, SiteError, SiteKind, runtime_sites, user_sites,
};
