//! What the tests of the C surface share: where things are, and how to compile and run C. Beside it, what others share.
#![allow(dead_code)] // each test uses a part of it

pub mod crash;
pub mod disk;
pub mod engine;
pub mod handles;
pub mod records;

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The functions of the header, in the order of the alphabet.
pub const EXPORTED: [&str; 38] = [
    "mfq_abi_version",
    "mfq_abort",
    "mfq_append",
    "mfq_append_batch",
    "mfq_appendv",
    "mfq_claim",
    "mfq_close",
    "mfq_commit",
    "mfq_event_fd",
    "mfq_file_info",
    "mfq_file_memory",
    "mfq_file_release",
    "mfq_find",
    "mfq_flush",
    "mfq_flush_start",
    "mfq_get_last",
    "mfq_install_sigbus_guard",
    "mfq_last_errno",
    "mfq_last_error",
    "mfq_offsets",
    "mfq_open",
    "mfq_options_init",
    "mfq_read",
    "mfq_reader_close",
    "mfq_reader_next",
    "mfq_reader_open",
    "mfq_reader_seek",
    "mfq_recovery",
    "mfq_set_log",
    "mfq_stats",
    "mfq_strerror",
    "mfq_truncate_after",
    "mfq_truncate_before",
    "mfq_version",
    "mfq_view",
    "mfq_view_release",
    "mfq_wait",
    "mfq_walk_rocketmq",
];

/// Where cargo put the libmfq.so of this run: beside the test itself. (The one in the directory above comes from `cargo
/// build` alone, and may be older.)
pub fn library_dir() -> PathBuf {
    let test = env::current_exe().expect("a test knows where it is");
    let dir = test.parent().expect("target/<profile>/deps").to_path_buf();
    assert!(dir.join("libmfq.so").is_file(), "no libmfq.so in {}", dir.display());
    dir
}

pub fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README.md")
}

/// The first block of this language in a section of the README, as it is printed there.
pub fn printed(heading: &str, language: &str) -> String {
    let readme = readme();
    let section = readme.split_once(&format!("\n## {heading}\n")).and_then(|(_, rest)| rest.split("\n## ").next());
    let block = section.and_then(|section| section.split_once(&format!("\n```{language}\n")));
    let code = block.and_then(|(_, rest)| rest.split("```").next());
    code.unwrap_or_else(|| panic!("no block of {language} in the README's section {heading:?}")).to_owned()
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

/// A Python that finds `mfq.py`, and the library of this run.
pub fn python() -> Command {
    let dir = library_dir();
    // The soname is what mfq.py looks for, and cargo does not make that name.
    if let Err(error) = std::os::unix::fs::symlink("libmfq.so", dir.join("libmfq.so.0")) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    let mut python = Command::new("python3");
    python.env("LD_LIBRARY_PATH", dir).env("PYTHONPATH", format!("{ROOT}/examples-c/python"));
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python
}
