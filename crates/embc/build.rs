//! Tells the tests what is at hand. What they lack is ignored, with the reason, so that it is counted.

use std::process::Command;

fn main() {
    let runs = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let at_hand = [
        ("real_data", std::env::var_os("EMBC_DATASETS").is_some()),
        ("mounts", runs("unshare", &["-m", "true"])),
        ("own_mounts", runs("unshare", &["-rm", "true"])),
    ];
    for (name, is) in at_hand {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if is {
            println!("cargo::rustc-cfg={name}");
        }
    }
    println!("cargo::rerun-if-env-changed=EMBC_DATASETS");
    println!("cargo::rerun-if-changed=build.rs");
}
