//! Reads structure layouts from BTF, the kernel's type information
//! (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

use std::{fs, path::Path};

/// `BTF_MAGIC`, in this machine's byte order.
const MAGIC: u16 = 0xeb9f;

/// Kinds of types (`BTF_KIND_*`) that are followed by more words, and those looked for.
mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
    /// The last one that is known (Linux 6.18).
    pub const LAST: u32 = ENUM64;
}

/// How deep anonymous structures and unions may nest; the kernel's do a few levels.
const DEPTH: u32 = 16;

/// Types of a kernel.
#[derive(Debug)]
pub struct Types {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins; type id 1 is at index 0.
    places: Vec<usize>,
}

/// A type's fixed part.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// How many members or other parts follow.
    parts: usize,
    /// Whether members' offsets also hold a bit field's size.
    has_bit_fields: bool,
    /// Where what follows begins.
    rest: usize,
}

impl Types {
    /// Reads a file of raw BTF. The error is a text for people.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Self::parse(bytes).ok_or_else(|| "not a complete BTF file".to_owned())
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let field = |at: usize| word(&bytes, at).and_then(|value| usize::try_from(value).ok());
        let (header, types, types_length) = (field(4)?, field(8)?, field(12)?);
        let strings = header.checked_add(field(16)?)?;
        let mut at = header.checked_add(types)?;
        let end = at.checked_add(types_length)?;
        let mut places = Vec::new();
        while at < end {
            places.push(at);
            let found = type_at(&bytes, at)?;
            at = found.rest.checked_add(following_bytes(&found)?)?;
        }
        Some(Self {
            bytes,
            strings,
            places,
        })
    }

    /// The byte offset of a field in a structure, also of one in anonymous structures and unions
    /// within it.
    pub fn field_offset(&self, structure: &str, field: &str) -> Option<u32> {
        self.places
            .iter()
            .filter_map(|place| type_at(&self.bytes, *place))
            .filter(|found| found.kind == kind::STRUCT && self.is_named(found.name, structure))
            .find_map(|found| self.member_offset(&found, field, 0, 0))
    }

    fn member_offset(&self, structure: &Type, field: &str, base: u32, depth: u32) -> Option<u32> {
        if depth > DEPTH {
            return None;
        }
        (0..structure.parts).find_map(|n| {
            let at = structure.rest + n * 12;
            let (name, id) = (word(&self.bytes, at)?, word(&self.bytes, at + 4)?);
            let bits = word(&self.bytes, at + 8)?;
            let bits = if structure.has_bit_fields {
                bits & 0xff_ffff
            } else {
                bits
            };
            let offset = base.checked_add(bits / 8)?;
            if self.is_named(name, field) {
                return Some(offset);
            }
            if !self.is_named(name, "") {
                return None;
            }
            let place = self.places.get(usize::try_from(id).ok()?.checked_sub(1)?)?;
            let inner = type_at(&self.bytes, *place)?;
            match inner.kind {
                kind::STRUCT | kind::UNION => self.member_offset(&inner, field, offset, depth + 1),
                _ => None,
            }
        })
    }

    /// Whether the NUL-terminated text at an offset of the string section is this one.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        let start = self.strings.saturating_add(offset as usize);
        let end = start.saturating_add(name.len());
        self.bytes.get(start..end) == Some(name.as_bytes()) && self.bytes.get(end) == Some(&0)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|word| u32::from_ne_bytes(*word))
}

fn type_at(bytes: &[u8], at: usize) -> Option<Type> {
    let info = word(bytes, at.checked_add(4)?)?;
    Some(Type {
        name: word(bytes, at)?,
        kind: info >> 24 & 0x1f,
        parts: (info & 0xffff) as usize,
        has_bit_fields: info >> 31 != 0,
        rest: at.checked_add(12)?,
    })
}

/// How many bytes follow a type's fixed part. `None` for a kind that is not known, behind which
/// nothing can be found.
fn following_bytes(found: &Type) -> Option<usize> {
    Some(match found.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => found.parts * 12,
        kind::ENUM | kind::FUNC_PROTO => found.parts * 8,
        other if other <= kind::LAST => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_in_anonymous_structures_are_found() {
        let types = Types::read(Path::new("/sys/kernel/btf/vmlinux")).unwrap();
        let offset = |structure, field| types.field_offset(structure, field);
        // Its first member since Linux 4.9 (include/linux/sched.h, CONFIG_THREAD_INFO_IN_TASK).
        assert_eq!(offset("task_struct", "thread_info"), Some(0));
        // Two neighbours of four bytes.
        assert_eq!(
            offset("task_struct", "pid").unwrap() + 4,
            offset("task_struct", "tgid").unwrap()
        );
        // Behind an anonymous structure that holds all of mm_struct but its end.
        assert!(offset("mm_struct", "start_stack").unwrap() > 0);
        assert_eq!(offset("task_struct", "no_such_field"), None);
        assert_eq!(offset("no_such_structure", "pid"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_types_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(magic) = bytes.first_chunk_mut() {
                *magic = MAGIC.to_ne_bytes();
            }
            if let Some(header) = bytes.get_mut(4..20) {
                header.copy_from_slice(&[24, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0]);
            }
            if let Some(types) = Types::parse(bytes) {
                types.field_offset("a", "b");
            }
        }
    }
}
