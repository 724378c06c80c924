//! Files, stacks and registers that someone made up: whatever they hold, there is an answer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;

use super::compile::Workshop;
use super::symbolizer;
use crate::symbol::{CodeAddress, Image, Mapping, Registers, StackCopy};

/// A small program with everything that is read: symbols, unwind tables, DWARF with inlining.
static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let source = "
        static inline __attribute__((always_inline)) int twice(int n) { return n * 2; }
        __attribute__((noinline)) int work(volatile int *n) { return twice(*n) + twice(n[1]); }
        int main(int argc, char **argv) { return work((int *)argv) + argc; }
    ";
    let program = Workshop::new();
    fs::read(program.compile("small.c", source, &["-O2", "-g"])).expect("a program")
});

fn mapping_of(path: &Path) -> Mapping {
    let metadata = fs::metadata(path).expect("the file");
    Mapping {
        start: 0x5000_0000,
        end: 0x5010_0000,
        file_offset: 0,
        path: path.to_owned(),
        device: (libc::major(metadata.dev()), libc::minor(metadata.dev())),
        inode: metadata.ino(),
        deleted: false,
        open_as: None,
    }
}

/// Unwinds from an offset in the file, and symbolizes a spread of others.
fn exercise(path: &Path, offset: u64, words: &[u64]) {
    let mappings = [mapping_of(path)];
    let base = 0x7ff0_0000_0000;
    let stack = StackCopy {
        base,
        bytes: words.iter().flat_map(|w| w.to_le_bytes()).collect(),
    };
    let registers = Registers {
        ip: 0x5000_0000 + offset,
        sp: base,
        bp: base + 16,
        ..Default::default()
    };
    let mut symbolizer = symbolizer();
    let stack = symbolizer.stack(&mappings, &registers, &stack);
    assert!(!stack.frames.is_empty());
    let spread: Vec<_> = (0..24)
        .map(|n| CodeAddress::Return(0x5000_1000 + n * 24))
        .collect();
    assert!(symbolizer.symbolize(&mappings, &spread).len() >= spread.len());
}

fn file_with(workshop: &Workshop, bytes: &[u8]) -> PathBuf {
    let path = workshop.path("file");
    fs::write(&path, bytes).expect("the file is written");
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_programs_are_survived(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..64),
        headers in prop::collection::vec((0_usize..1024, any::<u8>()), 0..4),
        kept in prop_oneof![3 => Just(1.0), 1 => 0.0..1.0_f64],
        offset in 0x1000_u64..0x1300,
        words in prop::collection::vec(
            prop_oneof![any::<u64>(), 0x5000_1000_u64..0x5000_1300, 0x7ff0_0000_0000_u64..0x7ff0_0000_0100],
            0..64,
        ),
    ) {
        let mut bytes = PROGRAM.clone();
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        for (index, byte) in headers {
            bytes[index] = byte;
        }
        bytes.truncate((bytes.len() as f64 * kept) as usize);
        let workshop = Workshop::new();
        exercise(&file_with(&workshop, &bytes), offset, &words);
    }

    #[test]
    fn random_bytes_are_no_image(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(Image::from_bytes(&bytes, Path::new("random")).is_err());
    }

    #[test]
    fn random_stacks_of_a_sound_program_unwind_to_an_end(
        offset in 0x1000_u64..0x1300,
        words in prop::collection::vec(
            prop_oneof![any::<u64>(), 0x5000_1000_u64..0x5000_1300], 0..512),
    ) {
        let workshop = Workshop::new();
        exercise(&file_with(&workshop, &PROGRAM), offset, &words);
    }
}

#[test]
fn a_pipe_or_device_is_never_opened() {
    let workshop = Workshop::new();
    let pipe = workshop.path("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    for path in [&pipe, Path::new("/dev/zero"), Path::new("/")] {
        let stack =
            symbolizer().symbolize(&[mapping_of(path)], &[CodeAddress::Return(0x5000_1000)]);
        assert_eq!(stack.len(), 1);
        assert_eq!(stack[0].function, None);
        assert!(Image::open(path).is_err());
    }
}
