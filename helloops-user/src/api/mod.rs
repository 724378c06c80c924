//! The HTTP/JSON API on a Unix socket, its client, and the types that all views share.

mod client;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod conversation;
mod server;
mod socket;
mod types;

pub use client::{Client, ClientError, FaultStream, Followed};
pub use server::Server;
pub use socket::SocketError;
pub use types::{
    ErrorBody, Exit, FaultGroup, FaultQuery, Faults, Feature, Flow, HistogramQuery, Histograms,
    Lost, Report, Status, TargetStatus, Window, WindowError,
};
