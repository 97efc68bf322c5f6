//! Tells the binary which git revision it is built from, and whether its sources differ from it.

use std::process::Command;

/// What the program is made of: results and texts beside it make no other program.
const SOURCES: [&str; 3] = ["../../crates", "../../Cargo.toml", "../../Cargo.lock"];

fn main() {
    let output = Command::new("git").args(["describe", "--always", "--abbrev=12"]).output();
    let revision = output.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
    let changed =
        Command::new("git").args(["diff", "--quiet", "HEAD", "--"]).args(SOURCES).status();
    let dirty = if changed.is_ok_and(|status| status.code() == Some(1)) { "-dirty" } else { "" };
    println!("cargo::rustc-env=EMBC_REVISION={}{dirty}", String::from_utf8_lossy(&revision).trim());
    SOURCES.iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/index");
}
