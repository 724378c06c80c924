//! Probes the sites of each file that watched processes run code from, once per file.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    fault::Runtime,
    kernel::{
        ProbeHandle, Probes,
        abi::{Inode, SiteArguments, SiteKind},
        inode_of,
    },
    symbol::Image,
    target::{ArgumentType, ProbePattern, Site, SiteError, runtime_sites, user_sites},
};

/// A file that has more sites than this is probed only so far.
const SITES_PER_FILE: usize = 256;

/// What a user's site is and how its arguments read.
#[derive(Debug, Clone)]
pub struct UserSite {
    /// The function's demangled name.
    pub function: String,
    /// Its arguments as the user described them.
    pub arguments: Vec<ArgumentType>,
}

/// What the prober found out, for all threads to read.
#[derive(Debug, Default)]
pub struct Findings {
    sites: RwLock<Vec<UserSite>>,
    runtimes: RwLock<HashMap<Inode, Runtime>>,
}

impl Findings {
    /// A user's site by its number.
    pub fn user_site(&self, number: u32) -> Option<UserSite> {
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        sites.get(number as usize).cloned()
    }

    /// The runtime of an executable, as far as its sites tell.
    pub fn runtime(&self, file: &Inode) -> Option<Runtime> {
        let runtimes = self.runtimes.read().unwrap_or_else(PoisonError::into_inner);
        runtimes.get(file).copied()
    }
}

/// Opens files, finds their sites and probes them.
pub struct Prober {
    probes: Probes,
    patterns: Vec<ProbePattern>,
    findings: Arc<Findings>,
    known: HashMap<Inode, Known>,
}

/// A file that was looked at.
struct Known {
    /// Its name.
    path: PathBuf,
    /// Tells whether its contents were changed since.
    stamp: Stamp,
    is_executable: bool,
    probes: Vec<ProbeHandle>,
}

/// What changes with a file's contents: size, and modification time in seconds and ns.
type Stamp = (u64, i64, i64);

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

impl Prober {
    /// One that has probed nothing yet.
    pub fn new(probes: Probes, patterns: Vec<ProbePattern>) -> Self {
        Self {
            probes,
            patterns,
            findings: Arc::default(),
            known: HashMap::new(),
        }
    }

    /// What it has found out and will find out.
    pub fn findings(&self) -> Arc<Findings> {
        Arc::clone(&self.findings)
    }

    /// How many probes are attached.
    pub fn count(&self) -> u64 {
        self.probes.count() as u64
    }

    /// Probes the sites of a file. `open_as` is where it can be opened, `path` its name. A file
    /// that was probed before is left as it is. Gives the errors of the user's probes; what else
    /// fails is logged.
    pub fn probe(&mut self, open_as: &Path, path: &Path, is_executable: bool) -> Vec<SiteError> {
        let Ok(metadata) = fs::metadata(open_as) else {
            return Vec::new();
        };
        let file = inode_of(&metadata);
        if !metadata.is_file() || self.known.contains_key(&file) {
            return Vec::new();
        }
        let image = match Image::open(open_as) {
            Ok(image) => image,
            Err(error) => {
                // It may be on its way: it is looked at again when it is next mapped.
                log::debug!("{}: not probed: {error}", path.display());
                return Vec::new();
            }
        };
        let is_executable = is_executable || image.is_executable();
        let known = Known {
            path: path.to_path_buf(),
            stamp: stamp(&metadata),
            is_executable,
            probes: Vec::new(),
        };
        self.known.insert(file, known);
        let mut sites = runtime_sites(&image);
        self.learn(file, runtime(&sites));
        sites.truncate(SITES_PER_FILE);
        for site in &sites {
            self.attach(open_as, path, file, site, 0);
        }
        self.probe_for_user(&image, open_as, path, file, is_executable)
    }

    /// Takes the probes off files whose contents were changed in place, and probes them anew: the
    /// kernel would go on to set its breakpoints at the old offsets, wherever they now are.
    pub fn look_again(&mut self) {
        let changed: Vec<Inode> = self
            .known
            .iter()
            .filter(|(file, known)| {
                fs::metadata(&known.path).is_ok_and(|metadata| {
                    inode_of(&metadata) == **file && stamp(&metadata) != known.stamp
                })
            })
            .map(|(file, _)| *file)
            .collect();
        for file in changed {
            let Some(known) = self.known.remove(&file) else {
                continue;
            };
            for probe in known.probes {
                self.probes.detach(probe);
            }
            for error in self.probe(&known.path, &known.path, known.is_executable) {
                log::warn!("{}: {error}", known.path.display());
            }
        }
    }

    /// Probes what the user named in this file.
    fn probe_for_user(
        &mut self,
        image: &Image,
        open_as: &Path,
        path: &Path,
        file: Inode,
        is_executable: bool,
    ) -> Vec<SiteError> {
        let mut errors = Vec::new();
        for pattern in self.patterns.clone() {
            let meant = match pattern.library() {
                Some(_) => pattern.is_in_library(path),
                None => is_executable,
            };
            if !meant {
                continue;
            }
            match user_sites(image, &pattern) {
                Ok(sites) => {
                    for site in sites {
                        let number = self.describe(&site, &pattern);
                        self.attach(open_as, path, file, &site, number);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Numbers a user's site, and tells the kernel side how to read its arguments.
    fn describe(&mut self, site: &Site, pattern: &ProbePattern) -> u32 {
        let mut sites = self
            .findings
            .sites
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let number = sites.len() as u32;
        sites.push(UserSite {
            function: site.function.clone(),
            arguments: pattern.arguments().to_vec(),
        });
        let described = self
            .probes
            .describe(number, argument_kinds(pattern.arguments()));
        if let Err(error) = described {
            log::warn!("{}: its arguments will not be read: {error}", site.function);
        }
        number
    }

    fn attach(&mut self, open_as: &Path, path: &Path, file: Inode, site: &Site, number: u32) {
        match self
            .probes
            .attach(open_as, site.file_offset, site.kind, number)
        {
            Ok(probe) => {
                log::debug!("{}: probed {}", path.display(), site.function);
                if let Some(known) = self.known.get_mut(&file) {
                    known.probes.push(probe);
                }
            }
            Err(error) => log::warn!("{}: {}: {error}", path.display(), site.function),
        }
    }

    fn learn(&self, file: Inode, runtime: Runtime) {
        let mut runtimes = self
            .findings
            .runtimes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        runtimes.insert(file, runtime);
    }
}

/// The runtime that a file's sites speak of.
fn runtime(sites: &[Site]) -> Runtime {
    let has = |kinds: &[SiteKind]| sites.iter().any(|site| kinds.contains(&site.kind));
    if has(&[SiteKind::RustPanicHook, SiteKind::RustPanic]) {
        Runtime::Rust
    } else if has(&[SiteKind::CppTerminate]) {
        Runtime::Cpp
    } else {
        Runtime::Unknown
    }
}

/// How the kernel side reads arguments, one entry per register. A `str` takes two, the second of
/// which is its length.
fn argument_kinds(arguments: &[ArgumentType]) -> SiteArguments {
    let mut kinds = [0; 6];
    let mut register = 0;
    for argument in arguments {
        if let Some(kind) = kinds.get_mut(register) {
            *kind = match argument {
                ArgumentType::Int | ArgumentType::Uint | ArgumentType::Ptr => 1,
                ArgumentType::Cstr => 2,
                ArgumentType::Str => 3,
            };
        }
        register += argument.registers();
    }
    SiteArguments {
        kinds,
        reserved: [0; 2],
    }
}

/// Where the C and C++ runtimes usually are: they are probed before any process maps them.
pub fn common_libraries() -> Vec<PathBuf> {
    const DIRECTORIES: [&str; 5] = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/usr/lib",
    ];
    const NAMES: [&str; 2] = ["libc.so.6", "libstdc++.so.6"];
    let mut found: Vec<PathBuf> = NAMES
        .iter()
        .flat_map(|name| {
            DIRECTORIES
                .iter()
                .map(move |directory| Path::new(directory).join(name))
        })
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    found.sort();
    found.dedup();
    found
}
