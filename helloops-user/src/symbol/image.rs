//! One ELF file: its segments, sections, build ID and symbols, and the arithmetic between file
//! offsets and virtual addresses. Read lazily from a memory map; nothing in it is trusted.
//!
//! Only 64-bit little-endian x86-64 files are read, since only such processes can be unwound.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{
    Dyn as _, FileHeader as _, NoteIterator, ProgramHeader as _, SectionHeader as _, SectionTable,
    Sym as _, SymbolTable,
};
use object::read::{CompressedFileRange, CompressionFormat};

use super::mapping::{Mapping, VDSO};
use super::open::{self, OpenError};

/// The longest build ID that is kept, in bytes. The linkers write 8 to 32.
const MAX_BUILD_ID: usize = 64;

/// Why a file cannot be read as an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be mapped or read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not an ELF file, or its headers lie outside it.
    #[error("{path} is not a complete ELF file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: object::read::Error,
    },
    /// It is an ELF file for another kind of machine.
    #[error("{path} is not a 64-bit x86 ELF file; only such files can be read")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// This process has no vDSO to read in place of another's.
    #[error("this process has no readable vDSO")]
    NoVdso,
}

/// A GNU build ID: names one build of one binary, and of the debug file that was split from it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BuildId(Box<[u8]>);

impl BuildId {
    /// The ID's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    /// Lower-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// A part of the file that is loaded into memory (`PT_LOAD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    file_offset: u64,
    address: u64,
    file_size: u64,
    executable: bool,
}

/// Which of a file's symbol tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolTableKind {
    /// `.symtab`: everything that was linked, until it is stripped.
    Full,
    /// `.dynsym`: what is exported or imported; stripping leaves it.
    Dynamic,
}

/// A function that an image defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionSymbol<'a> {
    /// Its name as in the table: mangled, with a version after `@` in some tables.
    pub name: &'a [u8],
    /// Its virtual address.
    pub address: u64,
    /// Its length in bytes; zero where the table does not say.
    pub size: u64,
    /// Whether it is visible outside its file, rather than `static`.
    pub global: bool,
    /// Whether calls go elsewhere: the code at the address only chooses among implementations
    /// (`STT_GNU_IFUNC`).
    pub indirect: bool,
}

#[derive(Debug)]
enum Data {
    Mapped(Mmap),
    /// Aligned as ELF structures must be.
    Copied(Box<[u64]>, usize),
}

impl Data {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Copied(words, length) => {
                // SAFETY: any bytes are valid `u8`s, the slice covers no more than the words, and
                // it borrows them.
                let bytes = unsafe {
                    std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8)
                };
                bytes.get(..*length).unwrap_or(bytes)
            }
        }
    }
}

/// The contents of one section.
#[derive(Debug)]
pub(super) enum Contents {
    /// They are a range of the file.
    InFile(Range<usize>),
    /// They were compressed.
    Inflated(Vec<u8>),
}

/// An ELF file, opened.
#[derive(Debug)]
pub struct Image {
    data: Data,
    path: PathBuf,
    segments: Vec<Segment>,
    build_id: Option<BuildId>,
    executable: bool,
}

impl Image {
    /// Opens the regular file at the path.
    ///
    /// # Errors
    /// It cannot be opened or mapped, or is not a 64-bit x86 ELF file with all its headers.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::from_file(&open::regular_file(path)?, path)
    }

    /// Reads an open file; `path` is for messages.
    pub(super) fn from_file(file: &File, path: &Path) -> Result<Self, ImageError> {
        // SAFETY: the map is private and only read. A file that shrinks under it raises SIGBUS on
        // access to the lost pages; `open` documents who can bring that about.
        let map = unsafe { Mmap::map(file) }.map_err(|source| ImageError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(Data::Mapped(map), path)
    }

    /// Reads an ELF file from memory; `path` is for messages.
    ///
    /// # Errors
    /// It is not a 64-bit x86 ELF file with all its headers.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, ImageError> {
        let words = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word.iter_mut()
                    .zip(chunk)
                    .for_each(|(to, from)| *to = *from);
                u64::from_ne_bytes(word)
            })
            .collect();
        Self::parse(Data::Copied(words, bytes.len()), path)
    }

    /// The vDSO of this process, which is that of every 64-bit process on this kernel.
    pub(super) fn of_vdso() -> Result<Self, ImageError> {
        let mappings = Mapping::of_process(std::process::id()).map_err(|_| ImageError::NoVdso)?;
        let vdso = mappings
            .iter()
            .find(|mapping| mapping.is_vdso())
            .ok_or(ImageError::NoVdso)?;
        let length = usize::try_from(vdso.end - vdso.start).map_err(|_| ImageError::NoVdso)?;
        let mut bytes = vec![0; length];
        File::open("/proc/self/mem")
            .and_then(|memory| memory.read_exact_at(&mut bytes, vdso.start))
            .map_err(|source| ImageError::Read {
                path: VDSO.into(),
                source,
            })?;
        Self::from_bytes(&bytes, Path::new(VDSO))
    }

    fn parse(data: Data, path: &Path) -> Result<Self, ImageError> {
        let malformed = |reason| ImageError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let bytes = data.bytes();
        let header = elf::FileHeader64::<LE>::parse(bytes).map_err(malformed)?;
        if !header.is_class_64()
            || !header.is_little_endian()
            || header.e_machine(LE) != elf::EM_X86_64
        {
            return Err(ImageError::Foreign {
                path: path.to_owned(),
            });
        }
        let program_headers = header.program_headers(LE, bytes).map_err(malformed)?;
        let segments = program_headers
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
            .map(|segment| Segment {
                file_offset: segment.p_offset(LE),
                address: segment.p_vaddr(LE),
                file_size: segment.p_filesz(LE),
                executable: segment.p_flags(LE).contains(elf::PF_X),
            })
            .collect();
        let position_independent_executable = program_headers
            .iter()
            .filter_map(|segment| segment.dynamic(LE, bytes).ok().flatten())
            .flatten()
            .any(|entry| {
                entry.d_tag(LE) == elf::DT_FLAGS_1 && entry.d_val(LE) & elf::DF_1_PIE.0 != 0
            });
        let executable = header.e_type(LE) == elf::ET_EXEC || position_independent_executable;

        // The sections come first: in a debug file the segments' offsets are those of the binary
        // that it was split from.
        let sections = header.sections(LE, bytes).unwrap_or_default();
        let build_id = sections
            .iter()
            .filter_map(|section| section.notes(LE, bytes).ok().flatten())
            .find_map(build_id)
            .or_else(|| {
                program_headers
                    .iter()
                    .filter_map(|segment| segment.notes(LE, bytes).ok().flatten())
                    .find_map(build_id)
            });
        Ok(Self {
            path: path.to_owned(),
            segments,
            build_id,
            executable,
            data,
        })
    }

    /// Where the image was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GNU build ID, where the linker wrote one.
    pub fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// Whether this is a program rather than a shared library.
    pub fn is_executable(&self) -> bool {
        self.executable
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    /// The virtual address of what is at the file offset, where a segment loads it. Neighbouring
    /// segments can share a page of the file; the executable one is meant.
    pub fn address_of_offset(&self, file_offset: u64) -> Option<u64> {
        let holds = |segment: &&Segment| {
            file_offset
                .checked_sub(segment.file_offset)
                .is_some_and(|distance| distance < segment.file_size)
        };
        let segments = || self.segments.iter().filter(holds);
        let segment = segments()
            .find(|segment| segment.executable)
            .or_else(|| segments().next())?;
        segment
            .address
            .checked_add(file_offset - segment.file_offset)
    }

    /// The file offset of the code at the virtual address; nothing where no executable segment
    /// loads anything there.
    pub fn offset_of_code(&self, address: u64) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.executable)
            .find_map(|segment| {
                let distance = address.checked_sub(segment.address)?;
                (distance < segment.file_size).then(|| segment.file_offset.checked_add(distance))?
            })
    }

    /// Up to `length` bytes of the code at the virtual address.
    pub fn code_at(&self, address: u64, length: usize) -> &[u8] {
        self.offset_of_code(address)
            .and_then(|offset| self.bytes().get(usize::try_from(offset).ok()?..))
            .map_or(&[], |bytes| bytes.get(..length).unwrap_or(bytes))
    }

    /// The bytes of the segment that holds the virtual address, from there to the segment's end,
    /// as a range of the file.
    pub(super) fn rest_of_segment(&self, address: u64) -> Option<Range<usize>> {
        self.segments.iter().find_map(|segment| {
            let distance = address.checked_sub(segment.address)?;
            let left = segment
                .file_size
                .checked_sub(distance)
                .filter(|left| *left > 0)?;
            let start = usize::try_from(segment.file_offset.checked_add(distance)?).ok()?;
            let end = start.checked_add(usize::try_from(left).ok()?)?;
            Some(start..end.min(self.bytes().len())).filter(|range| !range.is_empty())
        })
    }

    /// The virtual address of the index to `.eh_frame` (`PT_GNU_EH_FRAME`), which even a file
    /// without section headers has.
    pub(super) fn eh_frame_hdr_address(&self) -> Option<u64> {
        let header = elf::FileHeader64::<LE>::parse(self.bytes()).ok()?;
        let segments = header.program_headers(LE, self.bytes()).ok()?;
        let index = segments
            .iter()
            .find(|segment| segment.p_type(LE) == elf::PT_GNU_EH_FRAME)?;
        Some(index.p_vaddr(LE))
    }

    fn sections(&self) -> SectionTable<'_, elf::FileHeader64<LE>> {
        elf::FileHeader64::<LE>::parse(self.bytes())
            .and_then(|header| header.sections(LE, self.bytes()))
            .unwrap_or_default()
    }

    /// A section's virtual address and contents, inflated if need be. Nothing where there is no such
    /// section, it has no contents, or they would take more than `limit` bytes inflated.
    pub(super) fn section(&self, name: &str, limit: usize) -> Option<(u64, Contents)> {
        let (_, section) = self.sections().section_by_name(LE, name.as_bytes())?;
        let compression = section.compression(LE, self.bytes()).ok()?;
        let contents = match compression {
            None => {
                let (start, size) = section.file_range(LE)?;
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(size).ok()?)?;
                self.bytes().get(start..end)?;
                Contents::InFile(start..end)
            }
            Some((header, offset, compressed_size)) => {
                let uncompressed_size = header.ch_size.get(LE);
                if uncompressed_size > limit as u64 {
                    return None;
                }
                let format = match header.ch_type.get(LE) {
                    elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
                    elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
                    _ => return None,
                };
                let range = CompressedFileRange {
                    format,
                    offset,
                    compressed_size,
                    uncompressed_size,
                };
                let inflated = range.data(self.bytes()).ok()?.decompress().ok()?;
                Contents::Inflated(inflated.into_owned())
            }
        };
        Some((section.sh_addr(LE), contents))
    }

    /// The bytes of what [`Self::section`] gave.
    pub(super) fn contents<'a>(&'a self, contents: &'a Contents) -> &'a [u8] {
        match contents {
            Contents::InFile(range) => self.bytes().get(range.clone()).unwrap_or_default(),
            Contents::Inflated(bytes) => bytes,
        }
    }

    /// A section's virtual address, whether it has contents or not.
    pub(super) fn section_address(&self, name: &str) -> Option<u64> {
        let (_, section) = self.sections().section_by_name(LE, name.as_bytes())?;
        Some(section.sh_addr(LE))
    }

    /// Whether the file has such a section with contents.
    pub(super) fn has_section(&self, name: &str) -> bool {
        self.sections()
            .section_by_name(LE, name.as_bytes())
            .is_some_and(|(_, section)| section.file_range(LE).is_some_and(|(_, size)| size > 0))
    }

    /// The functions that the image defines, in the table's order; none where it lacks the table.
    /// An imported function is not defined.
    pub fn functions(
        &self,
        kind: SymbolTableKind,
    ) -> impl Iterator<Item = FunctionSymbol<'_>> + use<'_> {
        let table_type = match kind {
            SymbolTableKind::Full => elf::SHT_SYMTAB,
            SymbolTableKind::Dynamic => elf::SHT_DYNSYM,
        };
        let table: SymbolTable<'_, elf::FileHeader64<LE>> = self
            .sections()
            .symbols(LE, self.bytes(), table_type)
            .unwrap_or_default();
        let strings = table.strings();
        table.iter().filter_map(move |symbol| {
            let function = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC);
            if !function || symbol.is_undefined(LE) {
                return None;
            }
            Some(FunctionSymbol {
                name: symbol
                    .name(LE, strings)
                    .ok()
                    .filter(|name| !name.is_empty())?,
                address: symbol.st_value(LE),
                size: symbol.st_size(LE),
                global: !symbol.is_local(),
                indirect: symbol.st_type() == elf::STT_GNU_IFUNC,
            })
        })
    }
}

/// The build ID among the notes, if it is there.
fn build_id(mut notes: NoteIterator<'_, elf::FileHeader64<LE>>) -> Option<BuildId> {
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
            let id = note.desc();
            return (1..=MAX_BUILD_ID)
                .contains(&id.len())
                .then(|| BuildId(id.into()));
        }
    }
    None
}
