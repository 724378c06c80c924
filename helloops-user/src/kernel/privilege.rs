//! Checks up front what the kernel will ask for, so that its absence is named.

use std::fs;

use thiserror::Error;

/// What HelloOps needs, by the bits of include/uapi/linux/capability.h.
const NEEDED: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "load BPF programs and maps"),
    (38, "CAP_PERFMON", "attach probes and read kernel memory"),
    (19, "CAP_SYS_PTRACE", "read other users' processes"),
];

/// `CAP_SYS_ADMIN`, which stands for `CAP_BPF` and `CAP_PERFMON` too.
const SYS_ADMIN: u32 = 21;

/// Capabilities are missing.
#[derive(Debug, Error)]
#[error(
    "helloops may not watch processes here: it lacks {}\n\
     run it as root (sudo), or grant them to the binary:\n  \
     sudo setcap {}=ep {}",
    .missing.iter().map(|(name, why)| format!("{name} (to {why})")).collect::<Vec<_>>().join(", "),
    .missing.iter().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>().join(","),
    .binary
)]
pub struct PrivilegeError {
    missing: Vec<(&'static str, &'static str)>,
    binary: String,
}

/// Which needed capabilities this process lacks, each with what it is needed for.
pub fn missing_capabilities() -> Vec<(&'static str, &'static str)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    missing_of(effective)
}

fn missing_of(effective: u64) -> Vec<(&'static str, &'static str)> {
    let has = |bit: u32| effective >> bit & 1 != 0;
    NEEDED
        .iter()
        .filter(|(bit, _, _)| !(has(*bit) || *bit >= 38 && has(SYS_ADMIN)))
        .map(|(_, name, why)| (*name, *why))
        .collect()
}

/// Whether this is the initial pid namespace, whose process ids BPF programs see
/// (include/linux/proc_ns.h: `PROC_PID_INIT_INO`). True where it cannot be told.
pub fn is_initial_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").map_or(true, |namespace| {
        namespace.as_os_str() == "pid:[4026531836]"
    })
}

/// # Errors
///
/// Names the missing capabilities and how to grant them.
pub fn require_privileges() -> Result<(), PrivilegeError> {
    let missing = missing_capabilities();
    if missing.is_empty() {
        return Ok(());
    }
    let binary = std::env::current_exe()
        .map_or_else(|_| "helloops".to_owned(), |path| path.display().to_string());
    Err(PrivilegeError { missing, binary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named_with_the_command_that_grants_them() {
        let names = |bits| {
            missing_of(bits)
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
        assert_eq!(names(1 << 39 | 1 << 38 | 1 << 19), Vec::<&str>::new());
        assert_eq!(names(1 << 21), ["CAP_SYS_PTRACE"]);
        let error = PrivilegeError {
            missing: missing_of(1 << 39),
            binary: "/x/helloops".into(),
        };
        let text = error.to_string();
        assert!(
            text.contains("setcap cap_perfmon,cap_sys_ptrace=ep /x/helloops"),
            "{text}"
        );
    }
}
