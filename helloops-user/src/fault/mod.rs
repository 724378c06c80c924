//! Faults: what they are, how they are assembled from events, grouped and kept.

mod capture;
mod caught;
mod chain;
mod describe;
mod fingerprint;
mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod signal;
mod store;

pub use capture::{Capture, Captures, Late};
pub use caught::is_caught;
pub use chain::Chains;
pub use describe::{Description, describe, event_text, exception};
pub use fingerprint::fingerprint;
pub use record::{Argument, Caught, Fault, Kind, Location, Runtime, Signal};
pub use store::{FaultGroup, Filter, Limits, Store};
