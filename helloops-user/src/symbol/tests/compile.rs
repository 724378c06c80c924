//! Compiles victims for tests.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A directory of compiled programs that goes away with it.
pub(crate) struct Workshop {
    directory: TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a source file and compiles it to a program of the source's name without extension.
    pub(crate) fn compile(&self, source_name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let source_path = self.path(source_name);
        fs::write(&source_path, source).expect("a source file is written");
        let program = source_path.with_extension("");
        let compiler = match source_path.extension().and_then(OsStr::to_str) {
            Some("rs") => "rustc",
            Some("cpp") => "g++",
            _ => "gcc",
        };
        run(
            compiler,
            flags.iter().map(OsStr::new).chain([
                source_path.as_os_str(),
                OsStr::new("-o"),
                program.as_os_str(),
            ]),
        );
        program
    }
}

/// Runs a tool that has to succeed.
pub(crate) fn run<'a>(tool: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    let status = Command::new(tool).args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("{tool} (apt-get install gcc g++): {error}"));
    assert!(status.success(), "{tool} failed");
}

/// `objcopy` with these flags, in place or from one file to another.
pub(crate) fn objcopy(flags: &[&OsStr], files: &[&Path]) {
    run(
        "objcopy",
        flags
            .iter()
            .copied()
            .chain(files.iter().map(|file| file.as_os_str())),
    );
}
