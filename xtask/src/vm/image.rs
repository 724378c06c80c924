//! The initial file system: a cpio archive, uncompressed, since unpacking is slow when emulated.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernel::Kernel;
use super::machine::END;
use crate::build::Built;
use crate::shell;

/// Packs everything that the machine needs into `directory`, and gives back the archive.
///
/// # Errors
/// When a file or one of its libraries is missing, or a tool fails.
pub fn pack(
    directory: &Path,
    built: &Built,
    tests: &Path,
    kernel: Kernel,
    filter: Option<&str>,
) -> Result<PathBuf> {
    let root = tempfile::tempdir_in(directory).context("cannot create a directory")?;
    let root = Root(root.path());
    for name in [
        "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "victims",
    ] {
        fs::create_dir(root.0.join(name))?;
    }
    root.add(Path::new("/bin/busybox"), "bin/busybox")?;
    symlink("busybox", root.0.join("bin/sh"))?;
    // What is only run needs no debug information; victims are what stacks are looked for in.
    root.add_stripped(&built.helloops, "bin/helloops")?;
    root.add_stripped(tests, "bin/tests")?;
    for victim in fs::read_dir(&built.victims)? {
        let victim = victim?.path();
        let name = victim
            .file_name()
            .and_then(|name| name.to_str())
            .context("odd victim name")?;
        root.add(&victim, &format!("victims/{name}"))?;
    }
    root.write(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    )?;
    root.write("etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    root.write("init", &init(kernel, filter))?;
    fs::set_permissions(root.0.join("init"), fs::Permissions::from_mode(0o755))?;
    root.archive(&directory.join("initramfs.cpio"))
}

/// The first process: mounts what tests look at, runs them on the second serial line, and turns
/// the machine off.
fn init(kernel: Kernel, filter: Option<&str>) -> String {
    // An emulated machine is too slow for tests that run beside each other and watch the clock.
    let arguments = filter.map_or_else(String::new, quoted) + " --test-threads=1";
    format!(
        "#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up
hostname helloops-vm
export PATH=/bin HOME=/root RUST_BACKTRACE=0
export HELLOOPS_BIN=/bin/helloops HELLOOPS_VICTIMS=/victims HELLOOPS_KERNEL={version}.
exec </dev/null >/dev/ttyS1 2>&1
/bin/tests {arguments}
echo \"{END} $?\"
poweroff -f
",
        version = kernel.version()
    )
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The directory that becomes the machine's root.
struct Root<'a>(&'a Path);

impl Root<'_> {
    /// Copies a program and the libraries that it loads.
    fn add(&self, program: &Path, to: &str) -> Result<()> {
        copy(program, &self.0.join(to))?;
        for library in libraries(program)? {
            let to = self.0.join(library.strip_prefix("/").unwrap_or(&library));
            if !to.exists() {
                fs::create_dir_all(to.parent().context("a library at the root")?)?;
                copy(&library, &to)?;
            }
        }
        Ok(())
    }

    fn add_stripped(&self, program: &Path, to: &str) -> Result<()> {
        self.add(program, to)?;
        shell::check(
            Command::new("strip")
                .arg("--strip-debug")
                .arg(self.0.join(to)),
        )
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.0.join(file), text).with_context(|| format!("cannot write {file}"))
    }

    fn archive(&self, to: &Path) -> Result<PathBuf> {
        let names = self.0.with_extension("names");
        let find = shell::output(Command::new("find").arg(".").current_dir(self.0))?;
        fs::write(&names, find)?;
        let mut cpio = Command::new("cpio");
        cpio.args(["--quiet", "-o", "-H", "newc", "-R", "0:0"])
            .current_dir(self.0);
        let archive =
            File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
        cpio.stdin(File::open(&names)?).stdout(archive);
        let packed = shell::check(&mut cpio);
        fs::remove_file(&names)?;
        packed?;
        Ok(to.to_owned())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The files that the loader maps for a program, itself included; none for a static one.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let listing = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot start ldd")?;
    // It fails for a static program, and says so on standard error.
    let listing = String::from_utf8_lossy(&listing.stdout);
    ensure!(
        !listing.contains("not found"),
        "{} lacks a library:\n{listing}",
        program.display()
    );
    Ok(listing
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}
