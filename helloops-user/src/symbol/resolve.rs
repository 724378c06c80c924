//! Turns an address in a module into frames: one per function inlined there, and one for the
//! function itself. Results are kept, since the same faults come again.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;

use super::Options;
use super::capture::CodeAddress;
use super::debug_info::SourceFrame;
use super::demangle::demangle;
use super::frame::Frame;
use super::mapping::Mapping;
use super::module::{Module, ModuleId, Modules};
use super::origin::{self, Code};

/// One frame without what depends on the process.
#[derive(Debug)]
struct Place {
    function: Option<String>,
    /// The virtual address of the function's start; none for an inlined one.
    start: Option<u64>,
    file: Option<PathBuf>,
    line: Option<u32>,
    column: Option<u32>,
    inlined: bool,
    in_app: bool,
}

/// The places of addresses, the least recently used of which are forgotten.
#[derive(Debug)]
pub(super) struct Resolved {
    places: LruCache<(ModuleId, u64), Arc<[Place]>>,
}

impl Resolved {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Self {
            places: LruCache::new(capacity),
        }
    }

    /// Appends the frames of one address. A file that cannot be read leaves the address, the path
    /// and the place in the file.
    pub(super) fn frames(
        &mut self,
        modules: &mut Modules,
        mapping: Option<&Mapping>,
        code: CodeAddress,
        frames: &mut Vec<Frame>,
    ) {
        let mut frame = Frame {
            address: code.address(),
            module: None,
            build_id: None,
            function: None,
            offset: None,
            file: None,
            line: None,
            column: None,
            inlined: false,
            in_app: false,
        };
        let Some(mapping) = mapping else {
            return frames.push(frame);
        };
        if !mapping.path.as_os_str().is_empty() {
            frame.module = Some(mapping.path.clone());
        }
        let options = modules.options();
        let Some(Ok(module)) = modules.get(mapping) else {
            return frames.push(frame);
        };
        frame.build_id = module.image().build_id().map(ToString::to_string);

        let address = module
            .image()
            .address_of_offset(mapping.offset_of(code.lookup()));
        let Some(address) = address else {
            return frames.push(frame);
        };
        let exact = address.saturating_add(code.address() - code.lookup());
        let places = self.places.get_or_insert((module.id(), address), || {
            resolve(module, &mapping.path, address, &options).into()
        });
        for place in places.iter() {
            let named = place.function.is_some();
            frames.push(Frame {
                function: place.function.clone(),
                offset: match place.start {
                    Some(start) => exact.checked_sub(start),
                    None => (!named).then_some(exact),
                },
                file: place.file.clone(),
                line: place.line,
                column: place.column,
                inlined: place.inlined,
                in_app: place.in_app,
                ..frame.clone()
            });
        }
    }
}

/// The places at a module's virtual address, at least one.
fn resolve(module: &Module, path: &Path, address: u64, options: &Options) -> Vec<Place> {
    let symbol = module.symbol_at(address, options);
    let symbol_name = symbol.map(|(name, _)| String::from_utf8_lossy(name).into_owned());
    let mut sources = module
        .debug_info(options)
        .map(|debug_info| debug_info.find(address))
        .unwrap_or_default();
    if sources.is_empty() {
        sources.push(SourceFrame {
            function: None,
            file: None,
            line: None,
            column: None,
        });
    }
    let outermost = sources.len() - 1;
    let is_executable = module.image().is_executable();
    let has_rust_start = module.has_rust_start(options);
    sources
        .into_iter()
        .enumerate()
        .map(|(depth, source)| {
            let inlined = depth < outermost;
            let function = match (source.function, &symbol_name) {
                (Some(function), _) if inlined || is_mangled(&function) => Some(function),
                // Debug information leaves out the namespaces of a function without a mangled
                // name; the symbol has them.
                (_, Some(symbol)) if !inlined && is_mangled(symbol) => Some(symbol.clone()),
                (Some(function), _) => Some(function),
                (None, symbol) => symbol.clone().filter(|_| !inlined),
            };
            let function = function.map(|function| demangle(&function));
            Place {
                start: symbol.filter(|_| !inlined).map(|(_, start)| start),
                in_app: origin::is_own(&Code {
                    module: path,
                    is_executable,
                    has_rust_start,
                    function: function.as_deref(),
                    file: source.file.as_deref(),
                }),
                function,
                file: source.file,
                line: source.line,
                column: source.column,
                inlined,
            }
        })
        .collect()
}

fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_Z") || symbol.starts_with("_R")
}
