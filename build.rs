//! Generates the C header (`include/mfq.h` is a checked-in copy of it) and says how libmfq.so is linked.

use std::env;
use std::path::PathBuf;

/// In the order of the header.
const SOURCES: [&str; 6] = ["constants", "types", "library", "queue", "append", "read"];

fn main() {
    println!("cargo:rerun-if-changed=src/capi");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    generate_header();
    // rustc's own version script already hides everything but the `no_mangle` functions.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmfq.so.{}", part("CARGO_PKG_VERSION_MAJOR"));
    // With a thread and thread-locals inside, an unloaded library is a crash at some later thread's exit.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

fn generate_header() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let header = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("mfq.h");
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))
        .unwrap_or_else(|error| panic!("cbindgen.toml cannot be used: {error}"));
    config.after_includes = Some(version_macros());
    // File by file, not by crate: the order is ours, and private Rust names cannot leak into the header.
    SOURCES
        .iter()
        .fold(cbindgen::Builder::new().with_config(config), |builder, source| {
            builder.with_src(root.join(format!("src/capi/{source}.rs")))
        })
        .generate()
        .unwrap_or_else(|error| panic!("cbindgen cannot generate the header from src/capi: {error}"))
        .write_to_file(&header);
    println!("cargo:rustc-env=MFQ_GENERATED_HEADER={}", header.display());
}

/// From `Cargo.toml`, so that there is one place to change them.
fn version_macros() -> String {
    format!(
        "\n// The version of this header; mfq_version() answers the library's.\n\
         #define MFQ_VERSION \"{}\"\n\
         #define MFQ_VERSION_MAJOR {}\n\
         #define MFQ_VERSION_MINOR {}\n\
         #define MFQ_VERSION_PATCH {}",
        part("CARGO_PKG_VERSION"),
        part("CARGO_PKG_VERSION_MAJOR"),
        part("CARGO_PKG_VERSION_MINOR"),
        part("CARGO_PKG_VERSION_PATCH"),
    )
}

fn part(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo does not set {name}"))
}
