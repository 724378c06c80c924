//! The options that `helloops run` and `helloops agent` share.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{
    agent::{Options as InstanceOptions, Target},
    kernel::{Btf, LoadOptions},
    target::{ProbePattern, Selector},
};

/// How to watch.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Report each call of this function as a fault: NAME, NAME(int,str,cstr,ptr) to show its
    /// arguments, LIBRARY:NAME for one in a library. NAME is a symbol, a demangled path, or has
    /// wildcards.
    #[arg(long = "probe", value_name = "FUNCTION")]
    pub probes: Vec<String>,
    /// Keep latency histograms for each process on its own.
    #[arg(long)]
    pub per_process: bool,
    /// Do not measure system calls.
    #[arg(long)]
    pub no_syscalls: bool,
    /// Copy at most N pages (of 4 KiB) of a faulting thread's stack.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub stack_pages: u32,
    /// The size of the buffer for events, in KiB: a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = parse_ring)]
    pub ring: u32,
    /// Look for separate debug files in DIR too, laid out as in /usr/lib/debug.
    #[arg(long = "debug-dir", value_name = "DIR")]
    pub debug_directories: Vec<PathBuf>,
    /// The kernel's type information (BTF), for a kernel without its own; `none` to do without.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// Show the debug lines of the BPF programs.
    #[arg(long)]
    pub kernel_log: bool,
}

/// The kernel takes powers of two that are multiples of a page.
fn parse_ring(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(kib) if kib.is_power_of_two() && (4..=1 << 20).contains(&kib) => Ok(kib),
        _ => Err("must be a power of two from 4 to 1048576".to_owned()),
    }
}

impl Options {
    /// The options of an instance with these targets.
    ///
    /// # Errors
    ///
    /// When a probe's pattern is wrong.
    pub fn instance(&self, selectors: Vec<Selector>) -> Result<InstanceOptions> {
        let probes = self
            .probes
            .iter()
            .map(|text| ProbePattern::parse(text).with_context(|| format!("--probe {text}")))
            .collect::<Result<_>>()?;
        let btf = match &self.btf {
            None => Btf::Kernel,
            Some(path) if path.as_os_str() == "none" => Btf::None,
            Some(path) => Btf::File(path.clone()),
        };
        Ok(InstanceOptions {
            likely_programs: Vec::new(),
            targets: self.targets(selectors),
            probes,
            kernel: LoadOptions {
                ring_bytes: self.ring * 1024,
                stack_pages: self.stack_pages,
                kernel_log: self.kernel_log,
                syscalls: !self.no_syscalls,
                btf,
                ..LoadOptions::default()
            },
            debug_directories: self.debug_directories.clone(),
        })
    }

    /// Names each selector's target; the second of a name becomes NAME-2.
    fn targets(&self, selectors: Vec<Selector>) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for selector in selectors {
            let wanted = selector.default_name();
            let taken = |name: &String| targets.iter().any(|target| target.name == *name);
            let name = std::iter::once(wanted.clone())
                .chain((2..).map(|n| format!("{wanted}-{n}")))
                .find(|name| !taken(name))
                .unwrap_or(wanted);
            targets.push(Target {
                name,
                selector,
                per_process: self.per_process,
            });
        }
        targets
    }
}
