//! The command line, one file per verb.

pub mod agent;
mod distribution;
pub mod doctor;
pub mod fault_text;
pub mod faults;
mod features;
pub mod hist;
mod json;
mod loss;
mod quantity;
mod series_table;
pub mod run;
pub mod status;
pub mod summary;
pub mod terminal;
pub mod top;
mod watch;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod views;

/// Prints an error with its causes to standard error.
pub fn print_error(error: &anyhow::Error) {
    let text = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    eprintln!("helloops: {text}");
}
