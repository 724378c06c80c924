//! Finds an image's call frame information for an address: which row of which table says where
//! the caller's registers are.
//!
//! Tables: `.eh_frame`, which exceptions need and nobody strips, and `.debug_frame`, which Go
//! writes instead. The linker's sorted index to the former is `.eh_frame_hdr`; where it is missing
//! or in an unusual form, an index is built on first use.

use std::cell::OnceCell;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindContext, UnwindOffset, UnwindSection, UnwindTableRow,
};

use super::image::{Contents, Image};

/// How gimli reads a section.
pub(super) type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// The largest `.debug_frame` that is inflated, in bytes.
const MAX_INFLATED: usize = 256 << 20;

/// The form in which every linker writes `.eh_frame_hdr`: version 1, a PC-relative 32-bit pointer
/// to `.eh_frame`, a 32-bit count, and a table of 32-bit offsets from the header (Linux Standard
/// Base 5.0, Core, 10.6.2).
const USUAL_HEADER: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// One table of call frame information.
#[derive(Debug)]
struct Table {
    contents: Contents,
    /// Start address and offset in the section of each entry, by address.
    index: OnceCell<Vec<(u64, usize)>>,
}

impl Table {
    fn new(contents: Contents) -> Self {
        Self {
            contents,
            index: OnceCell::new(),
        }
    }
}

/// The call frame information of one image.
#[derive(Debug)]
pub(super) struct Cfi {
    eh_frame: Option<Table>,
    /// The linker's index to `eh_frame`, with its virtual address.
    eh_frame_hdr: Option<(u64, Contents)>,
    debug_frame: Option<Table>,
    bases: BaseAddresses,
}

/// One row of a table, with what evaluating it needs.
pub(super) struct Row<'row, S> {
    pub(super) section: S,
    pub(super) rules: &'row UnwindTableRow<usize>,
    pub(super) encoding: gimli::Encoding,
    pub(super) return_address: gimli::Register,
    /// Whether the code is a signal handler's return trampoline, so that the caller was interrupted
    /// rather than in a call.
    pub(super) is_signal_frame: bool,
}

/// What a caller does with the row that [`Cfi::with_row`] finds, whichever section it is in.
pub(super) trait UseRow {
    /// What comes of it.
    type Output;
    /// Uses the row.
    fn use_row<'a, S: UnwindSection<Reader<'a>>>(self, row: &Row<'_, S>) -> Self::Output;
}

impl Cfi {
    /// Locates the image's tables; cheap, nothing is parsed.
    pub(super) fn of(image: &Image) -> Self {
        let mut bases = BaseAddresses::default();
        if let Some(text) = image.section_address(".text") {
            bases = bases.set_text(text);
        }
        if let Some(got) = image.section_address(".got") {
            bases = bases.set_got(got);
        }
        let eh_frame_hdr = image
            .eh_frame_hdr_address()
            .and_then(|address| Some((address, Contents::InFile(image.rest_of_segment(address)?))));
        let eh_frame = image.section(".eh_frame", MAX_INFLATED).or_else(|| {
            // Without section headers, the index says where the table begins.
            let (address, header) = eh_frame_hdr.as_ref()?;
            let header = Header::parse(*address, image.contents(header))?;
            Some((
                header.eh_frame,
                Contents::InFile(image.rest_of_segment(header.eh_frame)?),
            ))
        });
        if let Some((address, _)) = &eh_frame {
            bases = bases.set_eh_frame(*address);
        }
        Self {
            eh_frame: eh_frame.map(|(_, contents)| Table::new(contents)),
            eh_frame_hdr,
            debug_frame: image
                .section(".debug_frame", MAX_INFLATED)
                .map(|(_, contents)| Table::new(contents)),
            bases,
        }
    }

    /// Passes the row for the virtual address to `consumer`; nothing where no table covers it.
    pub(super) fn with_row<U: UseRow>(
        &self,
        image: &Image,
        address: u64,
        context: &mut UnwindContext<usize>,
        consumer: U,
    ) -> Option<U::Output> {
        if let Some(table) = &self.eh_frame {
            let mut section = EhFrame::new(image.contents(&table.contents), LittleEndian);
            section.set_address_size(8);
            let entry = match self.header(image) {
                Some(header) => header
                    .entry_for(address)
                    .and_then(|offset| self.entry_at(&section, offset, address)),
                None => self.indexed_entry(table, &section, address),
            };
            if let Some(entry) = entry {
                return self.use_row(section, &entry, address, context, consumer);
            }
        }
        let table = self.debug_frame.as_ref()?;
        let mut section = DebugFrame::new(image.contents(&table.contents), LittleEndian);
        section.set_address_size(8);
        let entry = self.indexed_entry(table, &section, address)?;
        self.use_row(section, &entry, address, context, consumer)
    }

    fn header<'a>(&self, image: &'a Image) -> Option<Header<'a>> {
        let (address, contents) = self.eh_frame_hdr.as_ref()?;
        let Contents::InFile(range) = contents else {
            return None;
        };
        Header::parse(*address, image.bytes().get(range.clone())?)
    }

    fn entry_at<'a, S: UnwindSection<Reader<'a>>>(
        &self,
        section: &S,
        offset: usize,
        address: u64,
    ) -> Option<FrameDescriptionEntry<Reader<'a>>> {
        let entry = section
            .fde_from_offset(&self.bases, offset.into(), S::cie_from_offset)
            .ok()?;
        entry.contains(address).then_some(entry)
    }

    fn indexed_entry<'a, S: UnwindSection<Reader<'a>>>(
        &self,
        table: &Table,
        section: &S,
        address: u64,
    ) -> Option<FrameDescriptionEntry<Reader<'a>>> {
        let index = table.index.get_or_init(|| self.build_index(section));
        let after = index.partition_point(|(start, _)| *start <= address);
        let (_, offset) = index.get(after.checked_sub(1)?)?;
        self.entry_at(section, *offset, address)
    }

    fn build_index<'a, S: UnwindSection<Reader<'a>>>(&self, section: &S) -> Vec<(u64, usize)> {
        let mut index = Vec::new();
        let mut entries = section.entries(&self.bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else {
                continue;
            };
            if let Ok(entry) = partial.parse(S::cie_from_offset) {
                index.push((entry.initial_address(), entry.offset()));
            }
        }
        index.sort_unstable();
        index
    }

    fn use_row<'a, S: UnwindSection<Reader<'a>>, U: UseRow>(
        &self,
        section: S,
        entry: &FrameDescriptionEntry<Reader<'a>>,
        address: u64,
        context: &mut UnwindContext<usize>,
        consumer: U,
    ) -> Option<U::Output>
    where
        S::Offset: UnwindOffset<usize>,
    {
        let rules = entry
            .unwind_info_for_address(&section, &self.bases, context, address)
            .ok()?;
        Some(consumer.use_row(&Row {
            rules,
            encoding: entry.cie().encoding(),
            return_address: entry.cie().return_address_register(),
            is_signal_frame: entry.is_signal_trampoline(),
            section,
        }))
    }
}

/// `.eh_frame_hdr` in its usual form. Read here rather than by gimli, whose search trusts the count
/// and the pointers.
struct Header<'a> {
    /// The header's own virtual address, from which the table counts.
    address: u64,
    /// The virtual address of `.eh_frame`.
    eh_frame: u64,
    /// Pairs of a function's start and its entry, sorted, relative to `address`.
    pairs: &'a [[u8; 8]],
}

impl<'a> Header<'a> {
    fn parse(address: u64, bytes: &'a [u8]) -> Option<Self> {
        let (form, bytes) = bytes.split_first_chunk::<4>()?;
        let (eh_frame, bytes) = bytes.split_first_chunk::<4>()?;
        let (count, bytes) = bytes.split_first_chunk::<4>()?;
        if *form != USUAL_HEADER {
            return None;
        }
        let (pairs, _) = bytes.as_chunks::<8>();
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        Some(Self {
            address,
            eh_frame: address
                .wrapping_add(4)
                .wrapping_add_signed(i64::from(i32::from_le_bytes(*eh_frame))),
            pairs: pairs.get(..count)?,
        })
    }

    /// The offset in `.eh_frame` of the entry that covers the address if any does.
    fn entry_for(&self, address: u64) -> Option<usize> {
        let absolute = |offset: [u8; 4]| {
            self.address
                .wrapping_add_signed(i64::from(i32::from_le_bytes(offset)))
        };
        let split =
            |[a, b, c, d, e, f, g, h]: [u8; 8]| (absolute([a, b, c, d]), absolute([e, f, g, h]));
        let after = self.pairs.partition_point(|pair| split(*pair).0 <= address);
        let (_, entry) = split(*self.pairs.get(after.checked_sub(1)?)?);
        usize::try_from(entry.checked_sub(self.eh_frame)?).ok()
    }
}
