//! A C program that does everything wrong: plain, under valgrind, and with the compiler's sanitizers. The last one is
//! also for a library that is built with AddressSanitizer itself (`.ci/run` does that).

mod support;

use needs::needs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn source() -> PathBuf {
    Path::new(support::ROOT).join("tests/c/misuse.c")
}

#[test]
fn c_misuse_is_told_apart_and_harms_nothing() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let program = support::compile(&source(), build.path());
    support::run(Command::new(program).arg(work.path()));
}

#[needs("valgrind")]
#[test]
fn c_misuse_is_clean_under_valgrind() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let program = support::compile(&source(), build.path());
    // Only what nothing leads to any more: a table in a static, whose pointer leads into its middle, is no leak.
    let leaks = ["--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"];
    let valgrind = ["--error-exitcode=99", "--fair-sched=yes", "--quiet"];
    support::run(Command::new("valgrind").args(leaks).args(valgrind).arg(program).arg(work.path()));
}

#[test]
fn c_misuse_is_clean_with_sanitizers() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = support::compile_with(&sanitizers, &source(), build.path());
    support::run(Command::new(program).arg(work.path()));
}
