//! What an instance is to do.

use std::path::PathBuf;

use crate::{
    kernel::LoadOptions,
    target::{ProbePattern, Selector},
};

/// One target: what to watch, and under which name.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name, unique in the instance.
    pub name: String,
    /// What chooses its processes.
    pub selector: Selector,
    /// Whether each process has histograms of its own.
    pub per_process: bool,
}

/// An instance's targets, probes and bounds.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What to watch.
    pub targets: Vec<Target>,
    /// Functions that the user named as error sites.
    pub probes: Vec<ProbePattern>,
    /// Programs that the targets may start, to be probed before they do.
    pub likely_programs: Vec<PathBuf>,
    /// Sizes and switches of the kernel side.
    pub kernel: LoadOptions,
    /// Roots of trees of separate debug files; none means `/usr/lib/debug`.
    pub debug_directories: Vec<PathBuf>,
}
