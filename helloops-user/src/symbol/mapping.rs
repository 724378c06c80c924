//! Which file is mapped where in a process: the executable lines of `/proc/PID/maps`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The path that stands for the vDSO, the code that the kernel maps into every process.
pub const VDSO: &str = "[vdso]";

/// What the kernel appends to the path of a file that has no name any more.
const DELETED: &str = " (deleted)";

/// One executable mapping of a process: a line of `/proc/PID/maps` with `x` permission, or a
/// `PERF_RECORD_MMAP2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// The offset in the file, in bytes, of what is mapped at `start`.
    pub file_offset: u64,
    /// The file as the process names it, without a trailing ` (deleted)`; `[vdso]` for the vDSO;
    /// empty for anonymous memory.
    pub path: PathBuf,
    /// The major and minor number of the file's device; zero where there is no file.
    pub device: (u32, u32),
    /// The file's inode number; zero where there is no file.
    pub inode: u64,
    /// Whether the file had lost its name when the mapping was read.
    pub deleted: bool,
    /// Where to open the file rather than at `path`, which holds in the process's own mount
    /// namespace only, and only while nobody replaces it.
    pub open_as: Option<PathBuf>,
}

impl Mapping {
    /// The executable mappings of a running process, in the order of their addresses.
    ///
    /// # Errors
    /// What reading `/proc/PID/maps` gives: the process is gone, or is not ours to read.
    pub fn of_process(pid: u32) -> io::Result<Vec<Self>> {
        let text = fs::read(format!("/proc/{pid}/maps"))?;
        let mut mappings = Self::parse_maps(&String::from_utf8_lossy(&text));
        for mapping in &mut mappings {
            if mapping.inode != 0 {
                // A link to the very file that is mapped, whatever its name has become.
                let link = format!(
                    "/proc/{pid}/map_files/{:x}-{:x}",
                    mapping.start, mapping.end
                );
                mapping.open_as = Some(PathBuf::from(link));
            }
        }
        Ok(mappings)
    }

    /// The executable mappings in the text of a `maps` file; lines that are not in its format are
    /// left out. The kernel writes a newline in a file's name as `\012`, so that a name cannot
    /// forge a line (`seq_file_path` with `"\n"`, fs/proc/task_mmu.c).
    pub fn parse_maps(text: &str) -> Vec<Self> {
        text.lines().filter_map(parse_line).collect()
    }

    /// Whether the address lies in this mapping.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether this is the vDSO.
    pub fn is_vdso(&self) -> bool {
        self.path == Path::new(VDSO)
    }

    /// The offset in the file of what is mapped at the address.
    pub(super) fn offset_of(&self, address: u64) -> u64 {
        address
            .wrapping_sub(self.start)
            .wrapping_add(self.file_offset)
    }
}

/// The mapping that holds the address, if one does.
pub(super) fn find(mappings: &[Mapping], address: u64) -> Option<&Mapping> {
    mappings.iter().find(|mapping| mapping.contains(address))
}

/// `start-end perms offset major:minor inode`, spaces, and the path up to the end of the line.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        field
    };
    let (start, end) = field().split_once('-')?;
    let permissions = field();
    let file_offset = field();
    let (major, minor) = field().split_once(':')?;
    let inode = field();
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let name = rest.trim_start_matches(' ');
    let (name, deleted) = match name.strip_suffix(DELETED) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let hexadecimal = |digits| u64::from_str_radix(digits, 16).ok();
    let mapping = Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        file_offset: hexadecimal(file_offset)?,
        path: PathBuf::from(name.replace("\\012", "\n")),
        device: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode: inode.parse().ok()?,
        deleted,
        open_as: None,
    };
    (mapping.start < mapping.end).then_some(mapping)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPS: &str = "\
55d0c8a00000-55d0c8a02000 r--p 00000000 fe:01 1234                       /srv/shop
55d0c8a02000-55d0c8a06000 r-xp 00002000 fe:01 1234                       /srv/shop
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 
7f0000001000-7f0000002000 r-xp 00001000 fe:01 99                         /srv/a b\\012c (deleted)
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
not a mapping at all
";

    #[test]
    fn keeps_the_executable_lines_and_reads_each_field() {
        let mappings = Mapping::parse_maps(MAPS);
        assert_eq!(mappings.len(), 4);
        assert_eq!(
            mappings[0],
            Mapping {
                start: 0x55d0_c8a0_2000,
                end: 0x55d0_c8a0_6000,
                file_offset: 0x2000,
                path: "/srv/shop".into(),
                device: (0xfe, 1),
                inode: 1234,
                deleted: false,
                open_as: None,
            }
        );
        assert_eq!(mappings[1].path, Path::new(""));
        assert_eq!(mappings[2].path, Path::new("/srv/a b\nc"));
        assert!(mappings[2].deleted);
        assert!(mappings[3].is_vdso());
        assert_eq!(
            find(&mappings, 0x55d0_c8a0_3010).map(|m| m.offset_of(0x55d0_c8a0_3010)),
            Some(0x3010)
        );
        assert_eq!(find(&mappings, 0x55d0_c8a0_6000), None);
    }

    #[test]
    fn finds_this_very_code_among_the_mappings_of_this_process() {
        let mappings = Mapping::of_process(std::process::id()).expect("own maps");
        let here = find(
            &mappings,
            finds_this_very_code_among_the_mappings_of_this_process as *const () as u64,
        );
        let here = here.expect("a mapping holds this function");
        assert_eq!(here.path, std::env::current_exe().expect("own path"));
        assert!(here.open_as.as_ref().is_some_and(|link| link.exists()));
    }

    proptest! {
        #[test]
        fn any_text_parses_to_well_formed_mappings(text in "[0-9a-f\\-rwxp: /\\n()del]{0,300}") {
            for mapping in Mapping::parse_maps(&text) {
                prop_assert!(mapping.start < mapping.end);
            }
        }
    }
}
