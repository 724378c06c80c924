//! Debian's kernels, for machines in a cloud: small, with everything that is needed built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell;

/// A kernel that the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Debian 12's own.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which is also in Debian 12's security updates.
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    /// The version, as the kernel's own begins.
    pub fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// Downloads the kernel into `directory`, unless it is there.
    ///
    /// # Errors
    /// When apt has no such kernel or cannot download it.
    pub fn ensure(self, directory: &Path) -> Result<PathBuf> {
        let linux = directory.join("vmlinuz");
        if linux.exists() {
            return Ok(linux);
        }
        let package = self.package()?;
        shell::say(&format!("downloading {package}"));
        let fresh = tempfile::tempdir_in(directory).context("cannot create a directory")?;
        let mut download = Command::new("apt-get");
        shell::check(
            download
                .args(["-q", "download", &package])
                .current_dir(&fresh),
        )?;
        let archive = only_file(fresh.path())?;
        let files = fresh.path().join("files");
        shell::check(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&files))?;
        let boot = files.join("boot");
        let image = file_that(&boot, |name| name.starts_with("vmlinuz-"))?;
        fs::rename(&image, &linux)
            .with_context(|| format!("cannot move {} to {}", image.display(), linux.display()))?;
        Ok(linux)
    }

    /// The newest package of this version that apt knows.
    fn package(self) -> Result<String> {
        if let Some(package) = self.newest_known()? {
            return Ok(package);
        }
        shell::check(shell::as_root("apt-get")?.args(["-q", "update"]))?;
        self.newest_known()?.with_context(|| {
            format!(
                "apt knows no linux-image-{}.*-cloud-amd64; Debian 12 has it in bookworm and \
                 bookworm-security, so add both to /etc/apt/sources.list",
                self.version()
            )
        })
    }

    fn newest_known(self) -> Result<Option<String>> {
        let pattern = format!("^linux-image-{}\\.", self.version().replace('.', "\\."));
        let mut search = Command::new("apt-cache");
        let found = shell::output(search.args(["search", "--names-only", &pattern]))?;
        Ok(newest(&found))
    }
}

/// The newest kernel package among the lines that `apt-cache search` prints.
fn newest(found: &str) -> Option<String> {
    found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.ends_with("-cloud-amd64"))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
}

/// The numbers in a version, for comparison.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    file_that(directory, |_| true)
}

fn file_that(directory: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries
        .iter()
        .find(|entry| entry.file_name().to_str().is_some_and(&fits))
        .map(fs::DirEntry::path)
        .with_context(|| {
            format!(
                "{} does not hold what the package should",
                directory.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_newest_cloud_kernel_is_chosen_by_number() {
        let found = "linux-image-6.1.0-9-cloud-amd64 - Linux 6.1\n\
                     linux-image-6.1.0-50-cloud-amd64 - Linux 6.1\n\
                     linux-image-6.1.0-60-rt-amd64 - Linux 6.1\n\
                     linux-image-6.1.0-60-cloud-amd64-unsigned - Linux 6.1\n";
        assert_eq!(
            newest(found).as_deref(),
            Some("linux-image-6.1.0-50-cloud-amd64")
        );
        assert_eq!(newest(""), None);
    }
}
