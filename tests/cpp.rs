//! `include/mfq.hpp` compiles without a warning as what it says, with the compilers that hosts have, and does what it says
//! on real lines, under the compilers' sanitizers too; so does the host in C++.

mod support;

use mfq::Options;
use needs::needs;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use support::engine::{open, read_all};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/mfq.hpp");
const SERVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples-c/log_service.cpp");
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

/// Compiles the program of `cpp/` and runs it on the lines of the C header.
fn runs(compiler: &str, options: &[&str]) {
    let build = tempfile::tempdir().expect("a temporary directory");
    let work = tempfile::tempdir().expect("a temporary directory");
    let sources = ["use.cpp", "misuse.cpp"].map(|name| Path::new(support::ROOT).join("tests/cpp").join(name));
    let options = [&STRICT, options].concat();
    let program = support::compile_by(compiler, &options, &sources.each_ref().map(PathBuf::as_path), build.path());
    let input = Path::new(support::ROOT).join("include/mfq.h");
    support::run(sanitized(&program, build.path()).arg(work.path()).arg(input));
}

/// Under ThreadSanitizer only the host and `mfq.hpp` are looked at: it cannot see what the threads of a library agree on
/// that was not compiled with it, and takes each copy in there for a race. (Its own have models of their own.) Where
/// addresses are spread over 32 bits (`vm.mmap_rnd_bits`) it does not start, so they are not spread.
fn sanitized(program: &Path, dir: &Path) -> Command {
    let suppressions = dir.join("suppressions");
    fs::write(&suppressions, "called_from_lib:libmfq.so\n").expect("a file");
    let mut command = Command::new("setarch");
    command.arg("-R").arg(program).env("TSAN_OPTIONS", format!("suppressions={}", suppressions.display()));
    command
}

#[needs("g++", "clang++")]
#[test]
fn the_header_compiles_alone_and_in_strict_hosts() {
    // What some hosts add to STRICT.
    let stricter = ["-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wold-style-cast", "-fsyntax-only"];
    for compiler in ["g++", "clang++"] {
        for standard in ["-std=c++17", "-std=c++20"] {
            for source in [HEADER, SERVICE] {
                let mut command = Command::new(compiler);
                command.args(["-x", "c++", standard]).args(STRICT).args(stricter);
                support::run(command.arg(format!("-I{}/include", support::ROOT)).arg(source));
            }
            let without = ["-fno-exceptions", "-fno-rtti", "-fsyntax-only"];
            support::run(Command::new(compiler).args(["-x", "c++", standard]).args(STRICT).args(without).arg(HEADER));
        }
    }
}

#[test]
fn an_older_standard_is_told_so() {
    let mut command = Command::new("c++");
    let output = command.args(["-x", "c++", "-std=c++14", "-fsyntax-only", HEADER]).output().expect("a compiler");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("mfq.hpp needs C++17"), "{told}");
}

/// What clang says of a function of a host with this body.
fn warnings_of(body: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("host.cpp");
    let code = format!("#include <mfq.hpp>\nchar host(mfq::queue &q) {{ {body} }}\n");
    fs::write(&source, code).expect("a source file");
    let mut clang = Command::new("clang++");
    clang.args(["-std=c++20", "-fsyntax-only"]).args(STRICT).arg(format!("-I{}/include", support::ROOT)).arg(source);
    String::from_utf8_lossy(&clang.output().expect("a compiler").stderr).into_owned()
}

#[needs("clang++")]
#[test]
fn bytes_that_outlive_their_view_or_claim_are_warned_of_and_others_are_not() {
    for dangling in [
        "auto s = q.view(0).str(); return s[0];",
        "const char *s = q.view(0).data(); return *s;",
        "auto s = q.view(0).bytes(); return char(s[0]);",
        "char *s = q.claim(8).data(); return *s;",
        "auto s = q.claim(8).bytes(); return char(s[0]);",
    ] {
        let told = warnings_of(dangling);
        assert!(told.contains("-Wdangling"), "{dangling}: {told}");
    }
    for fine in [
        "return q.view(0).str()[0];",
        "auto r = q.reader(0); auto s = r.next()->str(); return s[0];",
        "auto text = [](mfq::record r) { return r.str(); }; auto v = q.view(0); return text(v)[0];",
        "const mfq::record &r = q.view(0); return r.str()[0];",
    ] {
        assert_eq!(warnings_of(fine), "", "{fine}");
    }
}

#[needs("g++")]
#[test]
fn a_host_of_cpp17_by_gcc() {
    runs("g++", &["-std=c++17", "-O2"]); // some warnings come with it only
}

#[needs("clang++")]
#[test]
fn a_host_of_cpp20_by_clang() {
    runs("clang++", &["-std=c++20"]);
}

#[needs("g++")]
#[test]
fn a_host_of_cpp20_by_gcc_is_clean_with_sanitizers() {
    runs("g++", &["-std=c++20", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
}

#[needs("clang++")]
#[test]
fn a_host_of_cpp17_by_clang_is_clean_with_sanitizers() {
    runs("clang++", &["-std=c++17", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
}

#[needs("g++")]
#[test]
fn a_host_of_cpp17_by_gcc_has_no_races() {
    runs("g++", &["-std=c++17", "-O1", "-fsanitize=thread"]);
}

#[needs("clang++")]
#[test]
fn a_host_of_cpp20_by_clang_has_no_races() {
    runs("clang++", &["-std=c++20", "-O1", "-fsanitize=thread"]);
}

static LOG_SERVICE: LazyLock<PathBuf> = LazyLock::new(|| log_service("address,undefined"));

/// The host in C++, built by its own Makefile, with a sanitizer.
fn log_service(sanitizer: &str) -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("examples-cpp-{sanitizer}"));
    let program = build.join("log_service");
    let library = support::library_dir().join("libmfq.so");
    let mut make = Command::new("make");
    make.args(["-C", "examples-c"]).arg(&program).current_dir(support::ROOT).env("PWD", support::ROOT);
    make.arg(format!("CXXFLAGS=-O1 -g -fsanitize={sanitizer} -fno-sanitize-recover=all"));
    support::run(
        make.arg(format!("BUILD={}", build.display())).arg(format!("LIBRARY={}", library.display())).arg("library"),
    );
    program
}

/// What the service printed of one line of its input.
struct Logged<'a> {
    worker: &'a str,
    number: usize,
    text: &'a str,
}

fn logged(line: &str) -> Logged<'_> {
    let mut fields = line.splitn(3, '\t');
    let mut next = || fields.next().unwrap_or_else(|| panic!("three fields in {line:?}"));
    Logged { worker: next(), number: next().parse().expect("a number"), text: next() }
}

/// Each worker's lines are in the order of the input, and what is printed as a line of the input is that line.
fn check_order(printed: &[&str], input: &[&str]) {
    let mut last = BTreeMap::new();
    for line in printed {
        let Logged { worker, number, text } = logged(line);
        assert_eq!(text, input[(number - 1) % input.len()], "line {number}");
        assert!(last.insert(worker.to_owned(), number).is_none_or(|before| before < number), "{line:?} of {worker}");
    }
}

fn records(log: &Path) -> Vec<String> {
    let options = Options { read_only: true, ..Options::default() };
    read_all(&open(log, &options)).into_iter().map(|bytes| String::from_utf8(bytes).expect("text")).collect()
}

#[test]
fn the_service_logs_every_line_and_prints_the_log_as_it_is() {
    logs_every_line(&LOG_SERVICE);
}

#[test]
fn the_service_has_no_races() {
    logs_every_line(&log_service("thread"));
}

fn logs_every_line(service: &Path) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let text = fs::read_to_string(HEADER).expect("the header");
    let input: Vec<&str> = text.lines().collect();
    let mut in_log = Vec::new();
    for workers in ["1", "4"] {
        let stdin = File::open(HEADER).expect("the header");
        let told = support::stdout(sanitized(service, dir.path()).arg(&log).arg(workers).stdin(stdin));
        let printed: Vec<&str> = told.lines().collect();
        check_order(&printed, &input);
        let mut numbers: Vec<usize> = printed.iter().map(|line| logged(line).number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=input.len()), "every line is printed once");
        in_log.extend(printed.into_iter().map(str::to_owned).chain(["end".to_owned()]));
        assert_eq!(records(&log), in_log);
    }
}

#[test]
fn a_killed_service_has_logged_what_it_printed_and_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let text = fs::read_to_string(HEADER).expect("the header");
    let input: Vec<&str> = text.lines().collect();
    let mut service = Command::new(&*LOG_SERVICE);
    let mut running =
        service.arg(&log).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a service that starts");
    let mut stdin = running.stdin.take().expect("a pipe");
    let endless = text.clone();
    // Until the service is dead, and its end of the pipe closed.
    let feeder = thread::spawn(move || while stdin.write_all(endless.as_bytes()).is_ok() {});
    let mut stdout = BufReader::new(running.stdout.take().expect("a pipe"));
    let mut told = String::new();
    for _ in 0..500 {
        assert_ne!(stdout.read_line(&mut told).expect("text"), 0, "it ended by itself after: {told}");
    }
    running.kill().expect("a process to kill");
    running.wait().expect("its end");
    stdout.read_to_string(&mut told).expect("text");
    feeder.join().expect("a thread that ended");

    let whole = told.rfind('\n').map_or("", |end| &told[..end]);
    let printed: Vec<&str> = whole.lines().collect();
    check_order(&printed, &input);
    let before = records(&log);
    assert!(printed.len() >= 500 && before.len() >= printed.len());
    assert_eq!(before[..printed.len()], printed, "what was printed is what is in the log");

    let stdin = File::open(HEADER).expect("the header");
    let told = support::stdout(Command::new(&*LOG_SERVICE).arg(&log).stdin(stdin));
    check_order(&told.lines().collect::<Vec<_>>(), &input);
    let after = records(&log);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + input.len() + 1);
}

#[test]
fn a_service_says_why_it_cannot_go_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = |directory: &Path| {
        let mut service = Command::new(&*LOG_SERVICE);
        service.arg(directory).stdin(File::open(HEADER).expect("the header"));
        service
    };
    let output = service(Path::new("/no/such/place")).output().expect("a service that starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("/no/such/place"), "{output:?}");

    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = service(&dir.path().join("log")).stdout(full).output().expect("a service that starts");
    assert!(output.status.code() == Some(1) && !output.stderr.is_empty(), "{output:?}");

    let usage = service(dir.path()).arg("0").output().expect("a service that starts");
    assert!(usage.status.code() == Some(2) && usage.stderr.starts_with(b"usage: log_service"), "{usage:?}");
}
