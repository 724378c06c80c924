//! A mapped file with everything known about it, each part found out when first needed; and the
//! bounded set of them that is kept open.

use std::cell::OnceCell;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use lru::LruCache;

use super::Options;
use super::cfi::Cfi;
use super::debug_info::{self, DebugInfo};
use super::image::{Image, ImageError};
use super::mapping::Mapping;
use super::open::{self, Stamp};
use super::symbols::SymbolIndex;

/// One binary or library.
#[derive(Debug)]
pub(super) struct Module {
    image: Arc<Image>,
    id: ModuleId,
    cfi: OnceCell<Cfi>,
    symbols: OnceCell<SymbolIndex>,
    debug_file: OnceCell<Option<Arc<Image>>>,
    debug_info: OnceCell<Option<DebugInfo>>,
}

/// Tells one opened module from all others that were ever opened by the same [`Modules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ModuleId(u64);

impl Module {
    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    pub(super) fn id(&self) -> ModuleId {
        self.id
    }

    pub(super) fn cfi(&self) -> &Cfi {
        self.cfi.get_or_init(|| Cfi::of(&self.image))
    }

    /// The function that holds the virtual address: its symbol and its start.
    pub(super) fn symbol_at(&self, address: u64, options: &Options) -> Option<(&[u8], u64)> {
        let source = self.symbol_source(options);
        self.symbols(options).find(source, address)
    }

    /// Whether this is a Rust program, whose `main` is the compiler's and not the user's.
    pub(super) fn has_rust_start(&self, options: &Options) -> bool {
        self.symbols(options).has_rust_start()
    }

    fn symbols(&self, options: &Options) -> &SymbolIndex {
        self.symbols
            .get_or_init(|| SymbolIndex::of(self.symbol_source(options)))
    }

    /// The file itself, unless its symbols were moved to its debug file.
    fn symbol_source(&self, options: &Options) -> &Image {
        match self.image.has_section(".symtab") {
            true => &self.image,
            false => self.debug_file(options).unwrap_or(&self.image),
        }
    }

    /// The debug information, in the file itself or in its debug file.
    pub(super) fn debug_info(&self, options: &Options) -> Option<&DebugInfo> {
        self.debug_info
            .get_or_init(|| {
                let source = match self.image.has_section(".debug_info") {
                    true => &self.image,
                    false => self.debug_file(options)?,
                };
                DebugInfo::of(source, options)
            })
            .as_ref()
    }

    /// The separate debug file.
    fn debug_file(&self, options: &Options) -> Option<&Arc<Image>> {
        self.debug_file
            .get_or_init(|| debug_info::locate(&self.image, options).map(Arc::new))
            .as_ref()
    }
}

/// Which file a mapping is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Vdso,
    File { device: (u32, u32), inode: u64 },
}

impl Key {
    /// Nothing for memory that no file lies behind.
    fn of(mapping: &Mapping) -> Option<Self> {
        if mapping.is_vdso() {
            return Some(Self::Vdso);
        }
        (mapping.inode != 0).then_some(Self::File {
            device: mapping.device,
            inode: mapping.inode,
        })
    }
}

#[derive(Debug)]
struct Slot {
    module: Result<Module, ImageError>,
    path: PathBuf,
    /// The file's state when it was opened; none for the vDSO.
    stamp: Option<Stamp>,
    /// The round in which the slot was last compared with the file system.
    checked: u64,
}

/// The modules that are open, at most as many as [`Options`] say.
#[derive(Debug)]
pub(super) struct Modules {
    slots: LruCache<Key, Slot>,
    options: Arc<Options>,
    round: u64,
    opened: u64,
}

impl Modules {
    pub(super) fn new(options: Options) -> Self {
        let capacity = NonZeroUsize::new(options.modules).unwrap_or(NonZeroUsize::MIN);
        Self {
            slots: LruCache::new(capacity),
            options: Arc::new(options),
            round: 0,
            opened: 0,
        }
    }

    pub(super) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options)
    }

    /// Begins a new round: each module that is asked for is compared with its file once per round.
    pub(super) fn begin(&mut self) {
        self.round += 1;
    }

    /// The module of a mapping, opened if need be; nothing where no file lies behind it.
    pub(super) fn get(&mut self, mapping: &Mapping) -> Option<Result<&Module, &ImageError>> {
        let key = Key::of(mapping)?;
        let current = self.slots.get_mut(&key).is_some_and(|slot| {
            slot.checked == self.round || {
                slot.checked = self.round;
                slot.still_is(mapping)
            }
        });
        if !current {
            self.opened += 1;
            let slot = Slot::open(mapping, ModuleId(self.opened), self.round);
            self.slots.put(key.clone(), slot);
        }
        self.slots.get(&key).map(|slot| slot.module.as_ref())
    }
}

impl Slot {
    fn open(mapping: &Mapping, id: ModuleId, round: u64) -> Self {
        let opened = if mapping.is_vdso() {
            Image::of_vdso().map(|image| (image, None))
        } else {
            open::mapped_file(mapping)
                .map_err(ImageError::from)
                .and_then(|(file, stamp)| {
                    Ok((Image::from_file(&file, &mapping.path)?, Some(stamp)))
                })
        };
        let (module, stamp) = match opened {
            Ok((image, stamp)) => {
                let module = Module {
                    image: Arc::new(image),
                    id,
                    cfi: OnceCell::new(),
                    symbols: OnceCell::new(),
                    debug_file: OnceCell::new(),
                    debug_info: OnceCell::new(),
                };
                (Ok(module), stamp)
            }
            Err(error) => (Err(error), None),
        };
        Self {
            module,
            path: mapping.path.clone(),
            stamp,
            checked: round,
        }
    }

    /// Whether this is still what the mapping is of. A file that was rewritten in place is not, nor
    /// one that got the inode number of a file that is gone. A file that cannot be looked at any
    /// more, since its process or its name is gone, is taken to be the one with the same number
    /// and name.
    fn still_is(&self, mapping: &Mapping) -> bool {
        match (&self.module, self.stamp) {
            (Err(_), _) => false,
            (Ok(_), None) => true,
            (Ok(_), Some(stamp)) => match open::mapped_stamp(mapping) {
                Some(now) => now == stamp,
                None => self.path == mapping.path,
            },
        }
    }
}
