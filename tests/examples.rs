//! The hosts in `examples-c`, built by their own Makefile against the library of this run, do what they say on real
//! input.

mod support;

use mfq::{Deadline, Format, Options, Queue, Reader};
use std::fs;
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/mfq.h");
const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");

/// Built once for all tests here.
static HOSTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let hosts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-c");
    support::run(&mut make("all", &hosts));
    hosts
});

fn make(what: &str, build: &Path) -> Command {
    let mut make = Command::new("make");
    make.args(["-C", "examples-c", what]).current_dir(support::ROOT).env("PWD", support::ROOT);
    make.arg(format!("BUILD={}", build.display()));
    make.arg(format!("LIBRARY={}", support::library_dir().join("libmfq.so").display()));
    make
}

/// A host, with a directory of its own for what it makes.
struct Host {
    command: Command,
    scratch: TempDir,
}

impl Host {
    fn new(name: &str, arguments: &[&str]) -> Host {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(HOSTS.join(name));
        command.args(arguments).env("TMPDIR", scratch.path()).env("LC_ALL", "C").stdin(Stdio::null());
        Host { command, scratch }
    }

    fn lines(arguments: &[&str]) -> Host {
        Host::new("mfq_lines", arguments)
    }

    fn stdin(mut self, bytes: &[u8]) -> Host {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).and_then(|()| file.rewind()).expect("a temporary file takes bytes");
        self.command.stdin(file);
        self
    }

    /// Runs it, and checks that it left nothing behind.
    fn output(mut self) -> Output {
        let output = self.command.output().expect("a host that can be run");
        let left: Vec<_> = fs::read_dir(self.scratch.path()).expect("a directory").collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        output
    }

    fn succeeds(self) -> String {
        let output = self.output();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn fails(self, status: i32) -> String {
        let output = self.output();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

/// The number in front of `what`.
fn number_before(text: &str, what: &str) -> u64 {
    let before = text.split(what).next().filter(|before| before.len() < text.len());
    let word = before.and_then(|before| before.split_whitespace().next_back());
    let digits = word.unwrap_or_else(|| panic!("no {what:?} in {text}")).replace(',', "");
    digits.parse().unwrap_or_else(|_| panic!("no number before {what:?} in {text}"))
}

fn line_count(path: &str) -> u64 {
    fs::read(path).expect("an input").split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Every record was read back, it rolled as often as it had to, and each roll is accounted for.
fn check_account(told: &str, records: u64) {
    assert_eq!(number_before(told, " records read back, every byte as it was appended"), records, "{told}");
    let rolls = told.lines().find_map(|line| line.strip_prefix("  rolls")).expect("a line about rolls");
    let rolls: u64 = rolls.split_whitespace().next().expect("a number").replace(',', "").parse().expect("a number");
    assert!(rolls >= 31, "{told}");
    assert_eq!(number_before(told, " found the file ready") + number_before(told, " waited"), rolls, "{told}");
}

#[test]
fn lines_come_back_from_one_thread_and_from_several_in_both_formats() {
    for input in [HEADER, LOCK] {
        for arguments in [&["-t1"][..], &["-t4"], &["--raw"], &["--raw", "--threads=3"]] {
            let told = Host::lines(&[arguments, &["--file-size=4K", "--passes=10", input]].concat()).succeeds();
            check_account(&told, 10 * line_count(input));
        }
    }
}

#[test]
fn make_run_appends_the_input_that_is_named_from_where_make_was_called() {
    let told = support::stdout(make("run", &HOSTS).args(["INPUT=include/mfq.h", "ARGS=-f64K --raw"]));
    assert!(told.contains("include/mfq.h: ") && told.contains("RAW"), "{told}");
    check_account(&told, number_before(&told, " times over") * line_count(HEADER));
}

#[test]
fn a_small_input_is_appended_as_often_as_fills_many_files() {
    let told = Host::lines(&["-f64K", LOCK]).succeeds();
    let passes = number_before(&told, " times over");
    assert!(passes > 1, "{told}");
    check_account(&told, passes * line_count(LOCK));
}

#[test]
fn large_files_do_not_make_a_small_input_endless() {
    // 32 files of 16 MiB would be twice as much.
    let input = [b'x'; 1 << 20];
    let told = Host::lines(&["-f16M", "--raw", "-"]).stdin(&input).succeeds();
    assert_eq!(number_before(&told, " times over"), 256, "{told}");
    assert_eq!(number_before(&told, " records read back"), 256, "{told}");
}

#[test]
fn no_row_ends_in_a_blank_and_no_percentile_is_told_that_the_sample_cannot_support() {
    let told = Host::lines(&["-p1", "-"]).stdin(&b"a line\n".repeat(196)).succeeds();
    assert!(told.lines().all(|line| !line.ends_with(' ')), "{told:?}");
    assert!(told.contains(" 99 %") && told.contains(" all") && !told.contains("99.9"), "{told}");
    let told = Host::lines(&["-p1", "-"]).stdin(b"a line\n").succeeds();
    assert!(told.lines().all(|line| !line.ends_with(' ')), "{told:?}");
    assert!(told.contains(" all") && !told.contains("50 %"), "{told}");
}

#[test]
fn standard_input_is_taken_as_it_is() {
    let input = b"one\n\n\0two\0\nthe last one has no newline".as_slice();
    for arguments in [&["-"][..], &["--raw", "-"], &["-t8", "-"]] {
        let told = Host::lines(&[arguments, &["-p1"]].concat()).stdin(input).succeeds();
        assert_eq!(number_before(&told, " records read back"), 4, "{told}");
    }
}

#[test]
fn an_empty_input_is_no_error() {
    for arguments in [&["-"][..], &["--raw", "-"], &["-t2", "/dev/null"]] {
        let told = Host::lines(arguments).stdin(b"").succeeds();
        assert_eq!(number_before(&told, " records read back"), 0, "{told}");
    }
}

#[test]
fn a_queue_that_is_kept_holds_the_lines_and_is_appended_to() {
    let kept = tempfile::tempdir().expect("a temporary directory");
    let queue = kept.path().join("queue");
    let directory = format!("--directory={}", queue.display());
    for _ in 0..2 {
        Host::lines(&["-p1", "-f4K", &directory, HEADER]).succeeds();
    }
    let bytes = fs::read(HEADER).expect("the header");
    let lines: Vec<&[u8]> = bytes.strip_suffix(b"\n").expect("a newline").split(|byte| *byte == b'\n').collect();
    let options = Options { read_only: true, ..Options::default() };
    let queue = Queue::open(mfq::os::native(), &queue, &options).expect("the queue");
    let mut reader = Reader::open(&queue, 0).expect("a reader");
    for line in lines.iter().chain(&lines) {
        let view = reader.next(&queue, Deadline::after_ms(0), &AtomicBool::new(false)).expect("a record");
        // SAFETY: the view holds its file, and nobody writes it.
        assert_eq!(unsafe { std::slice::from_raw_parts(view.ptr, view.len) }, *line);
    }
}

#[test]
fn a_raw_queue_that_is_kept_is_the_input_itself() {
    let kept = tempfile::tempdir().expect("a temporary directory");
    let queue = kept.path().join("queue");
    let told = Host::lines(&["-p1", "--raw", "-d", queue.to_str().expect("a plain path"), HEADER]).succeeds();
    assert!(told.contains("RAW"), "{told}");
    let bytes = fs::read(HEADER).expect("the header");
    let file = fs::read(queue.join("00000000000000000000")).expect("the first file");
    assert!(file.starts_with(&bytes) && file[bytes.len()..].iter().all(|byte| *byte == 0));
    let options = Options { read_only: true, format: Format::Raw, ..Options::default() };
    let queue = Queue::open(mfq::os::native(), &queue, &options).expect("the queue");
    assert_eq!(queue.offsets().expect("offsets").committed, bytes.len() as u64);
}

#[test]
fn a_line_that_does_not_fit_into_a_file_is_named_by_its_number() {
    let input = [b"short\n\n".as_slice(), &[b'x'; 5000], b"\nshort\n"].concat();
    for arguments in [&["-"][..], &["--raw", "-"], &["-t2", "-"]] {
        let told = Host::lines(&[arguments, &["-f4K"]].concat()).stdin(&input).fails(1);
        assert!(told.contains("line 3:"), "{told}");
    }
}

#[test]
fn what_cannot_be_read_or_opened_is_named() {
    assert!(Host::lines(&["/no/such/file"]).fails(1).contains("/no/such/file: No such file"));
    assert!(Host::lines(&["/"]).fails(1).contains("/: Is a directory"));
    // Alone: nothing was told about a job that did not begin.
    for (arguments, named) in [
        (["-d", "/no/such/place", HEADER], "/no/such/place"),
        (["-f", "5000", HEADER], "file_size 5000"),
        (["-f", "17179869183G", HEADER], "file_size 18446744072635809792"),
    ] {
        let output = Host::lines(&arguments).output();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && told.lines().count() == 1 && told.contains(named), "{output:?}");
    }
}

#[test]
fn make_names_the_library_that_it_misses() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let link = build.path().join("libmfq.so.0");
    let mut make = make(link.to_str().expect("a plain path"), build.path());
    let output = make.arg("LIBRARY=/no/such/libmfq.so").output().expect("make");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("/no/such/libmfq.so: there is no such library"), "{output:?}");
}

#[test]
fn a_senseless_command_line_is_told_apart_from_a_failure() {
    for (arguments, named) in [
        (&["-t0", HEADER][..], "--threads 0"),
        (&["--threads=257", HEADER], "--threads 257"),
        (&["--passes=-1", HEADER], "--passes -1"),
        (&["--file-size=1X", HEADER], "--file-size 1X"),
        (&["--what", HEADER], "--what"),
        (&[], "no FILE"),
        (&[HEADER, LOCK], "more than one FILE"),
    ] {
        let told = Host::lines(arguments).fails(2);
        assert!(told.starts_with("mfq_lines: ") && told.contains(named) && told.contains("--help"), "{told}");
    }
    assert!(Host::lines(&["--help"]).succeeds().starts_with("usage: mfq_lines"));
}

#[test]
fn the_comparison_notices_one_wrong_byte() {
    let build = tempfile::tempdir().expect("a temporary directory");
    let shim = build.path().join("one_byte_off.so");
    support::run(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"])
            .arg(format!("-I{}/include", support::ROOT))
            .arg(format!("{}/tests/c/one_byte_off.c", support::ROOT))
            .arg("-o")
            .arg(&shim)
            .arg("-ldl"),
    );
    for arguments in [&["-p1", HEADER][..], &["-p1", "--raw", HEADER]] {
        let mut host = Host::lines(arguments);
        host.command.env("LD_PRELOAD", &shim);
        let told = host.fails(1);
        assert!(told.contains("line 1") && told.contains("its bytes are others"), "{told}");
    }
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let mut host = Host::lines(&["--passes=100000", HEADER]);
    let mut running = host.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a host");
    let mut told = BufReader::new(running.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("queue") {
        line.clear();
        assert_ne!(told.read_line(&mut line).expect("text"), 0, "it ended before it told about its queue");
    }
    // SAFETY: takes integers only; the process is ours and not waited for yet.
    assert_eq!(unsafe { libc::kill(running.id() as libc::pid_t, libc::SIGINT) }, 0);
    let output = running.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert_eq!(fs::read_dir(host.scratch.path()).expect("a directory").count(), 0);
}

#[test]
fn the_companions_show_their_one_thing() {
    let told = Host::new("claim_commit", &[]).succeeds();
    assert!(told.contains("\"I know that I lie at offset 0\"\n  \"appended\"\n"), "{told}");
    let told = Host::new("tail", &[]).succeeds();
    assert!(told.contains("offset   0  the first") && told.contains("and a last record"), "{told}");
    let told = Host::new("get_last", &[]).succeeds();
    assert!(told.lines().count() == 5 && told.contains("held after a close"), "{told}");
}
