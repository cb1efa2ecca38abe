//! The guard against SIGBUS, from C: files cut off behind the library's back.

mod support;

use std::env;
use std::path::Path;
use std::process::Command;

/// Ten thousand SIGBUS, or as many as `MFQ_SIGBUS` says.
#[test]
fn a_fault_in_the_librarys_files_is_an_error_and_every_other_one_is_the_hosts() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let program = support::compile(&Path::new(support::ROOT).join("tests/c/sigbus.c"), build.path());
    let count = env::var("MFQ_SIGBUS").unwrap_or("10000".into());
    println!("{}", support::stdout(Command::new(program).arg(work.path()).arg(count)));
}
