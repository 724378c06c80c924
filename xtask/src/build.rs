//! Builds what gets run: `helloops`, the sample service, and the victims.
//!
//! The victims end up side by side in one directory, whichever language they are in, so that they
//! can be copied into an emulated machine as they are.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, shell};

const C_FLAGS: &[&str] = &[
    "-O2",
    "-g",
    "-fstack-protector-all",
    "-D_FORTIFY_SOURCE=2",
    // Each function keeps its frame, or a test could not expect it.
    "-fno-optimize-sibling-calls",
    "-Wall",
    "-Wextra",
    "-Werror",
    // Overflowing the stack is what that victim is for.
    "-Wno-infinite-recursion",
    "-pthread",
];

/// Where everything is.
#[derive(Debug)]
pub struct Built {
    /// The `helloops` command.
    pub helloops: PathBuf,
    /// The sample service.
    pub shop: PathBuf,
    /// The directory that holds the victims.
    pub victims: PathBuf,
}

impl Built {
    /// What the environment says is built already, where it names all of it.
    pub fn from_environment() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self {
            helloops: path("HELLOOPS_BIN")?,
            shop: path("HELLOOPS_SHOP")?,
            victims: path("HELLOOPS_VICTIMS")?,
        })
    }

    /// The same as environment variables, by which the test harness takes it.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [
            ("HELLOOPS_BIN", self.helloops.as_path()),
            ("HELLOOPS_SHOP", self.shop.as_path()),
            ("HELLOOPS_VICTIMS", self.victims.as_path()),
        ]
        .into_iter()
    }
}

impl fmt::Display for Built {
    /// One `NAME=VALUE` a line, as in [`Built::environment`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, path) in self.environment() {
            writeln!(f, "{name}={}", path.display())?;
        }
        Ok(())
    }
}

/// Builds everything.
///
/// # Errors
/// When something cannot be installed or does not compile.
pub fn everything() -> Result<Built> {
    let (helloops, shop) = helloops_and_shop()?;
    Ok(Built {
        helloops,
        shop,
        victims: gather_victims()?,
    })
}

/// Builds `helloops` and the sample service.
///
/// # Errors
/// When something cannot be installed or does not compile.
pub fn helloops_and_shop() -> Result<(PathBuf, PathBuf)> {
    setup::ensure()?;
    // Always the same packages at once: a shared dependency has the features that all of them ask
    // for, and another set of packages would build it again.
    cargo_build(&[
        "--release",
        "--package=helloops-user",
        "--package=shop",
        "--package=victims",
    ])?;
    let release = shell::target().join("release");
    Ok((release.join("helloops"), release.join("shop")))
}

fn cargo_build(arguments: &[&str]) -> Result<()> {
    shell::check(shell::cargo().args(["build", "--bins"]).args(arguments))
}

fn gather_victims() -> Result<PathBuf> {
    let release = shell::target().join("release");
    let victims = shell::target().join("victims");
    fs::create_dir_all(&victims)?;
    cargo_build(&[
        "--profile=victim-abort",
        "--package=victims",
        "--bin=rust_panics",
    ])?;
    let aborting = shell::target().join("victim-abort");
    copy_newer(&release.join("rust_panics"), &victims.join("rust_panics"))?;
    copy_newer(&release.join("syscalls"), &victims.join("syscalls"))?;
    copy_newer(
        &aborting.join("rust_panics"),
        &victims.join("rust_panics_abort"),
    )?;

    compile("gcc", "c_faults.c", &victims.join("c_faults"), &[])?;
    compile(
        "gcc",
        "c_faults.c",
        &victims.join("c_faults_static"),
        &["-static"],
    )?;
    compile("g++", "cpp_faults.cpp", &victims.join("cpp_faults"), &[])?;
    let freestanding = [
        "-m32",
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
    ];
    compile("gcc", "compat.c", &victims.join("compat"), &freestanding)?;
    Ok(victims)
}

fn compile(compiler: &str, source: &str, program: &Path, more: &[&str]) -> Result<()> {
    // Relative to the workspace, as rustc names its sources too.
    let source = Path::new("tests/victims").join(source);
    if is_current(program, &shell::workspace().join(&source))? {
        return Ok(());
    }
    let mut command = Command::new(compiler);
    command
        .current_dir(shell::workspace())
        .args(C_FLAGS)
        .args(more);
    shell::check(command.arg("-o").arg(program).arg(source))
}

fn copy_newer(from: &Path, to: &Path) -> Result<()> {
    if is_current(to, from)? {
        return Ok(());
    }
    // A copy in place would fail while the old one still runs somewhere.
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh)
        .and_then(|_| fs::rename(&fresh, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Whether `made` is there and no older than what it is made from.
fn is_current(made: &Path, from: &Path) -> Result<bool> {
    let source = fs::metadata(from)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("cannot look at {}", from.display()))?;
    match fs::metadata(made).and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(time >= source),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", made.display())),
    }
}
