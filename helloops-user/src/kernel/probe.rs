//! Attaches the site program to addresses of files.

use std::{
    collections::HashMap,
    error::Error as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use thiserror::Error;

use super::{
    abi::{SiteArguments, SiteKind},
    plain::Shared,
};

/// Why a site could not be probed.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The program is not loaded.
    #[error("uprobes do not work on this kernel: {0}; `helloops doctor` says more")]
    Unavailable(String),
    /// The kernel refused.
    #[error("cannot probe {path} at offset {offset:#x}: {reason}")]
    Attach {
        /// The file.
        path: String,
        /// The offset in it.
        offset: u64,
        /// What the kernel says.
        reason: String,
    },
}

/// Attaches the site program.
pub struct Probes {
    programs: Arc<Mutex<Ebpf>>,
    arguments: Array<MapData, Shared<SiteArguments>>,
    unavailable: Option<String>,
    links: HashMap<ProbeHandle, UProbeLink>,
    next: u64,
}

/// An attached probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeHandle(u64);

impl Probes {
    pub(super) fn new(
        programs: Arc<Mutex<Ebpf>>,
        arguments: Array<MapData, Shared<SiteArguments>>,
        unavailable: Option<String>,
    ) -> Self {
        Self {
            programs,
            arguments,
            unavailable,
            links: HashMap::new(),
            next: 0,
        }
    }

    /// Probes the instruction at `offset` in the file behind `path`, in all processes that map it,
    /// now and later. `site` numbers the site in events.
    ///
    /// # Errors
    ///
    /// [`ProbeError`]
    pub fn attach(
        &mut self,
        path: &Path,
        offset: u64,
        kind: SiteKind,
        site: u32,
    ) -> Result<ProbeHandle, ProbeError> {
        if let Some(reason) = &self.unavailable {
            return Err(ProbeError::Unavailable(reason.clone()));
        }
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let program: &mut UProbe = programs
            .program_mut("site")
            .ok_or_else(|| ProbeError::Unavailable("the program is missing".to_owned()))?
            .try_into()
            .map_err(|error: ProgramError| ProbeError::Unavailable(error.to_string()))?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: Some(u64::from(kind as u32) << 32 | u64::from(site)),
        };
        let link = program
            .attach(point, path, UProbeScope::AllProcesses)
            .and_then(|id| program.take_link(id))
            .map_err(|error| ProbeError::Attach {
                path: path.display().to_string(),
                offset,
                reason: match error.source() {
                    Some(cause) => format!("{error}: {cause}"),
                    None => error.to_string(),
                },
            })?;
        let handle = ProbeHandle(self.next);
        self.next += 1;
        self.links.insert(handle, link);
        Ok(handle)
    }

    /// Says how the arguments of a user's site are to be read. To be called before it is attached.
    ///
    /// # Errors
    ///
    /// When there are more than 4,096 sites.
    pub fn describe(&mut self, site: u32, arguments: SiteArguments) -> Result<(), ProbeError> {
        self.arguments
            .set(site, Shared(arguments), 0)
            .map_err(|error| ProbeError::Unavailable(format!("site {site}: {error}")))
    }

    /// Removes a probe.
    pub fn detach(&mut self, handle: ProbeHandle) {
        self.links.remove(&handle);
    }

    /// How many probes are attached.
    pub fn count(&self) -> usize {
        self.links.len()
    }
}

impl Drop for Probes {
    /// Removes all probes at once: the kernel waits a tenth of a second and more for each
    /// (`uprobe_unregister_sync` in kernel/events/uprobes.c), but one wait can serve many.
    fn drop(&mut self) {
        const THREADS: usize = 64;
        let links: Vec<UProbeLink> = self.links.drain().map(|(_, link)| link).collect();
        let share = links.len().div_ceil(THREADS).max(1);
        let mut links = links.into_iter().peekable();
        thread::scope(|scope| {
            while links.peek().is_some() {
                let batch: Vec<UProbeLink> = links.by_ref().take(share).collect();
                // Where no thread can be had, the batch is dropped with the closure.
                let _ = thread::Builder::new().spawn_scoped(scope, move || drop(batch));
            }
        });
    }
}
