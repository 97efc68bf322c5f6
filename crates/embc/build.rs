//! Tells the binary which git revision it is built from.

fn main() {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    let revision = output.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
    println!("cargo::rustc-env=EMBC_REVISION={}", String::from_utf8_lossy(&revision).trim());
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/index");
}
