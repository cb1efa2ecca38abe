//! A host that loads and unloads the library while threads that have used it live on.

mod support;

use std::path::Path;
use std::process::Command;

/// A thousand lives of the library in the host, with all that is exported.
fn load_and_unload(library: &Path) {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = support::engine::scratch_in_memory();
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
    let mut host = Command::new(program);
    host.arg(library).arg(work.path().join("queue")).arg("1000").args(support::EXPORTED);
    assert_eq!(support::stdout(&mut host), format!("1000 cycles, {} functions\n", support::EXPORTED.len()));
}

#[test]
fn unloading_harms_no_thread_that_ends_later() {
    load_and_unload(&support::library_dir().join("libmfq.so"));
}

#[test]
fn nor_does_unloading_a_plug_in_with_the_static_library_that_is_linked_as_the_header_says() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let plug_in = build.path().join("plug-in.so");
    support::run(
        Command::new("cc")
            .args(["-shared", "-Wl,-z,nodelete", "-Wl,--whole-archive"])
            .arg(support::library_dir().join("libmfq.a"))
            .args(["-Wl,--no-whole-archive", "-lpthread", "-ldl", "-lm", "-lgcc_s", "-o"])
            .arg(&plug_in),
    );
    load_and_unload(&plug_in);
}
