//! Faults: what they are, how they are assembled, grouped and kept.

mod fingerprint;
mod record;
#[cfg(test)]
pub(crate) mod sample;
mod store;

pub use fingerprint::fingerprint;
pub use record::{Argument, Caught, Fault, Kind, Location, Runtime, Signal};
pub use store::{FaultGroup, Filter, Limits, Store};
