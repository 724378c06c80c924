//! From the kernel's latency buckets to hdrhistogram, windows and queries.

mod series;

pub use series::Series;
