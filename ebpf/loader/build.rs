//! Puts the built kernel programs where `object.rs` includes them from.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=SLUICE_EBPF_OBJECT");
    let given = std::env::var_os("SLUICE_EBPF_OBJECT").map(PathBuf::from);
    let object = given.unwrap_or_else(|| {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        PathBuf::from(manifest).join("../../target/ebpf/sluice.bpf.o")
    });
    println!("cargo::rerun-if-changed={}", object.display());
    let Ok(object) = object.canonicalize() else {
        println!(
            "cargo::error=the kernel programs are not built ({}): run `cargo xtask ebpf`",
            object.display()
        );
        return;
    };
    println!("cargo::rustc-env=SLUICE_EBPF_OBJECT_PATH={}", object.display());
}
