//! Wires all rooms into one running instance.

mod state;
mod status;

pub use state::State;
pub use status::{Feature, Lost, Status, TargetStatus};
