//! Faults: what they are, how they are assembled, grouped and kept.

mod record;

pub use record::{Argument, Caught, Fault, Kind, Location, Runtime, Signal};
