//! An image's functions by address.

use memchr::memmem;

use super::image::{Image, SymbolTableKind};

/// How many symbols before an address are looked at for one that holds it: aliases, and short
/// functions within long ones in hand-written assembly.
const CANDIDATES: usize = 16;

/// A function and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    address: u64,
    /// The offset in the file of its name, which a zero byte ends.
    name: u64,
    /// In bytes; zero where the table does not say.
    size: u32,
    global: bool,
}

/// The functions of one image, sorted by address. It holds no names, but where in the image they
/// are.
#[derive(Debug, Default)]
pub(super) struct SymbolIndex {
    entries: Vec<Entry>,
    has_rust_start: bool,
}

impl SymbolIndex {
    /// Indexes the full symbol table of an image, or what it exports if it has none.
    pub(super) fn of(image: &Image) -> Self {
        let mut index = Self::default();
        index.add(image, SymbolTableKind::Full);
        if index.entries.is_empty() {
            index.add(image, SymbolTableKind::Dynamic);
        }
        // Of two names for one address, the exported one comes last, and so is found first.
        index
            .entries
            .sort_by_key(|entry| (entry.address, entry.global));
        index.entries.shrink_to_fit();
        index
    }

    fn add(&mut self, image: &Image, table: SymbolTableKind) {
        let rust_start = memmem::Finder::new("lang_start");
        let file = image.bytes().as_ptr() as usize;
        for function in image.functions(table) {
            self.has_rust_start |= rust_start.find(function.name).is_some();
            self.entries.push(Entry {
                address: function.address,
                // The name is a part of the file's bytes.
                name: (function.name.as_ptr() as usize).saturating_sub(file) as u64,
                size: u32::try_from(function.size).unwrap_or(u32::MAX),
                global: function.global,
            });
        }
    }

    /// The function that holds the virtual address: its name as in the table, and its start. One
    /// without a size reaches up to the next. `image` is what was indexed.
    pub(super) fn find<'a>(&self, image: &'a Image, address: u64) -> Option<(&'a [u8], u64)> {
        let after = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let before = self.entries.get(..after)?;
        let nearest = before.last()?.address;
        let entry = before
            .iter()
            .rev()
            .take(CANDIDATES)
            .find(|entry| match entry.size {
                0 => entry.address == nearest,
                size => address - entry.address < u64::from(size),
            })?;
        let name = image.bytes().get(usize::try_from(entry.name).ok()?..)?;
        Some((name.get(..memchr::memchr(0, name)?)?, entry.address))
    }

    /// Whether the image is a Rust program, whose `main` is the compiler's and not the user's.
    pub(super) fn has_rust_start(&self) -> bool {
        self.has_rust_start
    }
}
