//! The shared library is shipped: without symbols that nobody calls by name.

fn main() {
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if ["linux", "android", "freebsd"].contains(&&*os) {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--strip-all");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
