//! What the tests of the C surface share: where things are, and how to compile and run C. Beside it, what others share.
#![allow(dead_code)] // each test uses a part of it

pub mod crash;
pub mod disk;
pub mod engine;
pub mod handles;
pub mod records;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where cargo put the libmfq.so of this run: beside the test itself. (The one in the directory above comes from `cargo
/// build` alone, and may be older.)
pub fn library_dir() -> PathBuf {
    let test = env::current_exe().expect("a test knows where it is");
    let dir = test.parent().expect("target/<profile>/deps").to_path_buf();
    assert!(dir.join("libmfq.so").is_file(), "no libmfq.so in {}", dir.display());
    dir
}

/// Runs a command and shows all it said if it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn stdout(command: &mut Command) -> String {
    String::from_utf8_lossy(&run(command).stdout).into_owned()
}

/// Compiles a C program against the header and the built library into `dir`.
pub fn compile(source: &Path, dir: &Path) -> PathBuf {
    compile_with(&[], source, dir)
}

pub fn compile_with(options: &[&str], source: &Path, dir: &Path) -> PathBuf {
    compile_by("cc", &[&["-std=c99", "-D_GNU_SOURCE", "-O1"], options].concat(), &[source], dir)
}

/// The program is named after the first source.
pub fn compile_by(compiler: &str, options: &[&str], sources: &[&Path], dir: &Path) -> PathBuf {
    let library = library_dir().join("libmfq.so");
    // The soname is what the program looks for, and cargo does not make that name.
    std::os::unix::fs::symlink(&library, dir.join("libmfq.so.0")).expect("a link to the library");
    let program = dir.join(sources[0].file_stem().expect("a source file"));
    run(Command::new(compiler)
        .args(["-g", "-Wall", "-Wextra", "-Werror", "-pthread"])
        .args(options)
        .arg(format!("-I{ROOT}/include"))
        .args(sources)
        .arg("-o")
        .arg(&program)
        .arg(library)
        .arg(format!("-Wl,-rpath,{}", dir.display())));
    program
}
