//! Stripped programs, with their debug information elsewhere or nowhere, or replaced.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::compile::{Workshop, objcopy};
use super::victim::{Capture, capture_at};
use super::{frame_of, functions, symbolizer};
use crate::symbol::{Image, Options, Stack, Symbolizer};

const CRASH: &str = "
__attribute__((noinline)) static int crash(volatile int *where) { return *where + 1; }
int main(void) { return crash(0) + 1; }
";

/// A crashing program without symbols, and the debug file that was split from it.
fn split(workshop: &Workshop, flags: &[&str]) -> (PathBuf, PathBuf) {
    let mut all = vec!["-O2", "-g"];
    all.extend(flags);
    let program = workshop.compile("crash.c", CRASH, &all);
    let debug_file = workshop.path("crash.debug");
    let compress = ["--only-keep-debug", "--compress-debug-sections=zlib"].map(OsStr::new);
    objcopy(&compress, &[&program, &debug_file]);
    objcopy(&[OsStr::new("--strip-all")], &[&program]);
    (program, debug_file)
}

fn stack_of(capture: &Capture, debug_directory: &Path) -> Stack {
    let options = Options {
        debug_directories: vec![debug_directory.to_owned()],
        ..Options::default()
    };
    Symbolizer::new(options).stack(&capture.mappings, &capture.registers, &capture.stack)
}

#[test]
fn a_debug_file_is_found_by_build_id() {
    let workshop = Workshop::new();
    let (program, debug_file) = split(&workshop, &["-Wl,--build-id=sha1"]);
    let image = Image::open(&program).expect("an image");
    let id = image.build_id().expect("a build ID").to_string();
    assert_eq!(id.len(), 40);
    let capture = capture_at(&program, Signal::SIGSEGV);

    let debug_directory = workshop.path("debug");
    let bare = stack_of(&capture, &debug_directory);
    assert_eq!(bare.truncated, None, "unwinding needs no debug file");
    assert_eq!(bare.frames[0].function, None);
    assert_eq!(bare.frames[0].build_id.as_deref(), Some(id.as_str()));
    let address = bare.frames[0].offset.expect("a virtual address");
    assert_eq!(
        image.address_of_offset(image.offset_of_code(address).expect("code")),
        Some(address)
    );

    let home = debug_directory.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&home).expect("a directory");
    fs::rename(&debug_file, home.join(format!("{}.debug", &id[2..]))).expect("the file is moved");
    let stack = stack_of(&capture, &debug_directory);
    let crash = frame_of(&stack, "crash");
    assert_eq!(crash.line, Some(2));
    assert_eq!(frame_of(&stack, "main").line, Some(3));
    assert!(crash.in_app);
}

#[test]
fn a_debug_file_is_found_by_link_only_if_its_checksum_is_right() {
    let workshop = Workshop::new();
    let (program, debug_file) = split(&workshop, &["-Wl,--build-id=none"]);
    let link = format!("--add-gnu-debuglink={}", debug_file.display());
    objcopy(&[OsStr::new(&link)], &[&program]);
    let capture = capture_at(&program, Signal::SIGSEGV);
    let nowhere = workshop.path("nowhere");
    let stack = stack_of(&capture, &nowhere);
    assert_eq!(frame_of(&stack, "crash").line, Some(2));

    let mut other = fs::read(&debug_file).expect("the debug file");
    other.push(0);
    fs::write(&debug_file, other).expect("the debug file is changed");
    assert_eq!(stack_of(&capture, &nowhere).frames[0].function, None);
}

#[test]
fn a_file_that_replaced_the_mapped_one_is_not_used() {
    let workshop = Workshop::new();
    let program = workshop.compile("crash.c", CRASH, &["-O2", "-g"]);
    let capture = capture_at(&program, Signal::SIGSEGV);
    let copy = workshop.path("copy");
    fs::copy(&program, &copy).expect("a copy");
    fs::rename(&copy, &program).expect("the program is replaced");
    let stack = symbolizer().stack(&capture.mappings, &capture.registers, &capture.stack);
    assert_eq!(functions(&stack), ["?"]);
    assert_eq!(stack.frames[0].module.as_deref(), Some(program.as_path()));
    let reason = stack.truncated.expect("a reason");
    assert!(
        reason.contains("is not the file that the process has mapped"),
        "{reason}"
    );
}

#[test]
fn a_file_that_was_already_open_serves_when_it_is_gone() {
    let workshop = Workshop::new();
    let program = workshop.compile("crash.c", CRASH, &["-O2", "-g"]);
    let capture = capture_at(&program, Signal::SIGSEGV);
    let mut symbolizer = symbolizer();
    let before = symbolizer.stack(&capture.mappings, &capture.registers, &capture.stack);
    fs::remove_file(&program).expect("the program is removed");
    let after = symbolizer.stack(&capture.mappings, &capture.registers, &capture.stack);
    assert_eq!(before, after);
    frame_of(&after, "crash");
}
