//! `helloops doctor`: what this kernel offers, what HelloOps would use, what is missing and how to
//! get it. Needs no agent: it tries.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    features, json,
    terminal::{self, Screen},
};
use crate::{
    agent::StartError,
    kernel::{Btf, Feature, Kernel, LoadOptions, is_initial_pid_namespace, missing_capabilities},
    target::cgroup2_root,
};

const PRIVILEGES: &str = "privileges";
const PROCESS_IDS: &str = "process ids";
const PROGRAMS: &str = "BPF programs";

/// Features without which nothing can be watched.
const ESSENTIAL: [&str; 3] = [PRIVILEGES, PROCESS_IDS, PROGRAMS];

/// What `helloops doctor` is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// HelloOps's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// Everything that was tried.
    pub features: Vec<Feature>,
}

/// Tries, and prints. The exit code is 1 when something is missing.
///
/// # Errors
///
/// When standard output cannot be written to.
pub fn run(options: &Options) -> Result<ExitCode> {
    let diagnosis = diagnose();
    let screen = Screen::stdout();
    let text = match options.json {
        true => json::document(&diagnosis, &screen)?,
        false => render(&diagnosis, &screen),
    };
    terminal::allow_closed_pipe(terminal::print(&text).map_err(Into::into))?;
    let complete = diagnosis.features.iter().all(|feature| feature.available);
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn diagnose() -> Diagnosis {
    let mut features = vec![architecture(), privileges(), pid_namespace()];
    let options = LoadOptions {
        series: 16,
        pages: 64,
        ..LoadOptions::default()
    };
    match Kernel::load(&options) {
        Ok(kernel) => features.extend(kernel.features),
        Err(error) => {
            if let Err(reason) = Btf::Kernel.layout() {
                features.push(Feature::lacks("kernel type information", reason));
            }
            features.push(Feature::lacks(PROGRAMS, error.to_string()));
        }
    }
    features.push(cgroups());
    features.push(debug_files());
    Diagnosis {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: release(),
        features,
    }
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn architecture() -> Feature {
    const NAME: &str = "processor";
    match std::env::consts::ARCH {
        "x86_64" => Feature::works(NAME, "x86_64"),
        other => Feature::lacks(NAME, format!("{other}: stacks and arguments need x86_64")),
    }
}

fn privileges() -> Feature {
    const NAME: &str = PRIVILEGES;
    let missing = missing_capabilities();
    if missing.is_empty() {
        return Feature::works(NAME, "CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    Feature::lacks(
        NAME,
        format!("{} missing: run it as root", names.join(", ")),
    )
}

fn pid_namespace() -> Feature {
    const NAME: &str = PROCESS_IDS;
    match is_initial_pid_namespace() {
        true => Feature::works(NAME, "the host's"),
        false => Feature::lacks(NAME, StartError::PidNamespace.to_string()),
    }
}

fn cgroups() -> Feature {
    const NAME: &str = "cgroup targets";
    match cgroup2_root() {
        Some(root) => Feature::works(NAME, format!("cgroup2 at {}", root.display())),
        None => Feature::lacks(
            NAME,
            "no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    }
}

fn debug_files() -> Feature {
    const NAME: &str = "system libraries' lines";
    if Path::new("/usr/lib/debug/.build-id").is_dir() {
        Feature::works(NAME, "/usr/lib/debug/.build-id")
    } else {
        Feature::works(
            NAME,
            "function names only; packages such as libc6-dbg add lines",
        )
    }
}

fn render(diagnosis: &Diagnosis, screen: &Screen) -> String {
    let mut text = format!(
        "helloops {} on Linux {}\n\n",
        diagnosis.version, diagnosis.kernel
    );
    text.push_str(&features::render(&diagnosis.features, screen));
    let lacks = |name: &str| {
        let mut features = diagnosis.features.iter();
        features.any(|feature| feature.name == name && !feature.available)
    };
    let complete = diagnosis.features.iter().all(|feature| feature.available);
    text.push_str(if complete {
        "\nEverything works here.\n"
    } else if ESSENTIAL.into_iter().any(lacks) {
        "\nNothing can be watched here until that is mended.\n"
    } else {
        "\nThe rest works without what is missing.\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(features: Vec<Feature>) -> String {
        let diagnosis = Diagnosis {
            version: String::new(),
            kernel: String::new(),
            features,
        };
        let text = render(&diagnosis, &Screen::PLAIN);
        text.lines().last().unwrap().to_owned()
    }

    #[test]
    fn it_does_not_promise_that_the_rest_works_when_nothing_does() {
        let works = || Feature::works("fatal signals", "");
        assert_eq!(ending(vec![works()]), "Everything works here.");
        let some = ending(vec![works(), Feature::lacks("cgroup targets", "")]);
        assert_eq!(some, "The rest works without what is missing.");
        for name in ESSENTIAL {
            let none = ending(vec![works(), Feature::lacks(name, "")]);
            assert_eq!(none, "Nothing can be watched here until that is mended.");
        }
    }
}
