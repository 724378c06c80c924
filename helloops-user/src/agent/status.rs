//! How an instance is doing, in the shape that the API and `--json` show.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::kernel::Feature;

/// Losses by cause, such as `events`, `stacks`, `mappings` or `histogram`: how often something was
/// left out of what the instance knows. Causes without a loss may be missing.
pub type Lost = BTreeMap<String, u64>;

/// The state of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// HelloOps's version.
    pub version: String,
    /// The instance's process.
    pub pid: u32,
    /// When it started to watch.
    pub started: Timestamp,
    /// What it watches.
    pub targets: Vec<TargetStatus>,
    /// What it can do on this kernel.
    pub features: Vec<Feature>,
    /// Probes that are attached now.
    pub probes: u64,
    /// Faults since the start.
    pub faults: u64,
    /// What was lost since the start.
    pub lost: Lost,
}

/// The state of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// What chooses its processes, such as `exe /usr/bin/shop`.
    pub selector: String,
    /// Its processes that live now.
    pub processes: u64,
    /// Its faults since the start.
    pub faults: u64,
}
