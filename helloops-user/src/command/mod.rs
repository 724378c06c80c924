//! The command line, one file per verb.

pub mod agent;
mod arguments;
mod distribution;
pub mod doctor;
pub mod fault_text;
pub mod faults;
mod features;
pub mod hist;
mod json;
mod loss;
mod quantity;
pub mod run;
mod series_table;
pub mod status;
pub mod summary;
pub mod terminal;
pub mod top;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod views;
mod watch;

use std::io::Write as _;

pub use arguments::{Arguments, Verb, reference};

/// Warns of what does not work on this kernel.
fn warn_of_missing(features: &[crate::kernel::Feature]) {
    for feature in features.iter().filter(|feature| !feature.available) {
        log::warn!("not available: {}: {}", feature.name, feature.detail);
    }
}

/// Prints an error with its causes to standard error.
pub fn print_error(error: &anyhow::Error) {
    let text = error
        .chain()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "helloops: {text}");
}
