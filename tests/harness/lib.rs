//! The test harness: victims that cannot outlive a test, and `helloops` on them.
//!
//! A test names a victim ([`victim`]), runs it under `helloops run` ([`watch()`]) or beside an agent
//! ([`Agent`]), and looks at the report or the answers as JSON, as a user would.
//!
//! What gets run is found by environment variables (`HELLOOPS_BIN`, `HELLOOPS_SHOP`,
//! `HELLOOPS_VICTIMS`), which `cargo xtask test` and `cargo xtask vm` set; without them the harness
//! asks `cargo xtask build`, once.

mod agent;
mod artifacts;
mod own;
mod process;
mod source;
mod stack;
mod wait;
mod waiting;
mod watch;

pub use agent::Agent;
pub use artifacts::{cli, helloops, shop, victim};
pub use own::{OwnCgroup, OwnVictim, open_directory, own_name};
pub use process::{Ended, Running};
pub use source::{Place, place};
pub use stack::{frame, functions, own_functions};
pub use wait::eventually;
pub use waiting::{Waiting, go};
pub use watch::{Report, Watch, Watching, watch};
