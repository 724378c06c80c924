//! HelloOps: watches real processes through BPF, captures their faults with symbolized stacks, and
//! counts their system calls' latencies into full histograms.
//!
//! Data goes one way, and each room imports only from those before it:
//! [`kernel`] → [`symbol`] → [`target`] → [`histogram`] → [`fault`] → [`agent`] → [`api`] →
//! [`command`].

pub mod agent;
pub mod api;
pub mod command;
pub mod fault;
pub mod histogram;
pub mod kernel;
pub mod symbol;
pub mod target;
