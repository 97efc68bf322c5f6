//! Which program on which machine, and the memory it took.

use crate::record::{Host, Program};

/// This program.
pub fn program() -> Program {
    let revision = env!("EMBC_REVISION");
    Program {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: revision.trim_end_matches("-dirty").into(),
        dirty: revision.ends_with("-dirty"),
    }
}

/// This machine.
pub fn host() -> Host {
    use std::sync::OnceLock;
    static HOST: OnceLock<Host> = OnceLock::new();
    let find = || {
        let os = std::env::consts::OS.to_string();
        let Ok(mut system) = sysinfo::System::new() else {
            return Host { os, ..Host::default() };
        };
        system.refresh_cpu_all();
        let cpu = system.cpus().first().map_or(String::new(), |cpu| cpu.brand().trim().into());
        Host { cpu, cores: system.cpus().len(), os }
    };
    HOST.get_or_init(find).clone()
}

/// The most memory this process has held, where the system tells; 0 elsewhere.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Starts the peak anew, so that a trial does not report its predecessor's.
pub fn reset_peak_rss() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
