//! What the README says is so.

mod support;

use mfq::Options;
use needs::needs;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::engine::{open, read_all};

fn readme() -> String {
    fs::read_to_string(Path::new(support::ROOT).join("README.md")).expect("README.md")
}

#[test]
fn the_quick_start_compiles_as_printed_and_appends_a_durable_record() {
    let readme = readme();
    let code = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of C");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("orders.c");
    fs::write(&source, code).expect("a source file");
    let program = support::compile(&source, dir.path());
    support::run(Command::new(program).current_dir(dir.path()));

    let options = Options { read_only: true, ..Options::default() };
    assert_eq!(read_all(&open(&dir.path().join("orders.mfq"), &options)), [b"42 apples"]);
}

#[needs("python3")]
#[test]
fn the_quick_start_in_python_runs_as_printed() {
    let readme = readme();
    let code = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Python");
    let mut python = support::python();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let told = support::stdout(python.args(["-c", code]).current_dir(dir.path()));
    assert_eq!(told, "0 b'42 apples'\n32 b'7 oranges'\n");

    let options = Options { read_only: true, ..Options::default() };
    assert_eq!(read_all(&open(&dir.path().join("orders.mfq"), &options)), [b"42 apples", b"7 oranges"]);
}

#[needs("pkg-config")]
#[test]
fn installing_works_as_printed() {
    let readme = readme();
    let code = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of C");
    let section = readme.split("## Installing\n").nth(1).expect("a section");
    let commands = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("commands");
    let home = tempfile::tempdir().expect("a temporary directory");
    let checkout = tempfile::tempdir().expect("a temporary directory");
    for part in ["Makefile", "Cargo.toml", "include", "packaging"] {
        std::os::unix::fs::symlink(Path::new(support::ROOT).join(part), checkout.path().join(part)).expect("a link");
    }
    fs::write(checkout.path().join("orders.c"), code).expect("a source file");
    // The library of this run; without it `make` would have cargo build one.
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &format!("{commands}./orders")]).env("MFQ_LIBRARIES", support::library_dir());
    support::run(shell.current_dir(checkout.path()).env("HOME", home.path()));

    let options = Options { read_only: true, ..Options::default() };
    assert_eq!(read_all(&open(&checkout.path().join("orders.mfq"), &options)), [b"42 apples"]);
}

#[test]
fn the_quick_start_in_cpp_compiles_as_printed_and_prints_its_record() {
    let readme = readme();
    let code = readme.split("```cpp\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of C++");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("orders.cpp");
    fs::write(&source, code).expect("a source file");
    let program = support::compile_by("c++", &["-std=c++17"], &[&source], dir.path());
    assert_eq!(support::stdout(Command::new(program).current_dir(dir.path())), "42 apples\n");
}

#[needs("python3")]
#[test]
fn the_quick_starts_in_c_cpp_and_python_share_a_queue() {
    let readme = readme();
    let block = |language: &str| {
        let block = readme.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next());
        block.unwrap_or_else(|| panic!("a block of {language}"))
    };
    let work = tempfile::tempdir().expect("a temporary directory");
    for (compiler, language, standard) in [("cc", "c", "-std=c99"), ("c++", "cpp", "-std=c++17")] {
        let build = tempfile::tempdir().expect("a temporary directory");
        let source = build.path().join("orders").with_extension(language);
        fs::write(&source, block(language)).expect("a source file");
        let program = support::compile_by(compiler, &[standard], &[&source], build.path());
        support::run(Command::new(program).current_dir(work.path()));
    }
    support::run(support::python().args(["-c", block("python")]).current_dir(work.path()));

    let options = Options { read_only: true, ..Options::default() };
    let records = read_all(&open(&work.path().join("orders.mfq"), &options));
    assert_eq!(records, [&b"42 apples"[..], b"42 apples", b"42 apples", b"7 oranges"]);
}

#[test]
fn a_host_that_loads_the_library_itself_does_it_as_printed() {
    let readme = readme();
    let section = readme.split("## Python and dlopen\n").nth(1).expect("a section");
    let code = section.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of C");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, program) = (dir.path().join("loads.c"), dir.path().join("loads"));
    fs::write(&source, code).expect("a source file");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror"]).arg(format!("-I{}/include", support::ROOT)).arg(source);
    support::run(cc.arg("-o").arg(&program).arg("-ldl"));
    let library = support::library_dir().join("libmfq.so");
    std::os::unix::fs::symlink(library, dir.path().join("libmfq.so.0")).expect("a link");
    support::run(Command::new(program).current_dir(dir.path()).env("LD_LIBRARY_PATH", dir.path()));

    let options = Options { read_only: true, ..Options::default() };
    assert_eq!(read_all(&open(&dir.path().join("orders.mfq"), &options)), [b"42 apples"]);
}

#[test]
fn ci_runs_the_commands_that_the_readme_gives() {
    let ci = fs::read_to_string(Path::new(support::ROOT).join(".ci/run")).expect(".ci/run");
    for command in ["make -C examples-c run", "cargo test"] {
        assert!(readme().contains(&format!("\n{command}")), "the README does not give: {command}");
        assert!(ci.lines().any(|line| line.ends_with(command)), "CI does not run: {command}");
    }
}

#[test]
fn every_counter_is_explained() {
    let header = fs::read_to_string(Path::new(support::ROOT).join("include/mfq.h")).expect("the header");
    let stats = header.split("} mfq_stats_t;").next().and_then(|before| before.rsplit("typedef struct {").next());
    let fields = stats.expect("mfq_stats_t").lines().filter_map(|line| line.trim().strip_prefix("uint64_t "));
    let readme = readme();
    let mut explained = 0;
    for field in fields {
        let name = field.split(['[', ';']).next().expect("a name");
        assert!(readme.contains(&format!("| `{name}` |")), "the README does not explain {name}");
        explained += 1;
    }
    assert!(explained >= 14);
}
