//! Loads and attaches the BPF programs, and reads what they report. The only room that names aya.
//!
//! [`Kernel::load`] gives the parts that an instance works with: [`Events`] to read, [`Counters`]
//! to drain, [`Selectors`] to say what is watched, [`Probes`] to attach to sites, and [`Mappings`],
//! the executable files that processes map. What this kernel cannot do is a [`Feature`] that is
//! not available, and the rest goes on without it.

mod btf;
mod counter;
mod event;
mod feature;
mod layout;
mod load;
mod mapping;
mod memory;
mod plain;
mod privilege;
mod probe;
mod selector;

pub use counter::{Counters, Delta};
pub use event::{Events, Observation};
pub use feature::Feature;
pub use layout::Btf;
pub use load::{Kernel, KernelLog, LoadError, LoadOptions, Lost};
pub use mapping::{MappedFile, MappingEvent, Mappings};
pub use privilege::{
    PrivilegeError, is_initial_pid_namespace, missing_capabilities, require_privileges,
};
pub use probe::{ProbeError, ProbeHandle, Probes};
pub use selector::{Selectors, inode_of};

pub use helloops_ebpf::abi;
