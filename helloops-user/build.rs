//! Compiles the BPF programs with `aya-build` and leaves the object in `OUT_DIR`.
//!
//! Two toolchains can do it: one that is linked under the name `helloops-bpf` and carries a
//! prebuilt `core` for BPF (`cargo xtask setup` links Debian's), or a nightly with `rust-src`.

use std::process::Command;

use anyhow::Result;
use aya_build::{Package, Toolchain, build_ebpf};

const LINKED: &str = "helloops-bpf";

fn main() -> Result<()> {
    let toolchain = if is_linked() {
        // aya-ebpf and the programs turn on one unstable feature, inline assembly. Naming the
        // crates, rather than `1`, allows it without making aya-build rebuild `core` from source.
        // The other two keep the inner
        // build's progress from coming back as warnings on each later build; its errors still show.
        let settings = [
            ("RUSTC_BOOTSTRAP", "aya_ebpf,helloops_programs"),
            ("CARGO_TERM_QUIET", "true"),
            ("RUSTUP_LOG", "error"),
        ];
        for (name, value) in settings {
            // SAFETY: the build script has one thread at this point.
            unsafe { std::env::set_var(name, value) };
        }
        Toolchain::Custom(LINKED)
    } else {
        Toolchain::default()
    };
    build_ebpf(
        [Package {
            name: "helloops-ebpf",
            root_dir: "../helloops-ebpf",
            features: &["programs"],
            ..Package::default()
        }],
        toolchain,
    )
}

fn is_linked() -> bool {
    Command::new("rustup")
        .args(["toolchain", "list"])
        .output()
        .is_ok_and(|list| {
            String::from_utf8_lossy(&list.stdout)
                .lines()
                .any(|line| line.starts_with(LINKED))
        })
}
