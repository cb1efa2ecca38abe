//! `examples-c/python/mfq.py`, in a real Python against the library of this run.

mod support;

use needs::needs;
use std::path::Path;
use std::process::Command;

fn script(name: &str) -> String {
    format!("{}/tests/python/{name}", support::ROOT)
}

#[needs("python3")]
#[test]
fn python_programs_get_what_they_rely_on() {
    let mut python = support::python();
    let told = support::run(python.args(["-X", "dev", "-W", "error"]).arg(script("test_mfq.py")));
    let told = String::from_utf8_lossy(&told.stderr);
    // What goes wrong in another thread or in a finalizer is told, and fails nothing.
    assert!(told.ends_with("\nOK\n") && !told.contains("Exception"), "{told}");
    println!("{told}");
}

#[needs("python3")]
#[test]
fn constants_and_structures_are_those_of_the_header() {
    let mut python = support::python();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = dir.path().join("layout.c");
    let header = Path::new(support::ROOT).join("include/mfq.h");
    let code = support::stdout(python.arg(script("layout.py")).arg(header));
    assert!(code.lines().count() > 150, "{code}");
    std::fs::write(&program, code).expect("a source file");
    let include = format!("-I{}/include", support::ROOT);
    support::run(Command::new("cc").args(["-std=c11", "-fsyntax-only", &include]).arg(program));
}

#[needs("python3")]
#[test]
fn unloading_below_python_harms_no_thread_that_ends_later() {
    let mut python = support::python();
    let work = support::engine::scratch_in_memory();
    python.arg(script("unload.py")).arg(work.path().join("queue")).arg("1000").args(support::EXPORTED);
    assert_eq!(support::stdout(&mut python), format!("1000 cycles, {} functions\n", support::EXPORTED.len()));
}

#[needs("python3")]
#[test]
fn the_example_brings_the_lines_of_a_file_back() {
    for file in ["README.md", "Cargo.lock"] {
        let mut python = support::python();
        let path = Path::new(support::ROOT).join(file);
        let lines = std::fs::read_to_string(&path).expect("text").lines().count();
        let example = Path::new(support::ROOT).join("examples-c/python/lines.py");
        let told = support::stdout(python.arg(example).arg(path));
        assert!(told.starts_with(&format!("{lines} lines came back")), "{told}");
    }
}
