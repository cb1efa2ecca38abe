//! A host that loads and unloads the library while threads that have used it live on.

mod support;

use std::path::Path;
use std::process::Command;

#[test]
fn unloading_harms_no_thread_that_ends_later() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
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
    let said = support::stdout(Command::new(program).arg(library).arg(work.path().join("queue")).arg("50"));
    assert_eq!(said, "50 cycles\n");
}
