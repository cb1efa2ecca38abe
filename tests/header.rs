//! `include/mfq.h` is a copy of what cbindgen makes of the sources, and any C or C++ compiler takes it.

mod support;

use std::ffi::CStr;
use std::process::Command;
use std::{env, fs};

const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/mfq.h");
const GENERATED: &str = env!("MFQ_GENERATED_HEADER");

#[test]
fn the_header_is_what_the_sources_say() {
    let generated = fs::read_to_string(GENERATED).expect("the generated header");
    if env::var_os("UPDATE_HEADER").is_some_and(|value| value == "1") {
        fs::write(CHECKED_IN, &generated).expect("include/mfq.h can be written");
    }
    let checked_in = fs::read_to_string(CHECKED_IN).unwrap_or_default();
    let difference = generated.lines().zip(checked_in.lines()).position(|(new, old)| new != old);
    let line = difference.unwrap_or(generated.lines().count().min(checked_in.lines().count())) + 1;
    assert!(
        generated == checked_in,
        "include/mfq.h is not what src/capi and cbindgen.toml say, from line {line} on. If they are right, update it:\n  \
         cp {GENERATED} {CHECKED_IN}\nor run this test with UPDATE_HEADER=1"
    );
}

#[test]
fn the_header_compiles_alone_as_c99() {
    compiles_alone("cc", "c", "-std=c99");
}

#[test]
fn the_header_compiles_alone_as_cpp11() {
    compiles_alone("c++", "c++", "-std=c++11");
}

fn compiles_alone(compiler: &str, language: &str, standard: &str) {
    let strict = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"];
    support::run(Command::new(compiler).args(["-x", language, standard]).args(strict).arg(CHECKED_IN));
}

#[test]
fn the_version_macros_are_what_the_library_answers() {
    let header = fs::read_to_string(CHECKED_IN).expect("include/mfq.h");
    let value = |name: &str| {
        let define = format!("#define {name} ");
        let found = header.lines().find_map(|line| line.strip_prefix(&define));
        found.unwrap_or_else(|| panic!("{name} is not in the header")).to_owned()
    };
    // SAFETY: takes nothing, gives a static string.
    let version = unsafe { CStr::from_ptr(mfq::capi::mfq_version()) }.to_str().expect("a version is plain text");
    assert_eq!(value("MFQ_VERSION"), format!("\"{version}\""));
    let parts = ["MFQ_VERSION_MAJOR", "MFQ_VERSION_MINOR", "MFQ_VERSION_PATCH"].map(value);
    assert_eq!(parts.join("."), version);
    // SAFETY: takes nothing, gives a number.
    let abi = unsafe { mfq::capi::mfq_abi_version() };
    assert_eq!(value("MFQ_ABI_VERSION"), abi.to_string());
}
