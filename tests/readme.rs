//! What the README says is so.

mod support;

use mfq::Options;
use needs::needs;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use support::engine::{open, read_all};
use support::{printed, readme};
use tempfile::TempDir;

/// A place like a checkout, with the programs of the quick starts in it.
fn checkout() -> TempDir {
    let checkout = tempfile::tempdir().expect("a temporary directory");
    for part in ["Makefile", "Cargo.toml", "include", "packaging"] {
        symlink(Path::new(support::ROOT).join(part), checkout.path().join(part)).expect("a link");
    }
    for (heading, language, name) in [("Quick start", "c", "orders.c"), ("C++", "cpp", "orders.cpp")] {
        fs::write(checkout.path().join(name), printed(heading, language)).expect("a source file");
    }
    checkout
}

/// Builds `orders` with commands of the README, and runs it.
fn orders(checkout: &Path, commands: &str) -> String {
    // It builds the library of this run: another one would take minutes.
    let cargo = "cargo() { test \"$*\" = 'build --release' && mkdir -p target/release &&
        ln -sf \"$MFQ_BUILT\" target/release/libmfq.so; }";
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &format!("{cargo}\n{commands}./orders")]).current_dir(checkout);
    support::stdout(shell.env("MFQ_BUILT", support::library_dir().join("libmfq.so")))
}

fn records(queue: &Path) -> Vec<Vec<u8>> {
    read_all(&open(queue, &Options { read_only: true, ..Options::default() }))
}

#[test]
fn the_quick_start_is_built_as_printed_and_appends_a_durable_record() {
    let checkout = checkout();
    orders(checkout.path(), &printed("Quick start", "sh"));
    assert_eq!(records(&checkout.path().join("orders.mfq")), [b"42 apples"]);
}

#[test]
fn the_quick_start_in_cpp_is_built_as_printed_and_prints_its_record() {
    let checkout = checkout();
    let commands = printed("Quick start", "sh") + &printed("C++", "sh");
    assert_eq!(orders(checkout.path(), &commands), "42 apples\n");
    assert_eq!(records(&checkout.path().join("orders.mfq")), [b"42 apples"]);
}

#[test]
fn the_quick_starts_give_no_warning() {
    let checkout = checkout();
    support::compile(&checkout.path().join("orders.c"), checkout.path());
    let build = tempfile::tempdir().expect("a temporary directory");
    support::compile_by("c++", &["-std=c++17", "-pedantic"], &[&checkout.path().join("orders.cpp")], build.path());
}

#[needs("python3")]
#[test]
fn the_quick_start_in_python_runs_as_printed() {
    let mut python = support::python();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let told = support::stdout(python.args(["-c", &printed("Python and dlopen", "python")]).current_dir(dir.path()));
    assert_eq!(told, "0 b'42 apples'\n32 b'7 oranges'\n");
    assert_eq!(records(&dir.path().join("orders.mfq")), [b"42 apples", b"7 oranges"]);
}

#[needs("pkg-config")]
#[test]
fn installing_works_as_printed() {
    let (home, checkout) = (tempfile::tempdir().expect("a temporary directory"), checkout());
    // The library of this run; without it `make` would have cargo build one.
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &format!("{}./orders", printed("Installing", "sh"))]);
    shell.env("MFQ_LIBRARIES", support::library_dir()).env("HOME", home.path());
    support::run(shell.current_dir(checkout.path()));
    assert_eq!(records(&checkout.path().join("orders.mfq")), [b"42 apples"]);
}

#[needs("python3")]
#[test]
fn the_quick_starts_in_c_cpp_and_python_share_a_queue() {
    let checkout = checkout();
    let (in_c, in_cpp) = (printed("Quick start", "sh"), printed("C++", "sh"));
    orders(checkout.path(), &in_c);
    assert_eq!(orders(checkout.path(), &(in_c + &in_cpp)), "42 apples\n42 apples\n");
    let mut python = support::python();
    support::run(python.args(["-c", &printed("Python and dlopen", "python")]).current_dir(checkout.path()));
    let in_queue = records(&checkout.path().join("orders.mfq"));
    assert_eq!(in_queue, [&b"42 apples"[..], b"42 apples", b"42 apples", b"7 oranges"]);
}

#[test]
fn a_host_that_loads_the_library_itself_does_it_as_printed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, program) = (dir.path().join("loads.c"), dir.path().join("loads"));
    fs::write(&source, printed("Python and dlopen", "c")).expect("a source file");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror"]).arg(format!("-I{}/include", support::ROOT)).arg(source);
    support::run(cc.arg("-o").arg(&program).arg("-ldl"));
    symlink(support::library_dir().join("libmfq.so"), dir.path().join("libmfq.so.0")).expect("a link");
    support::run(Command::new(program).current_dir(dir.path()).env("LD_LIBRARY_PATH", dir.path()));
    assert_eq!(records(&dir.path().join("orders.mfq")), [b"42 apples"]);
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
