//! `include/mfq.hpp` compiles without a warning as what it says, with the compilers that hosts have, and does what it says
//! on real lines, under the compilers' sanitizers too. (.ci/run has clang; elsewhere what needs it is told and not run.)

mod support;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/mfq.hpp");
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

fn is_there(compiler: &str) -> bool {
    if Command::new(compiler).arg("--version").output().is_ok() {
        return true;
    }
    assert_ne!(env::var("CI").as_deref(), Ok("true"), "{compiler} is not installed, and CI does not go without it");
    eprintln!("{compiler} is not installed: not run");
    false
}

/// Compiles the program of `cpp/` and runs it on the lines of the C header.
fn runs(compiler: &str, options: &[&str]) {
    if !is_there(compiler) {
        return;
    }
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let program = compile(compiler, options, build.path());
    let input = Path::new(support::ROOT).join("include/mfq.h");
    support::run(Command::new(program).arg(work.path()).arg(input));
}

fn compile(compiler: &str, options: &[&str], dir: &Path) -> PathBuf {
    let link = dir.join("libmfq.so.0");
    std::os::unix::fs::symlink(support::library_dir().join("libmfq.so"), &link).expect("a link to the library");
    let program = dir.join("use");
    support::run(
        Command::new(compiler)
            .args(["-g", "-pthread"])
            .args(STRICT)
            .args(options)
            .arg(format!("-I{}/include", support::ROOT))
            .args(["use.cpp", "misuse.cpp"].map(|name| Path::new(support::ROOT).join("tests/cpp").join(name)))
            .arg("-o")
            .arg(&program)
            .arg(&link)
            .arg(format!("-Wl,-rpath,{}", dir.display())),
    );
    program
}

#[test]
fn the_header_compiles_alone_and_in_strict_hosts() {
    // What some hosts add to STRICT.
    let stricter = ["-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wold-style-cast", "-fsyntax-only"];
    for compiler in ["g++", "clang++"].into_iter().filter(|compiler| is_there(compiler)) {
        for standard in ["-std=c++17", "-std=c++20"] {
            support::run(Command::new(compiler).args(["-x", "c++", standard]).args(STRICT).args(stricter).arg(HEADER));
        }
    }
}

#[test]
fn an_older_standard_is_told_so() {
    let mut command = Command::new("c++");
    let output = command.args(["-x", "c++", "-std=c++14", "-fsyntax-only", HEADER]).output().expect("a compiler");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("mfq.hpp needs C++17"), "{told}");
}

#[test]
fn a_host_of_cpp17_by_gcc() {
    runs("g++", &["-std=c++17", "-O2"]); // some warnings come with it only
}

#[test]
fn a_host_of_cpp20_by_gcc() {
    runs("g++", &["-std=c++20"]);
}

#[test]
fn a_host_of_cpp17_by_clang() {
    runs("clang++", &["-std=c++17"]);
}

#[test]
fn a_host_of_cpp20_by_clang() {
    runs("clang++", &["-std=c++20"]);
}

#[test]
fn a_host_is_clean_with_the_sanitizers_of_gcc() {
    runs("g++", &["-std=c++20", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
}

#[test]
fn a_host_is_clean_with_the_sanitizers_of_clang() {
    runs("clang++", &["-std=c++17", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
}
