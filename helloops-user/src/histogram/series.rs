//! One distribution, in the shape that the API and `--json` show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The latency distribution of one system call of one target (or one of its processes) over a
/// window. Values are nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The target's name.
    pub target: String,
    /// The process, where histograms are kept per process.
    pub pid: Option<u32>,
    /// What is measured; `syscall` for system-call latencies.
    pub metric: String,
    /// The system call's name.
    pub call: String,
    /// The unit of all values; `ns`.
    pub unit: String,
    /// Whether the call waits for something to happen (epoll_wait, futex…) rather than works.
    pub wait: bool,
    /// Calls that returned.
    pub count: u64,
    /// Calls that never returned, because their thread ended inside them.
    pub unfinished: u64,
    /// Failed calls by errno name, a part of `count`.
    pub errors: BTreeMap<String, u64>,
    /// The lowest value of the lowest bucket that holds a call.
    pub min: u64,
    /// The highest value of the highest bucket that holds a call.
    pub max: u64,
    /// The mean, from the middles of the buckets.
    pub mean: f64,
    /// Quantiles `0.5`, `0.9`, `0.99` and `0.999`: each the highest value of its bucket.
    pub quantiles: BTreeMap<String, u64>,
    /// The buckets that hold calls, ascending: lowest value, highest value, calls.
    pub buckets: Vec<(u64, u64, u64)>,
}
