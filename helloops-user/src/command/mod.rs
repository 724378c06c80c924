//! The command line, one file per verb.

mod distribution;
pub mod fault_text;
pub mod faults;
pub mod hist;
mod json;
mod loss;
mod quantity;
mod series_table;
pub mod status;
pub mod summary;
pub mod terminal;
pub mod top;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod views;
