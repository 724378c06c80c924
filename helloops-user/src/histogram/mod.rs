//! From the kernel's latency buckets to hdrhistogram, windows and queries.

pub mod bucket;
mod distribution;
mod series;
mod store;
mod syscall_name;
mod tally;
mod window;

pub use distribution::Distribution;
pub use series::Series;
pub use store::{DEFAULT_MEMORY, Query, SeriesKey, Store};
pub use syscall_name::{Call, errno_name};
pub use tally::{Delta, Tally};
pub use window::LONGEST_WINDOW;
