//! A host that loads and unloads the library while threads that have used it live on.

mod support;

use std::path::Path;
use std::process::Command;

#[test]
fn unloading_harms_no_thread_that_ends_later() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = support::scratch_in_memory();
    let program = build.path().join("unload");
    support::run(
        Command::new("cc")
            .args(["-std=c99", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"])
            .arg(format!("-I{}/include", support::ROOT))
            .arg(Path::new(support::ROOT).join("tests/c/unload.c"))
            .arg("-o")
            .arg(&program)
            .arg("-ldl"),
    );
    let library = support::library_dir().join("libmfq.so");
    let mut host = Command::new(program);
    host.arg(library).arg(work.path().join("queue")).arg("1000").args(support::EXPORTED);
    assert_eq!(support::stdout(&mut host), format!("1000 cycles, {} functions\n", support::EXPORTED.len()));
}
