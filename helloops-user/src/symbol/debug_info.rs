//! An image's DWARF, and where it is when it is not in the image itself: a separate debug file,
//! found by build ID or by `.gnu_debuglink` (as gdb does: "Debugging Information in Separate Files"
//! in its manual), with the parts that `dwz` shares between such files.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use gimli::{Dwarf, LittleEndian, SectionId};

use super::Options;
use super::cfi::Reader;
use super::image::{Contents, Image};

/// The deepest nesting of debugging entries that is accepted. Compilers stay below 100; the reader
/// takes stack for each level.
const MAX_NESTING: isize = 512;

/// Where in the source an address is, innermost inlined function first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFrame {
    /// The function's symbol, or its plain name where it has none.
    pub(super) function: Option<String>,
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

/// The DWARF of one image, parsed as far as it was needed.
pub(super) struct DebugInfo {
    /// Borrows from `sections`, and so is declared, and dropped, before it.
    context: addr2line::Context<Reader<'static>>,
    #[expect(dead_code, reason = "keeps alive what the context borrows")]
    sections: Vec<LoadedSection>,
}

impl fmt::Debug for DebugInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugInfo").finish_non_exhaustive()
    }
}

/// A section's contents, with the image that they may be a part of.
struct LoadedSection {
    image: Arc<Image>,
    contents: Contents,
}

impl DebugInfo {
    /// Loads the DWARF of an image that has some.
    pub(super) fn of(image: &Arc<Image>, options: &Options) -> Option<Self> {
        let mut sections = Vec::new();
        let mut dwarf = load(image, options, &mut sections)?;
        if let Some(shared) = locate_shared(image, options) {
            dwarf.set_sup(load(&Arc::new(shared), options, &mut sections)?);
        }
        if !nests_sanely(&dwarf) {
            return None;
        }
        Some(Self {
            context: addr2line::Context::from_dwarf(dwarf).ok()?,
            sections,
        })
    }

    /// The functions at the virtual address: the innermost inlined one first, the one that they
    /// were all inlined into last. Empty where nothing is known.
    pub(super) fn find(&self, address: u64) -> Vec<SourceFrame> {
        let mut found = Vec::new();
        if address == u64::MAX {
            return found;
        }
        // Code that was compiled with split debug information stays without: its files are named by
        // the binary, which is not trusted to name files for us to open.
        let Ok(mut frames) = self.context.find_frames(address).skip_all_loads() else {
            return found;
        };
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            found.push(SourceFrame {
                function: frame
                    .function
                    .as_ref()
                    .and_then(|function| Some(function.raw_name().ok()?.into_owned())),
                file: location
                    .and_then(|location| location.file)
                    .map(PathBuf::from),
                line: location
                    .and_then(|location| location.line)
                    .filter(|line| *line > 0),
                column: location
                    .and_then(|location| location.column)
                    .filter(|column| *column > 0),
            });
        }
        found
    }
}

/// Loads all sections of an image, keeping what the result borrows in `sections`.
fn load(
    image: &Arc<Image>,
    options: &Options,
    sections: &mut Vec<LoadedSection>,
) -> Option<Dwarf<Reader<'static>>> {
    let mut budget = options.inflated_bytes;
    Dwarf::load(|id: SectionId| {
        let Some((_, contents)) = image.section(id.name(), budget) else {
            return Ok::<_, gimli::Error>(Reader::new(&[], LittleEndian));
        };
        if let Contents::Inflated(bytes) = &contents {
            budget -= bytes.len().min(budget);
        }
        let section = LoadedSection {
            image: Arc::clone(image),
            contents,
        };
        let bytes = section.image.contents(&section.contents);
        // SAFETY: the bytes are in a memory map or heap block that `section` owns, which neither
        // moves nor changes as `section` itself is moved. Whoever gets the reader keeps `sections`
        // for as long: `DebugInfo` holds both, drops the reader first, and lends neither out.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        sections.push(section);
        Ok(Reader::new(bytes, LittleEndian))
    })
    .ok()
}

/// Whether no entry lies deeper than [`MAX_NESTING`].
fn nests_sanely(dwarf: &Dwarf<Reader<'_>>) -> bool {
    let mut units = dwarf.units();
    while let Ok(Some(unit)) = units.next() {
        let Ok(abbreviations) = unit.abbreviations(&dwarf.debug_abbrev) else {
            continue;
        };
        let Ok(mut entries) = unit.entries_raw(&abbreviations, None) else {
            continue;
        };
        while !entries.is_empty() {
            if entries.next_depth() > MAX_NESTING {
                return false;
            }
            let skipped = entries
                .read_abbreviation()
                .and_then(|abbreviation| match abbreviation {
                    Some(abbreviation) => entries.skip_attributes(abbreviation.attributes()),
                    None => Ok(()),
                });
            if skipped.is_err() {
                break;
            }
        }
    }
    true
}

/// The separate debug file of an image.
///
/// Only a file with the image's build ID is taken; without one, a file with the checksum that the
/// image names.
pub(super) fn locate(image: &Image, options: &Options) -> Option<Image> {
    let same_build = |candidate: &Image| candidate.build_id() == image.build_id();
    if image.build_id().is_some() {
        let by_id = by_build_id(image.build_id()?.bytes(), options)
            .into_iter()
            .filter_map(|path| Image::open(&path).ok())
            .find(same_build);
        if by_id.is_some() {
            return by_id;
        }
    }
    let (name, checksum) = debug_link(image)?;
    by_link(&name, image.path(), options)
        .into_iter()
        .filter_map(|path| Image::open(&path).ok())
        .find(|candidate| match image.build_id() {
            Some(_) => same_build(candidate),
            None => crc32fast::hash(candidate.bytes()) == checksum,
        })
}

/// `.build-id/ab/cdef….debug` in each debug directory.
fn by_build_id(id: &[u8], options: &Options) -> Vec<PathBuf> {
    let Some((first, rest)) = id.split_first() else {
        return Vec::new();
    };
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let relative = format!(".build-id/{first:02x}/{rest}.debug");
    options
        .debug_directories
        .iter()
        .map(|directory| directory.join(&relative))
        .collect()
}

/// Next to the binary, in `.debug` there, and in the same place below each debug directory.
fn by_link(name: &Path, binary: &Path, options: &Options) -> Vec<PathBuf> {
    let Some(directory) = binary.parent().filter(|directory| directory.is_absolute()) else {
        return Vec::new();
    };
    let below_root = directory.strip_prefix("/").unwrap_or(directory);
    let mut candidates = vec![directory.join(name), directory.join(".debug").join(name)];
    candidates.extend(
        options
            .debug_directories
            .iter()
            .map(|root| root.join(below_root).join(name)),
    );
    candidates
}

/// `.gnu_debuglink`: a file name, padded to four bytes, and the file's CRC-32.
fn debug_link(image: &Image) -> Option<(PathBuf, u32)> {
    let (_, contents) = image.section(".gnu_debuglink", 0)?;
    let bytes = image.contents(&contents);
    let length = memchr::memchr(0, bytes)?;
    let name = Path::new(OsStr::from_bytes(bytes.get(..length)?));
    // A name, not a path that leads elsewhere.
    let mut components = name.components();
    let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
        return None;
    };
    let checksum = bytes
        .get((length + 1).next_multiple_of(4)..)?
        .first_chunk::<4>()?;
    Some((name.to_owned(), u32::from_le_bytes(*checksum)))
}

/// The file that `dwz` moved common parts of debug files to (`.gnu_debugaltlink`: a path and a
/// build ID).
fn locate_shared(image: &Image, options: &Options) -> Option<Image> {
    let (_, contents) = image.section(".gnu_debugaltlink", 0)?;
    let bytes = image.contents(&contents);
    let length = memchr::memchr(0, bytes)?;
    let name = Path::new(OsStr::from_bytes(bytes.get(..length)?)).file_name()?;
    let id = bytes.get(length + 1..)?;
    // The path is relative to the debug file as distributions install it, that is, it leads to
    // `.dwz` in the debug directory; what it says beyond that is not followed.
    let in_dwz = options.debug_directories.iter().flat_map(|root| {
        let root = root.join(".dwz");
        [
            root.join(format!("{}-linux-gnu", std::env::consts::ARCH))
                .join(name),
            root.join(name),
        ]
    });
    by_build_id(id, options)
        .into_iter()
        .chain(in_dwz)
        .filter_map(|path| Image::open(&path).ok())
        .find(|candidate| {
            candidate
                .build_id()
                .is_some_and(|found| found.bytes() == id)
        })
}
