//! Wires all rooms into one running instance.
//!
//! An [`Instance`] has four threads: the *intake* reads events from the kernel, the *prober*
//! attaches to the sites of files that come into use, the *investigator* symbolizes and records
//! faults, and the *ticker* drains the histograms each second. What they find out is in the
//! [`State`], which all views read.

mod instance;
mod intake;
mod investigator;
mod joining;
mod options;
mod prober;
mod scopes;
mod state;
mod status;
mod stop;
mod ticker;

pub use instance::{Instance, Remains, StartError, find_command};
pub use options::{Options, Target};
pub use state::State;
pub use status::{Feature, Lost, Status, TargetStatus};
